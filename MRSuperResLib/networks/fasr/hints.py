"""Ours: a guess of what the reference adds, as a guided filter would make it, and where to trust the reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ..parts.skip import measured, zero_filled

HINT_RADII = (1, 2, 4)  # coarse pixels: of the windows that slopes are fitted in; in smaller ones chance correlates
TRUST_RADIUS = 4  # coarse pixels
# Mean correlation at which the reference begins to act, and from which it acts fully. Chosen on training scans at x4: the right
# reference loses 0.01 dB of 0.51 dB by it, uniform noise costs 0.01 dB instead of 0.71, a stranger 0.01 instead of 0.23.
TRUSTED = (0.2, 0.6)
HINT_CHANNELS = 2 * len(HINT_RADII) + 1
HINT_GAIN = 4.0  # residuals are small beside images; this brings hints to the size of features
LEAST_VARIANCE = 1e-4  # in a window, of the networks' scale: below it there is only noise to fit
STEEPEST = 4.0  # slope between two contrasts that is still believed
LEAST_DETAIL = 1e-5  # on the networks' scale
BORDER = 8  # full-resolution pixels over which the reference's influence fades inside the border of what is valid


def guided_hints(low: Tensor, sharp: Tensor, soft: Tensor, mask: Tensor, radii: Sequence[int]) -> Tensor:
    """Images (B, 1, H, W) -> (B, HINT_CHANNELS, H, W): guesses of what the base misses, correlations, and what it misses in Ref.

    In windows of each radius (full-resolution pixels) `low` is fitted as slope * `soft` + offset. The guess is the slope times
    `sharp` - `soft`, damped by the correlation's modulus, so that strangers transfer little.
    """
    with torch.autocast(low.device.type, enabled=False):
        missed = (sharp - soft) * mask * HINT_GAIN
        channels = [missed]
        for radius in radii:
            of_low, of_soft = low - windowed(low, radius), soft - windowed(soft, radius)
            both, variance = windowed(of_low * of_soft, radius), windowed(of_soft.square(), radius)
            slope = (both / (variance + LEAST_VARIANCE)).clamp(-STEEPEST, STEEPEST)
            spread = (variance + LEAST_VARIANCE) * (windowed(of_low.square(), radius) + LEAST_VARIANCE)
            correlation = both * spread.rsqrt() * mask
            channels += [slope * correlation.abs() * missed, correlation]
        return torch.cat(channels, 1)


def trust_map(hints: Tensor, radius: int, between: tuple[float, float] = TRUSTED) -> Tensor:
    """How far the reference may act, 0 to 1, (B, 1, H, W): by the mean modulus of the finest correlation in `hints` around.

    Two contrasts of one head correlate wherever there is something to transfer; noise and strangers do so by chance alone.
    """
    low, high = between
    return ((windowed(hints[:, 2:3].abs(), radius) - low) / (high - low)).clamp(0, 1)


def room_for_detail(x: Tensor, base: Tensor, factors: tuple[int, int], between: tuple[float, float]) -> Tensor:
    """How much detail the image can lack, 0 to 1, (B, 1, 1, 1): by what the base adds beyond what was measured, in `base`
    (B, 1, H*fh, W*fw), over what `x` (B, 1, H, W) holds in its finest octave; logarithms of root mean squares.

    A scan that its scanner had interpolated holds little there that goes on beyond, though its other contrasts may be sharp.
    """
    low, high = between
    rows, columns = (n // 2 * 2 for n in x.shape[-2:])
    octave = beyond_measured(x[..., :rows, :columns], (2, 2))
    ratio = (root_mean_square(beyond_measured(base, factors)) / root_mean_square(octave)).log()
    return ((ratio - low) / (high - low)).clamp(0, 1)


def beyond_measured(x: Tensor, factors: tuple[int, int]) -> Tensor:
    """The part of `x` (B, 1, H, W) outside of the low band that a matrix coarser by `factors` would measure, float32."""
    with torch.autocast(x.device.type, enabled=False):
        x = x.float()
        return x - zero_filled(measured(x, factors), factors)


def root_mean_square(x: Tensor) -> Tensor:
    """(B, 1, H, W) -> (B, 1, 1, 1)."""
    return x.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(LEAST_DETAIL)


def windowed(x: Tensor, radius: int) -> Tensor:
    """Mean over windows of (2 radius + 1) squared, cut at the borders, (B, C, H, W) -> the same."""
    side = 2 * radius + 1
    for kernel, padding in (((side, 1), (radius, 0)), ((1, side), (0, radius))):
        x = functional.avg_pool2d(x, kernel, stride=1, padding=padding, count_include_pad=False)
    return x


def faded(valid: Tensor) -> Tensor:
    """`valid` (B, 1, H, W), 1 or 0, made smooth from the inside: 0 wherever it is 0, 1 from 2 * BORDER pixels inside on."""
    side = 2 * BORDER + 1
    eroded = -functional.max_pool2d(-valid, side, stride=1, padding=BORDER)
    return windowed(windowed(eroded, BORDER // 2), BORDER // 2)
