"""RDST: single-image super-resolution by residual dense Swin transformer blocks.

Zhu, Yang, Lio: "A residual dense vision transformer for medical image super-resolution with segmentation-based perceptual
loss fine-tuning", 2023, section 3.1 and figure 1. RDST has 8 blocks, RDST-E has 4; width 60, 6 heads, window 8, growth 30.

Ours beyond the paper, all off by default: the factor is per axis, so that the same network serves through-plane use
(`factors=(4, 1)`); `skip="bicubic"` adds the bicubic interpolation of the input to the output, so that a short training
starts from what interpolation already gives instead of from noise; `feedback` adds a share of one back-projection.

Pixels stay sorted by window through a residual block, so that attention needs no copies. Inference computes the same
numbers with less work in three more places, each explained where it is: the upsampler and the last convolution are one
convolution (`CollapsedUpsampler`), and a CPU gets heads of a width that it multiplies fast (`padded_qkv`) and few slices
at once (`PIXELS_IN_CACHE`).
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

from .parts.projection import back_projected
from .parts.skip import Consistency, Gains, Skip, added, check_skip
from .parts.swin import SwinLayer, from_windows, shift_mask, shift_windows, to_windows

CACHED_MASKS = 8
PIXELS_IN_CACHE = 3 * 2**11  # input pixels that a CPU computes at once: 2 to 5 % faster than a whole batch


class DenseSwinBlock(nn.Module):
    """DSTB (eq. 4): two Swin layers, a bottleneck to `growth` channels, concatenated behind the input."""

    def __init__(self, width: int, heads: int, window: int, mlp_ratio: float, growth: int) -> None:
        super().__init__()
        self.window = window
        self.plain = SwinLayer(width, heads, window, mlp_ratio)
        self.shifted = SwinLayer(width, heads, window, mlp_ratio)
        self.bottleneck = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, growth))

    def forward(self, x: Tensor, mask: Tensor, height: int) -> Tensor:
        """(B, windows, window**2, width) -> (B, windows, window**2, width + growth), of images of `height`."""
        half = self.window // 2
        # All but the attention goes pixel by pixel, so the pixels can stay in the shifted windows to the end.
        y = shift_windows(self.plain(x, None), height, self.window, -half)
        y = self.bottleneck(self.shifted(y, mask))
        return torch.cat((x, shift_windows(y, height, self.window, half)), dim=-1)


class ResidualDenseSwinBlock(nn.Module):
    """RDSTB (eq. 5): three dense blocks, 3x3 local feature fusion back to `width`, residual."""

    def __init__(
        self, width: int, heads: int, window: int, mlp_ratio: float, growth: int, dense_blocks: int = 3
    ) -> None:
        super().__init__()
        self.window = window
        self.dense = nn.ModuleList(
            DenseSwinBlock(width + i * growth, heads, window, mlp_ratio, growth) for i in range(dense_blocks)
        )
        self.fusion = nn.Conv2d(width + dense_blocks * growth, width, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, width, H, W) -> the same."""
        height = x.shape[-2]
        y = to_windows(x.permute(0, 2, 3, 1), self.window)
        for dense in self.dense:
            y = dense(y, mask, height)
        return x + self.fusion(from_windows(y, height, self.window).permute(0, 3, 1, 2))


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


class CollapsedUpsampler:
    """`tail(upsampler(x))` as one convolution, for inference.

    Nothing between the features and the answer is non-linear, so each answer is a weighted sum of the features around it:
    for x4 a 5x5 convolution from 60 channels to the 16 answers of a pixel with one multiplication for every 27. The layers
    in between pad with zeros, which one convolution cannot; so the rows and columns within reach of that padding, the
    outermost ones, have kernels of their own. Kernels are what an impulse in an answer gives, run backwards through the layers.
    """

    def __init__(self, upsampler: SubPixelUpsampler, tail: nn.Conv2d, factors: tuple[int, int]) -> None:
        self.factors = factors
        self.reach = _reach(upsampler.steps, 0), _reach(upsampler.steps, 1)
        self.smallest = tuple(2 * reach + 1 for reach in self.reach)
        weights = (*upsampler.parameters(), *tail.parameters())
        self._made_from = [(weight.detach(), _version(weight)) for weight in weights]
        self._kernels = {}  # (row, column) on a smallest image -> (fh*fw, width, 2*reach+1, 2*reach+1) and (fh*fw,)
        (fh, fw), (rows, columns) = factors, self.smallest
        weight = tail.weight
        stages = [
            (step, convolution.get_parameter("weight"))
            for step, convolution in zip(upsampler.steps, upsampler.convolutions, strict=True)
        ]
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            offset = tail(upsampler(weight.new_zeros(1, tail.in_channels, rows, columns)))
            impulses = torch.eye(fh * fw, dtype=weight.dtype, device=weight.device).view(fh * fw, 1, fh, fw)
            for row in self._kinds(0):
                for column in self._kinds(1):
                    left, right = column * fw, (columns - 1 - column) * fw
                    top, bottom = row * fh, (rows - 1 - row) * fh
                    g = functional.pad(impulses, (left, right, top, bottom))
                    g = functional.conv_transpose2d(g, weight, padding=1)
                    for (m, n), filters in reversed(stages):
                        g = rearrange(g, "o d (h m) (w n) -> o (d m n) h w", m=m, n=n)
                        g = functional.conv_transpose2d(g, filters, padding=1)
                    g = functional.pad(g, (self.reach[1], self.reach[1], self.reach[0], self.reach[0]))
                    kernel = g[..., row : row + rows, column : column + columns].contiguous()
                    bias = offset[0, 0, row * fh : (row + 1) * fh, column * fw : (column + 1) * fw].flatten()
                    self._kernels[row, column] = kernel, bias

    def is_of(self, upsampler: SubPixelUpsampler, tail: nn.Conv2d) -> bool:
        """Whether the layers still have the weights this was made from."""
        weights = (*upsampler.parameters(), *tail.parameters())
        return all(
            weight.device == kept.device and weight.data_ptr() == kept.data_ptr() and _version(weight) == version >= 0
            for weight, (kept, version) in zip(weights, self._made_from, strict=True)
        )

    def __call__(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, 1, H*fh, W*fw); H and W at least `smallest`."""
        rows, columns = self.reach
        padded = functional.pad(x, (columns, columns, rows, rows))
        strips = []
        for row, top, bottom in self._strips(0, x.shape[-2]):
            pieces = []
            for column, left, right in self._strips(1, x.shape[-1]):
                part = padded[..., top : bottom + 2 * rows, left : right + 2 * columns]
                pieces.append(functional.conv2d(part, *self._kernels[row, column]))
            strips.append(torch.cat(pieces, dim=-1))
        return rearrange(torch.cat(strips, dim=-2), "b (m n) h w -> b 1 (h m) (w n)", m=self.factors[0])

    def _kinds(self, axis: int) -> list[int]:
        """Places along an axis of the smallest image with kernels of their own: those near an edge, and the centre."""
        reach, size = self.reach[axis], self.smallest[axis]
        return [*range(reach - 1), reach, *range(size - reach + 1, size)]

    def _strips(self, axis: int, size: int) -> list[tuple[int, int, int]]:
        """(kind, start, stop) that together cover an axis of `size` pixels."""
        edge = self.reach[axis] - 1
        starts = [*range(edge + 1), *range(size - edge, size)]
        return list(zip(self._kinds(axis), starts, [*starts[1:], size], strict=True))


class RDST(nn.Module):
    """Residual dense Swin transformer: (B, C, H, W) -> (B, C, H*fh, W*fw), any H and W.

    blocks: RDSTBs, 8 for RDST and 4 for RDST-E. factors: (fh, fw), rows and columns. channels: C, 1; 4 for BraTS (section 4.1),
    whose four contrasts are enlarged together.
    skip: "none" as published, "bicubic" or "zerofill" to add the interpolated input to the output. consistency: "soft" lets the
    network scale what it adds, inside the measured band and outside, with skip="zerofill"; see `networks.parts.skip`. feedback: the
    share of one back-projection added at the end, 0 as published; see `networks.parts.projection`.
    """

    def __init__(
        self,
        *,
        blocks: int = 8,
        factors: tuple[int, int] = (4, 4),
        channels: int = 1,
        width: int = 60,
        heads: int = 6,
        growth: int = 30,
        window: int = 8,
        mlp_ratio: float = 2.0,
        skip: Skip = "none",
        consistency: Consistency = "none",
        feedback: float = 0.0,
    ) -> None:
        super().__init__()
        check_skip(skip, consistency)
        if channels != 1 and (skip != "none" or feedback):
            raise ValueError(f"channels is {channels}, and skip and feedback are for one channel")
        self.factors = factors
        self.channels = channels
        self.window = window
        self.skip = skip
        self.feedback = feedback
        self.head = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            ResidualDenseSwinBlock(width, heads, window, mlp_ratio, growth) for _ in range(blocks)
        )
        self.fusion = nn.Conv2d(width, width, 3, padding=1)
        self.upsampler = SubPixelUpsampler(width, factors)
        self.tail = nn.Conv2d(width, channels, 3, padding=1)
        self._masks: OrderedDict[tuple[int, int, torch.device], Tensor] = OrderedDict()
        self._collapsed: CollapsedUpsampler | None = None
        self.apply(_initialise)
        self.gains = Gains(width) if consistency == "soft" else None
        if skip != "none":
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
        """(B, C, H, W) on the networks' intensity scale -> (B, C, H*fh, W*fw)."""
        at_once = max(1, PIXELS_IN_CACHE // (x.shape[-2] * x.shape[-1]))
        if x.device.type == "cpu" and len(x) > at_once and not self.training and not torch.is_grad_enabled():
            return torch.cat([self._forward(part) for part in x.split(at_once)])
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
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
        answer = self._upsampled(features)
        if self.skip != "none":
            answer = added(answer, x, self.factors, self.skip, self.gains, features)
        return back_projected(answer, x, self.feedback) if self.feedback else answer

    def _upsampled(self, features: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, C, H*fh, W*fw)."""
        if self.channels == 1 and not self.training and not torch.is_grad_enabled():
            if self._collapsed is None or not self._collapsed.is_of(self.upsampler, self.tail):
                self._collapsed = CollapsedUpsampler(self.upsampler, self.tail, self.factors)
            if all(size >= least for size, least in zip(features.shape[-2:], self._collapsed.smallest, strict=True)):
                return self._collapsed(features)
        answer: Tensor = self.tail(self.upsampler(features))
        return answer

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: not the collapsed upsampler, which knows its weights by their place in memory."""
        return {**self.__dict__, "_collapsed": None}


def upsampling_steps(factors: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """(fh, fw) as stages by prime factors: (4, 4) -> (2, 2), (2, 2); (4, 1) -> (2, 1), (2, 1)."""
    rows, columns = (_primes(factor) for factor in factors)
    length = max(len(rows), len(columns))
    pad = [1] * length
    return tuple(zip((rows + pad)[:length], (columns + pad)[:length], strict=True))


def _reach(steps: tuple[tuple[int, int], ...], axis: int) -> int:
    """How many input pixels beyond its own an answer depends on: each convolution reaches one pixel of its size."""
    first = -1
    for step in reversed(steps):
        first = first // step[axis] - 1
    return -first


def _version(weight: Tensor) -> int:
    """Grows with every change in place; -1 where PyTorch does not count them (weights made in inference mode)."""
    return -1 if weight.is_inference() else weight._version


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
