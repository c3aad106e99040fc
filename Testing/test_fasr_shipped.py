"""The guided models that ship: alone they are their single-image models, in tiles they are themselves, guided they gain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from MRSuperResLib import models
from MRSuperResLib.acquisition import acquire, preset
from MRSuperResLib.evaluation.metrics import psnr
from MRSuperResLib.grid import Grid
from MRSuperResLib.inference import Options, super_resolve
from MRSuperResLib.inference.options import Aligned
from MRSuperResLib.inference.runner import SliceRunner
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.volume import Volume

SHIPPED = {
    "fasr-s-inplane-x2": "disvit-inplane-x2",
    "fasr-s-inplane-x4": "disvit-inplane-x4",
    "fasr-s-through-x4": "disvit-through-x4",
}
OPTIONS = Options(device="cpu", precision="fp32", threads=1, batch=1, slice_axis=2)


def quiet(code: str, message: str) -> None:
    """No warning is of interest here."""


def thick(size: int, factor: int) -> tuple[Volume, Volume]:
    """Made-up thick slices, and another contrast of them `factor` times thinner."""
    rng = np.random.default_rng(size)
    texture = ndimage.gaussian_filter(rng.standard_normal((size * factor, size, size - 3)), 2.0)
    truth = (500 + 300 * np.sign(texture) + 1000 * texture).astype(np.float32)
    fine = Grid((size - 3, size, size * factor), (1.0, 1.0, 4.0 / factor))
    return acquire(Volume(truth, fine), (1.0, 1.0, float(factor))), Volume(1200 - truth, fine)


def slices(rows: int, columns: int, factor: int) -> tuple[Volume, Volume]:
    """Two made-up coarse slices with edges everywhere, and another contrast of them `factor` times finer."""
    rng = np.random.default_rng(rows)
    texture = ndimage.gaussian_filter(rng.standard_normal((2, rows * factor, columns * factor)), (0, 2.0, 2.0))
    truth = (500 + 300 * np.sign(texture) + 1000 * texture).astype(np.float32)
    fine = Grid((columns * factor, rows * factor, 2), (3.2 / factor, 3.2 / factor, 4.0))
    return acquire(Volume(truth, fine), (float(factor), float(factor), 1.0)), Volume(1200 - truth, fine)


@pytest.mark.parametrize("name", SHIPPED)
def test_with_a_reference_that_is_not_used_the_answer_is_the_single_image_models(name: str) -> None:
    """To the last bit, on a scan whose sides are no multiples of anything: padded as the single-image model pads."""
    guided = models.find_model(name)
    factor = int(guided.card.factor or 0)
    scan, reference = slices(34, 43, factor) if guided.card.plane == "in-plane" else thick(13, factor)
    unused = Aligned(reference, np.zeros(reference.array.shape, dtype=bool))
    alone = super_resolve(scan, SHIPPED[name], options=OPTIONS, warn=quiet)
    answer = super_resolve(scan, guided, reference=unused, options=OPTIONS, warn=quiet)
    np.testing.assert_array_equal(answer.array, alone.array)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_guided_slice_is_not_cut_because_a_tile_is_asked_for(name: str) -> None:
    """The single-image model inside keeps what was measured of whole slices: tiles would answer otherwise, and the user is told."""
    entry = models.find_model(name)
    rows, columns = (int(factor) for factor in entry.card.factors or ())
    scan = np.random.default_rng(3).random((1, 40, 48)).astype(np.float32)
    reference = np.random.default_rng(4).random((1, 40 * rows, 48 * columns)).astype(np.float32)
    told: list[str] = []
    answers = []
    for cut in (None, 32):
        runner = SliceRunner(
            models.load_network(entry),
            entry.card,
            (rows, columns),
            replace(OPTIONS, tile=cut),
            lambda code, _: told.append(code),
        )
        answers.append(next(runner.run(scan, (reference, np.ones_like(reference))))[1])
    assert told == ["tile"]
    np.testing.assert_array_equal(answers[1], answers[0])


@pytest.mark.parametrize(
    ("name", "factors", "way", "axis"),
    [
        ("fasr-s-inplane-x4", (4.0, 4.0, 1.0), "bicubic", 2),
        ("fasr-s-inplane-x2", (2.0, 2.0, 1.0), "bicubic", 2),
        ("fasr-s-through-x4", (1.0, 4.0, 1.0), "through-gaussian", 1),
    ],
)
def test_a_scan_of_the_same_visit_helps_and_noise_does_not(
    data_folder: Path, name: str, factors: tuple[float, float, float], way: str, axis: int
) -> None:
    """Slices of a held-out person: the T1w adds half a decibel to the T2w's answer, noise in its place takes nothing.

    Thick slices are coronal: the two are sharp from front to back.
    """
    folder = data_folder / "val" / "multicontrast"
    corner, size = ((0, 0, 70), (136, 172, 2)) if axis == 2 else ((56, 0, 70), (24, 172, 6))
    truth, sharp = (
        read_volume(folder / f"openms-26_{contrast}.nii.gz").crop(corner, size) for contrast in ("T2w", "T1w")
    )
    scan = acquire(truth, factors, preset(way))
    noise = Volume(np.random.default_rng(0).random(truth.grid.shape).astype(np.float32), truth.grid)
    nowhere, everywhere = np.zeros(truth.grid.shape, dtype=bool), np.ones(truth.grid.shape, dtype=bool)
    guides = {"alone": (sharp, nowhere), "T1w": (sharp, everywhere), "noise": (noise, everywhere)}
    decibels = {}
    for which, guide in guides.items():
        options = replace(OPTIONS, slice_axis=axis)
        answer = super_resolve(scan, name, reference=Aligned(*guide), options=options, warn=quiet)
        decibels[which] = psnr(answer.array, truth.array)
    assert decibels["T1w"] > decibels["alone"] + 0.4 and abs(decibels["noise"] - decibels["alone"]) < 0.1, decibels


def test_a_scan_that_its_scanner_had_interpolated_is_not_sharpened_by_another(data_folder: Path) -> None:
    """A held-out T1w that holds nothing of what its T2w shows: unchecked, the T2w's detail costs 0.6 dB there."""
    folder = data_folder / "val" / "multicontrast"
    truth, sharp = (
        read_volume(folder / f"openmslong-04-1_{contrast}.nii.gz").crop((32, 32, 23), (200, 236, 2))
        for contrast in ("T1w", "T2w")
    )
    scan = acquire(truth, (2.0, 2.0, 1.0), preset("kspace"))
    decibels = []
    for valid in (np.zeros(truth.grid.shape, dtype=bool), np.ones(truth.grid.shape, dtype=bool)):
        answer = super_resolve(scan, "fasr-s-inplane-x2", reference=Aligned(sharp, valid), options=OPTIONS, warn=quiet)
        decibels.append(psnr(answer.array, truth.array))
    assert decibels[1] > decibels[0] - 0.35, decibels
