"""How a scanner sees: the forward models that make training pairs and, later, check results.

Every linear model here is separable, so an acquisition is one small matrix for each axis it coarsens (`AxisOperator`). The
same matrix serves numpy arrays and torch tensors, its transpose is the exact adjoint and its Moore-Penrose inverse the exact
pseudo-inverse. Geometry is the library's: the coarse samples share the *edges* of the fine ones, so coarse sample m sits at
fine index (m + 0.5) * factor - 0.5.

Noise and bias field follow as functions: they are random, or not linear.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scipy import ndimage

from .errors import UsageError

if TYPE_CHECKING:
    import torch

    from .volume import Volume

Values = TypeVar("Values", np.ndarray, "torch.Tensor")

GAUSSIAN_SIGMA_PER_FWHM = 1.0 / (2.0 * np.sqrt(2.0 * np.log(2.0)))
PROFILES = ("gaussian", "box", "sinc")
SINC_LOBES = 3  # side lobes kept on each side of a Hamming-windowed sinc: the profile of a common SLR excitation
BICUBIC_A = -0.5  # Keys' kernel, as in the usual bicubic image resizing
SECOND_ORDER = "second-order"  # the degradation of MTSR-MRI's figure 2, in-plane only
TAIL = 4.0  # standard deviations after which a blur's kernel is cut


@dataclass(frozen=True, eq=False)
class AxisOperator:
    """A linear acquisition along one axis: `matrix` (n_low, n_high), float64."""

    matrix: np.ndarray
    name: str

    @property
    def n_low(self) -> int:
        """Samples after the acquisition."""
        return int(self.matrix.shape[0])

    @property
    def n_high(self) -> int:
        """Samples before the acquisition."""
        return int(self.matrix.shape[1])

    def apply(self, values: Values, axis: int) -> Values:
        """What the scanner records of `values` along `axis` (n_high long there, n_low after)."""
        return _along(self.matrix, values, axis)

    def adjoint(self, values: Values, axis: int) -> Values:
        """The transpose: <apply(x), y> = <x, adjoint(y)>."""
        return _along(self.matrix.T, values, axis)

    def pinv(self, values: Values, axis: int) -> Values:
        """The least-norm signal that would have been recorded as `values`; apply(pinv(y)) = y for full row rank."""
        return _along(self._inverse, values, axis)

    @functools.cached_property
    def _inverse(self) -> np.ndarray:
        return np.linalg.pinv(self.matrix)


@dataclass(frozen=True)
class Acquisition:
    """Operators by array axis: `{0: slice_profile(...)}` for thick slices of a (k, j, i) array, two axes for a coarse matrix."""

    operators: Mapping[int, AxisOperator]

    def apply(self, values: Values) -> Values:
        """What the scanner records of `values`."""
        for axis, operator in self.operators.items():
            values = operator.apply(values, axis)
        return values

    def adjoint(self, values: Values) -> Values:
        """The transpose of `apply`."""
        for axis, operator in self.operators.items():
            values = operator.adjoint(values, axis)
        return values

    def pinv(self, values: Values) -> Values:
        """The pseudo-inverse of `apply`."""
        for axis, operator in self.operators.items():
            values = operator.pinv(values, axis)
        return values


def slice_profile(n_high: int, factor: float, profile: str = "gaussian", thickness: float = 1.0) -> AxisOperator:
    """Thick slices: each coarse sample is the profile-weighted mean of the fine ones around it.

    factor: coarse spacing over fine spacing. thickness: the profile's full width at half maximum over the coarse spacing;
    below 1 there is a gap between slices, above 1 they overlap. profile: "gaussian", "box" (partial voxels weighted exactly)
    or "sinc" (Hamming-windowed, as an SLR pulse excites). At the volume's ends the weights that remain are normalised.
    """
    centres, positions = _centres(n_high, factor), np.arange(n_high)
    width = thickness * factor  # full width at half maximum, fine voxels
    distance = positions[None, :] - centres[:, None]
    if profile == "gaussian":
        weights = np.exp(-0.5 * (distance / (width * GAUSSIAN_SIGMA_PER_FWHM)) ** 2)
    elif profile == "box":
        weights = np.clip(np.minimum(distance + 0.5, width / 2) - np.maximum(distance - 0.5, -width / 2), 0.0, None)
    elif profile == "sinc":
        weights = _slr(distance / width)
    else:
        raise UsageError(f"slice profile '{profile}' is unknown; choose one of {', '.join(PROFILES)}")
    return AxisOperator(weights / weights.sum(axis=1, keepdims=True), f"{profile} profile, thickness {thickness:g}")


def kspace_crop(n_high: int, factor: float, apodisation: float = 0.0) -> AxisOperator:
    """A coarse matrix: only the central 1/factor of k-space is acquired, over the same field of view.

    apodisation: 0 keeps the frequencies as they are (Gibbs ringing and all), 1 applies a full Hann window to them.
    """
    n_low = _coarse_size(n_high, factor)
    low = (np.arange(n_low) + 0.5) / n_low
    high = (np.arange(n_high) + 0.5) / n_high
    kept = np.arange(-(n_low // 2), n_low // 2 + 1)
    weights = (1.0 - apodisation) + apodisation * np.cos(np.pi * kept / (n_low + 1)) ** 2
    if n_low % 2 == 0:  # the Nyquist pair of an even matrix: half each, so that the operator stays real and symmetric
        weights = weights * np.where(np.abs(kept) == n_low // 2, 0.5, 1.0)
    phase = 2.0 * np.pi * (low[:, None] - high[None, :])
    matrix = sum(w * np.cos(k * phase) for k, w in zip(kept, weights, strict=True)) / n_high
    return AxisOperator(np.asarray(matrix), f"k-space crop, apodisation {apodisation:g}")


def bicubic(n_high: int, factor: float) -> AxisOperator:
    """Antialiased bicubic down-sampling, the kernel k of RDST's eq. 13: Keys' cubic stretched by the factor, edges mirrored."""
    centres = _centres(n_high, factor)
    reach = int(np.ceil(2 * factor)) + 1
    matrix = np.zeros((len(centres), n_high))
    for row, centre in enumerate(centres):
        positions = np.arange(int(np.floor(centre)) - reach, int(np.floor(centre)) + reach + 1)
        weights = _cubic((positions - centre) / factor)
        np.add.at(matrix[row], _mirrored(positions, n_high), weights / weights.sum())
    return AxisOperator(matrix, "bicubic")


KINDS = ("gaussian", "box", "sinc", "kspace", "bicubic")


def axis_operator(
    kind: str, n_high: int, factor: float, *, thickness: float = 1.0, apodisation: float = 0.0
) -> AxisOperator:
    """The operator named `kind`: a slice profile, "kspace" or "bicubic"."""
    if kind == "kspace":
        return kspace_crop(n_high, factor, apodisation)
    if kind == "bicubic":
        return bicubic(n_high, factor)
    return slice_profile(n_high, factor, kind, thickness)


@dataclass(frozen=True)
class Degradation:
    """One named way to make a coarse volume out of a fine one: the operator's kind and the noise that follows.

    noise: standard deviation over the volume's robust range (see `IntensityScale`), Gaussian.
    """

    kind: str
    thickness: float = 1.0
    apodisation: float = 0.0
    noise: float = 0.0


PRESETS: dict[str, Degradation] = {
    "through-gaussian": Degradation("gaussian"),
    "through-box": Degradation("box"),
    "through-sinc": Degradation("sinc"),
    "bicubic": Degradation("bicubic"),
    "bicubic-noise": Degradation("bicubic", noise=0.01),  # eq. 13 of RDST; the paper does not print its sigma
    "kspace": Degradation("kspace"),
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
    from .intensity import IntensityScale
    from .volume import Volume

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
    low = Acquisition(operators).apply(volume.array)
    if way.noise:
        scale = IntensityScale.of(volume.array)
        low = add_gaussian_noise(low, way.noise * (scale.high - scale.low), np.random.default_rng(seed))
    return Volume(np.ascontiguousarray(low, dtype=np.float32), grid, volume.name, volume.metadata)


def _second_order_slices(array: np.ndarray, factors: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """`array` with the two axes whose factor is not 1 degraded by `second_order`, in the array's own units."""
    from .intensity import IntensityScale

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


def add_gaussian_noise(values: Values, sigma: float, rng: np.random.Generator) -> Values:
    """`values` plus zero-mean Gaussian noise of standard deviation `sigma`, in the values' units."""
    return values + sigma * _normal(values, rng)


def add_rician_noise(values: Values, sigma: float, rng: np.random.Generator) -> Values:
    """Magnitude of `values` with Gaussian noise of `sigma` on both channels: what a magnitude image really carries.

    The sign of `values` is kept out of it: only its magnitude enters.
    """
    real = values + sigma * _normal(values, rng)
    imaginary = sigma * _normal(values, rng)
    return (real**2 + imaginary**2) ** 0.5


def add_signal_dependent_noise(values: Values, sigma: float, rng: np.random.Generator) -> Values:
    """`values` plus noise whose variance grows with the signal, as counted events have it: `sigma` where the value is 1, 0 in air.

    Poisson's law for 1 / sigma**2 events at the value 1, in its Gaussian limit.
    """
    signal = (values + abs(values)) / 2  # the positive part
    return values + sigma * signal**0.5 * _normal(values, rng)


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
        _mirrored(np.arange(-radius, n + radius), n) for radius, n in zip(radii, (height, width), strict=True)
    )
    padded = image[..., rows, :][..., columns]
    answer = image * 0.0
    for (row, column), weight in np.ndenumerate(kernel[::-1, ::-1]):
        answer = answer + float(weight) * padded[..., row : row + height, column : column + width]
    return answer


def bias_field(shape: tuple[int, ...], strength: float, rng: np.random.Generator, knots: int = 4) -> np.ndarray:
    """A smooth multiplicative field of mean 1 on `shape`: exp of a cubic interpolation of `knots` random values an axis.

    strength: standard deviation of the log field at the knots; 0.3 is a strong surface-coil bias.
    """
    coarse = rng.normal(0.0, strength, (knots,) * len(shape))
    coordinates = np.meshgrid(*(np.linspace(0, knots - 1, n) for n in shape), indexing="ij")
    log_field = ndimage.map_coordinates(coarse, coordinates, order=3, mode="nearest")
    field = np.exp(log_field)
    return (field / field.mean()).astype(np.float32)


def _along(matrix: np.ndarray, values: Any, axis: int) -> Any:
    """`matrix` applied along `axis` of a numpy array or a torch tensor, in the values' own precision and on their device."""
    if isinstance(values, np.ndarray):
        dtype = values.dtype if np.issubdtype(values.dtype, np.floating) else np.float64
        return np.moveaxis(np.tensordot(matrix.astype(dtype), values, axes=(1, axis)), 0, axis)
    import torch

    weights = torch.as_tensor(matrix, dtype=values.dtype, device=values.device)
    return torch.movedim(torch.tensordot(weights, values, dims=([1], [axis])), 0, axis)


def _normal(values: Any, rng: np.random.Generator) -> Any:
    noise = rng.standard_normal(tuple(values.shape), dtype=np.float32)
    if isinstance(values, np.ndarray):
        return noise.astype(values.dtype) if np.issubdtype(values.dtype, np.floating) else noise
    import torch

    return torch.as_tensor(noise, dtype=values.dtype, device=values.device)


@functools.lru_cache(maxsize=64)
def _halving(n_high: int) -> AxisOperator:
    return bicubic(n_high, 2)


def _mirrored(positions: np.ndarray, n: int) -> np.ndarray:
    """Indices into n samples for `positions` beyond their ends, the edge samples repeated."""
    folded = np.mod(positions, 2 * n)
    return np.where(folded >= n, 2 * n - 1 - folded, folded)


def _coarse_size(n_high: int, factor: float) -> int:
    return max(1, round(n_high / factor))


def _centres(n_high: int, factor: float) -> np.ndarray:
    """Fine index of each coarse sample's centre."""
    n_low = _coarse_size(n_high, factor)
    return (np.arange(n_low) + 0.5) * (n_high / n_low) - 0.5


def _slr(distance: np.ndarray) -> np.ndarray:
    """A slice profile as a short pulse of `SINC_LOBES` lobes excites it: the Fourier transform of a Hamming-windowed sinc.

    `distance` in units of the full width at half maximum. Flat-topped, with small ripples, as the small-tip theory gives it.
    """
    duration = 2.0 * SINC_LOBES
    time = np.linspace(-0.5, 0.5, 513) * duration
    pulse = np.sinc(time) * (0.54 + 0.46 * np.cos(2.0 * np.pi * time / duration))
    profile = np.tensordot(np.cos(2.0 * np.pi * distance[..., None] * time), pulse, axes=(-1, 0))
    return np.where(np.abs(distance) < 2.0, profile, 0.0)


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5."""
    d = np.abs(distance)
    inner = (BICUBIC_A + 2) * d**3 - (BICUBIC_A + 3) * d**2 + 1
    outer = BICUBIC_A * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d < 1, inner, np.where(d < 2, outer, 0.0))
