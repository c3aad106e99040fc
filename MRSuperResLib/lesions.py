"""Lesions put into scans, consistently in all contrasts: what they are made of, how large, and how they push the tissue around.

A lesion is a drawn description (`Lesion`) that any grid, in two or three dimensions, and any contrast can show. Relaxation times
of lesions after Bottomley et al. 1987, Larsson et al. 1989 (multiple sclerosis), Oh et al. 2005 (glioma, oedema), Bradley 1993
(haemorrhage), Bernarding et al. 2000 (infarct); they are ranges of what may be found, not averages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from .relaxation import Acquired

# Layers from the outside in. Each: outer edge relative to the whole, T1 ms, T2 ms, density, R2' 1/ms, and opacity, which is 1
# where nothing of the tissue shows
Range = tuple[float, float]
LayerRanges = tuple[Range, Range, Range, Range, Range, Range]
WHOLE = (1.0, 1.0)
OEDEMA: LayerRanges = (WHOLE, (1150, 1900), (115, 200), (0.82, 0.93), (0.002, 0.005), (0.6, 1.0))
KINDS: dict[str, tuple[LayerRanges, ...]] = {
    "demyelination": ((WHOLE, (1200, 1700), (110, 210), (0.78, 0.88), (0.002, 0.005), (0.7, 1.0)),),
    "black hole": ((WHOLE, (1600, 3000), (180, 600), (0.85, 0.97), (0.001, 0.004), (0.8, 1.0)),),
    "oedema": (OEDEMA,),
    "infarct": ((WHOLE, (1150, 1800), (105, 190), (0.8, 0.92), (0.002, 0.006), (0.75, 1.0)),),
    "cavity": (
        (WHOLE, (1100, 1700), (110, 200), (0.8, 0.92), (0.002, 0.005), (0.7, 1.0)),  # the gliotic rim
        ((0.75, 0.92), (3400, 4400), (500, 1800), (0.95, 1.0), (0.0, 0.002), (0.95, 1.0)),
    ),
    "cyst": ((WHOLE, (3700, 4400), (400, 1800), (0.92, 1.0), (0.0, 0.002), (0.95, 1.0)),),
    "protein-rich cyst": ((WHOLE, (350, 1600), (120, 700), (0.85, 1.0), (0.001, 0.004), (0.95, 1.0)),),
    "acute haemorrhage": (
        OEDEMA,
        ((0.7, 0.92), (900, 1500), (28, 52), (0.75, 0.9), (0.03, 0.09), (0.9, 1.0)),
    ),
    "early subacute haemorrhage": (
        OEDEMA,
        ((0.75, 0.95), (240, 430), (26, 50), (0.75, 0.9), (0.03, 0.08), (0.9, 1.0)),
    ),
    "late subacute haemorrhage": (
        (WHOLE, (700, 1200), (18, 40), (0.65, 0.8), (0.06, 0.15), (0.8, 1.0)),  # the rim of haemosiderin
        ((0.84, 0.97), (250, 480), (120, 260), (0.85, 1.0), (0.005, 0.02), (0.9, 1.0)),
    ),
    "haemosiderin": ((WHOLE, (700, 1500), (12, 34), (0.55, 0.8), (0.08, 0.2), (0.85, 1.0)),),
    "calcification": ((WHOLE, (500, 1300), (10, 40), (0.12, 0.45), (0.03, 0.15), (0.85, 1.0)),),
    "tumour": ((WHOLE, (1200, 2200), (95, 230), (0.8, 0.93), (0.002, 0.006), (0.75, 1.0)),),
    "enhancing tumour": (
        OEDEMA,
        ((0.5, 0.85), (260, 620), (85, 170), (0.8, 0.92), (0.003, 0.01), (0.9, 1.0)),
    ),
    "necrotic tumour": (
        OEDEMA,
        ((0.6, 0.85), (260, 650), (85, 170), (0.8, 0.92), (0.003, 0.01), (0.9, 1.0)),
        ((0.3, 0.55), (1500, 3500), (180, 900), (0.88, 1.0), (0.001, 0.004), (0.95, 1.0)),
    ),
    "fat": ((WHOLE, (260, 400), (80, 130), (0.88, 1.0), (0.008, 0.02), (0.95, 1.0)),),
    "anything": ((WHOLE, (230, 4300), (12, 1500), (0.25, 1.0), (0.0, 0.1), (0.7, 1.0)),),
}
COMMON = {"demyelination": 3.0, "oedema": 2.0, "anything": 4.0}  # drawn so many times as often as the others
PUSHING = ("haemorrhage", "tumour", "cyst", "oedema", "anything")  # kinds with these words may push what is around them
WITHOUT_HALO = 0.35  # probability that a lesion with a halo of oedema comes without it
LONGER_AT_3T = 1.2  # T1
MOST_PUSH = 0.35
REACH = 2.6  # radii: what lies further off is not changed
TEXTURE = 0.05  # standard deviation of the lesion's own unevenness, relative


@dataclass(frozen=True)
class Layer:
    """edge: outer boundary relative to the lesion's. material: see `relaxation`. opacity: 1 where nothing of the tissue shows."""

    edge: float
    material: tuple[float, float, float, float]
    opacity: float


@dataclass(frozen=True)
class Lesion:
    """One lesion. diameter: mm, of the sphere of the same volume. axes: relative half-axes, of product 1.

    turns: angles in radians about the array's axes. roughness: how far the boundary departs from the ellipsoid, relative.
    soft: mm over which it fades. push: the part of its radius by which it displaces what is around it. seed: of shape and
    texture.
    """

    kind: str
    diameter: float
    layers: tuple[Layer, ...]
    axes: tuple[float, float, float] = (1.0, 1.0, 1.0)
    turns: tuple[float, float, float] = (0.0, 0.0, 0.0)
    roughness: float = 0.2
    soft: float = 1.0
    push: float = 0.0
    seed: int = 0

    @property
    def radius(self) -> float:
        """mm, of the sphere of the same volume."""
        return self.diameter / 2


def draw_lesion(
    rng: np.random.Generator, diameter: tuple[float, float] = (3.0, 60.0), kind: str | None = None, field: float = 1.5
) -> Lesion:
    """A random lesion at `field` tesla; small ones are the likelier (log-uniform). kind: one of `KINDS`, None for a random one."""
    if kind is None:
        odds = np.array([COMMON.get(name, 1.0) for name in KINDS])
        kind = str(rng.choice(list(KINDS), p=odds / odds.sum()))
    size = float(np.clip(np.exp(rng.uniform(*np.log(diameter))), *diameter))  # rounding may leave the range
    ranges = KINDS[kind]
    if len(ranges) > 1 and ranges[0] is OEDEMA and rng.random() < WITHOUT_HALO:
        first = ranges[1]
        ranges = ((WHOLE, *first[1:]), *ranges[2:])
    layers = tuple(_layer(each, field, rng) for each in ranges)
    axes = np.exp(rng.normal(0.0, 0.2, 3))
    pushes = any(word in kind for word in PUSHING) and size > 8
    return Lesion(
        kind,
        size,
        layers,
        tuple(float(a) for a in axes / np.cbrt(axes.prod())),  # type: ignore[arg-type]
        tuple(float(a) for a in rng.uniform(-np.pi, np.pi, 3)),  # type: ignore[arg-type]
        roughness=float(rng.uniform(0.05, 0.4)),
        soft=float(rng.uniform(0.3, 1.2) if rng.random() < 0.75 else rng.uniform(1.0, 0.12 * size + 1.0)),
        push=float(rng.uniform(0, MOST_PUSH)) if pushes else 0.0,
        seed=int(rng.integers(2**31)),
    )


def _layer(ranges: LayerRanges, field: float, rng: np.random.Generator) -> Layer:
    edge, t1, t2, density, dephasing, opacity = ranges
    longer = LONGER_AT_3T if field > 2 else 1.0
    first = longer * np.exp(rng.uniform(*np.log(t1)))
    second = min(0.8 * first, np.exp(rng.uniform(*np.log(t2))))  # T2 is the shorter one, always
    made = (float(first), float(second), float(rng.uniform(*density)), float(rng.uniform(*dephasing)))
    return Layer(float(rng.uniform(*edge)), made, float(rng.uniform(*opacity)))


def inserted(
    images: Mapping[str, np.ndarray],
    lesion: Lesion,
    centre: Sequence[float],
    spacing: Sequence[float],
    how: Acquired,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Registered `images` by contrast, on the networks' scale, two- or three-dimensional, with `lesion` in all of them.

    centre: in voxels, along the array's axes; spacing: mm, likewise. how: sequences of each contrast. Returns new images and
    how much of each voxel is lesion, 0 to 1. The scans' own noise stays, the tissue around is pushed where the lesion pushes.
    """
    shape = next(iter(images.values())).shape
    reach = REACH * lesion.radius * max(lesion.axes) + 3.0
    box = tuple(
        slice(max(0, int(np.floor(c - reach / mm))), min(n, int(np.ceil(c + reach / mm)) + 1))
        for c, mm, n in zip(centre, spacing, shape, strict=True)
    )
    offsets = np.meshgrid(
        *(mm * (np.arange(b.start, b.stop) - c) for b, c, mm in zip(box, centre, spacing, strict=True)), indexing="ij"
    )
    offset = np.stack(offsets).astype(np.float32)  # (axes, ...) in mm from the centre
    rng = np.random.default_rng(lesion.seed)
    distance = _distance(offset, lesion, rng)
    masks = layer_masks(distance, lesion)
    texture = 1 + TEXTURE * _smooth_field(distance.shape, 2.0, spacing, rng)
    result = {}
    for name, image in images.items():
        there = image[box]
        if lesion.push:
            there = _pushed(there, offset, distance, lesion, spacing)
        noise = there - ndimage.gaussian_filter(there, 1.0)
        levels = how.level(name, np.array([layer.material for layer in lesion.layers]))
        for mask, level, layer in zip(masks, levels, lesion.layers, strict=True):
            there = there + layer.opacity * mask * (level * texture + 0.7 * noise - there)
        result[name] = image.copy()
        result[name][box] = np.maximum(there, 0.0)
    whole = np.zeros(shape, dtype=np.float32)
    whole[box] = masks[0]
    return result, whole


def layer_masks(distance: np.ndarray, lesion: Lesion) -> list[np.ndarray]:
    """What each layer covers, 0 to 1, from the outside in; distance: from the centre, 1 at the lesion's boundary."""
    width = lesion.soft / lesion.radius
    return [1 / (1 + np.exp(np.clip((distance - layer.edge) * 4 / width, -30, 30))) for layer in lesion.layers]


def rotation(turns: Sequence[float]) -> np.ndarray:
    """(3, 3) of three turns about the array's axes, one after the other."""
    matrix = np.eye(3)
    for axis, angle in enumerate(turns):
        one = np.eye(3)
        a, b = (k for k in range(3) if k != axis)
        one[a, a] = one[b, b] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        matrix = one @ matrix
    return matrix


def _distance(offset: np.ndarray, lesion: Lesion, rng: np.random.Generator) -> np.ndarray:
    """From the centre, 1 at the boundary; offset: (2 or 3 axes, ...) in mm."""
    axes = len(offset)
    turn = rotation(lesion.turns)[-axes:, -axes:] if axes == 3 else _plane(lesion.turns[0])
    turned = np.tensordot(turn, offset, axes=1)
    scale = np.array(lesion.axes[-axes:]) * lesion.radius
    distance = np.sqrt(np.sum(np.square(turned / scale.reshape(-1, *([1] * axes))), axis=0))
    knots = max(1.5, 0.7 * lesion.radius)  # mm between the bumps of the boundary
    spacing = [float(np.abs(np.diff(o, axis=n)).mean()) if o.shape[n] > 1 else 1.0 for n, o in enumerate(offset)]
    return np.asarray(
        distance * (1 + lesion.roughness * _smooth_field(distance.shape, knots, spacing, rng)), dtype=np.float32
    )


def _plane(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _smooth_field(shape: Sequence[int], knots: float, spacing: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Random values of mean 0 and standard deviation about 0.5 that change over `knots` mm."""
    counts = [max(2, int(np.ceil(n * mm / knots)) + 1) for n, mm in zip(shape, spacing, strict=True)]
    coarse = rng.standard_normal(counts)
    grids = np.meshgrid(*(np.linspace(0, m - 1, n) for m, n in zip(counts, shape, strict=True)), indexing="ij")
    return np.asarray(
        np.clip(ndimage.map_coordinates(coarse, grids, order=1, mode="nearest"), -1.3, 1.3), dtype=np.float32
    )


def _pushed(
    there: np.ndarray, offset: np.ndarray, distance: np.ndarray, lesion: Lesion, spacing: Sequence[float]
) -> np.ndarray:
    """The tissue, moved away from the centre: what is at 1 came from 1 - push, what is at `REACH` stayed."""
    fade = np.clip((REACH - distance) / (REACH - 1), 0, 1) ** 2
    inward = 1 - lesion.push * fade
    centre = [-o.min() / mm if o.size else 0.0 for o, mm in zip(offset, spacing, strict=True)]
    places = [o * inward / mm + c for o, mm, c in zip(offset, spacing, centre, strict=True)]
    return np.asarray(ndimage.map_coordinates(there, places, order=1, mode="nearest"), dtype=np.float32)


def deep_inside(head: np.ndarray, spacing: Sequence[float], depth: float = 12.0) -> np.ndarray:
    """Voxels of `head` (a mask, (k, j, i)) that lie `depth` mm below its surface or more, in the plane of its finest axes."""
    coarse = int(np.argmax(spacing))
    plane = [mm for axis, mm in enumerate(spacing) if axis != coarse]
    slices = np.moveaxis(head, coarse, 0)
    deep = np.stack(
        [ndimage.distance_transform_edt(np.pad(one, 1), sampling=plane)[1:-1, 1:-1] >= depth for one in slices]
    )
    return np.moveaxis(deep, 0, coarse)


def at_field(lesion: Lesion, field: float) -> Lesion:
    """`lesion`, drawn for 1.5 T, as it is at `field` tesla."""
    if field < 2:
        return lesion
    return replace(
        lesion,
        layers=tuple(
            replace(layer, material=(LONGER_AT_3T * layer.material[0], *layer.material[1:])) for layer in lesion.layers
        ),
    )
