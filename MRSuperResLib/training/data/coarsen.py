"""A sharp crop as a coarser acquisition would have shown it, drawn at random, one crop at a time on the CPU."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np

from ...acquisition import (
    KINDS,
    SECOND_ORDER,
    AxisOperator,
    SecondOrder,
    add_gaussian_noise,
    add_rician_noise,
    axis_operator,
    second_order,
)
from ...documents import BadDocument, expected
from ...networks.parts.skip import cosines

MARGIN = 4  # coarse pixels around a patch that are acquired with it and cut off, so that borders are real
THICKNESS_STEPS = 8  # operators are cached, so thickness and apodisation come from a small set


@dataclass(frozen=True)
class DegradationSpec:
    """How a recipe coarsens: `kinds` maps an operator's kind to its weight; the rest are ranges drawn from uniformly.

    thickness: full width at half maximum over coarse spacing. noise: standard deviation on the networks' scale, applied with
    `noise_probability`; a share `rician` of it is Rician, the rest Gaussian. (Rician noise brightens air: a network whose truth has
    dark air learns to darken it everywhere.) bias: standard deviation of the log bias field at its knots. second_order: the
    strength of the kind "second-order", which has blurs and noise of its own and needs factors (2, 2) or (4, 4).
    """

    kinds: dict[str, float] = field(default_factory=dict)
    thickness: tuple[float, float] = (0.7, 1.3)
    apodisation: tuple[float, float] = (0.0, 1.0)
    noise: tuple[float, float] = (0.0, 0.03)
    noise_probability: float = 0.5
    rician: float = 0.25
    bias: float = 0.15
    second_order: SecondOrder = field(default_factory=SecondOrder)

    def __post_init__(self) -> None:
        known = (*KINDS, SECOND_ORDER)
        for kind, weight in self.kinds.items():
            if kind not in known:
                raise BadDocument(f"data.degradation.kinds.{kind} is not a known kind; {expected(kind, known)}")
            if weight < 0:
                raise BadDocument(f"data.degradation.kinds.{kind} is {weight:g}, expected a weight of at least 0")


def trim(image: np.ndarray, factors: tuple[int, int]) -> np.ndarray:
    """`image` without the acquired margin, `factors` pixels of it for each coarse one."""
    rows, columns = MARGIN * factors[0], MARGIN * factors[1]
    return np.ascontiguousarray(image[rows:-rows, columns:-columns], dtype=np.float32)


@functools.lru_cache(maxsize=256)
def _cached_operator(kind: str, n_high: int, factor: int, thickness: float, apodisation: float) -> AxisOperator:
    if kind == "kspace":
        return mirrored_kspace_crop(n_high, factor, apodisation)
    return axis_operator(kind, n_high, factor, thickness=thickness, apodisation=apodisation)


def mirrored_kspace_crop(n_high: int, factor: int, apodisation: float) -> AxisOperator:
    """`kspace_crop` of a signal continued by its mirror image, as crops need it.

    A crop has no air around it: continued periodically, as a scanner's field of view is, its edges would ring far into it.
    """
    n_low = n_high // factor
    low, high = cosines(n_low, n_low).numpy(), cosines(n_high, n_low).numpy()
    window = (1.0 - apodisation) + apodisation * np.cos(np.pi / 2 * np.arange(n_low) / n_low) ** 2
    matrix = np.sqrt(n_low / n_high) * (low * window) @ high.T
    return AxisOperator(matrix, f"mirrored k-space crop, apodisation {apodisation:g}")


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
