"""The forward models: they are the operators they claim to be, on numpy and torch alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from MRSuperResLib.acquisition import (
    GAUSSIAN_SIGMA_PER_FWHM,
    KINDS,
    Acquisition,
    acquire,
    add_gaussian_noise,
    add_rician_noise,
    axis_operator,
    bias_field,
    bicubic,
    kspace_crop,
    slice_profile,
)
from MRSuperResLib.errors import UsageError
from MRSuperResLib.volume import Grid, Volume


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(8, 60),
    factor=st.sampled_from([1.5, 2, 3, 4, 6]),
    seed=st.integers(0, 99),
)
def test_adjoint_is_the_transpose(kind: str, n: int, factor: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    operator = axis_operator(kind, n, factor, thickness=0.9, apodisation=0.5)
    x, y = rng.standard_normal((3, n, 2)), rng.standard_normal((3, operator.n_low, 2))
    assert np.vdot(operator.apply(x, 1), y) == pytest.approx(np.vdot(x, operator.adjoint(y, 1)), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_pseudo_inverse_is_reproduced_by_the_acquisition(kind: str) -> None:
    operator = axis_operator(kind, 48, 4)
    y = np.random.default_rng(0).standard_normal((12, 5))
    np.testing.assert_allclose(operator.apply(operator.pinv(y, 0), 0), y, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_numpy_and_torch_agree(kind: str) -> None:
    x = np.random.default_rng(1).standard_normal((2, 1, 24, 20))
    acquisition = Acquisition({2: axis_operator(kind, 24, 4), 3: axis_operator(kind, 20, 2)})
    for name in ("apply",):
        got = getattr(acquisition, name)(torch.from_numpy(x))
        np.testing.assert_allclose(got.numpy(), getattr(acquisition, name)(x), atol=1e-12)
    y = acquisition.apply(x)
    for name in ("adjoint", "pinv"):
        got = getattr(acquisition, name)(torch.from_numpy(y))
        np.testing.assert_allclose(got.numpy(), getattr(acquisition, name)(y), atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_a_uniform_object_keeps_its_intensity(kind: str) -> None:
    np.testing.assert_allclose(axis_operator(kind, 40, 4).apply(np.ones(40), 0), 1.0, atol=1e-9)


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind != "kspace"]
)  # k-space is periodic: a ramp is a sawtooth to it
def test_no_half_voxel_shift_on_a_ramp(kind: str) -> None:
    factor, n = 4, 80
    low = axis_operator(kind, n, factor).apply(np.arange(n, dtype=float), 0)
    expected = (np.arange(n // factor) + 0.5) * factor - 0.5
    np.testing.assert_allclose(low[4:-4], expected[4:-4], atol=1e-6)


def test_kspace_crop_keeps_low_frequencies_in_place_and_drops_high_ones() -> None:
    n, factor = 64, 4
    position = (np.arange(n) + 0.5) / n
    coarse = (np.arange(n // factor) + 0.5) / (n // factor)
    operator = kspace_crop(n, factor)
    np.testing.assert_allclose(
        operator.apply(np.cos(2 * np.pi * 3 * position), 0), np.cos(2 * np.pi * 3 * coarse), atol=1e-10
    )
    np.testing.assert_allclose(operator.apply(np.cos(2 * np.pi * 12 * position), 0), 0.0, atol=1e-10)


def test_apodisation_tapers_towards_the_edge_of_kspace() -> None:
    n, factor = 64, 4
    position = (np.arange(n) + 0.5) / n
    gains = [np.abs(kspace_crop(n, factor, 1.0).apply(np.cos(2 * np.pi * k * position), 0)).max() for k in (1, 4, 7)]
    assert gains[0] > 0.9 > gains[1] > gains[2] and gains[2] < 0.15


def test_gaussian_profile_is_a_gaussian_blur_then_sampling() -> None:
    signal = np.random.default_rng(2).standard_normal(120)
    low = slice_profile(120, 5, "gaussian").apply(signal, 0)  # odd factor: coarse centres fall on fine ones
    blurred = ndimage.gaussian_filter1d(signal, 5 * GAUSSIAN_SIGMA_PER_FWHM, truncate=12)
    np.testing.assert_allclose(low[4:-4], blurred[2::5][4:-4], atol=1e-6)


def test_box_profile_is_the_mean_of_the_voxels_in_the_slice() -> None:
    signal = np.random.default_rng(3).standard_normal(48)
    np.testing.assert_allclose(slice_profile(48, 4, "box").apply(signal, 0), signal.reshape(12, 4).mean(1), atol=1e-12)


@pytest.mark.parametrize("profile", ["gaussian", "box", "sinc"])
def test_full_width_at_half_maximum_is_the_thickness(profile: str) -> None:
    factor, thickness = 32, 0.75
    row = slice_profile(32 * 9, factor, profile, thickness).matrix[4]
    above = np.flatnonzero(row >= row[np.abs(np.arange(len(row)) - 143.5) < 2].mean() / 2)
    assert above[-1] - above[0] + 1 == pytest.approx(thickness * factor, abs=1.5)


def test_bicubic_agrees_with_the_usual_antialiased_resize() -> None:
    """Against Pillow's antialiased bicubic, an independent implementation of the same kernel."""
    from PIL import Image

    image = np.random.default_rng(4).random((40, 32)).astype(np.float32)
    ours = bicubic(32, 4).apply(bicubic(40, 4).apply(image, 0), 1)
    theirs = np.asarray(Image.fromarray(image).resize((8, 10), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(ours[3:-3, 3:-3], theirs[3:-3, 3:-3], atol=1e-5)


def test_acquire_covers_the_same_box_and_repeats_its_noise() -> None:
    rng = np.random.default_rng(5)
    grid = Grid((20, 24, 32), (1.0, 1.0, 0.8), (3.0, -2.0, 7.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    truth = Volume(rng.random(grid.shape, dtype=np.float32), grid, "truth")
    low = acquire(truth, (1, 1, 4), "through-gaussian")
    assert low.grid.size == (20, 24, 8)
    np.testing.assert_allclose(low.grid.corners(), grid.corners(), atol=1e-4)
    first, second = (acquire(truth, (2, 2, 1), "bicubic-noise", seed=7).array for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.std(first - acquire(truth, (2, 2, 1), "bicubic").array) == pytest.approx(0.01, rel=0.2)


def test_rician_noise_has_the_magnitude_bias_of_the_background() -> None:
    noisy = add_rician_noise(np.zeros(200_000), 1.0, np.random.default_rng(6))
    assert noisy.mean() == pytest.approx(np.sqrt(np.pi / 2), rel=0.01)  # Rayleigh
    bright = add_rician_noise(np.full(200_000, 20.0), 1.0, np.random.default_rng(6))
    assert bright.std() == pytest.approx(1.0, rel=0.02)


def test_gaussian_noise_on_torch_keeps_dtype() -> None:
    noisy = add_gaussian_noise(torch.zeros(1000, dtype=torch.float64), 2.0, np.random.default_rng(0))
    assert noisy.dtype == torch.float64 and float(noisy.std()) == pytest.approx(2.0, rel=0.1)


def test_bias_field_is_smooth_and_of_mean_one() -> None:
    field = bias_field((40, 30), 0.3, np.random.default_rng(8))
    assert field.mean() == pytest.approx(1.0, abs=1e-5) and field.std() > 0.02
    assert np.abs(np.diff(field, axis=0)).max() < 0.2


def test_unknown_profile_and_preset_are_named() -> None:
    with pytest.raises(UsageError, match="triangle"):
        slice_profile(10, 2, "triangle")
    grid = Grid((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    with pytest.raises(UsageError, match="nonesuch"):
        acquire(Volume(np.ones((4, 4, 4), np.float32), grid), (1, 1, 2), "nonesuch")
