"""Degrade sharp scans, run models beside the baselines, score against the truth: one procedure for papers, cards and CI."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UnsuitableVolume, UsageError
from ..io.formats import volume_name
from ..models import BASELINES, ModelEntry, Score, find_model
from ..volume import Volume
from . import metrics
from .degrade import Trial, scored_axis

if TYPE_CHECKING:
    from ..inference.options import Options

Report = Callable[[str], None]


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
    from ..inference import super_resolve
    from ..inference.options import Options

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
    found = metrics.summary(answer.array, trial.truth.array, axis=scored_axis(trial))
    return Row(trial.truth.name, model, trial.plane, trial.factor, trial.degradation, found, seconds)


def with_baselines(models: Sequence[str | ModelEntry]) -> list[str | ModelEntry]:
    """The baselines, then the models that are none."""
    return [*BASELINES, *(model for model in models if model not in BASELINES)]


def publish(rows: Sequence[Row], model: str | ModelEntry, out: str | Path) -> ModelEntry:
    """Write `model` to the file `out` with its scores in `rows`, beside the baselines', printed in its card."""
    from ..models import load_network, save_model

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
