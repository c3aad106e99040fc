"""Adversarial losses: least squares (MTSR-MRI, section 2.3.2; Mao et al. 2017) and logistic; MTSR-MRI's KL term (eq. 7)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

REAL, FAKE = 1.0, 0.0


def lsgan_loss(scores: Iterable[Tensor], wanted: float) -> Tensor:
    """Mean over scales of the mean squared distance of scores (B, 1, h, w) from `wanted`: `REAL` or `FAKE`.

    BicycleGAN's code sums over its two scales, and the paper is silent: a weight of 1 here is one of 0.5 there.
    """
    return torch.stack([(score.float() - wanted).square().mean() for score in scores]).mean()


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)), summed over the latent, mean over the batch; both (B, latent)."""
    return (-0.5 * (1 + log_variance - mean.square() - log_variance.exp())).sum(1).mean()


def logistic_loss(logits: Tensor, wanted: float) -> Tensor:
    """Mean cross-entropy of `logits` with `wanted`, `REAL` or `FAKE`: -log D where a generator wants `REAL`."""
    return functional.binary_cross_entropy_with_logits(
        logits.float(), torch.full_like(logits, wanted, dtype=torch.float32)
    )
