"""The baselines of papers and scanners: zero-filled k-space and bicubic, equal to independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from MRSuperResLib.acquisition import (
    Degradation,
    acquire,
    bicubic_interpolation,
    interpolate,
    kspace_crop,
    partial_kspace,
    zero_filled,
)
from MRSuperResLib.errors import UsageError
from MRSuperResLib.grid import Grid
from MRSuperResLib.volume import Volume


def fft_zero_filled(signal: np.ndarray, n_high: int) -> np.ndarray:
    """Zero-filling by FFT, with the shift from voxel centres of the coarse grid to those of the fine one."""
    n_low = len(signal)
    kept = np.fft.fftfreq(n_low, 1 / n_low)
    spectrum = np.fft.fft(signal) * np.exp(1j * np.pi * kept * (1 / n_high - 1 / n_low))
    wide = np.zeros(n_high, complex)
    for k, value in zip(kept.astype(int), spectrum, strict=True):
        if 2 * abs(k) == n_low:  # half of the Nyquist frequency on either side
            wide[k % n_high] += value / 2
            wide[-k % n_high] += np.conj(value) / 2
        else:
            wide[k % n_high] += value
    return np.fft.ifft(wide).real * n_high / n_low


@pytest.mark.parametrize(("n_low", "n_high"), [(15, 30), (16, 32), (16, 64), (20, 50), (21, 50)])
def test_zero_filling_is_the_fft_s(n_low: int, n_high: int) -> None:
    signal = np.random.default_rng(n_low).standard_normal(n_low)
    np.testing.assert_allclose(zero_filled(n_low, n_high).apply(signal, 0), fft_zero_filled(signal, n_high), atol=1e-12)


@pytest.mark.parametrize(("n_low", "n_high"), [(15, 45), (16, 48)])
def test_zero_filling_gives_back_the_whole_of_a_band_limited_object(n_low: int, n_high: int) -> None:
    """No half-voxel shift: an object without detail beyond the coarse matrix survives crop and zero-filling."""
    x = (np.arange(n_high) + 0.5) / n_high
    object_ = 3 + np.cos(2 * np.pi * x) + 0.5 * np.sin(2 * np.pi * 5 * x) - 0.2 * np.cos(2 * np.pi * 7 * x + 1)
    low = kspace_crop(n_high, n_high / n_low).apply(object_, 0)
    np.testing.assert_allclose(zero_filled(n_low, n_high).apply(low, 0), object_, atol=1e-12)


def test_half_of_the_nyquist_frequency_is_acquired() -> None:
    """An even matrix holds one of the two samples at the Nyquist frequency: a wave there comes back at half its height."""
    x = (np.arange(48) + 0.5) / 48
    wave = np.sin(2 * np.pi * 8 * x)
    low = kspace_crop(48, 3).apply(wave, 0)
    np.testing.assert_allclose(low, 0.5 * np.sin(2 * np.pi * 8 * (np.arange(16) + 0.5) / 16), atol=1e-12)


@pytest.mark.parametrize(("n_low", "n_high"), [(9, 18), (10, 40), (12, 30)])
def test_bicubic_is_torch_s_without_antialiasing(n_low: int, n_high: int) -> None:
    image = np.random.default_rng(0).standard_normal((n_low, 7)).astype(np.float32)
    expected = functional.interpolate(
        torch.from_numpy(image)[None, None], size=(n_high, 7), mode="bicubic", align_corners=False
    )
    got = bicubic_interpolation(n_low, n_high).apply(image, 0)
    np.testing.assert_allclose(got, expected[0, 0].numpy(), atol=1e-5)


def test_another_extent_is_refused() -> None:
    scan = Volume(np.ones((4, 4, 4), np.float32), Grid((4, 4, 4), (1.0, 1.0, 1.0)))
    with pytest.raises(UsageError, match="extent"):
        interpolate(scan, Grid((8, 4, 4), (1.0, 1.0, 1.0)), "zerofill")
    with pytest.raises(UsageError, match="unknown"):
        interpolate(scan, scan.grid, "nearest")


def test_partial_fourier_is_the_magnitude_of_a_lopsided_k_space() -> None:
    rng = np.random.default_rng(1)
    n_high, n_low, share = 40, 20, 0.75
    object_ = rng.random(n_high)
    k = np.arange(-(n_high // 2), n_high // 2)
    x = (np.arange(n_high) + 0.5) / n_high
    spectrum = np.exp(-2j * np.pi * k[:, None] * x) @ object_ / n_high
    weight = np.where(np.abs(k) == n_low // 2, 0.5, 1.0) * (np.abs(k) <= n_low // 2) * (k >= -n_low // 4)
    expected = np.exp(2j * np.pi * ((np.arange(n_low) + 0.5) / n_low)[:, None] * k) @ (weight * spectrum)
    real, imaginary = (part.apply(object_, 0) for part in partial_kspace(n_high, 2, share))
    np.testing.assert_allclose(real + 1j * imaginary, expected, atol=1e-12)
    whole = partial_kspace(n_high, 2, 1.0)
    np.testing.assert_allclose(whole[0].matrix, kspace_crop(n_high, 2).matrix, atol=1e-12)
    np.testing.assert_allclose(whole[1].matrix, 0, atol=1e-12)
    with pytest.raises(UsageError, match="more than"):
        partial_kspace(n_high, 2, 0.5)


def test_apodised_and_partial_scans_are_blurred_along_the_right_axes() -> None:
    rng = np.random.default_rng(2)
    fine = Volume(rng.random((6, 32, 32)).astype(np.float32) + 5, Grid((32, 32, 6), (1.0, 1.0, 1.0)))
    plain, soft, partial = (acquire(fine, (2, 2, 1), way) for way in ("kspace", "kspace-apodised", "kspace-partial"))
    assert plain.grid.size == soft.grid.size == partial.grid.size == (16, 16, 6)
    roughness = [float(np.mean(np.diff(scan.array, axis=axis) ** 2)) for scan in (plain, soft) for axis in (1, 2)]
    assert roughness[2] < 0.8 * roughness[0] and roughness[3] < 0.8 * roughness[1]
    rows, columns = (float(np.mean((partial.array - plain.array).mean(axis=axis) ** 2)) for axis in (2, 1))
    assert rows > 5 * columns, "6/8 of the rows' frequencies, all of the columns'"
    with pytest.raises(UsageError, match="in part"):
        acquire(fine, (2, 2, 1), Degradation("gaussian", partial=0.75))
