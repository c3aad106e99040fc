"""Geometry is a value: refining and cropping move no corner of the box."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from made_files import ORIENTATIONS, grids, noise

from MRSuperResLib.errors import BadVolume, UsageError
from MRSuperResLib.grid import Grid
from MRSuperResLib.resample import resample
from MRSuperResLib.volume import Volume


@settings(max_examples=60, deadline=None)
@given(grid=grids(), factors=st.tuples(*(st.sampled_from([1.0, 1.5, 2.0, 3.0, 4.0]) for _ in range(3))))
def test_refining_and_coarsening_keep_the_box(grid: Grid, factors: tuple[float, float, float]) -> None:
    for other in (grid.refine(factors), grid.coarsen(factors), grid.with_spacing((1.0, 1.3, 2.0))):
        np.testing.assert_allclose(other.corners(), grid.corners(), atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(grid=grids())
def test_world_and_index_are_inverse_and_agree_with_simpleitk(grid: Grid) -> None:
    points = np.random.default_rng(0).uniform(-5, 20, (6, 3))
    world = grid.index_to_world(points)
    np.testing.assert_allclose(grid.world_to_index(world), points, atol=1e-6)
    image = sitk.Image([int(n) for n in grid.size], sitk.sitkUInt8)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    expected = [image.TransformContinuousIndexToPhysicalPoint([float(v) for v in p]) for p in points]
    np.testing.assert_allclose(world, expected, atol=1e-6)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_planes_are_named_by_the_axis_across_them(name: str) -> None:
    grid = Grid((8, 8, 8), (1.0, 1.0, 3.0), direction=tuple(ORIENTATIONS[name].ravel()))
    expected = {
        "axial": "axial",
        "coronal": "coronal",
        "sagittal": "sagittal",
        "left-handed": "axial",
        "oblique": "axial",
    }
    assert grid.axis_name(grid.slice_axis) == expected[name]


def test_slice_axis_is_the_coarsest_and_the_last_of_equals() -> None:
    assert Grid((4, 4, 4), (1, 5, 1)).slice_axis == 1
    assert Grid((4, 4, 4), (1, 1, 1)).slice_axis == 2
    assert Grid((4, 4, 4), (0.79999, 0.8, 0.8)).slice_axis == 2


def test_a_grid_knows_what_it_contains() -> None:
    grid = Grid((4, 4, 4), (1.0, 1.0, 2.0))
    assert list(grid.contains(np.array([[0, 0, 0], [3.5, 0, 7.0], [3.6, 0, 0], [-0.5, -0.5, -1.0]]))) == [
        True,
        True,
        False,
        True,
    ]
    assert not grid.same_as(Grid((4, 4, 4), (1.0, 1.0, 2.0), (0.1, 0.0, 0.0)))
    with pytest.raises(BadVolume):
        Grid((4, 4, 4), (1.0, float("nan"), 1.0))
    with pytest.raises(UsageError, match="quintic"):
        resample(Volume(noise(4, 4, 4), grid), grid.refine((2, 2, 2)), "quintic")
    with pytest.raises(BadVolume, match="fill"):
        Volume(noise(3, 3, 3), grid)
