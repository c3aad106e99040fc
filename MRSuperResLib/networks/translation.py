"""MTSR-MRI's translation model: one contrast in, many plausible images of another contrast out.

Dey and Ebrahimi: "MTSR-MRI: combined modality translation and super-resolution of magnetic resonance images", section 2.3 and
figure 3, after BicycleGAN (Zhu et al. 2017b): a U-Net generator G(A, z), and a ResNet encoder q(z|B) that only training needs.

Where the paper is silent, this is how it is read here. z enters at every level: repeating it over the image and concatenating it to
the features before a convolution, as BicycleGAN does, is away from the borders the same as adding a linear function of it to the
convolution's answer, which is what is done. The source and target contrasts enter the same way, so one generator serves all
directions and what it learns of anatomy from one direction serves the others. There is no normalisation over the image: each slice
would be normalised by itself, and the slices of a volume would not fit together. The generator works at half resolution
(pixels unshuffled to channels and back), four times cheaper and lossless; the four pixels that come back from one place are then
mixed with their neighbours, or samples would show a checkerboard of two pixels (`mixing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .parts.unet import decoded, padded

CONTRASTS = ("T1w", "T2w", "FLAIR")
LATENT = 8  # section 2.3, as BicycleGAN's
SLOPE = 0.2
FIRST_RESIDUAL = (
    0.1  # blocks start almost straight: without normalisation a deep net would amplify what its first steps do
)
LOG_VARIANCE = (-10.0, 10.0)  # beyond these exp() means nothing in training


class Condition(nn.Module):
    """What is not an image: z (B, latent), source and target (indices of contrasts) -> (B, latent + 2 * contrasts)."""

    def __init__(self, latent: int, contrasts: int) -> None:
        super().__init__()
        self.contrasts = contrasts
        self.size = latent + 2 * contrasts

    def forward(self, z: Tensor, source: Tensor | int, target: Tensor | int) -> Tensor:
        """Concatenate z and the two one-hot codes."""
        return torch.cat([z, *(one_hot(which, self.contrasts, z) for which in (source, target))], 1)


def one_hot(which: Tensor | int, count: int, like: Tensor) -> Tensor:
    """(B, count) for an index or one per image; type, device and B as `like`."""
    index = torch.as_tensor(which, device=like.device).expand(len(like))
    return functional.one_hot(index, count).to(like.dtype)


class ConditionedBlock(nn.Module):
    """Two 3x3 convolutions with a residual; the condition shifts the features between them."""

    def __init__(self, before: int, width: int, condition: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, width, 3, padding=1)
        self.shift = nn.Linear(condition, width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.straight = nn.Conv2d(before, width, 1) if before != width else nn.Identity()
        self.second.weight.data *= FIRST_RESIDUAL

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, before, H, W), (B, condition) -> (B, width, H, W)."""
        inner = functional.leaky_relu(self.first(x) + self.shift(condition)[..., None, None], SLOPE)
        return functional.leaky_relu(self.straight(x) + self.second(inner), SLOPE)


class Translator(nn.Module):
    """G(A, z) of section 2.3: (B, 1, H, W), z (B, latent), source, target -> (B, 1, H, W), any H and W.

    widths: channels at 1/2, 1/4, 1/8, ... of the resolution. contrasts: names, whose indices source and target are. mixing: the
    part of either neighbour in a pixel of the answer, along rows and along columns; 1/4 would leave nothing of a checkerboard and
    of the finest detail. Images are on the networks' scale of their own contrast.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (48, 96, 160, 256),
        latent: int = LATENT,
        contrasts: Sequence[str] = CONTRASTS,
        mixing: float = 0.0,
    ) -> None:
        super().__init__()
        self.contrasts, self.latent, self.factors = tuple(contrasts), latent, (1, 1)
        self.mixing = mixing
        self.multiple = 2 ** len(widths)
        self.condition = Condition(latent, len(self.contrasts))
        size = self.condition.size
        self.head = nn.Conv2d(4, widths[0], 3, padding=1)
        self.down = nn.ModuleList(
            ConditionedBlock(before, width, size) for before, width in zip((widths[0], *widths), widths, strict=False)
        )
        self.up = nn.ModuleList(
            ConditionedBlock(deep + width, width, size)
            for deep, width in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.tail = nn.Conv2d(widths[0], 4, 3, padding=1)

    def forward(self, x: Tensor, z: Tensor, source: Tensor | int, target: Tensor | int) -> Tensor:
        """Translate x, of contrast `source`, to `target`; z = 0 is the centre of what z is drawn from."""
        height, width = x.shape[-2:]
        x = padded(x, self.multiple)
        condition = self.condition(z, source, target)
        features = self.head(functional.pixel_unshuffle(x, 2))  # (B, widths[0], H/2, W/2)
        levels: list[Tensor] = []
        for block in self.down:
            if levels:
                features = functional.avg_pool2d(features, 2)
            features = block(features, condition)
            levels.append(features)
        answer = functional.pixel_shuffle(self.tail(decoded(self.up, levels, condition)), 2)
        if self.mixing:
            answer = mixed(answer, self.mixing)
        return answer[..., :height, :width]


def mixed(x: Tensor, part: float) -> Tensor:
    """(B, C, H, W) with `part` of either neighbour in each pixel, along columns and along rows; float32."""
    x = functional.pad(x.float(), (1, 1, 1, 1), mode="replicate")
    x = x[..., 1:-1] + part * (x[..., :-2] - 2 * x[..., 1:-1] + x[..., 2:])
    return x[..., 1:-1, :] + part * (x[..., :-2, :] - 2 * x[..., 1:-1, :] + x[..., 2:, :])


class LatentEncoder(nn.Module):
    """q(z|B) of section 2.3, a ResNet: (B, 1, H, W) and its contrast -> mean and log variance of z, each (B, latent)."""

    def __init__(
        self, *, widths: Sequence[int] = (32, 64, 96, 128), latent: int = LATENT, contrasts: Sequence[str] = CONTRASTS
    ) -> None:
        super().__init__()
        self.contrasts = len(contrasts)
        self.head = nn.Conv2d(1, widths[0], 4, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            ConditionedBlock(before, width, self.contrasts)
            for before, width in zip((widths[0], *widths), widths, strict=False)
        )
        self.mean = nn.Linear(widths[-1], latent)
        self.log_variance = nn.Linear(widths[-1], latent)

    def forward(self, image: Tensor, contrast: Tensor | int) -> tuple[Tensor, Tensor]:
        """Encode `image`, of `contrast`."""
        features = self.head(image)
        which = one_hot(contrast, self.contrasts, features)
        for block in self.blocks:
            features = functional.avg_pool2d(block(features, which), 2)
        pooled = features.mean((2, 3)).float()
        return self.mean(pooled), self.log_variance(pooled).clamp(*LOG_VARIANCE)


def build(**hyperparameters: Any) -> Translator:
    """The generator from a card's hyper-parameters; the encoder is not needed to run it."""
    return Translator(**hyperparameters)
