"""RDST: single-image super-resolution by residual dense Swin transformer blocks.

Zhu, Yang, Lio: "A residual dense vision transformer for medical image super-resolution with segmentation-based perceptual
loss fine-tuning", 2023, section 3.1 and figure 1. RDST has 8 blocks, RDST-E has 4; width 60, 6 heads, window 8, growth 30.

Ours beyond the paper, both off by default: the factor is per axis, so that the same network serves through-plane use
(`factors=(4, 1)`), and `skip="bicubic"` adds the bicubic interpolation of the input to the output, so that a short training
starts from what interpolation already gives instead of from noise.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

CACHED_MASKS = 8
BLOCKED = -1e4  # added to the logits of pairs that were not neighbours before the shift; exp() of it is 0 in fp16 too


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
        axis = torch.arange(window)
        rows, columns = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
        offset_rows = rows[:, None] - rows[None, :] + window - 1
        offset_columns = columns[:, None] - columns[None, :] + window - 1
        self.register_buffer("position_index", offset_rows * (2 * window - 1) + offset_columns, persistent=False)

    def bias(self) -> Tensor:
        """(heads, window**2, window**2), added to the logits."""
        return self.position_bias[self.position_index].permute(2, 0, 1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`x`: (B, windows, window**2, width); `mask`: (windows, window**2, window**2), 0 or BLOCKED."""
        windows = x.shape[1]
        # Windows ride beside the heads, so that one mask is broadcast over the batch.
        q, k, v = rearrange(self.qkv(x), "b w n (three h d) -> three b (w h) n d", three=3, h=self.heads)
        if mask is None:
            logits = self.bias().repeat(windows, 1, 1)  # (windows * heads, n, n)
        else:
            logits = (self.bias()[None] + mask[:, None]).flatten(0, 1)
        if torch.is_grad_enabled() and logits.requires_grad:
            # No fused kernel has a gradient for its mask, and the fallback is three times slower than this on a CPU.
            weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + logits, dim=-1)
            answer = weights.to(v.dtype) @ v
        else:
            answer = functional.scaled_dot_product_attention(q, k, v, attn_mask=logits[None].to(q.dtype))
        return self.out(rearrange(answer, "b (w h) n d -> b w n (h d)", w=windows))


class SwinLayer(nn.Module):
    """One shifted-window transformer layer (eq. 3): attention then a two-layer perceptron, each after a norm, each residual."""

    def __init__(self, width: int, heads: int, window: int, mlp_ratio: float, shift: int) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.norm_attention = nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, window)
        self.norm_mlp = nn.LayerNorm(width)
        hidden = int(width * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x`: (B, H, W, width), H and W multiples of the window; `mask` as made by `shift_mask`."""
        height, width = x.shape[1:3]
        y = self.norm_attention(x)
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), dims=(1, 2))
        y = rearrange(y, "b (r m) (c n) d -> b (r c) (m n) d", m=self.window, n=self.window)
        y = self.attention(y, mask if self.shift else None)
        y = rearrange(
            y,
            "b (r c) (m n) d -> b (r m) (c n) d",
            r=height // self.window,
            c=width // self.window,
            m=self.window,
            n=self.window,
        )
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), dims=(1, 2))
        x = x + y
        return x + self.mlp(self.norm_mlp(x))


class DenseSwinBlock(nn.Module):
    """DSTB (eq. 4): two Swin layers, a bottleneck to `growth` channels, concatenated behind the input."""

    def __init__(self, width: int, heads: int, window: int, mlp_ratio: float, growth: int) -> None:
        super().__init__()
        self.plain = SwinLayer(width, heads, window, mlp_ratio, shift=0)
        self.shifted = SwinLayer(width, heads, window, mlp_ratio, shift=window // 2)
        self.bottleneck = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, growth))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, H, W, width) -> (B, H, W, width + growth)."""
        return torch.cat((x, self.bottleneck(self.shifted(self.plain(x, mask), mask))), dim=-1)


class ResidualDenseSwinBlock(nn.Module):
    """RDSTB (eq. 5): three dense blocks, 3x3 local feature fusion back to `width`, residual."""

    def __init__(
        self, width: int, heads: int, window: int, mlp_ratio: float, growth: int, dense_blocks: int = 3
    ) -> None:
        super().__init__()
        self.dense = nn.ModuleList(
            DenseSwinBlock(width + i * growth, heads, window, mlp_ratio, growth) for i in range(dense_blocks)
        )
        self.fusion = nn.Conv2d(width + dense_blocks * growth, width, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, width, H, W) -> the same."""
        y = x.permute(0, 2, 3, 1)
        for dense in self.dense:
            y = dense(y, mask)
        return x + self.fusion(y.permute(0, 3, 1, 2))


class SubPixelUpsampler(nn.Module):
    """Stages of 3x3 convolution and pixel shuffle; each stage enlarges by a prime factor, along rows, columns or both."""

    def __init__(self, width: int, factors: tuple[int, int]) -> None:
        super().__init__()
        self.steps = upsampling_steps(factors)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, width * rows * columns, 3, padding=1) for rows, columns in self.steps
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, width, H*fh, W*fw)."""
        for (rows, columns), convolution in zip(self.steps, self.convolutions, strict=True):
            x = rearrange(convolution(x), "b (d m n) h w -> b d (h m) (w n)", m=rows, n=columns)
        return x


class RDST(nn.Module):
    """Residual dense Swin transformer: (B, 1, H, W) -> (B, 1, H*fh, W*fw), any H and W.

    blocks: RDSTBs, 8 for RDST and 4 for RDST-E. factors: (fh, fw), rows and columns.
    skip: "none" as published, "bicubic" to add the interpolated input to the output.
    """

    def __init__(
        self,
        *,
        blocks: int = 8,
        factors: tuple[int, int] = (4, 4),
        width: int = 60,
        heads: int = 6,
        growth: int = 30,
        window: int = 8,
        mlp_ratio: float = 2.0,
        skip: str = "none",
    ) -> None:
        super().__init__()
        if skip not in ("none", "bicubic"):
            raise ValueError(f"skip is '{skip}', expected 'none' or 'bicubic'")
        self.factors = factors
        self.window = window
        self.skip = skip
        self.head = nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            ResidualDenseSwinBlock(width, heads, window, mlp_ratio, growth) for _ in range(blocks)
        )
        self.fusion = nn.Conv2d(width, width, 3, padding=1)
        self.upsampler = SubPixelUpsampler(width, factors)
        self.tail = nn.Conv2d(width, 1, 3, padding=1)
        self._masks: OrderedDict[tuple[int, int, torch.device], Tensor] = OrderedDict()
        self.apply(_initialise)
        if skip == "bicubic":
            nn.init.zeros_(self.tail.weight)
            if self.tail.bias is not None:
                nn.init.zeros_(self.tail.bias)

    def mask(self, height: int, width: int, device: torch.device) -> Tensor:
        """The shifted windows' mask for a padded (height, width), kept for the sizes seen last."""
        key = (height, width, device)
        if key not in self._masks:
            self._masks[key] = shift_mask(height, width, self.window, device)
            if len(self._masks) > CACHED_MASKS:
                self._masks.popitem(last=False)
        self._masks.move_to_end(key)
        return self._masks[key]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) on the networks' intensity scale -> (B, 1, H*fh, W*fw)."""
        height, width = x.shape[-2:]
        padding = (0, -width % self.window, 0, -height % self.window)
        padded = functional.pad(x, padding, mode="replicate") if any(padding) else x
        mask = self.mask(padded.shape[-2], padded.shape[-1], x.device)
        shallow = self.head(padded)
        deep = shallow
        for block in self.blocks:
            deep = block(deep, mask)
        features = shallow + self.fusion(deep)
        features = features[..., :height, :width]
        answer: Tensor = self.tail(self.upsampler(features))
        if self.skip == "bicubic":
            size = (height * self.factors[0], width * self.factors[1])
            # antialias selects Keys' a = -0.5, which keeps ramps straight; without it torch uses -0.75, which does not.
            # In full precision: the residual is small beside this term.
            with torch.autocast(x.device.type, enabled=False):
                answer = answer + functional.interpolate(x.float(), size=size, mode="bicubic", antialias=True)
        return answer


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


def upsampling_steps(factors: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """(fh, fw) as stages by prime factors: (4, 4) -> (2, 2), (2, 2); (4, 1) -> (2, 1), (2, 1)."""
    rows, columns = (_primes(factor) for factor in factors)
    length = max(len(rows), len(columns))
    pad = [1] * length
    return tuple(zip((rows + pad)[:length], (columns + pad)[:length], strict=True))


def _primes(factor: int) -> list[int]:
    if factor < 1 or factor != int(factor):
        raise ValueError(f"factor is {factor}, expected a whole number of at least 1")
    found, rest, divisor = [], int(factor), 2
    while rest > 1:
        while rest % divisor == 0:
            found.append(divisor)
            rest //= divisor
        divisor += 1
    return found


def _initialise(module: nn.Module) -> None:
    """Kaiming-uniform (section 4.3), as PyTorch's own layers do it: gain for a = sqrt(5)."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build(*, factors: Sequence[int] = (4, 4), **hyperparameters: Any) -> RDST:
    """RDST from a card's hyper-parameters (JSON has lists where Python has tuples)."""
    rows, columns = factors
    return RDST(factors=(int(rows), int(columns)), **hyperparameters)
