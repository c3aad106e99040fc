"""PatchGAN: a discriminator that judges patches, not whole images (Isola et al. 2017), at several scales (Wang et al. 2018).

MTSR-MRI uses it for super-resolution in place of ESRGAN's relativistic one (section 2.2) and, at two scales, for translation.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """(B, channels, H, W) -> (B, 1, h, w), one score a patch; 3 widths see 34 pixels, the 4 of pix2pix 70.

    classes: with one index an image, the condition shifts the first features, so that one discriminator judges several contrasts.
    Spectral instead of batch normalisation: batches are small, and slices must not influence each other.
    """

    def __init__(self, channels: int = 1, widths: Sequence[int] = (64, 128, 256, 512), classes: int = 0) -> None:
        super().__init__()
        self.classes = classes
        last = len(widths) - 1
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(before, width, 4, stride=1 if number == last else 2, padding=1))
            for number, (before, width) in enumerate(zip((channels, *widths), widths, strict=False))
        )
        self.shift = nn.Embedding(classes, widths[0]) if classes else None
        self.score = nn.Conv2d(widths[-1], 1, 4, padding=1)

    def forward(self, image: Tensor, which: Tensor | None = None) -> Tensor:
        """Scores of `image`; high is real. which: (B,) indices below `classes`."""
        features = image
        for number, layer in enumerate(self.layers):
            features = layer(features)
            if number == 0 and self.shift is not None:
                features = features + self.shift(which)[..., None, None]
            features = functional.leaky_relu(features, SLOPE)
        answer: Tensor = self.score(features)
        return answer


class MultiScaleDiscriminator(nn.Module):
    """`scales` patch discriminators, each on an image half as large as the one before; a list of their scores."""

    def __init__(
        self, channels: int = 1, widths: Sequence[int] = (64, 128, 256, 512), scales: int = 2, classes: int = 0
    ) -> None:
        super().__init__()
        self.scales = nn.ModuleList(PatchDiscriminator(channels, widths, classes) for _ in range(scales))

    def forward(self, image: Tensor, which: Tensor | None = None) -> list[Tensor]:
        """As `PatchDiscriminator.forward`, for every scale."""
        scores = []
        for discriminator in self.scales:
            scores.append(discriminator(image, which))
            image = functional.avg_pool2d(image, 2)
        return scores
