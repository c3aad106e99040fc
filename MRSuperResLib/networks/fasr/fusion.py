"""Cross-hierarchical progressive fusion (CHPF, section III-D, figure 6), and the decoder behind it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


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
