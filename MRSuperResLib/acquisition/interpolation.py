"""Interpolation between two grids of one extent, one matrix an axis: zero-filled k-space, and bicubic as papers use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import UsageError
from .operators import Acquisition, AxisOperator, bicubic, cubic, kspace_crop

if TYPE_CHECKING:
    from ..grid import Grid
    from ..volume import Volume

SEPARABLE = ("bicubic", "zerofill")
TORCH_A = -0.75  # of the cubic kernel in torch and cv2; a ramp does not stay straight with it


def zero_filled(n_low: int, n_high: int) -> AxisOperator:
    """Zero-filling of k-space: (n_high, n_low), the band-limited periodic signal through `n_low` samples, sampled finer.

    Exact on edge-aligned grids: sample m of n lies at (m + 0.5) / n of the field of view. The Nyquist frequency of an even `n_low`
    counts half on either side, as in `kspace_crop`, whose adjoint this is but for a factor. A coarser grid gets `kspace_crop`.
    """
    if n_high <= n_low:
        return kspace_crop(n_low, n_low / n_high)
    crop = kspace_crop(n_high, n_high / n_low)
    return AxisOperator(crop.matrix.T * (n_high / n_low), "zero-filled k-space")


def bicubic_interpolation(n_low: int, n_high: int) -> AxisOperator:
    """Bicubic interpolation as torch and cv2 have it, antialiasing off: (n_high, n_low), a = -0.75, border samples repeated.

    A coarser grid gets the antialiased `bicubic`.
    """
    if n_high <= n_low:
        return bicubic(n_low, n_low / n_high)
    positions = (np.arange(n_high) + 0.5) * n_low / n_high - 0.5
    matrix = np.zeros((n_high, n_low))
    for row, position in enumerate(positions):
        taps = int(np.floor(position)) + np.arange(-1, 3)
        np.add.at(matrix[row], np.clip(taps, 0, n_low - 1), cubic(taps - position, TORCH_A))
    return AxisOperator(matrix, "bicubic interpolation")


def interpolate(volume: Volume, grid: Grid, interpolation: str) -> Volume:
    """`volume` on `grid`, which has its extent, by "zerofill" or "bicubic" along every axis that changes.

    Raises `UsageError` for another name, or a grid of another extent.
    """
    from ..volume import Volume

    if interpolation not in SEPARABLE:
        raise UsageError(f"interpolation '{interpolation}' is unknown here; choose one of {', '.join(SEPARABLE)}")
    if not np.allclose(grid.corners(), volume.grid.corners(), atol=1e-3):
        raise UsageError(f"'{interpolation}' keeps the scan's extent: the grid asked for has another")
    make = zero_filled if interpolation == "zerofill" else bicubic_interpolation
    sizes = zip(volume.grid.shape, grid.shape, strict=True)
    operators = {axis: make(low, high) for axis, (low, high) in enumerate(sizes) if low != high}
    array = Acquisition(operators).apply(volume.array.astype(np.float32, copy=False))
    return Volume(np.ascontiguousarray(array), grid, volume.name, volume.metadata)
