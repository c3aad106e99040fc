"""The way up of a small U-Net whose blocks take a condition."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def padded(x: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W), its last row and column repeated until H and W are multiples of `multiple`."""
    padding = (0, -x.shape[-1] % multiple, 0, -x.shape[-2] % multiple)
    return functional.pad(x, padding, mode="replicate") if any(padding) else x


def decoded(blocks: nn.ModuleList, levels: Sequence[Tensor], condition: Tensor) -> Tensor:
    """Features of the full resolution from those of all `levels`, fine to coarse; a block takes doubled and finer ones joined."""
    *finer, x = levels
    for block, skip in zip(blocks, reversed(finer), strict=True):
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        x = block(torch.cat((x, skip), 1), condition)
    return x
