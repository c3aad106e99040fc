"""Swin transformer layers: self-attention inside windows of pixels, and windows shifted by half their side (Liu et al. 2021).

Pixels stay sorted by window through a layer, so that attention needs no copies. On a CPU, heads get a width it multiplies fast.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

LANES = 4  # a CPU's attention is a quarter faster at 12 or 16 channels per head than at RDST's 10 or 15
BLOCKED = -1e4  # added to the logits of pairs that were not neighbours before the shift; exp() of it is 0 in fp16 too


def attend(q: Tensor, k: Tensor, v: Tensor, logits: Tensor, scale: float) -> Tensor:
    """softmax(q k^T * scale + logits) v of (..., n, d), by the fastest kernel that has the gradients needed.

    CUDA's fused kernel has a gradient for `logits` where heads are multiples of 8 wide. No kernel of a CPU has one, and its
    fallback is three times slower than the plain products.
    """
    fused = q.device.type == "cuda" and q.shape[-1] % 8 == 0
    if torch.is_grad_enabled() and logits.requires_grad and not fused:
        weights = torch.softmax(q @ k.transpose(-1, -2) * scale + logits, dim=-1)
        return weights.to(v.dtype) @ v
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=logits.to(q.dtype), scale=scale)


def position_index(window: int) -> Tensor:
    """(window**2, window**2): for each pair of a window's pixels, the number of their relative position."""
    axis = torch.arange(window)
    rows, columns = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    offset_rows = rows[:, None] - rows[None, :] + window - 1
    offset_columns = columns[:, None] - columns[None, :] + window - 1
    return offset_rows * (2 * window - 1) + offset_columns


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned bias for each relative position (Swin, 2021)."""

    position_index: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.position_bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        self.register_buffer("position_index", position_index(window), persistent=False)

    def bias(self) -> Tensor:
        """(heads, window**2, window**2), added to the logits."""
        return self.position_bias[self.position_index].permute(2, 0, 1)

    def padded_qkv(self, extra: int) -> tuple[Tensor, Tensor]:
        """Weight and bias of `qkv` giving every head `extra` more channels, all zero: the attention is the same."""
        width = self.qkv.in_features
        weight = functional.pad(self.qkv.weight.view(3 * self.heads, -1, width), (0, 0, 0, extra))
        bias = functional.pad(self.qkv.bias.view(3 * self.heads, -1), (0, extra))
        return weight.flatten(0, 1), bias.flatten()

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`x`: (B, windows, window**2, width); `mask`: (windows, window**2, window**2), 0 or BLOCKED."""
        batch, windows, _, width = x.shape
        channels = width // self.heads
        inference = not self.training and not torch.is_grad_enabled()
        extra = -channels % LANES if inference and x.device.type == "cpu" else 0
        qkv = functional.linear(x, *self.padded_qkv(extra)) if extra else self.qkv(x)
        logits = self.bias()[None]  # (1, heads, n, n)
        if mask is not None:
            logits = logits + mask[:, None]  # (windows, heads, n, n)
        if mask is None or batch == 1:  # windows ride in the batch, and nothing is copied
            q, k, v = rearrange(qkv, "b w n (three h d) -> three (b w) h n d", three=3, h=self.heads)
        else:  # windows ride beside the heads, so that one mask is broadcast over the batch
            q, k, v = rearrange(qkv, "b w n (three h d) -> three b (w h) n d", three=3, h=self.heads)
            logits = logits.flatten(0, 1)[None]
        answer = attend(q, k, v, logits, channels**-0.5)
        answer = answer.reshape(batch, windows, self.heads, *answer.shape[-2:])[..., :channels]
        return self.out(rearrange(answer, "b w h n d -> b w n (h d)"))


class SwinLayer(nn.Module):
    """One shifted-window transformer layer (eq. 3): attention then a two-layer perceptron, each after a norm, each residual."""

    def __init__(self, width: int, heads: int, window: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, window)
        self.norm_mlp = nn.LayerNorm(width)
        hidden = int(width * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`x`: (B, windows, window**2, width); `mask` as made by `shift_mask` if the windows are shifted ones."""
        x = x + self.attention(self.norm_attention(x), mask)
        return x + self.mlp(self.norm_mlp(x))


def to_windows(image: Tensor, window: int) -> Tensor:
    """(B, H, W, d) -> (B, windows, window**2, d), H and W multiples of the window."""
    return rearrange(image, "b (r m) (c n) d -> b (r c) (m n) d", m=window, n=window)


def from_windows(x: Tensor, height: int, window: int) -> Tensor:
    """(B, windows, window**2, d) -> (B, H, W, d)."""
    return rearrange(x, "b (r c) (m n) d -> b (r m) (c n) d", r=height // window, m=window, n=window)


def shift_windows(x: Tensor, height: int, window: int, pixels: int) -> Tensor:
    """The windows (B, windows, window**2, d) of the image rolled by `pixels` along rows and columns."""
    return to_windows(from_windows(x, height, window).roll((pixels, pixels), dims=(1, 2)), window)


def shift_mask(height: int, width: int, window: int, device: torch.device | None = None) -> Tensor:
    """(windows, window**2, window**2): 0 where two pixels of a shifted window were neighbours, else BLOCKED.

    Pixels of one window were no neighbours when the roll brought them together from opposite sides of the image.
    """
    shift = window // 2
    region = torch.zeros(height, width, device=device)
    label = 0
    for rows in (slice(0, -window), slice(-window, -shift), slice(-shift, None)):
        for columns in (slice(0, -window), slice(-window, -shift), slice(-shift, None)):
            region[rows, columns] = label
            label += 1
    windows = rearrange(region, "(r m) (c n) -> (r c) (m n)", m=window, n=window)
    return (windows[:, :, None] != windows[:, None, :]).float() * BLOCKED
