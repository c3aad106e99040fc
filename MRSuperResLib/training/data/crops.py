"""Sharp crops of packed slices: of one volume, or of two registered contrasts of one subject.

A sharp slice is an image (rows, columns) of a packed volume along a plane in which that volume is truly sharp. For through-plane
networks the rows are the axis that the acquisition coarsens.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from scipy import interpolate, ndimage

from ...errors import UsageError
from ..pack import Entry, Pack
from .synthesis import LEVELS, synthesise, synthesise_contrasts

FOREGROUND = 0.03  # mean on the networks' scale under which a crop is mostly air
AIR_SHARE = 0.2  # of the crops that are mostly air, how many are kept: networks must learn to leave it dark
ATTEMPTS = 8
PLANES = ("all", "axial", "coronal", "sagittal")
NAMED = 0.5  # of the pairs made from label maps, how many are two usual contrasts, PDw among them, not two random ones


@dataclass(frozen=True)
class SourceSpec:
    """One kind of data in a recipe: entries that match `match`, sharp in `planes` ("all" or a plane), drawn with `weight`."""

    match: str
    planes: str = "all"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.planes not in PLANES:
            raise UsageError(f"planes is '{self.planes}', expected one of {', '.join(PLANES)}")


Source = TypeVar("Source", bound=Any)  # a `SourceSpec`, or a stream's own kind of source


@dataclass(frozen=True)
class AugmentationSpec:
    """What happens to a sharp crop first: probabilities, and the range of gamma and of zoom (new pixel size over old)."""

    flip: bool = True
    gamma: tuple[float, float] = (0.7, 1.4)
    curve_probability: float = 0.25
    zoom: tuple[float, float] = (0.75, 1.25)
    zoom_probability: float = 0.3


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


def applicable(packed: Pack, sources: Sequence[Source], report: Callable[[str], None]) -> tuple[Source, ...]:
    """The recipe's sources that match volumes of `packed`; if none does, all volumes, each in the planes where it is sharp.

    What is left out, or taken, is reported.
    """
    matching = tuple(source for source in sources if packed.select(source.match))
    if matching:
        missing = ", ".join(source.match for source in sources if source not in matching)
        if missing:
            report(f"no volumes for the recipe's {missing}: they are left out")
        return matching
    planes: dict[str, list[Entry]] = {}
    for entry in packed.entries:
        thick = int(np.argmax(entry.grid.spacing))
        plane = "all" if entry.labels or entry.is_isotropic else entry.grid.axis_name(thick)
        planes.setdefault(plane, []).append(entry)
    kind = type(sources[0])
    names = {plane: "|".join(glob.escape(entry.name) for entry in entries) for plane, entries in planes.items()}
    taken = tuple(kind(names[plane], plane, float(len(entries))) for plane, entries in planes.items())
    what = ", ".join(f"{len(entries)} in {plane} planes" for plane, entries in planes.items())
    report(f"no volume is in a folder that the recipe names: all {len(packed.entries)} are one source ({what})")
    return taken


def registered_groups(entries: Sequence[Entry]) -> list[tuple[Entry, ...]]:
    """Label maps, each alone, and the scans of each subject that show it in different contrasts on one grid.

    Where nobody knows whose a scan is, or which contrast, it is in no group. Of several scans of one contrast the first counts.
    """
    subjects: dict[str, list[list[Entry]]] = {}
    for entry in entries:
        if entry.subject and (entry.labels or entry.contrast):
            grids = subjects.setdefault(entry.subject, [])
            alike = next((group for group in grids if group[0].grid.same_as(entry.grid)), None)
            if alike is None:
                grids.append([entry])
            elif all(entry.contrast != other.contrast for other in alike):
                alike.append(entry)
    return [tuple(group) for grids in subjects.values() for group in grids if group[0].labels or len(group) > 1]


class PairDrawer(CropDrawer):
    """Draws two registered sharp crops of one subject in two contrasts: real ones, or synthesised from one label map."""

    def __init__(self, pack: Pack, sources: tuple[SourceSpec, ...]) -> None:
        super().__init__(pack, sources)
        self.groups: list[list[tuple[Entry, ...]]] = []
        for source, entries in self.choices:
            groups = registered_groups(entries)
            if not groups:
                raise UsageError(
                    f"'{source.match[:60]}' matches no subject with two contrasts on one grid: nothing to pair. Names must "
                    "say whose each scan is and which contrast, and one person's scans must be resampled to one grid"
                )
            self.groups.append(groups)

    def draw_pair(
        self, shape: tuple[int, int], rng: np.random.Generator, augmentation: AugmentationSpec, *, transpose: bool
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """(target, reference, pixel size in mm): augmented crops of `shape`, float32 on the networks' scale."""
        choice = int(rng.choice(len(self.choices), p=self.probabilities))
        source, groups = self.choices[choice][0], self.groups[choice]
        zoom = rng.uniform(*augmentation.zoom) if rng.random() < augmentation.zoom_probability else 1.0
        wanted = tuple(int(np.ceil(n * zoom)) for n in shape)
        for _ in range(ATTEMPTS):
            group = groups[rng.integers(len(groups))]
            images = self._registered(group, source.planes, wanted, rng)
            if images[0].mean() > FOREGROUND or rng.random() < AIR_SHARE:
                break
        if zoom != 1.0:
            ratio = (shape[0] / wanted[0], shape[1] / wanted[1])
            images = [ndimage.zoom(image, ratio, order=3, mode="reflect", grid_mode=True) for image in images]
        if augmentation.flip:
            up, left, turn = rng.choice((-1, 1)), rng.choice((-1, 1)), transpose and rng.random() < 0.5
            images = [image[::up, ::left].T if turn else image[::up, ::left] for image in images]
        spacing = sorted(group[0].grid.spacing)[0] * zoom
        target, reference = (recoloured(image, augmentation, rng) for image in images)
        return target, reference, spacing

    def _registered(
        self, group: tuple[Entry, ...], planes: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> list[np.ndarray]:
        seed = int(rng.integers(2**31))
        if group[0].labels:
            stored = self.crop(group[0], planes, shape, np.random.default_rng(seed))
            if rng.random() < NAMED:
                return synthesise_contrasts(stored, list(rng.choice(list(LEVELS), 2, replace=False)), rng)
            return list(synthesise(stored, rng, contrasts=2))
        chosen = rng.choice(len(group), 2, replace=False)
        return [
            self.pack.unit(group[n], self.crop(group[n], planes, shape, np.random.default_rng(seed))) for n in chosen
        ]  # the same seed, so the same place


def moved(image: np.ndarray, shift: np.ndarray, angle: float) -> np.ndarray:
    """`image` (H, W) rotated by `angle` (radians) about its centre and shifted by `shift` pixels; cubic, borders continued."""
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - matrix @ (centre + shift)
    return np.asarray(ndimage.affine_transform(image, matrix, offset, order=3, mode="nearest"), dtype=np.float32)
