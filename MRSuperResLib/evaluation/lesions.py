"""Lesions put into a registered pair of scans, and what becomes of them in a translation: shown, flagged, or lost.

A lesion has the same tissue in source and target, as both sequences would show it (`lesions`, `relaxation`). It is shown if the
answer changes where it is, in the direction in which the true target changes and at least half as much; flagged if the flags cover
a quarter of its core. What is neither is lost: the worst a translation can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..contrasts import guess_contrast
from ..errors import UnsuitableVolume
from ..inference import Options, plan_translation
from ..inference.flags import detector_for, find_flags
from ..inference.sampling import Spread, latents
from ..inference.translation import Translator
from ..intensity import IntensityScale
from ..lesions import Lesion, draw_lesion, inserted
from ..models import ModelEntry, find_model
from ..relaxation import Acquired, acquired_as, tissue_levels
from ..resample import resample
from ..volume import Volume
from .masks import brain_inside, brain_mask

if TYPE_CHECKING:
    from ..inference.translation import TranslationPlan

DIAMETERS = (3.0, 6.0, 10.0, 25.0)  # mm
KINDS = ("oedema", "cyst", "late subacute haemorrhage", "early subacute haemorrhage", "calcification")
TYPICAL = {"T1w": (0.15, 0.52, 0.72), "T2w": (0.85, 0.46, 0.32), "FLAIR": (0.12, 0.66, 0.54)}  # fluid, grey, white
LIKE_TISSUE = 0.12  # on the networks' scale
RIM_MM = 8.0  # lesions' centres lie that deep in the brain
APART_MM = 4.0  # between two lesions of one volume, beside what they push
CORE = 0.6  # of a voxel that is lesion
VISIBLE = 0.04  # on the networks' scale: a lesion that changes a contrast by less cannot be seen there
HALF = 0.5  # of the true change that is shown
COVERED = 0.25  # of the core that is flagged
SLICES = 1  # on either side of a lesion's middle slice that are translated
SAMPLES = 2  # whose mean is the answer
ATTEMPTS = 400


@dataclass(frozen=True)
class Inserted:
    """One lesion in a scan. centre: voxel (k, j, i). covered: (k, j, i), how much of each voxel is lesion."""

    lesion: Lesion
    centre: tuple[int, int, int]
    covered: np.ndarray


@dataclass(frozen=True)
class Case:
    """What became of one lesion: its mean change of source, true target and answer on the networks' scale, the part flagged."""

    kind: str
    diameter: float
    source: float
    target: float
    answer: float
    flagged_part: float

    @property
    def possible(self) -> bool:
        """Whether there is something to lose, and the scan shows that there is."""
        return abs(self.source) >= VISIBLE and abs(self.target) >= VISIBLE

    @property
    def shown(self) -> bool:
        """Right in sign, and at least half as strong."""
        return self.answer * np.sign(self.target) >= HALF * abs(self.target)

    @property
    def flagged(self) -> bool:
        """Whether enough of it is flagged."""
        return self.flagged_part >= COVERED


@dataclass(frozen=True)
class LesionScore:
    """One model on one pair. false_flags: part of the brain of the scan without inserted lesions that is flagged."""

    scan: str
    model: str
    source: str
    target: str
    cases: tuple[Case, ...]
    false_flags: float
    brain_ml: float


def evaluate_lesions(
    source: Volume,
    truth: Volume,
    model: ModelEntry | str,
    *,
    contrast: str | None = None,
    target: str | None = None,
    seeds: Iterable[int] = (1,),
    options: Options | None = None,
    report: Callable[[str], None] | None = None,
) -> LesionScore:
    """What `model` and the flags make of lesions put into `source` and `truth`, the same person in the target contrast.

    Every seed gives each kind in each diameter once, in five volumes. contrast, target: by default what the volumes' names say.
    Raises `UnsuitableVolume` where no brain is found, and what `translate` raises.
    """
    options = options or Options()
    say = report or (lambda line: None)

    def warn(code: str, message: str) -> None:
        say(f"  {message} ({code})")

    entry = find_model(model, options.model_folders) if isinstance(model, str) else model
    if not truth.grid.same_as(source.grid):
        truth = resample(truth, source.grid, "linear")
    made = plan_translation(
        source.grid,
        entry.card,
        target=target or guess_contrast(truth.name),
        contrast=contrast or options.contrast,
        samples=SAMPLES if entry.card.requirements.latent else 1,
        slice_axis=options.slice_axis,
        name=source.name,
    )
    detector = detector_for(made.source, options, warn)
    healthy = Translator(source, entry, made, options, warn)
    brain = brain_mask(source.array, source.grid.spacing[::-1])

    def flags(volume: Volume) -> np.ndarray:
        if detector is None:
            return np.zeros(volume.array.shape, dtype=bool)
        return find_flags(volume, detector, made.source, options=options, warn=warn).mask

    scales = (IntensityScale.of(source.array), IntensityScale.of(truth.array))
    false = flags(source)
    cases: list[Case] = []
    for lesioned, true, lesions in lesioned_pairs(source, truth, made.source, made.target, seeds):
        translator = Translator(lesioned, entry, made, options, warn)
        found = flags(lesioned)
        for each in lesions:
            cases.append(
                _case(each, (source, lesioned), (truth, true), scales, (healthy, translator), made, entry, found)
            )
    score = LesionScore(
        truth.name,
        entry.card.id,
        made.source,
        made.target,
        tuple(cases),
        float(false[brain].mean()) if brain.any() else 0.0,
        float(brain.sum() * np.prod(source.grid.spacing) / 1000),
    )
    say(f"{score.scan}  {score.model}  {score.source} to {score.target}: {summary(score.cases)}")
    return score


def lesioned_pairs(
    source: Volume, truth: Volume, contrast: str, target: str, seeds: Iterable[int]
) -> Iterator[tuple[Volume, Volume, list[Inserted]]]:
    """`source` and `truth`, on one grid, with a lesion of each diameter in both, five times a seed, the kinds in turn."""
    volumes = {contrast: source, target: truth}
    scales = {name: IntensityScale.of(volume.array) for name, volume in volumes.items()}
    plain = {name: np.maximum(scales[name].to_unit(volume.array), 0) for name, volume in volumes.items()}
    spacing = source.grid.spacing[::-1]
    inside = brain_inside(source.array, spacing, RIM_MM)
    if not inside.any():
        raise UnsuitableVolume("no brain is found in the scan to put lesions into", code="no-brain")
    levels = tissue_levels({name: image[inside] for name, image in plain.items()}, TYPICAL)
    ways = acquired_as(levels, np.random.default_rng(0))
    places = np.argwhere(inside & _brain_tissue(plain, levels))
    for seed in seeds:
        for turn in range(len(KINDS)):
            rng = np.random.default_rng((seed, turn))
            way = ways[rng.integers(len(ways))]
            images, lesions = _filled(plain, places, spacing, turn, way, rng)
            lesioned, true = (
                replace(volume, array=scales[name].from_unit(images[name]).astype(np.float32))
                for name, volume in volumes.items()
            )
            yield lesioned, true, lesions


def _brain_tissue(images: dict[str, np.ndarray], levels: dict[str, np.ndarray]) -> np.ndarray:
    """Voxels as bright in all contrasts as grey or white matter: neither scalp nor fluid."""
    near = [
        np.maximum.reduce([np.abs(image - levels[name][tissue]) for name, image in images.items()]) < LIKE_TISSUE
        for tissue in (1, 2)  # grey, white
    ]
    return near[0] | near[1]


def _filled(
    images: dict[str, np.ndarray],
    places: np.ndarray,
    spacing: Sequence[float],
    turn: int,
    way: Acquired,
    rng: np.random.Generator,
) -> tuple[dict[str, np.ndarray], list[Inserted]]:
    """`images` with one lesion of each diameter, the largest first, none near another."""
    lesions: list[Inserted] = []
    for number, diameter in reversed(list(enumerate(DIAMETERS))):
        kind = KINDS[(turn + number) % len(KINDS)]
        lesion = draw_lesion(rng, (diameter, diameter), kind, way.field)
        for _ in range(ATTEMPTS):
            centre = places[rng.integers(len(places))]
            if all(
                np.linalg.norm((centre - other.centre) * spacing)
                > 1.6 * (other.lesion.radius + lesion.radius) + APART_MM
                for other in lesions
            ):
                break
        images, covered = inserted(images, lesion, centre, spacing, way)
        lesions.append(Inserted(lesion, tuple(int(n) for n in centre), covered))  # type: ignore[arg-type]
    return images, lesions


def _case(
    each: Inserted,
    sources: tuple[Volume, Volume],
    truths: tuple[Volume, Volume],
    scales: tuple[IntensityScale, IntensityScale],
    translators: tuple[Translator, Translator],
    made: TranslationPlan,
    entry: ModelEntry,
    found: np.ndarray,
) -> Case:
    """Of one lesion; pairs are without and with lesions."""
    axis = 2 - made.slice_axis
    middle = each.centre[axis]
    part = slice(max(0, middle - SLICES), middle + SLICES + 1)
    chosen: list[slice] = [slice(None)] * 3
    chosen[axis] = part
    covered = each.covered[tuple(chosen)]
    core = covered > CORE
    if core.sum() < 3:
        core = covered >= 0.5 * covered.max()

    def change(pair: tuple[Volume, Volume], scale: IntensityScale) -> float:
        before, after = (scale.to_unit(volume.array[tuple(chosen)])[core] for volume in pair)
        return float(np.mean(after - before))

    answers = []
    for translator in translators:
        spread = Spread()
        for z in latents(entry.card, made.samples, 0):
            spread.add(translator.answer(z, part=part))
        answers.append(spread.mean[core])
    return Case(
        each.lesion.kind,
        each.lesion.diameter,
        change(sources, scales[0]),
        change(truths, scales[1]),
        float(np.mean(answers[1] - answers[0])),
        float(found[tuple(chosen)][core].mean()),
    )


def summary(cases: Sequence[Case], least: float = 6.0) -> str:
    """One line on the lesions of `least` mm or more that can be seen in both contrasts."""
    counted = [case for case in cases if case.possible and case.diameter >= least]
    if not counted:
        return "no lesion could be counted"
    safe = sum(case.shown or case.flagged for case in counted)
    return (
        f"of {len(counted)} lesions of {least:g} mm or more {sum(case.shown for case in counted)} shown, "
        f"{sum(case.flagged for case in counted)} flagged, {len(counted) - safe} lost"
    )


def lesion_table(scores: Sequence[LesionScore]) -> str:
    """Counts by size and by kind, and false flags, in words and columns."""
    if not scores:
        return "no lesions were put in"
    cases = [case for score in scores for case in score.cases]
    lines = [f"{'lesions':34}{'n':>6}{'shown':>8}{'flagged':>9}{'lost':>6}{'shown or flagged':>18}"]
    groups: list[tuple[str, Callable[[Case], bool]]] = [
        (f"{mm:g} mm", lambda case, mm=mm: case.diameter == mm)  # type: ignore[misc]
        for mm in sorted({case.diameter for case in cases})
    ]
    groups += [(f"{mm:g} mm or more", lambda case, mm=mm: case.diameter >= mm) for mm in (6.0, 10.0)]  # type: ignore[misc]
    kinds = dict.fromkeys(case.kind for case in cases)
    groups += [
        (f"{kind}, 6 mm or more", lambda case, kind=kind: case.kind == kind and case.diameter >= 6)  # type: ignore[misc]
        for kind in kinds
    ]
    for name, belongs in groups:
        group = [case for case in cases if belongs(case) and case.possible]
        if not group:
            continue
        shown, flagged = sum(case.shown for case in group), sum(case.flagged for case in group)
        safe = sum(case.shown or case.flagged for case in group)
        lines.append(
            f"{name:34}{len(group):6}{shown:8}{flagged:9}{len(group) - safe:6}{100 * safe / len(group):16.1f} %"
        )
    hidden = sum(not case.possible for case in cases)
    lines.append(f"{hidden} more change the scan or the true target by less than {VISIBLE:g} and are not counted")
    for score in scores:
        lines.append(
            f"flagged in {score.scan} ({score.source}) without inserted lesions: {100 * score.false_flags:.2f} % of "
            f"{score.brain_ml:.0f} ml of brain"
        )
    return "\n".join(dict.fromkeys(lines))
