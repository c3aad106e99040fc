"""Degrade sharp scans, run models beside the baselines, score against the truth: one procedure for papers, cards and CI."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import metrics
from .acquisition import Degradation, acquire, preset
from .errors import MissingRequirement, OutputError, UnsuitableVolume, UsageError
from .models import BASELINES, ModelEntry, Score, find_model
from .staging import Staging
from .volume import FEWEST_SLICES, Grid, Volume, volume_name

if TYPE_CHECKING:
    from .inference.options import Options

Report = Callable[[str], None]
REFERENCE_BASELINES = ("bspline", "lanczos")  # gains are told over these
DEFAULT_DEGRADATION = {"in-plane": "bicubic-noise", "through-plane": "through-gaussian"}
ANISOTROPIC = 1.2
FIGURES = (".png", ".pdf", ".svg", ".jpg")


@dataclass(frozen=True)
class Row:
    """One model on one scan. metrics: as `metrics.summary` names them; seconds: of the run alone.

    scan: the name of the truth, by which rows are compared: several scans need different ones (`scan_names`).
    """

    scan: str
    model: str
    plane: str
    factor: float
    degradation: str
    metrics: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Trial:
    """A truth made coarse: `low` covers exactly the extent of `truth`. axis: of i, j, k, the acquired slices'."""

    truth: Volume
    low: Volume
    axis: int
    plane: str
    factor: float
    degradation: str


def make_trial(
    truth: Volume,
    plane: str,
    factor: float,
    degradation: Degradation | str | None = None,
    *,
    seed: int = 0,
    slices: int | None = None,
    slice_axis: int | None = None,
) -> Trial:
    """`truth` trimmed to a multiple of `factor`, and coarsened.

    plane: "in-plane" coarsens both axes within the slices, "through-plane" the slice axis. slices: keep only that many in the
    middle of the head (in-plane: acquired slices; through-plane: voxels along one in-plane axis), to be quick. slice_axis: of
    i, j, k; by default the coarsest, or the axial one of an isotropic scan. Raises `UsageError` for values that make no
    trial, `UnsuitableVolume` for a scan too small for the factor.
    """
    if plane not in DEFAULT_DEGRADATION:
        raise UsageError(f"plane is '{plane}', expected in-plane or through-plane")
    if not (math.isfinite(factor) and factor > 1):
        raise UsageError(f"factor is {factor:g}, expected a number of more than 1")
    if seed < 0:
        raise UsageError(f"seed is {seed}, expected 0 or more")
    if slices is not None and slices < FEWEST_SLICES:
        raise UsageError(f"slices is {slices}, expected at least {FEWEST_SLICES}")
    if slice_axis not in (None, 0, 1, 2):
        raise UsageError(f"slice axis is {slice_axis}, expected 0, 1 or 2 (i, j or k)")
    way = degradation or DEFAULT_DEGRADATION[plane]
    axis = acquired_axis(truth.grid) if slice_axis is None else slice_axis
    coarse = [other != axis if plane == "in-plane" else other == axis for other in range(3)]
    factors = tuple(float(factor) if along else 1.0 for along in coarse)
    if slices is not None:
        truth = _middle(truth, axis if plane == "in-plane" else next(a for a in (1, 0, 2) if a != axis), slices)
    start, size = [0, 0, 0], list(truth.grid.size)
    for other in range(3):
        if coarse[other]:
            low = int(size[other] // factor)
            kept = round(low * factor)
            if low < 2 or abs(kept - low * factor) > 1e-6:
                low = int(low * factor // 1 // factor)
                kept = int(low * factor)
            if low < 2:
                raise UnsuitableVolume(
                    f"{truth.name} has too few voxels ({size[other]}) to be made {factor:g} times coarser"
                )
            start[other], size[other] = (size[other] - kept) // 2, kept
    truth = truth.crop(tuple(start), tuple(size))  # type: ignore[arg-type]
    name = way if isinstance(way, str) else way.kind
    if slices is not None:
        name += f", {slices} middle slices"
    return Trial(truth, acquire(truth, factors, preset(way), seed=seed), axis, plane, factor, name)  # type: ignore[arg-type]


def acquired_axis(grid: Grid) -> int:
    """The axis slices were acquired along: the coarsest, or where spacings are alike the one whose slices are axial."""
    if max(grid.spacing) > ANISOTROPIC * min(grid.spacing):
        return grid.slice_axis
    return next((axis for axis in range(3) if grid.axis_name(axis) == "axial"), grid.slice_axis)


def scan_names(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """A name for each scan, all different: its file's; where several are alike, its folder's before it, or a number after."""
    files = [Path(os.path.abspath(path)) for path in paths]
    names = [volume_name(file) for file in files]
    found: list[str] = []
    for file, name in zip(files, names, strict=True):
        own = f"{file.parent.name}_{name}" if names.count(name) > 1 else name
        numbered = (f"{own}-{number}" for number in itertools.count(2))
        found.append(next(free for free in itertools.chain([own], numbered) if free not in found))
    return found


def evaluate(
    trial: Trial,
    models: Iterable[str | ModelEntry],
    *,
    reference: Volume | None = None,
    options: Options | None = None,
    report: Report | None = None,
) -> tuple[list[Row], dict[str, Volume]]:
    """Each model's answer to `trial`, scored inside the head, whole and per slice; the rows, and the answers by model."""
    from .inference import super_resolve
    from .inference.options import Options

    run = replace(options or Options(), slice_axis=trial.axis)
    entries = [find_model(model, run.model_folders) if isinstance(model, str) else model for model in models]
    rows, answers = [], {}
    for entry in entries:
        started = time.monotonic()
        answer = super_resolve(
            trial.low,
            entry,
            spacing=trial.truth.grid.spacing,
            plane=trial.plane,
            reference=reference if entry.card.task == "reference-guided" else None,
            options=run,
            warn=lambda code, message: None if report is None else report(f"  {message} ({code})"),
        )
        rows.append(score(trial, answer, entry.card.id, time.monotonic() - started))
        answers[entry.card.id] = answer
        if report:
            found = rows[-1].metrics
            report(
                f"{rows[-1].scan}  {entry.card.id}: {found['psnr']:.2f} dB, SSIM {found['ssim']:.4f}, {rows[-1].seconds:.0f} s"
            )
    return rows, answers


def score(trial: Trial, answer: Volume, model: str, seconds: float = 0.0) -> Row:
    """`answer`, on the truth's grid, scored against it."""
    if not answer.grid.same_as(trial.truth.grid):
        raise UnsuitableVolume(f"the answer of '{model}' lies on another grid than the truth")
    found = metrics.summary(answer.array, trial.truth.array, axis=_scored_axis(trial))
    return Row(trial.truth.name, model, trial.plane, trial.factor, trial.degradation, found, seconds)


def with_baselines(models: Sequence[str | ModelEntry]) -> list[str | ModelEntry]:
    """The baselines, then the models that are none."""
    return [*BASELINES, *(model for model in models if model not in BASELINES)]


def table(rows: Sequence[Row]) -> str:
    """Scores as text: a line for each scan and model, then each model's mean, standard deviation and gain over the baselines."""
    if not rows:
        return "nothing was scored"
    width = max(len(row.model) for row in rows)
    scan_width = max(len("mean over 00 scans"), *(len(row.scan) for row in rows))
    lines = [
        f"{'scan':{scan_width}}  {'model':{width}}  {'PSNR dB':>15}  {'SSIM':>15}  {'NMSE':>8}  {'PSNR/slice':>10}  {'s':>6}"
    ]
    for row in rows:
        m = row.metrics
        lines.append(
            f"{row.scan:{scan_width}}  {row.model:{width}}  {m['psnr']:15.2f}  {m['ssim']:15.4f}  {m['nmse']:8.5f}"
            f"  {m['psnr_slices']:10.2f}  {row.seconds:6.1f}"
        )
    scans = len({row.scan for row in rows})
    lines.append("")
    for model in dict.fromkeys(row.model for row in rows):
        own = [row.metrics for row in rows if row.model == model]
        mean, deviation = ({name: float(f([m[name] for m in own])) for name in own[0]} for f in (np.mean, np.std))
        lines.append(
            f"{f'mean over {scans} scans':{scan_width}}  {model:{width}}  {mean['psnr']:7.2f} +- {deviation['psnr']:4.2f}"
            f"  {mean['ssim']:7.4f}+-{deviation['ssim']:.4f}  {mean['nmse']:8.5f}  {mean['psnr_slices']:10.2f}{_gains(rows, model)}"
        )
    return "\n".join(lines)


def gains(rows: Sequence[Row], model: str, baseline: str) -> dict[str, float]:
    """PSNR of `model` above that of `baseline` by scan, dB."""
    base = {row.scan: row.metrics["psnr"] for row in rows if row.model == baseline}
    return {row.scan: row.metrics["psnr"] - base[row.scan] for row in rows if row.model == model and row.scan in base}


def _gains(rows: Sequence[Row], model: str) -> str:
    parts = []
    for baseline in REFERENCE_BASELINES:
        found = list(gains(rows, model, baseline).values())
        if model not in BASELINES and found:
            parts.append(f"{np.mean(found):+.2f} dB over {baseline} (least {min(found):+.2f})")
    return "   " + ", ".join(parts) if parts else ""


def to_json(rows: Sequence[Row]) -> str:
    """The rows as a JSON list."""
    return json.dumps([asdict(row) for row in rows], indent=1)


def check_figure(path: str | os.PathLike[str]) -> None:
    """Raise what `figure` would raise after all the work: `MissingRequirement` without matplotlib, `OutputError`."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingRequirement("matplotlib draws the figure and is not installed (pip install matplotlib)")
    if Path(path).suffix.lower() not in FIGURES:
        raise OutputError(
            f"{path}: a figure is drawn as {', '.join(FIGURES)}, not as '{Path(path).suffix}'", code="output-format"
        )
    Staging().path(path)


def figure(path: str | os.PathLike[str], trial: Trial, answers: dict[str, Volume]) -> None:
    """Truth, acquired and each answer through the middle of the head; below, absolute errors on one colour scale.

    path: the picture, in one of the formats `FIGURES`. Raises what `check_figure` raises.
    """
    check_figure(path)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    axis, spacing = _scored_axis(trial), trial.truth.grid.spacing[::-1]
    box = metrics.head_box(trial.truth.array)
    middle = (
        (box[axis].start + box[axis].stop) // 2 if box[axis].start is not None else trial.truth.array.shape[axis] // 2
    )

    def cut(array: np.ndarray) -> np.ndarray:
        index = min(array.shape[axis] - 1, middle * array.shape[axis] // trial.truth.array.shape[axis])
        image = np.take(array, index, axis=axis)
        return image[::-1] if _upside_down(trial.truth.grid, axis) else image

    rest = [a for a in range(3) if a != axis]
    height, width = (trial.truth.array.shape[a] * spacing[a] for a in rest)
    extent = (0.0, width, height, 0.0)
    high = float(np.percentile(cut(trial.truth.array), 99.8))
    low = float(np.percentile(trial.truth.array, 0.1))
    worst = 0.0
    for name in ("bspline", *answers):
        if name in answers:
            worst = float(np.percentile(np.abs(cut(answers[name].array) - cut(trial.truth.array)), 99.5)) or 1.0
            break
    columns = 2 + len(answers)
    plot, axes = plt.subplots(2, columns, figsize=(2.6 * columns, 2 * 2.6 * height / width + 0.8), layout="constrained")
    shown = [("truth", trial.truth), (f"acquired (x{trial.factor:g} coarser)", trial.low), *answers.items()]
    colours = None
    for column, (name, volume) in enumerate(shown):
        axes[0, column].imshow(
            cut(volume.array), cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="nearest"
        )
        axes[0, column].set_title(name, fontsize=9)
        axes[0, column].axis("off")
        axes[1, column].axis("off")
        if column >= 2:
            error = np.abs(cut(volume.array) - cut(trial.truth.array))
            colours = axes[1, column].imshow(
                error, cmap="inferno", vmin=0, vmax=worst, extent=extent, interpolation="nearest"
            )
            found = score(trial, volume, name).metrics
            axes[1, column].set_title(f"{found['psnr']:.2f} dB  SSIM {found['ssim']:.3f}", fontsize=9)
    if colours is not None:
        plot.colorbar(colours, ax=axes[1, :], location="right", shrink=0.8, label="absolute error, the scan's units")
    try:
        with Staging() as files:
            plot.savefig(files.path(path), dpi=130)
            files.commit()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        plt.close(plot)


def _upside_down(grid: Grid, array_axis: int) -> bool:
    """Whether rows of a slice across `array_axis` run from foot to head, or from front to back reversed."""
    rows = 2 - min(a for a in range(3) if a != array_axis)
    column = grid.axes[:, rows]
    return bool(column[2] > 0.5 or (abs(column[1]) > 0.5 and column[1] < 0))


def _scored_axis(trial: Trial) -> int:
    """The array axis whose slices the network's plane shows: the acquired slices, or a reformat that holds the slice axis."""
    if trial.plane == "in-plane":
        return 2 - trial.axis
    return 2 - next(axis for axis in (1, 0, 2) if axis != trial.axis)


def _middle(volume: Volume, axis: int, count: int) -> Volume:
    box = metrics.head_box(volume.array)[2 - axis]
    size = volume.grid.size[axis]
    first, last = (box.start, box.stop) if box.start is not None else (0, size)
    start = max(0, min((first + last - count) // 2, size - count))
    corner, kept = [0, 0, 0], list(volume.grid.size)
    corner[axis], kept[axis] = start, min(count, size)
    return volume.crop(tuple(corner), tuple(kept))  # type: ignore[arg-type]


def publish(rows: Sequence[Row], model: str | ModelEntry, out: str | Path) -> ModelEntry:
    """Write `model` to the file `out` with its scores in `rows`, beside the baselines', printed in its card."""

    from .models import load_network, save_model

    entry = find_model(model) if isinstance(model, str) else model
    scores = tuple(
        Score(
            scan=row.scan,
            plane=row.plane,
            degradation=f"{row.degradation}, x{row.factor:g}",
            psnr=round(row.metrics["psnr"], 3),
            ssim=round(row.metrics["ssim"], 5),
            nmse=round(row.metrics["nmse"], 6),
            baseline={
                other.model: (round(other.metrics["psnr"], 3), round(other.metrics["ssim"], 5))
                for other in rows
                if other.scan == row.scan and other.model in BASELINES
            },
        )
        for row in rows
        if row.model == entry.card.id
    )
    if not scores:
        raise UsageError(f"'{entry.card.id}' was not scored: nothing to print in its card")
    weights = load_network(entry, for_inference=False).state_dict()
    return save_model(out, replace(entry.card, metrics=scores), weights)
