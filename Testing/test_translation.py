"""Translation of a volume: several answers, each a coherent volume, their mean and spread, and what is said of bad input."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from test_jobs import save_tiny
from torch import Tensor, nn

from MRSuperResLib import cli, jobs, models, networks
from MRSuperResLib.errors import BadVolume, Cancelled, DeviceError, ModelError, UnsuitableVolume, UsageError
from MRSuperResLib.inference import Options, Translation, estimate, plan_translation, planning, translate
from MRSuperResLib.inference.sampling import MOST_SAMPLES, latents
from MRSuperResLib.inference.translation import Translator, guess_contrast
from MRSuperResLib.inference.view_checks import check_view, scale_above_air
from MRSuperResLib.intensity import IntensityScale
from MRSuperResLib.jobs import Job
from MRSuperResLib.models import ModelCard, ModelEntry, Requirements, SpacingRange
from MRSuperResLib.volume import Grid, Volume, read_volume, write_volume

REPOSITORY = Path(__file__).resolve().parents[1]
CONTRASTS = ("T1w", "T2w", "FLAIR")
TINY = {"widths": [8, 12], "latent": 8, "contrasts": list(CONTRASTS)}
CPU = Options(device="cpu", contrast="T1w")
OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


class Known(nn.Module):
    """A network whose answer is known: the slice, brighter by a tenth of the first number of z."""

    contrasts = CONTRASTS

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[tuple[int, ...], int, int]] = []

    def forward(self, x: Tensor, z: Tensor, source: int, target: int) -> Tensor:
        assert z.shape[0] == x.shape[0]
        self.seen.append((tuple(x.shape), int(source), int(target)))
        return x + 0.1 * z[:, :1, None, None] if z.shape[1] else x


def card(**changes: Any) -> ModelCard:
    fields: dict[str, Any] = {
        "id": "tiny-mt",
        "title": "Tiny translator",
        "version": "1.0",
        "architecture": "translation",
        "hyperparameters": TINY,
        "task": "translate",
        "plane": "in-plane",
        "factors": (1, 1),
        "contrasts": CONTRASTS,
        "target_contrasts": CONTRASTS,
        "spacing": None,
        "licence": "Apache-2.0",
        "intended_use": "Tests. Research use only.",
        "requirements": Requirements(smallest=1, multiple_of=8, halo=16, latent=8),
    } | changes
    return ModelCard(**fields)


def entry(**changes: Any) -> ModelEntry:
    return ModelEntry(card(**changes), None, "0" * 64)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelEntry:
    """The real network, small, of random weights that let z matter."""
    torch.manual_seed(3)
    network = networks.build("translation", TINY)
    for name, parameter in network.named_parameters():
        if "shift" in name:
            nn.init.normal_(parameter, std=0.5)
    folder = tmp_path_factory.mktemp("models")
    return models.save_model(folder / "tiny-mt.safetensors", card(), network.state_dict())


def head(
    size: tuple[int, int, int] = (22, 26, 6),
    spacing: tuple[float, float, float] = (1.0, 1.0, 3.0),
    direction: tuple[float, ...] = OBLIQUE,
    name: str = "scan",
) -> Volume:
    """A textured ellipsoid in dark air."""
    grid = Grid(size, spacing, (10.0, -20.0, 5.0), direction)
    places = np.meshgrid(*(np.linspace(-1, 1, n) for n in grid.shape), indexing="ij")
    inside = sum((p / extent) ** 2 for p, extent in zip(places, (1.3, 0.8, 0.8), strict=True)) < 1
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    array = inside * (500 + 150 * np.sin(k / 1.9) + 100 * np.cos(j / 2.5) * np.sin(i / 2.9)) + 10
    return Volume(array.astype(np.float32), grid, name)


def run(volume: Volume | None = None, model: ModelEntry | None = None, **wanted: Any) -> Translation:
    """A translation of `head()` to T2w by `Known`, unless something else is said."""
    wanted = {"target": "T2w", "options": CPU, "network": None if model else Known()} | wanted
    wanted.setdefault("warn", lambda code, message: None)
    return translate(volume or head(), model or entry(), **wanted)


# the answers


def test_the_answer_is_the_mean_of_the_samples_and_the_map_their_spread(tiny: ModelEntry) -> None:
    """Against numpy's own mean and standard deviation of the samples, calibration included."""
    calibrated = dataclasses.replace(tiny.card.requirements, uncertainty_scale=2.5)
    model = dataclasses.replace(tiny, card=dataclasses.replace(tiny.card, requirements=calibrated))
    found = run(model=model, samples=7, seed=3, keep_samples=True)
    drawn = np.stack([sample.array for sample in found.samples]).astype(np.float64)
    assert len(drawn) == 7 and found.uncertainty is not None
    assert drawn.std(axis=0).max() > 1.0, "z moves the answer"
    np.testing.assert_allclose(found.mean.array, drawn.mean(axis=0), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(found.uncertainty.array, 2.5 * drawn.std(axis=0, ddof=1), rtol=1e-3, atol=1e-2)
    assert found.report["samples"] == 7 and found.report["uncertainty_scale"] == 2.5


def test_the_same_seed_gives_the_same_bits_and_the_first_samples_agree_whatever_their_number(tiny: ModelEntry) -> None:
    first = run(model=tiny, samples=2, seed=5, keep_samples=True)
    for how in (CPU, dataclasses.replace(CPU, batch=4), dataclasses.replace(CPU, batch=3)):
        again = run(model=tiny, samples=4, seed=5, keep_samples=True, options=how)
        for one, other in zip(first.samples, again.samples, strict=False):
            np.testing.assert_array_equal(one.array, other.array)
    alone = run(model=tiny, samples=1, seed=5)
    np.testing.assert_array_equal(alone.mean.array, first.samples[0].array)
    assert alone.uncertainty is None and alone.samples == ()
    other = run(model=tiny, samples=1, seed=6)
    assert np.abs(other.mean.array - alone.mean.array).max() > 1.0


def test_all_slices_of_a_sample_share_one_z() -> None:
    """Otherwise neighbouring slices would look like different scans: here each sample is brighter by one number."""
    made = head()
    found = run(made, samples=5, keep_samples=True)
    shifts = np.stack([sample.array - made.array for sample in found.samples])
    assert np.ptp(shifts, axis=(1, 2, 3)).max() < 1e-2
    assert len({round(float(shift.mean()), 2) for shift in shifts}) == 5


@pytest.mark.parametrize(("axis", "shape"), [(0, (1, 1, 6, 26)), (1, (1, 1, 6, 22)), (2, (1, 1, 26, 22))])
def test_the_network_sees_whole_slices_across_the_axis_and_the_grid_and_units_stay(
    axis: int, shape: tuple[int, ...]
) -> None:
    made, network = head(), Known()
    plain = entry(requirements=Requirements(smallest=1, halo=2))
    found = run(made, plain, network=network, options=dataclasses.replace(CPU, slice_axis=axis))
    assert {seen for seen, _, _ in network.seen} == {shape}
    assert found.mean.grid.same_as(made.grid) and found.mean.name == "scan"
    assert found.mean.array.dtype == np.float32 and found.mean.array.flags.c_contiguous
    np.testing.assert_allclose(found.mean.array, made.array, atol=1e-2)
    assert found.uncertainty is None, "a model without a latent vector has one answer"


def test_the_network_is_told_from_what_to_what() -> None:
    network = Known()
    run(network=network, samples=1, target="FLAIR", options=dataclasses.replace(CPU, contrast="T2w"))
    assert {(source, target) for _, source, target in network.seen} == {(1, 2)}


def test_the_result_takes_the_robust_range_of_the_input_and_says_so() -> None:
    """Also of a scan whose air is far from 0, as CT-like offsets are."""
    made = head()
    shifted = Volume(made.array * 3 - 2000, made.grid)
    found = run(shifted, samples=2)
    low, high = np.percentile(shifted.array, (0.1, 99.9))
    assert found.report["robust_range"] == pytest.approx([low, high])
    plain = run(made, samples=2)
    np.testing.assert_allclose(found.mean.array, plain.mean.array * 3 - 2000, atol=0.1)
    assert found.uncertainty is not None and plain.uncertainty is not None
    np.testing.assert_allclose(found.uncertainty.array, plain.uncertainty.array * 3, rtol=1e-3, atol=0.1)
    assert found.uncertainty.array.min() >= 0


def test_many_samples_take_the_memory_of_two() -> None:
    made = head((64, 64, 20))

    def peak(samples: int) -> int:
        run(made, samples=2)
        tracemalloc.start()
        run(made, samples=samples)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(60) < 1.1 * peak(2)


def test_samples_that_would_not_fit_in_memory_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, network = head(), Known()
    monkeypatch.setattr("MRSuperResLib.inference.translation.available_memory", lambda: 20 * made.array.nbytes)
    assert len(run(made, samples=10, keep_samples=True).samples) == 10
    assert run(made, samples=20).samples == ()
    with pytest.raises(DeviceError, match="ask for fewer samples") as refused:
        run(made, samples=20, keep_samples=True, network=network)
    assert refused.value.code == "memory" and network.seen == []


def test_progress_counts_the_voxels_of_all_samples_and_cancelling_stops_between_them() -> None:
    told: list[tuple[str, int, int]] = []
    run(samples=3, progress=lambda stage, done, total, left: told.append((stage, done, total)))
    voxels = told[0][2]
    assert told[0] == ("translating", 0, voxels) and told[-1] == ("translating", voxels, voxels)
    assert voxels % (3 * 6) == 0 and len(told) > 3
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)

    network = Known()
    with pytest.raises(Cancelled):
        run(samples=3, network=network, cancel=lambda: len(network.seen) >= 7)
    assert len(network.seen) == 7


def test_two_slices_are_enough() -> None:
    found = run(head((22, 26, 2)), samples=2)
    assert found.mean.grid.size == (22, 26, 2)


def test_an_uncalibrated_map_is_called_so_and_a_batch_that_is_not_used_too() -> None:
    told: list[str] = []
    run(samples=2, warn=lambda code, message: told.append(code))
    assert [code for code in told if not code.endswith("flagged")] == ["uncalibrated"]
    told.clear()
    run(samples=1, options=dataclasses.replace(CPU, batch=4), warn=lambda code, message: told.append(code))
    assert [code for code in told if not code.endswith("flagged")] == ["batch"]


@pytest.mark.parametrize(
    ("spacing", "direction", "axis"),
    [
        ((1.0, 1.0, 4.0), OBLIQUE, 2),
        ((4.0, 1.0, 1.0), OBLIQUE, 0),
        ((1.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0), 1),  # isotropic, stored in sagittal slices
        ((4.0, 4.0, 3.0), OBLIQUE, 2),  # a coarse matrix: the acquired slices have square pixels
    ],
)
def test_slices_are_the_acquired_ones_or_the_axial_ones_of_an_isotropic_scan(
    spacing: tuple[float, float, float], direction: tuple[float, ...], axis: int
) -> None:
    grid = Grid((20, 20, 20), spacing, direction=direction)
    assert planning.translation_axis(grid) == axis
    assert plan_translation(grid, card(), target="T2w", contrast="T1w").slice_axis == axis
    assert estimate(grid, card()).slice_axis == axis
    assert plan_translation(grid, card(), target="T2w", contrast="T1w", slice_axis=0).slice_axis == 0


# bad requests


@pytest.mark.parametrize(
    ("wanted", "code", "complaint"),
    [
        ({"samples": 0}, "samples", "0 samples are asked for, expected 1 to 100"),
        ({"samples": -3}, "samples", "-3 samples"),
        ({"samples": 10_000}, "samples", f"10000 samples are asked for, expected 1 to {MOST_SAMPLES}"),
        ({"target": "PDw"}, "unknown-target", "makes T1w, T2w, FLAIR, not 'PDw'"),
        ({"target": "T1w"}, "same-contrast", "is T1w already.*translated to T2w, FLAIR"),
        ({"target": "t1"}, "same-contrast", "is T1w already"),
        ({"target": None}, "no-target", "makes T2w, FLAIR: say which contrast"),
        ({"seed": -1}, "usage", "seed is -1, expected 0 or more"),
        ({"options": Options(device="cpu")}, "no-contrast", "say which contrast the scan is"),
        (
            {"options": Options(device="cpu", contrast="bogus")},
            "unknown-contrast",
            "translates T1w, FLAIR, not 'bogus'",
        ),
    ],
)
def test_a_request_that_cannot_be_served_is_one_clear_line(wanted: dict[str, Any], code: str, complaint: str) -> None:
    network = Known()
    with pytest.raises(UsageError, match=complaint) as refused:
        run(network=network, **wanted)
    assert refused.value.code == code and refused.value.exit_code == 2 and "\n" not in refused.value.message
    assert network.seen == []


def test_several_samples_of_a_model_with_one_answer_are_refused() -> None:
    with pytest.raises(UsageError, match="one answer only: ask for 1 sample, not 4") as refused:
        run(model=entry(requirements=Requirements()), network=Known(), samples=4)
    assert refused.value.code == "one-answer"


def test_a_model_that_super_resolves_or_lacks_the_contrast_is_refused() -> None:
    with pytest.raises(ModelError, match="does not translate") as refused:
        run(model=entry(task="super-resolve"))
    assert refused.value.code == "wrong-task"
    with pytest.raises(ModelError, match="no output for PDw") as refused:
        run(model=entry(target_contrasts=("PDw",)), network=Known(), target="PDw")
    assert refused.value.code == "bad-card"


def test_the_contrast_is_taken_from_the_name_from_what_is_left_or_with_a_warning() -> None:
    told: list[tuple[str, str]] = []

    def planned(model: ModelCard, **wanted: Any) -> tuple[str, str, list[str]]:
        made = plan_translation(head().grid, model, **wanted)
        told.extend(made.notes)
        return made.source, made.target, [code for code, _ in made.notes]

    assert planned(card(), target="t2", contrast="t1W") == ("T1w", "T2w", [])
    assert planned(card(), target="T2w", name="sub-07_FLAIR") == ("FLAIR", "T2w", ["contrast-guessed"])
    two = card(contrasts=("T1w", "T2w"), target_contrasts=("T1w", "T2w"))
    assert planned(two, contrast="T2w") == ("T2w", "T1w", []), "the only other contrast is the target"
    assert planned(two, target="T1w") == ("T2w", "T1w", ["contrast-guessed"])
    assert planned(two, target="T1w", contrast="PDw") == ("T2w", "T1w", ["outside-training"])
    assert "the scan is PDw: it is translated as if it were T2w" in told[-1][1]
    assert planned(card(contrasts=("any",)), target="T1w") == ("any", "T1w", [])


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("sub-01_ses-1_T1w", "T1w"),
        ("t2_tse_tra", "T2w"),
        ("Ax T2 FLAIR", "FLAIR"),
        ("Ax T1 FLAIR", None),
        ("sub-01_space-T1w_FLAIR", "FLAIR"),
        ("sub-01_space-T1w_T2w", "T2w"),
        ("AX T2* GRE", None),
        ("sag T2*", None),
        ("t2_star", None),
        ("T1 map", None),
        ("DTI_T2", None),
        ("pd_T2w", None),
        ("DOE^JANE", None),
        ("", None),
        ("PDw", "PDw"),
        ("cat12", None),
    ],
)
def test_a_contrast_is_guessed_from_whole_words_only(name: str, contrast: str | None) -> None:
    assert guess_contrast(name) == contrast


# bad volumes


def of(array: np.ndarray) -> Volume:
    return dataclasses.replace(head(), array=array.astype(np.float32))


def empty() -> np.ndarray:
    array = np.zeros(head().array.shape)
    array[2, 3, 4:7] = 800
    return array


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.random.default_rng(0).rayleigh(20, head().array.shape), "shows noise only"),
        (1000 + 0.2 * head().array / 700, "its values are all between 1000"),
        (empty(), "of its voxels are bright"),
    ],
    ids=["air", "nearly-constant", "nearly-empty"],
)
def test_a_volume_without_a_head_is_refused(array: np.ndarray, complaint: str) -> None:
    with pytest.raises(UnsuitableVolume, match=f"no head is in view of scan: .*{complaint}") as refused:
        run(of(array))
    assert refused.value.code == "no-head" and refused.value.exit_code == 3 and "\n" not in refused.value.message


def test_a_constant_volume_is_refused() -> None:
    with pytest.raises(BadVolume, match="same value") as refused:
        run(of(np.full(head().array.shape, 7.0)))
    assert refused.value.code == "constant"


def enlarged(noise: np.ndarray, how: str) -> np.ndarray:
    """Slices of noise twice as fine: linear, or zero-filled in k-space as scanners do."""
    if how == "linear":
        return np.asarray(ndimage.zoom(noise, (1, 2, 2), order=1))
    rows, columns = noise.shape[1:]
    waves = np.fft.fftshift(np.fft.fft2(noise), axes=(1, 2))
    waves = np.pad(waves, ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2)))
    return np.abs(np.fft.ifft2(np.fft.ifftshift(waves, axes=(1, 2))))


@pytest.mark.parametrize("how", ["linear", "zero-filled"])
@pytest.mark.parametrize("size", [96, 256])
def test_air_that_was_enlarged_is_refused_as_air_is(how: str, size: int) -> None:
    air = np.random.default_rng(0).rayleigh(20, (4, size // 2, size // 2))
    array = enlarged(air, how).astype(np.float32)
    with pytest.raises(UnsuitableVolume, match="shows noise only") as refused:
        check_view(Volume(array, Grid(array.shape[::-1], (1.0, 1.0, 3.0))), 2)
    assert refused.value.code == "no-head"


def test_samples_come_in_mirrored_pairs_that_do_not_depend_on_their_number() -> None:
    drawn = list(latents(card(), 5, 3))
    np.testing.assert_array_equal(drawn[1], -drawn[0])
    np.testing.assert_array_equal(drawn[3], -drawn[2])
    assert len({abs(float(z[0])) for z in drawn}) == 3 and 0.5 < np.std(list(latents(card(), 200, 0))) < 1.5
    for one, other in zip(latents(card(), 9, 3), drawn, strict=False):
        np.testing.assert_array_equal(one, other)


def test_undershoot_of_an_interpolation_does_not_raise_the_air_that_the_network_sees() -> None:
    scan = head(size=(44, 52, 6))
    array = scan.array.copy()
    array[
        :, 25:27, 20:24
    ] = -150.0  # darker than air by more than a tenth of the range, a few voxels beside bright ones
    made = plan_translation(scan.grid, card(), target="T2w", contrast="T1w")
    whole, undershot = (
        Translator(volume, entry(), made, CPU, network=Known()).answer(np.zeros(8))
        for volume in (scan, replace(scan, array=array))
    )  # what the network sees, on its scale
    assert undershot.min() == 0.0  # not below, where no training image is
    assert undershot[:, :, :3].max() < 0.01  # air
    elsewhere = (array == scan.array) & (whole > 0.2)
    np.testing.assert_allclose(undershot[elsewhere], whole[elsewhere], atol=0.01)


def test_without_air_the_darkest_voxels_are_the_dark_end() -> None:
    grid = Grid((40, 40, 5), (1.0, 1.0, 3.0))
    array = np.random.default_rng(0).uniform(300, 700, grid.shape).astype(np.float32)
    assert scale_above_air(Volume(array, grid), 2) == IntensityScale.of(array)


def phantoms() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    places = np.meshgrid(np.linspace(0, 1, 6), np.linspace(0, 1, 96), np.linspace(0, 1, 80), indexing="ij")
    box = 500.0 * (np.maximum(abs(places[1] - 0.5), abs(places[2] - 0.5)) < 0.3)
    return {
        "small enlarged air": enlarged(rng.rayleigh(20, (6, 24, 24)), "linear"),
        "smooth noise": ndimage.gaussian_filter(rng.standard_normal((6, 160, 160)), (0, 3, 3)),
        "ramp": places[2],
        "ramp across slices": places[0],
        "box": box,
        "box in noise": np.hypot(box + rng.normal(0, 20, box.shape), rng.normal(0, 20, box.shape)),
    }


@pytest.mark.parametrize("name", phantoms())
def test_what_may_be_no_head_is_translated_with_a_warning(name: str) -> None:
    """Not refused: a scan cut close to the brain has no air around it either."""
    array, told = phantoms()[name].astype(np.float32), []
    check_view(Volume(array, Grid(array.shape[::-1], (1.0, 1.0, 3.0))), 2, lambda code, message: told.append(code))
    assert told == ["doubtful-view"]


def test_reversed_intensities_are_told_and_a_noisy_head_is_not_taken_for_one() -> None:
    told: list[str] = []
    made = head()
    noisy = made.array + np.random.default_rng(1).normal(0, 120, made.array.shape)
    for array, expected in ((made.array, []), (noisy, []), (made.array.max() - made.array, ["reversed"])):
        told.clear()
        check_view(of(array), 2, lambda code, message: told.append(code))
        assert told == expected


@pytest.mark.parametrize("folder", ["train/isotropic", "val/thick"])
def test_real_scans_are_heads_and_their_negatives_are_told(data_folder: Path, folder: str) -> None:
    path = sorted((data_folder / folder).glob("*.nii.gz"))[0]
    made, told = read_volume(path), []
    check_view(made, planning.translation_axis(made.grid), lambda code, message: told.append(code))
    assert told == []
    negative = dataclasses.replace(made, array=made.array.max() - made.array)
    check_view(negative, planning.translation_axis(made.grid), lambda code, message: told.append(code))
    assert told == ["reversed"]


@pytest.mark.parametrize("folder", ["train/isotropic", "train/multicontrast", "val/thick"])
def test_parts_of_real_scans_and_coarse_or_stripped_ones_pass_without_a_word(data_folder: Path, folder: str) -> None:
    """A refusal of a real scan is worse than a translated phantom; infants are among the isotropic ones."""
    told: list[str] = []
    for path in sorted((data_folder / folder).glob("*.nii.gz"))[::7]:
        made = read_volume(path)
        stack = np.moveaxis(made.array, 2 - planning.translation_axis(made.grid), 0)
        middle = len(stack) // 2
        some = stack[middle - 2 : middle + 2]
        head_there = np.stack([ndimage.binary_fill_holes(each) for each in some > 0.1 * np.percentile(some, 99.9)])
        brain = ndimage.binary_erosion(head_there, np.ones((1, 3, 3)), iterations=len(some[0]) // 18)
        coarse = ndimage.uniform_filter(stack, (0, 2, 2))[:, ::2, ::2]
        for part in (stack, some, some[:1], coarse, coarse[middle : middle + 1], some * brain):
            grid = Grid(part.shape[::-1], (1.0, 1.0, 1.0))
            check_view(Volume(np.ascontiguousarray(part), grid), 2, lambda code, message: told.append(code))
    assert told == []


@pytest.mark.parametrize("folder", ["train/isotropic", "train/multicontrast", "val/thick"])
def test_a_real_scan_cut_close_to_the_brain_is_not_refused(data_folder: Path, folder: str) -> None:
    for path in sorted((data_folder / folder).glob("*.nii.gz"))[::7]:
        made = read_volume(path)
        stack = np.moveaxis(made.array, 2 - planning.translation_axis(made.grid), 0)
        _, rows, columns = stack.shape
        middle = stack[len(stack) // 2 - 2 :][:4, rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
        for part in (middle, middle[:, ::2, ::2]):
            check_view(Volume(np.ascontiguousarray(part), Grid(part.shape[::-1], (1.0, 1.0, 1.0))), 2)


# jobs and the command line


@pytest.fixture(autouse=True)
def _no_models_of_this_machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MRSUPERRES_MODELS", str(tmp_path_factory.mktemp("empty")))


def saved(volume: Volume, path: Path) -> Path:
    write_volume(volume, path)
    return path


def shell(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "MRSuperResLib", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def test_one_command_super_resolves_translates_and_maps_the_uncertainty(tiny: ModelEntry, tmp_path: Path) -> None:
    """Equations 1 to 3 with a shipped model, nothing written between: files, events, sidecar."""
    scan = saved(head((12, 14, 3), (4.0, 4.0, 3.0)), tmp_path / "DOE_T2w.nii.gz")
    out = tmp_path / "out"
    out.mkdir()
    translator, first = tmp_path / "DOE_mt.safetensors", tmp_path / "DOE_sr.safetensors"
    shutil.copy(tiny.path or "", translator)
    shutil.copy(models.find_model("rdst-e-inplane-x4").path or "", first)
    done = shell(
        "translate", scan, "-o", out / "t1.nii.gz", "--model", translator, "--to", "T1w", "--samples", "3", "--seed", "9",
        "--uncertainty-map", out / "u.nrrd", "--samples-folder", out / "samples", "--super-resolve", first,
        "--device", "cpu", "--threads", "1", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events if event["event"] != "progress"][-1] == "result"
    started = next(event for event in events if event["event"] == "started")
    assert started["output_size"] == [48, 56, 3]
    stages = list(dict.fromkeys(event["stage"] for event in events if event["event"] == "progress"))
    assert stages == ["reading", "super-resolving", "translating", "writing"]
    last = [event for event in events if event.get("stage") == "translating"][-1]
    assert last["done"] == last["total"] == 3 * (48 * 56 * 3)
    codes = [event["code"] for event in events if event["event"] == "warning"]
    assert {"contrast-guessed", "uncalibrated"} <= set(codes) and len(codes) == len(set(codes))

    assert sorted(path.name for path in out.iterdir()) == ["samples", "t1.json", "t1.nii.gz", "u.nrrd"]
    samples = [read_volume(path) for path in sorted((out / "samples").iterdir())]
    assert len(samples) == 3
    answer, spread = read_volume(out / "t1.nii.gz"), read_volume(out / "u.nrrd")
    drawn = np.stack([sample.array for sample in samples])
    np.testing.assert_allclose(answer.array, drawn.mean(axis=0), rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(spread.array, drawn.std(axis=0, ddof=1), rtol=1e-2, atol=1e-2)
    assert answer.grid.same_as(read_volume(scan).grid.refine((4.0, 4.0, 1.0)))

    text = (out / "t1.json").read_text()
    record = json.loads(text)
    assert record["translation"]["source"] == "T2w" and record["translation"]["target"] == "T1w"
    assert record["translation"]["samples"] == 3 and "robust range" in record["translation"]["intensities"]
    assert record["super_resolved_with"]["id"] == "rdst-e-inplane-x4"
    assert record["parameters"]["super_resolve_with"] == "rdst-e-inplane-x4"
    assert record["parameters"]["seed"] == 9 and "DOE" not in text
    header = (out / "u.nrrd").read_bytes().split(b"\n\n")[0]
    assert b"rdst-e-inplane-x4" in header and b"DOE" not in header


@pytest.fixture
def job(tiny: ModelEntry, tmp_path: Path) -> Job:
    (tmp_path / "out").mkdir()
    return Job(
        input=str(saved(head(), tmp_path / "scan_T1w.nii.gz")),
        output=str(tmp_path / "out" / "t2.nii.gz"),
        model=str(tiny.path),
        task="translate",
        target="T2w",
        samples=2,
        device="cpu",
        threads=1,
    )


def test_super_resolving_first_does_not_turn_noise_into_a_head(job: Job, tmp_path: Path) -> None:
    """Enlarged noise is smooth; the scan itself is examined, and before the long work."""
    noise = np.random.default_rng(0).rayleigh(20, head().array.shape)
    scan = saved(of(noise), tmp_path / "noise_T1w.nii.gz")
    events = events_of(dataclasses.replace(job, input=str(scan), super_resolve_with="linear", factor=2.0))
    assert (events[-1]["event"], events[-1]["code"], events[-1]["exit_code"]) == ("error", "no-head", 3)
    assert "super-resolving" not in {event.get("stage") for event in events}


def test_a_folder_for_samples_takes_as_many_as_are_drawn_by_default(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "samples"
    result = events_of(dataclasses.replace(job, samples=None, samples_folder=str(folder)))[-1]
    assert result["event"] == "result", result
    assert len(list(folder.iterdir())) == len(result["outputs"]["samples"]) == 8
    assert result["provenance"]["translation"]["samples"] == 8


def test_samples_of_an_earlier_job_are_not_left_among_the_new_ones(job: Job, tmp_path: Path) -> None:
    """Somebody who averages what is in the folder would average two jobs."""
    folder = tmp_path / "out" / "samples"
    three = dataclasses.replace(job, samples=3, samples_folder=str(folder))
    assert events_of(three)[-1]["event"] == "result"
    event = events_of(dataclasses.replace(three, samples=2, seed=1))[-1]
    assert (event["code"], event["exit_code"]) == ("samples-there", 5) and "t2_sample-03.nii.gz" in event["message"]
    event = events_of(dataclasses.replace(three, output=job.output.replace(".nii.gz", ".nrrd")))[-1]
    assert event["code"] == "samples-there", "the same names in another format"
    assert len(list(folder.iterdir())) == 3
    assert events_of(dataclasses.replace(three, samples=4))[-1]["event"] == "result", "all of them are overwritten"
    other = dataclasses.replace(three, output=job.output.replace("t2.", "other."), samples=1)
    assert events_of(other)[-1]["event"] == "result" and len(list(folder.iterdir())) == 5


def test_kept_samples_that_would_not_fit_are_refused_before_the_super_resolution(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    combined = dataclasses.replace(job, super_resolve_with="linear", factor=2.0, plane="in-plane", samples=20)
    kept = dataclasses.replace(combined, samples_folder=str(tmp_path / "out" / "samples"))
    voxels = 4 * head().array.size
    assert jobs.estimate_job(kept).memory - jobs.estimate_job(combined).memory == 20 * 4 * voxels
    monkeypatch.setattr("MRSuperResLib.inference.translation.available_memory", lambda: 20 * 4 * voxels)
    events = events_of(kept)
    assert (events[-1]["event"], events[-1]["code"], events[-1]["exit_code"]) == ("error", "memory", 6)
    assert "super-resolving" not in {event.get("stage") for event in events}
    assert events_of(combined)[-1]["event"] == "result"


def test_all_that_is_doubtful_is_told_before_the_super_resolution(job: Job, tmp_path: Path) -> None:
    """Of the finer grid that is translated too; the contrast is what the scan's name tells."""
    thick = card(spacing=SpacingRange((0.9, 1.1), (2.0, 4.0)))
    translator = models.save_model(tmp_path / "mt.safetensors", thick, networks.build("translation", TINY).state_dict())
    first = save_tiny(tmp_path, "trained-on-t2", contrasts=("T2w",))
    events = events_of(dataclasses.replace(job, model=str(translator.path), super_resolve_with=str(first)))
    assert events[-1]["event"] == "result", events[-1]
    work = next(n for n, event in enumerate(events) if event.get("stage") == "super-resolving")
    told = [event["message"] for event in events[:work] if event["event"] == "warning"]
    assert "the scan's name says T1w: it is translated as such" in told
    assert any(message.startswith("'tiny-mt': ") and "1.5 mm" in message for message in told), told
    assert "'trained-on-t2': trained on T2w, this scan is T1w" in told
    later = [event["code"] for event in events[work:] if event["event"] == "warning"]
    assert [code for code in later if not code.endswith("flagged")] == ["uncalibrated"]


def test_a_wrong_target_is_refused_before_torch_is_loaded(job: Job) -> None:
    """Which takes seconds."""
    code = (
        "import sys; from MRSuperResLib import jobs\n"
        "code = jobs.execute(jobs.Job.from_json(sys.argv[1]), lambda event: None, lambda: False)\n"
        "print(code, 'torch' in sys.modules)"
    )
    document = dataclasses.replace(job, target="PDw", device="auto").to_json()
    done = subprocess.run([sys.executable, "-c", code, document], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.split() == ["2", "False"], done.stderr


@pytest.mark.parametrize(
    ("name", "arguments", "option"), [("scan", ["--to", "T2w"], "--contrast"), ("scan_T1w", [], "--to")]
)
def test_the_shell_names_the_option_that_is_missing(
    name: str, arguments: list[str], option: str, tiny: ModelEntry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = saved(head(), tmp_path / f"{name}.nii.gz")
    command = ["translate", str(scan), "-o", str(tmp_path / "t2.nii.gz"), "-m", str(tiny.path), *arguments]
    assert cli.main(command) == 2
    errors = capsys.readouterr().err
    assert "say which contrast" in errors and errors.endswith(f"({option})\n") and errors.count("\n") == 1


def events_of(job: Job) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    jobs.execute(job, events.append, lambda: False)
    return events


def test_the_same_job_gives_the_same_file(job: Job) -> None:
    arrays = []
    for how in (job, dataclasses.replace(job, batch=5), dataclasses.replace(job, seed=1)):
        assert events_of(how)[-1]["event"] == "result"
        arrays.append(read_volume(job.output).array)
    np.testing.assert_array_equal(arrays[1], arrays[0])
    assert np.abs(arrays[2] - arrays[0]).max() > 1.0


def test_a_truth_of_other_units_and_on_another_grid_scores_alike(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A perfect translation is perfect whatever the target scan's units are; its error map is in those units."""
    monkeypatch.setattr(models, "load_network", lambda model: Known())
    made = head()
    truth = saved(dataclasses.replace(made, array=3 * made.array + 100), tmp_path / "truth.nii.gz")
    scored = dataclasses.replace(job, truth=str(truth), error_map=str(tmp_path / "out" / "e.nii.gz"), samples=3)
    result = events_of(scored)[-1]
    shift = read_volume(job.output).array - made.array  # what z = 0.1 z_0 adds, in the scan's units
    np.testing.assert_allclose(read_volume(scored.error_map or "").array, 3 * np.abs(shift), atol=0.1)
    span = np.subtract(*np.percentile(made.array, (99.9, 0.1)))
    assert result["metrics"]["psnr"] == pytest.approx(20 * np.log10(span / np.abs(shift).mean()), abs=0.05)

    larger = saved(Volume(np.pad(3 * made.array, 2), made.grid.crop((-2, -2, -2), (26, 30, 10))), truth)
    events = events_of(dataclasses.replace(scored, truth=str(larger)))
    assert "truth-resampled" in [event.get("code") for event in events] and events[-1]["event"] == "result"


@pytest.mark.parametrize(
    ("changes", "code", "exit_code"),
    [
        ({"target": "CT"}, "unknown-target", 2),
        ({"target": "T1w"}, "same-contrast", 2),
        ({"super_resolve_with": "nothing"}, "unknown-model", 4),
        ({"super_resolve_with": "{model}"}, "wrong-task", 4),
        ({"super_resolve_with": "fasr-s-inplane-x2"}, "wrong-task", 4),
        ({"samples": 0}, "usage", 2),
        ({"samples": 10_000}, "usage", 2),
        ({"contrast": "T2w"}, "same-contrast", 2),
        ({"contrast": "bogus"}, "unknown-contrast", 2),
    ],
)
def test_a_job_that_cannot_be_served_writes_nothing(
    job: Job, changes: dict[str, Any], code: str, exit_code: int
) -> None:
    filled = {
        name: value.format(model=job.model) if isinstance(value, str) else value for name, value in changes.items()
    }
    event = events_of(dataclasses.replace(job, **filled))[-1]
    assert (event["event"], event["code"], event["exit_code"]) == ("error", code, exit_code), event
    assert "add" not in event["message"], "a translation has no reference that could be added"
    assert list(Path(job.output).parent.iterdir()) == []
