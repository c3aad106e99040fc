"""The block of voxels that a header describes: read whole, with its length and its checksum verified, or refused."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from ..errors import BadVolume
from ..volume import Warn
from .formats import GZIP, cut_short, damaged, first_bytes

Packing = Literal["none", "gzip", "zlib"]
BLOCK = 2**22  # bytes
MOST_BEHIND = 2**26  # bytes after the voxels that are unpacked for the sake of the checksum
MOST_PACKED = 1100  # deflate packs 1,032 to 1 at best: a header that promises more than this is not believed


@dataclass(frozen=True)
class VoxelBlock:
    """Where the voxels of a volume lie in `file`.

    size: voxels along i, j, k; i runs fastest. start: bytes before them, in the file, or in the unpacked stream where the whole
    file is one (`packing` "gzip", packed_from 0). packed_from: where in the file the packed stream begins. slope, intercept:
    value = slope x stored + intercept.
    """

    file: Path
    size: tuple[int, int, int]
    dtype: np.dtype[Any]
    start: int = 0
    packing: Packing = "none"
    packed_from: int = 0
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def before(self) -> int:
        """Bytes before the voxels in the unpacked stream, where the whole file is one."""
        return self.start if self.packing == "gzip" and not self.packed_from else 0

    @property
    def bytes(self) -> int:
        """Length of the voxels, unpacked."""
        return math.prod(self.size) * self.dtype.itemsize


def opened(path: Path) -> IO[bytes]:
    """The file's bytes as a stream, out of gzip if they are packed, whatever the name says."""
    return gzip.open(path, "rb") if first_bytes(path, 2) == GZIP else open(path, "rb")  # type: ignore[return-value]


def first_bytes_unpacked(path: Path, count: int) -> bytes:
    """The first `count` bytes of the file, out of gzip if they are packed. Raises `BadVolume` if they cannot be had."""
    try:
        with opened(path) as stream:
            return stream.read(count)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, error) from error


def read_block(block: VoxelBlock, path: Path, warn: Warn | None = None) -> np.ndarray:
    """The voxels as float32, (k, j, i). path: what to call the volume in errors.

    `warn` hears of a slice's bytes and more behind the voxels: the header may promise too few slices.

    Raises `BadVolume`: cut short, checksum wrong, no permission, too large.
    """
    unread, more = _stored(block, path)
    slice_bytes = block.bytes // block.size[2]
    if warn and more >= slice_bytes:
        text = (
            f"{path.name} holds {more} bytes more than its header speaks of ({more / slice_bytes:.3g} slices): not read"
        )
        warn("longer-than-said", text)
    stored = unread.view(block.dtype)
    shape = block.size[::-1]
    try:
        if (block.slope, block.intercept) == (1.0, 0.0):
            with np.errstate(
                over="ignore", invalid="ignore"
            ):  # what float32 cannot hold is infinite: `check_volume` tells
                return stored.astype(np.float32).reshape(shape)
        array = np.empty(shape, dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for k, slab in enumerate(stored.reshape(shape)):
                array[k] = slab.astype(np.float64) * block.slope + block.intercept
        return array
    except MemoryError as error:
        raise damaged(path, error) from error


def check_length(block: VoxelBlock, path: Path) -> int:
    """How many bytes the file has for the voxels. Raises `BadVolume` if they are too few; packed ones may be so all the same."""
    try:
        there = block.file.stat().st_size - (block.start if block.packing == "none" else block.packed_from)
    except OSError as error:
        raise damaged(path, error) from error
    if block.bytes + block.before > there * (1 if block.packing == "none" else MOST_PACKED):
        raise cut_short(path, block.bytes, max(0, there)) if block.packing == "none" else damaged(path)
    return there


def _stored(block: VoxelBlock, path: Path) -> tuple[np.ndarray, int]:
    """The bytes of the voxels, uint8, and how many more follow them."""
    there = check_length(block, path)
    try:
        buffer = np.empty(block.bytes, dtype=np.uint8)
        filled, more = -block.before, 0
        for piece in _pieces(block):
            skipped = min(len(piece), max(0, -filled))
            filled += skipped
            kept = piece[skipped : skipped + block.bytes - max(0, filled)]
            more += len(piece) - skipped - len(kept)
            if more > MOST_BEHIND + block.bytes:
                raise BadVolume(f"{path} unpacks to far more than its header speaks of: damaged", code="unreadable")
            if len(kept):
                buffer[filled : filled + len(kept)] = np.frombuffer(kept, dtype=np.uint8)
                filled += len(kept)
            if filled >= block.bytes and block.packing == "none":
                more = there - block.bytes
                break
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise damaged(path, error) from error
    if filled < block.bytes:
        raise cut_short(path, block.before + block.bytes, block.before + filled)
    return buffer, more


def _pieces(block: VoxelBlock) -> Iterator[bytes]:
    """The voxels' bytes in pieces, to the end of the packed stream, so that its checksum is verified."""
    with open(block.file, "rb") as stream:
        if block.packing == "none":
            stream.seek(block.start)
            while piece := stream.read(BLOCK):
                yield piece
        elif block.packing == "gzip":
            stream.seek(block.packed_from)
            with gzip.GzipFile(fileobj=stream) as unpacked:
                while piece := unpacked.read(BLOCK):
                    yield piece
        else:
            stream.seek(block.packed_from)
            packed = zlib.decompressobj()
            while not packed.eof:
                more = packed.unconsumed_tail or stream.read(BLOCK)
                if not more:
                    raise EOFError("the packed voxels end too early")
                yield packed.decompress(more, BLOCK)
