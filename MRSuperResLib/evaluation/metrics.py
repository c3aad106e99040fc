"""How close a result is to the truth: PSNR, SSIM, NMSE and Dice, one definition each, on numpy arrays alone.

The data range of PSNR and SSIM is the truth's robust range, its 0.1 to 99.9 percentiles (`IntensityScale`), because a single
bright vessel would otherwise raise every score by decibels. Inside-the-head scores use the box around what is brighter than a
tenth of that range, so that air, which everything gets right, does not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ..errors import UnsuitableVolume
from ..intensity import IntensityScale
from .masks import FEWEST_VOXELS, HEAD_LEVEL, brain_inside, head_box

SSIM_SIGMA = 1.5  # Wang et al. 2004: Gaussian window of 11 samples, K1 and K2 as below
SSIM_RADIUS = 5
SSIM_K1, SSIM_K2 = 0.01, 0.03
HIGHEST_PSNR = 100.0  # dB; what summaries say of equal images, because JSON has no infinity
EMPTY_SLICE = 0.02  # a slice with less of its pixels brighter than HEAD_LEVEL is not scored


def data_range(truth: np.ndarray) -> float:
    """The truth's robust intensity range, in its own units."""
    scale = IntensityScale.of(truth)
    return scale.high - scale.low


def psnr(result: np.ndarray, truth: np.ndarray, range_: float | None = None) -> float:
    """Peak signal-to-noise ratio, dB: 10 log10(range^2 / mean((result - truth)^2)); inf when equal."""
    _same_shape(result, truth)
    error = float(np.mean(np.square(result.astype(np.float64) - truth)))
    peak = data_range(truth) if range_ is None else range_
    return math.inf if error == 0 else 10.0 * math.log10(peak**2 / error)


def nmse(result: np.ndarray, truth: np.ndarray) -> float:
    """Normalised mean squared error: sum((result - truth)^2) / sum(truth^2); 0 is perfect."""
    _same_shape(result, truth)
    power = float(np.sum(np.square(truth.astype(np.float64))))
    error = float(np.sum(np.square(result.astype(np.float64) - truth)))
    if power == 0:
        return 0.0 if error == 0 else math.inf
    return error / power


def ssim(result: np.ndarray, truth: np.ndarray, range_: float | None = None) -> float:
    """Mean structural similarity (Wang et al. 2004), 2D or 3D by the arrays' dimensions.

    Gaussian window of sigma 1.5 over 11 samples an axis, population covariances, K1 0.01, K2 0.03; the mean leaves out the
    border that the window does not fit in, except along axes shorter than the window.
    """
    similarity = ssim_map(result, truth, range_)
    inner = tuple(slice(SSIM_RADIUS, -SSIM_RADIUS) if n > 2 * SSIM_RADIUS else slice(None) for n in similarity.shape)
    return float(similarity[inner].mean())


def ssim_map(result: np.ndarray, truth: np.ndarray, range_: float | None = None) -> np.ndarray:
    """The structural similarity around every voxel, of which `ssim` is the mean."""
    _same_shape(result, truth)
    peak = data_range(truth) if range_ is None else range_
    x, y = result.astype(np.float64), truth.astype(np.float64)
    c1, c2 = (SSIM_K1 * peak) ** 2, (SSIM_K2 * peak) ** 2
    mean_x, mean_y = _windowed(x), _windowed(y)
    var_x = _windowed(x * x) - mean_x**2
    var_y = _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    similarity: np.ndarray = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    return similarity


def dice(result: np.ndarray, truth: np.ndarray) -> float:
    """Dice overlap of two boolean masks, 2|A and B| / (|A| + |B|); 1 when both are empty."""
    _same_shape(result, truth)
    total = int(np.count_nonzero(result)) + int(np.count_nonzero(truth))
    return 1.0 if total == 0 else 2.0 * int(np.count_nonzero(np.logical_and(result, truth))) / total


def by_slice(result: np.ndarray, truth: np.ndarray, axis: int) -> dict[str, float]:
    """Mean PSNR and SSIM over the slices along array `axis`, as papers on 2D networks report them; empty slices left out.

    The data range is that of the whole truth, so that all slices of a volume count alike.
    """
    _same_shape(result, truth)
    scale = IntensityScale.of(truth)
    peak, level = scale.high - scale.low, scale.low + HEAD_LEVEL * (scale.high - scale.low)
    scores = []
    for ours, real in zip(np.moveaxis(result, axis, 0), np.moveaxis(truth, axis, 0), strict=True):
        if np.mean(real > level) >= EMPTY_SLICE:
            scores.append((min(psnr(ours, real, peak), HIGHEST_PSNR), ssim(ours, real, peak)))
    if not scores:
        raise UnsuitableVolume(
            "no slice of the ground truth shows anything: is it the right volume?", code="empty-truth"
        )
    return {
        "psnr_slices": float(np.mean([s[0] for s in scores])),
        "ssim_slices": float(np.mean([s[1] for s in scores])),
    }


def summary(
    result: np.ndarray, truth: np.ndarray, axis: int | None = None, spacing: Sequence[float] | None = None
) -> dict[str, float]:
    """All scores of a volume (k, j, i).

    psnr, ssim, nmse: inside the head's box. *_whole: the whole volume. *_slices: means over slices along array `axis`, if
    given. *_brain: inside the brain without its rim of 4 mm, if its `spacing` (mm along the array's axes) is given and there is a
    brain to be found. PSNR is at most HIGHEST_PSNR.
    """
    box, peak = head_box(truth), data_range(truth)
    inside, real = result[box], truth[box]
    scores = {
        "psnr": min(psnr(inside, real, peak), HIGHEST_PSNR),
        "ssim": ssim(inside, real, peak),
        "nmse": nmse(inside, real),
        "psnr_whole": min(psnr(result, truth, peak), HIGHEST_PSNR),
        "ssim_whole": ssim(result, truth, peak),
        "nmse_whole": nmse(result, truth),
    }
    if spacing is not None:
        scores |= in_brain(result, truth, spacing)
    return scores if axis is None else scores | by_slice(result, truth, axis)


def in_brain(result: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> dict[str, float]:
    """PSNR and SSIM inside the brain, 4 mm and more from its surface; none if no brain is found. spacing: mm, array's axes."""
    where, peak = brain_inside(truth, spacing), data_range(truth)
    if int(np.count_nonzero(where)) < FEWEST_VOXELS:
        return {}
    similarity = ssim_map(result, truth, peak)[where]
    return {
        "psnr_brain": min(psnr(result[where], truth[where], peak), HIGHEST_PSNR),
        "ssim_brain": float(similarity.mean()),
    }


def _windowed(values: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(values, SSIM_SIGMA, radius=SSIM_RADIUS)


def _same_shape(result: np.ndarray, truth: np.ndarray) -> None:
    if result.shape != truth.shape:
        raise UnsuitableVolume(f"the result has {result.shape} voxels and the truth {truth.shape}: nothing to compare")
