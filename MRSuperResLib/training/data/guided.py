"""Training data of reference-guided networks: a coarse crop, its truth, and a reference: moved, missing, partial or wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from ...acquisition import bias_field
from ...networks.fasr import FASR
from ..pack import Pack
from .coarsen import MARGIN, degrade, trim
from .crops import PairDrawer, moved
from .samples import Samples, as_tensor
from .single import DataSpec

CAPACITY = 128  # pairs of a `Reservoir`
RESERVOIR_SEED = 5

Guided = tuple[Tensor, Tensor, Tensor, Tensor]  # low (1, p, p); high, reference, valid (1, p*fh, p*fw)


@dataclass(frozen=True)
class ReferenceSpec:
    """What happens to references in training, as probabilities.

    misaligned: moved by up to `shift` mm along rows and columns, small moves more often than large, and up to `rotation` degrees.
    missing: none at all (valid is 0). partial: cut off along a line. wrong: of another place or person, or noise. noise: largest
    standard deviation added, on the networks' scale. gain: the reference is multiplied by 1 - gain to 1 + gain, as another scaling
    of its intensities would.
    """

    misaligned: float = 0.5
    shift: float = 3.0
    rotation: float = 3.0
    missing: float = 0.12
    partial: float = 0.05
    wrong: float = 0.1
    noise: float = 0.02
    gain: float = 0.0


class GuidedPairs(Samples):
    """(low (1, p, p), high, reference, valid (1, p*fh, p*fw)), float32 on the networks' scale.

    clean: references are never moved, missing, wrong or noisy: for validation.
    """

    def __init__(
        self,
        pack: Pack,
        spec: DataSpec,
        guidance: ReferenceSpec,
        factors: tuple[int, int],
        seed: int = 0,
        start: int = 0,
        *,
        clean: bool = False,
    ) -> None:
        super().__init__(seed, start)
        self.spec, self.guidance, self.factors = spec, guidance, factors
        self.clean = clean
        self.transpose = factors[0] == factors[1]  # whether rows and columns may be exchanged
        self.drawer = PairDrawer(pack, spec.sources)

    def sample(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """One pair as tensors."""
        return tuple(as_tensor(image) for image in self.pair(rng))

    def pair(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(low (p, p), high, reference, valid (p*fh, p*fw))."""
        side = self.spec.patch + 2 * MARGIN
        shape = (side * self.factors[0], side * self.factors[1])
        high, reference, spacing = self.drawer.draw_pair(shape, rng, self.spec.augmentation, transpose=self.transpose)
        if self.spec.degradation.bias and rng.random() < 0.5:
            high = high * bias_field(high.shape, rng.uniform(0, self.spec.degradation.bias), rng)
        low = degrade(high, self.factors, self.spec.degradation, rng)
        valid = np.ones(shape, dtype=np.float32)
        if not self.clean:
            reference, valid = self._disturbed(reference, valid, spacing, rng)
        return trim(low, (1, 1)), *(trim(image, self.factors) for image in (high, reference * valid, valid))  # type: ignore[return-value]

    def _disturbed(
        self, reference: np.ndarray, valid: np.ndarray, spacing: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The reference and where it is valid, as drawn: another scaling, wrong, moved, noisy, missing or cut off."""
        plan = self.guidance
        if plan.gain:
            reference = reference * np.float32(rng.uniform(1 - plan.gain, 1 + plan.gain))
        if rng.random() < plan.wrong:
            reference = self._wrong(reference.shape, rng)
        elif rng.random() < plan.misaligned:
            amount = rng.random()  # small moves more often
            shift = rng.uniform(-1, 1, 2) * plan.shift * amount / spacing
            reference = moved(reference, shift, np.deg2rad(rng.uniform(-1, 1) * plan.rotation * amount))
        if plan.noise:
            reference = reference + rng.uniform(0, plan.noise) * rng.standard_normal(reference.shape, dtype=np.float32)
        if rng.random() < plan.missing:
            valid = np.zeros_like(valid)
        elif rng.random() < plan.partial:
            valid = half_plane(valid.shape, rng)
        return reference, valid

    def _wrong(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        if rng.random() < 0.25:
            return (rng.uniform(0, 0.7) + rng.uniform(0.05, 0.3) * rng.standard_normal(shape)).astype(np.float32)
        return self.drawer.draw_pair(shape, rng, self.spec.augmentation, transpose=self.transpose)[1]  # type: ignore[arg-type]


def half_plane(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """1 on one side of a random line through the middle half of `shape` (H, W), 0 on the other."""
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    angle = rng.uniform(0, 2 * np.pi)
    return (np.cos(angle) * rows + np.sin(angle) * columns > rng.uniform(-0.5, 0.5)).astype(np.float32)


class Reservoir:
    """Batches of pairs with what the network's base makes of them (`FASR.starts`), each pair used in several steps.

    Until `CAPACITY` pairs are there every step draws a fresh batch, later every `reuse`-th does and replaces others at random. A
    batch is flipped as a whole, and transposed where the factors allow. drawn: pairs taken from `stream` so far.
    """

    def __init__(
        self, stream: Iterable[Sequence[Tensor]], network: FASR, fabric: Fabric, reuse: int, seed: int
    ) -> None:
        self.stream, self.network, self.fabric, self.reuse = stream, network, fabric, reuse
        self.drawn = 0
        self.rng = np.random.default_rng((seed, RESERVOIR_SEED))

    def __iter__(self) -> Iterator[list[Tensor]]:
        """low, high, reference, valid, I_LR up, I_Ref down-up: each (batch, 1, rows, columns)."""
        kept: list[tuple[Tensor, ...]] = []
        for batch in self.stream:
            fresh = [image.to(self.fabric.device, non_blocking=True) for image in batch]
            low, _, reference, valid = fresh
            with torch.no_grad(), self.fabric.autocast():
                fresh += self.network.starts(low, reference, valid)
            count = len(low)
            self.drawn += count
            if len(kept) >= CAPACITY:
                for place in sorted(self.rng.choice(len(kept), count, replace=False), reverse=True):
                    kept.pop(place)
            kept += zip(*(image.unbind() for image in fresh), strict=True)
            for _ in range(self.reuse if len(kept) >= CAPACITY else 1):
                chosen = [kept[place] for place in self.rng.choice(len(kept), count, replace=False)]
                yield self._turned([torch.stack(images) for images in zip(*chosen, strict=True)])

    def _turned(self, images: list[Tensor]) -> list[Tensor]:
        axes = [axis for axis in (-2, -1) if self.rng.random() < 0.5]
        images = [image.flip(axes) for image in images] if axes else images
        if self.network.factors[0] == self.network.factors[1] and self.rng.random() < 0.5:
            images = [image.transpose(-2, -1).contiguous() for image in images]
        return images
