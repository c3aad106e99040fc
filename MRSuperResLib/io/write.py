"""Write a volume to a file, whole or not at all, and read back what was written."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import BadVolume, OutputError
from ..grid import Grid
from ..volume import Volume
from . import metaimage, nifti, nrrd, raw
from .formats import WRITABLE, suffix_of
from .spaces import moved_spaces

LEVEL = 4  # of deflate: float voxels hardly get smaller above it
BLOCK = 2**24  # bytes
SUBSTITUTES = {"b": "u1", "f2": "f4", "f16": "f8"}  # types that these formats do not have


def write_volume(
    volume: Volume,
    path: str | os.PathLike[str],
    *,
    fields: Mapping[str, str] | None = None,
    dtype: Any = None,
) -> None:
    """Write `volume` to `path`, under a temporary name until it is whole.

    A volume that came from NIfTI keeps the codes of its qform and sform, and both move with its grid. fields: what NRRD and MHA
    keep as header fields, and NIfTI as its 79-character description ("mrsuperres" first). dtype: numpy type of the voxels,
    float32 if None. Raises `OutputError`: folder missing or read-only, disk full, or a suffix this cannot write.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix not in WRITABLE:
        raise OutputError(f"{path} ends in no format this can write; use {', '.join(WRITABLE)}", code="output-format")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist; make it first", code="no-folder")
    array = _storable(volume.array if dtype is None else volume.array.astype(dtype))
    name = ""
    try:
        handle, name = tempfile.mkstemp(
            suffix=suffix, prefix=".mrsuperres-", dir=path.parent
        )  # short, however long path's
        with open(handle, "wb") as stream:
            _write(stream, volume, array, suffix, fields or {})
        _check_written(Path(name), volume, array)
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except (OSError, RuntimeError, MemoryError) as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise OutputError(f"cannot write {path}: {_reason(error, path.parent)}", code="cannot-write") from error


def _storable(array: np.ndarray) -> np.ndarray:
    """`array`, little-endian, in a type that every format has."""
    kind = array.dtype.str[1:]
    return np.ascontiguousarray(array, dtype="<" + SUBSTITUTES.get(kind, SUBSTITUTES.get(array.dtype.kind, kind)))


def _bytes(array: np.ndarray) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def _put(stream: Any, array: np.ndarray) -> None:
    """Write the voxels in pieces, so that no copy of them all is made."""
    content = _bytes(array)
    for start in range(0, len(content), BLOCK):
        stream.write(content[start : start + BLOCK])


def _write(stream: IO[bytes], volume: Volume, array: np.ndarray, suffix: str, fields: Mapping[str, str]) -> None:
    """Header and voxels in one file, those of .mhd and .nhdr too (both formats allow it): there is one file to rename."""
    grid, packed = volume.grid, suffix not in (".nii", ".mhd", ".nhdr")
    pairs = {key.replace(" ", "_"): str(value).replace("\n", " ") for key, value in fields.items()}
    if suffix.startswith(".nii"):
        text = "; ".join(f"{key}={value}" for key, value in fields.items())
        header = nifti.encoded(grid.size, moved_spaces(volume.metadata, grid), grid.spacing, array.dtype, text)
        if packed:
            with gzip.GzipFile("", "wb", LEVEL, stream, mtime=0) as unpacked:  # type: ignore[arg-type]
                unpacked.write(header)
                _put(unpacked, array)
            return
        stream.write(header)
    elif suffix in (".nrrd", ".nhdr"):
        stream.write(nrrd.encoded(grid, array.dtype, pairs, packed))
        if packed:
            with gzip.GzipFile("", "wb", LEVEL, stream, mtime=0) as unpacked:  # type: ignore[arg-type]
                _put(unpacked, array)
            return
    else:
        content = zlib.compress(_bytes(array), LEVEL) if packed else None
        stream.write(metaimage.encoded(grid, array.dtype, pairs, None if content is None else len(content)))
        if content is not None:
            stream.write(content)
            return
    _put(stream, array)


def _read_back(path: Path) -> tuple[Grid, np.ndarray]:
    """Grid and voxels, float32, of a file that was just written."""
    suffix = suffix_of(path)
    if suffix.startswith(".nii"):
        header = nifti.read_header(path)
        return nifti.grid_of(header, path)[0], raw.read_block(nifti.block_of(header, path), path)
    if suffix in (".nrrd", ".nhdr"):
        head = nrrd.read_header(path)
        return nrrd.grid_of(head, path)[0], raw.read_block(nrrd.block_of(head, path), path)
    lines, after = metaimage.read_header(path)
    return metaimage.grid_of(lines, path), raw.read_block(metaimage.block_of(lines, after, path), path)


def _check_written(path: Path, volume: Volume, array: np.ndarray) -> None:
    """Read the file again and compare it with what was meant: nobody says when a disk is full. Raises OSError."""
    try:
        grid, there = _read_back(path)
    except BadVolume as error:
        raise OSError(errno.EIO, f"what was written cannot be read: {error.message}") from error
    with np.errstate(over="ignore", invalid="ignore"):
        same = np.array_equal(there, array.astype(np.float32), equal_nan=True)
    if _nowhere_told(path, volume):  # the file says no more than sizes: that is all there is to compare
        grid = replace(volume.grid, size=grid.size, spacing=grid.spacing)
    if not same or not grid.same_as(volume.grid, 1e-2):
        raise OSError(errno.EIO, "what was written is read back as something else")


def _nowhere_told(path: Path, volume: Volume) -> bool:
    """Whether the file is a NIfTI without qform and sform, as the scan was that `volume` comes from."""
    return suffix_of(path).startswith(".nii") and not any(
        code for code, _ in moved_spaces(volume.metadata, volume.grid)
    )


def _reason(error: BaseException, folder: Path) -> str:
    if isinstance(error, PermissionError) or not os.access(folder, os.W_OK):
        return f"{folder} is read-only for you; choose another folder"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; make room or choose another folder"
    with contextlib.suppress(OSError, AttributeError):
        space = os.statvfs(folder)
        if space.f_bavail * space.f_frsize < 2**20:
            return "the disk is full; make room or choose another folder"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
