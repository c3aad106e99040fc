"""Back-projection: what the answer, made coarse again, lacks of the input is interpolated and added (Irani and Peleg 1991).

One damped step removes the faint offsets that networks leave in air and keeps low frequencies as they were measured. It assumes
a bicubic acquisition, which is near enough to others at the low frequencies it restores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def bicubic(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, h, w) -> (B, C, *size), finer or coarser, edges kept, low-passed where it gets coarser; float32 only on CPUs.

    antialias selects Keys' a = -0.5, which keeps ramps straight; without it torch uses -0.75, which does not.
    """
    return functional.interpolate(x, size=list(size), mode="bicubic", antialias=True)


def back_projected(answer: Tensor, x: Tensor, share: float) -> Tensor:
    """`answer` (B, 1, H*fh, W*fw) plus `share` of the step that makes it agree with its input `x` (B, 1, H, W)."""
    with torch.autocast(x.device.type, enabled=False):
        answer, x = answer.float(), x.float()
        return answer + share * bicubic(x - bicubic(answer, x.shape[-2:]), answer.shape[-2:])
