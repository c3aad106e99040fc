"""Whether a scan shows a head that can be translated: air around it, tissue in it, no negative, no noise alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UnsuitableVolume
from ..intensity import IntensityScale
from .options import Warn, log_warning

if TYPE_CHECKING:
    from ..volume import Volume

LEAST_CONTRAST = 1e-3  # of a scan's largest value: a robust range below that is no image
LEAST_BRIGHT = 0.005  # of the voxels brighter than a tenth of the range
MOST_ROUGH = 0.8  # mean squared step over twice the variance: 1 for white noise, 0.5 at most across real heads
FAR = 32  # a step of the 32nd part of an image is far enough for interpolated noise to look white
ALIKE = 0.75  # of the middle's brightness: a border as bright as that is no air around a head
TISSUE = 0.3  # of the robust range: what is brighter is tissue
LEAST_STRUCTURE = 0.015  # standard deviation without the noise, on the unit scale: real heads have 0.04 at least
REVERSED = 0.5  # of the robust range: air brighter than that, and than the middle, is no MR magnitude image


def check_view(volume: Volume, slice_axis: int, warn: Warn = log_warning) -> None:
    """Raise `UnsuitableVolume` (code "no-head") when there is nothing to translate.

    Warns of intensities that may be "reversed", and of a "doubtful-view": no air around, or one even brightness.
    """
    scale = IntensityScale.of(volume.array)
    largest = float(np.max(np.abs(volume.array)))
    if scale.high - scale.low < LEAST_CONTRAST * largest:
        raise _no_head(volume, f"its values are all between {scale.low:.6g} and {scale.high:.6g}")
    unit = np.moveaxis(scale.to_unit(volume.array), 2 - slice_axis, 0)  # (slices, rows, columns)
    if float(np.mean(unit > 0.1)) < LEAST_BRIGHT:
        raise _no_head(volume, f"only {100 * float(np.mean(unit > 0.1)):.2g} % of its voxels are bright")
    inside = np.clip(unit, 0.0, 1.0)
    everywhere = np.ones(inside.shape, dtype=bool)
    border, middle = _border_and_middle(inside)
    no_air = _no_air(border, middle)
    far = max(1, min(inside.shape[1:]) // FAR)
    if _roughness(inside, everywhere) > MOST_ROUGH or (no_air and _roughness(inside, everywhere, far) > MOST_ROUGH):
        raise _no_head(volume, "it shows noise only")
    tissue = inside > TISSUE
    if border > max(REVERSED, middle):
        warn(
            "reversed",
            "the scan's border is brighter than its middle: if its intensities are reversed, as in a negative, the "
            "translation will be wrong",
        )
    elif no_air:
        warn(
            "doubtful-view", "no air surrounds what the scan shows: if it is not a head, its translation means nothing"
        )
    elif float(np.var(inside[tissue])) * (1 - _roughness(inside, tissue)) < LEAST_STRUCTURE**2:
        warn(
            "doubtful-view",
            "what the scan shows is evenly bright, as in a phantom: if it is not a head, its translation means nothing",
        )


def scale_above_air(volume: Volume, slice_axis: int) -> IntensityScale:
    """The scale of a scan, with the air around the head as its dark end where there is air.

    The darkest voxels of a scan that was interpolated lie below its air, beside bright edges. The networks know no such scans.
    """
    scale = IntensityScale.of(volume.array)
    unit = np.moveaxis(scale.to_unit(volume.array), 2 - slice_axis, 0)
    air, middle = _border_and_middle(np.clip(unit, 0.0, 1.0))
    return scale if _no_air(air, middle) else replace(scale, low=scale.low + air * (scale.high - scale.low))


def _no_air(border: float, middle: float) -> bool:
    """Whether slices with these medians of their borders and middles have no air around what they show."""
    return border > max(0.1, ALIKE * middle)


def _roughness(stack: np.ndarray, where: np.ndarray, lag: int = 1) -> float:
    """Mean squared difference in slices, `lag` pixels apart, over twice the variance: the part of it that is noise.

    where: the voxels that count. 1 where nothing varies.
    """
    variance = float(np.var(stack[where]))
    steps = []
    for axis in (1, 2):
        ends = [np.moveaxis(each, axis, 0) for each in (stack, where)]
        both = ends[1][lag:] & ends[1][:-lag]
        if both.any():
            steps.append(float(np.mean(np.square(ends[0][lag:] - ends[0][:-lag])[both])))
    return float(np.mean(steps)) / (2 * variance) if steps and variance else 1.0


def _border_and_middle(stack: np.ndarray) -> tuple[float, float]:
    """The median of the outermost pixels of the slices, and that of the middle half of their rows and columns."""
    rows, columns = stack.shape[1:]
    frame = np.concatenate([stack[:, [0, -1]].ravel(), stack[:, :, [0, -1]].ravel()])
    middle = stack[:, rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    return float(np.median(frame)), float(np.median(middle))


def _no_head(volume: Volume, why: str) -> UnsuitableVolume:
    return UnsuitableVolume(
        f"no head is in view of {volume.name or 'the scan'}: {why}; is it the right volume?", code="no-head"
    )
