"""NRRD files (.nrrd, .nhdr), by the format's definition: numbers have points whatever the locale, and gzip's checksum is verified.

What is rare (voxels as text, bzip2, in several files) is left to ITK, after the header was checked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import BadVolume
from ..grid import Grid, numbers
from ..volume import Volume, Warn
from . import raw
from .content import misnamed
from .formats import bad_spacing, check_text, damaged, no_data_file, not_scalar, tell, three, volume_name
from .metaimage import LeftToITK
from .raw import VoxelBlock

LONGEST_HEADER = 2**20  # bytes
TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
SCALAR_KINDS = ("domain", "space", "time", "none", "???", "list", "scalar", "stub")
SPACES = {  # which of the first three letters' axes LPS turns round
    "RAS": (-1, -1, 1), "LAS": (1, -1, 1), "LPS": (1, 1, 1), "RPS": (-1, 1, 1), "LPI": (1, 1, -1), "RAI": (-1, -1, -1),
    "LAI": (1, -1, -1), "RPI": (-1, 1, -1),
}  # fmt: skip


@dataclass(frozen=True)
class NrrdHeader:
    """fields: by their names in lower case. pairs: key := value. after: bytes up to the end of the header."""

    fields: Mapping[str, str]
    pairs: Mapping[str, str]
    after: int


def read(path: Path, warn: Warn | None = None) -> Volume:
    """The volume at `path`. Raises `BadVolume`, or `LeftToITK` where there is nothing wrong but this cannot read it."""
    header = read_header(path)
    grid, notes = grid_of(header, path)
    array = raw.read_block(block_of(header, path), path, warn)
    tell(notes, warn)
    return Volume(array, grid, volume_name(path), dict(header.pairs), thickness_of(header, grid, path))


def read_header(path: Path) -> NrrdHeader:
    """The header, its fields not yet judged. Raises `BadVolume` for what is no NRRD."""
    try:
        with open(path, "rb") as stream:
            if not re.match(rb"NRRD000[1-9]", stream.readline(64)):
                raise misnamed(path, "NRRD")
            return _lines(stream)
    except OSError as error:
        raise damaged(path, error) from error


def _lines(stream: IO[bytes]) -> NrrdHeader:
    fields: dict[str, str] = {}
    pairs: dict[str, str] = {}
    while stream.tell() < LONGEST_HEADER:
        line = stream.readline(LONGEST_HEADER).decode("utf-8", errors="replace")
        text = line.rstrip("\r\n")
        if not line or not text:  # the header ends with the file, or with an empty line
            break
        if text.startswith("#"):
            continue
        name, separator, value = re.match(r"([^:]*)(:=|: ?|$)(.*)", text).groups()  # type: ignore[union-attr]
        if separator == ":=":
            pairs[name.strip()] = value.replace("\\n", "\n").replace("\\\\", "\\")
        elif separator:
            fields[re.sub(r"\s+", " ", name.strip().lower())] = value.strip()
            if name.strip().lower() in ("data file", "datafile") and value.strip().upper().startswith("LIST"):
                break
    return NrrdHeader(fields, pairs, stream.tell())


def _size(header: NrrdHeader, path: Path) -> tuple[list[int], list[int]]:
    """(size of every axis, which axes lie in space)."""
    try:
        count = int(header.fields["dimension"])
        size = [int(word) for word in header.fields["sizes"].split()]
    except (KeyError, ValueError) as error:
        raise BadVolume(f"{path}: the header gives no sizes; damaged", code="unreadable") from error
    if not 1 <= count <= 16 or len(size) != count or min(size) < 1:
        raise BadVolume(f"{path}: dimension is {count}, sizes are {numbers(size)}; damaged", code="unreadable")
    kinds = [kind.lower() for kind in header.fields.get("kinds", "").split()]
    spatial = list(range(count))
    directions = _vectors(header, path)
    if directions is not None and len(directions) == count:
        spatial = [axis for axis in range(count) if directions[axis] is not None]
    elif len(kinds) == count:
        spatial = [axis for axis in range(count) if kinds[axis] in SCALAR_KINDS]
    for axis in range(count):
        if axis not in spatial and size[axis] > 1:
            kind = kinds[axis] if axis < len(kinds) else ""
            if kind in ("list", "time", "none", "???", "domain", "space"):
                three(path, size)
            raise not_scalar(path, f"{size[axis]} values")
    return size, spatial


def _vectors(header: NrrdHeader, path: Path) -> list[list[float] | None] | None:
    """The space directions, None for those that are "none"; None if there are none at all."""
    text = header.fields.get("space directions")
    if text is None:
        return None
    found: list[list[float] | None] = []
    for word in re.findall(r"none|\([^)]*\)", text):
        found.append(None if word == "none" else _vector(word, path, "space directions"))
    return found


def _vector(text: str, path: Path, name: str) -> list[float]:
    try:
        return [float(word) for word in text.strip().strip("()").split(",")]
    except ValueError as error:
        raise BadVolume(f"{path}: {name} holds {text}, expected numbers; mend the header", code="unreadable") from error


def _signs(header: NrrdHeader) -> tuple[int, int, int]:
    """What turns the header's space into LPS, axis by axis."""
    space = header.fields.get("space", "").lower().removesuffix("-time")
    letters = "".join(word[0] for word in space.split("-")).upper() if space.count("-") == 2 else space.upper()[:3]
    return SPACES.get(letters, (1, 1, 1))  # scanner-xyz, 3D-right-handed: taken as it is, as ITK does


def grid_of(header: NrrdHeader, path: Path) -> tuple[Grid, list[tuple[str, str]]]:
    """The grid, and what to tell about it. Raises `BadVolume`."""
    size, spatial = _size(header, path)
    if len(spatial) > 3 and all(size[axis] == 1 for axis in spatial[3:]):
        spatial = spatial[:3]
    shape = three(path, [size[axis] for axis in spatial])
    notes = []
    directions = _vectors(header, path)
    if directions is not None:
        if not header.fields.get("space"):
            notes.append(("no-geometry", f"{path.name} does not say which side is left: read as if it were in LPS mm"))
        vectors = [directions[axis] for axis in spatial if axis < len(directions)]
        if len(vectors) != 3 or any(vector is None or len(vector) != 3 for vector in vectors):
            raise BadVolume(f"{path}: space directions are no three vectors; mend the header", code="bad-direction")
        columns = np.array(vectors, dtype=float).T
        spacing = np.linalg.norm(columns, axis=0)
        if not np.all(np.isfinite(spacing) & (spacing > 0)):
            raise bad_spacing(path, numbers(spacing))
        axes = np.diag(_signs(header)) @ (columns / spacing)
        text = header.fields.get("space origin")
        origin = np.asarray(_vector(text, path, "space origin") if text else [0.0, 0.0, 0.0])
        if origin.shape != (3,):
            raise BadVolume(f"{path}: space origin is {text}, expected three numbers", code="bad-origin")
        origin = np.diag(_signs(header)) @ origin
    else:
        notes.append(("no-geometry", f"{path.name} does not say how it lies: read as axial slices, left to right"))
        spacing = np.asarray(_per_axis(header, "spacings", path, 1.0, size))[spatial]
        if not np.all(np.isfinite(spacing) & (spacing > 0)):
            raise bad_spacing(path, numbers(spacing))
        origin = np.asarray(_per_axis(header, "axis mins", path, 0.0, size))[spatial]
        axes = np.eye(3)
    units = set(re.findall(r'"([^"]*)"', header.fields.get("space units", ""))) - {"mm", ""}
    if units:
        text = f"{path.name} gives its lengths in {', '.join(sorted(units))}: read as mm, as other programs do"
        notes.append(("units", text))
    try:
        grid = Grid(shape, tuple(spacing.tolist()), tuple(origin.tolist()), tuple(axes.ravel().tolist()))  # type: ignore[arg-type]
    except BadVolume as error:
        raise BadVolume(f"{path}: {error.message}", code=error.code) from error
    return grid, notes


def thickness_of(header: NrrdHeader, grid: Grid, path: Path) -> float | None:
    """Thickness of the slices in mm, None where the header does not tell."""
    size, spatial = _size(header, path)
    found = _per_axis(header, "thicknesses", path, math.nan, size)[spatial[grid.slice_axis]]
    return found if math.isfinite(found) and found > 0 else None


def _per_axis(header: NrrdHeader, name: str, path: Path, default: float, size: list[int]) -> list[float]:
    text = header.fields.get(name, header.fields.get(name.replace(" ", "")))
    if text is None:
        return [default] * len(size)
    try:
        values = [float(word) for word in text.split()]
    except ValueError as error:
        raise BadVolume(
            f"{path}: {name} holds '{text}', expected numbers; mend the header", code="unreadable"
        ) from error
    if len(values) != len(size):
        raise BadVolume(f"{path}: {name} holds {len(values)} numbers for {len(size)} axes", code="unreadable")
    return [default if math.isnan(value) and n == 1 else value for value, n in zip(values, size, strict=True)]


def block_of(header: NrrdHeader, path: Path) -> VoxelBlock:
    """Where the voxels lie. Raises `BadVolume`, or `LeftToITK`."""
    size, spatial = _size(header, path)
    fields = header.fields
    name = fields.get("data file", fields.get("datafile"))
    if name is not None and (name.upper().startswith("LIST") or "%" in name):
        raise LeftToITK
    data = path if name is None else path.parent / name
    if not data.exists():
        raise no_data_file(path, data)
    kind = fields.get("type", "").lower()
    code = next((code for code, names in TYPES.items() if kind in names), None)
    if code is None:
        raise not_scalar(path, f"values of type '{kind}'")
    encoding = fields.get("encoding", "").lower()
    skips = {key: fields.get(f"{key} skip", fields.get(f"{key}skip", "0")) for key in ("line", "byte")}
    if encoding in ("ascii", "text", "txt"):
        check_text(path, data, math.prod(size))
    if encoding not in ("raw", "gz", "gzip") or skips["line"] != "0":
        raise LeftToITK
    order = ">" if fields.get("endian", "little").lower() == "big" else "<"
    dtype = np.dtype(order + code)
    start = header.after if name is None else 0
    try:
        skip = int(skips["byte"])
    except ValueError as error:
        raise BadVolume(f"{path}: byte skip is '{skips['byte']}', expected a number", code="unreadable") from error
    shape = three(path, [size[axis] for axis in spatial])
    if encoding == "raw":
        start = start + skip if skip >= 0 else max(start, data.stat().st_size - math.prod(size) * dtype.itemsize)
        return VoxelBlock(data, shape, dtype, start)
    if skip:
        raise LeftToITK
    return VoxelBlock(data, shape, dtype, packing="gzip", packed_from=start)


def encoded(grid: Grid, dtype: np.dtype, pairs: Mapping[str, str], packed: bool) -> bytes:
    """A header for the voxels on `grid`, which follow it."""
    kind = {"f4": "float", "f8": "double"}.get(dtype.str[1:], str(np.dtype(dtype.str[1:])))
    columns = (grid.axes * grid.spacing).T
    lines = [
        "NRRD0004",
        f"type: {kind}",
        "dimension: 3",
        "space: left-posterior-superior",
        "sizes: " + " ".join(map(str, grid.size)),
        "space directions: " + " ".join("(" + ",".join(repr(float(v)) for v in column) + ")" for column in columns),
        "kinds: domain domain domain",
        "endian: little",
        f"encoding: {'gzip' if packed else 'raw'}",
        "space origin: (" + ",".join(repr(float(v)) for v in grid.origin) + ")",
        *(f"{key}:={value.replace(chr(92), chr(92) * 2)}" for key, value in pairs.items()),
    ]
    return ("\n".join(lines) + "\n\n").encode("utf-8")
