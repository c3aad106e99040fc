"""Linear acquisitions, one small matrix for each axis that they coarsen: slice profiles, k-space crops, bicubic down-sampling.

The same matrix serves numpy arrays and torch tensors, its transpose is the exact adjoint and its Moore-Penrose inverse the exact
pseudo-inverse. Geometry is the library's: the coarse samples share the *edges* of the fine ones, so coarse sample m sits at
fine index (m + 0.5) * factor - 0.5.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .. import terms
from ..errors import UsageError

if TYPE_CHECKING:
    import torch

Values = TypeVar("Values", np.ndarray, "torch.Tensor")
GAUSSIAN_SIGMA_PER_FWHM = 1.0 / (2.0 * np.sqrt(2.0 * np.log(2.0)))
PROFILES = ("gaussian", "box", "sinc")
SINC_LOBES = 3  # side lobes kept on each side of a Hamming-windowed sinc: the profile of a common SLR excitation
SLR_REACH = 2.0  # full widths at half maximum; farther away the profile counts as 0
BICUBIC_A = -0.5  # Keys' kernel, as in the usual bicubic image resizing


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
        weights = slr_profile(distance / width) * (np.abs(distance / width) < SLR_REACH)
    else:
        raise UsageError(f"slice profile '{profile}' is unknown; choose one of {', '.join(PROFILES)}")
    return AxisOperator(weights / weights.sum(axis=1, keepdims=True), f"{profile} profile, thickness {thickness:g}")


def kspace_crop(n_high: int, factor: float, apodisation: float = 0.0) -> AxisOperator:
    """A coarse matrix: only the central 1/factor of k-space is acquired, over the same field of view.

    apodisation: 0 keeps the frequencies as they are (Gibbs ringing and all), 1 applies a full Hann window to them.
    """
    phase, kept, weights = _frequencies(n_high, factor, apodisation)
    matrix = sum(w * np.cos(k * phase) for k, w in zip(kept, weights, strict=True)) / n_high
    return AxisOperator(np.asarray(matrix), f"k-space crop, apodisation {apodisation:g}")


def partial_kspace(
    n_high: int, factor: float, share: float, apodisation: float = 0.0
) -> tuple[AxisOperator, AxisOperator]:
    """A coarse matrix of which one side of k-space is acquired in part, zero-filled: real and imaginary part of the image.

    share: of the matrix that is acquired, more than 0.5; 0.75 leaves out half of the negative frequencies (6/8 partial Fourier).
    """
    if not 0.5 < share <= 1:
        raise UsageError(f"the acquired share of k-space is {share:g}, expected more than 0.5 and at most 1")
    phase, kept, weights = _frequencies(n_high, factor, apodisation)
    acquired = weights * (kept >= -round((2 * share - 1) * (len(kept) // 2)))
    waves = [sum(w * f(k * phase) for k, w in zip(kept, acquired, strict=True)) / n_high for f in (np.cos, np.sin)]
    name = f"partial Fourier {share:g}, apodisation {apodisation:g}"
    return AxisOperator(np.asarray(waves[0]), name), AxisOperator(np.asarray(waves[1]), name)


def _frequencies(n_high: int, factor: float, apodisation: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a cropped k-space: phases (n_low, n_high) of one cycle a field of view, the frequencies kept, their weights."""
    n_low = _coarse_size(n_high, factor)
    low = (np.arange(n_low) + 0.5) / n_low
    high = (np.arange(n_high) + 0.5) / n_high
    kept = np.arange(-(n_low // 2), n_low // 2 + 1)
    weights = (1.0 - apodisation) + apodisation * np.cos(np.pi * kept / (n_low + 1)) ** 2
    if n_low % 2 == 0:  # the Nyquist pair of an even matrix: half each, so that the operator stays real and symmetric
        weights = weights * np.where(np.abs(kept) == n_low // 2, 0.5, 1.0)
    return 2.0 * np.pi * (low[:, None] - high[None, :]), kept, weights


def bicubic(n_high: int, factor: float) -> AxisOperator:
    """Antialiased bicubic down-sampling, the kernel k of RDST's eq. 13: Keys' cubic stretched by the factor, edges mirrored."""
    centres = _centres(n_high, factor)
    reach = int(np.ceil(2 * factor)) + 1
    matrix = np.zeros((len(centres), n_high))
    for row, centre in enumerate(centres):
        positions = np.arange(int(np.floor(centre)) - reach, int(np.floor(centre)) + reach + 1)
        weights = cubic((positions - centre) / factor)
        np.add.at(matrix[row], mirrored(positions, n_high), weights / weights.sum())
    return AxisOperator(matrix, "bicubic")


KINDS: tuple[str, ...] = terms.PROFILES


def axis_operator(
    kind: str, n_high: int, factor: float, *, thickness: float = 1.0, apodisation: float = 0.0
) -> AxisOperator:
    """The operator named `kind`: a slice profile, "kspace" or "bicubic"."""
    if kind == "kspace":
        return kspace_crop(n_high, factor, apodisation)
    if kind == "bicubic":
        return bicubic(n_high, factor)
    return slice_profile(n_high, factor, kind, thickness)


def _along(matrix: np.ndarray, values: Any, axis: int) -> Any:
    """`matrix` applied along `axis` of a numpy array or a torch tensor, in the values' own precision and on their device."""
    if isinstance(values, np.ndarray):
        dtype = values.dtype if np.issubdtype(values.dtype, np.floating) else np.float64
        return np.moveaxis(np.tensordot(matrix.astype(dtype), values, axes=(1, axis)), 0, axis)
    import torch

    weights = torch.as_tensor(matrix, dtype=values.dtype, device=values.device)
    return torch.movedim(torch.tensordot(weights, values, dims=([1], [axis])), 0, axis)


def mirrored(positions: np.ndarray, n: int) -> np.ndarray:
    """Indices into n samples for `positions` beyond their ends, the edge samples repeated."""
    folded = np.mod(positions, 2 * n)
    return np.where(folded >= n, 2 * n - 1 - folded, folded)


def _coarse_size(n_high: int, factor: float) -> int:
    return max(1, round(n_high / factor))


def _centres(n_high: int, factor: float) -> np.ndarray:
    """Fine index of each coarse sample's centre."""
    n_low = _coarse_size(n_high, factor)
    return (np.arange(n_low) + 0.5) * (n_high / n_low) - 0.5


def slr_profile(distance: np.ndarray) -> np.ndarray:
    """A slice profile as a short pulse of `SINC_LOBES` lobes excites it: the Fourier transform of a Hamming-windowed sinc.

    `distance` in units of the full width at half maximum, not cut off at `SLR_REACH`. Flat-topped, with small
    ripples, as the small-tip theory gives it.
    """
    duration = 2.0 * SINC_LOBES
    time = np.linspace(-0.5, 0.5, 513) * duration
    pulse = np.sinc(time) * (0.54 + 0.46 * np.cos(2.0 * np.pi * time / duration))
    return np.asarray(np.tensordot(np.cos(2.0 * np.pi * distance[..., None] * time), pulse, axes=(-1, 0)))


def cubic(distance: np.ndarray, a: float = BICUBIC_A) -> np.ndarray:
    """Keys' cubic convolution kernel; with a = -0.5 a ramp stays straight."""
    d = np.abs(distance)
    inner = (a + 2) * d**3 - (a + 3) * d**2 + 1
    outer = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d < 1, inner, np.where(d < 2, outer, 0.0))
