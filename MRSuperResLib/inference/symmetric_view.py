"""Slices as a lesion detector looks at them: one pixel size, one brightness for each tissue, the midline in the middle.

A healthy brain is nearly its own mirror image, and tissues have nearly one brightness each. Once the midline is the middle column,
the face is where rows end, and fluid, grey and white matter have their usual levels, a network has to learn little to see what is
unlike them. Scans are turned to that first: files store their rows in either direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ..lesions import deep_inside
from ..relaxation import tissue_levels

if TYPE_CHECKING:
    from torch import Tensor

    from ..grid import Grid

PIXEL_MM = 1.4
ROWS, COLUMNS = 160, 128  # 224 x 179 mm
TYPICAL = {"T1w": (0.15, 0.52, 0.72), "T2w": (0.85, 0.46, 0.32), "FLAIR": (0.12, 0.66, 0.54)}  # fluid, grey, white
HEAD = 0.1  # on the networks' scale: what is brighter is head
DEPTHS = (20.0, 10.0, 4.0)  # mm below the surface where the brain's tissues are looked for
ENOUGH = 0.02  # of the volume, that deep
TURNS = np.deg2rad(np.arange(-15, 15.1, 2.5))  # of the midline, that are tried
SMOOTHING_MM = 4.0  # for finding the midline
HIGHEST = 2.0


@dataclass(frozen=True)
class View:
    """slices: (N, ROWS, COLUMNS) float32, of normalised brightness, the midline in the middle. heights: (N,), 0 to 1 from the
    lower end of the head to the upper.

    maps: for each slice, the affine map (2, 3) from rows and columns of the view to those of the scan's slice, in pixels.
    """

    slices: np.ndarray
    heights: np.ndarray
    maps: np.ndarray

    def shown(self, stack: np.ndarray) -> np.ndarray:
        """`stack` (N, H, W), on the slices that this is a view of, as the view shows them, (N, ROWS, COLUMNS); linear."""
        result = np.zeros((len(stack), ROWS, COLUMNS), dtype=np.float32)
        for number, image in enumerate(stack):
            matrix, offset = self.maps[number][:, :2], self.maps[number][:, 2]
            result[number] = ndimage.affine_transform(
                image.astype(np.float32), matrix, offset, output_shape=(ROWS, COLUMNS), order=1
            )
        return result

    def back(self, answers: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """`answers` (N, ROWS, COLUMNS) on the scan's slices, (N, *shape), 0 beyond the view; linear."""
        result = np.zeros((len(answers), *shape), dtype=np.float32)
        for number, answer in enumerate(answers):
            matrix, offset = self.maps[number][:, :2], self.maps[number][:, 2]
            inverse = np.linalg.inv(matrix)
            result[number] = ndimage.affine_transform(answer, inverse, -inverse @ offset, output_shape=shape, order=1)
        return result


def view_of(stack: np.ndarray, spacing: Sequence[float], contrast: str) -> View:
    """How a detector sees a stack of slices (N, H, W) of `contrast` on the networks' scale, as `axial_stack` gives them.

    spacing: mm along its axes.
    """
    even = normalised(stack, levels_of(stack, spacing, contrast), contrast)
    pixel = np.array(spacing[1:], dtype=np.float64)
    head = stack > HEAD
    filled = head.mean((1, 2))
    inside = np.flatnonzero(filled > 0.1 * max(1e-6, filled.max()))
    first, last = (int(inside[0]), int(inside[-1])) if len(inside) else (0, len(stack) - 1)
    heights = np.clip((np.arange(len(stack)) - first) / max(1, last - first), 0, 1).astype(np.float32)
    angle, middles = midline(stack, spacing)
    ends = np.flatnonzero(head[first : last + 1].any(axis=(0, 2)))
    centre_row = pixel[0] * (ends[0] + ends[-1]) / 2 if len(ends) else 0.0
    slices = np.empty((len(stack), ROWS, COLUMNS), dtype=np.float32)
    maps = np.empty((len(stack), 2, 3))
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    target = np.array([(ROWS - 1) / 2, (COLUMNS - 1) / 2])
    for number, image in enumerate(even):
        centre = np.array([centre_row, middles[number]])  # mm, (row, column)
        matrix = turn * PIXEL_MM  # mm of the scan for a step in the view
        offset = (centre - matrix @ target) / pixel
        matrix = matrix / pixel[:, None]
        soft = ndimage.gaussian_filter(image, np.maximum(0, PIXEL_MM / pixel - 1) / 2)  # against aliasing
        slices[number] = ndimage.affine_transform(soft, matrix, offset, output_shape=(ROWS, COLUMNS), order=1)
        maps[number] = np.column_stack((matrix, offset))
    return View(slices, heights, maps)


def levels_of(stack: np.ndarray, spacing: Sequence[float], contrast: str) -> np.ndarray:
    """Brightness of fluid, grey and white matter in `stack` (N, H, W) on the networks' scale."""
    head = np.stack([ndimage.binary_fill_holes(one) for one in stack > HEAD])
    deep = head
    for depth in DEPTHS:
        found = deep_inside(head, spacing, depth)
        if found.mean() > ENOUGH:
            deep = found
            break
    return tissue_levels({contrast: stack[deep]}, TYPICAL)[contrast]


def normalised(stack: np.ndarray, levels: np.ndarray, contrast: str) -> np.ndarray:
    """`stack` with `levels` (fluid, grey, white) brought to the `TYPICAL` ones, by pieces of straight lines."""
    order = np.argsort(levels)
    knots = np.concatenate(([0.0], np.maximum.accumulate(np.asarray(levels)[order] + 1e-4 * np.arange(3))))
    wanted = np.concatenate(([0.0], np.sort(np.array(TYPICAL[contrast])[order])))
    even = np.interp(stack, knots, wanted)
    above = stack > knots[-1]
    even[above] = stack[above] * (wanted[-1] / knots[-1])
    return np.asarray(np.clip(even, 0, HIGHEST), dtype=np.float32)


def midline(stack: np.ndarray, spacing: Sequence[float]) -> tuple[float, np.ndarray]:
    """The midline of slices (N, H, W) whose columns run from left to right.

    Its angle in radians, and for each slice the column in mm where it passes the slice's middle row. Each image is turned by some
    angles and correlated with its mirror image; the columns of the slices are then fitted by a straight line.
    """
    step = [max(1, round(2.5 / mm)) for mm in spacing[1:]]
    small = np.stack(
        [ndimage.gaussian_filter(np.clip(one, 0, 1.2), [SMOOTHING_MM / mm for mm in spacing[1:]]) for one in stack]
    )
    small = small[:, :: step[0], :: step[1]]
    mm = np.array([spacing[1] * step[0], spacing[2] * step[1]])
    size = int(np.ceil(1.2 * max(small.shape[1] * mm[0], small.shape[2] * mm[1]) / 2.5))
    best, angle, peaks = -np.inf, 0.0, np.zeros(len(stack))
    weight = small.sum((1, 2))
    middle = (np.array(small.shape[1:]) - 1) / 2 * mm
    used = np.flatnonzero(weight > 0.5 * weight.max())
    for turn in TURNS:
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        offset = middle - matrix @ np.full(2, (size - 1) / 2 * 2.5)
        images = np.stack(
            [
                ndimage.affine_transform(
                    small[n], matrix * 2.5 / mm[:, None], offset / mm, output_shape=(size, size), order=1
                )
                for n in used
            ]
        )
        spectrum = np.fft.rfft(images, 2 * size, axis=2)
        score = np.fft.irfft(spectrum * spectrum, 2 * size, axis=2).sum(1)  # (slices, 2 * column of the mirror)
        total = score.sum(0)
        if total.max() / np.square(images).sum() > best:
            best, angle = float(total.max() / np.square(images).sum()), float(turn)
            peaks = score.argmax(1) / 2.0
    columns = middle[1] + (peaks - (size - 1) / 2) * 2.5  # mm along the turned columns, through the middle of the slice
    line = np.polyfit(used, columns, 1, w=weight[used]) if len(used) > 3 else np.array([0.0, float(np.median(columns))])
    for _ in range(3):  # away from what is not symmetric
        left = np.abs(np.polyval(line, used) - columns)
        line = np.polyfit(used, columns, 1, w=weight[used] / (1 + left**2)) if len(used) > 3 else line
    return angle, np.polyval(line, np.arange(len(stack)))


def in_view(unit: np.ndarray, grid: Grid, contrast: str, apart: float = 0.0) -> View:
    """Axial slices of a scan (k, j, i) on the networks' scale as a detector sees them, those `apart` mm from each other."""
    spacing = [grid.spacing[2 - axis] for axis in _axes(grid)]
    spacing[0] *= max(1, round(apart / spacing[0]))
    return view_of(slices_apart(unit, grid, apart), spacing, contrast)


def slices_apart(array: np.ndarray, grid: Grid, apart: float) -> np.ndarray:
    """Slices of `axial_stack` that lie about `apart` mm from each other, all of them for 0."""
    return axial_stack(array, grid)[:: max(1, round(apart / grid.spacing[2 - axial(grid)]))]


def axial_stack(array: np.ndarray, grid: Grid) -> np.ndarray:
    """`array` (k, j, i) as axial slices (N, H, W) from below upwards, rows from back to front, columns from right to left: as
    nearly as its axes run so; a view."""
    axes = _axes(grid)
    return np.flip(np.transpose(array, axes), _reversed(grid, axes))


def from_axial_stack(stack: np.ndarray, grid: Grid) -> np.ndarray:
    """The array (k, j, i) whose `axial_stack` is `stack`."""
    axes = _axes(grid)
    return np.ascontiguousarray(np.transpose(np.flip(stack, _reversed(grid, axes)), np.argsort(axes)))


def axial(grid: Grid) -> int:
    """The array axis (of k, j, i) across axial slices."""
    return _axes(grid)[0]


def _axes(grid: Grid) -> tuple[int, int, int]:
    """Array axes that run most nearly upwards, from back to front, and sideways."""
    along = np.abs(grid.axes)  # world x, y, z by i, j, k
    across = int(np.argmax(along[2]))
    sideways = max((n for n in range(3) if n != across), key=lambda n: along[0, n])
    return 2 - across, 2 - (3 - across - sideways), 2 - sideways


def _reversed(grid: Grid, axes: tuple[int, int, int]) -> tuple[int, ...]:
    """Axes of a stack along which the array runs the other way: coordinates rise to the left, the back and upwards."""
    rising = [grid.axes[world, 2 - axis] * sign for axis, world, sign in zip(axes, (2, 1, 0), (1, -1, 1), strict=True)]
    return tuple(n for n, rise in enumerate(rising) if rise < 0)


def inputs_of(images: Tensor, heights: Tensor) -> Tensor:
    """What the network takes, (B, 5, H, W): slices (B, 1, H, W), mirrored ones, and where a pixel is.

    That is its row, its distance from the midline, and the slice's height (B,) in the head.
    """
    import torch

    batch, _, rows, columns = images.shape
    row = torch.linspace(-1, 1, rows, device=images.device).view(1, 1, -1, 1).expand(batch, 1, rows, columns)
    column = (
        torch.linspace(-1, 1, columns, device=images.device).abs().view(1, 1, 1, -1).expand(batch, 1, rows, columns)
    )
    height = (2 * heights - 1).view(-1, 1, 1, 1).expand(batch, 1, rows, columns)
    return torch.cat((images, images.flip(3), row, column, height), 1)
