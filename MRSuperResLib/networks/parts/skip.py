"""What a residual network's answer is added to: an interpolation of its input; and how much of the answer counts where.

An image with a coarse matrix holds the centre of k-space. Its band-limited interpolation (zero-filling) keeps exactly that; a
network then has to find what lies outside, and should change little inside. How much it may is a number for each image, found by
the network itself (`Gains`): images that were blurred and not truncated need both.
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from .projection import bicubic

FIRST_GAINS = (0.3, 0.8)  # share of the residual that is added inside the measured band, and outside

Skip = Literal["none", "bicubic", "zerofill"]
Consistency = Literal["none", "soft"]


def check_skip(skip: str, consistency: str) -> None:
    """Raise `ValueError` unless both are known and go together."""
    for name, value, known in (("skip", skip, Skip), ("consistency", consistency, Consistency)):
        if value not in known.__args__:  # type: ignore[attr-defined]
            raise ValueError(f"{name} is '{value}', expected {' or '.join(map(repr, known.__args__))}")  # type: ignore[attr-defined]
    if consistency == "soft" and skip != "zerofill":
        raise ValueError(f"consistency is 'soft' and skip '{skip}', expected 'zerofill', which keeps what was measured")


class Gains(nn.Module):
    """Shares of the residual to add inside and outside the measured band, from the mean features of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, 2)
        nn.init.zeros_(self.linear.weight)
        self.linear.bias.data = torch.tensor([math.log(gain / (1 - gain)) for gain in FIRST_GAINS])

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, 2) in [0, 1]: inside, outside."""
        pooled = torch.cat((features.float().mean((-2, -1)), features.float().abs().mean((-2, -1))), 1)
        return torch.sigmoid(functional.linear(pooled, self.linear.weight.float(), self.linear.bias.float()))


def added(
    residual: Tensor,
    x: Tensor,
    factors: tuple[int, int],
    skip: Skip,
    gains: Gains | None = None,
    features: Tensor | None = None,
) -> Tensor:
    """`residual` (B, C, H*fh, W*fw) plus the interpolation of `x` (B, C, H, W), float32: bicubic, or zero-filled.

    With `gains`, which read `features` (B, width, H, W), a zero-filled image gets two shares of the residual: of its part inside
    the measured band, and of the rest.
    """
    with torch.autocast(x.device.type, enabled=False):  # the residual is small beside what it is added to
        x, residual = x.float(), residual.float()
        if skip == "bicubic":
            return bicubic(x, residual.shape[-2:]) + residual
        if gains is None or features is None:
            return zero_filled(x, factors) + residual
        inside, outside = gains(features)[..., None, None, None].unbind(1)  # (B, 1, 1, 1) each
        # U x + outside (R - P R) + inside P R, where P R = U U+ R
        within = (inside - outside) * measured(residual, factors)
        return zero_filled(x + within, factors) + outside * residual


def zero_filled(x: Tensor, factors: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, C, H*fh, W*fw): the band-limited interpolation on edge-aligned grids, U x along both axes.

    The image is continued by its mirror image beyond the edges, so that its spectrum is a cosine transform (DCT-II); that is
    padded with zeros. Unlike the Fourier transform's own periodic continuation this does not ring where opposite edges differ.
    """
    rows, columns = (_interpolation(n, factor, x.device) for n, factor in zip(x.shape[-2:], factors, strict=True))
    return _along(x, rows, columns)


def measured(x: Tensor, factors: tuple[int, int]) -> Tensor:
    """(B, C, H*fh, W*fw) -> (B, C, H, W): U+ x, the image whose zero-filled interpolation is the part of `x` in the low band."""
    sizes = [n // factor for n, factor in zip(x.shape[-2:], factors, strict=True)]
    rows, columns = (_interpolation(n, factor, x.device) for n, factor in zip(sizes, factors, strict=True))
    inverse = [
        None if matrix is None else matrix.T / factor for matrix, factor in zip((rows, columns), factors, strict=True)
    ]
    return _along(x, *inverse)


def _along(x: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """`x` (B, C, H, W) multiplied along both axes, None leaving one as it is."""
    if rows is not None:
        x = rows @ x
    return x if columns is None else x @ columns.T


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _interpolation(n_low: int, factor: int, device: torch.device) -> Tensor | None:
    """U (n_low*factor, n_low) along one axis, None for factor 1; to the compiler a constant."""
    return None if factor == 1 else _matrix(n_low, factor, device)


@functools.lru_cache(maxsize=64)
def _matrix(n_low: int, factor: int, device: torch.device) -> Tensor:
    """U, float32 from float64; its columns are orthogonal and have the squared norm `factor`."""
    with torch.inference_mode(False):  # a matrix made in inference mode could not serve training
        matrix = math.sqrt(factor) * cosines(n_low * factor, n_low) @ cosines(n_low, n_low).T
        return matrix.to(device=device, dtype=torch.float32)


def cosines(n: int, n_low: int) -> Tensor:
    """(n, n_low), float64: the `n_low` lowest cosines (DCT-II) of `n` samples, orthonormal columns."""
    frequency = torch.arange(n_low, dtype=torch.float64)
    basis = torch.cos(math.pi / n * (torch.arange(n, dtype=torch.float64)[:, None] + 0.5) * frequency)
    return basis * torch.where(frequency == 0, math.sqrt(1 / n), math.sqrt(2 / n))
