"""What varies at random in an acquisition: noise of several laws, and the bias field of receive coils."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    import torch

Values = TypeVar("Values", np.ndarray, "torch.Tensor")


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


def bias_field(shape: tuple[int, ...], strength: float, rng: np.random.Generator, knots: int = 4) -> np.ndarray:
    """A smooth multiplicative field of mean 1 on `shape`: exp of a cubic interpolation of `knots` random values an axis.

    strength: standard deviation of the log field at the knots; 0.3 is a strong surface-coil bias.
    """
    coarse = rng.normal(0.0, strength, (knots,) * len(shape))
    coordinates = np.meshgrid(*(np.linspace(0, knots - 1, n) for n in shape), indexing="ij")
    log_field = ndimage.map_coordinates(coarse, coordinates, order=3, mode="nearest")
    field = np.exp(log_field)
    return (field / field.mean()).astype(np.float32)


def _normal(values: Any, rng: np.random.Generator) -> Any:
    noise = rng.standard_normal(tuple(values.shape), dtype=np.float32)
    if isinstance(values, np.ndarray):
        return noise.astype(values.dtype) if np.issubdtype(values.dtype, np.floating) else noise
    import torch

    return torch.as_tensor(noise, dtype=values.dtype, device=values.device)
