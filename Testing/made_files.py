"""Files and grids that the tests of reading and writing make for themselves."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from MRSuperResLib.grid import Grid

AXIAL = np.eye(3)
CORONAL = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=float)
SAGITTAL = np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]], dtype=float)
LEFT_HANDED = np.diag([-1.0, 1.0, 1.0])
OBLIQUE = Rotation.from_euler("xyz", [12, -20, 33], degrees=True).as_matrix()
ORIENTATIONS = {
    "axial": AXIAL,
    "coronal": CORONAL,
    "sagittal": SAGITTAL,
    "left-handed": LEFT_HANDED,
    "oblique": OBLIQUE,
}


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    base = draw(st.sampled_from(list(ORIENTATIONS.values())))
    turn = Rotation.from_euler("xyz", [draw(st.floats(-180, 180)) for _ in range(3)], degrees=True).as_matrix()
    axes = turn @ base if draw(st.booleans()) else base
    size = tuple(draw(st.integers(4, 14)) for _ in range(3))
    spacing = tuple(draw(st.floats(0.4, 6.0)) for _ in range(3))
    origin = tuple(draw(st.floats(-200, 200)) for _ in range(3))
    return Grid(size, spacing, origin, tuple(axes.ravel().tolist()))  # type: ignore[arg-type]


def ramp(grid: Grid, slope: np.ndarray) -> np.ndarray:
    """slope . world, sampled at every voxel centre; (k, j, i)."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    points = np.stack([i, j, k], axis=-1).reshape(-1, 3)
    return (grid.index_to_world(points) @ slope).reshape(grid.shape).astype(np.float32)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)


def image_file(array: np.ndarray, path: Path, vector: bool = False) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))
    return path


def mgh_file(path: Path, array: np.ndarray, **changes: Any) -> Path:
    """A FreeSurfer file by its documented header; array (k, j, i)."""
    header: dict[str, Any] = {
        "version": 1, "frames": 1, "kind": {"u1": 0, "i4": 1, "f4": 3, "i2": 4, "u2": 10}[array.dtype.str[1:]], "given": 1,
        "spacing": (1, 1, 1), "axes": np.eye(3), "centre": (0, 0, 0),
    } | changes  # fmt: skip
    content = struct.pack(
        ">7ih15f", header["version"], *array.shape[::-1], header["frames"], header["kind"], 0, header["given"],
        *header["spacing"], *np.transpose(header["axes"]).ravel(), *header["centre"],
    )  # fmt: skip
    content = content.ljust(284, b"\0") + array.astype(array.dtype.newbyteorder(">")).tobytes() + bytes(20)
    path.write_bytes(gzip.compress(content) if path.suffix == ".mgz" else content)
    return path
