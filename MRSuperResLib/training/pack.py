"""A folder of volumes in one memory-mapped file: uint16 voxels, their grids and names.

Layout: 8 bytes, the header's length (little-endian); the header, JSON; padding; then, from `data_start`, each volume's voxels,
(k, j, i) order, uint16, each padded to 64 bytes. Label maps keep their label numbers; images are stored as
`value = low + stored * step`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadVolume, OutputError, UsageError
from ..files import read_regular
from ..grid import Grid
from ..intensity import IntensityScale
from ..io.formats import READABLE, stem_of, suffix_of
from ..io.read import read_volume
from ..staging import Staging
from ..volume import Volume
from .subjects import contrast_of, subject_of

MAGIC = "mrsuperres-pack"
SCHEMA = 1
ALIGNMENT = 64
HEADER_PAGE = 4096
HEADERS = {".img": ".hdr", ".img.gz": ".hdr"}  # of two files that are one volume, only the header's counts
LABEL_FOLDER = "labels"
REPORT_SECONDS = 10.0
ISOTROPIC = 1.3  # longest over shortest side of a voxel

Report = Callable[[str], None]


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
        """T1w, T2w, FLAIR or PDw, as the name tells; "" where it does not, and for label maps."""
        return "" if self.labels else contrast_of(self.name)

    @property
    def is_isotropic(self) -> bool:
        """Whether voxels are about cubes, so that slices along any axis are sharp."""
        return max(self.grid.spacing) <= ISOTROPIC * min(self.grid.spacing)

    @property
    def subject(self) -> str | None:
        """The subject and, where sessions are named, the visit; None where the name does not tell."""
        return self.name if self.labels else subject_of(self.name)


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
        """The entries whose name matches a shell pattern, such as "isotropic/*_T1w", or one of several joined by "|"."""
        patterns = pattern.split("|")
        return tuple(entry for entry in self.entries if any(fnmatch(entry.name, one) for one in patterns))

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


def pack(folder: Path, out: Path, report: Report | None = None) -> Pack:
    """Pack every volume below `folder` into the file `out` and open it; any format that `read_volume` reads, DICOM excepted.

    Volumes below a folder named "labels" are label maps. A volume that cannot be read, or a label map elsewhere, stops the
    packing: data to train on is to be sound. `report` hears now and then how far it is, and at the end what was packed.
    Raises `BadVolume`, `UsageError` (nothing found), `OutputError`.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: give the one that holds the volumes")
    source, paths = fingerprint(folder), _volumes_below(folder)
    if not paths:
        raise UsageError(f"no volume ({', '.join(READABLE)}) below {folder}")
    if report:
        for decoy in sorted(folder.rglob("._*")):
            report(f"{decoy} is left out: macOS keeps what is no voxel in such files")
    if os.path.lexists(out) and not _is_pack(out):
        raise OutputError(f"{out} is there already and is no pack: choose another name", code="not-ours")
    try:
        with Staging() as files, open(files.path(out), "wb") as stream:
            entries, position = [], 0
            blobs_start = HEADER_PAGE * (1 + len(paths) // 4)  # a header entry takes well under a quarter of a page
            stream.seek(blobs_start)
            told = time.monotonic()
            for number, path in enumerate(paths):
                if report and time.monotonic() - told > REPORT_SECONDS:
                    told = time.monotonic()
                    report(f"packed {number} of {len(paths)} volumes")
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
            stream.close()
            files.commit()
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}; choose a folder you can write to") from error
    packed = Pack(out)
    if report:
        for line in contents(packed):
            report(line)
    return packed


def _is_pack(path: Path) -> bool:
    """Whether the file says that it is a pack, of whatever version."""
    try:
        return MAGIC.encode() in read_regular(path, HEADER_PAGE)
    except OSError:
        return False


def contents(packed: Pack) -> list[str]:
    """What a pack holds, in words: how many volumes of which contrasts, whose, and what cannot be paired."""
    images = [entry for entry in packed.entries if not entry.labels]
    contrasts = Counter(entry.contrast or "unknown" for entry in images)
    listed = ", ".join(f"{name} {count}" for name, count in sorted(contrasts.items()))
    lines = [f"{_count(len(images), 'volume')} ({listed}), {_count(len(packed.entries) - len(images), 'label map')}"]
    subjects: dict[str, set[str]] = {}
    for entry in images:
        if entry.subject and entry.contrast:
            subjects.setdefault(entry.subject, set()).add(entry.contrast)
    several = sum(len(found) > 1 for found in subjects.values())
    lines.append(f"with several contrasts: {_count(several, 'subject')}")
    nobody = [entry.name for entry in images if not entry.subject or not entry.contrast]
    if nobody:
        lines.append(
            f"never paired: {_count(len(nobody), 'volume')}, whose names do not say whose they are or which contrast, "
            f"{nobody[0]} for one"
        )
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def fingerprint(folder: Path) -> str:
    """A digest of the names, sizes and times of the volumes below `folder`: another one once any of them has changed."""
    digest = hashlib.sha256()
    for path in _volumes_below(folder):
        try:
            status = path.stat()
        except OSError as error:
            hint = ": a link to what was not fetched (datalad get)?" if path.is_symlink() else ""
            raise BadVolume(f"{path} cannot be read: {error.strerror}{hint}", code="unreadable") from error
        digest.update(os.fsencode(path.relative_to(folder).as_posix()))
        digest.update(f"\n{status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _volumes_below(folder: Path) -> list[Path]:
    found = [path for path in folder.rglob("*") if suffix_of(path) in READABLE and not path.name.startswith(".")]
    names = {path.as_posix() for path in found}
    return sorted(path for path in found if not _is_half(path, names))


def _is_half(path: Path, names: set[str]) -> bool:
    """Whether `path` holds the voxels of a pair whose header is there too."""
    header = HEADERS.get(suffix_of(path))
    return header is not None and path.with_name(stem_of(path) + header).as_posix() in names


def _packed(path: Path, folder: Path, offset: int) -> tuple[Entry, np.ndarray]:
    relative = path.relative_to(folder)
    name = relative.with_name(stem_of(relative)).as_posix()
    labels = LABEL_FOLDER in relative.parts[:-1]
    try:
        volume = read_volume(path, allow_labels=labels)
    except BadVolume as error:
        if error.code == "label-map":
            raise BadVolume(
                f"{path} looks like a label map: move it below a folder named '{LABEL_FOLDER}', or away",
                code=error.code,
            ) from error
        told = error.message if str(path) in error.message else f"{path}: {error.message}"
        raise BadVolume(told, code=error.code) from error
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
