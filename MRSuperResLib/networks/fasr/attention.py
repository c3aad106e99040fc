"""Tokens, and hard attention between them: the best key of each query, found exactly, a part of all correlations at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

SCALES = (4, 2, 1)  # the paper's n of "n x": 4 is full resolution, 1 a quarter of it
BLOCKED = -1e4  # added to the similarity of keys where there is no reference
CHUNK = 2**24  # correlations held at once in a search: 64 MiB at fp32
FIRST_TEMPERATURE = 10.0


@dataclass(frozen=True)
class Match:
    """The best key of each query. index: (B, N), among the keys. peak: (B, N), its softmax weight, 0 to 1."""

    index: Tensor
    peak: Tensor


def best_match(q: Tensor, k: Tensor, chunk: int = CHUNK) -> Match:
    """Hard attention (eqs. 10, 11, 18): `q` (B, N, D) against `k` (B, M, D), scaled already; exact, by `chunk` correlations."""
    step = max(1, chunk // (q.shape[0] * k.shape[1]))
    found = []
    for part in q.split(step, dim=1):
        weights = torch.softmax(part @ k.transpose(1, 2), dim=-1)
        found.append(weights.max(dim=-1))
    return Match(torch.cat([f.indices for f in found], 1), torch.cat([f.values for f in found], 1))


def best_pyramid_match(
    q: list[Tensor], k: list[Tensor], size: tuple[int, int], key_size: tuple[int, int], chunk: int = CHUNK
) -> Match:
    """M-A's hard attention (eqs. 14-16 and 19): correlations of all scales, upsampled and summed, give one index map.

    q, k: tokens (B, N, D) at 4x, 2x, 1x. size, key_size: rows and columns of the 4x tokens, multiples of 4. peak is the mean over
    the scales of the softmax weights at the index found, 0 to 1.
    """
    band = 4 * size[1]  # a row of 1x tokens is four rows of 4x tokens
    bands = max(1, chunk // (q[0].shape[0] * key_size[0] * key_size[1] * band))
    parents = [parents_of(key_size, shrink, q[0].device) for shrink in (2, 4)]
    found = []
    for first in range(0, size[0] // 4, bands):
        rows = min(bands, size[0] // 4 - first)
        total: Tensor | None = None
        for level, shrink in enumerate((1, 2, 4)):
            width = size[1] // shrink
            start, count = first * (4 // shrink) * width, rows * (4 // shrink) * width
            weights = torch.softmax(q[level][:, start : start + count] @ k[level].transpose(1, 2), dim=-1)
            if shrink > 1:  # nearest upsampling along queries and keys
                of_queries = parents_of((4 * rows, size[1]), shrink, weights.device)
                weights = weights.index_select(2, parents[level - 1]).index_select(1, of_queries)
            total = weights if total is None else total + weights
        assert total is not None
        found.append(total.max(dim=-1))
    return Match(torch.cat([f.indices for f in found], 1), torch.cat([f.values for f in found], 1) / len(SCALES))


def parents_of(size: tuple[int, int], shrink: int, device: torch.device) -> Tensor:
    """For each of `size` tokens (rows, columns), row by row, the number of the `shrink` times coarser token it lies in."""
    rows, columns = (torch.arange(n, device=device) // shrink for n in size)
    return (rows[:, None] * (size[1] // shrink) + columns[None, :]).flatten()


def positions_of(size: tuple[int, int], spacing: float, device: torch.device) -> Tensor:
    """Centres of `size` tokens in full-resolution pixels, (rows * columns, 2), when a token spans `spacing` of them."""
    rows, columns = ((torch.arange(n, device=device, dtype=torch.float32) + 0.5) * spacing for n in size)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1).flatten(0, 1)


def unfold(x: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> tokens (B, H/patch * W/patch, C*patch*patch), without overlap."""
    return functional.pixel_unshuffle(x, patch).flatten(2).transpose(1, 2)


def fold(tokens: Tensor, size: tuple[int, int], patch: int) -> Tensor:
    """The reverse of `unfold`, for `size` tokens (rows, columns)."""
    return functional.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, size), patch)


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """`tokens` (B, M, L) at `index` (B, N) -> (B, N, L): the warp of eq. 12."""
    batch, count, length = tokens.shape
    offsets = torch.arange(batch, device=index.device)[:, None] * count
    return tokens.reshape(batch * count, length).index_select(0, (index + offsets).flatten()).view(batch, -1, length)


class Matcher(nn.Module):
    """Turns tokens into queries and keys whose inner product is the similarity, the prior and the mask of valid keys."""

    def __init__(self, cosine: bool, prior: float | None, patch: int) -> None:
        super().__init__()
        self.prior, self.patch = prior, patch
        self.temperature = nn.Parameter(torch.tensor(FIRST_TEMPERATURE)) if cosine else None

    def queries(self, tokens: Tensor, size: tuple[int, int], scale: int) -> Tensor:
        """`tokens` (B, N, D) at `scale` (4, 2 or 1) -> (B, N, D + 3): features, position, 1."""
        if self.temperature is not None:
            tokens = functional.normalize(tokens.float(), dim=-1) * self.temperature
        else:
            tokens = tokens.float() / math.sqrt(tokens.shape[-1])
        place = self._places(size, scale, tokens)
        return torch.cat((tokens, place, torch.ones_like(place[..., :1])), -1)

    def keys(self, tokens: Tensor, size: tuple[int, int], scale: int, valid: Tensor) -> Tensor:
        """`tokens` (B, M, D), `valid` (B, M) in 0 to 1 -> (B, M, D + 3): features, position, penalty."""
        tokens = functional.normalize(tokens.float(), dim=-1) if self.temperature is not None else tokens.float()
        place = self._places(size, scale, tokens)
        # -|a - b|^2 / 2 = a.b - |b|^2 / 2 - |a|^2 / 2, and the last term is the same for all keys of a query.
        penalty = -0.5 * place.square().sum(-1)
        if self.prior is None:  # with a prior the empty place itself is the best match, and transfers nothing
            penalty = penalty + BLOCKED * (valid < 0.5)
        return torch.cat((tokens, place, penalty[..., None]), -1)

    def _places(self, size: tuple[int, int], scale: int, tokens: Tensor) -> Tensor:
        """(B, N, 2), in units of the prior's standard deviation; 0 without a prior."""
        spacing = self.patch * 4 // scale
        place = (
            positions_of(size, spacing, tokens.device) / self.prior
            if self.prior
            else tokens.new_zeros(tokens.shape[1], 2)
        )
        return place.expand(len(tokens), -1, -1)


def token_size(feature: Tensor, patch: int) -> tuple[int, int]:
    """Rows and columns of the tokens of a feature map."""
    return feature.shape[-2] // patch, feature.shape[-1] // patch
