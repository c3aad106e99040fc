"""What a file holds, by its first bytes: for the message about one whose name says something else."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from ..errors import BadVolume

START = 352  # bytes: a NIfTI-1 header
GZIP = b"\x1f\x8b"
SIGNS = (  # where, what is there, what it is, the suffix it should have
    (344, b"n+1\0", "NIfTI", ".nii"),
    (4, b"n+2\0", "NIfTI", ".nii"),
    (0, b"NRRD", "NRRD", ".nrrd"),
    (0, b"ObjectType", "MetaImage", ".mha"),
    (0, b"NDims", "MetaImage", ".mha"),
    (0, b"\0\0\0\1\0\0", "MGH", ".mgh"),
    (128, b"DICM", "DICOM", ".dcm"),
    (0, b"<!DOCTYPE", "a web page", ""),
    (0, b"<html", "a web page", ""),
    (0, b"\x89PNG", "a picture", ""),
    (0, b"\xff\xd8\xff", "a picture", ""),
    (0, b"PK\3\4", "a ZIP archive", ""),
    (0, b"%PDF", "a PDF", ""),
)


def misnamed(path: Path, expected: str) -> BadVolume:
    """The error for a file that is no `expected` ("NIfTI"), as its name says: what it is instead, where that can be seen."""
    found, packed = _found(path)
    if found is None or found[0] == expected:
        return BadVolume(
            f"{path} is no {expected} file: damaged or misnamed; copy or export it again", code="unreadable"
        )
    what, suffix = found
    advice = (
        f"name it {suffix}{'.gz' if packed and suffix == '.nii' else ''}" if suffix else "download or export it again"
    )
    return BadVolume(f"{path} is no {expected} file, it holds {what}: {advice}", code="unreadable")


def held_by(path: Path) -> str:
    """What a file of no suffix that is read seems to hold, and how to name it, for a message; "" if that cannot be seen."""
    found, packed = _found(path)
    if found is None or not found[1]:
        return ""
    return f"; it holds {found[0]}: name it {found[1]}{'.gz' if packed and found[1] == '.nii' else ''}"


def _found(path: Path) -> tuple[tuple[str, str] | None, bool]:
    try:
        with open(path, "rb") as stream:
            start = stream.read(START)
        packed = start.startswith(GZIP)
        if packed:
            with gzip.open(path, "rb") as stream:
                start = stream.read(START)
    except (OSError, EOFError, zlib.error):
        return None, False
    return next(((what, suffix) for at, sign, what, suffix in SIGNS if start[at:].startswith(sign)), None), packed
