"""Write a volume to a file: whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import BadVolume, OutputError
from ..volume import Volume, to_sitk
from . import nifti
from .formats import WRITABLE, quiet, stem_of, suffix_of


def write_volume(
    volume: Volume,
    path: str | os.PathLike[str],
    *,
    fields: Mapping[str, str] | None = None,
    dtype: Any = None,
) -> None:
    """Write `volume` to `path`, under a temporary name until it is whole.

    fields: what NRRD and MHA keep as header fields, and NIfTI as its 79-character description ("mrsuperres" first). dtype:
    numpy type of the voxels, float32 if None. Raises `OutputError`: folder missing or read-only, disk full, or a suffix
    this cannot write.
    """
    import SimpleITK as sitk

    path = Path(path)
    suffix = suffix_of(path)
    if suffix not in WRITABLE:
        raise OutputError(f"{path} ends in no format this can write; use {', '.join(WRITABLE)}", code="output-format")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist; make it first", code="no-folder")
    image = to_sitk(volume if dtype is None else Volume(volume.array.astype(dtype), volume.grid), sitk)
    for key, value in (fields or {}).items():
        if suffix.startswith(".nii"):  # one field of 79 characters is all there is; ITK calls it so
            image.SetMetaData("ITK_FileNotes", "; ".join(f"{k}={v}" for k, v in (fields or {}).items())[:79])
            break
        image.SetMetaData(key.replace(" ", "_"), str(value).replace("\n", " "))
    handle, name = -1, ""
    try:
        handle, name = tempfile.mkstemp(suffix=suffix, prefix=f".{stem_of(path)}.", dir=path.parent)
        os.close(handle)
        with quiet():
            sitk.WriteImage(image, name, useCompression=suffix in (".nii.gz", ".nrrd", ".mha"))
        _check_written(Path(name))
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise OutputError(f"cannot write {path}: {_reason(error, path.parent)}", code="cannot-write") from error


def _check_written(path: Path) -> None:
    """ITK does not say when a disk is full: what it wrote is looked at again. Raises OSError."""
    whole = path.stat().st_size > 0
    if whole and suffix_of(path) in (".nii", ".nii.gz"):
        try:
            expected, found, _ = nifti.content(path)
            whole = found >= expected
        except BadVolume:
            whole = False
    if not whole:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _reason(error: BaseException, folder: Path) -> str:
    if isinstance(error, PermissionError) or not os.access(folder, os.W_OK):
        return f"{folder} is read-only for you; choose another folder"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; make room or choose another folder"
    with contextlib.suppress(OSError, AttributeError):
        space = os.statvfs(folder)
        if space.f_bavail * space.f_frsize < 2**20:
            return "the disk is full; make room or choose another folder"
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
