"""A sharp volume made coarse, as a named degradation would acquire it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UsageError
from .noise import add_gaussian_noise
from .operators import Acquisition, AxisOperator, axis_operator, partial_kspace
from .second_order import SECOND_ORDER, second_order

if TYPE_CHECKING:
    from ..volume import Volume


@dataclass(frozen=True)
class Degradation:
    """One named way to make a coarse volume out of a fine one: the operator's kind and the noise that follows.

    thickness: of the slices over their spacing. apodisation: of the acquired k-space, 0 to 1 (`kspace_crop`). partial: share of it
    that is acquired along the first coarse axis of the array; below 1 the image is a magnitude. noise: standard deviation over the
    volume's robust range (see `IntensityScale`), Gaussian.
    """

    kind: str
    thickness: float = 1.0
    apodisation: float = 0.0
    partial: float = 1.0
    noise: float = 0.0


PRESETS: dict[str, Degradation] = {
    "through-gaussian": Degradation("gaussian"),
    "through-box": Degradation("box"),
    "through-sinc": Degradation("sinc"),
    "bicubic": Degradation("bicubic"),
    "bicubic-noise": Degradation("bicubic", noise=0.01),  # eq. 13 of RDST; the paper does not print its sigma
    "kspace": Degradation("kspace"),
    "kspace-apodised": Degradation("kspace", apodisation=0.5),
    "kspace-partial": Degradation("kspace", partial=0.75),  # 6/8 partial Fourier, the missing part zero
    SECOND_ORDER: Degradation(SECOND_ORDER),
}


def acquire(
    volume: Volume,
    factors: tuple[float, float, float],
    degradation: Degradation | str = "through-gaussian",
    *,
    seed: int | None = None,
) -> Volume:
    """`volume` as a coarser scan would show it, on `volume.grid.coarsen(factors)`; `factors` along i, j, k, 1 leaves an axis.

    Sizes that the factor does not divide give slices whose spacing is rounded as `Grid.coarsen` does.
    """
    from ..intensity import IntensityScale
    from ..volume import Volume

    way = preset(degradation)
    grid = volume.grid.coarsen(factors)
    if way.kind == SECOND_ORDER:
        low = _second_order_slices(volume.array, factors[::-1], np.random.default_rng(seed))
        return Volume(low, grid, volume.name, volume.metadata)
    operators = {}
    for axis_ijk, factor in enumerate(factors):
        if factor != 1:
            n_high, n_low = volume.grid.size[axis_ijk], grid.size[axis_ijk]
            operators[2 - axis_ijk] = axis_operator(
                way.kind, n_high, n_high / n_low, thickness=way.thickness, apodisation=way.apodisation
            )
    if way.partial < 1:
        low = _magnitude(volume.array, operators, way)
    else:
        low = Acquisition(operators).apply(volume.array)
    if way.noise:
        scale = IntensityScale.of(volume.array)
        low = add_gaussian_noise(low, way.noise * (scale.high - scale.low), np.random.default_rng(seed))
    return Volume(np.ascontiguousarray(low, dtype=np.float32), grid, volume.name, volume.metadata)


def _magnitude(array: np.ndarray, operators: dict[int, AxisOperator], way: Degradation) -> np.ndarray:
    """`array` acquired by `operators`, the first of them in part: the magnitude of a complex image."""
    if way.kind != "kspace":
        raise UsageError(f"only a k-space can be acquired in part, not '{way.kind}'")
    first = min(operators)
    n_high, n_low = operators[first].n_high, operators[first].n_low
    rest = Acquisition({axis: operator for axis, operator in operators.items() if axis != first}).apply(array)
    parts = partial_kspace(n_high, n_high / n_low, way.partial, way.apodisation)
    return np.hypot(*(part.apply(rest, first) for part in parts))


def _second_order_slices(array: np.ndarray, factors: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """`array` with the two axes whose factor is not 1 degraded by `second_order`, in the array's own units."""
    from ..intensity import IntensityScale

    axes = [axis for axis, factor in enumerate(factors) if factor != 1]
    if len(axes) != 2:
        raise UsageError(f"the degradation '{SECOND_ORDER}' coarsens two axes at once; use it in-plane")
    scale = IntensityScale.of(array)
    slices = np.moveaxis(scale.to_unit(array), axes, (-2, -1))
    low = second_order(slices, rng, factors=(factors[axes[0]], factors[axes[1]]))
    return np.ascontiguousarray(scale.from_unit(np.moveaxis(low, (-2, -1), axes)), dtype=np.float32)


def preset(degradation: Degradation | str) -> Degradation:
    """A degradation by its preset's name; one already made is returned as it is."""
    if isinstance(degradation, Degradation):
        return degradation
    if degradation not in PRESETS:
        raise UsageError(f"degradation '{degradation}' is unknown; choose one of {', '.join(PRESETS)}")
    return PRESETS[degradation]
