"""A small U-Net that says where a slice shows what healthy brains do not show: lesions, in any contrast it was trained on.

Ours; the blocks are those of the translation network. It answers for the scan, not for its translation, so that it does not
change with the translator: what a translation has lost, it cannot have hidden from this network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .translation import CONTRASTS, ConditionedBlock, one_hot


class LesionDetector(nn.Module):
    """(B, 1, H, W) on the networks' scale and the index of its contrast -> logits (B, 1, H, W), any H and W.

    widths: channels at 1/2, 1/4, 1/8, ... of the resolution. contrasts: names, whose indices `contrast` is.
    """

    def __init__(self, *, widths: Sequence[int] = (24, 48, 72, 96, 96), contrasts: Sequence[str] = CONTRASTS) -> None:
        super().__init__()
        self.contrasts, self.factors = tuple(contrasts), (1, 1)
        self.multiple = 2 ** len(widths)
        size = len(self.contrasts)
        self.head = nn.Conv2d(4, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            ConditionedBlock(before, width, size) for before, width in zip((widths[0], *widths), widths, strict=False)
        )
        self.up = nn.ModuleList(
            ConditionedBlock(deep + width, width, size)
            for deep, width in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.tail = nn.Conv2d(widths[0], 4, 3, padding=1)

    def forward(self, x: Tensor, contrast: Tensor | int) -> Tensor:
        """Logits of being lesion."""
        height, width = x.shape[-2:]
        padding = (0, -width % self.multiple, 0, -height % self.multiple)
        if any(padding):
            x = functional.pad(x, padding, mode="replicate")
        condition = one_hot(contrast, len(self.contrasts), x)
        features = self.head(functional.pixel_unshuffle(x, 2))  # (B, widths[0], H/2, W/2)
        skips: list[Tensor] = []
        for block in self.down:
            if skips:
                features = functional.avg_pool2d(features, 2)
            features = block(features, condition)
            skips.append(features)
        skips.pop()
        for block in self.up:
            features = functional.interpolate(features, scale_factor=2.0, mode="nearest")
            features = block(torch.cat((features, skips.pop()), 1), condition)
        return functional.pixel_shuffle(self.tail(features), 2)[..., :height, :width]


def build(**hyperparameters: Any) -> LesionDetector:
    """The network from a card's hyper-parameters."""
    return LesionDetector(**hyperparameters)
