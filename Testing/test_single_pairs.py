"""Training pairs of single-image networks: low and high show the same place, and pair n depends on seed and n alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_trainings import one_contrast

from MRSuperResLib.acquisition import SecondOrder
from MRSuperResLib.errors import UsageError
from MRSuperResLib.training.data.coarsen import DegradationSpec
from MRSuperResLib.training.data.crops import AugmentationSpec, SourceSpec, recoloured
from MRSuperResLib.training.data.single import DataSpec, SlicePairs
from MRSuperResLib.training.data.synthesis import synthesise
from MRSuperResLib.training.pack import pack


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one smooth textured volume and one label map, in train/ and val/."""
    return one_contrast(tmp_path_factory.mktemp("study"))


def _pairs(study: Path, factors: tuple[int, int] = (2, 2), start: int = 0, **changes: object) -> SlicePairs:
    packed = pack(study / "train", study / "pairs.pack")
    spec = DataSpec(
        (SourceSpec("isotropic/*"),), DegradationSpec({"gaussian": 1.0}, noise_probability=0.0, bias=0.0), patch=8
    )
    return SlicePairs(packed, spec, factors, seed=3, start=start)


@pytest.mark.parametrize("factors", [(2, 2), (4, 1), (3, 2)])
def test_low_and_high_show_the_same_place(study: Path, factors: tuple[int, int]) -> None:
    """The mean of each coarse pixel's fine pixels follows the coarse pixel; one coarse pixel's shift would not."""
    errors = {0: [], 1: []}
    for low, high in (pair for _, pair in zip(range(12), _pairs(study, factors), strict=False)):
        assert low.shape == (1, 8, 8) and high.shape == (1, 8 * factors[0], 8 * factors[1])
        means = high[0].reshape(8, factors[0], 8, factors[1]).mean((1, 3))
        errors[0].append(float((low[0] - means).abs().mean()))
        errors[1].append(float((low[0, 1:] - means[:-1]).abs().mean()))
    assert np.mean(errors[0]) < 0.03 and np.mean(errors[0]) < 0.5 * np.mean(errors[1])


@pytest.mark.parametrize("factor", [2, 4])
def test_second_order_pairs_show_the_same_place(study: Path, factor: int) -> None:
    packed = pack(study / "train", study / "pairs.pack")
    quiet = SecondOrder(noises=("gaussian",), noise=(0.0, 0.0), width=(0.1, 0.6))
    way = DegradationSpec({"second-order": 1.0}, bias=0.0, second_order=quiet)
    errors: dict[int, list[float]] = {0: [], 1: []}
    stream = SlicePairs(packed, DataSpec((SourceSpec("isotropic/*"),), way, patch=8), (factor, factor), seed=3)
    for low, high in (pair for _, pair in zip(range(12), stream, strict=False)):
        assert low.shape == (1, 8, 8) and low.dtype == high.dtype == torch.float32
        means = high[0].reshape(8, factor, 8, factor).mean((1, 3))
        errors[0].append(float((low[0] - means).abs().mean()))
        errors[1].append(float((low[0, 1:] - means[:-1]).abs().mean()))
    assert np.mean(errors[0]) < 0.5 * np.mean(errors[1])


def test_second_order_is_refused_where_one_axis_is_coarsened(study: Path) -> None:
    packed = pack(study / "train", study / "pairs.pack")
    spec = DataSpec((SourceSpec("isotropic/*"),), DegradationSpec({"second-order": 1.0}), patch=8)
    with pytest.raises(UsageError, match="halves both axes"):
        next(iter(SlicePairs(packed, spec, (4, 1))))


def test_the_stream_is_a_function_of_seed_and_position(study: Path) -> None:
    first = [pair for _, pair in zip(range(4), _pairs(study), strict=False)]
    later = [pair for _, pair in zip(range(2), _pairs(study, start=2), strict=False)]
    for (a, b), (c, d) in zip(first[2:], later, strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)
    assert not torch.equal(first[0][0], first[1][0])


def test_a_pattern_without_volumes_and_an_unknown_plane_are_said(study: Path) -> None:
    packed = pack(study / "train", study / "none.pack")
    with pytest.raises(UsageError, match="nothing/"):
        SlicePairs(packed, DataSpec((SourceSpec("nothing/*"),), DegradationSpec({"box": 1.0})), (2, 2))
    with pytest.raises(UsageError, match="slanted"):
        SourceSpec("*", planes="slanted")


def test_recoloured_keeps_air_dark() -> None:
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    for seed in range(20):
        again = recoloured(image, AugmentationSpec(curve_probability=1.0), np.random.default_rng(seed))
        assert again[0, 0] == 0 and again.min() >= 0 and again.max() <= 1.0001


def test_synthesised_contrasts_share_their_anatomy() -> None:
    labels = np.zeros((64, 64), np.int16)
    labels[16:48, 16:48] = 1
    labels[26:38, 26:38] = 2
    one, two = synthesise(labels, np.random.default_rng(4), contrasts=2)
    edges = [np.hypot(*np.gradient(image)) for image in (one, two)]
    assert np.corrcoef(edges[0].ravel(), edges[1].ravel())[0, 1] > 0.5
    assert np.abs(one - two).mean() > 0.01 and one.min() >= 0
