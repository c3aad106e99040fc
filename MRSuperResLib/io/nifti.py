"""NIfTI files: what their header says, and whether the voxels it promises are there."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadVolume
from ..grid import numbers
from .formats import bad_spacing, damaged, unpacked

NIFTI_HEADER = 540  # bytes: that of NIfTI-2; NIfTI-1 has 348


def content(path: Path) -> tuple[int, int, np.ndarray]:
    """(bytes the unpacked NIfTI file should have, bytes it has, places of the voxels that are not finite, i fastest).

    Raises `BadVolume` for damaged files and for spacings that are not above 0.
    """
    try:
        with unpacked(path) as stream:
            header = stream.read(NIFTI_HEADER)
            layout = _layout(header)
            if layout is None:
                raise BadVolume(f"{path} is no NIfTI file: damaged or misnamed", code="unreadable")
            start, voxels, dtype, spacing = layout
            if not all(math.isfinite(mm) and mm > 0 for mm in spacing):
                raise bad_spacing(path, numbers(spacing))
            stream.seek(start)
            found, bad = 0, [np.zeros(0, dtype=int)]
            while block := stream.read(2**22):
                if dtype.kind == "f":
                    values = np.frombuffer(block[: len(block) // dtype.itemsize * dtype.itemsize], dtype)
                    bad.append(np.flatnonzero(~np.isfinite(values)) + found // dtype.itemsize)
                found += len(block)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path) from error
    places = np.concatenate(bad)
    return start + voxels * dtype.itemsize, start + found, places[places < voxels]


def _layout(header: bytes) -> tuple[int, int, np.dtype[Any], tuple[float, ...]] | None:
    """(where the voxels begin, how many there are, their type, spacing) of a single-file NIfTI, None if it is none."""
    for order in "<>":
        if len(header) >= 348 and struct.unpack_from(f"{order}i", header)[0] == 348 and header[344:346] == b"n+":
            dimensions, spacing = (
                struct.unpack_from(f"{order}8h", header, 40),
                struct.unpack_from(f"{order}8f", header, 76),
            )
            kind, bits = struct.unpack_from(f"{order}2h", header, 70)
            start = struct.unpack_from(f"{order}f", header, 108)[0]
        elif len(header) >= NIFTI_HEADER and struct.unpack_from(f"{order}i", header)[0] == 540:
            dimensions, spacing = (
                struct.unpack_from(f"{order}8q", header, 16),
                struct.unpack_from(f"{order}8d", header, 104),
            )
            kind, bits = struct.unpack_from(f"{order}2h", header, 12)
            start = struct.unpack_from(f"{order}q", header, 168)[0]
        else:
            continue
        floating = {16: "f4", 64: "f8"}.get(kind)
        dtype = np.dtype(f"{order}{floating}" if floating else f"V{max(1, bits // 8)}")
        count = min(max(int(dimensions[0]), 0), 7)
        return (
            int(start),
            math.prod(max(1, n) for n in dimensions[1 : 1 + count]),
            dtype,
            spacing[1 : 1 + min(count, 3)],
        )
    return None
