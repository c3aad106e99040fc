"""Batches of single slices with and without lesions, and where they are: what a lesion detector learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..pack import Pack
from .lesions import LesionSpec, draw_lesions, insert_lesions
from .physics import PhysicsSpec
from .translation import disturbed
from .visits import VisitDrawer

if TYPE_CHECKING:
    from ..data.crops import SourceSpec
    from ..data.translation import DisturbanceSpec

INVISIBLE = 0.03  # on the networks' scale, over a few pixels: a lesion that changes the slice by less is not asked for
Batch = tuple[
    Tensor, Tensor, Tensor, Tensor
]  # slice, lesion (B, 1, p, p), contrast (B,), weight of pixels (B, 1, p, p)


@dataclass(frozen=True)
class FlagStreamSpec:
    """Pixels of `spacing` mm, log-uniform; lesions; synthetic heads."""

    spacing: tuple[float, float] = (0.6, 1.5)
    lesions: LesionSpec = field(default_factory=lambda: LesionSpec((0.25, 0.35, 0.25, 0.15)))
    physics: PhysicsSpec = field(default_factory=PhysicsSpec)


class FlagStream:
    """Endless batches (slice, lesion, contrast, weight); `start` samples have been drawn before. Arguments as `TranslationStream`.

    Weight 0: lesions that cannot be seen in this contrast, and what is as bright on FLAIR as real lesions are, which nobody has
    labelled.
    """

    def __init__(
        self,
        pack: Pack,
        sources: Sequence[SourceSpec],
        patch: int,
        spec: FlagStreamSpec,
        disturbance: DisturbanceSpec,
        contrasts: Sequence[str],
        batch: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        start: int = 0,
    ) -> None:
        self.spec, self.disturbance, self.contrasts = spec, disturbance, tuple(contrasts)
        self.batch, self.seed, self.number = batch, seed, start // batch
        self.device = torch.device(device)
        self.visits = VisitDrawer(pack, sources, patch, spec.spacing, spec.physics, contrasts, 1, self.device)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.draw(self.number)
            self.number += 1

    def draw(self, number: int) -> Batch:
        """Batch `number`."""
        host = np.random.default_rng((self.seed, number))
        generator = torch.Generator(self.device)
        generator.manual_seed(int(host.integers(2**62)))
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            drawn = self.visits.draw(self.batch, host, generator)
            lesions = draw_lesions(drawn.ways, drawn.names, self.spec.lesions, host).to(self.device)
            images, covered = insert_lesions(drawn.images, lesions, drawn.spacing, generator=generator)
            change = functional.avg_pool2d((images - drawn.images).abs(), 5, 1, 2)
            unseen = (covered > 0.1) & (change < INVISIBLE)
            weight = (1 - drawn.bright * (covered < 0.5)) * ~unseen
            which = torch.tensor([self.contrasts.index(names[0]) for names in drawn.names], device=self.device)
            return disturbed(images, self.disturbance, generator), (covered > 0.5).float(), which, weight
