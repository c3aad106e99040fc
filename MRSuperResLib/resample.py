"""Sample a volume on another grid: one interpolation for everything, antialiased where it gets coarser."""

from __future__ import annotations

import math

import numpy as np

from .errors import UsageError
from .grid import Grid
from .volume import Volume, to_sitk

INTERPOLATIONS = ("linear", "bspline", "lanczos", "nearest")
PAD = 8  # voxels replicated around a volume before interpolating, so that nothing beyond its border is read as 0
LOBES = 5  # of the Lanczos kernel on each side, as in ITK's


def resample(volume: Volume, grid: Grid, interpolation: str = "linear", fill: float | None = None) -> Volume:
    """`volume` sampled on `grid`, anywhere in space.

    interpolation: "linear", "bspline" (cubic), "lanczos" (windowed sinc, 5 lobes) or "nearest". Outside the volume the
    border voxels are continued for a few voxels; beyond, and everywhere outside if `fill` is given, the value is `fill`
    (else the volume's lowest). Down-sampling is antialiased for all but "nearest": samples are averaged over the new voxel.
    """
    import SimpleITK as sitk

    if interpolation not in INTERPOLATIONS:
        raise UsageError(f"interpolation '{interpolation}' is unknown; choose one of {', '.join(INTERPOLATIONS)}")
    if grid.same_as(volume.grid, 1e-6):
        return Volume(volume.array, grid, volume.name, volume.metadata)
    array = volume.array.astype(np.float32, copy=False)
    if interpolation != "nearest":
        array = _antialiased(array, volume.grid, grid)
    if interpolation == "lanczos" and fill is None and np.allclose(volume.grid.axes, grid.axes, atol=1e-6):
        return Volume(_lanczos(array, volume.grid, grid), grid, volume.name, volume.metadata)
    outside = float(array.min()) if fill is None else float(fill)
    if fill is None:
        padded = np.pad(array, PAD, mode="edge")
        source = Volume(padded, volume.grid.crop((-PAD, -PAD, -PAD), tuple(n + 2 * PAD for n in volume.grid.size)))  # type: ignore[arg-type]
    else:
        source = Volume(array, volume.grid)
    kinds = {
        "linear": sitk.sitkLinear,
        "bspline": sitk.sitkBSpline,
        "lanczos": sitk.sitkLanczosWindowedSinc,
        "nearest": sitk.sitkNearestNeighbor,
    }
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([int(n) for n in grid.size])
    resampler.SetOutputSpacing(grid.spacing)
    resampler.SetOutputOrigin(grid.origin)
    resampler.SetOutputDirection(grid.direction)
    resampler.SetInterpolator(kinds[interpolation])
    resampler.SetDefaultPixelValue(outside)
    result = sitk.GetArrayFromImage(resampler.Execute(to_sitk(source, sitk)))
    return Volume(result.astype(np.float32, copy=False), grid, volume.name, volume.metadata)


def _lanczos(array: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """`array` on a grid whose axes run alike: one matrix an axis, a hundred times faster than ITK's 11 x 11 x 11 taps."""
    first = source.world_to_index(np.asarray([target.origin]))[0]
    for axis in range(3):
        step = target.spacing[axis] / source.spacing[axis]
        positions = first[axis] + step * np.arange(target.size[axis])
        taps = np.floor(positions)[:, None] + np.arange(1 - LOBES, LOBES + 1)
        distance = positions[:, None] - taps
        weights = np.sinc(distance) * np.sinc(distance / LOBES) * (np.abs(distance) < LOBES)
        matrix = np.zeros((target.size[axis], source.size[axis]))
        columns = np.clip(taps, 0, source.size[axis] - 1).astype(int)
        np.add.at(matrix, (np.arange(len(positions))[:, None], columns), weights / weights.sum(axis=1, keepdims=True))
        array = np.moveaxis(np.tensordot(matrix.astype(np.float32), array, axes=(1, 2 - axis)), 0, 2 - axis)
    return np.ascontiguousarray(array, dtype=np.float32)


def _antialiased(array: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """`array` averaged over the width of the coarser voxels of `target`, along each axis that gets coarser."""
    from scipy import ndimage

    match = np.abs(source.axes.T @ target.axes)  # which axis of the target runs along which of the source
    for axis in range(3):
        step = target.spacing[int(np.argmax(match[axis]))] / source.spacing[axis]
        if step > 1.01:
            sigma = 0.5 * math.sqrt(step**2 - 1)
            array = ndimage.gaussian_filter1d(array, sigma, axis=2 - axis, mode="nearest")
    return array
