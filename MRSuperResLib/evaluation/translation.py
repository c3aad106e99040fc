"""Score translations on registered pairs: how close, how coherent, how honest about their uncertainty, how diverse.

Intensities of a translated volume are defined up to contrast settings only. Everything is therefore compared on the unit
scale (`IntensityScale`): the truth's own 0.1 and 99.9 percentiles are 0 and 1, and so are those of the scan where it is
copied; the network answers on that scale by itself. Scores are taken inside the head's box, as `metrics` takes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ..contrasts import guess_contrast
from ..errors import MissingRequirement, ModelError, UnsuitableVolume, UsageError
from ..inference import Options, plan_translation
from ..inference.sampling import Spread, latents
from ..inference.translation import Translator
from ..inference.uncertainty import error_network_for, uncertainty_of
from ..inference.view_checks import check_view
from ..intensity import IntensityScale
from ..models import ModelEntry, Score, find_model
from ..resample import resample
from ..volume import Volume, check_volume
from . import metrics
from .calibration import Calibration, Voxels, calibrate

if TYPE_CHECKING:
    from ..inference.translation import TranslationPlan

Distance = Callable[[np.ndarray, np.ndarray], float]  # between two stacks of slices (N, H, W) on the unit scale
Segment = Callable[[np.ndarray], np.ndarray]  # slices (N, H, W) on the unit scale -> indices into TISSUES
Report = Callable[[str], None]
TISSUES = ("background", "other", "fluid", "grey", "white")  # what our tissue network tells apart
PAPER_SAMPLES = 5  # of which consecutive ones are compared for diversity: 003 Appendix C
COHERENCE_SMOOTHING = 2.0  # pixels: what noise adds to the difference of two slices falls to a seventh
MEAN, SINGLE, CENTRE = "mean", "one sample", "z = 0"
COPY, MATCHED, REGRESSOR = "input", "matched input", "regressor"


@dataclass(frozen=True)
class Row:
    """One answer on one scan. metrics: as `metrics.summary` and `fitted_metrics` name them.

    coherence, coherence_smooth: see `coherence`, the second after smoothing by COHERENCE_SMOOTHING.
    """

    answer: str
    metrics: dict[str, float]
    coherence: float
    coherence_smooth: float


@dataclass(frozen=True)
class Evaluation:
    """One model on one pair. realism, diversity: by distance, see `evaluate`. dice: of tissues, see there.

    calibration, voxels: of the uncertainty map that users see, made by `mapped_by`, an error network, or "" for the samples'
    deviation, which `stated`, of the model's card, multiplies. spread: the voxels of the samples' deviation where the map is
    another.
    """

    scan: str
    model: str
    source: str
    target: str
    samples: int
    slices: int
    seconds: float
    rows: tuple[Row, ...]
    calibration: Calibration | None
    realism: dict[str, float]
    diversity: dict[str, float]
    voxels: Voxels = field(repr=False, compare=False)
    dice: dict[str, float] = field(default_factory=dict)
    stated: float | None = None
    mapped_by: str = ""
    spread: Voxels | None = field(default=None, repr=False, compare=False)

    @property
    def map_scale(self) -> float | None:
        """What `voxels` are to be multiplied by to be the map."""
        return 1.0 if self.mapped_by else self.stated

    @property
    def samples_voxels(self) -> Voxels:
        """The voxels of the samples' deviation."""
        return self.spread or self.voxels

    def row(self, answer: str) -> Row | None:
        """The row of that answer, None if it was not scored."""
        return next((row for row in self.rows if row.answer == answer), None)


def evaluate(
    source: Volume,
    truth: Volume,
    model: ModelEntry | str,
    *,
    contrast: str | None = None,
    target: str | None = None,
    regressor: ModelEntry | str | None = None,
    samples: int | None = None,
    slices: int | None = None,
    seed: int = 0,
    distances: Mapping[str, Distance] | None = None,
    segment: Segment | None = None,
    options: Options | None = None,
    report: Report | None = None,
) -> Evaluation:
    """`model`'s translation of `source` scored against `truth`, the same person in the target contrast.

    Beside the mean of `samples` answers are scored: one sample, the answer to z = 0, the scan copied, the scan matched
    to the truth's own histogram (which no method could know: the strongest form of that baseline), and the answer of
    `regressor`, a model of one answer (of a sampled one, that to z = 0). truth: resampled (linear) where its grid is
    another, which is reported. contrast, target: by default what the volumes' names say. slices: only that many in the
    middle of the head; scales are those of the whole volumes anyway. distances: further ones beside "L1", the mean
    absolute difference; realism is the mean distance of five samples to the truth, diversity that of the four pairs of
    consecutive ones (Appendix C), both inside the head's box. segment: tells tissues apart
    (`tissue_segmentation`); Dice is that of what it makes of the answer and of the truth.
    """
    options = options or Options()
    entry = find_model(model, options.model_folders) if isinstance(model, str) else model
    say = report or (lambda line: None)

    def warn(code: str, message: str) -> None:
        say(f"  {message} ({code})")

    source, truth = check_volume(source, warn), check_volume(truth, warn)
    truth = _on_grid(truth, source, warn)
    wanted = {
        "target": target or guess_contrast(truth.name),
        "contrast": contrast or options.contrast,
        "slice_axis": options.slice_axis,
        "name": source.name,
    }
    made = plan_translation(source.grid, entry.card, samples=samples, **wanted)  # type: ignore[arg-type]
    check_view(source, made.slice_axis, warn)
    axis = 2 - made.slice_axis
    part = _middle(truth.array, axis, slices)

    def stack(volume: Volume) -> np.ndarray:  # (slices, rows, columns), on the unit scale of the whole volume
        unit = IntensityScale.of(volume.array).to_unit(volume.array)
        return np.asarray(np.moveaxis(unit, axis, 0)[part], dtype=np.float32)

    started = time.monotonic()
    real, copied = stack(truth), stack(source)
    translator = Translator(source, entry, made, options, warn)
    answers, drawn, deviation = _answers(translator, entry, made, seed, part)
    knowing = error_network_for(entry, options, warn) if made.samples > 1 else None
    mapped = deviation
    if knowing is not None:
        seen = np.moveaxis(translator.unit(part), axis, 0)
        which = (made.source, made.target)
        mapped = uncertainty_of(
            seen, answers[MEAN], deviation, entry, knowing, which, 0, options=options, warn=warn
        ).deviation
    seconds = time.monotonic() - started
    answers[COPY] = copied
    answers[MATCHED] = histogram_matched(copied, real, metrics.head_box(real))
    if regressor is not None:
        plain = find_model(regressor, options.model_folders) if isinstance(regressor, str) else regressor
        alone = plan_translation(source.grid, plain.card, samples=1, **wanted)  # type: ignore[arg-type]
        answers[REGRESSOR] = _centre(Translator(source, plain, alone, options, warn), plain, part)
    head = head_mask(real)
    rows = tuple(
        Row(
            name,
            metrics.summary(answer, real, axis=0) | fitted_metrics(answer, real, head),
            coherence(answer, real),
            coherence(answer, real, COHERENCE_SMOOTHING),
        )
        for name, answer in answers.items()
    )
    box = metrics.head_box(real)
    error = np.abs(answers[MEAN] - real)
    voxels, spread = (Voxels(*(each[box].ravel() for each in (one, error, head))) for one in (mapped, deviation))
    realism, diversity = _variety(drawn, real, {"L1": _absolute, **(distances or {})})
    found = Evaluation(
        truth.name,
        entry.card.id,
        made.source,
        made.target,
        made.samples,
        len(real),
        seconds,
        rows,
        calibrate([voxels], entry.card.requirements.uncertainty_scale if knowing is None else 1.0)
        if made.samples > 1
        else None,
        realism,
        diversity,
        voxels,
        tissue_dice(segment, answers[MEAN], real) if segment else {},
        entry.card.requirements.uncertainty_scale,
        "" if knowing is None else knowing.card.id,
        None if knowing is None else spread,
    )
    say(
        f"{found.scan}  {found.model}  {found.source} to {found.target}: {rows[0].metrics['psnr']:.2f} dB, {seconds:.0f} s"
    )
    return found


def feature_distances(
    lpips: str | Path | None = None, digest: str = "", device: str = "auto", report: Report | None = None
) -> dict[str, Distance]:
    """The distances by features that can be had here: that of our tissue network, and LPIPS with its weights in a file.

    digest: SHA-256 of the file `lpips`. Raises what `read_lpips` raises; a tissue network that cannot be had (it needs
    MONAI) is left out, and `report` hears of it.
    """
    from ..inference.device import choose_device
    from ..losses.tissue import tissue_features
    from . import feature_distances as features

    where = choose_device(device)
    found: dict[str, Distance] = {}
    try:
        extractor = tissue_features().to(where)
        found["tissue features"] = partial(features.feature_distance, extractor, device=where)
    except (MissingRequirement, ModelError) as error:
        if report:
            report(f"  no distance by tissue features: {error.message}")
    if lpips is not None:
        found["LPIPS"] = features.LPIPS(features.read_lpips(lpips, digest)).to(where).distance
    return found


def fitted_metrics(answer: np.ndarray, truth: np.ndarray, head: np.ndarray) -> dict[str, float]:
    """psnr_head: inside the mask `head` alone; psnr_fit, ssim_fit: there, and in its box, after the line that fits `answer` to
    `truth` best in the head. All (N, H, W). What remains after the fit is no matter of brightness and contrast settings.
    """
    line = np.polyfit(answer[head].astype(np.float64), truth[head], 1) if np.ptp(answer[head]) > 0 else np.array([0, 1])
    fit = np.asarray(np.polyval(line, answer), dtype=np.float32)
    box, range_ = metrics.head_box(truth), metrics.data_range(truth)
    return {
        "psnr_head": min(metrics.HIGHEST_PSNR, metrics.psnr(answer[head], truth[head], range_)),
        "psnr_fit": min(metrics.HIGHEST_PSNR, metrics.psnr(fit[head], truth[head], range_)),
        "ssim_fit": metrics.ssim(fit[box], truth[box], range_),
    }


def tissue_segmentation(device: str = "auto", report: Report | None = None) -> Segment | None:
    """Our tissue network, (N, H, W) -> indices into `TISSUES`; None, and `report` hears of it, where it cannot be had."""
    from ..inference.device import choose_device
    from ..losses.tissue import segmented, trained_tissue_network

    try:
        return partial(segmented, trained_tissue_network().to(choose_device(device)))
    except (MissingRequirement, ModelError) as error:
        if report:
            report(f"  no Dice of tissues: {error.message}")
        return None


def tissue_dice(segment: Segment, answer: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Dice of fluid, grey and white matter in `answer` and `truth`, (N, H, W) each, as `segment` finds them."""
    found, wanted = segment(answer), segment(truth)
    scores = {}
    for number, name in enumerate(TISSUES):
        if name in ("fluid", "grey", "white"):
            ours, theirs = found == number, wanted == number
            total = int(ours.sum() + theirs.sum())
            scores[name] = 2 * int((ours & theirs).sum()) / total if total else 1.0
    return scores


def histogram_matched(values: np.ndarray, truth: np.ndarray, where: tuple[slice, ...] = ()) -> np.ndarray:
    """`values` with each replaced by the value of `truth` at the same quantile, both taken inside the box `where`."""
    ours, counts = np.unique(values[where], return_counts=True)
    theirs, times = np.unique(truth[where], return_counts=True)
    quantiles = np.cumsum(counts) / counts.sum()
    table = np.interp(quantiles, np.cumsum(times) / times.sum(), theirs)
    return np.asarray(np.interp(values, ours, table), dtype=np.float32)


def coherence(answer: np.ndarray, truth: np.ndarray, smoothing: float = 0.0) -> float:
    """How much neighbouring slices of `answer` (N, H, W) differ, over how much the truth's do: 1 is the truth's own.

    Mean absolute difference of adjacent slices inside the head's box. Below 1 the answer is smoother across slices than
    the truth, above 1 its slices do not fit together. The truth's noise counts too, unless both are smoothed in plane
    first, by a Gaussian of `smoothing` pixels standard deviation: whole slices that flicker still count then.
    """
    box = metrics.head_box(truth)
    steps = []
    for stack in (answer, truth):
        smooth = ndimage.gaussian_filter(stack, (0, smoothing, smoothing)) if smoothing else stack
        steps.append(float(np.mean(np.abs(np.diff(smooth[box], axis=0)))))
    return steps[0] / steps[1] if steps[1] else float("inf")


def head_mask(truth: np.ndarray) -> np.ndarray:
    """Which voxels of `truth` (N, H, W) are head: brighter than a tenth of the robust range, or enclosed by such in a slice."""
    scale = IntensityScale.of(truth)
    bright = truth > scale.low + metrics.HEAD_LEVEL * (scale.high - scale.low)
    return np.stack([ndimage.binary_fill_holes(image) for image in bright])


def calibrations(evaluations: Sequence[Evaluation]) -> dict[str, Calibration]:
    """Each sampled model's calibration over all its scans and directions: that of the map which users see."""
    groups: dict[str, list[Evaluation]] = {}
    for found in evaluations:
        if found.calibration is not None:
            groups.setdefault(found.model, []).append(found)
    return {model: pooled_calibration(group) for model, group in groups.items()}


def pooled_calibration(group: Sequence[Evaluation], samples: bool = False) -> Calibration:
    """Of the map over several scans of one model; of the samples' deviation instead if `samples`."""
    if samples:
        return calibrate((found.samples_voxels for found in group), group[0].stated)
    return calibrate((found.voxels for found in group), group[0].map_scale)


def publish(evaluations: Sequence[Evaluation], model: ModelEntry | str, out: str | Path) -> ModelEntry:
    """Write `model` to the file `out` with its scores and the calibration of its uncertainty in its card.

    Scores of single samples tell nothing of the uncertainty: the card keeps the calibration it has.
    """
    from ..models import load_network, save_model

    entry = find_model(model) if isinstance(model, str) else model
    own = [found for found in evaluations if found.model == entry.card.id]
    if not own:
        raise UsageError(f"'{entry.card.id}' was not scored: nothing to print in its card")
    sampled = [case for case in own if case.calibration is not None]
    found = pooled_calibration(sampled, samples=True) if sampled else None
    scale = entry.card.requirements.uncertainty_scale if found is None else round(found.scale, 4)
    card = replace(
        entry.card,
        metrics=tuple(_score(case) for case in own),
        requirements=replace(entry.card.requirements, uncertainty_scale=scale),
    )
    return save_model(out, card, load_network(entry, for_inference=False).state_dict())


def _answers(
    translator: Translator, entry: ModelEntry, made: TranslationPlan, seed: int, part: slice
) -> tuple[dict[str, np.ndarray], list[np.ndarray], np.ndarray]:
    """The model's answers by name, the samples that Appendix C compares, and the voxel-wise deviation, slices first."""
    drawn: list[np.ndarray] = []
    spread = Spread()
    sampled = entry.card.requirements.latent > 0
    for number, z in enumerate(latents(entry.card, max(made.samples, 2 * PAPER_SAMPLES - 1 if sampled else 1), seed)):
        independent = number % 2 == 0 and len(drawn) < PAPER_SAMPLES  # the others mirror them
        if number >= made.samples and not independent:
            continue
        sample = np.moveaxis(translator.answer(z, part=part), translator.axis, 0)
        if number < made.samples:
            spread.add(sample)
        if independent:
            drawn.append(sample)
    answers = {MEAN: spread.mean}
    if sampled:
        answers |= {SINGLE: drawn[0], CENTRE: _centre(translator, entry, part)}
    return answers, drawn, spread.deviation()


def _centre(translator: Translator, entry: ModelEntry, part: slice) -> np.ndarray:
    """The answer to z = 0."""
    z = np.zeros(entry.card.requirements.latent, dtype=np.float32)
    return np.moveaxis(translator.answer(z, part=part), translator.axis, 0)


def _variety(
    drawn: Sequence[np.ndarray], truth: np.ndarray, distances: Mapping[str, Distance]
) -> tuple[dict[str, float], dict[str, float]]:
    """Realism and diversity of the samples by distance, inside the head's box."""
    box = metrics.head_box(truth)
    inside, real = [sample[box] for sample in drawn], truth[box]
    realism = {name: float(np.mean([apart(one, real) for one in inside])) for name, apart in distances.items()}
    diversity = {
        name: float(np.mean([apart(*pair) for pair in pairwise(inside)]))
        for name, apart in distances.items()
        if len(inside) > 1
    }
    return realism, diversity


def _absolute(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean(np.abs(a - b)))


def _on_grid(truth: Volume, source: Volume, warn: Callable[[str, str], None]) -> Volume:
    if truth.grid.same_as(source.grid):
        return truth
    centres = [grid.corners().mean(axis=0)[None] for grid in (truth.grid, source.grid)]
    if not (source.grid.contains(centres[0]).any() or truth.grid.contains(centres[1]).any()):
        raise UnsuitableVolume(
            "the ground truth does not lie where the scan lies: is it of the same patient and session?",
            code="truth-elsewhere",
        )
    warn("truth-resampled", "the ground truth lies on another grid than the scan: it was resampled (linear)")
    return resample(truth, source.grid, "linear")


def _middle(truth: np.ndarray, axis: int, count: int | None) -> slice:
    """`count` slices along array `axis` in the middle of the head."""
    size = truth.shape[axis]
    if count is not None and count < 2:
        raise UsageError(f"{count} slices are asked for, expected at least 2: their neighbours are compared")
    if count is None or count >= size:
        return slice(0, size)
    first, last, _ = metrics.head_box(truth)[axis].indices(size)
    start = max(0, min((first + last - count) // 2, size - count))
    return slice(start, start + count)


def _score(found: Evaluation) -> Score:
    """A line of the card."""
    own = found.rows[0].metrics
    beside = {name: row.metrics for name in (COPY, MATCHED, REGRESSOR) if (row := found.row(name))}
    return Score(
        scan=found.scan,
        plane="in-plane",
        degradation=f"{found.source} to {found.target}",
        psnr=round(own["psnr"], 3),
        ssim=round(own["ssim"], 5),
        nmse=round(own["nmse"], 6),
        baseline={name: (round(other["psnr"], 3), round(other["ssim"], 5)) for name, other in beside.items()},
    )
