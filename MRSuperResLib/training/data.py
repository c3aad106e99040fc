"""Training pairs: crops of sharp slices, and the same crops as a coarser acquisition would have shown them.

A sharp slice is an image (rows, columns) of a packed volume along a plane in which that volume is truly sharp. For through-plane
networks the rows are the axis that the acquisition coarsens.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import interpolate, ndimage
from torch.utils.data import IterableDataset

from ..acquisition import (
    SECOND_ORDER,
    AxisOperator,
    SecondOrder,
    add_gaussian_noise,
    add_rician_noise,
    axis_operator,
    bias_field,
    second_order,
)
from ..errors import UsageError
from .pack import Entry, Pack
from .synthesis import synthesise

MARGIN = 4  # coarse pixels around a patch that are acquired with it and cut off, so that borders are real
FOREGROUND = 0.03  # mean on the networks' scale under which a crop is mostly air
AIR_SHARE = 0.2  # of the crops that are mostly air, how many are kept: networks must learn to leave it dark
ATTEMPTS = 8
THICKNESS_STEPS = 8  # operators are cached, so thickness and apodisation come from a small set
PLANES = ("all", "axial", "coronal", "sagittal")


@dataclass(frozen=True)
class SourceSpec:
    """One kind of data in a recipe: entries that match `match`, sharp in `planes` ("all" or a plane), drawn with `weight`."""

    match: str
    planes: str = "all"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.planes not in PLANES:
            raise UsageError(f"planes is '{self.planes}', expected one of {', '.join(PLANES)}")


@dataclass(frozen=True)
class DegradationSpec:
    """How a recipe coarsens: `kinds` maps an operator's kind to its weight; the rest are ranges drawn from uniformly.

    thickness: full width at half maximum over coarse spacing. noise: standard deviation on the networks' scale, applied with
    `noise_probability`; a share `rician` of it is Rician, the rest Gaussian. (Rician noise brightens air: a network whose truth has
    dark air learns to darken it everywhere.) bias: standard deviation of the log bias field at its knots. second_order: the
    strength of the kind "second-order", which has blurs and noise of its own and needs factors (2, 2) or (4, 4).
    """

    kinds: dict[str, float]
    thickness: tuple[float, float] = (0.7, 1.3)
    apodisation: tuple[float, float] = (0.0, 1.0)
    noise: tuple[float, float] = (0.0, 0.03)
    noise_probability: float = 0.5
    rician: float = 0.25
    bias: float = 0.15
    second_order: SecondOrder = field(default_factory=SecondOrder)


@dataclass(frozen=True)
class AugmentationSpec:
    """What happens to a sharp crop first: probabilities, and the range of gamma and of zoom (new pixel size over old)."""

    flip: bool = True
    gamma: tuple[float, float] = (0.7, 1.4)
    curve_probability: float = 0.25
    zoom: tuple[float, float] = (0.75, 1.25)
    zoom_probability: float = 0.3


@dataclass(frozen=True)
class DataSpec:
    """A recipe's [data]: sources, coarse patch side in pixels, and the two specs above."""

    sources: tuple[SourceSpec, ...]
    degradation: DegradationSpec
    patch: int = 24
    augmentation: AugmentationSpec = field(default_factory=AugmentationSpec)


class SlicePairs(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """An endless stream of (low (1, p, p), high (1, p*fh, p*fw)), float32 on the networks' scale.

    `seed` and the position in the stream decide everything: pair n is the same whatever came before, which is what makes
    resuming exact. Worker w of W draws the pairs w, w + W, ...
    """

    def __init__(self, pack: Pack, spec: DataSpec, factors: tuple[int, int], seed: int = 0, start: int = 0) -> None:
        super().__init__()
        self.pack, self.spec, self.factors, self.seed, self.start = pack, spec, factors, seed, start
        self.drawer = CropDrawer(pack, spec.sources)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        worker = torch.utils.data.get_worker_info()
        number, stride = (self.start, 1) if worker is None else (self.start + worker.id, worker.num_workers)
        while True:
            low, high = self.pair(np.random.default_rng((self.seed, number)))
            yield torch.from_numpy(low)[None], torch.from_numpy(high)[None]
            number += stride

    def pair(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One pair, (p, p) and (p*fh, p*fw)."""
        side = self.spec.patch + 2 * MARGIN
        shape = (side * self.factors[0], side * self.factors[1])
        (high,) = self.drawer.draw(shape, rng, self.spec.augmentation, transpose=self.factors[0] == self.factors[1])
        if self.spec.degradation.bias and rng.random() < 0.5:
            high = high * bias_field(high.shape, rng.uniform(0, self.spec.degradation.bias), rng)
        low = degrade(high, self.factors, self.spec.degradation, rng)
        return trim(low, (1, 1)), trim(high, self.factors)


def trim(image: np.ndarray, factors: tuple[int, int]) -> np.ndarray:
    """`image` without the acquired margin, `factors` pixels of it for each coarse one."""
    rows, columns = MARGIN * factors[0], MARGIN * factors[1]
    return np.ascontiguousarray(image[rows:-rows, columns:-columns], dtype=np.float32)


class CropDrawer:
    """Draws sharp crops of one subject, of any entry or of several registered ones."""

    def __init__(self, pack: Pack, sources: tuple[SourceSpec, ...]) -> None:
        self.pack = pack
        self.choices: list[tuple[SourceSpec, tuple[Entry, ...]]] = []
        for source in sources:
            entries = pack.select(source.match)
            if not entries:
                raise UsageError(
                    f"no volume in {pack.path.name} matches '{source.match}'; it has {len(pack.entries)} entries"
                )
            self.choices.append((source, entries))
        weights = np.array([source.weight for source, _ in self.choices], dtype=float)
        self.probabilities = weights / weights.sum()

    def draw(
        self, shape: tuple[int, int], rng: np.random.Generator, augmentation: AugmentationSpec, *, transpose: bool
    ) -> tuple[np.ndarray]:
        """One augmented sharp crop of `shape`, float32 on the networks' scale; mostly air now and then."""
        source, entries = self.choices[rng.choice(len(self.choices), p=self.probabilities)]
        zoom = rng.uniform(*augmentation.zoom) if rng.random() < augmentation.zoom_probability else 1.0
        wanted = tuple(int(np.ceil(n * zoom)) for n in shape)
        for _ in range(ATTEMPTS):
            entry = entries[rng.integers(len(entries))]
            stored = self.crop(entry, source.planes, wanted, rng)
            if entry.labels:
                if np.mean(stored > 0) < 0.2:
                    continue
                (image,) = synthesise(stored, rng)
                break
            image = self.pack.unit(entry, stored)
            if image.mean() > FOREGROUND or rng.random() < AIR_SHARE:
                break
        else:
            image = stored.astype(np.float32) if entry.labels else image
        if zoom != 1.0:
            image = ndimage.zoom(
                image, (shape[0] / wanted[0], shape[1] / wanted[1]), order=3, mode="reflect", grid_mode=True
            )
        if augmentation.flip:
            image = image[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))]
            if transpose and rng.random() < 0.5:
                image = image.T
        return (recoloured(image, augmentation, rng),)

    def crop(self, entry: Entry, planes: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """A random crop (`shape`, mirrored where the slice is smaller) of a random slice along a sharp plane; stored values."""
        stored = self.pack.stored(entry)
        axis = int(rng.integers(3)) if planes == "all" else _array_axis(entry, planes)
        middle = stored.shape[axis]
        index = int(rng.integers(middle // 10, max(middle // 10 + 1, middle - middle // 10)))
        image = np.take(stored, index, axis=axis)
        if planes == "all" and rng.random() < 0.5:
            image = image.T
        pad = [
            (0, 0) if n <= m else ((n - m) // 2, n - m - (n - m) // 2) for n, m in zip(shape, image.shape, strict=True)
        ]
        if any(any(p) for p in pad):
            image = np.pad(image, pad, mode="symmetric")
        corner = [int(rng.integers(m - n + 1)) for n, m in zip(shape, image.shape, strict=True)]
        return image[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]]


def _array_axis(entry: Entry, plane: str) -> int:
    """The array axis (of k, j, i) perpendicular to `plane`."""
    for axis in range(3):
        if entry.grid.axis_name(axis) == plane:
            return 2 - axis
    raise UsageError(f"{entry.name} has no {plane} plane")


def recoloured(image: np.ndarray, augmentation: AugmentationSpec, rng: np.random.Generator) -> np.ndarray:
    """`image` under a random gamma and, now and then, a random smooth intensity curve: another contrast, same edges."""
    image = np.maximum(image, 0.0)
    if rng.random() < augmentation.curve_probability:
        knots = np.linspace(0.0, 1.2, 5)
        levels = np.concatenate(([0.0], rng.uniform(0.0, 1.0, 4)))
        image = interpolate.pchip_interpolate(knots, levels, np.minimum(image, 1.2))
    else:
        image = image ** rng.uniform(*augmentation.gamma)
    return np.asarray(image, dtype=np.float32)


@functools.lru_cache(maxsize=256)
def _cached_operator(kind: str, n_high: int, factor: int, thickness: float, apodisation: float) -> AxisOperator:
    return axis_operator(kind, n_high, factor, thickness=thickness, apodisation=apodisation)


def degrade(image: np.ndarray, factors: tuple[int, int], spec: DegradationSpec, rng: np.random.Generator) -> np.ndarray:
    """`image` (H, W) as a randomly drawn coarser acquisition shows it, (H/fh, W/fw), noise included."""
    kinds = list(spec.kinds)
    weights = np.array([spec.kinds[kind] for kind in kinds], dtype=float)
    kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
    if kind == SECOND_ORDER:
        return np.asarray(second_order(image, rng, factors=factors, strength=spec.second_order), dtype=np.float32)
    thickness = float(rng.choice(np.linspace(*spec.thickness, THICKNESS_STEPS)))
    apodisation = float(rng.choice(np.linspace(*spec.apodisation, THICKNESS_STEPS)))
    low = image
    for axis, factor in enumerate(factors):
        if factor != 1:
            low = _cached_operator(kind, image.shape[axis], factor, thickness, apodisation).apply(low, axis)
    if rng.random() < spec.noise_probability:
        add = add_rician_noise if rng.random() < spec.rician else add_gaussian_noise
        low = add(low, rng.uniform(*spec.noise), rng)
    return np.asarray(low, dtype=np.float32)
