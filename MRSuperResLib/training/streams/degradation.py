"""How scanners make a coarse image, for whole batches at once, on any device: k-space truncation in plane, profiles through plane.

Everything here takes sharp slices (B, H, W), float32 on the networks' scale, and a `torch.Generator`, draws the acquisition of each
image anew, and returns the coarse images. The geometry is `acquisition`'s: coarse and fine samples share their edges.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ...acquisition import SECOND_ORDER, SecondOrder, bicubic, second_order
from ...acquisition.operators import GAUSSIAN_SIGMA_PER_FWHM, SLR_REACH, slr_profile
from ...errors import UsageError

KINDS = ("kspace", "gaussian", "box", "sinc", "bicubic", SECOND_ORDER)
SECOND_ORDER_GROUP = 4  # images that share a second-order degradation, which is drawn one group at a time
BRIGHT, BRIGHT_SHARE = 0.1, 0.1  # an image whose edges are that bright over that share of them ends inside the head
FERMI_WIDTH = 0.08  # of a Fermi filter's edge, in units of the half matrix


@dataclass(frozen=True)
class KSpaceSpec:
    """How a coarse matrix is acquired; probabilities, and ranges drawn from uniformly.

    apodised: of a window on the acquired k-space (Hann, Tukey or Fermi of random strength), else none. partial: partial Fourier
    along one axis, which acquires 5/8 to 7/8 of it and zero-fills the rest. elliptical: corners are not acquired. zero_filled: the
    phase-encoding axis acquires only `phase_resolution` of the matrix and is zero-filled to it, as scanners do. magnitude: the
    image is the magnitude of a complex one with a smooth phase, else the phase is known and removed.
    """

    apodised: float = 0.5
    partial: float = 0.15
    elliptical: float = 0.15
    zero_filled: float = 0.3
    phase_resolution: tuple[float, float] = (0.55, 1.0)
    magnitude: float = 0.4


@dataclass(frozen=True)
class SliceSpec:
    """How slices differ from an ideal stack; probabilities, and ranges drawn from uniformly.

    thickness: full width at half maximum over the spacing. motion, motion_probability: standard deviation in fine pixels of the
    displacement between slices, alternating ones most of all, as interleaved acquisitions have it. steps: standard deviation of the
    slices' relative intensity.
    """

    thickness: tuple[float, float] = (0.5, 1.3)
    motion: tuple[float, float] = (0.0, 0.35)
    motion_probability: float = 0.3
    steps: tuple[float, float] = (0.0, 0.02)
    steps_probability: float = 0.3


@dataclass(frozen=True)
class ScannerSpec:
    """How a stream coarsens: `kinds` maps each of `KINDS` to its weight.

    noise: standard deviation on the networks' scale, with `noise_probability`. band_limited: probability that the sharp image
    itself is first made smooth, as scans that were interpolated before they were stored; `band`: what is left, over Nyquist.
    """

    kinds: dict[str, float] = field(default_factory=lambda: {"gaussian": 1.0})
    noise: tuple[float, float] = (0.0, 0.03)
    noise_probability: float = 0.6
    band_limited: float = 0.25
    band: tuple[float, float] = (0.35, 1.0)
    kspace: KSpaceSpec = field(default_factory=KSpaceSpec)
    slices: SliceSpec = field(default_factory=SliceSpec)

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds or sum(self.kinds.values()) <= 0:
            raise UsageError(f"degradation kinds are {list(self.kinds)}, expected some of {', '.join(KINDS)}")


class Draw:
    """Random numbers for a batch of `count` images on one device, from one generator."""

    def __init__(self, generator: torch.Generator, count: int) -> None:
        self.generator, self.count, self.device = generator, count, generator.device

    def uniform(self, low: float = 0.0, high: float = 1.0, *shape: int) -> Tensor:
        """(B, *shape) between `low` and `high`."""
        return low + (high - low) * torch.rand((self.count, *shape), generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape), standard normal."""
        return torch.randn((self.count, *shape), generator=self.generator, device=self.device)

    def chance(self, probability: float) -> Tensor:
        """(B,), true with `probability`."""
        return self.uniform() < probability

    def choice(self, weights: Tensor) -> Tensor:
        """(B,), indices drawn with `weights`."""
        return torch.multinomial(weights.float(), self.count, replacement=True, generator=self.generator)


def degrade(
    high: Tensor, factors: tuple[int, int], spec: ScannerSpec, host: np.random.Generator, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The coarse images (B, H/fh, W/fw) and the sharp ones (B, H, W) they were made from.

    The sharp ones are `high`, or smoother where the draw says that the scan had been interpolated. `host` draws which kind each
    image gets, so that no device has to be waited for; `generator` draws the rest.
    """
    draw = Draw(generator, len(high))
    high = band_limited(high, spec, draw)
    names = [kind for kind in KINDS if spec.kinds.get(kind, 0.0) > 0]
    weights = np.array([spec.kinds[name] for name in names])
    kind = host.choice(len(names), size=len(high), p=weights / weights.sum())
    sigma = draw.uniform(*spec.noise) * draw.chance(spec.noise_probability)
    low = torch.empty((len(high), high.shape[1] // factors[0], high.shape[2] // factors[1]), device=high.device)
    for number, name in enumerate(names):
        found = np.flatnonzero(kind == number)
        if len(found) == 0:
            continue
        which = torch.from_numpy(found).to(high.device)
        part = Draw(generator, len(which))
        if name == "kspace":
            images, noise = high[which], sigma[which]
            cut = cut_through(images)
            for mirrored in (False, True):
                (some,) = torch.nonzero(cut == mirrored, as_tuple=True)
                if len(some):
                    drawn = Draw(generator, len(some))
                    low[which[some]] = kspace_acquired(
                        images[some], factors, spec.kspace, noise[some], drawn, mirrored=mirrored
                    )
        elif name == SECOND_ORDER:
            strength = SecondOrder(noise=spec.noise)
            low[which] = torch.cat(
                [
                    second_order(some, host, factors=factors, strength=strength)
                    for some in high[which].split(SECOND_ORDER_GROUP)
                ]
            )
        else:
            low[which] = profiled(high[which], factors, name, spec.slices, sigma[which], part)
    return low, high


def band_limited(high: Tensor, spec: ScannerSpec, draw: Draw) -> Tensor:
    """`high`, some of its images without their upper frequencies along one or both axes."""
    if spec.band_limited <= 0:
        return high
    chosen = draw.chance(spec.band_limited)
    spectrum = torch.fft.rfft2(high)
    for axis, frequencies in (
        (1, torch.fft.fftfreq(high.shape[1], device=high.device)),
        (2, torch.fft.rfftfreq(high.shape[2], device=high.device)),
    ):
        cut = draw.uniform(*spec.band)
        cut = torch.where(chosen & draw.chance(0.8), cut, torch.full_like(cut, 9.0))[:, None]
        edge = 0.02 + 0.1 * draw.uniform()[:, None]
        window = torch.sigmoid((cut - 2 * frequencies.abs()[None]) / edge)
        window = window / window[:, :1]
        spectrum = spectrum * (window[:, :, None] if axis == 1 else window[:, None, :])
    return torch.fft.irfft2(spectrum, s=high.shape[-2:])


def cut_through(images: Tensor) -> Tensor:
    """(B,), whether an image (B, H, W) ends inside the head, where a scanner's field of view would not."""
    edges = torch.cat((images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]), dim=1)
    return (edges > BRIGHT).float().mean(dim=1) > BRIGHT_SHARE


def kspace_acquired(
    high: Tensor, factors: tuple[int, int], spec: KSpaceSpec, sigma: Tensor, draw: Draw, *, mirrored: bool = False
) -> Tensor:
    """`high` from the centre of its k-space: a coarse matrix over the same field of view, noise of `sigma` (B,) a channel.

    mirrored: continue the images by their mirror images, so that opposite edges of an image that ends inside the head do not ring.
    """
    if mirrored:
        both = torch.cat((high, high.flip(1)), dim=1)
        both = torch.cat((both, both.flip(2)), dim=2)
        low = kspace_acquired(both, factors, spec, sigma, draw)
        return low[:, : low.shape[1] // 2, : low.shape[2] // 2]
    partly = draw.chance(spec.partial)
    magnitude = (draw.chance(spec.magnitude) | partly)[:, None, None]  # of half a k-space scanners show the magnitude
    phase = smooth_phase(high.shape, draw) * magnitude
    spectrum = torch.fft.fft2(torch.polar(high.clamp(min=0), phase) + (high.clamp(max=0)))
    height, width = high.shape[1] // factors[0], high.shape[2] // factors[1]
    spectrum = _cropped(_cropped(spectrum, 1, height, factors[0]), 2, width, factors[1])
    spectrum = spectrum / (factors[0] * factors[1])
    scale = math.sqrt(height * width)  # white noise of sigma in the image has this much in its transform
    noise = torch.complex(draw.normal(height, width), draw.normal(height, width))
    spectrum = spectrum + noise * (scale * sigma)[:, None, None]
    rows = 2 * torch.fft.fftfreq(height, device=high.device)  # -1 to 1
    columns = 2 * torch.fft.fftfreq(width, device=high.device)
    phase_axis_rows = (
        draw.chance(0.5) if factors[0] > 1 and factors[1] > 1 else torch.full_like(sigma, factors[0] > 1) > 0
    )
    reach = torch.where(draw.chance(spec.zero_filled), draw.uniform(*spec.phase_resolution), torch.ones_like(sigma))
    reach_rows = torch.where(phase_axis_rows, reach, torch.ones_like(reach))[:, None]
    reach_columns = torch.where(phase_axis_rows, torch.ones_like(reach), reach)[:, None]
    coarse_rows, coarse_columns = factors[0] > 1, factors[1] > 1
    window = _windows(rows / reach_rows, columns / reach_columns, coarse_rows, coarse_columns, spec, draw)
    partial = torch.where(partly, draw.uniform(5 / 8 * 2 - 1, 7 / 8 * 2 - 1), torch.full_like(reach, 9.0))
    missing_rows = (rows[None] > (partial * reach_rows[:, 0])[:, None]) & phase_axis_rows[:, None]
    missing_columns = (columns[None] > (partial * reach_columns[:, 0])[:, None]) & ~phase_axis_rows[:, None]
    window = window * ~(missing_rows[:, :, None] | missing_columns[:, None, :])
    low = torch.fft.ifft2(spectrum * window)
    unphased = low.real
    return torch.where(magnitude, low.abs(), unphased)


def smooth_phase(shape: torch.Size, draw: Draw) -> Tensor:
    """(B, H, W) radians: a smooth random field, as coils and susceptibility leave it."""
    coarse = draw.normal(1, 4, 4) * draw.uniform(0.0, 1.0, 1, 1, 1)
    return functional.interpolate(coarse, size=shape[1:], mode="bicubic", align_corners=True)[:, 0]


def _cropped(spectrum: Tensor, axis: int, n_low: int, factor: int) -> Tensor:
    """The `n_low` central frequencies along `axis`, moved by half the difference of the spacings; even matrices fold the last."""
    if factor == 1:
        return spectrum
    n_high = spectrum.shape[axis]
    half = n_low // 2
    kept = torch.arange(-half, n_low - half + (1 if n_low % 2 == 0 else 0), device=spectrum.device)
    ramp = torch.polar(torch.ones(len(kept), device=spectrum.device), math.pi * kept * (factor - 1) / n_high)
    taken = spectrum.index_select(axis, kept % n_high) * (ramp[:, None] if axis == 1 else ramp)
    if (
        n_low % 2 == 0
    ):  # both ends of the band are one coarse frequency: half of each, as `acquisition.kspace_crop` has it
        first, last = taken.narrow(axis, 0, 1), taken.narrow(axis, n_low, 1)
        taken = torch.cat(((first + last) / 2, taken.narrow(axis, 1, n_low - 1)), dim=axis)
    return torch.fft.ifftshift(taken, dim=axis)


def _windows(
    rows: Tensor, columns: Tensor, coarse_rows: bool, coarse_columns: bool, spec: KSpaceSpec, draw: Draw
) -> Tensor:
    """(B, h, w): what of each frequency is kept; `rows` (B, h) and `columns` (B, w) are 1 where the acquired part ends.

    An axis that is not coarsened keeps all of its frequencies.
    """
    apodised = draw.chance(spec.apodised)
    kind, strength, taper = draw.choice(torch.ones(3, device=draw.device)), draw.uniform(), draw.uniform(0.1, 1.0)
    elliptical = draw.chance(spec.elliptical)

    def window(distance: Tensor) -> Tensor:
        distance = distance.abs()
        expand = (slice(None),) + (None,) * (distance.ndim - 1)
        hann = 1 - strength[expand] * torch.sin(math.pi / 2 * distance.clamp(max=1)) ** 2
        edge = ((distance - 1 + taper[expand]) / taper[expand]).clamp(0, 1)
        tukey = torch.cos(math.pi / 2 * edge) ** 2
        fermi = torch.sigmoid((1 - taper[expand] / 4 - distance) / FERMI_WIDTH)
        chosen = torch.where(kind[expand] == 0, hann, torch.where(kind[expand] == 1, tukey, fermi))
        chosen = torch.where(apodised[expand], chosen, torch.ones_like(chosen))
        return chosen * (distance <= 1 + 1e-6)

    of_rows = window(rows) if coarse_rows else torch.ones_like(rows)
    of_columns = window(columns) if coarse_columns else torch.ones_like(columns)
    separable = of_rows[:, :, None] * of_columns[:, None, :]
    if coarse_rows and coarse_columns:
        inside = rows[:, :, None] ** 2 + columns[:, None, :] ** 2 <= 1
        separable = separable * (inside | ~elliptical[:, None, None])
    return separable


def profiled(high: Tensor, factors: tuple[int, int], kind: str, spec: SliceSpec, sigma: Tensor, draw: Draw) -> Tensor:
    """`high` averaged by a slice profile (or bicubic kernel) along each axis that is coarsened, with noise of `sigma` (B,).

    If only the rows are coarsened they are slices: these move and differ in intensity now and then.
    """
    slices = factors[0] > 1 and factors[1] == 1
    low = high
    if slices:
        across, along = displacements(high.shape[1] // factors[0], spec, draw)
        low = torch.matmul(profile_matrices(high.shape[1], factors[0], kind, spec, draw, across), high)
        low = displaced(low, along)  # a slice moves as a whole, after what it excites
        steps = draw.uniform(*spec.steps)[:, None] * draw.chance(spec.steps_probability)[:, None]
        alternating = torch.arange(low.shape[1], device=low.device) % 2 * 2.0 - 1.0
        gain = 1 + steps * (0.6 * draw.normal(low.shape[1]) + 0.8 * draw.normal(1) * alternating)
        low = low * gain[:, :, None]
    else:
        for axis, factor in enumerate(factors):
            if factor > 1:
                matrices = profile_matrices(high.shape[1 + axis], factor, kind, spec, draw)
                low = torch.matmul(matrices, low) if axis == 0 else torch.matmul(low, matrices.transpose(1, 2))
    noisy = low + sigma[:, None, None] * draw.normal(*low.shape[1:])
    other = sigma[:, None, None] * draw.normal(*low.shape[1:])
    rician = draw.chance(0.25)[:, None, None]
    return torch.where(rician, torch.sqrt(noisy**2 + other**2 + 1e-12), noisy)


def displaced(slices: Tensor, shift: Tensor) -> Tensor:
    """`slices` (B, n, W), each row moved along the columns by `shift` (B, n), well under a pixel."""
    # The first two terms of the displacement's expansion, which blur nothing.
    right, left = torch.roll(slices, -1, dims=2), torch.roll(slices, 1, dims=2)
    shift = shift[:, :, None]
    return slices + shift * (right - left) / 2 + shift**2 * (right + left - 2 * slices) / 2


def displacements(count: int, spec: SliceSpec, draw: Draw) -> Tensor:
    """(2, B, count): how far each of `count` slices lies from its place across and along itself, in fine pixels."""
    size = draw.uniform(*spec.motion)[:, None] * draw.chance(spec.motion_probability)[:, None]
    alternating = torch.arange(count, device=size.device) % 2 * 2.0 - 1.0
    return torch.stack([size * (0.5 * draw.normal(count) + 0.9 * draw.normal(1) * alternating) for _ in range(2)])


def profile_matrices(
    n_high: int, factor: int, kind: str, spec: SliceSpec, draw: Draw, jitter: Tensor | None = None
) -> Tensor:
    """(B, n_high / factor, n_high): the profile of each coarse sample, of random thickness; `jitter` moves its centre."""
    n_low = n_high // factor
    centres = (torch.arange(n_low, device=draw.device) + 0.5) * factor - 0.5
    positions = torch.arange(n_high, device=draw.device, dtype=torch.float32)
    distance = positions[None, None, :] - centres[None, :, None]
    if jitter is not None:
        distance = distance - jitter[:, :, None]
    width = (draw.uniform(*spec.thickness) * factor)[:, None, None]
    if kind == "gaussian":
        weights = torch.exp(-0.5 * (distance / (width * GAUSSIAN_SIGMA_PER_FWHM)) ** 2)
    elif kind == "box":
        weights = (torch.minimum(distance + 0.5, width / 2) - torch.maximum(distance - 0.5, -width / 2)).clamp(min=0.0)
    elif kind == "sinc":
        weights = _slr(distance / width)
    else:
        operator = torch.from_numpy(bicubic(n_high, factor).matrix).to(distance)
        return operator.expand(draw.count, -1, -1)
    return weights / weights.sum(dim=2, keepdim=True)


def _slr(distance: Tensor) -> Tensor:
    """`acquisition`'s SLR profile, from a table."""
    table = _slr_table(distance.device)
    steps = len(table) - 1
    place = (distance.abs() * (steps / SLR_REACH)).clamp(max=steps)
    lower = place.floor().long().clamp(max=steps - 1)
    value = torch.lerp(table[lower], table[lower + 1], place - lower)
    return torch.where(distance.abs() < SLR_REACH, value, torch.zeros_like(value))


@functools.lru_cache(maxsize=4)
def _slr_table(device: torch.device) -> Tensor:
    """(257,): the profile from its centre to `SLR_REACH`."""
    return torch.as_tensor(slr_profile(np.linspace(0, SLR_REACH, 257)), dtype=torch.float32, device=device)
