"""What a file holds, by its first bytes: for the message about one whose name says something else."""

from __future__ import annotations

from pathlib import Path

from ..errors import BadVolume
from .formats import GZIP, first_bytes
from .raw import first_bytes_unpacked

START = 352  # bytes: a NIfTI-1 header
PACKED = {".nii": ".nii.gz", ".mgh": ".mgz"}  # suffixes of the same, packed by gzip
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
    what, suffix = _found(path)
    if what in ("", expected):
        why = "damaged or misnamed; copy or export it again"
        return BadVolume(f"{path} is no {expected} file: {why}", code="unreadable")
    advice = f"name it {suffix}" if suffix else "download or export it again"
    return BadVolume(f"{path} is no {expected} file, it holds {what}: {advice}", code="unreadable")


def held_by(path: Path) -> str:
    """What a file of no suffix that is read seems to hold, and how to name it, for a message; "" if that cannot be seen."""
    what, suffix = _found(path)
    return f"; it holds {what}: name it {suffix}" if suffix else ""


def _found(path: Path) -> tuple[str, str]:
    """What it is, and the suffix it should have; "" for what cannot be seen, and for what is no volume."""
    try:
        start, packed = first_bytes_unpacked(path, START), first_bytes(path, len(GZIP)) == GZIP
    except BadVolume:  # the caller has the better message
        return "", ""
    for at, sign, what, suffix in SIGNS:
        if start[at:].startswith(sign):
            return what, PACKED.get(suffix, suffix) if packed else suffix
    return "", ""
