"""Bad input is one clear line, and what is odd about a scan is said."""

from __future__ import annotations

import gzip
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from made_files import image_file, mgh_file, noise
from scipy import spatial

from MRSuperResLib.errors import BadVolume
from MRSuperResLib.grid import Grid
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.volume import Volume, check_volume


def _bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Every way a file can be unsuitable: name -> (file, the code it must be refused with)."""
    sound = image_file(noise(6, 7, 8), folder / "sound.nii.gz")
    truncated = folder / "truncated.nii.gz"
    truncated.write_bytes(sound.read_bytes()[: sound.stat().st_size // 2])
    short = folder / "short.nii"
    short.write_bytes(image_file(noise(6, 7, 8), folder / "plain.nii").read_bytes()[:-100])
    flat = folder / "no-spacing.nii"
    header_bytes = bytearray((folder / "plain.nii").read_bytes())
    header_bytes[80:92] = bytes(12)
    flat.write_bytes(bytes(header_bytes))
    text = folder / "notes.nii.gz"
    text.write_bytes(gzip.compress(b"not an image at all" * 100))
    misnamed = folder / "scan.xyz"
    misnamed.write_bytes(sound.read_bytes())
    nothing = folder / "nothing.nrrd"
    nothing.write_bytes(b"")
    with_nan = np.full((6, 7, 8), np.nan, np.float32)
    tilted = folder / "tilted.nrrd"
    header = (
        "NRRD0004\ntype: float\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 4 4\n"
        "space directions: {}\nkinds: domain domain domain\nendian: little\nencoding: raw\nspace origin: (0,0,0)\n\n"
    )
    tilted.write_bytes(header.format("(1,0,0) (0.5,1,0) (0,0,1)").encode() + noise(4, 4, 4).tobytes())
    mha = folder / "zero.mha"
    mha.write_bytes(
        b"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementSpacing = 1 0 1\nElementType = MET_FLOAT\n"
        b"ElementDataFile = LOCAL\n" + noise(4, 4, 4).tobytes()
    )
    negative = folder / "negative.mha"
    negative.write_bytes(mha.read_bytes().replace(b"1 0 1", b"1 -2 1"))
    packed = image_file(noise(12, 13, 14), folder / "packed.mha").read_bytes()
    cut = folder / "cut.mha"
    cut.write_bytes(packed[: len(packed) // 2])
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[3:9, 3:9, 3:9] = 2
    labels[5:7, 5:7, 5:7] = 17
    return {
        "missing": (folder / "nowhere.nii.gz", "not-found"),
        "not an image": (text, "unreadable"),
        "truncated": (truncated, "unreadable"),
        "truncated, not packed": (short, "unreadable"),
        "zero bytes": (nothing, "unreadable"),
        "unknown suffix": (misnamed, "not-a-volume"),
        "2D": (image_file(noise(7, 8), folder / "flat.nii"), "2d"),
        "4D": (image_file(noise(3, 6, 7, 8), folder / "many.nii"), "4d"),
        "RGB": (image_file(noise(6, 7, 8, 3).astype(np.uint8), folder / "rgb.nrrd", vector=True), "not-scalar"),
        "all NaN": (image_file(with_nan, folder / "nan.nrrd"), "all-nan"),
        "all NaN in NIfTI": (image_file(with_nan, folder / "nan.nii.gz"), "all-nan"),
        "zero spacing in NIfTI": (flat, "bad-spacing"),
        "constant": (image_file(np.full((6, 7, 8), 3.0, np.float32), folder / "same.nrrd"), "constant"),
        "empty": (image_file(np.zeros((6, 7, 8), np.float32), folder / "empty.nrrd"), "constant"),
        "one slice": (image_file(noise(1, 7, 8), folder / "slice.nrrd"), "one-slice"),
        "one voxel wide": (image_file(noise(6, 7, 1), folder / "line.nrrd"), "one-slice"),
        "sheared": (tilted, "bad-direction"),
        "zero spacing": (mha, "bad-spacing"),
        "negative spacing": (negative, "bad-spacing"),
        "truncated MetaImage": (cut, "unreadable"),
        "label map": (image_file(labels, folder / "tumour-seg.nii.gz"), "label-map"),
        "unnamed label map": (image_file(labels, folder / "scan1.nii.gz"), "label-map"),
    }


CASES = (
    "missing",
    "not an image",
    "truncated",
    "truncated, not packed",
    "zero bytes",
    "unknown suffix",
    "2D",
    "4D",
    "RGB",
    "all NaN",
    "all NaN in NIfTI",
    "zero spacing in NIfTI",
    "constant",
    "empty",
    "one slice",
    "one voxel wide",
    "sheared",
    "zero spacing",
    "negative spacing",
    "truncated MetaImage",
    "label map",
    "unnamed label map",
)


@pytest.mark.parametrize("case", CASES)
def test_unsuitable_files_are_refused_in_one_line(case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, code = _bad_files(tmp_path)[case]
    with pytest.raises(BadVolume) as caught:
        read_volume(path)
    assert caught.value.code == code, caught.value.message
    assert "\n" not in caught.value.message and len(caught.value.message) < 400
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".nrrd", ".nii", ".nii.gz"])
def test_a_few_bad_voxels_are_replaced_and_told(suffix: str, tmp_path: Path) -> None:
    """In NIfTI too, where ITK makes them 0 without a word."""
    array = noise(6, 7, 8)
    array[1, 2, 3], array[4, 4, 4] = np.nan, np.inf
    said: list[tuple[str, str]] = []
    volume = read_volume(image_file(array, tmp_path / f"some{suffix}"), warn=lambda *told: said.append(told))
    assert [code for code, _ in said] == ["nan-replaced"] and "2 NaN" in said[0][1]
    assert volume.array[1, 2, 3] == volume.array[4, 4, 4] == np.nanmin(array) > 0
    good = np.isfinite(array)
    np.testing.assert_array_equal(volume.array[good], array[good])


@pytest.mark.filterwarnings("error")
def test_a_voxel_too_large_for_float32_is_replaced_and_told_like_an_infinite_one(tmp_path: Path) -> None:
    array = noise(6, 7, 8).astype(np.float64)
    array[1, 2, 3] = 1e300
    said: list[str] = []
    volume = read_volume(image_file(array, tmp_path / "huge.nrrd"), warn=lambda code, message: said.append(code))
    assert said == ["nan-replaced"] and volume.array[1, 2, 3] == np.float32(array.min())


def test_a_very_long_axis_is_allowed_and_told() -> None:
    said: list[str] = []
    grid = Grid((2000, 3, 3), (0.5, 1.0, 1.0))
    check_volume(Volume(noise(3, 3, 2000), grid), warn=lambda code, message: said.append(code))
    assert said == ["large-volume"]


def test_a_3d_scan_written_as_4d_and_integer_scans_are_read(tmp_path: Path) -> None:
    assert read_volume(image_file(noise(1, 6, 7, 8), tmp_path / "wrapped.nii.gz")).grid.size == (8, 7, 6)
    integers = np.random.default_rng(0).integers(0, 900, (10, 11, 12)).astype(np.int16)
    assert read_volume(image_file(integers, tmp_path / "t1.nii.gz")).array.max() <= 900


def test_label_maps_are_read_where_they_are_wanted(tmp_path: Path) -> None:
    path, _ = _bad_files(tmp_path)["label map"]
    assert set(np.unique(read_volume(path, allow_labels=True).array)) == {0, 2, 17}


def _parcellation(values: int) -> np.ndarray:
    """An ellipsoid cut into `values` cells, as a cortical parcellation is; (48, 52, 44) int32, numbers up to thousands."""
    rng = np.random.default_rng(3)
    points = np.stack(np.meshgrid(*(np.arange(n) for n in (48, 52, 44)), indexing="ij"), axis=-1)
    centres = rng.uniform(0, 50, (values, 3))
    cells = spatial.cKDTree(centres).query(points)[1]
    inside = (((points - (24, 26, 22)) / (22, 24, 20)) ** 2).sum(axis=-1) < 1
    return np.where(inside, 1000 + 7 * cells, 0).astype(np.int32)


@pytest.mark.parametrize("name", ["aparc+aseg.nii.gz", "wmparc.nii.gz", "sub-01 (atlas).nii.gz"])
@pytest.mark.parametrize("values", [90, 300])
def test_a_parcellation_is_no_scan_whatever_its_name(name: str, values: int, tmp_path: Path) -> None:
    with pytest.raises(BadVolume, match="label map") as caught:
        read_volume(image_file(_parcellation(values), tmp_path / name))
    assert caught.value.code == "label-map"


@pytest.mark.parametrize("name", ["aparc+aseg.nii.gz", "wmparc.mgz"])
def test_freesurfers_label_maps_are_known_by_name_even_where_their_regions_are_small(name: str, tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 100, (12, 12, 12)).astype(np.int32)
    path = tmp_path / name
    _ = mgh_file(path, labels) if name.endswith("mgz") else image_file(labels, path)
    with pytest.raises(BadVolume, match="label map"):
        read_volume(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integer_scans_are_no_label_maps(dtype: type, tmp_path: Path) -> None:
    """Little noise in wide, dark tissue; much air, that of an offset too; or slices repeated to look thin."""
    rng = np.random.default_rng(0)
    inside = _parcellation(2) > 0
    scan = np.where(inside, 40 + 2 * np.arange(44) + rng.normal(0, 1.5, inside.shape), 0).astype(dtype)
    air = np.pad(scan, 40)
    for name, array in {"air": air, "offset": air + dtype(100), "repeated": np.repeat(scan, 5, axis=0)}.items():
        assert read_volume(image_file(array, tmp_path / f"{name}.nii.gz")).array.shape == array.shape


def test_silence_ends_with_the_reading(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Also where two threads read at once: standard error is one for both."""
    path = image_file(noise(16, 17, 18), tmp_path / "scan.nii.gz")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(read_volume, [path] * 20))
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"
