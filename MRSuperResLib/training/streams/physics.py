"""Pairs of contrasts made from label maps by signal equations, for whole batches on any device.

Each slice is one person at one field strength: relaxation times of its tissues are drawn around the published ones, now and then
longer as in children, and two sequences show them. What lies outside the brain is drawn freely, or is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...relaxation import FIELDS, Acquired, draw_sequence, material, signal, varied

AIR = 0
FLUID = (4, 5, 14, 15, 24, 31, 43, 44, 63, 72)  # FreeSurfer's numbers
WHITE = (2, 7, 16, 28, 41, 46, 60, 85)
GREY = (3, 8, 42, 47)
DEEP_GREY = (10, 11, 12, 13, 17, 18, 26, 49, 50, 51, 52, 53, 54, 58)
MOST_BRAIN = 99  # labels above it lie outside the brain
REFERENCE = {"T1w": ("white", 0.62), "T2w": ("fluid", 0.78), "FLAIR": ("grey", 0.68), "PDw": ("fluid", 0.75)}
KNOTS = 6
SHIFT = 3.0  # pixels at a knot, of the deformation


@dataclass(frozen=True)
class PhysicsSpec:
    """How anatomies and contrasts vary. stripped: probability of a head without skull. immature: of longer relaxation times, up
    to `longer`, as in children. level: relative range of the reference tissue's place on the networks' scale. texture: largest
    standard deviation within a tissue, relative. blur: pixels, of tissue borders.
    """

    stripped: float = 0.45
    immature: float = 0.12
    longer: float = 1.9
    level: tuple[float, float] = (0.55, 1.2)
    texture: float = 0.07
    blur: tuple[float, float] = (0.35, 0.8)


class LabelTissues:
    """What each label of some maps is made of. codes: (number of codes,) the labels; `coded` maps stored labels to codes."""

    def __init__(self, maps: Sequence[np.ndarray]) -> None:
        self.codes = np.unique(np.concatenate([[AIR], *(np.unique(one) for one in maps)]))
        names = {label: name for name, labels in TISSUE_LABELS.items() for label in labels}
        self.names = [names.get(int(label), "") for label in self.codes]
        self.outside = np.array([label > MOST_BRAIN for label in self.codes])

    def coded(self, labels: np.ndarray) -> np.ndarray:
        """`labels` (any shape) as indices into `codes`, uint8."""
        return np.searchsorted(self.codes, labels).astype(np.uint8)

    def person(self, spec: PhysicsSpec, rng: np.random.Generator) -> tuple[float, np.ndarray]:
        """Field strength, and the material of each code, (codes, 4)."""
        field = float(rng.choice(FIELDS))
        made = np.stack([material(name, field) if name else _any_material(rng) for name in self.names])
        made = varied(made, rng, 0.05)
        if rng.random() < spec.immature:
            slower = 1 + (spec.longer - 1) * rng.random() * np.array([1.0, 1.0, 0.0, 0.0])
            for number, name in enumerate(self.names):
                if name in ("white", "grey", "deep grey"):
                    made[number] *= slower if name == "white" else np.sqrt(slower)
                    made[number, 2] = min(1.0, made[number, 2])
        if rng.random() < spec.stripped:
            made[self.outside, 2] = 0.0
        made[AIR, 2] = 0.0 if rng.random() < 0.9 else rng.uniform(0, 0.2)
        return field, made

    def acquired(
        self, contrasts: Sequence[str], spec: PhysicsSpec, rng: np.random.Generator
    ) -> tuple[Acquired, np.ndarray]:
        """How a random person was scanned, and the brightness of each code, (codes, contrasts)."""
        field, made = self.person(spec, rng)
        sequences, levels = {}, []
        for contrast in contrasts:
            sequence = draw_sequence(contrast, field, rng)
            tissue, level = REFERENCE[contrast]
            reference = float(signal(sequence, material(tissue, field)))
            gain = level * rng.uniform(*spec.level) / reference
            sequences[contrast] = (sequence, gain)
            levels.append(np.minimum(gain * signal(sequence, made), 1.3))
        return Acquired(field, sequences), np.stack(levels, -1).astype(np.float32)


TISSUE_LABELS = {"fluid": FLUID, "white": WHITE, "grey": GREY, "deep grey": DEEP_GREY, "air": (AIR,)}


def _any_material(rng: np.random.Generator) -> np.ndarray:
    """Something outside the brain: fat, muscle, bone and whatever lies between."""
    t1 = float(np.exp(rng.uniform(np.log(250), np.log(4000))))
    t2 = float(np.exp(rng.uniform(np.log(8), np.log(min(400.0, 0.8 * t1)))))
    return np.array([t1, t2, rng.uniform(0.1, 1.0), rng.uniform(0.002, 0.03)])


def painted(
    codes: Tensor,
    levels: Tensor,
    spacing: Tensor,
    place: Tensor,
    side: int,
    spec: PhysicsSpec,
    generator: torch.Generator,
) -> Tensor:
    """Registered contrasts (B, C, side, side) of coded label slices (B, H, W).

    levels: (B, codes, C). place: (B, 2, 3), the affine map from output to input as `functional.affine_grid` takes it. spacing:
    (B,), input pixels in an output pixel, against aliasing.
    """
    batch, contrasts = len(codes), levels.shape[-1]
    grid = functional.affine_grid(place, [batch, 1, side, side], align_corners=False)
    bend = torch.randn(batch, 2, KNOTS, KNOTS, device=codes.device, generator=generator).clamp(-2, 2)
    bend = functional.interpolate(bend, size=(side, side), mode="bicubic", align_corners=True)
    pixel = torch.tensor([2 / codes.shape[2], 2 / codes.shape[1]], device=codes.device)
    grid = grid + (SHIFT / 2) * bend.permute(0, 2, 3, 1) * pixel
    moved = functional.grid_sample(
        codes[:, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False
    )
    index = moved.round().long().view(batch, -1, 1).expand(-1, -1, contrasts)
    images = levels.gather(1, index).view(batch, side, side, contrasts).permute(0, 3, 1, 2)
    uneven = torch.randn(batch, 1, side, side, device=codes.device, generator=generator)
    strength = spec.texture * torch.rand(batch, 1, 1, 1, device=codes.device, generator=generator)
    uneven = blurred(uneven, torch.rand(batch, device=codes.device, generator=generator) + 0.05)
    low, high = spec.blur
    soft = low + (high - low) * torch.rand(batch, device=codes.device, generator=generator)
    return blurred(images * (1 + strength * uneven), soft / spacing.clamp(0.5, 1.0))


def blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """(B, C, H, W), each image convolved with a Gaussian of its own standard deviation `sigma` (B,), in pixels."""
    offsets = torch.arange(-3, 4, device=images.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None].clamp_min(0.05)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True))[:, :, None, None, None]  # (B, 7, 1, 1, 1)
    height, width = images.shape[2:]
    # Sums of shifted images: a grouped convolution takes three times as long on a CPU and may round more on a GPU.
    wide = functional.pad(images, (3, 3, 3, 3), mode="replicate")
    wide = torch.stack([kernel[:, n] * wide[:, :, n : n + height] for n in range(7)]).sum(0)
    return torch.stack([kernel[:, n] * wide[..., n : n + width] for n in range(7)]).sum(0)
