"""A stream of training batches made where the network is: whole slices acquired as scanners do, then cropped.

The packed volumes lie on the device as 16-bit numbers; a batch is one gather, one augmentation and one acquisition for all of its
images. It serves a GPU, which pairs made one at a time would starve, and CPUs, where it costs about a tenth of a convolutional
network's step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...errors import UsageError
from ..data.crops import SourceSpec
from ..pack import Entry, Pack
from .degradation import Draw, ScannerSpec, degrade
from .numbered import NumberedStream
from .physics import blurred

FOREGROUND = 0.02  # share of a slice above air from which it is worth drawing
LABELS = 256  # different labels of one map at most
CURVE_KNOTS = 6
LEVELS = 1024  # of a recolouring's table


@dataclass(frozen=True)
class StreamAugmentation:
    """What happens to a sharp slice first; probabilities and ranges. zoom: new pixel size over old, one a group of batches."""

    flip: bool = True

    gamma: tuple[float, float] = (0.7, 1.4)
    curve_probability: float = 0.25
    zoom: tuple[float, float] = (0.75, 1.35)
    zoom_probability: float = 0.4
    bias: float = 0.2


@dataclass(frozen=True)
class StreamSpec:
    """A recipe's [data] where `stream = "device"`.

    matrix: rows and columns of the whole slices that are acquired. patch: rows and columns of the coarse crops, cut out afterwards.
    crops: cut out of each slice. shift: how far a whole slice may lie from the middle, pixels; None for anywhere it fits.
    at_once: batches made together, in one go that a GPU is not too large for.
    """

    sources: tuple[SourceSpec, ...] = (SourceSpec("*"),)
    scanner: ScannerSpec = field(default_factory=ScannerSpec)
    stream: str = "device"
    matrix: int = 256
    patch: tuple[int, int] = (48, 48)
    crops: int = 1
    at_once: int = 1
    shift: int | None = None
    augmentation: StreamAugmentation = field(default_factory=StreamAugmentation)


class DeviceStream(NumberedStream):
    """Batches (low (B, 1, h, w), high (B, 1, h*fh, w*fw)), float32 on `device`, on the networks' scale."""

    def __init__(
        self,
        pack: Pack,
        spec: StreamSpec,
        factors: tuple[int, int],
        batch: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        start: int = 0,
    ) -> None:
        if any(spec.matrix % factor for factor in factors):
            raise UsageError(f"matrix is {spec.matrix}, expected a multiple of the factors {factors}")
        if batch % spec.crops:
            raise UsageError(f"batch is {batch}, expected a multiple of {spec.crops} crops a slice")
        super().__init__(batch, device, seed, start, spec.at_once)
        self.spec, self.factors = spec, factors
        self.shelf = Shelf(pack, spec.sources, self.device)

    def make(self, host: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`at_once` batches, their crops in random order."""
        high = self.shelf.slices(self.at_once * self.batch // self.spec.crops, self.spec, host, generator)
        low, high = degrade(high, self.factors, self.spec.scanner, host, generator)
        return self.cropped(low, high, generator)

    def cropped(self, low: Tensor, high: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`crops` patches of each slice, their centres in the head most of the time."""
        count, rows, columns = low.shape
        height, width = (min(n, m) for n, m in zip(self.spec.patch, (rows, columns), strict=True))
        chance = (low.abs() > 0.06).float() + 0.003
        place = torch.multinomial(chance.flatten(1), self.spec.crops, replacement=True, generator=generator).flatten()
        top = (place // columns - height // 2).clamp(0, rows - height)
        left = (place % columns - width // 2).clamp(0, columns - width)
        which = torch.arange(count, device=low.device).repeat_interleave(self.spec.crops)
        order = torch.randperm(len(which), generator=generator, device=low.device)
        which, top, left = which[order], top[order], left[order]
        fine, (fh, fw) = (top * self.factors[0], left * self.factors[1]), self.factors
        return _patches(low, which, top, left, height, width), _patches(high, which, *fine, height * fh, width * fw)


class Shelf:
    """The packed volumes on a device: images as half-precision numbers on the networks' scale, label maps as numbers below 256."""

    def __init__(self, pack: Pack, sources: tuple[SourceSpec, ...], device: torch.device) -> None:
        self.device = device
        self.places: list[_Place] = []
        self.choices: list[tuple[float, list[int]]] = []
        self.planes: list[str] = []
        images: list[Tensor] = []
        labels: list[Tensor] = []
        known: dict[str, int] = {}
        ends = [0, 0]
        for source in sources:
            entries = pack.select(source.match)
            if not entries:
                raise UsageError(
                    f"no volume in {pack.path.name} matches '{source.match}'; it has {len(pack.entries)} entries"
                )
            for entry in entries:
                if entry.name in known:
                    continue
                stored = pack.stored(entry)
                if entry.labels:
                    values = _numbered(stored)
                    labels.append(torch.from_numpy(values.reshape(-1)))
                else:
                    values = pack.unit(entry, stored)
                    images.append(torch.from_numpy(values).half().reshape(-1))
                known[entry.name] = len(self.places)
                self.places.append(_Place(entry, ends[entry.labels], _worthwhile(values)))
                ends[entry.labels] += values.size
            self.choices.append((source.weight, [known[entry.name] for entry in entries]))
            self.planes.append(source.planes)
        self.images = torch.cat(images).to(device) if images else torch.zeros(1, dtype=torch.float16, device=device)
        self.labels = torch.cat(labels).to(device) if labels else torch.zeros(1, dtype=torch.uint8, device=device)

    def slices(self, count: int, spec: StreamSpec, host: np.random.Generator, generator: torch.Generator) -> Tensor:
        """`count` augmented sharp slices, (count, matrix, matrix), float32; a batch shares its zoom."""
        zoom = 1.0
        if host.random() < spec.augmentation.zoom_probability:
            zoom = math.exp(host.uniform(*np.log(spec.augmentation.zoom)))
        side = round(spec.matrix * zoom)
        weights = np.array([weight for weight, _ in self.choices])
        drawn = host.choice(len(self.choices), size=count, p=weights / weights.sum())
        cuts = [self._cut(int(number), side, spec, host) for number in drawn]
        is_label = torch.tensor([cut.labels for cut in cuts], device=self.device)
        image = torch.zeros((count, side, side), device=self.device)
        for flag in (False, True):
            chosen = [number for number, cut in enumerate(cuts) if cut.labels == flag]
            if not chosen:
                continue
            found = self._gathered([cuts[number] for number in chosen], side, self.labels if flag else self.images)
            if flag:
                found = synthesised(found, Draw(generator, len(chosen)))
            image[torch.tensor(chosen, device=self.device)] = found.float()
        if side != spec.matrix:
            image = functional.interpolate(image[:, None], size=(spec.matrix,) * 2, mode="bicubic", antialias=True)[
                :, 0
            ]
        draw = Draw(generator, count)
        image = recoloured(image, spec.augmentation, draw, ~is_label)
        return image * bias_fields(image.shape, spec.augmentation.bias, draw)

    def _cut(self, choice: int, side: int, spec: StreamSpec, host: np.random.Generator) -> _Cut:
        """A random slice: the flat position of its first pixel, and the steps along its rows and columns."""
        numbers = self.choices[choice][1]
        place = self.places[numbers[host.integers(len(numbers))]]
        planes = self.planes[choice]
        axis = int(host.integers(3)) if planes == "all" else place.axis(planes)
        index = int(host.choice(place.worthwhile[axis]))
        row, column = (a for a in range(3) if a != axis)
        if spec.augmentation.flip and host.random() < 0.5:
            row, column = column, row
        spans = []
        for a in (row, column):
            size, step = place.shape[a], place.steps[a]
            if spec.shift is None:
                corner = int(host.integers(min(0, size - side), max(0, size - side) + 1))
            else:
                corner = (size - side) // 2 + int(host.integers(-spec.shift, spec.shift + 1))
            flip = spec.augmentation.flip and host.random() < 0.5
            spans.append((step, size, corner, flip))
        return _Cut(place.entry.labels, place.offset + index * place.steps[axis], spans[0], spans[1])

    def _gathered(self, cuts: list[_Cut], side: int, flat: Tensor) -> Tensor:
        """(B, side, side); 0 beyond the volumes."""
        base = torch.tensor([cut.base for cut in cuts], device=self.device)
        inside, place = [], []
        for spans in ([cut.rows for cut in cuts], [cut.columns for cut in cuts]):
            step, size, corner, flip = (
                torch.tensor(values, device=self.device)[:, None] for values in zip(*spans, strict=True)
            )
            position = torch.arange(side, device=self.device)[None]
            position = torch.where(flip, side - 1 - position, position) + corner
            inside.append((position >= 0) & (position < size))
            place.append(torch.minimum(position.clamp(min=0), size - 1) * step)
        index = base[:, None, None] + place[0][:, :, None] + place[1][:, None, :]
        within = inside[0][:, :, None] & inside[1][:, None, :]
        return flat[index] * within


@dataclass(frozen=True)
class _Cut:
    """One slice to gather; rows and columns: (step, size, corner, whether mirrored)."""

    labels: bool
    base: int
    rows: tuple[int, int, int, bool]
    columns: tuple[int, int, int, bool]


class _Place:
    """Where a volume lies in the flat array, and which of its slices show something."""

    def __init__(self, entry: Entry, offset: int, worthwhile: tuple[np.ndarray, ...]) -> None:
        self.entry, self.offset, self.worthwhile = entry, offset, worthwhile
        self.shape = entry.grid.shape
        self.steps = (self.shape[1] * self.shape[2], self.shape[2], 1)

    def axis(self, plane: str) -> int:
        """The array axis (of k, j, i) perpendicular to `plane`."""
        for axis in range(3):
            if self.entry.grid.axis_name(axis) == plane:
                return 2 - axis
        raise UsageError(f"{self.entry.name} has no {plane} plane")


def _worthwhile(values: np.ndarray) -> tuple[np.ndarray, ...]:
    """For each axis the slices that are not mostly air."""
    found, head = [], torch.from_numpy(values > 0.05)
    for axis in range(3):
        mean = head.sum(dim=[a for a in range(3) if a != axis]).numpy() * (head.shape[axis] / head.numel())
        enough = np.flatnonzero(mean > max(0.25 * mean.max(), FOREGROUND))
        found.append(enough if len(enough) else np.arange(values.shape[axis]))
    return tuple(found)


def _numbered(labels: np.ndarray) -> np.ndarray:
    """`labels` with small numbers in their place; 0 stays 0, numbers below 256 where there are few enough."""
    if labels.max() < LABELS:
        return labels.astype(np.uint8)
    values, index = np.unique(labels, return_inverse=True)
    if len(values) > LABELS:
        raise UsageError(f"a label map has {len(values)} labels, expected {LABELS} at most")
    return index.reshape(labels.shape).astype(np.uint8)


def _patches(images: Tensor, which: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    return images[which[:, None, None], rows[:, :, None], columns[:, None, :]][:, None].contiguous()


def synthesised(labels: Tensor, draw: Draw) -> Tensor:
    """Images (B, H, W) of a random contrast made from label slices (B, H, W): levels, texture, lesions, partial volume."""
    count = len(labels)
    index = labels.long()
    levels = draw.uniform(0.05, 1.0, LABELS)
    dark = draw.chance(0.9)
    levels[:, 0] = torch.where(dark, draw.uniform(0.0, 0.03), levels[:, 0])
    spread = draw.uniform(0.0, 0.06, 1) * draw.uniform(0.3, 1.0, LABELS)
    spread[:, 0] = torch.where(dark, spread[:, 0] * 0.1, spread[:, 0])
    flat = index.reshape(count, -1)
    texture = blurred(draw.normal(1, *labels.shape[1:]), draw.uniform(0.05, 1.0))[:, 0]
    image = levels.gather(1, flat).view(index.shape) + spread.gather(1, flat).view(index.shape) * texture
    image = with_lesions(image, index, draw)
    return blurred(image[:, None], draw.uniform(0.35, 0.8))[:, 0].clamp(min=0)


def with_lesions(image: Tensor, index: Tensor, draw: Draw, most: int = 6) -> Tensor:
    """`image` with up to `most` bright or dark spots of 2 to 25 pixels within what is labelled, in half of the images."""
    height, width = image.shape[1:]
    rows = torch.arange(height, device=image.device, dtype=torch.float32)[None, :, None]
    columns = torch.arange(width, device=image.device, dtype=torch.float32)[None, None, :]
    some = draw.chance(0.5)
    inside = (index > 0).float() + 1e-6
    centres = torch.multinomial(inside.flatten(1), most, replacement=True, generator=draw.generator)
    for number in range(most):
        centre = centres[:, number, None, None]
        present = some & draw.chance(0.5)
        radius = torch.exp(draw.uniform(math.log(1.5), math.log(12.0)))[:, None, None]
        angle, ratio = draw.uniform(0, math.pi)[:, None, None], draw.uniform(0.4, 1.0)[:, None, None]
        y, x = rows - centre // width, columns - centre % width
        along, across = torch.cos(angle) * x + torch.sin(angle) * y, torch.cos(angle) * y - torch.sin(angle) * x
        distance = torch.sqrt((along / radius) ** 2 + (across / (radius * ratio)) ** 2)
        cover = torch.sigmoid((1 - distance) * radius / draw.uniform(0.5, 2.0)[:, None, None])
        cover = cover * present[:, None, None] * (index > 0)
        image = torch.lerp(image, draw.uniform(0.0, 1.1)[:, None, None].expand_as(image), cover)
    return image


def recoloured(images: Tensor, augmentation: StreamAugmentation, draw: Draw, which: Tensor) -> Tensor:
    """`images` under a random gamma or, now and then, a random smooth curve: other contrasts, same edges. 0 stays near 0."""
    images = images.clamp(min=0)
    gamma = images.clamp(min=1e-6) ** draw.uniform(*augmentation.gamma)[:, None, None]
    knots = torch.cat((torch.zeros(draw.count, 1, device=images.device), draw.uniform(0, 1, CURVE_KNOTS - 1)), dim=1)
    place = torch.linspace(0, CURVE_KNOTS - 1.001, LEVELS, device=images.device)
    lower = place.floor().long()
    share = place - lower
    share = share * share * (3 - 2 * share)
    curve = knots[:, lower] * (1 - share) + knots[:, lower + 1] * share
    level = (images / 1.2).clamp(max=1) * (LEVELS - 1)
    below = level.floor().long().clamp(max=LEVELS - 2)
    flat = below.flatten(1)
    curved = torch.lerp(curve.gather(1, flat), curve.gather(1, flat + 1), (level - below).flatten(1)).view(images.shape)
    use_curve = draw.chance(augmentation.curve_probability) & which
    answer = torch.where(use_curve[:, None, None], curved, gamma)
    return torch.where((which | (draw.uniform() < 0.3))[:, None, None], answer, images)


def bias_fields(shape: torch.Size, strength: float, draw: Draw) -> Tensor:
    """(B, H, W), smooth, of mean about 1, in half of the images."""
    log = draw.normal(1, 4, 4) * (draw.uniform(0, strength) * draw.chance(0.5))[:, None, None, None]
    return torch.exp(functional.interpolate(log, size=tuple(shape[1:]), mode="bicubic", align_corners=True)[:, 0])
