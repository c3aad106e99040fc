"""What is no head is refused or doubted before it is translated; what is one passes without a word."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_translators import CPU, Known, card, entry, head, of, run
from scipy import ndimage

from MRSuperResLib.errors import BadVolume, UnsuitableVolume
from MRSuperResLib.grid import Grid
from MRSuperResLib.inference import plan_translation, planning
from MRSuperResLib.inference.sampling import latents
from MRSuperResLib.inference.translation import Translator
from MRSuperResLib.inference.view_checks import check_view, scale_above_air
from MRSuperResLib.intensity import IntensityScale
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.volume import Volume

# bad volumes


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
