"""What the readers and writers of volumes share: suffixes and names, unpacking, errors, and silence of the libraries below."""

from __future__ import annotations

import contextlib
import gzip
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import BadVolume

WRITABLE = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".nhdr")
READABLE = (*WRITABLE, ".mgz", ".mgh", ".hdr", ".img", ".img.gz")
_STANDARD_ERROR = threading.RLock()  # there is one for the whole process


def volume_name(path: str | os.PathLike[str]) -> str:
    """What `read_volume` calls the volume at `path`: the file's name without its suffixes, or the folder's."""
    path = Path(path)
    return path.name if path.is_dir() else stem_of(path)


def suffix_of(path: Path) -> str:
    name = path.name.lower()
    return next((s for s in sorted(READABLE, key=len, reverse=True) if name.endswith(s)), path.suffix.lower())


def stem_of(path: Path) -> str:
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix else path.name


def unpacked(path: Path) -> Any:
    """The file's bytes as a stream, out of gzip if that is what its name says."""
    return (gzip.open if path.suffix.lower() in (".gz", ".mgz") else open)(path, "rb")


def damaged(path: Path) -> BadVolume:
    return BadVolume(f"{path} is damaged or cut short; copy or export it again", code="unreadable")


def bad_spacing(path: Path, found: str) -> BadVolume:
    return BadVolume(
        f"{path}: voxel spacing is {found} mm, expected numbers above 0; mend the header", code="bad-spacing"
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what ITK and the libraries below it print off the terminal: the errors that ITK raises say the same, once."""
    import SimpleITK as sitk

    with _STANDARD_ERROR:
        before = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            with _no_standard_error():
                yield
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(before)


@contextlib.contextmanager
def _no_standard_error() -> Iterator[None]:
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # closed, as under pythonw: nothing can be printed
        yield
        return
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
