"""Brings a reference scan onto the grid where a network wants it, after checking that it shows the same anatomy in the same place.

Two scans of one visit share the scanner's coordinates, but patients move: a rigid registration by mutual information (Mattes, in
SimpleITK) finds the motion, and is used only if the two scans agree better after it than before. How well they agree is a number,
the similarity: a reference of another patient or body part has a low one, is not used, and the user is told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from .errors import UnsuitableVolume
from .inference.options import Aligned, Cancel, Progress, Warn, log_warning, never, silent, stop_if
from .intensity import IntensityScale
from .volume import Grid, Volume, check_volume, resample, to_sitk

if TYPE_CHECKING:
    import SimpleITK as sitk

STAGE = "registering"
LEVELS = (8.0, 4.0, 2.0)  # mm: the spacing both scans are compared at, coarse to fine
SAMPLES = 0.25  # of the voxels of a level
BINS = 32
FOREGROUND = 0.1  # of the robust range: darker voxels are air
LEAST_OVERLAP = 0.02  # of the input's head that the reference must cover, or there is nothing to register
FULL_OVERLAP = 0.9  # below it the user is told
# See `Agreement`. Measured at x4 in plane: pairs of one person 0.20 (two slices) to 0.50, of two people 0.02 to 0.29. The ranges
# overlap; the lower end is chosen, because guided models see strangers in training and lose little by one.
LEAST_SIMILARITY = 0.18
# The information must rise by this factor to believe in a motion of more, or less, than a voxel.
BETTER, CLEARLY_BETTER = 1.06, 1.1
CHECKED_SHIFT = 3.0  # mm, for `Agreement`
FEWEST_VOXELS = 100  # with fewer nothing can be said about the agreement
LARGEST_MOTION = 100.0  # mm; more is a failed registration


@dataclass(frozen=True)
class Agreement:
    """How much two scans tell about each other. information: normalised mutual information, 0 to 1. shifted: its mean when one is
    shifted by `CHECKED_SHIFT` mm along each axis, either way.
    """

    information: float
    shifted: float

    @property
    def similarity(self) -> float:
        """The part of the information that a shift destroys: 0 for strangers, near 1 for one head in two sharp contrasts.

        Any two heads share some information, bright brain in dark air; only the same anatomy loses most of it by a shift.
        """
        return max(0.0, 1.0 - self.shifted / self.information) if self.information > 0 else 0.0


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
    register: bool | Literal["auto"] = "auto",
    warn: Warn = log_warning,
    progress: Progress = silent,
    cancel: Cancel = never,
) -> AlignedReference:
    """`reference` on `grid`, which is the grid of the answer to `volume`, and where it is valid there.

    register: True or "auto" to look for a motion between the scans, and use it if it is more than a voxel of `grid` or makes the
    scans agree clearly better; False to trust the headers. A reference that does not resemble `volume` is told to `warn` and valid
    nowhere, so that a guided network works from `volume` alone. Raises `UnsuitableVolume` for a reference that does not overlap
    `volume` or is coarser than it along the axes to refine, and what `check_volume` raises.
    """
    reference = check_volume(reference, warn)
    name = f"the reference {reference.name}".strip()
    _check_sharpness(reference, volume, grid, warn)
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
        trial = agreement(moved(reference, found), volume)
        if _believed(trial, before, motion(found, volume), min(grid.spacing)):
            transform, after = found, trial
    stop_if(cancel)
    placed = moved(reference, transform)
    answer = resample(placed, grid, "bspline")
    everywhere = Volume(np.ones(reference.array.shape, np.float32), placed.grid)
    valid = resample(everywhere, grid, "nearest", fill=0.0).array > 0.5
    overlap = overlap_of(placed, volume)
    shift, degrees = float(np.linalg.norm(_shift_at_head(transform, volume))), rotation_of(transform)
    was_moved, used = bool(np.any(transform != np.eye(4))), after.similarity >= LEAST_SIMILARITY
    if not used:
        warn(
            "reference-unlike",
            f"{name} does not resemble the scan (similarity {after.similarity:.2f}, expected at least {LEAST_SIMILARITY:g}): is it "
            "of the same patient and body part? It is not used",
        )
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
        "similarity": round(after.similarity, 4),
        "similarity_by_headers": round(before.similarity, 4),
        "mutual_information": round(after.information, 4),
        "mutual_information_by_headers": round(before.information, 4),
        "overlap": round(overlap, 4),
        "shift_mm": round(shift, 3),
        "rotation_degrees": round(degrees, 3),
        "transform": [[round(float(value), 6) for value in row] for row in transform],
    }
    return AlignedReference(answer, valid, report, transform, after.similarity, overlap)


def agreement(reference: Volume, volume: Volume) -> Agreement:
    """How `reference`, where it lies, agrees with `volume` inside the head.

    Normalised mutual information (Studholme 1999, less 1), (H(a) + H(b)) / H(a, b) - 1, at the finest of `LEVELS` or the scan's own
    spacing.
    """
    fixed = at_level(volume, LEVELS[-1])
    head = _head(fixed)
    if head.sum() < FEWEST_VOXELS:
        return Agreement(0.0, 0.0)
    steps = [[0.0, 0.0, 0.0]]
    steps += [[sign * CHECKED_SHIFT * (axis == a) for a in range(3)] for axis in range(3) for sign in (1, -1)]
    found = []
    moving = at_level(reference, min(LEVELS[-1], max(fixed.grid.spacing)))
    for step in steps:
        shifted = np.eye(4)
        shifted[:3, 3] = fixed.grid.axes @ step
        there = moved(moving, shifted)
        inside = (
            resample(Volume(np.ones(there.array.shape, np.float32), there.grid), fixed.grid, "nearest", fill=0.0).array
            > 0.5
        )
        seen = head & inside
        values = resample(there, fixed.grid, "linear").array
        found.append(mutual_information(fixed.array[seen], values[seen]) if seen.sum() >= FEWEST_VOXELS else 0.0)
    return Agreement(found[0], float(np.mean(found[1:])))


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Normalised mutual information of two lists of intensities, 0 (independent) to 1 (each tells the other)."""
    bins = []
    for values in (a, b):
        scale = IntensityScale.of(values)
        bins.append(np.clip(scale.to_unit(values.astype(np.float64)) * BINS, 0, BINS - 1).astype(np.intp))
    joint = np.bincount(bins[0] * BINS + bins[1], minlength=BINS * BINS).astype(float).reshape(BINS, BINS)
    joint /= joint.sum()
    of_both = _entropy(joint)
    return 0.0 if of_both == 0 else (_entropy(joint.sum(0)) + _entropy(joint.sum(1))) / of_both - 1.0


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


def _entropy(probabilities: np.ndarray) -> float:
    some = probabilities[probabilities > 0]
    return float(-np.sum(some * np.log(some)))


def _check_sharpness(reference: Volume, volume: Volume, grid: Grid, warn: Warn) -> None:
    """A reference must be finer than the input along the axes that are refined; coarser than the answer is told."""
    there = reference.grid
    refined = [axis for axis in range(3) if grid.spacing[axis] < 0.99 * volume.grid.spacing[axis]]
    along = {axis: float(np.linalg.norm(there.axes.T @ volume.grid.axes[:, axis] * there.spacing)) for axis in refined}
    if refined and all(along[axis] > volume.grid.spacing[axis] * 0.99 for axis in refined):
        raise UnsuitableVolume(
            f"the reference {reference.name or ''} has voxels of {max(along.values()):.3g} mm along the axis to refine, the scan "
            f"{max(volume.grid.spacing[axis] for axis in refined):.3g} mm: a reference must be finer than the scan",
            code="coarse-reference",
        )
    blunt = [axis for axis in refined if along[axis] > 1.5 * grid.spacing[axis]]
    if blunt:
        warn(
            "blunt-reference",
            f"the reference has {along[blunt[0]]:.3g} mm where the result has {grid.spacing[blunt[0]]:.3g} mm: it helps less there",
        )
