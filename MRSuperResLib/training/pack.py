"""A folder of volumes as one memory-mapped file that travels well: uint16 voxels, their grids, and nothing else.

Layout: 8 bytes, the header's length (little-endian); the header, JSON; padding; then, from `data_start`, each volume's voxels,
(k, j, i) order, uint16, each padded to 64 bytes. Label maps keep their label numbers; images are stored as
`value = low + stored * step`.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadVolume, OutputError, UsageError
from ..intensity import IntensityScale
from ..volume import Grid, Volume, read_volume

MAGIC = "mrsuperres-pack"
SCHEMA = 1
ALIGNMENT = 64
HEADER_PAGE = 4096
SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
LABEL_FOLDER = "labels"


@dataclass(frozen=True)
class Entry:
    """One packed volume. `name` is its path below the packed folder, without suffix, such as "isotropic/colin27_T1w"."""

    name: str
    labels: bool
    grid: Grid
    low: float
    step: float
    scale: IntensityScale
    offset: int

    @property
    def contrast(self) -> str:
        """What follows the last underscore of the name: T1w, T2w, FLAIR, ...; empty for label maps."""
        return "" if self.labels else self.name.rpartition("_")[2]

    @property
    def subject(self) -> str:
        """What stands before the contrast: volumes of one subject and visit share it."""
        return self.name if self.labels else self.name.rpartition("_")[0]


class Pack:
    """A packed file, opened for reading; voxels come from the memory map when asked for.

    source: the `fingerprint` of the folder it was made from.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            with open(self.path, "rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                header = json.loads(stream.read(length)) if length < self.path.stat().st_size else {}
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{path} is not a packed data file: {error}; make one with `mrsuperres data pack`"
            ) from error
        if header.get("format") != MAGIC or header.get("schema") != SCHEMA:
            raise UsageError(
                f"{path} is not a packed data file of schema {SCHEMA}; make one with `mrsuperres data pack`"
            )
        self.entries = tuple(_entry_from_json(entry) for entry in header["entries"])
        self.source = str(header.get("source", ""))
        self._start = int(header["data_start"])
        self._map: np.memmap | None = None

    def select(self, pattern: str) -> tuple[Entry, ...]:
        """The entries whose name matches a shell pattern, such as "isotropic/*_T1w"."""
        return tuple(entry for entry in self.entries if fnmatch(entry.name, pattern))

    def stored(self, entry: Entry) -> np.ndarray:
        """The stored uint16 voxels (k, j, i), a view of the file."""
        if self._map is None:
            self._map = np.memmap(self.path, dtype=np.uint8, mode="r")
        count = int(np.prod(entry.grid.shape))
        start = self._start + entry.offset
        return self._map[start : start + 2 * count].view(np.uint16).reshape(entry.grid.shape)

    def unit(self, entry: Entry, stored: np.ndarray) -> np.ndarray:
        """Stored voxels of `entry` (any part of them) on the networks' intensity scale, float32."""
        values = stored.astype(np.float32) * np.float32(entry.step) + np.float32(entry.low)
        return entry.scale.to_unit(values)

    def volume(self, entry: Entry) -> Volume:
        """The whole volume, in its own units."""
        values = self.stored(entry).astype(np.float32) * np.float32(entry.step) + np.float32(entry.low)
        return Volume(np.ascontiguousarray(values), entry.grid, entry.name)

    def __getstate__(self) -> dict[str, Any]:
        """Workers reopen the map; it never travels between processes."""
        return {**self.__dict__, "_map": None}


def pack(folder: Path, out: Path) -> Pack:
    """Pack every volume below `folder` into the file `out` and open it.

    Volumes below a folder named "labels" are label maps. A volume that cannot be read stops the packing: data to train on is
    to be sound. Raises `BadVolume`, `UsageError` (nothing found), `OutputError`.
    """
    folder, out = Path(folder), Path(out)
    source, paths = fingerprint(folder), _volumes_below(folder)
    if not paths:
        raise UsageError(f"no volume ({', '.join(SUFFIXES)}) below {folder}")
    temporary = out.with_name(f".{out.name}.part")
    try:
        with open(temporary, "wb") as stream:
            entries, position = [], 0
            blobs_start = HEADER_PAGE * (1 + len(paths) // 4)  # a header entry takes well under a quarter of a page
            stream.seek(blobs_start)
            for path in paths:
                entry, voxels = _packed(path, folder, position)
                stream.write(voxels.tobytes())
                padding = -voxels.nbytes % ALIGNMENT
                stream.write(b"\0" * padding)
                position += voxels.nbytes + padding
                entries.append(entry)
            header = json.dumps(
                {
                    "format": MAGIC,
                    "schema": SCHEMA,
                    "source": source,
                    "data_start": blobs_start,
                    "entries": [asdict(entry) for entry in entries],
                }
            ).encode()
            if 8 + len(header) > blobs_start:
                raise UsageError(f"names below {folder} are too long for the pack's header")
            stream.seek(0)
            stream.write(len(header).to_bytes(8, "little") + header)
        os.replace(temporary, out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write {out}: {error.strerror or error}; choose a folder you can write to") from error
    except (BadVolume, UsageError):
        temporary.unlink(missing_ok=True)
        raise
    return Pack(out)


def fingerprint(folder: Path) -> str:
    """A digest of the names, sizes and times of the volumes below `folder`: another one once any of them has changed."""
    digest = hashlib.sha256()
    for path in _volumes_below(folder):
        status = path.stat()
        digest.update(f"{path.relative_to(folder).as_posix()}\n{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _volumes_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.name.endswith(SUFFIXES))


def _packed(path: Path, folder: Path, offset: int) -> tuple[Entry, np.ndarray]:
    relative = path.relative_to(folder)
    name = relative.as_posix()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        name = name.removesuffix(suffix)
    labels = LABEL_FOLDER in relative.parts[:-1]
    volume = read_volume(path, allow_labels=True)
    scale = IntensityScale.of(volume.array)
    if labels:
        low, step = 0.0, 1.0
        if volume.array.min() < 0 or volume.array.max() > 65535:
            raise BadVolume(
                f"{path}: labels run from {volume.array.min():g} to {volume.array.max():g}, expected 0 to 65535"
            )
    else:
        low, high = float(volume.array.min()), float(volume.array.max())
        step = (high - low) / 65535 or 1.0
    voxels = np.rint((volume.array - low) / step).astype(np.uint16)
    return Entry(name, labels, volume.grid, low, step, scale, offset), voxels


def _entry_from_json(entry: dict[str, Any]) -> Entry:
    grid = entry["grid"]
    return Entry(
        name=entry["name"],
        labels=entry["labels"],
        grid=Grid(**{key: tuple(value) for key, value in grid.items()}),
        low=entry["low"],
        step=entry["step"],
        scale=IntensityScale(**entry["scale"]),
        offset=entry["offset"],
    )
