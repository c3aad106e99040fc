"""Slices of real visits and of synthetic heads in one contrast or several, for whole batches on any device.

Scans lie on the device as half-precision slices; label maps stay packed and are cut on the host, and painted on the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...errors import UsageError
from ...lesions import deep_inside
from ...relaxation import Acquired, acquired_as, material, tissue_levels
from ..pack import Entry, Pack
from .lesions import random_places
from .physics import LabelTissues, PhysicsSpec, blurred, painted

if TYPE_CHECKING:
    from ..data.crops import SourceSpec

TYPICAL = {"T1w": (0.15, 0.52, 0.72), "T2w": (0.85, 0.46, 0.32), "FLAIR": (0.12, 0.66, 0.54)}  # fluid, grey, white
CANVAS = 320  # pixels: slices are centred in a square of that side
TURN = 12.0  # degrees at most
CENTRAL = (
    0.75  # of the way from the middle of a slice to a random place in the head: crops of little but air teach little
)
DEPTHS = (20.0, 10.0, 4.0)  # mm below the surface where the brain's tissues are looked for
APART = 2.0  # mm: slices nearer than that are too alike to keep all
MS_BRIGHT = 1.2  # of grey matter's level on FLAIR: real lesions, and fat, are brighter


@dataclass(frozen=True)
class Drawn:
    """Registered slices of B visits: images (B, C, p, p) on the networks' scale, the names of their contrasts, how each was
    acquired, pixels in mm (B,), and where FLAIR is as bright as MS lesions are, (B, 1, p, p) of 0 and 1.
    """

    images: Tensor
    names: list[tuple[str, ...]]
    ways: list[Acquired]
    spacing: Tensor
    bright: Tensor


class VisitDrawer:
    """Draws `Drawn` batches of `patch` pixels in `channels` contrasts each.

    sources: scans, of which subjects with that many known contrasts or more are used in axial slices, and label maps, which are
    cut along any plane; their weights say how much of a batch is synthetic. spacing: mm of a pixel, log-uniform.
    """

    def __init__(
        self,
        pack: Pack,
        sources: Sequence[SourceSpec],
        patch: int,
        spacing: tuple[float, float],
        physics: PhysicsSpec,
        contrasts: Sequence[str],
        channels: int,
        device: torch.device,
    ) -> None:
        self.pack, self.patch, self.spacing, self.physics = pack, patch, spacing, physics
        self.contrasts, self.channels, self.device = tuple(contrasts), channels, device
        self.maps: list[Entry] = []
        real, synthetic = [], 0.0
        for source in sources:
            entries = pack.select(source.match)
            if entries and entries[0].labels:
                self.maps += entries
                synthetic += source.weight
            else:
                real.append((source.match, source.weight))
        self.share = synthetic / sum(source.weight for source in sources)
        self.shelf = SliceShelf(pack, real, self.contrasts, channels, device) if real else None
        self.tissues = LabelTissues([pack.stored(entry) for entry in self.maps]) if self.maps else None

    def draw(self, batch: int, host: np.random.Generator, generator: torch.Generator) -> Drawn:
        """`batch` slices, the real ones first."""
        synthetic = round(batch * self.share)
        finest, coarsest = (float(np.log(mm)) for mm in self.spacing)
        spacing = np.exp(host.uniform(finest, coarsest, batch))
        parts = [
            make(part, host, generator)
            for make, part in ((self._real, spacing[synthetic:]), (self._made, spacing[:synthetic]))
            if len(part)
        ]
        return Drawn(
            torch.cat([part.images for part in parts]),
            [names for part in parts for names in part.names],
            [way for part in parts for way in part.ways],
            torch.cat([part.spacing for part in parts]),
            torch.cat([part.bright for part in parts]),
        )

    def _real(self, spacing: np.ndarray, host: np.random.Generator, generator: torch.Generator) -> Drawn:
        assert self.shelf is not None
        numbers, names, ways, zooms = [], [], [], []
        for mm in spacing:
            person, number = self.shelf.pick(host)
            chosen = host.choice(len(person.contrasts), self.channels, replace=False)
            numbers.append([person.place(int(n), number) for n in (*chosen, person.flair)])
            names.append(tuple(person.contrasts[n] for n in chosen))
            ways.append(person.ways[host.integers(len(person.ways))])
            zooms.append(mm / person.pixel)
        stack = self.shelf.slices[torch.tensor(numbers, device=self.device)].float()  # (B, C + 1, CANVAS, CANVAS)
        levels = torch.tensor([self.shelf.bright[row[-1]] for row in numbers], device=self.device)
        zoom = torch.tensor(zooms, dtype=torch.float32, device=self.device)
        stack = blurred(stack, ((zoom - 1).clamp_min(0) / 2))  # against aliasing
        place = _places(stack[:, :-1], zoom, self.patch, generator)
        grid = functional.affine_grid(place, [len(stack), 1, self.patch, self.patch], align_corners=False)
        images = functional.grid_sample(stack, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
        bright = (images[:, -1:] > levels.view(-1, 1, 1, 1)).float()
        mm = torch.tensor(spacing, dtype=torch.float32, device=self.device)
        return Drawn(images[:, :-1].clamp_min(0), names, ways, mm, bright)

    def _made(self, spacing: np.ndarray, host: np.random.Generator, generator: torch.Generator) -> Drawn:
        assert self.tissues is not None
        cuts = np.zeros((len(spacing), CANVAS, CANVAS), np.uint8)
        names: list[tuple[str, ...]] = []
        ways, levels, zooms = [], [], []
        for number, mm in enumerate(spacing):
            entry = self.maps[host.integers(len(self.maps))]
            stored = self.pack.stored(entry)
            axis = int(host.choice(3, p=(0.6, 0.2, 0.2)))
            size = stored.shape[axis]
            image = np.take(stored, int(host.integers(size // 6, size - size // 6)), axis=axis)
            cuts[number] = _centred(self.tissues.coded(image))
            names.append(tuple(str(name) for name in host.choice(self.contrasts, self.channels, replace=False)))
            way, level = self.tissues.acquired(names[-1], self.physics, host)
            ways.append(way)
            levels.append(level)
            zooms.append(mm / min(entry.grid.spacing))
        codes = torch.from_numpy(cuts).to(self.device)
        zoom = torch.tensor(zooms, dtype=torch.float32, device=self.device)
        place = _places((codes[:, None] > 0).float(), zoom, self.patch, generator)
        table = torch.from_numpy(np.stack(levels)).to(self.device)
        images = painted(codes, table, zoom, place, self.patch, self.physics, generator)
        size_mm = torch.tensor(spacing, dtype=torch.float32, device=self.device)
        return Drawn(images, names, ways, size_mm, torch.zeros_like(images[:, :1]))


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
        self,
        pack: Pack,
        sources: Sequence[tuple[str, float]],
        contrasts: Sequence[str],
        least: int,
        device: torch.device,
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
            visits = {name: group for name, group in visits.items() if len(group) >= least}
            if not visits:
                raise UsageError(f"'{pattern}' matches no subject with {least} of {', '.join(contrasts)}")
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
        kept = np.flatnonzero(head > 0.3 * head.max())[:: max(1, round(APART / mm[0]))]
        first = []
        for name, image in images.items():
            first.append(sum(map(len, stacks)))
            stacks.append(np.stack([_centred(image[n].astype(np.float16)) for n in kept]))
            grey = float(ways[0].level(name, material("grey", ways[0].field)))
            level = MS_BRIGHT * grey if name == "FLAIR" else math.inf
            self.bright += [level] * len(kept)
        self.people.append(_Person(tuple(images), tuple(first), len(kept), float(min(mm[1:])), ways))


def _ways(images: dict[str, np.ndarray], mm: Sequence[float]) -> tuple[Acquired, ...]:
    """How the scans of a visit may have been made, from the brightness of its tissues."""
    bright = np.maximum.reduce(list(images.values())) > 0.1
    deep = next((inside for depth in DEPTHS if (inside := deep_inside(bright, mm, depth)).mean() > 0.02), bright)
    levels = tissue_levels({name: image[deep] for name, image in images.items()}, TYPICAL)
    return acquired_as(
        {name: [float(level) for level in found] for name, found in levels.items()}, np.random.default_rng(0)
    )


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
    place = affine(angle, zoom * side / size, middle[:, 1], middle[:, 0])
    place[:, :, 0] = place[:, :, 0] * mirrored[:, None]
    flipped = torch.where(draws[:, 2] < 0.25, -1.0, 1.0)
    place[:, :, 1] = place[:, :, 1] * flipped[:, None]
    return place


def affine(angle: Tensor, scale: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Maps (B, 2, 3) for `functional.affine_grid`: turned by `angle`, scaled, then moved to x, y; all (B,)."""
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    return torch.stack((torch.stack((cosine, -sine, x), -1), torch.stack((sine, cosine, y), -1)), 1)
