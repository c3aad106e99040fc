"""Is the result true to what the scanner measured? The result is put back through the acquisition and compared.

The acquisition is a model too (see `acquisition.py`): a profile wrongly assumed shows up in the map as structure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from .acquisition import KINDS, PROFILES, Acquisition, AxisOperator, axis_operator, zero_filled
from .errors import UsageError
from .intensity import IntensityScale

if TYPE_CHECKING:
    from .grid import Grid
    from .volume import Volume

Warn = Callable[[str, str], None]  # (stable code, one line for people)

IN_PLANE = "kspace"  # a coarse matrix is a cropped k-space, whatever the slice profile
THICKNESS = (0.1, 4.0)  # of the spacing between slices: what is told beyond is a mistake of units
UNCERTAIN = (
    0.15  # of a thickness: what estimates err by on scans whose thickness is known, and makers' profiles differ by
)
OTHER_PROFILE = {"gaussian": "box", "box": "gaussian", "sinc": "box"}
TISSUE = 0.1  # of the robust range
TO_DEVIATION = 1.4826  # from the median of absolute values to the standard deviation of a normal law
RAYLEIGH = 0.655  # standard deviation of a Rayleigh law over that of the noise in one channel: air in magnitude images
PASSES = 4  # of correction; clipping at 0 undoes a little of each
SMALLEST = 0.1  # singular values below that part of the largest are noise alone
SMOOTH = 1e-3  # weight of a correction's second differences, squared, beside that of what is missed
EVENING = (0.0, 3e-4, 1e-3, 2e-3, 3e-3, 5e-3)  # weights of uneven steps, the first that draws no stripes is taken
SHARES = (0.85, 0.7, 0.55, 0.4, 0.25, 0.1, 0.0)  # of a correction, where even the evenest draws stripes
AROUND = 3  # acquired voxels along each axis
SLIGHT = 0.05  # share of what is missed that is not worth another pass
EVEN = 1.04  # ratio of steps in simulated thick slices of real heads: no stripes
LIVELIER = 1.1  # standard deviation of a projected answer over the unprojected one's; with the true thickness it is 1.08 at most


def acquisition_between(
    acquired: Grid, result: Grid, slice_axis: int, profile: str = "gaussian", thickness: float | None = None
) -> Acquisition:
    """The acquisition that makes a volume on `acquired` out of one on `result`, which is finer and has the same extent.

    profile: of the slices, "gaussian", "box" or "sinc"; "kspace" or "bicubic" is used for every axis. slice_axis: 0..2
    (i, j, k). thickness: of a slice in mm, None for the spacing; below it there are gaps. In plane a matrix is taken to
    be a cropped k-space. Raises `UsageError` if an axis of `result` is coarser, or for an impossible thickness.
    """
    if profile not in KINDS:
        raise UsageError(f"profile is '{profile}', expected one of {', '.join(KINDS)}")
    relative = 1.0 if thickness is None else thickness / acquired.spacing[slice_axis]
    if not THICKNESS[0] <= relative <= THICKNESS[1]:
        low, high = (share * acquired.spacing[slice_axis] for share in THICKNESS)
        raise UsageError(
            f"the slice thickness is {thickness:g} mm, expected {low:.3g} to {high:.3g} mm for these slices"
        )
    operators = {}
    for axis, (low, high) in enumerate(zip(acquired.size, result.size, strict=True)):
        if high < low:
            raise UsageError(
                f"the result is coarser than the scan along {'ijk'[axis]}: consistency is defined for finer grids only"
            )
        if high > low:
            kind = profile if axis == slice_axis or profile in ("kspace", "bicubic") else IN_PLANE
            wide = relative if axis == slice_axis else 1.0
            operators[2 - axis] = axis_operator(kind, high, high / low, thickness=wide)
    return Acquisition(operators)


def consistency_map(result: Volume, acquired: Volume, acquisition: Acquisition) -> Volume:
    """What the result would have been acquired as, minus what was acquired: on the acquired grid, in its units.

    Zero everywhere means that nothing in the result contradicts the measurement.
    """
    from .volume import Volume

    again = acquisition.apply(result.array)
    return Volume(
        np.ascontiguousarray(again - acquired.array, dtype=np.float32), acquired.grid, f"{acquired.name} consistency"
    )


def slice_thickness(
    volume: Volume, slice_axis: int, told: float | None = None, profile: str = "gaussian", warn: Warn | None = None
) -> float | None:
    """Thickness of the slices of `volume` across `slice_axis`, mm: what was `told`, what the file says, or what its blur tells.

    None, for the spacing, if neither is known. `warn` hears of an estimate, and of gaps or overlaps that the file tells.
    """
    if told is not None or profile not in PROFILES:
        return told
    spacing = volume.grid.spacing[slice_axis]
    if volume.thickness is not None and THICKNESS[0] * spacing <= volume.thickness <= THICKNESS[1] * spacing:
        return volume.thickness
    from .acquisition.thickness import estimate_thickness

    found = estimate_thickness(volume, slice_axis, profile)
    if found is not None and warn:
        warn(
            "thickness-estimated",
            f"how thick the slices are is not told: they are as blurred as {found:.2g} mm thick ones ({profile} profile), "
            f"{spacing:.3g} mm apart; give the thickness if you know it",
        )
    return found


def alternatives(
    acquired: Grid, result: Grid, slice_axis: int, profile: str = "gaussian", thickness: float | None = None
) -> tuple[Acquisition, ...]:
    """What the acquisition may be as well: slices a little thinner and thicker, and of another profile; none without slices."""
    if profile not in OTHER_PROFILE or result.size[slice_axis] <= acquired.size[slice_axis]:
        return ()
    mm = acquired.spacing[slice_axis] if thickness is None else thickness
    thinnest, thickest = (share * acquired.spacing[slice_axis] for share in THICKNESS)
    thinner, thicker = max(thinnest, mm * (1 - UNCERTAIN)), min(thickest, mm * (1 + UNCERTAIN))
    widths = ((profile, thinner), (profile, thicker), (OTHER_PROFILE[profile], mm))
    return tuple(acquisition_between(acquired, result, slice_axis, *each) for each in widths)


def noise_level(volume: Volume, slice_axis: int) -> float:
    """Standard deviation of the noise in `volume`, its units: the smaller of what air and what the finest detail in tissue show.

    Both are robust (medians); air is left out where it was set to zero.
    """
    array = np.moveaxis(volume.array, 2 - slice_axis, 0)
    scale = IntensityScale.of(array)
    tissue = array > scale.low + TISSUE * (scale.high - scale.low)
    fine = array[:, 2:] - 2 * array[:, 1:-1] + array[:, :-2]
    fine = (
        fine[:, :, 2:] - 2 * fine[:, :, 1:-1] + fine[:, :, :-2]
    )  # of white noise 6 standard deviations (Immerkaer 1996)
    inner = tissue[:, 1:-1, 1:-1]
    found = [float(np.median(np.abs(fine[inner]))) * TO_DEVIATION / 6] if inner.any() else []
    air = array[~tissue]
    if air.size and float(np.mean(air == np.median(air))) < 0.5:
        found.append(float(np.median(np.abs(air - np.median(air)))) * TO_DEVIATION / RAYLEIGH)
    return min(found, default=0.0)


def step_ratio(array: np.ndarray, axis: int, factor: float) -> float:
    """How unevenly slices differ from the next within a block of `factor` fine slices: largest over smallest mean step, 1 is even.

    Steps at the borders of the acquired slices that differ from those inside them show as stripes. axis: of `array`.
    """
    steps, phase = _steps(array, axis, factor)
    means = [float(steps[phase == one].mean()) for one in range(phase.max() + 1) if np.any(phase == one)]
    return max(means) / min(means) if min(means) > 0 else 1.0


def project(
    result: Volume,
    acquired: Volume,
    acquisition: Acquisition,
    *,
    slice_axis: int | None = None,
    otherwise: Sequence[Acquisition] = (),
    noise: float = 0.0,
    warn: Warn | None = None,
) -> Volume:
    """`result` corrected until the acquisition turns it into `acquired` to within the noise.

    noise: standard deviation of `acquired`. otherwise: what the acquisition may be as well (`alternatives`); what they disagree on
    counts as noise, voxel by voxel. Only what exceeds it is corrected, along `slice_axis` (0..2) by the smoothest correction that
    does it. Steps between slices never become more uneven than they are (`step_ratio`): where they would, the largest of them are
    made smaller, as far as the acquired slices allow. Nor does it become much livelier (`LIVELIER`): slices told thicker than they
    are would otherwise be sharpened to many times their values. Scans without negative voxels get none.
    """
    largest = max(*(float(np.abs(one.array).max()) for one in (result, acquired)), float(np.finfo(np.float32).tiny))
    unit = np.float32(math.ldexp(1.0, math.frexp(largest)[1]))  # squares of its like would leave float32's range
    result, acquired = (replace(one, array=one.array / unit) for one in (result, acquired))
    array = _projected(result, acquired, acquisition, slice_axis, otherwise, noise / float(unit), warn)
    return replace(result, array=np.ascontiguousarray(array * unit, dtype=np.float32))


def _projected(
    result: Volume,
    acquired: Volume,
    acquisition: Acquisition,
    slice_axis: int | None,
    otherwise: Sequence[Acquisition],
    noise: float,
    warn: Warn | None,
) -> np.ndarray:
    """The voxels of `project`, of volumes whose largest values are about 1."""
    axis = None if slice_axis is None or 2 - slice_axis not in acquisition.operators else 2 - slice_axis
    variance = _tolerance(result.array, acquisition, otherwise, noise)
    rest = {other: _zero_filling(operator) for other, operator in acquisition.operators.items() if other != axis}
    lowest = 0.0 if float(acquired.array.min()) >= 0 else -np.inf
    if axis is None:
        return _corrected(result.array, acquired.array, acquisition, Acquisition(rest), variance, lowest)
    operator, before = acquisition.operators[axis], np.maximum(result.array, lowest)
    factor = operator.n_high / operator.n_low
    most = max(step_ratio(result.array, axis, factor), step_ratio(before, axis, factor), EVEN)
    best, least, uneven = before, np.inf, np.zeros(operator.n_high - 1)
    for weight in EVENING:
        back, evening = _smooth_inverse(operator, uneven, weight)
        start = result.array + evening.apply(result.array, axis) if weight else result.array
        array = _corrected(start, acquired.array, acquisition, Acquisition({axis: back, **rest}), variance, lowest)
        ratio = step_ratio(array, axis, factor)
        if ratio < least:
            best, least = array, ratio
        if ratio <= most:
            break
        uneven = np.maximum(uneven, _uneven_steps(array, axis, factor))
    liveliest = LIVELIER * max(float(before.std()), float(acquired.array.std()))
    if least > most or float(best.std()) > liveliest:
        best = _weakened(before, best, axis, factor, most, liveliest, warn)
    return best


def _weakened(
    before: np.ndarray,
    after: np.ndarray,
    axis: int,
    factor: float,
    most: float,
    liveliest: float,
    warn: Warn | None,
) -> np.ndarray:
    """As much of the way from `before` to `after` as draws no stripes and does not exceed the standard deviation `liveliest`."""
    sharpened = float(after.std()) > liveliest
    for share in SHARES:
        array = before + np.float32(share) * (after - before)
        if step_ratio(array, axis, factor) <= most and float(array.std()) <= liveliest:
            break
    if warn:
        why = (
            "would sharpen it beyond what scans show: are the slices thinner than told?"
            if sharpened
            else "would draw stripes: is the profile another?"
        )
        warn("projection-weakened", f"{share:.0%} of the correction to the acquired slices was made, more {why}")
    return array


def _corrected(
    array: np.ndarray,
    acquired: np.ndarray,
    acquisition: Acquisition,
    back: Acquisition,
    variance: np.ndarray,
    lowest: float,
) -> np.ndarray:
    """`array`, at least `lowest`, corrected through `back` where `acquired` is missed by more than `variance`.

    What is missed counts in the mean square of a small neighbourhood, so that single noisy voxels are no reason (Wiener's share).
    """
    for _ in range(PASSES):
        missing = acquired - acquisition.apply(array)
        energy = ndimage.uniform_filter(np.square(missing), AROUND)
        share = 1 - variance / np.maximum(energy, variance)
        if float(share.max()) < SLIGHT:
            break
        array = np.maximum(array + back.apply(missing * share), lowest)
    return array


def _tolerance(
    array: np.ndarray, acquisition: Acquisition, otherwise: Sequence[Acquisition], noise: float
) -> np.ndarray:
    """Variance of what was acquired around what `array` would be acquired as: noise, and half of what `otherwise` differs by."""
    own = acquisition.apply(array)
    variance = np.full(own.shape, noise**2, dtype=np.float32)
    for other in otherwise:
        variance += np.square(other.apply(array) - own) / np.float32(2)
    return np.maximum(ndimage.uniform_filter(variance, AROUND), np.finfo(np.float32).tiny)


def _zero_filling(operator: AxisOperator) -> AxisOperator:
    """Zero-filled k-space that `operator` gives back, for axes in the plane."""
    smooth = zero_filled(operator.n_low, operator.n_high).matrix
    return AxisOperator(smooth @ np.linalg.pinv(operator.matrix @ smooth, rcond=SMALLEST), "correction in the plane")


def _smooth_inverse(operator: AxisOperator, uneven: np.ndarray, weight: float) -> tuple[AxisOperator, AxisOperator]:
    """Matrices B and E: B m is what to add for missing m, E x what evens the steps of x and hardly changes what is acquired.

    B m + E x minimises |A c - m|^2 + SMOOTH |second differences of c|^2 + weight sum(uneven |steps of x + c|^2) over c.
    """
    n = operator.n_high
    first, second = np.diff(np.eye(n), axis=0), np.diff(np.eye(n), 2, axis=0)
    steps = weight * first.T @ (uneven[:, None] * first)
    inverse = np.linalg.inv(operator.matrix.T @ operator.matrix + SMOOTH * second.T @ second + steps)
    return AxisOperator(inverse @ operator.matrix.T, "correction"), AxisOperator(-inverse @ steps, "evening")


def _uneven_steps(array: np.ndarray, axis: int, factor: float) -> np.ndarray:
    """By how much each step between slices along `axis` is larger than the mean of a block, as a share; 0 for smaller ones."""
    steps, phase = _steps(array, axis, factor)
    means = np.array([steps[phase == one].mean() if np.any(phase == one) else 0.0 for one in range(phase.max() + 1)])
    return np.clip(means / max(float(steps.mean()), np.finfo(float).tiny) - 1, 0, None)[phase]


def _steps(array: np.ndarray, axis: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean absolute step from each fine slice to the next, and where in a block of `factor` slices each lies."""
    steps = np.abs(np.diff(array, axis=axis)).mean(axis=tuple(other for other in range(array.ndim) if other != axis))
    blocks = max(1, round(factor))
    phase = np.floor((np.arange(1, len(steps) + 1) / factor % 1.0) * blocks + 1e-6).astype(int) % blocks
    return steps, phase
