"""A result is compared with what was acquired, and brought back to it without stripes, as far as noise and profile are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from MRSuperResLib import fidelity
from MRSuperResLib.acquisition import Degradation, acquire
from MRSuperResLib.acquisition.thickness import estimate_thickness
from MRSuperResLib.errors import UsageError
from MRSuperResLib.grid import Grid
from MRSuperResLib.inference import Options, super_resolve
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.resample import resample
from MRSuperResLib.volume import Volume

GRID = Grid((40, 36, 48), (1.0, 1.0, 1.0))


def head(seed: int = 1, low: float = 0.0) -> Volume:
    """A ball with detail of some millimetres, alike in all directions, in air at `low`."""
    rng = np.random.default_rng(seed)
    detail = ndimage.gaussian_filter(rng.standard_normal(GRID.shape), 1.5)
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in GRID.shape), indexing="ij")
    inside = (k**2 + j**2 + i**2) < 0.85
    return Volume((low + inside * (500 + 90 * detail / detail.std())).astype(np.float32), GRID, "head")


def rms(array: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(array))))


@pytest.mark.parametrize(
    ("factors", "profile", "kind"),
    [
        ((1, 1, 4), "gaussian", "through-gaussian"),
        ((1, 1, 4), "box", "through-box"),
        ((1, 1, 3), "sinc", "through-sinc"),
        ((2, 2, 1), "gaussian", "kspace"),
        ((2, 2, 1), "bicubic", "bicubic"),
    ],
)
def test_a_projected_result_agrees_with_what_was_acquired(
    factors: tuple[float, float, float], profile: str, kind: str
) -> None:
    """A guess that is wrong by a fifth comes back to the acquired slices to within what their profile is known to."""
    truth = head()
    acquired = acquire(truth, factors, kind)
    guess = Volume(0.8 * truth.array, GRID)
    acquisition = fidelity.acquisition_between(acquired.grid, GRID, 2, profile)
    otherwise = fidelity.alternatives(acquired.grid, GRID, 2, profile) if factors[2] > 1 else ()
    before = fidelity.consistency_map(guess, acquired, acquisition)
    assert before.grid.same_as(acquired.grid) and rms(before.array) > 50
    made = fidelity.project(guess, acquired, acquisition, slice_axis=2, otherwise=otherwise)
    after = fidelity.consistency_map(made, acquired, acquisition)
    own = acquisition.apply(guess.array)
    allowed = [rms(other.apply(guess.array) - own) for other in otherwise]
    assert rms(after.array) < max(0.01 * rms(before.array), float(np.sqrt(sum(a**2 for a in allowed) / 2)))
    assert rms(made.array - truth.array) < rms(guess.array - truth.array)
    exact = fidelity.consistency_map(truth, acquired, acquisition)
    assert np.abs(exact.array).max() < 1e-4 * 500


def test_projection_changes_a_consistent_result_by_nothing() -> None:
    truth = head()
    acquired = acquire(truth, (1, 1, 4), "through-gaussian")
    acquisition = fidelity.acquisition_between(acquired.grid, GRID, 2)
    made = fidelity.project(truth, acquired, acquisition, slice_axis=2)
    np.testing.assert_allclose(made.array, truth.array, atol=0.01)


def test_noise_is_no_reason_to_change_anything() -> None:
    """Noise of the scan stays out of the result where it is known; without knowing it goes in."""
    truth = head(low=100.0)
    clean = acquire(truth, (1, 1, 4), "through-gaussian")
    noisy = Volume(
        clean.array + np.random.default_rng(0).normal(0, 10, clean.array.shape).astype(np.float32), clean.grid
    )
    acquisition = fidelity.acquisition_between(clean.grid, GRID, 2)
    changed = [
        rms(fidelity.project(truth, noisy, acquisition, slice_axis=2, noise=s).array - truth.array) for s in (0, 10)
    ]
    assert changed[1] < 0.35 * changed[0] and changed[0] > 5


def test_the_noise_of_a_scan_is_found_in_tissue_and_in_air() -> None:
    rng = np.random.default_rng(3)
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in (24, 64, 64)), indexing="ij")
    smooth = np.where(k**2 + j**2 + i**2 < 0.7, 600 + 100 * k + 80 * np.cos(3 * j), 0.0)
    for sigma in (5.0, 20.0):
        magnitude = np.hypot(smooth + rng.normal(0, sigma, smooth.shape), rng.normal(0, sigma, smooth.shape))
        masked = np.where(smooth > 0, magnitude, 0)
        for array in (magnitude, masked):
            found = fidelity.noise_level(Volume(array.astype(np.float32), Grid((64, 64, 24), (1.0, 1.0, 4.0))), 2)
            assert found == pytest.approx(sigma, rel=0.15)


def striped(scan: Volume, factor: int) -> Volume:
    """An answer to thick slices with the network's usual fault: sharp, but steps lie where the slices meet."""
    fine = scan.grid.refine((1, 1, factor))
    sharp = resample(scan, fine, "bspline").array
    blocks = np.repeat(scan.array, factor, axis=0)
    return Volume(0.7 * sharp + 0.3 * blocks, fine, scan.name)


@pytest.mark.parametrize("told", [None, 0.5, 1.0, 1.3])
def test_no_projection_draws_stripes_whatever_thickness_is_told(told: float | None) -> None:
    truth = head(low=20.0)
    acquired = acquire(truth, (1, 1, 4), Degradation("gaussian", thickness=0.7))
    guess = striped(acquired, 4)
    thickness = fidelity.slice_thickness(acquired, 2, None if told is None else told * 4)
    between = (acquired.grid, GRID, 2, "gaussian", thickness)
    acquisition = fidelity.acquisition_between(*between)
    made = fidelity.project(guess, acquired, acquisition, slice_axis=2, otherwise=fidelity.alternatives(*between))
    before, after = (fidelity.step_ratio(volume.array, 0, 4) for volume in (guess, made))
    clipped = fidelity.step_ratio(np.maximum(guess.array, 0), 0, 4)
    assert before > 1.3 and after <= max(before, clipped) + 1e-6
    missed = [rms(fidelity.consistency_map(volume, acquired, acquisition).array) for volume in (guess, made)]
    assert missed[1] < missed[0] and made.array.min() >= 0


@pytest.mark.parametrize("told", [1.3, 2.0, 3.5])
def test_slices_told_thicker_than_they_are_do_not_blow_the_answer_up(told: float) -> None:
    """Undoing a blur that is not there would multiply the values: it is weakened, and told."""
    acquired = acquire(head(low=20.0), (1, 1, 4), Degradation("gaussian", thickness=0.6))
    guess = resample(acquired, GRID, "linear")
    between = (acquired.grid, GRID, 2, "gaussian", told * 4)
    otherwise = fidelity.alternatives(*between)
    heard: list[str] = []
    made = fidelity.project(
        guess,
        acquired,
        fidelity.acquisition_between(*between),
        slice_axis=2,
        otherwise=otherwise,
        warn=lambda code, text: heard.append(text),
    )
    assert made.array.std() <= fidelity.LIVELIER * max(guess.array.std(), acquired.array.std()) + 1e-3
    assert told < 2 or "thinner than told" in heard[0]


def test_a_thickness_at_the_end_of_the_range_is_taken() -> None:
    """What it may be as well stays within the range."""
    acquired = acquire(head(), (1, 1, 4), Degradation("gaussian"))
    for mm in (4.0 * 4, 0.1 * 4):
        assert len(fidelity.alternatives(acquired.grid, GRID, 2, "gaussian", mm)) == 3


def test_steps_of_a_volume_that_was_never_sliced_are_even_and_of_repeated_slices_are_not() -> None:
    detail = ndimage.gaussian_filter(np.random.default_rng(5).standard_normal(GRID.shape), 1.5)
    assert fidelity.step_ratio(detail, 0, 4) < 1.1
    acquired = acquire(head(), (1, 1, 4), "through-box")
    assert fidelity.step_ratio(striped(acquired, 4).array, 0, 4) > 1.3
    ramp = np.broadcast_to(np.arange(20.0)[:, None, None], (20, 4, 4))
    assert fidelity.step_ratio(ramp, 0, 2.5) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "factor"), [("ucla-11_T2w", 4), ("pyradiomics-brain1_T1post", 4), ("openmslong-01-2raw_T2w", 4)]
)
def test_real_thick_scans_come_back_without_stripes(name: str, factor: int, data_folder: Path) -> None:
    """A part of a real scan: the answer of a network, and a striped one, get no more uneven and agree better than before."""
    whole = read_volume(data_folder / "val" / "thick" / f"{name}.nii.gz")
    i, j, k = whole.grid.size
    scan = whole.crop((i // 2 - 16, j // 2 - 16, 0), (32, 32, k))
    told: list[str] = []
    thickness = fidelity.slice_thickness(whole, 2, warn=lambda code, message: told.append(code))
    assert told == ["thickness-estimated"] and 0.3 < thickness / whole.grid.spacing[2] < 1.2  # type: ignore[operator]
    noise = fidelity.noise_level(whole, 2)
    quiet = Options(device="cpu")
    answer = super_resolve(scan, "rdst-e-through-x4", factor=factor, options=quiet, warn=lambda *_: None)
    for guess in (answer, striped(scan, factor)):
        for mm in (thickness, whole.grid.spacing[2]):
            between = (scan.grid, guess.grid, 2, "gaussian", mm)
            acquisition, otherwise = fidelity.acquisition_between(*between), fidelity.alternatives(*between)
            made = fidelity.project(guess, scan, acquisition, slice_axis=2, otherwise=otherwise, noise=noise)
            assert (
                fidelity.step_ratio(made.array, 0, factor)
                <= max(1.04, fidelity.step_ratio(guess.array, 0, factor)) + 1e-6
            )
            assert made.array.min() >= 0
            own = acquisition.apply(guess.array)
            allowed = np.sqrt(noise**2 + sum(rms(other.apply(guess.array) - own) ** 2 for other in otherwise) / 2)
            left = fidelity.consistency_map(made, scan, acquisition).array
            assert rms(left) <= allowed
            assert rms(left) <= rms(fidelity.consistency_map(guess, scan, acquisition).array) + 1e-3


@pytest.mark.parametrize("power", [-100, -60, 60, 75])
def test_projection_is_the_same_in_any_unit(power: int) -> None:
    """Squares of such values leave float32's range."""
    truth = head()
    acquired = acquire(truth, (1, 1, 4), "through-gaussian")
    guess, unit = Volume(0.8 * truth.array, GRID), np.float32(2.0**power)
    between = (acquired.grid, GRID, 2, "gaussian")
    how = (fidelity.acquisition_between(*between), fidelity.alternatives(*between))
    made, other = (
        fidelity.project(
            replace(guess, array=guess.array * scale),
            replace(acquired, array=acquired.array * scale),
            how[0],
            slice_axis=2,
            otherwise=how[1],
            noise=3.0 * float(scale),
        ).array
        for scale in (np.float32(1), unit)
    )
    assert np.array_equal(made, other / unit) and np.isfinite(other).all()


def test_projection_is_an_option_of_super_resolution() -> None:
    scan = acquire(head(), (1, 1, 4), "through-gaussian")
    plain, projected = (
        super_resolve(scan, "lanczos", factor=4, plane="through-plane", options=Options(project=project, thickness=4.0))
        for project in (False, True)
    )
    acquisition = fidelity.acquisition_between(scan.grid, GRID, 2, "gaussian", 4.0)
    missed = [rms(fidelity.consistency_map(made, scan, acquisition).array) for made in (plain, projected)]
    assert missed[1] < 0.6 * missed[0]
    assert fidelity.step_ratio(projected.array, 0, 4) <= fidelity.step_ratio(np.maximum(plain.array, 0), 0, 4) + 1e-6


@pytest.mark.parametrize("relative", [0.6, 1.0, 1.2])
def test_thickness_is_read_from_the_blur_of_the_slices(relative: float) -> None:
    truth = Volume(np.concatenate([head(seed).array for seed in (1, 2)]), Grid((40, 36, 96), (1.0, 1.0, 1.0)))
    scan = acquire(truth, (1, 1, 4), Degradation("gaussian", thickness=relative))
    assert estimate_thickness(scan, 2) == pytest.approx(4 * relative, abs=0.25 * 4)


def test_thickness_of_real_heads_is_found_to_a_fifth_of_their_distance(data_folder: Path) -> None:
    """Sharp scans sliced with a known thickness, adults of two sites and a child."""
    for name in ("nsk-52_T1w", "bmex-sub-0005_T1w"):
        truth = read_volume(data_folder / "val" / "isotropic" / f"{name}.nii.gz")
        axis = next(axis for axis in range(3) if truth.grid.axis_name(axis) == "axial")
        for relative in (0.6, 1.0):
            factors = tuple(5 if other == axis else 1 for other in range(3))
            scan = acquire(truth, factors, Degradation("gaussian", thickness=relative))  # type: ignore[arg-type]
            found = estimate_thickness(scan, axis)
            assert found is not None and found / scan.grid.spacing[axis] == pytest.approx(relative, abs=0.2)


def test_thickness_that_is_told_is_believed_and_without_either_the_spacing_stands() -> None:
    scan = acquire(head(), (1, 1, 4), "through-gaussian")
    filed = Volume(scan.array, scan.grid, thickness=3.0)
    assert fidelity.slice_thickness(filed, 2, told=2.0) == 2.0
    assert fidelity.slice_thickness(filed, 2) == 3.0
    nonsense = Volume(scan.array, scan.grid, thickness=4000.0)  # micrometres
    assert fidelity.slice_thickness(nonsense, 2) != 4000.0
    few = Volume(scan.array[:6], scan.grid.crop((0, 0, 0), (40, 36, 6)))
    assert fidelity.slice_thickness(few, 2) is None
    cubes = head()
    assert fidelity.slice_thickness(cubes, 2) is None


def test_consistency_is_refused_where_it_has_no_meaning() -> None:
    with pytest.raises(UsageError, match="coarser"):
        fidelity.acquisition_between(GRID, GRID.coarsen((2, 1, 1)), 2)
    with pytest.raises(UsageError, match="profile is 'round'"):
        fidelity.acquisition_between(GRID, GRID.refine((1, 1, 2)), 2, "round")
