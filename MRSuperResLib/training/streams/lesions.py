"""Lesions for whole batches of training slices, on any device: drawn as `MRSuperResLib.lesions` draws them, painted with torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...lesions import REACH, TEXTURE, Lesion, draw_lesion
from ...relaxation import Acquired

LAYERS = 3
KNOTS = 9  # of the unevenness, across a lesion's reach
INSIDE = 0.1  # on the networks' scale: darker is taken for air
DEPTH = 11  # pixels: a lesion's centre has tissue nearly all around within half of that


@dataclass(frozen=True)
class LesionSpec:
    """How many lesions a slice gets, by probability (none, one, two, ...), and how large they are, mm."""

    counts: tuple[float, ...] = (0.25, 0.4, 0.2, 0.15)
    diameter: tuple[float, float] = (3.0, 60.0)


@dataclass(frozen=True)
class LesionBatch:
    """Drawn lesions of B slices, up to N in each, in C contrasts; see `lesions.Lesion`. Lengths in mm.

    there: (B, N), 1 where there is one. radius, turn, roughness, soft, push: (B, N). axes: (B, N, 2). edge, opacity:
    (B, N, 3), from the outside in, opacity 0 where there is no layer. level: (B, N, 3, C), brightness on the networks' scale.
    """

    there: Tensor
    radius: Tensor
    turn: Tensor
    roughness: Tensor
    soft: Tensor
    push: Tensor
    axes: Tensor
    edge: Tensor
    opacity: Tensor
    level: Tensor

    def to(self, device: torch.device | str) -> LesionBatch:
        """The same on another device."""
        return LesionBatch(*(getattr(self, one.name).to(device, non_blocking=True) for one in fields(self)))


def draw_lesions(
    ways: Sequence[Acquired], contrasts: Sequence[Sequence[str]], spec: LesionSpec, rng: np.random.Generator
) -> LesionBatch:
    """Lesions for B slices. ways: how each was acquired, (B,). contrasts: C names for each, (B, C)."""
    drawn = [
        [draw_lesion(rng, spec.diameter, field=way.field) for _ in range(rng.choice(len(spec.counts), p=spec.counts))]
        for way in ways
    ]
    return lesion_batch(drawn, ways, contrasts)


def lesion_batch(
    drawn: Sequence[Sequence[Lesion]], ways: Sequence[Acquired], contrasts: Sequence[Sequence[str]]
) -> LesionBatch:
    """`drawn` lesions of each slice as arrays; arguments as `draw_lesions`."""
    size = (len(drawn), max(1, max(map(len, drawn))))
    plain = {name: np.zeros(size, np.float32) for name in ("there", "turn", "roughness", "push")}
    plain |= {name: np.ones(size, np.float32) for name in ("radius", "soft")}
    axes = np.ones((*size, 2), np.float32)
    edge, opacity = np.ones((*size, LAYERS), np.float32), np.zeros((*size, LAYERS), np.float32)
    level = np.zeros((*size, LAYERS, len(contrasts[0])), np.float32)
    for b, (lesions, way, names) in enumerate(zip(drawn, ways, contrasts, strict=True)):
        for n, lesion in enumerate(lesions):
            plain["there"][b, n], plain["turn"][b, n] = 1, lesion.turns[0]
            for name in ("radius", "roughness", "soft", "push"):
                plain[name][b, n] = getattr(lesion, name)
            axes[b, n] = lesion.axes[-2:]
            materials = np.array([layer.material for layer in lesion.layers])
            for number, layer in enumerate(lesion.layers):
                edge[b, n, number], opacity[b, n, number] = layer.edge, layer.opacity
            for c, name in enumerate(names):
                level[b, n, : len(materials), c] = way.level(name, materials)
    return LesionBatch(
        *(torch.from_numpy(plain[name]) for name in ("there", "radius", "turn", "roughness", "soft", "push")),
        *(torch.from_numpy(each) for each in (axes, edge, opacity, level)),
    )


def insert_lesions(
    images: Tensor,
    lesions: LesionBatch,
    spacing: Tensor,
    centres: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Registered contrasts (B, C, H, W) on the networks' scale with `lesions` in all of them, and how much of each pixel is lesion.

    spacing: (B,) mm of a pixel. centres: (B, N, 2), rows and columns in pixels; None for random places inside the head. Returns
    (B, C, H, W) and (B, 1, H, W).
    """
    batch, _, height, width = images.shape
    device = images.device
    count = lesions.there.shape[1]
    if centres is None:
        centres = random_places(images, count, generator)
    rows = torch.arange(height, device=device, dtype=torch.float32)[None, :, None]
    columns = torch.arange(width, device=device, dtype=torch.float32)[None, None, :]
    mm = spacing.view(batch, 1, 1)
    covered = images.new_zeros(batch, 1, height, width)
    for n in range(count):

        def each(values: Tensor, n: int = n) -> Tensor:
            return values[:, n].view(batch, 1, 1)

        y = (rows - each(centres[..., 0])) * mm  # (B, H, W) in mm from the centre
        x = (columns - each(centres[..., 1])) * mm
        cosine, sine, radius = torch.cos(each(lesions.turn)), torch.sin(each(lesions.turn)), each(lesions.radius)
        u = (cosine * y - sine * x) / (each(lesions.axes[..., 0]) * radius)
        v = (sine * y + cosine * x) / (each(lesions.axes[..., 1]) * radius)
        coarse = torch.randn(batch, 2, KNOTS, KNOTS, device=device, generator=generator).clamp(-1.3, 1.3)
        uneven = functional.grid_sample(
            coarse, torch.stack((u, v), -1) / REACH, mode="bilinear", padding_mode="border", align_corners=True
        )
        distance = torch.sqrt(u * u + v * v) * (1 + each(lesions.roughness) * uneven[:, 0])
        images, covered = (
            _pushed(stack, y, x, distance, each(lesions.push) * each(lesions.there), centres[:, n], spacing)
            for stack in (images, covered)
        )
        noise = images - functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
        texture = 1 + TEXTURE * uneven[:, 1:]
        for layer in range(LAYERS):
            softness = each(lesions.soft) / radius
            inside = torch.sigmoid((each(lesions.edge[..., layer]) - distance) * 4 / softness)[:, None]
            inside = inside * each(lesions.there)[:, None]
            part = inside * each(lesions.opacity[..., layer])[:, None]
            level = lesions.level[:, n, layer, :, None, None]
            images = images + part * (level * texture + 0.7 * noise - images)
            if layer == 0:
                covered = torch.maximum(covered, inside)
    return images.clamp_min(0.0), covered


def random_places(images: Tensor, count: int, generator: torch.Generator | None = None, depth: int = DEPTH) -> Tensor:
    """(B, count, 2) rows and columns inside what is bright in one of the contrasts (B, C, H, W).

    Four fifths of the `depth` pixels around are bright, if there is such a place.
    """
    width = images.shape[-1]
    bright = (images.amax(1, keepdim=True) > INSIDE).float()
    deep = functional.avg_pool2d(bright, depth, 1, depth // 2) > 0.8
    inside = (deep + 0.001 * bright + 1e-7).flatten(1)
    chosen = torch.multinomial(inside, count, replacement=True, generator=generator)
    return torch.stack((chosen // width, chosen % width), -1).float()


def _pushed(
    images: Tensor, y: Tensor, x: Tensor, distance: Tensor, push: Tensor, centre: Tensor, spacing: Tensor
) -> Tensor:
    """As `lesions._pushed`: images (B, C, H, W); y, x, distance: (B, H, W); push: (B, 1, 1)."""
    if not bool((push > 0).any()):
        return images
    height, width = images.shape[-2:]
    inward = 1 - push * ((REACH - distance) / (REACH - 1)).clamp(0, 1) ** 2
    mm = spacing.view(-1, 1, 1)
    row = y * inward / mm + centre[:, 0].view(-1, 1, 1)
    column = x * inward / mm + centre[:, 1].view(-1, 1, 1)
    grid = torch.stack((2 * column / max(1, width - 1) - 1, 2 * row / max(1, height - 1) - 1), -1)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=True)
