"""Where a scan is scored: the box around the head, and the brain without its rim."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ..intensity import IntensityScale

HEAD_LEVEL = 0.1  # of the robust range: what is brighter is head
RIM_MM = 4.0  # of the brain left out: edges to air, or to a stripped skull, flatter every sharpening
TISSUE_LEVEL = 0.4  # of the median of what is head: between the brain and the skull around it, in all contrasts
OPENING_MM, CLOSING_MM = 6.0, 8.0  # part the brain from scalp and eyes; close sulci and ventricles
WORKING_MM = 2.0  # the mask is found at about this spacing
FEWEST_VOXELS = 100


def head_box(truth: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around what is brighter than a tenth of the robust range; the whole array if nothing is."""
    scale = IntensityScale.of(truth)
    bright = truth > scale.low + HEAD_LEVEL * (scale.high - scale.low)
    box = []
    for axis in range(truth.ndim):
        found = np.flatnonzero(bright.any(axis=tuple(other for other in range(truth.ndim) if other != axis)))
        box.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(None))
    return tuple(box)


def brain_inside(truth: np.ndarray, spacing: Sequence[float], rim: float = RIM_MM) -> np.ndarray:
    """Which voxels of `truth` (k, j, i) are brain, `rim` mm and more from its surface; spacing: mm along the array's axes.

    By thresholds and morphology alone: right to some mm in skull-stripped scans and most whole heads, where the base of the skull
    and the neck may be taken along. Faces of the array are no surface.
    """
    brain = brain_mask(truth, spacing)
    return brain if brain.all() else np.asarray(ndimage.distance_transform_edt(brain, sampling=spacing) > rim)


def brain_mask(truth: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """The largest piece of tissue that survives an opening, its sulci and ventricles closed; see `brain_inside`."""
    steps = _steps(spacing)
    working = [step * mm for step, mm in zip(steps, spacing, strict=True)]
    unit = IntensityScale.of(truth).to_unit(truth[_every(steps)])
    unit = ndimage.gaussian_filter(np.asarray(unit, dtype=np.float32), [WORKING_MM / 2 / mm for mm in working])
    bright = unit > HEAD_LEVEL
    if not bright.any():
        return np.zeros(truth.shape, dtype=bool)
    tissue = unit > TISSUE_LEVEL * np.median(unit[bright])
    pieces, count = ndimage.label(_deeper(tissue, working, OPENING_MM))
    if not count:
        return np.zeros(truth.shape, dtype=bool)
    largest = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    opened = tissue & ~_deeper(~largest, working, OPENING_MM)
    return _on_all(_closed(opened, working, CLOSING_MM), steps, truth.shape)


def without_gaps(mask: np.ndarray, spacing: Sequence[float], mm: float) -> np.ndarray:
    """`mask` (k, j, i) and its holes, and gaps in it of less than twice `mm`; faces of the array are no border."""
    steps = _steps(spacing)
    working = [step * size for step, size in zip(steps, spacing, strict=True)]
    return np.asarray(mask | _on_all(_closed(mask[_every(steps)], working, mm), steps, mask.shape))


def _steps(spacing: Sequence[float]) -> list[int]:
    """Of voxels, to about `WORKING_MM`."""
    return [max(1, int(WORKING_MM / mm + 0.01)) for mm in spacing]


def _every(steps: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(step // 2, None, step) for step in steps)


def _on_all(found: np.ndarray, steps: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """What was found at every `steps`-th voxel, at all of them."""
    for axis, step in enumerate(steps):
        found = np.repeat(found, step, axis=axis)
    short = [max(0, n - m) for n, m in zip(shape, found.shape, strict=True)]
    return np.pad(found, [(0, n) for n in short], mode="edge")[tuple(slice(0, n) for n in shape)]


def _closed(mask: np.ndarray, spacing: Sequence[float], mm: float) -> np.ndarray:
    margin = [int(np.ceil(mm / size)) + 1 for size in spacing]
    around = np.pad(mask, [(n, n) for n in margin], mode="edge")
    closed = _deeper(~_deeper(~around, spacing, mm), spacing, mm)
    return np.asarray(ndimage.binary_fill_holes(closed[tuple(slice(n, -n) for n in margin)]))


def _deeper(mask: np.ndarray, spacing: Sequence[float], mm: float) -> np.ndarray:
    """Where `mask` is true and more than `mm` from where it is not; faces of the array are no border."""
    return mask if mask.all() else np.asarray(ndimage.distance_transform_edt(mask, sampling=spacing) > mm)
