"""Brings a reference scan onto the grid where a network wants it, after checking that it shows the same anatomy in the same place.

Two scans of one visit share the scanner's coordinates, but patients move: a rigid registration by mutual information (Mattes, in
SimpleITK) finds the motion, and is used only if the two scans agree better after it than before. How well they agree is a number,
the similarity: a reference of another patient or body part has a low one, is not used, and the user is told.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..errors import UnsuitableVolume
from ..grid import Grid
from ..intensity import IntensityScale
from ..resample import resample
from ..volume import Volume, check_volume, to_sitk
from .options import Aligned, Cancel, Progress, Warn, log_warning, never, silent, stop_if

if TYPE_CHECKING:
    import SimpleITK as sitk

STAGE = "registering"
LEVELS = (8.0, 4.0, 2.0)  # mm: the spacing both scans are compared at, coarse to fine
SAMPLES = 0.25  # of the voxels of a level
BINS = 32
FOREGROUND = 0.1  # of the robust range: darker voxels are air
LEAST_OVERLAP = 0.02  # of the input's head that the reference must cover, or there is nothing to register
FULL_OVERLAP = 0.9  # below it the user is told
# See `Agreement`. Chosen on scans of training and one held-out pair. One person's: 0.18 to 0.44 in 9 pairs of a 5 mm T2w and a T1w
# of another position, once registered; 0.36 and more in 49 pairs on one grid: whole, made coarse, slabs and pieces of 64 mm. Two
# people's, registered: at most 0.11 in 20 pairs of whole scans; up to 0.21 in 12 pairs of small parts, where chance fits more.
LEAST_SIMILARITY, LEAST_OF_PART = 0.15, 0.25
# The information must rise by this factor to believe in a motion of more, or less, than a voxel.
BETTER, CLEARLY_BETTER = 1.06, 1.1
CHECKED_SHIFT = 3.0  # mm, for `Agreement`
LEAST_INFORMATION = 0.05  # what a shift takes from less is chance: noise has 0.01, pairs of one person 0.04 to 0.39
SAMPLES_IN_CELL, FEWEST_BINS = 20, 6  # of joint histograms: in cells with fewer samples chance looks like information
SHELL = (
    20.0  # mm under the skin that `Agreement` leaves out; with 0 and 10 one person's whole scans begin at 0.06 and 0.11
)
FEWEST_INSIDE = 2000  # voxels that must be left for that: a joint histogram of 10 bins
FEWEST_VOXELS = 100  # with fewer nothing can be said about the agreement
LEAST_STAYING = 0.5  # of the voxels in sight that a shift must leave in sight, or its axis is left out
FEWEST_AXES = 2  # left for shifts; with fewer the similarity is not known
COARSER, BLUNTER = 1.2, 1.5  # a reference's spacing over the scan's, over the result's, from which the user is told
LARGEST_MOTION = 100.0  # mm; more is a failed registration


@dataclass(frozen=True)
class Agreement:
    """How much two scans tell about each other. information: normalised mutual information, 0 to 1. shifted: its mean when one is
    shifted by `CHECKED_SHIFT` mm along each axis, either way; nan if too little stays in sight for that. bins: of the histograms.
    """

    information: float
    shifted: float
    bins: int = BINS

    @property
    def similarity(self) -> float:
        """The part of the information that a shift destroys: 0 for strangers, near 1 for one head in two sharp contrasts, or nan.

        Any two heads share some information, bright brain in dark air; only the same anatomy loses most of it by a shift.
        """
        lost = (self.information - self.shifted) / max(self.information, LEAST_INFORMATION)
        return lost if math.isnan(lost) else max(0.0, lost)

    @property
    def least(self) -> float:
        """The similarity of scans of the same anatomy: more where few voxels make fewer bins."""
        return LEAST_SIMILARITY if self.bins >= BINS else LEAST_OF_PART


@dataclass(frozen=True)
class AlignedReference(Aligned):
    """A reference on another grid, and how it got there.

    transform: 4x4, from LPS mm of the input to LPS mm of the reference's header. similarity: see `Agreement`. overlap: the part of
    the input's head that the reference covers, 0 to 1.
    """

    transform: np.ndarray = field(default_factory=lambda: np.eye(4))
    similarity: float = math.nan
    overlap: float = 0.0


def align(
    reference: Volume,
    volume: Volume,
    grid: Grid,
    *,
    target: Grid | None = None,
    register: bool | Literal["auto"] = "auto",
    warn: Warn = log_warning,
    progress: Progress = silent,
    cancel: Cancel = never,
) -> AlignedReference:
    """`reference` on `grid`, where a network that refines `volume` wants it, and where it is valid there.

    target: the grid asked for, if it is another one: `warn` hears of a reference coarser than that. register: True or "auto" to
    look for a motion between the scans, and use it if it is more than a voxel of `grid` or makes the scans agree clearly better;
    False to trust the headers. A reference that does not resemble `volume` is told to `warn` and valid nowhere, so that a guided
    network works from `volume` alone. Raises `UnsuitableVolume` for a reference that does not overlap `volume` or is coarser than
    it along the axes to refine, and what `check_volume` raises.
    """
    reference = check_volume(reference, warn)
    name = f"the reference {reference.name}".strip()
    _check_sharpness(reference, volume, target or grid, warn)
    overlap = overlap_of(reference, volume)
    if overlap < LEAST_OVERLAP:
        raise UnsuitableVolume(
            f"{name} covers {overlap:.0%} of the scan's head: by their headers they lie in different places; choose a reference of "
            "the same visit, or bring them together with a registration tool first",
            code="no-overlap",
        )
    progress(STAGE, 0, len(LEVELS) + 1, None)
    before = agreement(reference, volume)
    transform, after = np.eye(4), before
    if register:
        found = _registered(reference, volume, progress, cancel)
        trial = agreement(moved(reference, found), volume, before.bins)
        if _believed(trial, before, motion(found, volume), min(grid.spacing)):
            transform, after = found, trial
    stop_if(cancel)
    placed = moved(reference, transform)
    answer = resample(placed, grid, "bspline")
    everywhere = Volume(np.ones(reference.array.shape, np.float32), placed.grid)
    valid = resample(everywhere, grid, "nearest", fill=0.0).array > 0.5
    overlap = overlap_of(placed, volume)
    shift, degrees = float(np.linalg.norm(_shift_at_head(transform, volume))), rotation_of(transform)
    was_moved = bool(np.any(transform != np.eye(4)))
    used = _resembles(after, name, bool(register), warn)
    if not used:
        valid = np.zeros_like(valid)
    elif overlap < FULL_OVERLAP:
        warn("reference-partial", f"{name} covers {overlap:.0%} of the scan's head: the rest is refined without it")
    if used and was_moved:
        warn("reference-moved", f"{name} was moved by {shift:.1f} mm and {degrees:.1f} degrees to fit the scan")
    progress(STAGE, len(LEVELS) + 1, len(LEVELS) + 1, 0.0)
    report = {
        "searched": bool(register),
        "moved": was_moved,
        "used": used,
        "similarity": _rounded(after.similarity),
        "similarity_by_headers": _rounded(before.similarity),
        "mutual_information": round(after.information, 4),
        "mutual_information_by_headers": round(before.information, 4),
        "overlap": round(overlap, 4),
        "shift_mm": round(shift, 3),
        "rotation_degrees": round(degrees, 3),
        "transform": [[round(float(value), 6) for value in row] for row in transform],
    }
    return AlignedReference(answer, valid, report, transform, after.similarity, overlap)


def agreement(reference: Volume, volume: Volume, bins: int | None = None) -> Agreement:
    """How `reference`, where it lies, agrees with `volume` deep inside the head, see `_inside`.

    Normalised mutual information (Studholme 1999, less 1), (H(a) + H(b)) / H(a, b) - 1, at the finest of `LEVELS` or the scan's own
    spacing. bins: of the histograms; by default as many as the voxels in sight fill. Numbers compare at equal bins only.
    """
    fixed = at_level(volume, LEVELS[-1])
    inside = _inside(fixed)
    moving = at_level(reference, min(LEVELS[-1], max(fixed.grid.spacing)))

    def in_sight(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Intensities of both inside, the reference moved by -`step` mm."""
        shift = np.eye(4)
        shift[:3, 3] = fixed.grid.axes @ step
        there = moved(moving, shift)
        everywhere = Volume(np.ones(there.array.shape, np.float32), there.grid)
        seen = inside & (resample(everywhere, fixed.grid, "nearest", fill=0.0).array > 0.5)
        return fixed.array[seen], resample(there, fixed.grid, "linear").array[seen]

    here = in_sight(np.zeros(3))
    count = len(here[0])
    bins = bins or bins_for(count)
    if count < FEWEST_VOXELS:
        return Agreement(0.0, math.nan, bins)
    least = max(FEWEST_VOXELS, LEAST_STAYING * count)
    shifted: dict[int, list[float]] = {}
    for axis, sign in itertools.product(range(3), (1.0, -1.0)):
        values = in_sight(sign * CHECKED_SHIFT * np.eye(3)[axis])
        if len(values[0]) >= least:
            shifted.setdefault(axis, []).append(mutual_information(*values, bins))
    known = len(shifted) >= FEWEST_AXES
    mean = float(np.mean([found for pair in shifted.values() for found in pair])) if known else math.nan
    return Agreement(mutual_information(*here, bins), mean, bins)


def bins_for(count: int) -> int:
    """Bins of each axis of a joint histogram that `count` samples fill."""
    return int(np.clip(math.sqrt(count / SAMPLES_IN_CELL), FEWEST_BINS, BINS))


def mutual_information(a: np.ndarray, b: np.ndarray, bins: int = BINS) -> float:
    """Normalised mutual information of two lists of intensities, 0 (independent) to 1 (each tells the other)."""
    places = []
    for values in (a, b):
        scale = IntensityScale.of(values)
        places.append(np.clip(scale.to_unit(values.astype(np.float64)) * bins, 0, bins - 1).astype(np.intp))
    joint = np.bincount(places[0] * bins + places[1], minlength=bins**2).reshape(bins, bins)
    of_both = _entropy(joint)
    return max(0.0, (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / of_both - 1.0) if of_both else 0.0


def _resembles(found: Agreement, name: str, searched: bool, warn: Warn) -> bool:
    """Whether a reference that agrees so is used; the user is told when it is not, or may be wrong."""
    similarity = found.similarity
    if math.isnan(similarity):
        text = f"{name} shares too little with the scan to judge whether it is of the same anatomy: look at the result with care"
        warn("reference-unjudged", text)
        return True
    if similarity < found.least:
        unsearched = "" if searched else " It may have moved, and registration was left out."
        warn(
            "reference-unlike",
            f"{name} does not resemble the scan (similarity {similarity:.3f}, expected at least {found.least:g}): is it of "
            f"the same patient and body part?{unsearched} It is not used",
        )
    return similarity >= found.least


def _rounded(similarity: float) -> float | None:
    return None if math.isnan(similarity) else round(similarity, 4)


def overlap_of(reference: Volume, volume: Volume) -> float:
    """The part of the head in `volume` that lies inside the box of `reference`, 0 to 1."""
    coarse = at_level(volume, LEVELS[0])
    index = np.argwhere(_head(coarse))[:, ::-1]
    return float(np.mean(reference.grid.contains(coarse.grid.index_to_world(index)))) if len(index) else 0.0


def moved(reference: Volume, transform: np.ndarray) -> Volume:
    """`reference` where it lies in the input's space: `transform` (4x4) takes the input's points to the reference's."""
    back = np.linalg.inv(transform)
    grid = reference.grid
    origin = back[:3, :3] @ np.asarray(grid.origin) + back[:3, 3]
    axes = back[:3, :3] @ grid.axes
    there = Grid(grid.size, grid.spacing, tuple(origin.tolist()), tuple(axes.ravel().tolist()))  # type: ignore[arg-type]
    return Volume(reference.array, there, reference.name, reference.metadata)


def motion(transform: np.ndarray, volume: Volume) -> float:
    """The largest displacement (mm) that `transform` gives a corner of the head's box."""
    coarse = at_level(volume, LEVELS[0])
    index = np.argwhere(_head(coarse))[:, ::-1]
    if not len(index):
        return 0.0
    ends = np.array(np.meshgrid(*zip(index.min(0), index.max(0), strict=True), indexing="ij")).reshape(3, -1).T
    points = coarse.grid.index_to_world(ends)
    return float(np.linalg.norm(points @ transform[:3, :3].T + transform[:3, 3] - points, axis=1).max())


def rotation_of(transform: np.ndarray) -> float:
    """The angle of a rigid transform's rotation, degrees."""
    return math.degrees(math.acos(float(np.clip((np.trace(transform[:3, :3]) - 1) / 2, -1, 1))))


def at_level(volume: Volume, spacing: float) -> Volume:
    """`volume` at `spacing` mm, along the axes where it is finer."""
    wanted = tuple(max(mm, spacing) for mm in volume.grid.spacing)
    grid = volume.grid.with_spacing(wanted)  # type: ignore[arg-type]
    return volume if grid.same_as(volume.grid) else resample(volume, grid, "linear")


def _believed(trial: Agreement, before: Agreement, distance: float, voxel: float) -> bool:
    """Whether a motion of `distance` mm found by registration is better than the headers' word."""
    if distance > LARGEST_MOTION:
        return False
    return trial.information > before.information * (CLEARLY_BETTER if distance <= voxel else BETTER)


def _registered(reference: Volume, volume: Volume, progress: Progress, cancel: Cancel) -> np.ndarray:
    """The rigid transform (4x4) from the input's points to the reference's that maximises Mattes mutual information."""
    import SimpleITK as sitk

    centre = _head_centre(volume)
    transform = sitk.Euler3DTransform()
    transform.SetCenter(centre)
    for number, level in enumerate(LEVELS):
        stop_if(cancel)
        fixed, moving = at_level(volume, level), at_level(reference, level)
        head = Volume(_near_head(fixed).astype(np.float32), fixed.grid)
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(BINS)
        method.SetMetricSamplingStrategy(method.RANDOM)
        voxels = fixed.array.size
        method.SetMetricSamplingPercentage(min(1.0, max(SAMPLES, 20000 / voxels)), seed=1)
        method.SetMetricFixedMask(sitk.Cast(to_sitk(head, sitk), sitk.sitkUInt8))
        method.SetInterpolator(sitk.sitkLinear)
        # Scales from physical shift make a step mean as many mm in rotation as in translation.
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=level / 2,
            minStep=level / 500,
            numberOfIterations=100,
            relaxationFactor=0.6,
            gradientMagnitudeTolerance=1e-6,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInitialTransform(transform, inPlace=True)
        method.SetNumberOfThreads(1)  # the sums would depend on the threads' order
        try:
            method.Execute(_unit(fixed, sitk), _unit(moving, sitk))
        except RuntimeError:  # too few samples map inside: the headers stand
            return np.eye(4)
        progress(STAGE, number + 1, len(LEVELS) + 1, None)
    return _matrix(transform)


def _matrix(transform: sitk.Euler3DTransform) -> np.ndarray:
    rotation = np.asarray(transform.GetMatrix()).reshape(3, 3)
    centre, shift = np.asarray(transform.GetCenter()), np.asarray(transform.GetTranslation())
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, centre + shift - rotation @ centre
    return matrix


def _unit(volume: Volume, sitk: object) -> sitk.Image:
    scaled = np.asarray(IntensityScale.of(volume.array).to_unit(volume.array), dtype=np.float32)
    return to_sitk(Volume(np.clip(scaled, -0.2, 1.5), volume.grid), sitk)


def _head(volume: Volume) -> np.ndarray:
    """Where `volume` is brighter than air."""
    scale = IntensityScale.of(volume.array)
    return np.asarray(volume.array > scale.low + FOREGROUND * (scale.high - scale.low))


def _inside(volume: Volume) -> np.ndarray:
    """The head's voxels `SHELL` mm and more under the skin, or the whole head where those are few.

    Scalp, neck and face look alike in all people and move against the brain, and most of a thick scan's information is theirs.
    """
    from scipy import ndimage

    head = _head(volume)
    axis = 2 - volume.grid.slice_axis
    filled = np.stack([ndimage.binary_fill_holes(part) for part in np.moveaxis(head, axis, 0)])
    depth = ndimage.distance_transform_edt(np.moveaxis(filled, 0, axis), sampling=volume.grid.spacing[::-1])
    inside = head & (depth > SHELL)
    return inside if np.count_nonzero(inside) >= FEWEST_INSIDE else head


def _near_head(volume: Volume) -> np.ndarray:
    """The head and 1 cm around it: the edge to the air tells much, more air nothing."""
    from scipy import ndimage

    distance = ndimage.distance_transform_edt(~_head(volume), sampling=volume.grid.spacing[::-1])
    return np.asarray(distance <= 10.0)


def _head_centre(volume: Volume) -> Sequence[float]:
    coarse = at_level(volume, LEVELS[0])
    index = np.argwhere(_head(coarse))[:, ::-1]
    middle = index.mean(0) if len(index) else (np.asarray(coarse.grid.size) - 1) / 2
    return coarse.grid.index_to_world(middle[None])[0].tolist()  # type: ignore[no-any-return]


def _shift_at_head(transform: np.ndarray, volume: Volume) -> np.ndarray:
    """How `transform` displaces the middle of the head, mm."""
    centre = np.asarray(_head_centre(volume))
    return transform[:3, :3] @ centre + transform[:3, 3] - centre


def _entropy(counts: np.ndarray) -> float:
    """Of a histogram, in nats, corrected for the number of samples (Miller 1955)."""
    some = counts[counts > 0] / counts.sum()
    return float(-np.sum(some * np.log(some))) + (some.size - 1) / (2 * float(counts.sum()))


def _check_sharpness(reference: Volume, volume: Volume, target: Grid, warn: Warn) -> None:
    """A reference must be finer than the input along the axes that are refined; coarser than the input or the answer is told."""
    there, own = reference.grid, volume.grid.spacing
    along = [float(np.linalg.norm(there.axes.T @ volume.grid.axes[:, axis] * there.spacing)) for axis in range(3)]
    refined = [axis for axis in range(3) if target.spacing[axis] < 0.99 * own[axis]]
    if refined and all(along[axis] > 0.99 * own[axis] for axis in refined):
        raise UnsuitableVolume(
            f"the reference {reference.name or ''} has voxels of {max(along[axis] for axis in refined):.3g} mm along the axis to "
            f"refine, the scan {max(own[axis] for axis in refined):.3g} mm: a reference must be finer than the scan",
            code="coarse-reference",
        )
    coarse = [axis for axis in range(3) if along[axis] > COARSER * own[axis]]
    blunt = [axis for axis in refined if along[axis] > BLUNTER * target.spacing[axis]]
    if coarse:
        axis = max(coarse, key=lambda axis: along[axis] / own[axis])
        warn(
            "blunt-reference",
            f"the reference has {along[axis]:.3g} mm along {'ijk'[axis]} where the scan has {own[axis]:.3g} mm: what it adds is "
            "blurred that way",
        )
    elif blunt:
        axis = blunt[0]
        warn(
            "blunt-reference",
            f"the reference has {along[axis]:.3g} mm where the result has {target.spacing[axis]:.3g} mm: it helps less there",
        )
