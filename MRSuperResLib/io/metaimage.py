"""MetaImage files (.mha, .mhd): sizes and checksums are verified, which ITK's reader does not do.

What is rare (voxels as text, in many files, or of a type whose size depends on the machine) is left to ITK, after the header was
checked: a header with sizes out of range can crash it.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import BadVolume
from ..grid import Grid, numbers
from ..volume import Volume, Warn
from . import raw
from .content import misnamed
from .formats import bad_spacing, check_text, cut_short, damaged, no_data_file, not_scalar, tell, three, volume_name
from .raw import VoxelBlock

TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
LONGEST_HEADER = 2**16  # bytes
LARGEST_AXIS = 2**31 - 1  # voxels
IDENTITY = "1 0 0 0 1 0 0 0 1"


class LeftToITK(Exception):
    """The header is sound, and describes something that only ITK reads."""


def read(path: Path, warn: Warn | None = None) -> Volume:
    """The volume at `path`. Raises `BadVolume`, or `LeftToITK` where there is nothing wrong but this cannot read it."""
    fields, after = read_header(path)
    grid = grid_of(fields, path)
    tell(untold(fields, path), warn)
    array = raw.read_block(block_of(fields, after, path), path, warn)
    return Volume(array, grid, volume_name(path), {key: value for key, value in fields.items() if key[0] != "_"})


def untold(fields: Mapping[str, str], path: Path) -> list[tuple[str, str]]:
    """What to tell about a header that gives no place: (code, line)s."""
    if any(key in fields for key in ("Offset", "Position", "Origin", "TransformMatrix", "Rotation", "Orientation")):
        return []
    return [("no-geometry", f"{path.name} does not say where it lies: read as axial slices, the first voxel at 0")]


def read_header(path: Path) -> tuple[dict[str, str], int]:
    """(fields, bytes up to the end of the header). Raises `BadVolume` for what is no MetaImage."""
    fields: dict[str, str] = {}
    try:
        with open(path, "rb") as stream:
            after = _lines(stream, fields)
    except OSError as error:
        raise damaged(path, error) from error
    if "DimSize" not in fields or "ElementDataFile" not in fields:
        raise misnamed(path, "MetaImage")
    return fields, after


def _lines(stream: IO[bytes], fields: dict[str, str]) -> int:
    while stream.tell() < LONGEST_HEADER and (line := stream.readline(LONGEST_HEADER)):
        key, found, value = line.decode("utf-8", errors="replace").partition("=")
        if not found:
            if line.strip():
                break
            continue
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    return stream.tell()


def grid_of(fields: Mapping[str, str], path: Path) -> Grid:
    """The grid of the header. Raises `BadVolume` for sizes, spacings or axes that cannot be, before anything reads on."""
    dimensions = _integers(fields.get("NDims", "3"), path, "NDims")
    if len(dimensions) != 1 or not 1 <= dimensions[0] <= 10:
        raise BadVolume(f"{path}: NDims is {fields.get('NDims')}, expected 3; damaged", code="unreadable")
    count = dimensions[0]
    size = _integers(fields["DimSize"], path, "DimSize")
    if len(size) != count or not all(1 <= n <= LARGEST_AXIS for n in size):
        raise BadVolume(
            f"{path}: DimSize is {fields['DimSize']}, expected {count} sizes of 1 or more; damaged", code="unreadable"
        )
    shape = three(path, size)
    text = fields.get("ElementSpacing", fields.get("ElementSize", " ".join(["1"] * count)))
    spacing = _floats(text, path, "ElementSpacing", count)[:3]
    if not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        raise bad_spacing(path, numbers(spacing))
    origin = _first(fields, ("Offset", "Position", "Origin"), path, count)[:3] or [0.0, 0.0, 0.0]
    matrix = _first(fields, ("TransformMatrix", "Rotation", "Orientation"), path, count * count)
    axes = np.reshape(matrix, (count, count))[:3, :3].T if matrix else np.eye(3)
    try:
        return Grid(shape, tuple(spacing), tuple(origin), tuple(axes.ravel().tolist()))  # type: ignore[arg-type]
    except BadVolume as error:
        raise BadVolume(f"{path}: {error.message}", code=error.code) from error


def block_of(fields: Mapping[str, str], after: int, path: Path) -> VoxelBlock:
    """Where the voxels lie. Raises `BadVolume`, or `LeftToITK`."""
    size = three(path, _integers(fields["DimSize"], path, "DimSize"))
    channels = _integers(fields.get("ElementNumberOfChannels", "1"), path, "ElementNumberOfChannels")
    if channels != [1] or "ARRAY" in fields.get("ElementType", ""):
        raise not_scalar(path, f"{numbers(channels)} values")
    name = fields["ElementDataFile"]
    local = name.upper() == "LOCAL"
    data = path if local else path.parent / name
    if not data.is_file():
        if name.split()[:1] == ["LIST"] or "%" in name:
            for listed in _listed(path, after) if name.startswith("LIST") else ():
                if not listed.exists():
                    raise no_data_file(path, listed)
            raise LeftToITK
        raise no_data_file(path, data)
    kind = fields.get("ElementType", "")
    if not _true(fields.get("BinaryData", "True")):
        check_text(path, data, math.prod(size))
        raise LeftToITK
    if kind not in TYPES:
        raise LeftToITK
    msb = _true(fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")))
    dtype = np.dtype((">" if msb else "<") + TYPES[kind])
    start = after if local else 0
    skip = _integers(fields.get("HeaderSize", "0"), path, "HeaderSize")[0]
    if _true(fields.get("CompressedData", "False")):
        start = start if local else max(0, skip)
        _check_packed_size(fields, data, start, path)
        return VoxelBlock(data, size, dtype, packing=_packing(data, start, path), packed_from=start)
    length = math.prod(size) * dtype.itemsize
    if skip == -1:  # the voxels are the file's last bytes
        start = max(start, data.stat().st_size - length)
    elif skip > 0 and not local:
        start = skip
    return VoxelBlock(data, size, dtype, start)


def _check_packed_size(fields: Mapping[str, str], data: Path, start: int, path: Path) -> None:
    text = fields.get("CompressedDataSize")
    if text is None:
        return
    expected, there = _integers(text, path, "CompressedDataSize")[0], data.stat().st_size - start
    if expected > there:
        raise cut_short(path, start + expected, start + there)


def _packing(data: Path, start: int, path: Path) -> raw.Packing:
    """zlib's format by its two first bytes, RFC 1950: their number is a multiple of 31."""
    with open(data, "rb") as stream:
        stream.seek(start)
        two = stream.read(2)
    if two == raw.GZIP:
        return "gzip"
    if len(two) == 2 and two[0] & 15 == 8 and (two[0] * 256 + two[1]) % 31 == 0:
        return "zlib"
    raise damaged(path, zlib.error("no zlib stream"))


def _listed(path: Path, after: int) -> list[Path]:
    with open(path, "rb") as stream:
        stream.seek(after)
        names = stream.read(LONGEST_HEADER).decode("utf-8", errors="replace").split("\n")
    return [path.parent / name.strip() for name in names if name.strip()]


def _first(fields: Mapping[str, str], names: tuple[str, ...], path: Path, count: int) -> list[float]:
    for name in names:
        if name in fields:
            return _floats(fields[name], path, name, count)
    return []


def _floats(text: str, path: Path, name: str, count: int) -> list[float]:
    try:
        values = [float(word) for word in re.split(r"[\s]+", text.strip())]
    except ValueError:
        values = []
    if len(values) < count:
        raise BadVolume(f"{path}: {name} is '{text}', expected {count} numbers; mend the header", code="unreadable")
    return values[:count] if name != "TransformMatrix" else values


def _integers(text: str, path: Path, name: str) -> list[int]:
    try:
        return [int(word) for word in text.split()]
    except ValueError as error:
        raise BadVolume(f"{path}: {name} is '{text}', expected whole numbers; damaged", code="unreadable") from error


def _true(text: str) -> bool:
    return text[:1].lower() in ("t", "y", "1")


def encoded(grid: Grid, dtype: np.dtype, fields: Mapping[str, str], packed: int | None) -> bytes:
    """A header for the voxels on `grid`, which follow it. packed: their length if they are packed by zlib, else None."""
    kind = next(name for name, code in TYPES.items() if code == dtype.str[1:])
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        f"CompressedData = {packed is not None}",
        *([f"CompressedDataSize = {packed}"] if packed is not None else []),
        "TransformMatrix = " + " ".join(repr(float(value)) for value in grid.axes.T.ravel()),
        "Offset = " + " ".join(repr(float(value)) for value in grid.origin),
        "CenterOfRotation = 0 0 0",
        "AnatomicalOrientation = " + _orientation(grid),
        "ElementSpacing = " + " ".join(repr(float(value)) for value in grid.spacing),
        "DimSize = " + " ".join(map(str, grid.size)),
        *(f"{key} = {value}" for key, value in fields.items()),
        f"ElementType = {kind}",
        "ElementDataFile = LOCAL",
    ]
    return ("\n".join(lines) + "\n").encode("utf-8")


def _orientation(grid: Grid) -> str:
    """Three letters, from which side each axis comes, as ITK writes them."""
    letters = []
    for axis in range(3):
        world = int(np.argmax(np.abs(grid.axes[:, axis])))
        letters.append(("RL", "AP", "IS")[world][0 if grid.axes[world, axis] > 0 else 1])
    return "".join(letters)
