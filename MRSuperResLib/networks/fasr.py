"""FASR-Net: super-resolution guided by a sharp image of the same anatomy in another contrast.

Liu, Zhang, Zhang, Hou, Liu, Lian, Jiang: "Flexible alignment super-resolution network for multi-contrast MRI", section III. Three
parts: a VGG-19 texture extractor (eqs. 4-6), flexible alignment by hard attention (S-A, eqs. 7-13; M-A, eqs. 14-16), and cross-
hierarchical progressive fusion with soft attention (CHPF, eqs. 17-21).

Where the paper is silent, this is how it is read here. A token is a patch of `patch` x `patch` pixels, cut without overlap
("unfold" with a stride of the patch), at every scale. In S-A a token's value is embedded ("linear") to the patch that the same
place has at the value's own scale, so that eq. 17 can concatenate it with M-A's. In M-A values are cut so that every scale has as
many tokens as the 4x one, which lets one index map warp them all. The "matrix multiplication" of eq. 21 is element by element, as
its sizes demand.
Eqs. 17-21 never say where the low-resolution image's own features enter: they are added to what the fusion transfers.
The inner products of eqs. 10 and 14 are divided by the root of the tokens' length, and S_MA of eq. 19, a maximum of sums of three,
by 3. The features of eq. 23 are those after relu3_2. Images span about [0, 1], the paper's [-1, 1].

Ours beyond the paper, all off by default: a prior that prefers matches near the same place, because a clinical reference has been
registered (`prior`); cosine similarity; soft attention applied before the fusion, which then also sees the image's own features and
so is a whole network when there is no reference (`modulate="input"`); the interpolated input added to the output (`skip`).

Ours too, and what the shipped models are: a single-image network inside (`base`), frozen, whose answer takes the place of the
interpolated input, as its answer to the degraded reference takes that of the interpolated reference. The rest then learns only what
the reference adds, starts at nothing, and is exactly nothing where no reference is valid. With `hints` the fusion also sees a guess
of that, as a guided filter would make it (He, Sun, Tang 2013): what the base misses in the reference, times the local slope
between the two contrasts, and the local correlation that says how far to trust it. No gain or offset of the reference changes it.
With both, what the reference adds fades where the two images do not correlate (`trusted`). With `detail`, it loses what it would
be when made coarse again: low frequencies are the scan's own to tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .projection import back_projected, bicubic

SCALES = (4, 2, 1)  # the paper's n of "n x": 4 is full resolution, 1 a quarter of it
# torchvision's features.N: the convolution's name in the paper of VGG
VGG_LAYERS = {0: "1_1", 2: "1_2", 5: "2_1", 7: "2_2", 10: "3_1", 12: "3_2"}
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BLOCKED = -1e4  # added to the similarity of keys where there is no reference
CHUNK = 2**24  # correlations held at once in a search: 64 MiB at fp32
FIRST_TEMPERATURE = 10.0
HINT_RADII = (1, 2, 4)  # coarse pixels: of the windows that slopes are fitted in; in smaller ones chance correlates
TRUST_RADIUS = 4  # coarse pixels
# Mean correlation at which the reference begins to act, and from which it acts fully. Chosen on training scans at x4: the right
# reference loses 0.01 dB of 0.51 dB by it, uniform noise costs 0.01 dB instead of 0.71, a stranger 0.01 instead of 0.23.
TRUSTED = (0.2, 0.6)
HINT_CHANNELS = 2 * len(HINT_RADII) + 1
HINT_GAIN = 4.0  # residuals are small beside images; this brings hints to the size of features
LEAK = 0.2
LEAST_VARIANCE = 1e-4  # in a window, of the networks' scale: below it there is only noise to fit
STEEPEST = 4.0  # slope between two contrasts that is still believed
BORDER = 8  # full-resolution pixels over which the reference's influence fades inside the border of what is valid


class TextureExtractor(nn.Module):
    """VGG-19 up to relu3_2 (figure 3): (B, 1, H, W) -> features at 4x, 2x and 1x after relu1_2, relu2_2 and relu3_2.

    channels: 3 as VGG has it (the grey image is repeated and normalised as ImageNet was), or 1.
    """

    def __init__(self, widths: tuple[int, int, int] = (64, 128, 256), channels: int = 3) -> None:
        super().__init__()
        self.channels = channels
        before = (channels, widths[0], widths[1])
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.Conv2d(b, b, 3, padding=1), nn.ReLU())
            for a, b in zip(before, widths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 1, H, W), H and W multiples of 4 -> [(B, c4, H, W), (B, c2, H/2, W/2), (B, c1, H/4, W/4)]."""
        if self.channels == 3:
            mean, deviation = (x.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_DEVIATION))
            x = (x - mean) / deviation  # (B, 3, H, W)
        features = []
        for level, layers in enumerate(self.levels):
            x = layers(functional.max_pool2d(x, 2) if level else x)
            features.append(x)
        return features

    @torch.no_grad()
    def load_vgg(self, weights: Mapping[str, Tensor]) -> None:
        """Take VGG-19's convolutions out of `weights`, named as torchvision names them ("features.0.weight", ...)."""
        for number, name in VGG_LAYERS.items():
            level, which = (int(part) - 1 for part in name.split("_"))
            layer = self.levels[level][2 * which]  # type: ignore[index]
            for kind in ("weight", "bias"):
                own, given = getattr(layer, kind), weights[f"features.{number}.{kind}"]
                if own.shape != given.shape:
                    raise ValueError(f"conv{name} has the shape {tuple(own.shape)}, VGG-19's {tuple(given.shape)}")
                own.copy_(given)


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


def cut(x: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> tokens (B, H/patch * W/patch, C*patch*patch), without overlap."""
    return functional.pixel_unshuffle(x, patch).flatten(2).transpose(1, 2)


def paste(tokens: Tensor, size: tuple[int, int], patch: int) -> Tensor:
    """The reverse of `cut`, for `size` tokens (rows, columns)."""
    return functional.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, size), patch)


def taken(tokens: Tensor, index: Tensor) -> Tensor:
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


@dataclass(frozen=True)
class Aligned:
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

    def forward(self, q: list[Tensor], k: list[Tensor], v: list[Tensor], valid: list[Tensor]) -> Aligned:
        """q, k, v: features at 4x, 2x, 1x. valid: per scale (B, tokens), the part of a token where there is a reference."""
        size = token_size(q[0], self.patch)
        queries = self.query(cut(q[0], self.patch))
        features, peaks = [], []
        for level, scale in enumerate(SCALES):
            keys = self.key[level](cut(k[level], self.patch))
            values = self.value[level](cut(v[level], self.patch))
            with torch.autocast(queries.device.type, enabled=False):
                own = self.matcher.queries(queries, size, 4)
                match = best_match(own, self.matcher.keys(keys, token_size(k[level], self.patch), scale, valid[level]))
            features.append(paste(taken(values, match.index), size, self.patch * scale // 4))
            peaks.append(match.peak * taken(valid[level][..., None], match.index)[..., 0])
        return Aligned(features, peaks)


class MultiMultiAlignment(nn.Module):
    """M-A (section III-C-2, figure 5): every scale is compared with its own kind, and one index map warps all of them."""

    def __init__(self, patch: int, cosine: bool, prior: float | None) -> None:
        super().__init__()
        self.patch = patch
        self.matchers = nn.ModuleList(Matcher(cosine, prior, patch) for _ in SCALES)

    def forward(self, q: list[Tensor], k: list[Tensor], v: list[Tensor], valid: list[Tensor]) -> Aligned:
        """As `SingleMultiAlignment.forward`."""
        size, key_size = token_size(q[0], self.patch), token_size(k[0], self.patch)
        with torch.autocast(q[0].device.type, enabled=False):
            queries, keys = [], []
            for level, (scale, matcher) in enumerate(zip(SCALES, self.matchers, strict=True)):
                assert isinstance(matcher, Matcher)
                queries.append(matcher.queries(cut(q[level], self.patch), token_size(q[level], self.patch), scale))
                own_size = token_size(k[level], self.patch)
                keys.append(matcher.keys(cut(k[level], self.patch), own_size, scale, valid[level]))
            match = best_pyramid_match(queries, keys, size, key_size)
        features = []
        for level, scale in enumerate(SCALES):
            side = self.patch * scale // 4  # so that every scale has as many tokens as the 4x one
            features.append(paste(taken(cut(v[level], side), match.index), size, side))
        peak = match.peak * taken(valid[0][..., None], match.index)[..., 0]
        return Aligned(features, [peak] * len(SCALES))


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

    def forward(self, q: list[Tensor], k: list[Tensor], v: list[Tensor], valid: list[Tensor]) -> Aligned:
        """As `SingleMultiAlignment.forward`."""
        size, key_size = token_size(q[0], self.patch), token_size(k[0], self.patch)
        sides = [self.patch * scale // 4 for scale in SCALES]
        values = torch.cat([cut(feature, side) for feature, side in zip(v, sides, strict=True)], -1).float()
        tokens, keys = self.query(cut(q[0], self.patch)), self.key(cut(k[0], self.patch))
        with torch.autocast(tokens.device.type, enabled=False):
            queries, keys = self.matcher.queries(tokens, size, 4), self.matcher.keys(keys, key_size, 4, valid[0])
            step = max(1, CHUNK // (len(queries) * keys.shape[1]))
            answers, peaks = [], []
            for part in queries.split(step, dim=1):
                weights = torch.softmax(part @ keys.transpose(1, 2), dim=-1)
                answers.append(weights @ values)
                peaks.append(weights.amax(-1) * (weights @ valid[0][..., None].float())[..., 0])
        pieces = torch.cat(answers, 1).split([f.shape[1] * s**2 for f, s in zip(v, sides, strict=True)], dim=-1)
        features = [paste(piece, size, side).to(v[0].dtype) for piece, side in zip(pieces, sides, strict=True)]
        return Aligned(features, [torch.cat(peaks, 1)] * len(SCALES))


def token_size(feature: Tensor, patch: int) -> tuple[int, int]:
    """Rows and columns of the tokens of a feature map."""
    return feature.shape[-2] // patch, feature.shape[-1] // patch


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a ReLU, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> the same."""
        return x + self.layers(x)


class FullConnection(nn.Module):
    """The fully-connected convolutional layer of figure 6: every scale receives every scale, resized, fused by 1x1 convolutions."""

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        self.mix = nn.ModuleList(nn.ModuleList(nn.Conv2d(a, b, 1, bias=a == b) for a in widths) for b in widths)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Features at 4x, 2x, 1x -> the same shapes."""
        answers = []
        for own, mixes in zip(features, self.mix, strict=True):
            assert isinstance(mixes, nn.ModuleList)
            answers.append(
                own + torch.stack([resized(f, own, mix) for f, mix in zip(features, mixes, strict=True)]).sum(0)
            )
        return answers


def resized(x: Tensor, like: Tensor, convolution: nn.Module) -> Tensor:
    """`convolution` (1x1) of `x` brought to the height and width of `like`: averaged down, or interpolated up."""
    if x.shape[-1] > like.shape[-1]:
        return convolution(functional.avg_pool2d(x, x.shape[-1] // like.shape[-1]))  # type: ignore[no-any-return]
    answer: Tensor = convolution(x)
    if x.shape[-1] < like.shape[-1]:
        answer = functional.interpolate(answer, size=like.shape[-2:], mode="bilinear", align_corners=False)
    return answer


class ProgressiveFusion(nn.Module):
    """CHPF (section III-D, figure 6): stages of residual blocks at each scale, fully connected across the scales.

    inputs: channels that come in at 4x, 2x, 1x. stages 0 is the ablation without CHPF: the decoder gets the merged features.
    """

    def __init__(self, inputs: tuple[int, ...], widths: tuple[int, int, int], stages: int, blocks: int) -> None:
        super().__init__()
        self.merge = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(inputs, widths, strict=True))
        self.blocks = nn.ModuleList(
            nn.ModuleList(nn.Sequential(*(ResidualBlock(width) for _ in range(blocks))) for width in widths)
            for _ in range(stages)
        )
        self.connections = nn.ModuleList(FullConnection(widths) for _ in range(stages))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """F_in at 4x, 2x, 1x -> F_out, `widths` channels each."""
        features = [merge(feature) for merge, feature in zip(self.merge, features, strict=True)]
        for blocks, connection in zip(self.blocks, self.connections, strict=True):
            assert isinstance(blocks, nn.ModuleList)
            features = connection([block(feature) for block, feature in zip(blocks, features, strict=True)])
        return features


class Decoder(nn.Module):
    """Fused features to an image, from the coarsest scale up.

    extra: channels beside the features that the last convolution sees. leak: slope of the rectifiers for negative values; above 0
    they cannot die, which they do when all there is to learn is a small residual.
    """

    def __init__(self, widths: tuple[int, int, int], extra: int = 0, leak: float = 0.0) -> None:
        super().__init__()
        rectifier = nn.LeakyReLU(leak) if leak else nn.ReLU()
        self.up = nn.ModuleList(nn.Conv2d(widths[level], widths[level - 1], 1) for level in (2, 1))
        self.refine = nn.ModuleList(nn.Sequential(rectifier, ResidualBlock(widths[level - 1])) for level in (2, 1))
        self.tail = nn.Conv2d(widths[0] + extra, 1, 3, padding=1)

    def forward(self, features: list[Tensor], beside: Sequence[Tensor] = ()) -> Tensor:
        """Features at 4x, 2x, 1x, and `extra` channels at 4x -> (B, 1, H, W)."""
        x = features[2]
        for level, up, refine in zip((1, 0), self.up, self.refine, strict=True):
            x = refine(features[level] + resized(x, features[level], up))
        return self.tail(torch.cat((x, *(hint.to(x.dtype) for hint in beside)), 1) if beside else x)  # type: ignore[no-any-return]


class FASR(nn.Module):
    """FASR-Net: `net(x (B, 1, H, W), reference (B, 1, H*fh, W*fw), valid=None) -> (B, 1, H*fh, W*fw)`, any H and W.

    factors: (fh, fw), rows and columns; (s, 1) through the plane. widths: channels at 4x, 2x, 1x. channels: see `TextureExtractor`.
    patch: side of a token, a multiple of 4. embedding: length of S-A's queries and keys. stages, blocks: of CHPF. similarity: "dot"
    or "cosine" with a learned temperature. prior: standard deviation, in full-resolution pixels, of how far a match is expected
    from the same place; None for no preference. modulate, skip, hints: see the module's text. base: a single-image network by
    "architecture" and "hyperparameters", (B, 1, H, W) -> (B, 1, H*fh, W*fw), frozen; its answer is added to the output.
    trust: correlations at which the reference begins to act and from which it acts fully, with hints and a base.
    Ablations (table III): single_multi, multi_multi, fusion; without both alignments cross-attention takes their place.
    """

    def __init__(
        self,
        *,
        factors: tuple[int, int] = (4, 4),
        widths: tuple[int, int, int] = (64, 128, 256),
        channels: int = 3,
        patch: int = 4,
        embedding: int = 256,
        stages: int = 4,
        blocks: int = 2,
        similarity: str = "dot",
        prior: float | None = None,
        modulate: str = "output",
        skip: str = "none",
        hints: bool = False,
        trust: tuple[float, float] = TRUSTED,
        detail: bool = False,
        base: Mapping[str, Any] | None = None,
        single_multi: bool = True,
        multi_multi: bool = True,
        fusion: bool = True,
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ("similarity", similarity, ("dot", "cosine")),
            ("modulate", modulate, ("output", "input")),
            ("skip", skip, ("none", "bicubic")),
            ("channels", channels, (1, 3)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, allowed))}")
        if patch < 4 or patch % 4:
            raise ValueError(f"patch is {patch}, expected a multiple of 4: M-A cuts a quarter of it at the 1x scale")
        if min(factors) < 1 or max(factors) < 2:
            raise ValueError(f"factors are {factors}, expected whole numbers, one at least 2")
        self.factors, self.patch, self.modulate, self.hints = factors, patch, modulate, hints
        self.skip = skip == "bicubic" or base is not None
        self.trust, self.detail = trust, detail
        self.extractor = TextureExtractor(widths, channels)
        cosine = similarity == "cosine"
        alignments: dict[str, nn.Module] = {}
        if single_multi:
            alignments["single_multi"] = SingleMultiAlignment(widths, patch, embedding, cosine, prior)
        if multi_multi:
            alignments["multi_multi"] = MultiMultiAlignment(patch, cosine, prior)
        if not alignments:
            alignments["cross"] = CrossAttention(widths, patch, embedding, cosine, prior)
        self.alignments = nn.ModuleDict(alignments)
        copies = len(alignments) + (1 if modulate == "input" else 0)
        inputs = [copies * width for width in widths]
        inputs[0] += HINT_CHANNELS if hints else 0
        self.fusion = ProgressiveFusion(tuple(inputs), widths, stages if fusion else 0, blocks)
        self.decoder = Decoder(widths, HINT_CHANNELS if hints else 0, LEAK if base is not None else 0.0)
        self.apply(_initialise)
        if self.skip:
            nn.init.zeros_(self.decoder.tail.weight)
        self.base: nn.Module | None = None  # last, so that what is trained comes first among the parameters
        if base is not None:
            from . import build as build_network

            self.base = build_network(base["architecture"], base["hyperparameters"]).eval().requires_grad_(False)
            if tuple(getattr(self.base, "factors", factors)) != tuple(factors):
                raise ValueError(f"the base's factors are {self.base.factors}, expected {factors}")

    def train(self, mode: bool = True) -> FASR:
        """As `nn.Module.train`; the base stays in evaluation mode."""
        super().train(mode)
        if self.base is not None:
            self.base.eval()
        return self

    def forward(
        self, x: Tensor, reference: Tensor, valid: Tensor | None = None, start: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """x: the coarse image; reference: the sharp one; both on the networks' scale. valid: 1 where there is a reference.

        start: what `starts` gives for these, where it is known already.
        """
        size = (x.shape[-2] * self.factors[0], x.shape[-1] * self.factors[1])
        if reference.shape[-2:] != size:
            raise ValueError(f"the reference has {tuple(reference.shape[-2:])} pixels, expected {size}")
        valid = torch.ones_like(reference) if valid is None else valid
        if self.base is not None and not bool(valid.any()):
            return self.enlarged(x) if start is None else start[0]
        upsampled, blurred = self.starts(x, reference, valid) if start is None else start
        masked = (reference * valid).float()  # I_Ref
        multiple = 4 * self.patch
        padding = (0, -size[1] % multiple, 0, -size[0] % multiple)
        low, sharp, soft, mask = (
            functional.pad(image, padding, mode="replicate") if any(padding) else image
            for image in (upsampled, masked, blurred, valid.float())
        )
        radii = [radius * max(self.factors) for radius in HINT_RADII]
        beside = [hints_of(low, sharp, soft, mask, radii)] if self.hints else []
        features = self.fused(low, sharp, soft, mask, beside)
        answer = self.decoder(features, beside)[..., : size[0], : size[1]].float()
        if self.base is not None:
            answer = answer * faded(valid.float())
            if self.hints:
                answer = (
                    answer * trusted(beside[0], TRUST_RADIUS * max(self.factors), self.trust)[..., : size[0], : size[1]]
                )
            if self.detail:
                answer = valid * back_projected(answer, torch.zeros_like(x), 1.0)
        return answer + upsampled if self.skip else answer

    def starts(self, x: Tensor, reference: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """I_LR up and I_Ref down-up, (B, 1, H*fh, W*fw), float32; they depend on no weight but the base's."""
        with torch.autocast(x.device.type, enabled=False):  # bicubic interpolation has no half-precision kernel on CPUs
            coarse = bicubic((reference * valid).float(), x.shape[-2:])
        return self.enlarged(x), self.enlarged(coarse)

    def enlarged(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, 1, H*fh, W*fw), float32, by the base or bicubic interpolation."""
        if self.base is not None:
            with torch.no_grad():
                return self.base(x).float()  # type: ignore[no-any-return]
        with torch.autocast(x.device.type, enabled=False):
            return bicubic(x.float(), (x.shape[-2] * self.factors[0], x.shape[-1] * self.factors[1]))

    def fused(
        self, low: Tensor, sharp: Tensor, soft: Tensor, mask: Tensor, beside: Sequence[Tensor] = ()
    ) -> list[Tensor]:
        """Eqs. 1-21 on full-resolution images (B, 1, H, W): the features to decode, at 4x, 2x, 1x. beside: hints, if any."""
        batch = len(low)
        if self.training or batch * low.shape[-1] * low.shape[-2] <= CHUNK // 256:
            together = self.extractor(torch.cat((low, soft, sharp)))
            q, k, v = ([part[n * batch : (n + 1) * batch] for part in together] for n in range(3))
        else:
            q, k, v = (self.extractor(image) for image in (low, soft, sharp))
        v = [
            feature * functional.avg_pool2d(mask, 2**level) if level else feature * mask
            for level, feature in enumerate(v)
        ]
        # (B, tokens) at each scale: the part of a token where there is a reference, 0 to 1
        tokens = [functional.avg_pool2d(mask, self.patch * 2**level).flatten(1) for level in range(3)]
        found = [alignment(q, k, v, tokens) for alignment in self.alignments.values()]
        size = token_size(q[0], self.patch)
        attention = []  # S of eq. 20, at each scale's resolution
        for level, feature in enumerate(q):
            peaks = sum(aligned.peaks[level] for aligned in found).unflatten(1, (1, *size))  # type: ignore[union-attr]
            smooth = functional.interpolate(peaks, size=feature.shape[-2:], mode="bilinear", align_corners=False)
            attention.append(smooth.to(feature.dtype))
        merged = [[aligned.features[level] for aligned in found] for level in range(3)]  # eq. 17
        if self.modulate == "input":
            merged = [
                [own, *(feature * soft_map for feature in features)]
                for own, features, soft_map in zip(q, merged, attention, strict=True)
            ]
        merged[0] += [hint.to(q[0].dtype) for hint in beside]
        out = self.fusion([torch.cat(features, 1) for features in merged])
        if self.modulate == "output":
            out = [feature * soft_map for feature, soft_map in zip(out, attention, strict=True)]  # eq. 21
        return [own + feature for own, feature in zip(q, out, strict=True)]


def hints_of(low: Tensor, sharp: Tensor, soft: Tensor, mask: Tensor, radii: Sequence[int]) -> Tensor:
    """Images (B, 1, H, W) -> (B, HINT_CHANNELS, H, W): guesses of what the base misses, correlations, and what it misses in Ref.

    In windows of each radius (full-resolution pixels) `low` is fitted as slope * `soft` + offset. The guess is the slope times
    `sharp` - `soft`, damped by the correlation's modulus, so that strangers transfer little.
    """
    with torch.autocast(low.device.type, enabled=False):
        missed = (sharp - soft) * mask * HINT_GAIN
        channels = [missed]
        for radius in radii:
            of_low, of_soft = low - windowed(low, radius), soft - windowed(soft, radius)
            both, variance = windowed(of_low * of_soft, radius), windowed(of_soft.square(), radius)
            slope = (both / (variance + LEAST_VARIANCE)).clamp(-STEEPEST, STEEPEST)
            spread = (variance + LEAST_VARIANCE) * (windowed(of_low.square(), radius) + LEAST_VARIANCE)
            correlation = both * spread.rsqrt() * mask
            channels += [slope * correlation.abs() * missed, correlation]
        return torch.cat(channels, 1)


def trusted(hints: Tensor, radius: int, between: tuple[float, float] = TRUSTED) -> Tensor:
    """How far the reference may act, 0 to 1, (B, 1, H, W): by the mean modulus of the finest correlation in `hints` around.

    Two contrasts of one head correlate wherever there is something to transfer; noise and strangers do so by chance alone.
    """
    low, high = between
    return ((windowed(hints[:, 2:3].abs(), radius) - low) / (high - low)).clamp(0, 1)


def windowed(x: Tensor, radius: int) -> Tensor:
    """Mean over windows of (2 radius + 1) squared, cut at the borders, (B, C, H, W) -> the same."""
    side = 2 * radius + 1
    for kernel, padding in (((side, 1), (radius, 0)), ((1, side), (0, radius))):
        x = functional.avg_pool2d(x, kernel, stride=1, padding=padding, count_include_pad=False)
    return x


def faded(valid: Tensor) -> Tensor:
    """`valid` (B, 1, H, W), 1 or 0, made smooth from the inside: 0 wherever it is 0, 1 from 2 * BORDER pixels inside on."""
    side = 2 * BORDER + 1
    eroded = -functional.max_pool2d(-valid, side, stride=1, padding=BORDER)
    return windowed(windowed(eroded, BORDER // 2), BORDER // 2)


def _initialise(module: nn.Module) -> None:
    """He's initialisation for what a ReLU follows; linear embeddings keep PyTorch's."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, ResidualBlock):
        nn.init.normal_(module.layers[2].weight, std=0.01)  # type: ignore[arg-type]
    if isinstance(module, FullConnection):
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.02) if parameter.dim() > 1 else nn.init.zeros_(parameter)


def build(**hyperparameters: object) -> FASR:
    """FASR from a card's hyper-parameters (JSON lists become tuples); `size`: "published" (default) or "s", the small one of ours.

    "s" is the published structure with fewer channels and stages, and everything "beyond the paper" switched on.
    """
    chosen = hyperparameters.pop("size", "published")
    if chosen not in SIZES:
        raise ValueError(f"size is {chosen!r}, expected one of {', '.join(SIZES)}")
    values = {**SIZES[str(chosen)], **hyperparameters}
    for name in ("factors", "widths"):
        if name in values:
            values[name] = tuple(int(number) for number in values[name])  # type: ignore[attr-defined]
    if "trust" in values:
        low, high = (float(number) for number in values["trust"])  # type: ignore[attr-defined]
        if not 0 <= low < high <= 1:
            raise ValueError(f"trust is {[low, high]}, expected two rising numbers from 0 to 1")
        values["trust"] = (low, high)
    return FASR(**values)  # type: ignore[arg-type]


SIZES: dict[str, dict[str, object]] = {
    "published": {},
    "s": {
        "widths": (16, 32, 64),
        "channels": 1,
        "embedding": 32,
        "stages": 4,
        "blocks": 1,
        "similarity": "cosine",
        "prior": 2.0,
        "modulate": "input",
        "skip": "bicubic",
    },
}
