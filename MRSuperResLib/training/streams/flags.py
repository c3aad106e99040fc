"""Batches of slices with and without lesions, as a lesion detector sees them (`inference.symmetric_view`), and where lesions are.

Scans and label maps, painted once in each contrast, are brought to that view when the stream is made; lesions, small movements and
all else that varies are drawn anew for each batch.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from ...errors import UsageError
from ...evaluation.masks import brain_mask, without_gaps
from ...grid import Grid
from ...inference.symmetric_view import HEAD, PIXEL_MM, TYPICAL, View, axial, in_view, inputs_of, slices_apart
from ...relaxation import acquired_as
from ..pack import Entry, Pack
from .lesions import LesionSpec, draw_lesions, insert_lesions
from .numbered import NumberedStream
from .physics import MOST_BRAIN, LabelTissues, PhysicsSpec, blurred
from .visits import affine

if TYPE_CHECKING:
    from ..data.crops import SourceSpec

APART_MM = 3.0  # slices nearer than that are too alike to keep all
MS_BRIGHT = 1.2  # of grey matter's level on FLAIR: real lesions, and fat, are brighter
WAYS = 300  # of acquiring a visit, to draw from
INVISIBLE = 0.03  # on the networks' scale, over a few pixels: a lesion that changes the slice by less is not asked for
RECENT = 64  # batches at hand
STEP = 1 / 127  # of stored brightness
KEPT = ".views.npz"  # instead of .pack, beside the pack: bringing scans to view takes minutes
FEW = 3  # processes: fewer are not worth starting
LIKE_TISSUE = 0.14  # on the networks' scale, from the level of grey or white matter
DEEP, FILLED = 11, 0.97  # pixels of a square about a lesion's centre, nearly all of which must be head
LESIONED = 2 / 3  # of the parts of slices with lesions show one
LARGE = 100  # pixels: lesions of fewer count as much as one of that many, up to
MOST = 20.0  # times their own size
VIEWS = 4  # counts up when the view changes
CLOSING_MM = 6.0  # of sulci and the fluid in them, where labels tell what is brain
BRAIN_ML = (
    700.0,
    1800.0,
)  # what is found in a FLAIR, whose skull is dark, and is not of such a size has skull in it, or is a part
UNKNOWN = 2  # where the brain is, has not been said
# inputs (B, C, H, W), lesion (B, 1, H, W), contrast (B,), weight of pixels, brain (B, 1, H, W), whether that is known (B, 1, 1, 1)
Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class FlagStreamSpec:
    """Lesions, synthetic heads, and what varies: up to `turn` degrees, `shift` pixels, `zoom`, `gain`, `gamma`, shading of `bias`,
    Rician `noise`, and blur of up to 1 pixel in a share `soft`.

    levels: tissues are not always found where they are, and another scanner's differ less: what is left of the difference of grey
    and white matter, and of that of fluid from both. paintings: of each label map in each contrast. thick: mm, of slices that thin
    ones are made into as well; 0 for none. crop: side of the parts that are trained on, pixels, 0 for whole slices; `crops` of each
    slice, two thirds around a lesion. reuse: batches trained on for each that is made, all but one of them recent ones, mirrored:
    making one takes a CPU long.
    """

    lesions: LesionSpec = field(default_factory=lambda: LesionSpec((0.15, 0.35, 0.3, 0.2)))
    physics: PhysicsSpec = field(default_factory=lambda: PhysicsSpec(level=(0.8, 1.1)))
    turn: float = 4.0
    shift: float = 2.0
    zoom: tuple[float, float] = (0.92, 1.08)
    gain: tuple[float, float] = (0.92, 1.08)
    gamma: tuple[float, float] = (0.85, 1.18)
    bias: float = 0.12
    noise: float = 0.03
    soft: float = 0.3
    levels: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 1.0), (1.0, 1.0))
    paintings: int = 1
    thick: float = 0.0
    reuse: int = 1
    crop: int = 0
    crops: int = 1


class FlagStream(NumberedStream):
    """Batches (inputs, lesion, contrast, weight, brain, known).

    sources: scans and label maps. Weight 0: lesions that cannot be seen in this contrast, and what is as bright on FLAIR as real
    lesions are, which nobody has labelled.
    """

    def __init__(
        self,
        pack: Pack,
        sources: Sequence[SourceSpec],
        spec: FlagStreamSpec,
        contrasts: Sequence[str],
        batch: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        start: int = 0,
    ) -> None:
        if batch % spec.crops:
            raise UsageError(f"recipe: {spec.crops} parts of each slice (stream.crops) do not fill a batch of {batch}")
        super().__init__(batch, device, seed, start)
        self.spec, self.contrasts = spec, tuple(contrasts)
        self.recent: dict[int, Batch] = {}
        self.shelf = ViewShelf(
            pack, sources, self.contrasts, Views(spec.physics, spec.paintings, spec.thick), self.device
        )
        self.ways = acquired_as({name: TYPICAL[name] for name in contrasts}, np.random.default_rng(0), kept=WAYS)

    def draw(self, number: int) -> Batch:
        """Batch `number`: a new one, or a recent one mirrored."""
        newest, again = divmod(number, self.spec.reuse)
        if not again:
            return self._kept(newest)
        host = np.random.default_rng((self.seed, number, again))
        batch = self._kept(int(host.integers(max(0, newest - RECENT + 1), newest + 1)))
        if host.random() < 0.5:
            batch = tuple(each.flip(3) if each.dim() == 4 else each for each in batch)  # type: ignore[assignment]
        return batch

    def _kept(self, number: int) -> Batch:
        """New batch `number`, made again where it is not at hand any more."""
        if number not in self.recent:
            self.recent = {old: batch for old, batch in self.recent.items() if number - RECENT < old < number}
            self.recent[number] = super().draw(number)  # type: ignore[assignment]
        return self.recent[number]

    def make(self, host: np.random.Generator, generator: torch.Generator) -> Batch:
        """One batch."""
        count = self.batch // self.spec.crops
        which, kinds = self.shelf.pick(count, host)
        chosen = torch.tensor(which, device=self.device)
        images, ignored, brain = self._moved(self.shelf.images(chosen), generator).split(1, 1)
        known = self.shelf.known[chosen].view(-1, 1, 1, 1)
        ways = [self.ways[n] for n in host.integers(len(self.ways), size=count)]
        names = [(self.contrasts[kind],) for kind in kinds]
        drawn = draw_lesions(ways, names, self.spec.lesions, host).to(self.device)
        mm = torch.full((count,), PIXEL_MM, device=self.device)
        places = brain_tissue(images, [self.contrasts[kind] for kind in kinds]) & ((brain > 0.9) | (known < 0.5))
        drawn = replace(drawn, there=drawn.there * places.any(-1).any(-1).float())
        made, covered = insert_lesions(images, drawn, mm, places_in(places, drawn.there.shape[1], generator), generator)
        knots, wanted = self._levels([self.contrasts[kind] for kind in kinds], generator)
        images, made = (by_pieces(each, knots, wanted) for each in (images, made))
        change = functional.avg_pool2d((made - images).abs(), 3, 1, 1)
        unseen = (covered > 0.1) & (change < INVISIBLE)
        weight = (1 - (ignored > 0.3).float() * (covered < 0.5)) * ~unseen
        heights = self.shelf.heights[chosen]
        inputs = inputs_of(self._varied(made, generator), heights)
        lesion = (covered > 0.5).float()
        brain = torch.maximum((brain > 0.5).float(), lesion)
        weight = weight * torch.from_numpy(size_weights(lesion.cpu().numpy())).to(self.device)
        made_of = torch.tensor(kinds, device=self.device)
        if not self.spec.crop:
            return inputs, lesion, made_of, weight, brain, known
        parts = [
            (image, *corner)
            for image, shown in enumerate(lesion[:, 0].cpu().numpy() > 0)
            for corner in self._corners(shown, host)
        ]
        side = self.spec.crop
        inputs, lesion, weight, brain = (
            torch.stack([stack[n, :, row : row + side, column : column + side] for n, row, column in parts])
            for stack in (inputs, lesion, weight, brain)
        )
        of = [n for n, _, _ in parts]
        return inputs, lesion, made_of[of], weight, brain, known[of]

    def _corners(self, lesion: np.ndarray, host: np.random.Generator) -> list[tuple[int, int]]:
        """Of `crops` parts of a slice (H, W): about a random lesion, each as likely as any other, or anywhere."""
        pieces, count = ndimage.label(lesion)
        side, corners = self.spec.crop, []
        for _ in range(self.spec.crops):
            limits = [size - side for size in lesion.shape]
            corner = [int(host.integers(limit + 1)) for limit in limits]
            if count and host.random() < LESIONED:
                places = np.argwhere(pieces == host.integers(1, count + 1))
                middle = places[host.integers(len(places))]
                corner = [
                    int(np.clip(at - host.integers(side), 0, limit)) for at, limit in zip(middle, limits, strict=True)
                ]
            corners.append((corner[0], corner[1]))
        return corners

    def _moved(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Turned, shifted, scaled and mirrored a little, as the view of another scan might be."""
        plan, count = self.spec, len(images)
        draws = 2 * torch.rand(count, 5, device=self.device, generator=generator) - 1
        low, high = plan.zoom
        scale = low + (high - low) * (draws[:, 0] + 1) / 2
        shift = 2 * plan.shift * draws[:, 1:3] / images.shape[-1]
        place = affine(draws[:, 3] * math.radians(plan.turn), scale, shift[:, 0], shift[:, 1])
        place[:, :, 0] = place[:, :, 0] * torch.where(draws[:, 4] < 0, -1.0, 1.0)[:, None]
        grid = functional.affine_grid(place, list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def _levels(self, contrasts: Sequence[str], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The usual brightness of air and three tissues, in their order, and what it becomes; (B, 4) both."""
        usual = torch.tensor([TYPICAL[name] for name in contrasts], device=self.device)
        matter = usual[:, 1:].mean(1, keepdim=True)
        draws = torch.rand(len(contrasts), 2, device=self.device, generator=generator)
        grey_white, fluid = (low + (high - low) * draws[:, n : n + 1] for n, (low, high) in enumerate(self.spec.levels))
        other = matter + torch.cat((fluid, grey_white, grey_white), 1) * (usual - matter)
        return tuple(functional.pad(each.sort(1).values, (1, 0)) for each in (usual, other))  # type: ignore[return-value]

    def _varied(self, images: Tensor, generator: torch.Generator) -> Tensor:
        plan, count = self.spec, len(images)

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(count, 1, 1, 1, device=self.device, generator=generator)

        images = blurred(images, (uniform(0, 1) * (uniform(0, 1) < plan.soft)).view(-1))
        knots = torch.randn(count, 1, 4, 4, device=self.device, generator=generator)
        shade = functional.interpolate(knots, size=images.shape[-2:], mode="bicubic", align_corners=True)
        images = images * uniform(*plan.gain) * torch.exp(uniform(0, plan.bias) * shade)
        images = images.clamp_min(1e-6) ** uniform(*plan.gamma)
        noise = uniform(0, plan.noise)
        real = images + noise * torch.randn(images.shape, device=self.device, generator=generator)
        return torch.sqrt(real**2 + (noise * torch.randn(images.shape, device=self.device, generator=generator)) ** 2)


def by_pieces(images: Tensor, knots: Tensor, wanted: Tensor) -> Tensor:
    """(B, 1, H, W) with the levels `knots` (B, n), which rise from 0, brought to `wanted`, by pieces of straight lines."""
    widths = knots.diff(dim=1)
    slopes = wanted.diff(dim=1) / widths
    widths[:, -1] = torch.inf
    parts = zip(knots[:, :-1].T, widths.T, slopes.T, strict=True)
    return sum(  # type: ignore[return-value]
        slope.view(-1, 1, 1, 1) * torch.minimum((images - knot.view(-1, 1, 1, 1)).clamp_min(0), width.view(-1, 1, 1, 1))
        for knot, width, slope in parts
    )


def brain_tissue(images: Tensor, contrasts: Sequence[str]) -> Tensor:
    """Where slices (B, 1, H, W) of `contrasts`, in the view, are as bright as grey or white matter, deep in the head: boolean.

    Lesions in scalp, skull or neck would teach a detector to look there.
    """
    levels = images.new_tensor([TYPICAL[name][1:] for name in contrasts])[..., None, None]  # (B, 2, 1, 1): grey, white
    smooth = functional.avg_pool2d(images, 3, 1, 1)
    like = (smooth - levels).abs().amin(1, keepdim=True) < LIKE_TISSUE
    head = (images > HEAD).float()
    return like & (functional.avg_pool2d(head, DEEP, 1, DEEP // 2) > FILLED)


def places_in(mask: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(B, count, 2): rows and columns of random places where `mask` (B, 1, H, W) is true; anywhere where it never is."""
    flat = mask.flatten(1).float()
    flat = torch.where(flat.sum(1, keepdim=True) > 0, flat, 1.0)
    chosen = torch.multinomial(flat, count, replacement=True, generator=generator)
    return torch.stack((chosen // mask.shape[-1], chosen % mask.shape[-1]), -1).float()


def size_weights(lesion: np.ndarray) -> np.ndarray:
    """Of pixels of (B, 1, H, W): 1, in a lesion of fewer than `LARGE` pixels so much more that it counts as one of that size."""
    weights = np.ones(lesion.shape, np.float32)
    for image, weight in zip(lesion[:, 0], weights[:, 0], strict=True):
        pieces, count = ndimage.label(image)
        area = np.bincount(pieces.ravel(), minlength=count + 1)
        factor = np.clip(LARGE / np.maximum(area, 1), 1, MOST).astype(np.float32)
        factor[0] = 1
        weight[:] = factor[pieces]
    return weights


@dataclass(frozen=True)
class Views:
    """What scans and label maps are brought to view as; see `FlagStreamSpec`."""

    physics: PhysicsSpec
    paintings: int = 1
    thick: float = 0.0


class ViewShelf:
    """Axial slices in the detector's view on a device, with the height of each in its head. They are kept beside the pack.

    bright: where FLAIR of the same visit is as bright as real lesions are. brain: where the brain is, in slices where that is
    `known`. Slices are drawn by source and scan.
    """

    def __init__(
        self,
        pack: Pack,
        sources: Sequence[SourceSpec],
        contrasts: Sequence[str],
        views: Views,
        device: torch.device,
    ) -> None:
        self.contrasts = tuple(contrasts)
        kept = pack.path.with_suffix(KEPT)
        wanted = _key(pack, sources, self.contrasts, views)
        stored = _stored(kept, wanted)
        if stored is None:
            stored = _brought_to_view(pack, sources, self.contrasts, views)
            if os.access(kept.parent, os.W_OK):
                _store(kept, wanted, stored)
        self.scans, self.odds = stored["scans"], stored["weights"] / stored["weights"].sum()
        self.slices = torch.from_numpy(stored["slices"]).to(device)
        self.bright = torch.from_numpy(stored["bright"]).to(device)
        self.brain = torch.from_numpy(stored["brain"]).to(device)
        self.known = (self.brain[:, 0, 0] != UNKNOWN).float()
        self.heights = torch.from_numpy(stored["heights"]).to(device)

    def images(self, numbers: Tensor) -> Tensor:
        """Slices (B, H, W) on the networks' scale, where they are `bright`, and where `brain`: (B, 3, H, W)."""
        kept = (self.slices[numbers].float() * STEP, self.bright[numbers].float(), self.brain[numbers].float())
        return torch.stack(kept, 1)

    def pick(self, count: int, host: np.random.Generator) -> tuple[list[int], list[int]]:
        """Numbers of `count` random slices, and of their contrasts."""
        chosen = self.scans[host.choice(len(self.scans), size=count, p=self.odds)]
        return [int(first + host.integers(size)) for _, first, size in chosen], [int(kind) for kind in chosen[:, 0]]


def _key(pack: Pack, sources: Sequence[SourceSpec], contrasts: Sequence[str], views: Views) -> str:
    """Of what a shelf would hold."""
    names = [entry.name for source in sources for entry in pack.select(source.match)]
    text = repr((VIEWS, names, [(source.match, source.weight) for source in sources], tuple(contrasts), views))
    return hashlib.sha256(text.encode()).hexdigest()


def _stored(path: Path, wanted: str) -> dict[str, np.ndarray] | None:
    """The arrays kept in `path`; None if they are of something else."""
    if not path.is_file():
        return None
    with np.load(path) as file:
        return {name: file[name] for name in file.files if name != "key"} if str(file["key"]) == wanted else None


def _store(path: Path, key: str, arrays: dict[str, np.ndarray]) -> None:
    """Keep `arrays` in `path`, in the place of what was kept there."""
    made = path.with_name(f".{os.getpid()}-{path.name}")
    np.savez_compressed(made, key=np.array(key), **arrays)  # type: ignore[arg-type]
    made.replace(path)


def _brought_to_view(
    pack: Pack, sources: Sequence[SourceSpec], contrasts: Sequence[str], views: Views
) -> dict[str, np.ndarray]:
    """scans: (n, 3), contrast, first slice and count of each; weights: (n,); slices: (m, H, W) uint8 in steps of STEP.

    bright, brain: (m, H, W); heights: (m,). Visits and label maps are shared out among the processors.
    """
    work: list[tuple[Path, tuple[str, ...], tuple[str, ...], Views]] = []
    weights: list[float] = []
    for source in sources:
        groups: dict[str, list[str]] = {}
        for entry in pack.select(source.match):
            if entry.labels or entry.contrast in contrasts:
                groups.setdefault(entry.name if entry.labels else entry.subject or entry.name, []).append(entry.name)
        if not groups:
            raise UsageError(f"no volume matches '{source.match}' in {', '.join(contrasts)}")
        work += [(pack.path, tuple(names), tuple(contrasts), views) for names in groups.values()]
        weights += [source.weight / len(groups)] * len(groups)
    processes = min(len(work), (os.cpu_count() or 1) - 1)
    if processes > FEW:
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:  # "fork" and CUDA do not go together
            made = list(pool.map(_visit, work))
    else:
        made = [_visit(one) for one in work]
    scans, odds, first = [], [], 0
    for weight, visit in zip(weights, made, strict=True):
        for contrast, slices, *_ in visit:
            scans.append((contrast, first, len(slices)))
            odds.append(weight / len(visit))
            first += len(slices)
    parts = [scan for visit in made for scan in visit]
    return {
        "scans": np.array(scans),
        "weights": np.array(odds),
        **{
            name: np.concatenate([scan[n] for scan in parts])
            for n, name in ((1, "slices"), (2, "bright"), (3, "heights"), (4, "brain"))
        },
    }


def _visit(
    work: tuple[Path, tuple[str, ...], tuple[str, ...], Views],
) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """One visit's scans, or a label map painted in each contrast: contrast, slices, bright, heights, brain."""
    path, names, contrasts, plan = work
    pack = Pack(path)
    entries = sorted((e for e in pack.entries if e.name in names), key=lambda entry: entry.contrast != "FLAIR")
    seen: dict[float, list[tuple[str, View, np.ndarray]]] = {0.0: [], plan.thick: []}
    for entry in entries:
        known = _brain(pack, entries, entry)
        for contrast, unit in _units(pack, entry, contrasts, plan):
            for thick, views in seen.items():
                stack = _thickened(unit, entry.grid, thick)
                if stack is not None:
                    view = in_view(np.maximum(stack, 0), entry.grid, contrast, max(APART_MM, thick))
                    views.append((contrast, view, _brain_in_view(view, known, entry.grid, thick)))
    found = []
    for views in seen.values():
        flair = next((view for name, view, _ in views if name == "FLAIR" and not entries[0].labels), None)
        for name, view, brain in views:
            full = np.flatnonzero((view.slices > 0.1).mean((1, 2)) > 0.05)
            same = flair is not None and len(flair.slices) == len(view.slices)
            bright = _ms_bright(flair) if same and flair is not None else np.zeros(view.slices.shape, bool)
            slices = np.minimum(np.rint(view.slices[full] / STEP), 255).astype(np.uint8)
            found.append((contrasts.index(name), slices, bright[full], view.heights[full], brain[full]))
    return found


def _brain(pack: Pack, visit: Sequence[Entry], entry: Entry) -> np.ndarray | None:
    """Where the brain is in `entry`, (k, j, i), its sulci and ventricles closed: by labels, or by the visit's FLAIR on its grid."""
    spacing = entry.grid.spacing[::-1]
    if entry.labels:
        labels = pack.stored(entry)
        return without_gaps((labels > 0) & (labels <= MOST_BRAIN), spacing, CLOSING_MM)
    for flair in visit:
        if flair.contrast == "FLAIR" and flair.grid.same_as(entry.grid):
            found = brain_mask(pack.stored(flair), spacing)
            low, high = BRAIN_ML
            return found if low < found.sum() * np.prod(spacing) / 1000 < high else None
    return None


def _brain_in_view(view: View, known: np.ndarray | None, grid: Grid, thick: float) -> np.ndarray:
    """Where the brain is in slices of `view`, (N, H, W) uint8, `UNKNOWN` where nothing says so; known: as `_brain`."""
    if known is None:
        return np.full(view.slices.shape, UNKNOWN, np.uint8)
    stack = slices_apart(np.asarray(_thickened(known.astype(np.float32), grid, thick)), grid, max(APART_MM, thick))
    return (view.shown(stack) > 0.5).astype(np.uint8)


def _units(pack: Pack, entry: Entry, contrasts: Sequence[str], plan: Views) -> Iterator[tuple[str, np.ndarray]]:
    """A scan, or a label map painted in each contrast, on the networks' scale."""
    stack = pack.stored(entry)
    if not entry.labels:
        yield entry.contrast, pack.unit(entry, stack)
        return
    rng = np.random.default_rng(int(hashlib.sha256(entry.name.encode()).hexdigest()[:8], 16))
    tissues = LabelTissues([stack])
    codes = tissues.coded(stack)
    for _ in range(plan.paintings):
        for contrast in contrasts:
            _, levels = tissues.acquired([contrast], plan.physics, rng)
            yield contrast, _painted(levels[:, 0], codes, rng)


def _thickened(unit: np.ndarray, grid: Grid, thick: float) -> np.ndarray | None:
    """`unit` (k, j, i) as slices of `thick` mm would show it, itself for 0; None if its own are not much thinner."""
    axis = axial(grid)
    wide = round(thick / grid.spacing[2 - axis])
    if not thick:
        return unit
    return None if wide < 2 else np.asarray(ndimage.uniform_filter1d(unit, wide, axis))


def _ms_bright(flair: View) -> np.ndarray:
    """Where FLAIR is as bright as real lesions are, a pixel wider."""
    found = flair.slices > MS_BRIGHT * TYPICAL["FLAIR"][1]
    return np.asarray(ndimage.binary_dilation(found, np.ones((1, 3, 3))))


def _painted(levels: np.ndarray, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A head of coded labels (k, j, i) at these levels, a little uneven, with partial volume at the borders of tissues."""
    image = levels[codes].astype(np.float32)
    image *= 1 + rng.uniform(0, 0.06) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(ndimage.gaussian_filter(image, rng.uniform(0.5, 0.8)))
