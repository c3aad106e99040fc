"""A sharp scan and the coarse one made of it: what models are scored on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..acquisition import PROFILES, Degradation, acquire, preset
from ..errors import UnsuitableVolume, UsageError
from ..grid import Grid
from ..volume import FEWEST_SLICES, Volume
from . import metrics

DEFAULT_DEGRADATION = {"in-plane": "bicubic-noise", "through-plane": "through-gaussian"}
ANISOTROPIC = 1.2


@dataclass(frozen=True)
class DegradedPair:
    """A truth made coarse: `low` covers exactly the extent of `truth`. axis: of i, j, k, the acquired slices'."""

    truth: Volume
    low: Volume
    axis: int
    plane: str
    factor: float
    degradation: str


def degraded_pair(
    truth: Volume,
    plane: str,
    factor: float,
    degradation: Degradation | str | None = None,
    *,
    seed: int = 0,
    slices: int | None = None,
    slice_axis: int | None = None,
    thickness: float | None = None,
) -> DegradedPair:
    """`truth` trimmed to a multiple of `factor`, and coarsened.

    plane: "in-plane" coarsens both axes within the slices, "through-plane" the slice axis. slices: keep only that many in the
    middle of the head (in-plane: acquired slices; through-plane: voxels along one in-plane axis), to be quick. slice_axis: of
    i, j, k; by default the coarsest, or the axial one of an isotropic scan. thickness: of the slices, mm; by default as
    thick as they are apart. Raises `UsageError` for values that make no pair, `UnsuitableVolume` for a scan too small.
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
    if thickness is not None and (plane == "in-plane" or not thickness > 0):
        raise UsageError(f"thickness is {thickness:g} mm of {plane} slices: expected more than 0, through-plane")
    name = degradation or DEFAULT_DEGRADATION[plane]
    way, name = preset(name), name if isinstance(name, str) else name.kind
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
    if thickness is not None:
        way = replace(way, thickness=thickness / (truth.grid.spacing[axis] * factor))
        name += f", {thickness:g} mm thick"
    if slices is not None:
        name += f", {slices} middle slices"
    low_volume = acquire(truth, factors, way, seed=seed)  # type: ignore[arg-type]
    if plane == "through-plane" and way.kind in PROFILES:
        low_volume = replace(low_volume, thickness=way.thickness * low_volume.grid.spacing[axis])
    return DegradedPair(truth, low_volume, axis, plane, factor, name)


def acquired_axis(grid: Grid) -> int:
    """The axis slices were acquired along: the coarsest, or where spacings are alike the one whose slices are axial."""
    if max(grid.spacing) > ANISOTROPIC * min(grid.spacing):
        return grid.slice_axis
    return next((axis for axis in range(3) if grid.axis_name(axis) == "axial"), grid.slice_axis)


def scored_axis(pair: DegradedPair) -> int:
    """The array axis whose slices the network's plane shows: the acquired slices, or a reformat that holds the slice axis."""
    if pair.plane == "in-plane":
        return 2 - pair.axis
    return 2 - next(axis for axis in (1, 0, 2) if axis != pair.axis)


def front_to_back(grid: Grid, axis: int) -> int:
    """The index axis nearest to anterior-posterior that is not the slice axis."""
    others = [other for other in range(3) if other != axis]
    return max(others, key=lambda other: abs(grid.direction[3 + other]))


def _middle(volume: Volume, axis: int, count: int) -> Volume:
    box = metrics.head_box(volume.array)[2 - axis]
    size = volume.grid.size[axis]
    first, last = (box.start, box.stop) if box.start is not None else (0, size)
    start = max(0, min((first + last - count) // 2, size - count))
    corner, kept = [0, 0, 0], list(volume.grid.size)
    corner[axis], kept[axis] = start, min(count, size)
    return volume.crop(tuple(corner), tuple(kept))  # type: ignore[arg-type]
