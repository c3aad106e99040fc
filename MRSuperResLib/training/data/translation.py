"""Training pairs for translation: one slice in two contrasts, real or made from a label map, the source disturbed as scans are.

Both come on the networks' scale of their own contrast. The source is moved a little against the target: two scans of a visit never
fit exactly, and a model trained on perfect pairs alone blurs real ones, or copies edges that are not there. The target's contrast
varies too, as it does with acquisition settings, which the latent code encodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from torch import Tensor

from ...acquisition import add_rician_noise, bias_field
from ...errors import UsageError
from ..pack import Entry, Pack
from .crops import ATTEMPTS, FOREGROUND, PairDrawer, moved
from .samples import Samples, as_tensor
from .single import DataSpec
from .synthesis import synthesise_contrasts

LIFTED = 1 / 3  # of the sources
ContrastPair = tuple[Tensor, Tensor, int, int]  # source, target (1, p, p), and the indices of their contrasts


@dataclass(frozen=True)
class DisturbanceSpec:
    """What happens to a pair: `misaligned` of the sources are moved by up to `shift` pixels and `rotation` degrees.

    gain: of the source, because the bright end of the scale depends on what else is in view (fat, vessels, a stripped skull).
    target_gamma: of the target alone, the acquisition settings that the latent code is to encode. noise: largest standard deviation
    added to the source, Rician. soft: probability of a source with less resolution, blurred by up to 1.5 pixels. lift: how far air
    is raised above the darkest voxels at most, as noise and the undershoot of an interpolation do; for a third of the sources.
    """

    misaligned: float = 0.5
    shift: float = 1.5
    rotation: float = 1.0
    gain: tuple[float, float] = (0.7, 1.15)
    target_gamma: tuple[float, float] = (0.85, 1.2)
    noise: float = 0.03
    soft: float = 0.2
    lift: float = 0.0


class ContrastPairs(Samples):
    """(source (1, p, p), target (1, p, p), and the indices of their contrasts), float32 on the networks' scale."""

    def __init__(
        self,
        pack: Pack,
        spec: DataSpec,
        disturbance: DisturbanceSpec,
        contrasts: Sequence[str],
        seed: int = 0,
        start: int = 0,
    ) -> None:
        super().__init__(seed, start)
        self.pack, self.spec, self.disturbance, self.contrasts = pack, spec, disturbance, tuple(contrasts)
        self.drawer = PairDrawer(pack, spec.sources)

    def sample(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, int, int]:
        """One pair as tensors."""
        source, target, *which = self.pair(rng)
        return as_tensor(source), as_tensor(target), *which  # type: ignore[return-value]

    def pair(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int, int]:
        """Source and target (p, p) and the indices of their contrasts."""
        augmentation, side = self.spec.augmentation, self.spec.patch
        zoom = rng.uniform(*augmentation.zoom) if rng.random() < augmentation.zoom_probability else 1.0
        wanted = int(np.ceil(side * zoom))
        images, names = self._drawn((wanted, wanted), rng)
        if zoom != 1.0:
            images = [ndimage.gaussian_filter(image, max(0.0, zoom - 1) / 2) for image in images]  # against aliasing
            images = [ndimage.zoom(i, side / wanted, order=1, mode="reflect", grid_mode=True) for i in images]
        if augmentation.flip:
            up, left = rng.choice((-1, 1), 2)
            images = [image[::up, ::left] for image in images]
        source, target = self._disturbed(images[0], images[1], rng)
        return source, target, self.contrasts.index(names[0]), self.contrasts.index(names[1])

    def _drawn(self, shape: tuple[int, int], rng: np.random.Generator) -> tuple[list[np.ndarray], list[str]]:
        drawer = self.drawer
        choice = int(rng.choice(len(drawer.choices), p=drawer.probabilities))
        planes = drawer.choices[choice][0].planes
        for _ in range(ATTEMPTS):
            group = drawer.groups[choice][rng.integers(len(drawer.groups[choice]))]
            seed = int(rng.integers(2**31))
            if group[0].labels:
                names = [str(name) for name in rng.choice(self.contrasts, 2, replace=False)]
                labels = drawer.crop(group[0], planes, shape, np.random.default_rng(seed))
                images = synthesise_contrasts(labels, names, rng)
            else:
                pair = self._two(group, rng)
                names = [entry.contrast for entry in pair]
                images = [
                    self.pack.unit(entry, drawer.crop(entry, planes, shape, np.random.default_rng(seed)))
                    for entry in pair
                ]  # the same seed, so the same place
            if min(image.mean() for image in images) > FOREGROUND:
                break
        return images, names

    def _two(self, group: tuple[Entry, ...], rng: np.random.Generator) -> list[Entry]:
        known = [entry for entry in group if entry.contrast in self.contrasts]
        if len(known) < 2:
            raise UsageError(f"{group[0].subject} has no two of the contrasts {', '.join(self.contrasts)}")
        return [known[n] for n in rng.choice(len(known), 2, replace=False)]

    def _disturbed(
        self, source: np.ndarray, target: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        plan = self.disturbance
        if rng.random() < plan.misaligned:
            shift, angle = rng.uniform(-1, 1, 2) * plan.shift, np.deg2rad(rng.uniform(-1, 1) * plan.rotation)
            source = moved(source, shift, angle)
        if rng.random() < plan.soft:
            source = ndimage.gaussian_filter(source, rng.uniform(0.4, 1.5, 2))
        source = source * rng.uniform(*plan.gain)
        if rng.random() < 0.5:
            source = source * bias_field(source.shape, rng.uniform(0, 0.15), rng)
        source = np.maximum(source, 0.0) ** rng.uniform(*self.spec.augmentation.gamma)
        if rng.random() < 0.5:
            source = add_rician_noise(source, rng.uniform(0, plan.noise), rng)
        if rng.random() < LIFTED:
            lift = rng.uniform(0, plan.lift)
            source = lift + (1 - lift) * source
        return source, np.maximum(target, 0.0) ** rng.uniform(*plan.target_gamma)
