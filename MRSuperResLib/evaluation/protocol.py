"""A paper's table as a file: which slices of a public data set, how made coarse, how scored, and the paper's own rows.

`protocols/*.toml` hold what the papers print; what they do not print is listed as assumed, and told with the scores. Whoever has
the data set gets the table beside the paper's rows with one command.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..acquisition import Degradation, acquire, preset
from ..documents import BadDocument, decode, expected
from ..errors import UnsuitableVolume, UsageError
from ..intensity import IntensityScale
from ..io.read import read_volume
from ..models import ModelEntry, find_model
from ..volume import Volume
from . import metrics
from .fastmri import acquisition_of, read_fastmri

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from ..inference.options import Options

Report = Callable[[str], None]
FOLDER = Path(__file__).resolve().parent / "protocols"
SCORES = ("psnr", "ssim", "nmse")
BASELINE = "bicubic"  # what the papers compare with
PAIRS = "pairs.csv"  # beside the data: file, reference's file; for data sets whose names do not tell persons


@dataclass(frozen=True)
class Contrast:
    """Scans of one contrast. files: patterns below the data set's folder. slice_axis: of i, j, k, across the acquired slices.
    scored_axis: across the slices that are scored, the same by default. crop: voxels kept in the middle along i, j, k, 0 for all.
    acquisition: what a fastMRI file must say that it holds, "" for anything.
    """

    name: str
    files: tuple[str, ...]
    slice_axis: int = 2
    scored_axis: int | None = None
    crop: tuple[int, int, int] = (0, 0, 0)
    acquisition: str = ""


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper's table: means over all slices, 0 where it gives none. source: the table or figure."""

    contrast: str
    method: str
    psnr: float
    ssim: float = 0.0
    nmse: float = 0.0
    source: str = ""


@dataclass(frozen=True)
class Protocol:
    """How a paper made and scored its images.

    slices: "all", "not-empty" or "labelled", those that the label map beside the scan (`labels`, a pattern in its folder) marks.
    degradation: a preset of `acquisition`. data_range: of PSNR and SSIM, the largest value of each "volume" or "slice", or
    "robust". person: a pattern whose match in a file's path tells whose it is; scans of `reference`, a contrast's name, guide
    models that use one. assumed: what the paper does not print.
    """

    title: str
    paper: str
    data: str
    plane: Literal["in-plane", "through-plane"]
    factor: int
    degradation: str
    contrasts: tuple[Contrast, ...]
    rows: tuple[PaperRow, ...]
    slices: Literal["all", "not-empty", "labelled"] = "all"
    labels: str = ""
    data_range: Literal["volume", "slice", "robust"] = "volume"
    person: str = ""
    reference: str = ""
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """One scan of a data set. labels, reference: files, None without."""

    contrast: Contrast
    path: Path
    labels: Path | None = None
    reference: Path | None = None


@dataclass(frozen=True)
class SliceScores:
    """One model on the slices of one contrast: scores, (n,) each, of all slices of all scans."""

    contrast: str
    model: str
    scans: int
    psnr: np.ndarray
    ssim: np.ndarray
    nmse: np.ndarray


def protocol_names() -> list[str]:
    """The protocols there are."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_protocol(name: str) -> Protocol:
    """The protocol `name`, or that in a TOML file. Raises `UsageError`: there is none, or a field of it is wrong."""
    names = protocol_names()
    path = FOLDER / f"{name}.toml" if name in names else Path(name)
    if not path.is_file():
        raise UsageError(f"no protocol is called '{name}'; {expected(name, names)}, or give a .toml file")
    try:
        return decode(Protocol, tomllib.loads(path.read_text(encoding="utf-8")))
    except (BadDocument, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"protocol {path}: {error}") from error


def find_cases(protocol: Protocol, folder: str | Path) -> list[Case]:
    """The scans of `folder` that the protocol is about. Raises `UsageError` if there are none, saying what was looked for."""
    root = Path(folder)
    if not root.is_dir():
        raise UsageError(f"{root} is no folder: give that of the data set ({protocol.data})")
    found = {
        contrast.name: sorted({path for pattern in contrast.files for path in root.glob(pattern) if path.is_file()})
        for contrast in protocol.contrasts
    }
    if not any(found.values()):
        patterns = ", ".join(pattern for contrast in protocol.contrasts for pattern in contrast.files)
        raise UsageError(f"{root} holds no file like {patterns}: {protocol.data}")
    pairs = _pairs(protocol, root, found)
    cases = []
    for contrast in protocol.contrasts:
        if contrast.name == protocol.reference and len(protocol.contrasts) > 1 and not _has_row(protocol, contrast):
            continue
        for path in (path for path in found[contrast.name] if not (root / PAIRS).is_file() or path in pairs):
            labels = next(iter(sorted(path.parent.glob(protocol.labels))), None) if protocol.labels else None
            if protocol.slices == "labelled" and labels is None:
                raise UsageError(f"{path.parent} holds no label map like {protocol.labels}, which tells the slices")
            cases.append(Case(contrast, path, labels, pairs.get(path)))
    return cases


def run_protocol(
    protocol: Protocol,
    folder: str | Path,
    models: Sequence[str | ModelEntry],
    *,
    options: Options | None = None,
    report: Report | None = None,
) -> list[SliceScores]:
    """`models`, and bicubic interpolation, on all scans of `folder`, scored slice by slice as the paper does.

    Models guided by a reference are run where the scan has one. Raises what `find_cases`, reading and super-resolution raise.
    """
    from ..inference import super_resolve
    from ..inference.options import Options

    run, say = options or Options(), report or (lambda line: None)
    entries = [find_model(model, run.model_folders) if isinstance(model, str) else model for model in models]
    entries = [find_model(BASELINE), *(entry for entry in entries if entry.card.id != BASELINE)]
    collected: dict[tuple[str, str], list[dict[str, list[float]]]] = {}
    for case in find_cases(protocol, folder):
        if case.path.suffix == ".h5" and case.contrast.acquisition not in acquisition_of(case.path):
            continue
        truth, reference = prepared(protocol, case)
        axis = case.contrast.slice_axis
        factors = tuple(
            float(protocol.factor) if (n == axis) == (protocol.plane == "through-plane") else 1.0 for n in range(3)
        )
        low = acquire(truth, (factors[0], factors[1], factors[2]), _way(protocol), seed=0)
        for entry in entries:
            guided = entry.card.task == "reference-guided"
            if guided and reference is None:
                say(f"  {case.path.name}: '{entry.card.id}' is left out, there is no reference")
                continue
            answer = super_resolve(
                low,
                entry,
                spacing=truth.grid.spacing,
                plane=protocol.plane,
                reference=reference if guided else None,
                options=replace(run, slice_axis=axis),
                warn=lambda code, message: say(f"  {message} ({code})"),
            )
            scores = score_slices(protocol, case.contrast, answer.array, truth.array)
            collected.setdefault((case.contrast.name, entry.card.id), []).append(scores)
            say(
                f"{case.path.name}  {entry.card.id}: {np.mean(scores['psnr']):.2f} dB over {len(scores['psnr'])} slices"
            )
    return [
        SliceScores(contrast, model, len(scans), *(np.concatenate([scan[name] for scan in scans]) for name in SCORES))
        for (contrast, model), scans in collected.items()
    ]


def prepared(protocol: Protocol, case: Case) -> tuple[Volume, Volume | None]:
    """The truth of a case, its slices chosen and cropped, and its reference likewise."""
    axis = 2 - case.contrast.slice_axis
    truth = _cropped(_read(case.path), case.contrast)
    chosen = np.ones(truth.array.shape[axis], dtype=bool)
    if protocol.slices == "labelled" and case.labels is not None:
        labels = _cropped(read_volume(case.labels, allow_labels=True), case.contrast)
        if labels.array.shape != truth.array.shape:
            raise UnsuitableVolume(f"{case.labels} has another size than {case.path}", code="other-size")
        chosen = np.asarray(np.moveaxis(labels.array > 0, axis, 0).any(axis=(1, 2)))
    elif protocol.slices == "not-empty" and protocol.plane == "in-plane":
        chosen = _seen(np.moveaxis(truth.array, axis, 0))
    if not chosen.any():
        raise UnsuitableVolume(f"no slice of {case.path} is to be scored: is it the right file?", code="no-slices")
    reference = None if case.reference is None else _cropped(_read(case.reference), case.contrast)
    return _taken(truth, axis, chosen), None if reference is None else _taken(reference, axis, chosen)


def score_slices(
    protocol: Protocol, contrast: Contrast, answer: np.ndarray, truth: np.ndarray
) -> dict[str, list[float]]:
    """PSNR, SSIM and NMSE of every scored slice."""
    axis = 2 - (contrast.slice_axis if contrast.scored_axis is None else contrast.scored_axis)
    ours, real = (np.moveaxis(array, axis, 0) for array in (answer, truth))
    robust = IntensityScale.of(truth)
    found: dict[str, list[float]] = {name: [] for name in SCORES}
    kept = _seen(real) if protocol.slices == "not-empty" else np.ones(len(real), dtype=bool)
    for one, other in zip(ours[kept], real[kept], strict=True):
        peaks = {"volume": float(truth.max()), "slice": float(other.max()), "robust": robust.high - robust.low}
        peak = peaks[protocol.data_range]
        if peak <= 0 or not other.any():
            continue  # an empty slice has no scores
        found["psnr"].append(min(metrics.psnr(one, other, peak), metrics.HIGHEST_PSNR))
        found["ssim"].append(metrics.ssim(one, other, peak))
        found["nmse"].append(metrics.nmse(one, other))
    return found


def protocol_table(protocol: Protocol, scores: Sequence[SliceScores]) -> str:
    """Means and standard deviations over all slices by contrast, beside the paper's rows, and what had to be assumed."""
    lines = [f"{protocol.title}: {protocol.paper}", ""]
    lines.append(
        f"{'contrast':9} {'method':34} {'PSNR dB':>15}  {'SSIM':>16}  {'NMSE':>7}  {'scans':>5}  {'slices':>6}"
    )
    for contrast in protocol.contrasts:
        for made in (each for each in scores if each.contrast == contrast.name):
            lines.append(
                f"{contrast.name:9} {made.model:34} {made.psnr.mean():7.2f} ({made.psnr.std():5.2f})  {made.ssim.mean():7.4f}"
                f" ({made.ssim.std():6.4f})  {made.nmse.mean():7.4f}  {made.scans:5d}  {len(made.psnr):6d}"
            )
        for row in (each for each in protocol.rows if each.contrast == contrast.name):
            ssim, nmse = (f"{value:7.4f}" if value else f"{'-':>7}" for value in (row.ssim, row.nmse))
            name = f"{row.method}, {row.source}" if row.source else row.method
            lines.append(f"{contrast.name:9} {f'paper: {name}':34} {row.psnr:7.2f}          {ssim}           {nmse}")
    if protocol.assumed:
        lines += ["", "The paper does not print, and is assumed:", *(f"  {line}" for line in protocol.assumed)]
    return "\n".join(lines)


def protocol_json(protocol: Protocol, scores: Sequence[SliceScores]) -> str:
    """The same as JSON: means and standard deviations, the paper's rows, assumptions."""
    made: list[dict[str, Any]] = []
    for each in scores:
        values = {name: getattr(each, name) for name in SCORES}
        made.append(
            {"contrast": each.contrast, "model": each.model, "scans": each.scans, "slices": len(each.psnr)}
            | {name: float(array.mean()) for name, array in values.items()}
            | {f"{name}_std": float(array.std()) for name, array in values.items()}
        )
    paper = [asdict(row) for row in protocol.rows]
    return json.dumps(
        {"protocol": protocol.title, "scores": made, "paper": paper, "assumed": protocol.assumed}, indent=1
    )


def _has_row(protocol: Protocol, contrast: Contrast) -> bool:
    return any(row.contrast == contrast.name for row in protocol.rows)


def _pairs(protocol: Protocol, root: Path, found: dict[str, list[Path]]) -> dict[Path, Path]:
    """Each scan's reference: named in `PAIRS`, or the same person's by name."""
    listed = root / PAIRS
    if listed.is_file():
        with listed.open(newline="", encoding="utf-8") as stream:
            return {root / row[0].strip(): root / row[1].strip() for row in csv.reader(stream) if len(row) >= 2}
    if not protocol.reference or not protocol.person:
        return {}
    references = {key: path for path in found.get(protocol.reference, []) for key in _person(protocol, root, path)}
    everyone = [path for name, paths in found.items() if name != protocol.reference for path in paths]
    return {path: references[key] for path in everyone for key in _person(protocol, root, path) if key in references}


def _person(protocol: Protocol, root: Path, path: Path) -> Iterator[str]:
    match = re.search(protocol.person, path.relative_to(root).as_posix())
    if match:
        yield match[0]


def _way(protocol: Protocol) -> Degradation:
    return preset(protocol.degradation)


def _read(path: Path) -> Volume:
    return read_fastmri(path) if path.suffix == ".h5" else read_volume(path)


def _cropped(volume: Volume, contrast: Contrast) -> Volume:
    """The middle of `volume`."""
    size = volume.grid.size
    kept = [want or have for want, have in zip(contrast.crop, size, strict=True)]
    if any(want > have for want, have in zip(kept, size, strict=True)):
        raise UnsuitableVolume(
            f"{volume.name} has {' x '.join(map(str, size))} voxels, and {' x '.join(map(str, kept))} are scored",
            code="too-small",
        )
    start = [(have - want) // 2 for want, have in zip(kept, size, strict=True)]
    return volume.crop((start[0], start[1], start[2]), (kept[0], kept[1], kept[2]))


def _taken(volume: Volume, axis: int, chosen: np.ndarray) -> Volume:
    """Those slices along array `axis`, stacked; networks in the plane see one at a time."""
    if chosen.all():
        return volume
    array = np.ascontiguousarray(np.compress(chosen, volume.array, axis=axis))
    size = array.shape[::-1]
    return replace(volume, array=array, grid=volume.grid.crop((0, 0, 0), (size[0], size[1], size[2])))


def _seen(slices: np.ndarray) -> np.ndarray:
    """Which of the slices (n, rows, columns) show anything, as `metrics.by_slice` judges."""
    scale = IntensityScale.of(slices)
    level = scale.low + metrics.HEAD_LEVEL * (scale.high - scale.low)
    return np.asarray((slices > level).mean(axis=(1, 2)) >= metrics.EMPTY_SLICE)
