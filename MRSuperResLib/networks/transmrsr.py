"""TransMRSR: thick slices made thin with a generative prior of what brain slices look like.

Huang, Liu, et al.: "TransMRSR: transformer-based self-distilled generative prior for brain MRI super-resolution", 2023, section 3,
figures 2 and 3, equations 1 to 11. The input is a slice already interpolated to the size of the answer and padded to 256 x 256.
An encoder of Swin blocks reads it at seven sizes; its last features become one latent for each size of a StyleSwin decoder,
drawn towards the nearest centre of the latents the decoder was trained with; its other features scale and shift a part of the
decoder's, so that the prior follows the scan. The answer is a residual.

The paper leaves open, and here it is: a latent for each of the seven sizes (its two blocks share it); features joined where a size
begins, before its blocks; half of the channels scaled and shifted; two residual blocks also in the reconstruction.

The ablations of table 3 are arguments: `truncation` of 1 (SDT), `features` (MREF), `skip` (SC). Without the prior (GP) the decoder
starts from random weights and there are no centres: `centres` of 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from .parts.swin import SwinLayer, from_windows, shift_mask, shift_windows, to_windows
from .stylswin import BASE, CENTRES, CHANNELS, HEAD_WIDTH, LATENT, SLOPE, StyleDecoder, heads_of, nearest_centre

PHI = 0.9  # the latent's own share, eq. 5
RESIDUAL_BLOCKS = 2  # section 4.3


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, width, H, W) -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Local features, refined."""
        return x + self.second(nn.functional.leaky_relu(self.first(x), SLOPE))


class EncoderLevel(nn.Module):
    """Eqs. 1 to 3: a residual Swin block of two layers (one shifted), a 3x3 convolution, a shortcut, then patch merging.

    (B, width, H, W) -> (B, after, H/2, W/2), H = W = `size`.
    """

    mask: Tensor

    def __init__(self, width: int, after: int, size: int, window: int, head_width: int, mlp_ratio: float) -> None:
        super().__init__()
        self.size, self.window = size, min(window, size)
        self.shift = self.window // 2 if size > self.window else 0
        heads = heads_of(width, head_width)
        self.plain = SwinLayer(width, heads, self.window, mlp_ratio)
        self.shifted = SwinLayer(width, heads, self.window, mlp_ratio)
        self.convolution = nn.Conv2d(width, width, 3, padding=1)
        self.merging = nn.Sequential(nn.LayerNorm(4 * width), nn.Linear(4 * width, after))
        mask = shift_mask(size, size, self.window) if self.shift else torch.zeros(0)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """One level further down."""
        y = self.plain(to_windows(x.permute(0, 2, 3, 1), self.window), None)
        if self.shift:
            y = self.shifted(shift_windows(y, self.size, self.window, -self.shift), self.mask)
            y = shift_windows(y, self.size, self.window, self.shift)
        else:
            y = self.shifted(y, None)
        y = from_windows(y, self.size, self.window).permute(0, 3, 1, 2)
        x = self.convolution(y) + x
        merged = rearrange(x, "b c (h m) (w n) -> b h w (m n c)", m=2, n=2)
        return self.merging(merged).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class ScaleAndShift(nn.Module):
    """CWSS, eqs. 6 to 9: the encoder's features scale and shift the second half of the decoder's channels.

    It begins as no change: the prior is first what it was trained to be.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.changed = width // 2
        self.convolution = nn.Conv2d(width, 2 * self.changed, 3, padding=1)
        nn.init.zeros_(self.convolution.weight)
        assert self.convolution.bias is not None
        with torch.no_grad():
            self.convolution.bias[: self.changed] = 1.0
            self.convolution.bias[self.changed :] = 0.0

    def forward(self, decoded: Tensor, encoded: Tensor) -> Tensor:
        """(B, H, W, width) and (B, width, H, W) -> (B, H, W, width)."""
        alpha, beta = self.convolution(encoded).permute(0, 2, 3, 1).chunk(2, -1)
        kept, changed = decoded.tensor_split((decoded.shape[-1] - self.changed,), -1)
        return torch.cat((kept, alpha * changed + beta), -1)


class TransMRSR(nn.Module):
    """(B, 1, size, size), interpolated -> (B, 1, size, size) on the networks' intensity scale; size is 4 * 2**(n - 1).

    factors: the enlargement it is trained for; the interpolation before it has already made the image that large. channels: of the
    decoder at 4, 8, ... pixels, and of the encoder. truncation: phi of eq. 5. centres: how many. features, skip: see above.
    """

    centres: Tensor

    def __init__(
        self,
        *,
        factors: tuple[int, int] = (8, 1),
        channels: Sequence[int] = CHANNELS,
        latent: int = LATENT,
        window: int = 8,
        head_width: int = HEAD_WIDTH,
        mlp_ratio: float = 4.0,
        centres: int = CENTRES,
        truncation: float = PHI,
        features: bool = True,
        skip: bool = True,
    ) -> None:
        super().__init__()
        if not 0 <= truncation <= 1:
            raise ValueError(f"truncation is {truncation:g}, expected 0 to 1")
        self.factors, self.truncation, self.skip = factors, truncation, skip
        self.size = BASE * 2 ** (len(channels) - 1)
        widths = channels[::-1]  # from the largest size down, as the encoder goes
        self.head = nn.Conv2d(1, widths[0], 3, padding=1)
        self.shallow = nn.Sequential(*(ResidualBlock(widths[0]) for _ in range(RESIDUAL_BLOCKS)))
        self.encoder = nn.ModuleList(
            EncoderLevel(width, after, self.size // 2**n, window, head_width, mlp_ratio)
            for n, (width, after) in enumerate(itertools.pairwise(widths))
        )
        self.latents = nn.ModuleList(nn.Linear(widths[-1] * BASE**2, latent) for _ in channels)
        self.register_buffer("centres", torch.zeros(centres, latent))
        self.decoder = StyleDecoder(
            channels=channels, latent=latent, window=window, head_width=head_width, mlp_ratio=mlp_ratio
        )
        self.modulation = nn.ModuleList(ScaleAndShift(width) for width in channels) if features else None
        self.reconstruction = nn.Sequential(*(ResidualBlock(widths[0]) for _ in range(RESIDUAL_BLOCKS)))
        self.tail = nn.Conv2d(widths[0], 1, 3, padding=1)
        nn.init.zeros_(self.tail.weight)  # the first answer is the interpolation
        assert self.tail.bias is not None
        nn.init.zeros_(self.tail.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, size, size), interpolated -> (B, 1, size, size)."""
        if x.shape[-2:] != (self.size, self.size):
            raise ValueError(f"a slice has {tuple(x.shape[-2:])} pixels, expected {self.size} x {self.size}")
        encoded = self.encoded(x)
        latents = self.truncated(self.read_latents(encoded[-1]))
        decoded = self.decoded(latents, encoded).permute(0, 3, 1, 2)
        residual: Tensor = self.tail(self.reconstruction(decoded + encoded[0] if self.skip else decoded))  # eq. 10
        return x.float() + residual.float() if self.skip else residual  # eq. 11; a residual is small beside its image

    def encoded(self, x: Tensor) -> list[Tensor]:
        """F_s = F_e0 at full size, then F_e1, F_e2, ... at halves of it, down to 4 x 4; each (B, channels, side, side)."""
        features = [self.shallow(self.head(x))]
        for level in self.encoder:
            features.append(level(features[-1]))
        return features

    def read_latents(self, last: Tensor) -> Tensor:
        """Eq. 4: (B, channels, 4, 4) -> (B, levels, latent)."""
        flat = last.flatten(1)
        return torch.stack([read(flat) for read in self.latents], 1)

    def truncated(self, latents: Tensor) -> Tensor:
        """Eq. 5: (B, levels, latent), each drawn towards the centre nearest to it."""
        if self.truncation == 1 or len(self.centres) == 0:
            return latents
        nearest = nearest_centre(latents.detach(), self.centres)
        return self.truncation * latents + (1 - self.truncation) * nearest

    def decoded(self, latents: Tensor, encoded: Sequence[Tensor]) -> Tensor:
        """Eqs. 6 to 9: (B, levels, latent) and the encoder's features -> F_d1, (B, size, size, channels)."""
        x = self.decoder.start(len(latents))
        for n, level in enumerate(self.decoder.levels):
            x = level.enlarged(x)  # type: ignore[operator]
            if self.modulation is not None:
                x = self.modulation[n](x, encoded[-1 - n])
            x = level(x, latents[:, n])
        return x


def build(*, factors: Sequence[int] = (8, 1), **hyperparameters: Any) -> TransMRSR:
    """TransMRSR from a card's hyper-parameters (JSON has lists where Python has tuples)."""
    rows, columns = factors
    return TransMRSR(factors=(int(rows), int(columns)), **hyperparameters)
