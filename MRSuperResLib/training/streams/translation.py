"""Batches of translation pairs on any device: real scans of one visit and physically possible synthetic ones, both with lesions.

Batch n depends on `seed` and n alone. Lesions are in source and target alike, as both sequences would show them, before the source
is disturbed as scans are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..pack import Pack
from .lesions import LesionSpec, draw_lesions, insert_lesions
from .numbered import NumberedStream
from .physics import PhysicsSpec, blurred
from .visits import VisitDrawer, affine

if TYPE_CHECKING:
    from ..data.crops import SourceSpec
    from ..data.translation import DisturbanceSpec

LIFTED = 1 / 3  # of the sources
GAMMA = (0.75, 1.35)  # of the source
Batch = tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor
]  # source, target (B, 1, p, p), their contrasts (B,), weight of pixels


@dataclass(frozen=True)
class TranslationStreamSpec:
    """What is drawn, beside what [data] and [disturbance] say. spacing: mm of a pixel, log-uniform.

    lesion_weight, bright_weight: added to the weight of pixels in a lesion, and of those as bright on FLAIR as MS lesions are.
    plain: share of the pairs that are left as they were acquired or painted, for those who learn what a translator makes of scans.
    """

    spacing: tuple[float, float] = (0.6, 1.5)
    lesion_weight: float = 3.0
    bright_weight: float = 1.0
    plain: float = 0.0
    lesions: LesionSpec = field(default_factory=LesionSpec)
    physics: PhysicsSpec = field(default_factory=PhysicsSpec)


class TranslationStream(NumberedStream):
    """Batches (source, target, a, b, weight) of crops of `patch` pixels.

    sources: as `VisitDrawer` has them.
    """

    def __init__(
        self,
        pack: Pack,
        sources: Sequence[SourceSpec],
        patch: int,
        spec: TranslationStreamSpec,
        disturbance: DisturbanceSpec,
        contrasts: Sequence[str],
        batch: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        start: int = 0,
    ) -> None:
        super().__init__(batch, device, seed, start)
        self.spec, self.disturbance, self.contrasts = spec, disturbance, tuple(contrasts)
        self.visits = VisitDrawer(pack, sources, patch, spec.spacing, spec.physics, contrasts, 2, self.device)

    def make(self, host: np.random.Generator, generator: torch.Generator) -> Batch:
        """One batch."""
        drawn = self.visits.draw(self.batch, host, generator)
        lesions = draw_lesions(drawn.ways, drawn.names, self.spec.lesions, host).to(self.device)
        both, covered = insert_lesions(drawn.images, lesions, drawn.spacing, generator=generator)
        weight = 1 + self.spec.bright_weight * drawn.bright + self.spec.lesion_weight * covered
        source = disturbed(moved(both[:, :1], self.disturbance, generator), self.disturbance, generator)
        low, high = self.disturbance.target_gamma
        gamma = low + (high - low) * torch.rand(self.batch, 1, 1, 1, device=self.device, generator=generator)
        target = both[:, 1:].clamp_min(1e-6) ** gamma
        if self.spec.plain:
            kept = torch.rand(self.batch, 1, 1, 1, device=self.device, generator=generator) < self.spec.plain
            source, target = torch.where(kept, both[:, :1], source), torch.where(kept, both[:, 1:], target)
        a, b = (
            torch.tensor([self.contrasts.index(pair[n]) for pair in drawn.names], device=self.device) for n in (0, 1)
        )
        order = torch.randperm(self.batch, generator=generator, device=self.device)
        return source[order], target[order], a[order], b[order], weight[order]


def moved(images: Tensor, plan: DisturbanceSpec, generator: torch.Generator) -> Tensor:
    """`images` (B, 1, H, W), some shifted and turned a little, as two scans of a visit are against each other."""
    draws = torch.rand(len(images), 4, device=images.device, generator=generator)
    amount = (draws[:, :1] < plan.misaligned) * (2 * draws[:, 1:] - 1)
    angle = amount[:, 0] * math.radians(plan.rotation)
    shift = 2 * plan.shift * amount[:, 1:] / images.shape[-1]
    place = affine(angle, torch.ones_like(angle), shift[:, 0], shift[:, 1])
    grid = functional.affine_grid(place, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=False)


def disturbed(source: Tensor, plan: DisturbanceSpec, generator: torch.Generator) -> Tensor:
    """`source` (B, 1, H, W) softened, scaled, shaded, of another gamma, noisy and lifted, as `ContrastPairs` does it."""
    count, device = len(source), source.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, device=device, generator=generator)

    def chance(probability: float) -> Tensor:
        return (torch.rand(count, 1, 1, 1, device=device, generator=generator) < probability).float()

    source = blurred(source, (chance(plan.soft) * uniform(0.4, 1.5)).view(-1))
    knots = torch.randn(count, 1, 4, 4, device=device, generator=generator)
    bias = functional.interpolate(knots, size=source.shape[-2:], mode="bicubic", align_corners=True)
    source = source * uniform(*plan.gain) * torch.exp(chance(0.5) * uniform(0, 0.15) * bias)
    source = source.clamp_min(1e-6) ** uniform(*GAMMA)
    noise = chance(0.5) * uniform(0, plan.noise)
    real = source + noise * torch.randn(source.shape, device=device, generator=generator)
    source = torch.sqrt(real**2 + (noise * torch.randn(source.shape, device=device, generator=generator)) ** 2)
    lift = chance(LIFTED) * uniform(0, plan.lift)
    return lift + (1 - lift) * source
