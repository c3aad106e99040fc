"""Every metric equals an independent implementation's."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric
from skimage import metrics as skimage_metrics

from MRSuperResLib.errors import UnsuitableVolume
from MRSuperResLib.evaluation import metrics


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    truth = rng.gamma(2.0, 120.0, (24, 26, 28)).astype(np.float32)
    return truth + rng.normal(0, 25, truth.shape).astype(np.float32), truth


def test_psnr_and_nmse_equal_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    result, truth = pair
    peak = metrics.data_range(truth)
    assert peak == pytest.approx(np.percentile(truth, 99.9) - np.percentile(truth, 0.1), rel=1e-6)
    expected = skimage_metrics.peak_signal_noise_ratio(truth.astype(float), result.astype(float), data_range=peak)
    assert metrics.psnr(result, truth) == pytest.approx(expected, abs=1e-6)
    expected = skimage_metrics.normalized_root_mse(truth.astype(float), result.astype(float)) ** 2
    assert metrics.nmse(result, truth) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_ssim_equals_scikit_image(pair: tuple[np.ndarray, np.ndarray], dimensions: int) -> None:
    result, truth = (a if dimensions == 3 else a[7] for a in pair)
    peak = metrics.data_range(truth)
    expected = skimage_metrics.structural_similarity(
        truth.astype(float),
        result.astype(float),
        data_range=peak,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert metrics.ssim(result, truth) == pytest.approx(expected, abs=1e-9)


def test_dice_equals_monai() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((9, 9, 9)) > 0.6, rng.random((9, 9, 9)) > 0.5
    expected = DiceMetric(include_background=True)(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None])
    assert metrics.dice(a, b) == pytest.approx(float(expected), abs=1e-6)
    assert metrics.dice(a & False, b & False) == 1.0


def test_equal_images_are_perfect_and_empty_truth_is_not_a_division_by_zero() -> None:
    image = np.random.default_rng(1).random((12, 12, 12))
    assert metrics.psnr(image, image) == np.inf and metrics.nmse(image, image) == 0 and metrics.ssim(image, image) == 1
    assert metrics.nmse(np.ones(3), np.zeros(3)) == np.inf and metrics.nmse(np.zeros(3), np.zeros(3)) == 0


def test_scores_of_equal_volumes_can_be_written_as_json(pair: tuple[np.ndarray, np.ndarray]) -> None:
    scores = metrics.summary(pair[1], pair[1], axis=0)
    assert json.loads(json.dumps(scores, allow_nan=False))["psnr"] == metrics.HIGHEST_PSNR


def test_air_does_not_raise_the_headline_score(pair: tuple[np.ndarray, np.ndarray]) -> None:
    result, truth = (np.pad(a, 10) for a in pair)
    scores = metrics.summary(result, truth, axis=0)
    box = metrics.head_box(truth)
    assert all(10 <= b.start <= 12 and 34 <= b.stop <= 38 for b in box)
    assert scores["psnr"] == pytest.approx(metrics.psnr(result[box], truth[box], metrics.data_range(truth)))
    assert scores["psnr_whole"] > scores["psnr"] + 3


def test_slices_of_air_are_left_out(pair: tuple[np.ndarray, np.ndarray]) -> None:
    result, truth = pair
    padded = metrics.by_slice(np.pad(result, ((5, 5), (0, 0), (0, 0))), np.pad(truth, ((5, 5), (0, 0), (0, 0))), 0)
    peak = metrics.data_range(np.pad(truth, ((5, 5), (0, 0), (0, 0))))
    assert padded["psnr_slices"] == pytest.approx(
        np.mean([metrics.psnr(r, t, peak) for r, t in zip(result, truth, strict=True)])
    )
    with pytest.raises(UnsuitableVolume, match="no slice"):
        metrics.by_slice(result * 0, truth * 0 + 1, 0)


def test_different_shapes_are_refused() -> None:
    with pytest.raises(UnsuitableVolume, match="nothing to compare"):
        metrics.psnr(np.zeros((2, 2)), np.zeros((2, 3)))
