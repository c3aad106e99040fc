"""A scan with exactly the same spacing along every axis: networks in the plane and through it, in turn where both are needed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UnsuitableVolume
from ..grid import Grid
from ..models import ModelEntry
from ..resample import resample
from .options import Cancel, Options, Progress, Warn, log_warning, never, silent
from .recommend import refined_planes
from .super_resolution import super_resolve

if TYPE_CHECKING:
    from ..volume import Volume

EXTENT = 0.5  # voxels, at most, that a grid of exact spacing ends before or beyond the scan on either side


def isotropic_grid(grid: Grid, mm: float) -> Grid:
    """Voxels of exactly `mm` along every axis, around the same middle; it ends within half a voxel of where `grid` does."""
    size = tuple(max(1, round(extent / mm)) for extent in grid.extent)
    middle = grid.corners().mean(axis=0)
    origin = middle - grid.axes @ ((np.asarray(size) - 1) / 2 * mm)
    return Grid(size, (mm, mm, mm), tuple(origin.tolist()), grid.direction)  # type: ignore[arg-type]


def to_isotropic(
    volume: Volume,
    mm: float,
    model: ModelEntry | str,
    first: ModelEntry | str | None = None,
    *,
    options: Options | None = None,
    progress: Progress = silent,
    warn: Warn = log_warning,
    cancel: Cancel = never,
) -> Volume:
    """`volume` on `isotropic_grid(volume.grid, mm)`.

    model: for the one plane that is coarser than `mm`, or where both are, for the slices; then `first` refines in the plane before.
    Axes that are finer are averaged. Raises what `super_resolve` raises, and `UnsuitableVolume` if nothing has to be refined.
    """
    options = options or Options()
    axis, target = volume.grid.slice_axis, isotropic_grid(volume.grid, mm)
    planes = refined_planes(volume.grid, mm)
    if not planes:
        found = " x ".join(f"{spacing:.4g}" for spacing in volume.grid.spacing)
        raise UnsuitableVolume(
            f"the scan's spacing is {found} mm and {mm:g} mm is asked: nothing to refine", code="already-fine"
        )
    finer = [spacing if n == axis else max(spacing, mm) for n, spacing in enumerate(volume.grid.spacing)]
    coarse = volume.grid.with_spacing((finer[0], finer[1], finer[2]))
    made = resample(volume, coarse, "linear")  # averages pixels that would be lost in the end
    run = replace(options, slice_axis=axis, thickness=options.thickness or volume.thickness)
    for plane in planes:
        chosen = first if plane == "in-plane" and len(planes) > 1 and first is not None else model
        wanted = tuple(
            mm if (n == axis) == (plane == "through-plane") else old for n, old in enumerate(made.grid.spacing)
        )
        made = super_resolve(
            made, chosen, spacing=wanted, plane=plane, options=run, progress=progress, warn=warn, cancel=cancel
        )
    return resample(made, target, "bspline")
