"""Batches of translation pairs on any device: real scans of one visit and physically possible synthetic ones, both with lesions.

Batch n depends on `seed` and n alone. Scans lie on the device as half-precision slices; label maps stay packed and are cut on the
host. Lesions are in source and target alike, as both sequences would show them, before the source is disturbed as scans are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...errors import UsageError
from ...lesions import deep_inside
from ...relaxation import Acquired, acquired_as, tissue_levels
from ..pack import Entry, Pack
from .lesions import LesionSpec, draw_lesions, insert_lesions, random_places
from .physics import LabelTissues, PhysicsSpec, blurred, painted

if TYPE_CHECKING:
    from ..data.crops import SourceSpec
    from ..data.translation import DisturbanceSpec

TYPICAL = {"T1w": (0.15, 0.52, 0.72), "T2w": (0.85, 0.46, 0.32), "FLAIR": (0.12, 0.66, 0.54)}  # fluid, grey, white
CANVAS = 320  # pixels: slices are centred in a square of that side
TURN = 12.0  # degrees at most
LIFTED = 1 / 3  # of the sources
CENTRAL = (
    0.75  # of the way from the middle of a slice to a random place in the head: crops of little but air teach little
)
DEPTHS = (20.0, 10.0, 4.0)  # mm below the surface where the brain's tissues are looked for
MS_BRIGHT = 1.2  # of grey matter's level on FLAIR: real lesions, and fat, are brighter
Batch = tuple[
    Tensor, Tensor, Tensor, Tensor, Tensor
]  # source, target (B, 1, p, p), their contrasts (B,), weight of pixels


@dataclass(frozen=True)
class TranslationStreamSpec:
    """What is drawn, beside what [data] and [disturbance] say. spacing: mm of a pixel, log-uniform.

    lesion_weight, bright_weight: added to the weight of pixels in a lesion, and of those as bright on FLAIR as MS lesions are.
    """

    spacing: tuple[float, float] = (0.6, 1.5)
    lesion_weight: float = 3.0
    bright_weight: float = 1.0
    lesions: LesionSpec = field(default_factory=LesionSpec)
    physics: PhysicsSpec = field(default_factory=PhysicsSpec)


class TranslationStream:
    """Endless batches (source, target, a, b, weight) of `batch` crops of `patch` pixels; `start` samples have been drawn before.

    sources: scans, of which subjects with two known contrasts or more are used in axial slices, and label maps, which are cut
    along any plane; their weights say how much of a batch is synthetic.
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
        self.spec, self.disturbance, self.contrasts = spec, disturbance, tuple(contrasts)
        self.patch, self.batch, self.seed, self.number = patch, batch, seed, start // batch
        self.device = torch.device(device)
        self.pack = pack
        real, self.maps, synthetic = [], [], 0.0
        for source in sources:
            entries = pack.select(source.match)
            if entries and entries[0].labels:
                self.maps += entries
                synthetic += source.weight
            else:
                real.append((source.match, source.weight))
        share = synthetic / sum(source.weight for source in sources)
        self.synthetic = round(batch * share)
        self.shelf = SliceShelf(pack, real, self.contrasts, self.device) if real else None
        self.tissues = LabelTissues([pack.stored(entry) for entry in self.maps]) if self.maps else None

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
            return self._batch(host, generator)

    def _batch(self, host: np.random.Generator, generator: torch.Generator) -> Batch:
        real = self.batch - self.synthetic
        spacing = np.exp(host.uniform(*np.log(self.spec.spacing), self.batch))
        images, weights, names, ways = [], [], [], []
        for make, part in ((self._real, spacing[:real]), (self._made, spacing[real:])):
            if len(part):
                image, weight, pairs, how = make(part, host, generator)
                images.append(image)
                weights.append(weight)
                names += pairs
                ways += how
        drawn = draw_lesions(ways, names, self.spec.lesions, host).to(self.device)
        mm = torch.tensor(spacing, dtype=torch.float32, device=self.device)
        both, covered = insert_lesions(torch.cat(images), drawn, mm, generator=generator)
        weight = torch.cat(weights) + self.spec.lesion_weight * covered
        source, target = self._disturbed(both[:, :1], both[:, 1:], generator)
        a, b = (torch.tensor([self.contrasts.index(pair[n]) for pair in names], device=self.device) for n in (0, 1))
        order = torch.randperm(self.batch, generator=generator, device=self.device)
        return source[order], target[order], a[order], b[order], weight[order]

    def _real(
        self, spacing: np.ndarray, host: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, list[tuple[str, str]], list[Acquired]]:
        assert self.shelf is not None
        numbers, names, ways, zooms = [], [], [], []
        for mm in spacing:
            person, number = self.shelf.pick(host)
            pair = host.choice(len(person.contrasts), 2, replace=False)
            numbers.append([person.place(int(n), number) for n in (*pair, person.flair)])
            names.append((person.contrasts[pair[0]], person.contrasts[pair[1]]))
            ways.append(person.ways[host.integers(len(person.ways))])
            zooms.append(mm / person.pixel)
        stack = self.shelf.slices[torch.tensor(numbers, device=self.device)].float()  # (B, 3, CANVAS, CANVAS)
        levels = torch.tensor([self.shelf.bright[row[2]] for row in numbers], device=self.device)
        zoom = torch.tensor(zooms, dtype=torch.float32, device=self.device)
        stack = blurred(stack, ((zoom - 1).clamp_min(0) / 2))
        grid = functional.affine_grid(
            _places(stack[:, :2], zoom, self.patch, generator),
            [len(stack), 1, *(2 * [self.patch])],
            align_corners=False,
        )
        images = functional.grid_sample(stack, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
        bright = (images[:, 2:] > levels.view(-1, 1, 1, 1)).float()
        return images[:, :2].clamp_min(0), 1 + self.spec.bright_weight * bright, names, ways

    def _made(
        self, spacing: np.ndarray, host: np.random.Generator, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, list[tuple[str, str]], list[Acquired]]:
        assert self.tissues is not None
        count = len(spacing)
        cuts = np.zeros((count, CANVAS, CANVAS), np.uint8)
        names, ways, levels, zooms = [], [], [], []
        for number, mm in enumerate(spacing):
            entry = self.maps[host.integers(len(self.maps))]
            stored = self.pack.stored(entry)
            axis = int(host.choice(3, p=(0.6, 0.2, 0.2)))
            size = stored.shape[axis]
            image = np.take(stored, int(host.integers(size // 6, size - size // 6)), axis=axis)
            cuts[number] = _centred(self.tissues.coded(image))
            pair = [str(name) for name in host.choice(self.contrasts, 2, replace=False)]
            way, level = self.tissues.acquired(pair, self.spec.physics, host)
            names.append((pair[0], pair[1]))
            ways.append(way)
            levels.append(level)
            zooms.append(mm / min(entry.grid.spacing))
        codes = torch.from_numpy(cuts).to(self.device)
        zoom = torch.tensor(zooms, dtype=torch.float32, device=self.device)
        place = _places((codes[:, None] > 0).float(), zoom, self.patch, generator)
        table = torch.from_numpy(np.stack(levels)).to(self.device)
        images = painted(codes, table, zoom, place, self.patch, self.spec.physics, generator)
        return images, torch.ones_like(images[:, :1]), names, ways

    def _disturbed(self, source: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As `ContrastPairs` does it: the source moved, softened, scaled, shaded, noisy and lifted; the target's gamma alone."""
        plan, count = self.disturbance, len(source)

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(count, 1, 1, 1, device=self.device, generator=generator)

        def chance(probability: float) -> Tensor:
            return (torch.rand(count, 1, 1, 1, device=self.device, generator=generator) < probability).float()

        moved = chance(plan.misaligned)
        angle = (moved * uniform(-1, 1) * math.radians(plan.rotation)).view(-1)
        shift = (moved * uniform(-1, 1) * plan.shift, moved * uniform(-1, 1) * plan.shift)
        place = _affine(angle, torch.ones_like(angle), *(each.view(-1) * 2 / source.shape[-1] for each in shift))
        grid = functional.affine_grid(place, list(source.shape), align_corners=False)
        source = functional.grid_sample(source, grid, mode="bicubic", padding_mode="border", align_corners=False)
        source = blurred(source, (chance(plan.soft) * uniform(0.4, 1.5)).view(-1))
        knots = torch.randn(count, 1, 4, 4, device=self.device, generator=generator)
        bias = functional.interpolate(knots, size=source.shape[-2:], mode="bicubic", align_corners=True)
        source = source * uniform(*plan.gain) * torch.exp(chance(0.5) * uniform(0, 0.15) * bias)
        source = source.clamp_min(1e-6) ** uniform(0.75, 1.35)
        noise = chance(0.5) * uniform(0, plan.noise)
        real = source + noise * torch.randn(source.shape, device=self.device, generator=generator)
        source = torch.sqrt(real**2 + (noise * torch.randn(source.shape, device=self.device, generator=generator)) ** 2)
        lift = chance(LIFTED) * uniform(0, plan.lift)
        return lift + (1 - lift) * source, target.clamp_min(1e-6) ** uniform(*plan.target_gamma)


@dataclass(frozen=True)
class _Person:
    """Where the slices of one visit begin on the shelf: `first` of each of `contrasts`, `count` slices of `pixel` mm each."""

    contrasts: tuple[str, ...]
    first: tuple[int, ...]
    count: int
    pixel: float
    ways: tuple[Acquired, ...]

    @property
    def flair(self) -> int:
        """Its index among the contrasts; the first if there is none."""
        return self.contrasts.index("FLAIR") if "FLAIR" in self.contrasts else 0

    def place(self, contrast: int, number: int) -> int:
        """On the shelf, of slice `number` in that contrast."""
        return self.first[contrast] + number


class SliceShelf:
    """Axial slices of registered scans on a device, (n, CANVAS, CANVAS) in half precision, and how each visit was acquired."""

    def __init__(
        self, pack: Pack, sources: Sequence[tuple[str, float]], contrasts: Sequence[str], device: torch.device
    ) -> None:
        self.people: list[_Person] = []
        weights: list[float] = []
        stacks: list[np.ndarray] = []
        self.bright: list[float] = []  # the level above which a slice's contrast is brighter than any healthy tissue
        for pattern, weight in sources:
            visits: dict[str, list[Entry]] = {}
            for entry in pack.select(pattern):
                if entry.subject and not entry.labels and entry.contrast in contrasts:
                    visits.setdefault(entry.subject, []).append(entry)
            visits = {name: group for name, group in visits.items() if len(group) > 1}
            if not visits:
                raise UsageError(f"'{pattern}' matches no subject with two of {', '.join(contrasts)}")
            for group in visits.values():
                self._add(pack, group, stacks)
                weights.append(weight / len(visits))
        self.chances = np.array(weights) / sum(weights)
        self.slices = torch.from_numpy(np.concatenate(stacks)).to(device)

    def pick(self, host: np.random.Generator) -> tuple[_Person, int]:
        """A random visit and slice."""
        person = self.people[host.choice(len(self.people), p=self.chances)]
        return person, int(host.integers(person.count))

    def _add(self, pack: Pack, group: list[Entry], stacks: list[np.ndarray]) -> None:
        axis = next(2 - n for n in range(3) if group[0].grid.axis_name(n) == "axial")
        images = {}
        for entry in group:
            if not entry.grid.same_as(group[0].grid):
                raise UsageError(f"the contrasts of {entry.subject} lie on different grids: resample them to one")
            unit = np.maximum(np.moveaxis(pack.unit(entry, pack.stored(entry)), axis, 0), 0)
            images[entry.contrast] = unit
        spacing = group[0].grid.spacing[::-1]
        mm = (spacing[axis], *(spacing[n] for n in range(3) if n != axis))
        ways = _ways(images, mm)
        head = np.maximum.reduce([image > 0.1 for image in images.values()]).mean((1, 2))
        kept = np.flatnonzero(head > 0.3 * head.max())
        first = []
        for name, image in images.items():
            first.append(sum(map(len, stacks)))
            stacks.append(np.stack([_centred(image[n].astype(np.float16)) for n in kept]))
            grey = TYPICAL[name][1] if name == "FLAIR" else np.inf
            level = float(ways[0].level(name, _grey(ways[0]))) if name == "FLAIR" else grey
            self.bright += [MS_BRIGHT * level] * len(kept)
        self.people.append(_Person(tuple(images), tuple(first), len(kept), float(min(mm[1:])), ways))


def _grey(way: Acquired) -> np.ndarray:
    from ...relaxation import material

    return material("grey", way.field)


def _ways(images: dict[str, np.ndarray], mm: Sequence[float]) -> tuple[Acquired, ...]:
    """How the scans of a visit may have been made, from the brightness of its tissues."""
    bright = np.maximum.reduce(list(images.values())) > 0.1
    deep = next((inside for depth in DEPTHS if (inside := deep_inside(bright, mm, depth)).mean() > 0.02), bright)
    levels = tissue_levels({name: image[deep] for name, image in images.items()}, TYPICAL)
    return acquired_as(levels, np.random.default_rng(0))


def _centred(image: np.ndarray) -> np.ndarray:
    """`image` (H, W) in the middle of a square of CANVAS pixels, cut or padded with 0."""
    result = np.zeros((CANVAS, CANVAS), image.dtype)
    spans = []
    for n in image.shape:
        size = min(n, CANVAS)
        spans.append(
            (slice((n - size) // 2, (n - size) // 2 + size), slice((CANVAS - size) // 2, (CANVAS - size) // 2 + size))
        )
    result[spans[0][1], spans[1][1]] = image[spans[0][0], spans[1][0]]
    return result


def _places(images: Tensor, zoom: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Affine maps (B, 2, 3) from a patch of `side` pixels, each `zoom` (B,) input pixels wide, to a random place in the head."""
    coarse = functional.avg_pool2d(images, 8)
    centre = (random_places(coarse, 1, generator, 3)[:, 0] + 0.5) * 8  # (B, 2) rows, columns
    size = images.shape[-1]
    middle = CENTRAL * (2 * centre / size - 1)
    draws = torch.rand(len(images), 3, device=images.device, generator=generator)
    angle = (2 * draws[:, 0] - 1) * math.radians(TURN)
    mirrored = torch.where(draws[:, 1] < 0.5, -1.0, 1.0)
    place = _affine(angle, zoom * side / size, middle[:, 1], middle[:, 0])
    place[:, :, 0] = place[:, :, 0] * mirrored[:, None]
    flipped = torch.where(draws[:, 2] < 0.25, -1.0, 1.0)
    place[:, :, 1] = place[:, :, 1] * flipped[:, None]
    return place


def _affine(angle: Tensor, scale: Tensor, x: Tensor, y: Tensor) -> Tensor:
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    return torch.stack((torch.stack((cosine, -sine, x), -1), torch.stack((sine, cosine, y), -1)), 1)
