"""FreeSurfer's volumes (.mgh, .mgz), read here because ITK has no reader for them."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from ..errors import BadVolume
from ..grid import Grid
from ..volume import Volume, Warn
from .content import misnamed
from .formats import damaged, volume_name
from .raw import Packing, VoxelBlock, read_block

MGH_HEADER = 284  # bytes
MGH_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
MGH_UNTOLD = (1, 1, 1, -1, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0, 0)  # FreeSurfer's geometry for files that give none


def read_mgh(path: Path, warn: Warn | None) -> Volume:
    """The volume in FreeSurfer's own format (.mgh, packed .mgz), for which ITK has no reader here.

    Its header, big-endian: version, size, frames, type, degrees of freedom, whether the geometry is given; then spacing
    (mm), direction cosines axis by axis, and the centre of the voxel box (mm), RAS.
    """
    try:
        with gzip.open(path) if path.suffix.lower() == ".mgz" else open(path, "rb") as stream:
            content = stream.read(MGH_HEADER)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, error) from error
    if len(content) < MGH_HEADER or content[3] != 1:  # the version; the bytes before it may say what is mapped
        raise misnamed(path, "MGH")
    i, j, k, frames, kind, _, given = struct.unpack_from(">6ih", content, 4)
    if frames > 1:
        raise BadVolume(f"{path} is 4D ({frames} frames), expected 3D; extract one time point or echo", code="4d")
    if kind not in MGH_TYPES:
        raise BadVolume(
            f"{path} holds voxels of MGH type {kind}, expected uint8, int16, uint16, int32 or float32; convert it first",
            code="not-scalar",
        )
    if min(i, j, k, frames) < 1:
        raise damaged(path)
    packed: Packing = "gzip" if path.suffix.lower() == ".mgz" else "none"
    array = read_block(VoxelBlock(path, (i, j, k), np.dtype(MGH_TYPES[kind]), MGH_HEADER, packed), path)
    if given <= 0 and warn:
        warn("no-geometry", f"{path.name} does not say where it lies: read as coronal slices of 1 mm, its centre at 0")
    geometry = np.array(struct.unpack_from(">15f", content, 30) if given > 0 else MGH_UNTOLD, dtype=float)
    spacing, to_lps = geometry[:3], np.diag([-1.0, -1.0, 1.0])
    axes = to_lps @ geometry[3:12].reshape(3, 3).T
    origin = to_lps @ geometry[12:] - axes @ (spacing * (i, j, k) / 2)
    grid = Grid((i, j, k), tuple(spacing.tolist()), tuple(origin.tolist()), tuple(axes.ravel().tolist()))  # type: ignore[arg-type]
    return Volume(array, grid, volume_name(path))
