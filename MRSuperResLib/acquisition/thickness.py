"""How thick slices are where the file does not say: the blur through the plane is read from the scan's own spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .operators import slice_profile

if TYPE_CHECKING:
    from ..volume import Volume

CANDIDATES = (0.3, 0.45, 0.6, 0.75, 0.9, 1.05, 1.2, 1.35, 1.5)  # thickness over spacing
FEWEST_SLICES = 12  # fewer give no spectrum
FINER = 2.0  # the slices' spacing over the pixels', at least: what stands in for the slice axis must be sharper
MOST_LINES = 128  # rows that are looked at along each axis


def estimate_thickness(volume: Volume, slice_axis: int, profile: str = "gaussian") -> float | None:
    """Slice thickness (full width at half maximum, mm) that explains how blurred `volume` is across its slices.

    Heads have about the same detail in all directions. So one axis in the plane is acquired again with slices of the scan's
    spacing, of several thicknesses; the right one gives it the spectrum that the slice axis has. slice_axis: 0..2 (i, j, k).
    None where the scan has too few slices, or pixels that are not much finer than they.
    """
    spacing, size = volume.grid.spacing, volume.grid.size
    others = [axis for axis in range(3) if axis != slice_axis]
    others = [axis for axis in others if spacing[slice_axis] >= FINER * spacing[axis]]
    if size[slice_axis] < FEWEST_SLICES or not others:
        return None
    found = [_matched(volume, slice_axis, axis, profile) for axis in others]
    known = [width for width in found if width is not None]
    return float(np.mean(known)) * spacing[slice_axis] if known else None


def _matched(volume: Volume, slice_axis: int, axis: int, profile: str) -> float | None:
    """Thickness over spacing for which `axis`, made as coarse as the slices, is as blurred as they are; None if nothing varies."""
    factor = volume.grid.spacing[slice_axis] / volume.grid.spacing[axis]
    array = np.moveaxis(volume.array, (2 - slice_axis, 2 - axis), (0, 1)).astype(np.float32)
    array = array[:, :, :: max(1, array.shape[2] // MOST_LINES)]
    contrast = []
    for width in CANDIDATES:
        coarse = slice_profile(array.shape[1], factor, profile, width).apply(array, 1)
        through, within = _sharpness(coarse, 0), _sharpness(coarse, 1)
        if through is None or within is None:
            return None
        contrast.append(within - through)
    order = np.argsort(contrast)  # falls with the width; sorted, because interpolation needs it
    return float(np.interp(0.0, np.asarray(contrast)[order], np.asarray(CANDIDATES)[order]))


def _sharpness(array: np.ndarray, axis: int) -> float | None:
    """Log of the power in the upper third of the frequencies along `axis` over that in the lower third, without the mean."""
    lines = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    n = lines.shape[1]
    power = np.mean(np.abs(np.fft.rfft((lines - lines.mean(1, keepdims=True)) * np.hanning(n + 2)[1:-1])) ** 2, axis=0)
    last = len(power)
    low, high = power[1 : max(2, last // 3)].mean(), power[-(last // 3) :].mean()
    return float(np.log(high / low)) if low > 0 and high > 0 else None
