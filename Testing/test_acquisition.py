"""The forward models: they are the operators they claim to be, on numpy and torch alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from MRSuperResLib.acquisition import (
    BLURS,
    GAUSSIAN_SIGMA_PER_FWHM,
    KINDS,
    NOISES,
    Acquisition,
    SecondOrder,
    acquire,
    add_gaussian_noise,
    add_rician_noise,
    add_signal_dependent_noise,
    axis_operator,
    bias_field,
    bicubic,
    blur_kernel,
    blurred,
    drawn_blur,
    kspace_crop,
    second_order,
    slice_profile,
)
from MRSuperResLib.errors import UsageError
from MRSuperResLib.grid import Grid
from MRSuperResLib.volume import Volume


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


def test_signal_dependent_noise_has_poissons_variance_and_leaves_air_alone() -> None:
    """Mean the signal, variance sigma**2 times the signal: what 1 / sigma**2 counts at the value 1 have."""
    rng = np.random.default_rng(9)
    for value in (0.25, 1.0):
        noisy = add_signal_dependent_noise(np.full(200_000, value), 0.1, rng)
        counted = rng.poisson(value / 0.1**2, 200_000) * 0.1**2
        assert noisy.mean() == pytest.approx(value, abs=1e-3)
        assert noisy.var() == pytest.approx(counted.var(), rel=0.03)
    np.testing.assert_array_equal(add_signal_dependent_noise(np.array([0.0, -0.1]), 0.1, rng), [0.0, -0.1])


def _moments(kernel: np.ndarray) -> np.ndarray:
    """The 2x2 covariance of a kernel, columns first."""
    radii = [n // 2 for n in kernel.shape]
    rows, columns = np.mgrid[-radii[0] : radii[0] + 1, -radii[1] : radii[1] + 1]
    xx, xy, yy = (float((kernel * product).sum()) for product in (columns**2, columns * rows, rows**2))
    return np.array([[xx, xy], [xy, yy]])


@settings(max_examples=40, deadline=None)
@given(
    widths=st.tuples(st.floats(0.8, 2.5), st.floats(0.8, 2.5)),
    angle=st.floats(0, np.pi),
    exponent=st.floats(0.8, 1.8),
)
def test_a_blur_is_as_wide_and_as_turned_as_asked(widths: tuple[float, float], angle: float, exponent: float) -> None:
    """Second moments: R diag(widths**2) R', within what sampling and the cut tails take (5 % of the larger variance)."""
    kernel = blur_kernel(widths, angle, exponent)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = turn @ np.diag(np.square(widths)) @ turn.T
    np.testing.assert_allclose(_moments(kernel), expected, atol=0.05 * max(widths) ** 2)
    assert kernel.sum() == pytest.approx(1.0) and kernel.min() >= 0 and all(n % 2 for n in kernel.shape)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1])  # no shift


def test_the_exponent_shapes_the_blur_at_equal_width() -> None:
    """Excess kurtosis along an axis: positive for a sharp peak with long tails, none for a Gaussian, negative for a flat top."""
    found = []
    for exponent in (0.7, 1.0, 3.0):
        along = blur_kernel((2.0, 2.0), 0.0, exponent).sum(0)
        position = np.arange(len(along)) - len(along) // 2
        found.append((along * position**4).sum() / (along * position**2).sum() ** 2 - 3)
    assert found[0] > 0.5 and abs(found[1]) < 0.05 and found[2] < -0.3


def test_isotropic_blur_is_scipys_gaussian_on_numpy_and_torch() -> None:
    image = np.random.default_rng(10).standard_normal((2, 13, 17))
    expected = ndimage.gaussian_filter(
        image, (0, 1.2, 1.2), mode="reflect", truncate=4.17
    )  # the same radius of 5 pixels
    kernel = blur_kernel((1.2, 1.2))
    assert kernel.shape == (11, 11)
    np.testing.assert_allclose(blurred(image, kernel), expected, atol=1e-7)
    np.testing.assert_allclose(blurred(torch.from_numpy(image), kernel).numpy(), expected, atol=1e-7)


def test_a_turned_blur_is_a_convolution_mirrored_at_edges_nearer_than_its_radius() -> None:
    image = np.random.default_rng(11).standard_normal((4, 9))
    kernel = blur_kernel((2.0, 0.8), 0.6, 1.4)
    np.testing.assert_allclose(blurred(image, kernel), ndimage.convolve(image, kernel, mode="reflect"), atol=1e-12)


def test_drawn_blurs_are_of_their_kind_and_in_their_range() -> None:
    rng = np.random.default_rng(12)
    for kind in BLURS:
        for _ in range(30):
            covariance = _moments(drawn_blur(SecondOrder(blurs=(kind,), width=(0.9, 1.5), exponent=(0.8, 1.6)), rng))
            small, large = np.linalg.eigvalsh(covariance)
            assert 0.93 * 0.9**2 < small <= large < 1.07 * 1.5**2
            assert kind != "isotropic" or large == pytest.approx(small, rel=1e-6)
    angles, turned = [], SecondOrder(blurs=("anisotropic",), width=(0.9, 1.5))
    for _ in range(60):
        angles.append(np.sign(_moments(drawn_blur(turned, rng))[0, 1]))
    assert 15 < angles.count(1.0) < 45  # turned either way


@pytest.mark.parametrize("factors", [(2, 2), (4, 4), (8, 8)])
@pytest.mark.parametrize("blur", BLURS)
def test_second_order_leaves_a_ramp_where_it_is(factors: tuple[int, int], blur: str) -> None:
    factor, n = factors[0], 160
    rows, columns = np.meshgrid(np.arange(n, dtype=float), np.arange(n, dtype=float), indexing="ij")
    strength = SecondOrder(blurs=(blur,), noise=(0.0, 0.0), noises=("gaussian",))
    low = second_order(3.0 + rows - 0.5 * columns, np.random.default_rng(13), factors=factors, strength=strength)
    at = (np.arange(n // factor) + 0.5) * factor - 0.5
    inner = slice(8, -8)
    np.testing.assert_allclose(low[inner, inner], (3.0 + at[:, None] - 0.5 * at[None, :])[inner, inner], atol=1e-9)


def test_second_order_halves_before_it_blurs() -> None:
    """Figure 2's caption: the blur is as wide as it says on the halved grid, whose pixels are twice as large."""
    point = np.zeros((64, 64))
    point[32, 32] = 1.0
    strength = SecondOrder(blurs=("isotropic",), width=(1.2, 1.2), noise=(0.0, 0.0))
    blurred = second_order(point, np.random.default_rng(0), factors=(2, 2), strength=strength)
    sharp = SecondOrder(blurs=("isotropic",), width=(1e-3, 1e-3), noise=(0.0, 0.0))
    halved = second_order(point, np.random.default_rng(0), factors=(2, 2), strength=sharp)
    np.testing.assert_allclose(blurred, ndimage.gaussian_filter(halved, 1.2, mode="constant", truncate=5), atol=2e-4)


def test_second_order_keeps_the_mean() -> None:
    """Exactly without noise, for a uniform object and for one with air around it; on average with unbiased noise."""
    rng = np.random.default_rng(14)
    quiet = SecondOrder(noise=(0.0, 0.0), noises=("gaussian",))
    head = np.zeros((96, 96))
    head[32:64, 36:60] = rng.random((32, 24))
    for seed in range(6):
        still = np.random.default_rng(seed)
        np.testing.assert_allclose(second_order(np.full((32, 48), 0.7), still, strength=quiet), 0.7, atol=1e-12)
        assert second_order(head, still, strength=quiet).mean() == pytest.approx(head.mean(), rel=1e-9)
    for noise in ("gaussian", "poisson"):
        loud = SecondOrder(noise=(0.05, 0.05), noises=(noise,))
        assert second_order(np.full((256, 256), 0.7), rng, strength=loud).mean() == pytest.approx(0.7, abs=0.004)


def test_second_order_noise_is_of_the_strength_and_kinds_asked() -> None:
    """After one stage the last noise is seen as it was added; after two, the first one is seen averaged and blurred beside it."""
    rng = np.random.default_rng(15)
    flat = np.full((256, 256), 0.5)
    for noise, expected in (("gaussian", 0.04), ("poisson", 0.04 * np.sqrt(0.5)), ("rician", 0.04)):
        strength = SecondOrder(noises=(noise,), noise=(0.04, 0.04))
        once = second_order(flat, rng, factors=(2, 2), strength=strength).std()
        twice = second_order(flat, rng, factors=(4, 4), strength=strength).std()
        assert once == pytest.approx(expected, rel=0.04)
        assert 1.005 * expected < twice < 1.3 * expected
    brightened = second_order(np.zeros((64, 64)), rng, strength=SecondOrder(noises=("rician",), noise=(0.04, 0.04)))
    assert brightened.mean() > 0.04  # the magnitude of noise is not zero
    assert set(NOISES) == set(SecondOrder().noises) and set(BLURS) == set(SecondOrder().blurs)


def test_second_order_on_torch_is_the_same_and_one_scans_slices_share_their_blur() -> None:
    image = np.random.default_rng(16).random((3, 32, 48))
    image[2] = image[0]
    whole = second_order(image, np.random.default_rng(1), strength=SecondOrder(noise=(0.0, 0.0)))
    on_torch = second_order(torch.from_numpy(image), np.random.default_rng(1), strength=SecondOrder(noise=(0.0, 0.0)))
    np.testing.assert_allclose(on_torch.numpy(), whole, atol=1e-9)
    np.testing.assert_allclose(whole[2], whole[0], atol=1e-12)
    noisy = second_order(image, np.random.default_rng(1))
    assert np.abs(noisy[2] - noisy[0]).max() > 1e-3  # but not their noise


@pytest.mark.parametrize("slice_axis", [0, 1, 2])
def test_acquire_by_second_order_keeps_the_box_the_units_and_the_slices(slice_axis: int) -> None:
    rng = np.random.default_rng(17)
    size, factors = ([other if axis != slice_axis else kept for axis in range(3)] for other, kept in ((24, 5), (4, 1)))
    grid = Grid(tuple(size), (1.0, 1.0, 3.0), (3.0, -2.0, 7.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    levels = np.array([100.0, 300.0, 200.0, 500.0, 400.0])
    stack = levels[:, None, None] + rng.normal(0, 5, (5, 24, 24))
    truth = Volume(np.moveaxis(stack, 0, 2 - slice_axis).astype(np.float32), grid, "truth")
    low = acquire(truth, tuple(factors), "second-order", seed=3)
    assert low.grid.size == tuple(n // factor for n, factor in zip(size, factors, strict=True))
    np.testing.assert_allclose(low.grid.corners(), grid.corners(), atol=1e-4)
    found = np.moveaxis(low.array, 2 - slice_axis, 0).mean((1, 2))
    np.testing.assert_allclose(found, levels, atol=12)  # the strongest noise is 3 % of the range, which is 12
    np.testing.assert_array_equal(low.array, acquire(truth, tuple(factors), "second-order", seed=3).array)
    assert not np.array_equal(low.array, acquire(truth, tuple(factors), "second-order", seed=4).array)


def test_second_order_where_it_cannot_be_used_is_said() -> None:
    rng = np.random.default_rng(0)
    for factors in ((4, 1), (3, 3), (4, 2), (1, 1)):
        with pytest.raises(UsageError, match="halves both axes"):
            second_order(np.zeros((24, 24)), rng, factors=factors)
    with pytest.raises(UsageError, match="cannot be halved 2 times"):
        second_order(np.zeros((24, 30)), rng)
    with pytest.raises(UsageError, match="blurs is \\['motion'\\]"):
        SecondOrder(blurs=("motion",))
    with pytest.raises(UsageError, match="noises is"):
        SecondOrder(noises=())
    grid = Grid((8, 8, 8), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    with pytest.raises(UsageError, match="use it in-plane"):
        acquire(Volume(np.ones((8, 8, 8), np.float32), grid), (1, 1, 4), "second-order")


def test_unknown_profile_and_preset_are_named() -> None:
    with pytest.raises(UsageError, match="triangle"):
        slice_profile(10, 2, "triangle")
    grid = Grid((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    with pytest.raises(UsageError, match="nonesuch"):
        acquire(Volume(np.ones((4, 4, 4), np.float32), grid), (1, 1, 2), "nonesuch")
