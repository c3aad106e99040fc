"""A small U-Net that says where a slice shows what healthy brains do not show: lesions, in any contrast it was trained on.

It may also say where the brain is, outside of which nothing is flagged.

Ours. It answers for the scan, not for its translation, so that it does not change with the translator: what a translation has
lost, it cannot have hidden from this network. Batch normalisation, whose statistics are fixed once trained, leaves the answer for
a place independent of how much air is in view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .parts.unet import decoded, padded
from .translation import CONTRASTS, one_hot


class NormalisedBlock(nn.Module):
    """Two 3x3 convolutions, each normalised and rectified; the contrast shifts the features between them."""

    def __init__(self, before: int, width: int, contrasts: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, width, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.shift = nn.Linear(contrasts, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor, contrast: Tensor) -> Tensor:
        """(B, before, H, W), (B, contrasts) -> (B, width, H, W)."""
        x = functional.relu(self.first_norm(self.first(x)) + self.shift(contrast)[..., None, None])
        return functional.relu(self.second_norm(self.second(x)))


class LesionDetector(nn.Module):
    """(B, channels, H, W) and the index of the contrast -> logits (B, 1, H, W), or with `brain` (B, 2, H, W), any H and W.

    channels: of what `inference.symmetric_view.inputs_of` makes. widths: channels at the full resolution, 1/2, 1/4, ... of it.
    contrasts: names, whose indices `contrast` is.
    """

    def __init__(
        self,
        *,
        channels: int = 5,
        widths: Sequence[int] = (16, 32, 64, 96, 128),
        contrasts: Sequence[str] = CONTRASTS,
        brain: bool = False,
    ) -> None:
        super().__init__()
        self.contrasts, self.factors = tuple(contrasts), (1, 1)
        self.multiple = 2 ** (len(widths) - 1)
        size = len(self.contrasts)
        self.down = nn.ModuleList(
            NormalisedBlock(before, width, size) for before, width in zip((channels, *widths), widths, strict=False)
        )
        self.up = nn.ModuleList(
            NormalisedBlock(deep + width, width, size)
            for deep, width in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.tail = nn.Conv2d(widths[0], 1, 1)
        self.brain = nn.Conv2d(widths[0], 1, 1) if brain else None

    def forward(self, x: Tensor, contrast: Tensor | int) -> Tensor:
        """Logits of being lesion, and of being brain, lesions in it included."""
        height, width = x.shape[-2:]
        x = padded(x, self.multiple)
        condition = one_hot(contrast, len(self.contrasts), x)
        levels: list[Tensor] = []
        for block in self.down:
            x = block(functional.max_pool2d(x, 2) if levels else x, condition)
            levels.append(x)
        features = decoded(self.up, levels, condition)
        answers = [tail(features) for tail in (self.tail, self.brain) if tail is not None]
        return torch.cat(answers, 1)[..., :height, :width]


def build(**hyperparameters: Any) -> LesionDetector:
    """The network from a card's hyper-parameters."""
    return LesionDetector(**hyperparameters)
