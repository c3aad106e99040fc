"""Adversarial losses of MTSR-MRI: least squares (section 2.3.2, Mao et al. 2017), and the KL term of its latent code (eq. 7)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

REAL, FAKE = 1.0, 0.0


def judged(scores: Iterable[Tensor], wanted: float) -> Tensor:
    """Mean over scales of the mean squared distance of scores (B, 1, h, w) from `wanted`: `REAL` or `FAKE`.

    BicycleGAN's code sums over its two scales, and the paper is silent: a weight of 1 here is one of 0.5 there.
    """
    return torch.stack([(score.float() - wanted).square().mean() for score in scores]).mean()


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)), summed over the latent, mean over the batch; both (B, latent)."""
    return (-0.5 * (1 + log_variance - mean.square() - log_variance.exp())).sum(1).mean()
