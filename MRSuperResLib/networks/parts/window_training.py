"""Self-attention inside windows for training on a CPU: a few windows at a time, so that a step needs less memory.

The plain products write the logits of a whole layer to memory several times: at 256 x 256 pixels and 8 x 8 windows they are as
large as 64 channels a head. Here they are made again for the gradient and never leave the cache, and only q, k and v are kept.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

IN_CACHE = 2**18  # logits computed together, 1 MiB in fp32


def window_attention(qkv: Tensor, bias: Tensor, mask: Tensor | None, window: int, halves: int, scale: float) -> Tensor:
    """softmax(q k^T * scale + bias + mask) v in every window of an image, in fp32, with a gradient for `qkv` and `bias`.

    qkv: (B, H, W, halves * 3 * heads/halves * d), H and W multiples of `window`. bias: (heads, window**2, window**2). mask:
    (windows, halves, window**2, window**2), added for the heads of a half, or None. Returns (B, H, W, heads * d).
    """
    answer: Tensor = _WindowAttention.apply(qkv, bias, mask, window, halves, scale)
    return answer


def trains_on_cpu(x: Tensor) -> bool:
    """Whether `window_attention` is used for a gradient through `x`."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and x.requires_grad and torch.is_grad_enabled()


class _WindowAttention(torch.autograd.Function):
    """`window_attention`, band of windows by band of windows."""

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, bias: Tensor, mask: Tensor | None, window: int, halves: int, scale: float
    ) -> Tensor:
        bands = _Bands(qkv, bias, mask, window, halves, scale)
        answer = qkv.new_empty(*qkv.shape[:3], qkv.shape[3] // 3)
        for band in bands:
            q, k, v = bands.separated(qkv, band)
            bands.put(answer, band, torch.bmm(bands.weights(q, k, band), v))
        ctx.save_for_backward(qkv, bias, mask)
        ctx.settings = window, halves, scale
        return answer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        qkv, bias, mask = ctx.saved_tensors
        bands = _Bands(qkv, bias, mask, *ctx.settings)
        scale = ctx.settings[2]
        of_qkv, of_bias = torch.empty_like(qkv), torch.zeros_like(bias)
        for band in bands:
            q, k, v = bands.separated(qkv, band)
            given = bands.taken(gradient, band)
            weights = bands.weights(q, k, band)
            of_v = torch.bmm(weights.transpose(1, 2), given)
            of_weights = torch.bmm(given, v.transpose(1, 2))
            of_logits = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_bias += of_logits.view(-1, *bias.shape).sum(0)
            of_q = torch.bmm(of_logits, k).mul_(scale)
            of_k = torch.bmm(of_logits.transpose(1, 2), q).mul_(scale)
            bands.put_separated(of_qkv, band, (of_q, of_k, of_v))
        return of_qkv, of_bias, None, None, None, None


class _Bands:
    """Rows of windows of the images of a batch, as many at a time as fit into the cache; iterating gives (image, from, to)."""

    def __init__(self, qkv: Tensor, bias: Tensor, mask: Tensor | None, window: int, halves: int, scale: float) -> None:
        self.window, self.halves, self.heads, self.scale = window, halves, len(bias), scale
        self.batch, height, width = qkv.shape[:3]
        self.rows, self.columns = height // window, width // window
        in_a_row = self.columns * self.heads * window**4
        self.together = max(1, min(self.rows, IN_CACHE // in_a_row))
        self.bias = bias.detach().repeat(self.together * self.columns, 1, 1)
        self.masks: list[tuple[Tensor, Tensor] | None] = []
        for first in range(0, self.rows, self.together):
            self.masks.append(None)
            if mask is not None:
                of_band = mask[first * self.columns : (first + self.together) * self.columns].flatten(0, 1)
                masked = of_band[:, 0].any(1).nonzero()[:, 0]  # the first pixel has strangers if any has
                if len(masked):
                    self.masks[-1] = masked, of_band[masked][:, None].expand(-1, self.heads // halves, -1, -1)

    def __iter__(self) -> Any:
        for image in range(self.batch):
            for first in range(0, self.rows, self.together):
                yield image, first, min(self.rows, first + self.together)

    def weights(self, q: Tensor, k: Tensor, band: tuple[int, int, int]) -> Tensor:
        """(windows * heads, n, n): the softmax."""
        logits = torch.baddbmm(self.bias[: len(q)], q, k.transpose(1, 2), alpha=self.scale)
        masked = self.masks[band[1] // self.together]
        if masked is not None:
            logits.view(-1, self.heads // self.halves, *logits.shape[1:]).index_add_(0, *masked)
        return torch.softmax(logits, -1)

    def _slab(self, image: Tensor, band: tuple[int, int, int]) -> Tensor:
        number, first, last = band
        return image[number, first * self.window : last * self.window]

    def separated(self, qkv: Tensor, band: tuple[int, int, int]) -> Tensor:
        """(3, windows * heads, n, d)."""
        return rearrange(
            self._slab(qkv, band),
            "(r m) (c n) (half three h d) -> three (r c half h) (m n) d",
            m=self.window, n=self.window, half=self.halves, three=3, h=self.heads // self.halves,
        )  # fmt: skip

    def put_separated(self, qkv: Tensor, band: tuple[int, int, int], parts: tuple[Tensor, Tensor, Tensor]) -> None:
        """The inverse of `separated`, into `qkv`."""
        slab = self._slab(qkv, band)
        half = slab.view(*slab.shape[:2], self.halves, 3, -1)
        for number, part in enumerate(parts):
            half[:, :, :, number] = self._joined(part, band)

    def taken(self, image: Tensor, band: tuple[int, int, int]) -> Tensor:
        """(windows * heads, n, d)."""
        return rearrange(
            self._slab(image, band),
            "(r m) (c n) (half h d) -> (r c half h) (m n) d",
            m=self.window, n=self.window, half=self.halves, h=self.heads // self.halves,
        )  # fmt: skip

    def put(self, image: Tensor, band: tuple[int, int, int], part: Tensor) -> None:
        """The inverse of `taken`, into `image`."""
        self._slab(image, band).unflatten(-1, (self.halves, -1)).copy_(self._joined(part, band))

    def _joined(self, part: Tensor, band: tuple[int, int, int]) -> Tensor:
        return rearrange(
            part,
            "(r c half h) (m n) d -> (r m) (c n) half (h d)",
            r=band[2] - band[1], c=self.columns, m=self.window, half=self.halves,
        )  # fmt: skip
