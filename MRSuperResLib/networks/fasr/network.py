"""FASR-Net put together: extractor, alignment, fusion, decoder and, in ours, hints and the single-image network inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..parts.projection import back_projected, bicubic
from .alignment import CrossAttention, MultiMultiAlignment, SingleMultiAlignment
from .attention import CHUNK, token_size
from .extractor import TextureExtractor
from .fusion import Decoder, FullConnection, ProgressiveFusion, ResidualBlock
from .hints import HINT_CHANNELS, HINT_RADII, TRUST_RADIUS, TRUSTED, faded, guided_hints, room_for_detail, trust_map

LEAK = 0.2


class FASR(nn.Module):
    """FASR-Net: `net(x (B, 1, H, W), reference (B, 1, H*fh, W*fw), valid=None) -> (B, 1, H*fh, W*fw)`, any H and W.

    factors: (fh, fw), rows and columns; (s, 1) through the plane. widths: channels at 4x, 2x, 1x. channels: see `TextureExtractor`.
    patch: side of a token, a multiple of 4. embedding: length of S-A's queries and keys. stages, blocks: of CHPF. similarity: "dot"
    or "cosine" with a learned temperature. prior: standard deviation, in full-resolution pixels, of how far a match is expected
    from the same place; None for no preference. modulate, skip, hints: see the package's text. base: a single-image network by
    "architecture" and "hyperparameters", (B, 1, H, W) -> (B, 1, H*fh, W*fw), frozen; its answer is added to the output.
    trust: correlations at which the reference begins to act and from which it acts fully, with hints and a base. room: ends of the
    range of `room_for_detail`, with a base; None for as much detail as the reference gives.
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
        room: tuple[float, float] | None = None,
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
        self.trust, self.detail, self.room = trust, detail, room
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
            from .. import build as build_network

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
        beside = [guided_hints(low, sharp, soft, mask, radii)] if self.hints else []
        features = self.fused(low, sharp, soft, mask, beside)
        answer = self.decoder(features, beside)[..., : size[0], : size[1]].float()
        if self.base is not None:
            answer = answer * faded(valid.float())
            if self.hints:
                answer = (
                    answer
                    * trust_map(beside[0], TRUST_RADIUS * max(self.factors), self.trust)[..., : size[0], : size[1]]
                )
            if self.room is not None:
                answer = answer * room_for_detail(x, upsampled, self.factors, self.room)
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
    for name, least, most in (("trust", 0, 1), ("room", -20, 20)):
        if values.get(name) is None:
            continue
        low, high = (float(number) for number in values[name])  # type: ignore[attr-defined]
        if not least <= low < high <= most:
            raise ValueError(f"{name} is {[low, high]}, expected two rising numbers from {least} to {most}")
        values[name] = (low, high)
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
