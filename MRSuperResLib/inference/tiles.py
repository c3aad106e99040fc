"""Slices in pieces: tiles that overlap by what matters to a pixel, blended so that no seam shows.

Inside a tile the zoom is a whole number, so a tile's output lands on whole pixels. A tile's answer counts only at a
distance of at least the halo from a cut edge; over `RAMP` input pixels beyond, neighbours are cross-faded. The image's
own borders are not cut edges: tiles there hold real pixels up to the border, never padding of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import DeviceError

RAMP = 8  # input pixels of cross-fade

Function = Callable[..., Tensor]  # (x (B, 1, h, w), *extras (B, c, h*fh, w*fw)) -> (B, c, h*fh, w*fw)


@dataclass(frozen=True)
class AxisTiles:
    """Tiles along one axis: where each begins, their length (input pixels), output weights (tiles, length*zoom)."""

    starts: tuple[int, ...]
    length: int
    weights: Tensor


def smallest_tile(halo: int, multiple: int) -> int:
    """The shortest tile that still advances: both halos, the ramp, and one step, as a multiple of `multiple`."""
    return _up(2 * halo + RAMP + 1, multiple) + multiple


def axis_tiles(size: int, tile: int, halo: int, zoom: int, multiple: int = 1) -> AxisTiles:
    """Tiles of `tile` input pixels over an axis of `size`; starts and lengths are multiples of `multiple`, as `size`
    must be.

    The weights add up to 1 at every output pixel.
    """
    if size <= tile:
        return AxisTiles((0,), size, torch.ones(1, size * zoom))
    tile = tile // multiple * multiple
    step = (tile - 2 * halo - RAMP) // multiple * multiple
    if step < 1:
        raise DeviceError(
            f"a tile of {tile} pixels is too small for this model, which needs {smallest_tile(halo, multiple)}",
            code="tile-too-small",
        )
    starts = [*range(0, size - tile, step), size - tile]
    position = (
        torch.arange(tile * zoom) + 0.5
    ) / zoom  # centres of output pixels, in input pixels from the tile's start
    rise = ((position - halo) / RAMP).clamp(0, 1)
    weights = torch.ones(len(starts), tile * zoom)
    for n in range(len(starts)):
        if n > 0:
            weights[n] *= rise
        if n + 1 < len(starts):
            weights[n] *= rise.flip(0)
    return AxisTiles(tuple(starts), tile, _summing_to_one(weights, starts, size, zoom))


def _summing_to_one(weights: Tensor, starts: Sequence[int], size: int, zoom: int) -> Tensor:
    """`weights` (tiles, length*zoom) divided so that they add up to 1 at every output pixel of the axis."""
    total, length = torch.zeros(size * zoom), weights.shape[1]
    for weight, start in zip(weights, starts, strict=True):
        total[start * zoom : start * zoom + length] += weight
    return torch.stack([w / total[s * zoom : s * zoom + length] for w, s in zip(weights, starts, strict=True)])


def even_tiles(size: int, side: int, halo: int, zoom: int, multiple: int = 1) -> AxisTiles:
    """As few tiles of exactly `side` input pixels as overlap by a quarter, spread evenly; `size` at least `side`.

    Starts are multiples of `multiple`, as `size` and `side` must be.

    They are cross-faded over all of the overlap but the halos: networks of one input size see a whole image in each tile, and
    what they make of two that overlap differs a little everywhere.
    """
    overlap = max(side // 4, 2 * halo + RAMP)
    count = 1 + max(0, -(-(size - side) // (side - overlap)))
    starts = tuple(multiple * round(n * (size - side) / multiple / max(1, count - 1)) for n in range(count))
    position = (torch.arange(side * zoom) + 0.5) / zoom
    weights = torch.ones(count, side * zoom)
    for n in range(1, count):
        shared = starts[n - 1] + side - starts[n]
        rise = ((position - halo) / (shared - 2 * halo)).clamp(0, 1)
        weights[n] *= rise
        weights[n - 1] *= rise.flip(0)
    return AxisTiles(starts, side, _summing_to_one(weights, starts, size, zoom))


def run_tiled(
    function: Function,
    x: Tensor,
    extras: Sequence[Tensor] = (),
    *,
    tile: int,
    halo: int,
    zoom: tuple[int, int],
    multiple: int = 1,
) -> Tensor:
    """`function(x, *extras)` by tiles of at most `tile` x `tile` input pixels, blended on the device of `x`, fp32.

    x: (B, 1, H, W), H and W multiples of `multiple` unless they fit one tile. extras: (B, c, H*fh, W*fw), cut alike.
    """
    height, width = x.shape[-2:]
    rows = axis_tiles(height, tile, halo, zoom[0], multiple)
    columns = axis_tiles(width, tile, halo, zoom[1], multiple)
    return _blended(function, x, extras, rows, columns, zoom)


def run_in_parts(
    function: Function,
    x: Tensor,
    extras: Sequence[Tensor] = (),
    *,
    side: int,
    halo: int,
    zoom: tuple[int, int],
    multiples: tuple[int, int] = (1, 1),
) -> Tensor:
    """As `run_tiled`, by parts of exactly `side` x `side` input pixels; `x` is at least as large.

    multiples: of where parts start.
    """
    rows, columns = (
        even_tiles(size, side, halo, z, multiple)
        for size, z, multiple in zip(x.shape[-2:], zoom, multiples, strict=True)
    )
    return _blended(function, x, extras, rows, columns, zoom)


def _blended(
    function: Function, x: Tensor, extras: Sequence[Tensor], rows: AxisTiles, columns: AxisTiles, zoom: tuple[int, int]
) -> Tensor:
    height, width = x.shape[-2:]
    answer: Tensor | None = None
    for top, row_weights in zip(rows.starts, rows.weights, strict=True):
        low_rows, high_rows = _spans(top, rows.length, zoom[0])
        for left, column_weights in zip(columns.starts, columns.weights, strict=True):
            low_columns, high_columns = _spans(left, columns.length, zoom[1])
            pieces = [extra[..., high_rows, high_columns] for extra in extras]
            piece = function(x[..., low_rows, low_columns], *pieces).to(x.device, torch.float32)
            if answer is None:
                shape = (*piece.shape[:2], height * zoom[0], width * zoom[1])
                answer = torch.zeros(shape, dtype=torch.float32, device=x.device)
            weight = row_weights[:, None] * column_weights[None, :]
            answer[..., high_rows, high_columns] += piece * weight.to(x.device)
    assert answer is not None
    return answer


def _spans(start: int, length: int, zoom: int) -> tuple[slice, slice]:
    return slice(start, start + length), slice(start * zoom, (start + length) * zoom)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
