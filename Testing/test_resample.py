"""Interpolation: whatever the orientation, nothing moves by half a voxel."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from made_files import OBLIQUE, grids, ramp

from MRSuperResLib.grid import Grid
from MRSuperResLib.resample import resample
from MRSuperResLib.volume import Volume, to_sitk


@settings(max_examples=25, deadline=None)
@given(
    grid=grids(),
    factor=st.sampled_from([2.0, 3.0, 4.0]),
    axis=st.integers(0, 2),
    how=st.sampled_from(["linear", "bspline", "lanczos"]),
)
def test_a_ramp_in_the_world_is_still_that_ramp_after_refining(grid: Grid, factor: float, axis: int, how: str) -> None:
    slope = np.array([0.7, -1.1, 0.4])
    fine = grid.refine(tuple(factor if a == axis else 1.0 for a in range(3)))  # type: ignore[arg-type]
    result = resample(Volume(ramp(grid, slope), grid), fine, how)
    expected = ramp(fine, slope)
    margin = int(2 * factor) if how == "linear" else int(3 * factor)
    inner = [slice(None)] * 3
    inner[2 - axis] = slice(margin, -margin)
    if how != "linear" and grid.size[axis] < 9:
        return  # all border to a cubic spline
    step = np.abs(slope).max() * max(grid.spacing)
    tolerance = (
        1e-3 + {"linear": 1e-4, "bspline": 0.06, "lanczos": 0.1}[how] * step
    )  # a windowed sinc ripples on a ramp
    np.testing.assert_allclose(result.array[tuple(inner)], expected[tuple(inner)], atol=tolerance)


@pytest.mark.parametrize("how", ["linear", "bspline", "lanczos", "nearest"])
def test_a_bright_border_stays_bright(how: str) -> None:
    grid = Grid((10, 10, 6), (1.0, 1.0, 4.0))
    result = resample(Volume(np.full(grid.shape, 100.0, np.float32), grid), grid.refine((2, 2, 4)), how)
    np.testing.assert_allclose(result.array, 100.0, atol=0.5)


def test_lanczos_agrees_with_itks() -> None:
    """The separable kernel against SimpleITK's windowed sinc, away from the borders (ITK does not normalise its taps)."""
    grid = Grid((24, 22, 20), (1.0, 1.1, 3.0), direction=tuple(OBLIQUE.ravel()))
    array = np.random.default_rng(0).normal(100, 20, grid.shape).astype(np.float32)
    ours = resample(Volume(array, grid), grid.refine((2, 1, 3)), "lanczos")
    theirs = sitk.Resample(
        to_sitk(Volume(array, grid)),
        to_sitk(ours),
        sitk.Transform(),
        sitk.sitkLanczosWindowedSinc,
    )
    inner = (slice(18, -18), slice(6, -6), slice(12, -12))
    np.testing.assert_allclose(ours.array[inner], sitk.GetArrayFromImage(theirs)[inner], atol=0.02 * 20)


def test_downsampling_does_not_alias() -> None:
    grid = Grid((64, 8, 8), (1.0, 1.0, 1.0))
    stripes = np.broadcast_to((np.arange(64) % 2).astype(np.float32), grid.shape)
    coarse = resample(Volume(np.ascontiguousarray(stripes), grid), grid.coarsen((4, 1, 1)), "linear")
    assert np.ptp(coarse.array[:, :, 2:-2]) < 0.1 and coarse.array.mean() == pytest.approx(0.5, abs=0.05)


def wave(period: float, n: int = 96) -> Volume:
    """A cosine along k of that many voxels a period, 1 mm."""
    values = np.cos(2 * np.pi * np.arange(n) / period)
    return Volume(
        np.ascontiguousarray(np.broadcast_to(values[:, None, None], (n, 4, 4)), np.float32),
        Grid((4, 4, n), (1.0, 1.0, 1.0)),
    )


@pytest.mark.parametrize("factor", [2.0, 3.0, 4.0])
def test_a_coarser_voxel_is_blurred_by_what_it_is_wider_than_the_old_one(factor: float) -> None:
    """Standard deviation 0.5 sqrt(factor^2 - 1) old voxels: of a wave that much is left, times what interpolation leaves."""
    period, scan = 24.0, wave(24.0)
    coarse = resample(scan, scan.grid.coarsen((1, 1, factor)), "linear")
    omega, sigma = 2 * np.pi / period, 0.5 * np.sqrt(factor**2 - 1)
    between = np.cos(omega / 2) if factor % 2 == 0 else 1.0  # new centres lie midway between old ones, or on them
    position = (np.arange(coarse.grid.size[2]) + 0.5) * factor - 0.5
    expected = np.exp(-0.5 * (sigma * omega) ** 2) * between * np.cos(omega * position)
    inner = slice(3, -3)
    np.testing.assert_allclose(coarse.array[inner, 1, 1], expected[inner], atol=2e-3)


def test_a_grid_barely_coarser_is_barely_blurred() -> None:
    scan = wave(6.0, 105)
    coarse = resample(scan, scan.grid.with_size(4, 4, 100), "bspline")
    position = (np.arange(100) + 0.5) * 1.05 - 0.5
    np.testing.assert_allclose(coarse.array[10:-10, 1, 1], np.cos(2 * np.pi * position / 6)[10:-10], atol=0.03)
