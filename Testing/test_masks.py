"""Where scans are scored: the brain is found in skull-stripped scans and in whole heads, and its rim does not count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MRSuperResLib.evaluation import metrics
from MRSuperResLib.evaluation.masks import brain_inside, brain_mask
from MRSuperResLib.io.read import read_volume

SHAPE, CENTRE = (80, 96, 90), (40, 48, 45)


def distance() -> np.ndarray:
    """From the middle of the array, voxels."""
    index = np.meshgrid(*(np.arange(n) - c for n, c in zip(SHAPE, CENTRE, strict=True)), indexing="ij")
    return np.sqrt(sum(i.astype(float) ** 2 for i in index))


def phantom(skull: bool) -> np.ndarray:
    """A brain of 30 mm radius with a dark ventricle, and around it dark bone and a bright scalp."""
    r = distance()
    head = np.where(r < 30, 400.0, 0.0)
    head[r < 6] = 40.0
    if skull:
        head[(r >= 34) & (r < 38)] = 900.0
    return head.astype(np.float32)


@pytest.mark.parametrize("skull", [False, True])
def test_the_brain_is_found_without_scalp_and_with_its_ventricles(skull: bool) -> None:
    found, real = brain_mask(phantom(skull), (1.0, 1.0, 1.0)), distance() < 30
    assert metrics.dice(found, real) > 0.93 and found[CENTRE]
    assert not found[distance() >= 34].any()


def test_the_rim_is_left_out_in_mm_whatever_the_voxels() -> None:
    inside = brain_inside(phantom(False)[::2], (2.0, 1.0, 1.0))
    r = distance()[::2]
    assert inside[r < 23].all() and not inside[r > 28].any()


def test_errors_at_the_rim_do_not_count_in_the_brain_but_do_in_the_box() -> None:
    truth = phantom(False)
    rim, deep = truth.copy(), truth.copy()
    rim[(distance() > 28.5) & (distance() < 31.5)] += 200
    deep[(distance() > 12) & (distance() < 15)] += 200
    spacing = (1.0, 1.0, 1.0)
    scores = [metrics.summary(answer, truth, spacing=spacing) for answer in (rim, deep)]
    assert (
        scores[0]["psnr_brain"] == metrics.HIGHEST_PSNR
        and scores[0]["ssim_brain"] > scores[1]["ssim_brain"]
        and scores[0]["psnr"] < 25
    )
    assert scores[1]["psnr_brain"] < 20
    where = brain_inside(truth, spacing)
    peak = metrics.data_range(truth)
    assert scores[1]["psnr_brain"] == pytest.approx(metrics.psnr(deep[where], truth[where], peak))


def test_a_scan_without_a_brain_has_no_brain_scores() -> None:
    stars = np.zeros((40, 40, 40), np.float32)
    stars[::9, ::9, ::9] = 100
    assert not {"psnr_brain", "ssim_brain"} & set(metrics.summary(stars, stars, spacing=(1.0, 1.0, 1.0)))
    assert not brain_mask(np.zeros((9, 9, 9), np.float32), (1.0, 1.0, 1.0)).any()


@pytest.mark.parametrize(
    ("name", "least", "most"), [("isotropic/nsk-51_T1w", 1000, 1500), ("multicontrast/openms-26_T2w", 900, 1400)]
)
def test_a_real_stripped_brain_is_its_own_mask(data_folder: Path, name: str, least: float, most: float) -> None:
    """In millilitres, as adults have; nearly all that is bright is brain."""
    scan = read_volume(data_folder / "val" / f"{name}.nii.gz")
    spacing = scan.grid.spacing[::-1]
    found = brain_mask(scan.array, spacing)
    assert least < found.sum() * np.prod(spacing) / 1000 < most
    assert found[scan.array > 0].mean() > 0.85
