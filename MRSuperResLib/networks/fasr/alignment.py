"""Flexible alignment (section III-C): what the reference's tokens transfer to the image's, in two ways, and in the ablation's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .attention import CHUNK, SCALES, Matcher, best_match, best_pyramid_match, fold, gather_tokens, token_size, unfold


@dataclass(frozen=True)
class AlignedFeatures:
    """What an alignment transfers: features at 4x, 2x, 1x, (B, c, H*n/4, W*n/4); peaks, for each scale (B, N) of the 4x queries."""

    features: list[Tensor]
    peaks: list[Tensor]


class SingleMultiAlignment(nn.Module):
    """S-A (section III-C-1, figure 4): 4x queries look in all three scales of the reference."""

    def __init__(
        self, widths: tuple[int, int, int], patch: int, embedding: int, cosine: bool, prior: float | None
    ) -> None:
        super().__init__()
        self.patch = patch
        self.matcher = Matcher(cosine, prior, patch)
        self.query = nn.Linear(widths[0] * patch**2, embedding)
        self.key = nn.ModuleList(nn.Linear(width * patch**2, embedding) for width in widths)
        self.value = nn.ModuleList(
            nn.Linear(width * patch**2, width * (patch * scale // 4) ** 2)
            for width, scale in zip(widths, SCALES, strict=True)
        )

    def forward(self, q: list[Tensor], k: list[Tensor], v: list[Tensor], valid: list[Tensor]) -> AlignedFeatures:
        """q, k, v: features at 4x, 2x, 1x. valid: per scale (B, tokens), the part of a token where there is a reference."""
        size = token_size(q[0], self.patch)
        queries = self.query(unfold(q[0], self.patch))
        features, peaks = [], []
        for level, scale in enumerate(SCALES):
            keys = self.key[level](unfold(k[level], self.patch))
            values = self.value[level](unfold(v[level], self.patch))
            with torch.autocast(queries.device.type, enabled=False):
                own = self.matcher.queries(queries, size, 4)
                match = best_match(own, self.matcher.keys(keys, token_size(k[level], self.patch), scale, valid[level]))
            features.append(fold(gather_tokens(values, match.index), size, self.patch * scale // 4))
            peaks.append(match.peak * gather_tokens(valid[level][..., None], match.index)[..., 0])
        return AlignedFeatures(features, peaks)


class MultiMultiAlignment(nn.Module):
    """M-A (section III-C-2, figure 5): every scale is compared with its own kind, and one index map warps all of them."""

    def __init__(self, patch: int, cosine: bool, prior: float | None) -> None:
        super().__init__()
        self.patch = patch
        self.matchers = nn.ModuleList(Matcher(cosine, prior, patch) for _ in SCALES)

    def forward(self, q: list[Tensor], k: list[Tensor], v: list[Tensor], valid: list[Tensor]) -> AlignedFeatures:
        """As `SingleMultiAlignment.forward`."""
        size, key_size = token_size(q[0], self.patch), token_size(k[0], self.patch)
        with torch.autocast(q[0].device.type, enabled=False):
            queries, keys = [], []
            for level, (scale, matcher) in enumerate(zip(SCALES, self.matchers, strict=True)):
                assert isinstance(matcher, Matcher)
                queries.append(matcher.queries(unfold(q[level], self.patch), token_size(q[level], self.patch), scale))
                own_size = token_size(k[level], self.patch)
                keys.append(matcher.keys(unfold(k[level], self.patch), own_size, scale, valid[level]))
            match = best_pyramid_match(queries, keys, size, key_size)
        features = []
        for level, scale in enumerate(SCALES):
            side = self.patch * scale // 4  # so that every scale has as many tokens as the 4x one
            features.append(fold(gather_tokens(unfold(v[level], side), match.index), size, side))
        peak = match.peak * gather_tokens(valid[0][..., None], match.index)[..., 0]
        return AlignedFeatures(features, [peak] * len(SCALES))


class CrossAttention(nn.Module):
    """The ablation without flexible alignment (table III, "w/o FA"): plain soft attention at 4x carries all scales along."""

    def __init__(
        self, widths: tuple[int, int, int], patch: int, embedding: int, cosine: bool, prior: float | None
    ) -> None:
        super().__init__()
        self.patch = patch
        self.matcher = Matcher(cosine, prior, patch)
        self.query = nn.Linear(widths[0] * patch**2, embedding)
        self.key = nn.Linear(widths[0] * patch**2, embedding)

    def forward(self, q: list[Tensor], k: list[Tensor], v: list[Tensor], valid: list[Tensor]) -> AlignedFeatures:
        """As `SingleMultiAlignment.forward`."""
        size, key_size = token_size(q[0], self.patch), token_size(k[0], self.patch)
        sides = [self.patch * scale // 4 for scale in SCALES]
        values = torch.cat([unfold(feature, side) for feature, side in zip(v, sides, strict=True)], -1).float()
        tokens, keys = self.query(unfold(q[0], self.patch)), self.key(unfold(k[0], self.patch))
        with torch.autocast(tokens.device.type, enabled=False):
            queries, keys = self.matcher.queries(tokens, size, 4), self.matcher.keys(keys, key_size, 4, valid[0])
            step = max(1, CHUNK // (len(queries) * keys.shape[1]))
            answers, peaks = [], []
            for part in queries.split(step, dim=1):
                weights = torch.softmax(part @ keys.transpose(1, 2), dim=-1)
                answers.append(weights @ values)
                peaks.append(weights.amax(-1) * (weights @ valid[0][..., None].float())[..., 0])
        pieces = torch.cat(answers, 1).split([f.shape[1] * s**2 for f, s in zip(v, sides, strict=True)], dim=-1)
        features = [fold(piece, size, side).to(v[0].dtype) for piece, side in zip(pieces, sides, strict=True)]
        return AlignedFeatures(features, [torch.cat(peaks, 1)] * len(SCALES))
