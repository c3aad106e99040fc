"""A picture of one slice, upright as radiologists look at it, to be shown while the rest is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..grid import Grid

DARK, BRIGHT = 1.0, 99.5  # percentiles that become black and white


@dataclass(frozen=True)
class SlicePicture:
    """pixels: (rows, columns) uint8, black to white. spacing: mm from row to row, and from column to column."""

    pixels: np.ndarray
    spacing: tuple[float, float]


ShowSlice = Callable[[SlicePicture], None]


def upright(image: np.ndarray, grid: Grid, axes: tuple[int, int]) -> SlicePicture:
    """`image` (rows, columns) of a volume on `grid`, whose rows and columns run along the grid's `axes` (0..2 are i, j, k).

    Turned and flipped so that the head, or the face where the head is not in the picture, is up, and the patient's right, or
    front, is on the left.
    """
    axes_lps = np.asarray(grid.direction, dtype=float).reshape(3, 3)
    along = [int(np.argmax(np.abs(axes_lps[:, axis]))) for axis in axes]  # 0 left, 1 posterior, 2 superior
    spacing = [grid.spacing[axis] for axis in axes]
    signs = [axes_lps[world, axis] > 0 for world, axis in zip(along, axes, strict=True)]
    if along[0] == 0 or (along[0] == 1 and along[1] == 2):  # what runs up and down belongs into rows
        image, along, spacing, signs = image.T, along[::-1], spacing[::-1], signs[::-1]
    if signs[0] == (along[0] == 2):  # superior goes up, posterior down
        image = image[::-1]
    if not signs[1]:  # left of the patient, or the back, goes to the right
        image = image[:, ::-1]
    low, high = np.percentile(image, (DARK, BRIGHT))
    shown = np.clip((image - low) / max(float(high - low), 1e-12), 0.0, 1.0) * 255.0
    return SlicePicture(np.ascontiguousarray(np.rint(shown), dtype=np.uint8), (spacing[0], spacing[1]))
