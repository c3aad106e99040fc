"""Says how far a translation may be from the truth: the scale of its absolute error, pixel by pixel.

Ours. It sees the source, the mean of the translator's samples and how much they differ, in the pixel and around it: averages over
2, 4, 8 and 16 pixels, how rough both images are there, and whether they go together. That is fixed; a few layers, the same for
every pixel, learn what it means. The error is taken as Laplace distributed, whose one parameter is the mean absolute error (Kendall
and Gal 2017, section 3.1, with L1). Its logarithm is a line in the logarithm of the samples' deviation, plus what the rest tells: a
training that holds the second part small keeps to the deviation where few people have taught it more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .parts.unet import padded
from .translation import CONTRASTS, one_hot

SCALES = (2, 4, 8, 16)  # pixels
LEAST = 1e-3  # on the networks' scale: deviations are told apart by their logarithm, down to that
FEATURES = 3 + 6 * len(SCALES) + 2
DEVIATIONS = (2, 5, 11)  # features: the logarithm of the deviation in the pixel, and averaged over 2 and 4 pixels
SLOPE, OFFSET = 0.3, -2.5  # where training starts: errors of 0.08 in the mean
RANGE = (-7.0, 1.0)  # of the logarithm of the scale: 0.001 to 2.7


class ErrorScale(nn.Module):
    """(B, 3, H, W), source and target -> logarithm of the mean absolute error (B, 1, H, W), any H and W.

    The channels are the source, the samples' mean and their standard deviation, on the networks' scale. widths: hidden channels.
    contrasts: names, whose indices source and target are.
    """

    def __init__(self, *, widths: Sequence[int] = (48, 48), contrasts: Sequence[str] = CONTRASTS) -> None:
        super().__init__()
        self.contrasts, self.factors = tuple(contrasts), (1, 1)
        count = len(self.contrasts)
        layers: list[nn.Module] = []
        for before, width in zip((FEATURES + 2 * count, *widths), widths, strict=False):
            layers += [nn.Linear(before, width), nn.SiLU()]
        self.beyond = nn.Sequential(*layers, nn.Linear(widths[-1], 1))
        self.line = nn.Linear(2 * count, len(DEVIATIONS) + 1)
        nn.init.zeros_(self.line.weight)
        self.line.bias.data = torch.tensor([SLOPE, *[0.0] * (len(DEVIATIONS) - 1), OFFSET])

    def forward(self, x: Tensor, source: Tensor | int, target: Tensor | int) -> Tensor:
        """The logarithm of the scale; of `features` of N pixels, (N, FEATURES), its two parts, (N, 2)."""
        if x.ndim == 2:
            return self.parts(x, source, target)
        batch, _, height, width = x.shape
        found = features(x).permute(0, 2, 3, 1).reshape(-1, FEATURES)  # (B*H*W, FEATURES)
        each = [torch.as_tensor(which, device=x.device).expand(batch) for which in (source, target)]
        parts = self.parts(found, *(which.repeat_interleave(height * width) for which in each))
        return parts.sum(1).clamp(*RANGE).view(batch, 1, height, width)

    def parts(self, found: Tensor, source: Tensor | int, target: Tensor | int) -> Tensor:
        """The line in the deviation, and what else is known, (N, 2)."""
        condition = torch.cat([one_hot(which, len(self.contrasts), found) for which in (source, target)], 1)
        weights = self.line(condition)  # (N, 4)
        line = (weights[:, :-1] * found[:, list(DEVIATIONS)]).sum(1, keepdim=True) + weights[:, -1:]
        return torch.cat((line, self.beyond(torch.cat((found, condition), 1))), 1)


def features(x: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, FEATURES, H, W): what is known of each pixel, each about 0 and of spread 1.

    Source, mean and logarithm of the deviation; by scale, their averages, the standard deviation of source and of mean, and the
    covariance of the two; the gradients of source and mean.
    """
    height, width = x.shape[-2:]
    source, mean, deviation = x.split(1, 1)
    logarithm = deviation.clamp_min(LEAST).log()
    found = [_images(source, mean, logarithm)]
    whole = torch.cat((source, mean, logarithm, source * source, mean * mean, source * mean), 1)
    whole = padded(whole, SCALES[-1])
    for scale in SCALES:
        a, b, d, aa, bb, ab = functional.avg_pool2d(whole, scale).split(1, 1)
        rough = [(square - one * one).clamp_min(1e-6).sqrt() / 0.1 for square, one in ((aa, a), (bb, b))]
        coarse = torch.cat((_images(a, b, d), *rough, (ab - a * b) / 0.02), 1)
        fine = functional.interpolate(coarse, scale_factor=float(scale), mode="bilinear", align_corners=False)
        found.append(fine[..., :height, :width])
    return torch.cat((*found, gradient(source) / 0.2, gradient(mean) / 0.2), 1)


def _images(source: Tensor, mean: Tensor, logarithm: Tensor) -> Tensor:
    return torch.cat(((source - 0.4) / 0.3, (mean - 0.4) / 0.3, (logarithm + 2.7) / 0.8), 1)


def gradient(x: Tensor) -> Tensor:
    """Length of the gradient of (B, 1, H, W), per two pixels."""
    x = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    along = x[..., 1:-1, 2:] - x[..., 1:-1, :-2]
    down = x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
    return (along * along + down * down + 1e-8).sqrt()


def build(**hyperparameters: Any) -> ErrorScale:
    """The network from a card's hyper-parameters."""
    return ErrorScale(**hyperparameters)
