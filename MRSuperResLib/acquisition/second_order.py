"""The second-order degradation of MTSR-MRI (paper 003, figure 2): each stage halves, blurs and adds noise, at random."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..errors import UsageError
from .noise import add_gaussian_noise, add_rician_noise, add_signal_dependent_noise
from .operators import AxisOperator, bicubic, mirrored

if TYPE_CHECKING:
    import torch

Values = TypeVar("Values", np.ndarray, "torch.Tensor")
SECOND_ORDER = "second-order"  # the degradation of MTSR-MRI's figure 2, in-plane only
TAIL = 4.0  # standard deviations after which a blur's kernel is cut
BLURS = ("isotropic", "anisotropic", "generalised")
NOISES = {
    "gaussian": add_gaussian_noise,
    "poisson": add_signal_dependent_noise,
    "rician": add_rician_noise,
}


@dataclass(frozen=True)
class SecondOrder:
    """How strong a second-order degradation is; ranges are drawn from uniformly, anew in each stage.

    blurs, noises: names in `BLURS` and `NOISES`, each as likely as the others. width: standard deviation of the blur in pixels of
    the stage, so that its full width at half maximum is between nothing and 1.9 pixels, as readout decay, partial Fourier and
    filters leave it. exponent: of the generalised Gaussian, drawn on a logarithmic scale; 1 is a Gaussian, less has a sharper peak
    and longer tails, more a flat top. noise: standard deviation on the networks' scale.
    """

    blurs: tuple[str, ...] = BLURS
    noises: tuple[str, ...] = tuple(NOISES)
    width: tuple[float, float] = (0.1, 0.8)
    exponent: tuple[float, float] = (0.7, 2.5)
    noise: tuple[float, float] = (0.0, 0.03)

    def __post_init__(self) -> None:
        for field, chosen, known in (("blurs", self.blurs, BLURS), ("noises", self.noises, tuple(NOISES))):
            wrong = [name for name in chosen if name not in known]
            if wrong or not chosen:
                raise UsageError(
                    f"second-order degradation: {field} is {list(chosen)}, expected some of {', '.join(known)}"
                )


def second_order(
    image: Values,
    rng: np.random.Generator,
    *,
    factors: tuple[float, float] = (4, 4),
    strength: SecondOrder | None = None,
) -> Values:
    """`image` (..., H, W) as MTSR-MRI's figure 2 makes it coarse: a stage for each factor of 2, drawn anew every time.

    Each stage halves both axes (antialiased bicubic), blurs, and adds noise, in the caption's order. What is drawn holds for all
    leading axes, as for the slices of one scan; the noise itself is new everywhere. Intensities are on the networks' scale.
    Raises `UsageError` unless both factors are the same power of 2 and divide the image.
    """
    strength = strength or SecondOrder()
    stages = round(math.log2(factors[0])) if factors[0] > 0 else 0
    if stages < 1 or factors[0] != factors[1] or factors[0] != 2**stages:
        raise UsageError(
            f"the degradation '{SECOND_ORDER}' halves both axes in every stage; factors are {factors[0]:g} and {factors[1]:g}, "
            "expected 2 and 2 or 4 and 4"
        )
    if any(n % 2**stages for n in image.shape[-2:]):
        raise UsageError(f"an image of {image.shape[-2]} x {image.shape[-1]} pixels cannot be halved {stages} times")
    low = image
    for _ in range(stages):
        for axis in (low.ndim - 2, low.ndim - 1):
            low = _halving(low.shape[axis]).apply(low, axis)
        low = blurred(low, drawn_blur(strength, rng))
        add_noise = NOISES[strength.noises[rng.integers(len(strength.noises))]]
        low = add_noise(low, rng.uniform(*strength.noise), rng)
    return low


def drawn_blur(strength: SecondOrder, rng: np.random.Generator) -> np.ndarray:
    """A kernel of one of the strength's kinds, widths and orientation at random."""
    kind = strength.blurs[rng.integers(len(strength.blurs))]
    along, across = rng.uniform(*strength.width, size=2)
    if kind == "isotropic":
        return blur_kernel((along, along))
    exponent = math.exp(rng.uniform(*np.log(strength.exponent))) if kind == "generalised" else 1.0
    return blur_kernel((along, across), rng.uniform(0.0, math.pi), exponent)


def blur_kernel(widths: tuple[float, float], angle: float = 0.0, exponent: float = 1.0) -> np.ndarray:
    """A generalised Gaussian, exp(-r**(2 * exponent)) in its own axes, of sum 1 and odd size: 1 is a Gaussian.

    widths: standard deviations in pixels, whatever the exponent, along the direction `angle` (radians, from columns towards rows)
    and across it. A kernel narrower than half a pixel is, once sampled, narrower still: in the end it is no blur at all.
    """
    radius = max(1, math.ceil(TAIL * max(widths)))
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    along = (np.cos(angle) * columns + np.sin(angle) * rows) / widths[0]
    across = (np.cos(angle) * rows - np.sin(angle) * columns) / widths[1]
    # In two dimensions r**2 then has the mean gamma(2/b) / gamma(1/b), which must be 2 for widths of 1.
    scale = math.gamma(2 / exponent) / math.gamma(1 / exponent) / 2
    weights = np.exp(-((scale * (along**2 + across**2)) ** exponent))
    return np.asarray(weights / weights.sum())


def blurred(image: Values, kernel: np.ndarray) -> Values:
    """`image` (..., H, W) convolved with `kernel` (odd sizes) along its last two axes, mirrored at the edges."""
    height, width = image.shape[-2:]
    radii = [n // 2 for n in kernel.shape]
    rows, columns = (
        mirrored(np.arange(-radius, n + radius), n) for radius, n in zip(radii, (height, width), strict=True)
    )
    padded = image[..., rows, :][..., columns]
    answer = image * 0.0
    for (row, column), weight in np.ndenumerate(kernel[::-1, ::-1]):
        answer = answer + float(weight) * padded[..., row : row + height, column : column + width]
    return answer


@functools.lru_cache(maxsize=64)
def _halving(n_high: int) -> AxisOperator:
    return bicubic(n_high, 2)
