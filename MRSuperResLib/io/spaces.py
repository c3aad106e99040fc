"""The two places a NIfTI file gives its voxels, kept while the grid changes.

The volume's grid lies in one world (LPS mm). Each of qform and sform is kept as an affine from that world to its space (RAS mm),
which does not change when the volume is refined, cropped or resampled: whatever grid a result has, its qform and sform follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..grid import Grid

if TYPE_CHECKING:
    from .nifti import NiftiHeader

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
CODES = {1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI", 5: "template"}
NAMES = ("qform", "sform")


def affine_of(grid: Grid) -> np.ndarray:
    """Index i, j, k to RAS mm, 4x4."""
    affine = np.eye(4)
    affine[:3, :3] = grid.axes * grid.spacing
    affine[:3, 3] = grid.origin
    return LPS_TO_RAS @ affine


def kept_spaces(header: NiftiHeader, grid: Grid) -> dict[str, str]:
    """The metadata that say how `grid`, taken from `header`, lies in the spaces of its qform and sform."""
    kept = {"qform_code": str(header.qform_code), "sform_code": str(header.sform_code)}
    to_index = np.linalg.inv(affine_of(grid))
    for name, affine in zip(NAMES, (header.qform, header.sform), strict=True):
        if affine is not None and np.all(np.isfinite(affine)):
            kept[f"world_to_{name}"] = " ".join(repr(float(value)) for value in (affine @ to_index).ravel())
    return kept


def moved_spaces(metadata: Mapping[str, str], grid: Grid) -> tuple[tuple[int, np.ndarray], tuple[int, np.ndarray]]:
    """(code, index to RAS mm, 4x4) of the qform and the sform of a volume on `grid`.

    Both are the scanner's, and the grid's own, for a volume that does not come from NIfTI.
    """
    own = affine_of(grid)
    if "qform_code" not in metadata:
        return (1, own), (1, own)
    found = []
    for name in NAMES:
        code = int(metadata.get(f"{name}_code", "0"))
        text = metadata.get(f"world_to_{name}", "")
        if code and text:
            found.append((code, np.array([float(value) for value in text.split()]).reshape(4, 4) @ own))
        else:
            found.append((0, own))
    return found[0], found[1]
