"""Geometry is a value: whatever the orientation, nothing moves by half a voxel, and bad input is one clear line."""

from __future__ import annotations

import gzip
import os
import stat
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import spatial
from scipy.spatial.transform import Rotation

from MRSuperResLib import volume as volume_module
from MRSuperResLib.errors import BadVolume, OutputError, UsageError
from MRSuperResLib.volume import Grid, Volume, check_volume, read_volume, resample, write_volume

AXIAL = np.eye(3)
CORONAL = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=float)
SAGITTAL = np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]], dtype=float)
LEFT_HANDED = np.diag([-1.0, 1.0, 1.0])
OBLIQUE = Rotation.from_euler("xyz", [12, -20, 33], degrees=True).as_matrix()
ORIENTATIONS = {
    "axial": AXIAL,
    "coronal": CORONAL,
    "sagittal": SAGITTAL,
    "left-handed": LEFT_HANDED,
    "oblique": OBLIQUE,
}


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    base = draw(st.sampled_from(list(ORIENTATIONS.values())))
    turn = Rotation.from_euler("xyz", [draw(st.floats(-180, 180)) for _ in range(3)], degrees=True).as_matrix()
    axes = turn @ base if draw(st.booleans()) else base
    size = tuple(draw(st.integers(4, 14)) for _ in range(3))
    spacing = tuple(draw(st.floats(0.4, 6.0)) for _ in range(3))
    origin = tuple(draw(st.floats(-200, 200)) for _ in range(3))
    return Grid(size, spacing, origin, tuple(axes.ravel().tolist()))  # type: ignore[arg-type]


def ramp(grid: Grid, slope: np.ndarray) -> np.ndarray:
    """slope . world, sampled at every voxel centre; (k, j, i)."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    points = np.stack([i, j, k], axis=-1).reshape(-1, 3)
    return (grid.index_to_world(points) @ slope).reshape(grid.shape).astype(np.float32)


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
        volume_module.to_sitk(Volume(array, grid)),
        volume_module.to_sitk(ours),
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


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_written_and_read_back_in_the_same_place(suffix: str, name: str, tmp_path: Path) -> None:
    grid = Grid((6, 7, 8), (0.7, 0.9, 3.0), (12.5, -40.0, 8.25), tuple(ORIENTATIONS[name].ravel()))
    array = np.random.default_rng(1).normal(size=grid.shape).astype(np.float32)
    path = tmp_path / f"scan{suffix}"
    write_volume(Volume(array, grid), path, fields={"MRSuperRes_model": "rdst-e"})
    back = read_volume(path)
    np.testing.assert_allclose(back.grid.corners(), grid.corners(), atol=1e-4)
    np.testing.assert_array_equal(back.array, array)
    if not suffix.startswith(".nii"):
        assert back.metadata["MRSuperRes_model"] == "rdst-e"
    else:
        assert "rdst-e" in back.metadata["descrip"]
    assert os.listdir(tmp_path) == [path.name]


def _dicom(folder: Path, positions: list[float], value: int = 0, rows: str = "1\\0\\0") -> None:
    folder.mkdir(exist_ok=True, parents=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, z in enumerate(positions):
        array = np.full((1, 8, 9), 100 + number, np.int16)
        array[0, 2:5, 2:5] = 300
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.8, 0.9, 3.0))
        tags = {
            "0008|0060": "MR", "0020|000d": "1.2.3", "0020|000e": f"1.2.3.{value}", "0020|0013": str(number + 1),
            "0008|0018": f"1.2.3.{value}.{number}", "0020|0032": f"-10\\-20\\{z}", "0020|0037": f"{rows}\\0\\1\\0",
            "0018|0050": "3", "0008|0008": "ORIGINAL\\PRIMARY",
        }  # fmt: skip
        for key, text in tags.items():
            image.SetMetaData(key, text)
        writer.SetFileName(str(folder / f"{value}-{number}.dcm"))
        writer.Execute(image)


def test_a_dicom_folder_is_a_volume(tmp_path: Path) -> None:
    _dicom(tmp_path / "one", [0, 3, 6, 9])
    volume = read_volume(tmp_path / "one")
    assert volume.grid.size == (9, 8, 4)
    np.testing.assert_allclose(volume.grid.spacing, (0.8, 0.9, 3.0), atol=1e-6)
    np.testing.assert_allclose(volume.grid.origin, (-10, -20, 0))
    assert volume.array[3, 0, 0] == 103


def test_dicom_trouble_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    _dicom(tmp_path / "gap", [0, 3, 6, 12])
    read_volume(tmp_path / "gap", warn=lambda code, message: said.append(code))
    assert said == ["uneven-slices"]
    _dicom(tmp_path / "two", [0, 3, 6])
    _dicom(tmp_path / "two", [0, 3, 6], value=7)
    with pytest.raises(BadVolume, match="2 DICOM series") as caught:
        read_volume(tmp_path / "two")
    assert caught.value.code == "several-series"
    (tmp_path / "none").mkdir()
    with pytest.raises(BadVolume, match="no DICOM"):
        read_volume(tmp_path / "none")


def test_two_echoes_in_one_series_are_not_read_as_one_volume_of_thin_slices(tmp_path: Path) -> None:
    _dicom(tmp_path / "echoes", [0, 3, 6, 0, 3, 6])
    said: list[str] = []
    with pytest.raises(BadVolume, match="6 slices at 3 positions") as caught:
        read_volume(tmp_path / "echoes", warn=lambda code, message: said.append(code))
    assert caught.value.code == "several-volumes" and not said


def test_a_localizers_directions_are_not_read_as_one_volume(tmp_path: Path) -> None:
    _dicom(tmp_path / "scout", [0, 3, 6])
    _dicom(tmp_path / "more", [9, 12], rows="0\\0\\1")
    for file in (tmp_path / "more").iterdir():
        file.rename(tmp_path / "scout" / f"more-{file.name}")
    with pytest.raises(BadVolume, match="several directions") as caught:
        read_volume(tmp_path / "scout")
    assert caught.value.code == "several-volumes"


def test_one_dicom_slice_or_the_folder_above_tells_which_folder_to_give(tmp_path: Path) -> None:
    series = tmp_path / "study" / "scans" / "series"
    _dicom(series, [0, 3, 6])
    with pytest.raises(BadVolume, match="one slice of a DICOM series") as caught:
        read_volume(series / "0-1.dcm")
    assert caught.value.code == "one-slice" and str(series) in caught.value.message
    with pytest.raises(BadVolume, match="no DICOM series itself") as caught:
        read_volume(tmp_path / "study")
    assert caught.value.code == "not-a-volume" and str(series) in caught.value.message


def _image(array: np.ndarray, path: Path, vector: bool = False) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))
    return path


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)


def _bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Every way a file can be unsuitable: name -> (file, the code it must be refused with)."""
    sound = _image(_noise(6, 7, 8), folder / "sound.nii.gz")
    truncated = folder / "truncated.nii.gz"
    truncated.write_bytes(sound.read_bytes()[: sound.stat().st_size // 2])
    short = folder / "short.nii"
    short.write_bytes(_image(_noise(6, 7, 8), folder / "plain.nii").read_bytes()[:-100])
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
    tilted.write_bytes(header.format("(1,0,0) (0.5,1,0) (0,0,1)").encode() + _noise(4, 4, 4).tobytes())
    mha = folder / "zero.mha"
    mha.write_bytes(
        b"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementSpacing = 1 0 1\nElementType = MET_FLOAT\n"
        b"ElementDataFile = LOCAL\n" + _noise(4, 4, 4).tobytes()
    )
    negative = folder / "negative.mha"
    negative.write_bytes(mha.read_bytes().replace(b"1 0 1", b"1 -2 1"))
    packed = _image(_noise(12, 13, 14), folder / "packed.mha").read_bytes()
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
        "2D": (_image(_noise(7, 8), folder / "flat.nii"), "2d"),
        "4D": (_image(_noise(3, 6, 7, 8), folder / "many.nii"), "4d"),
        "RGB": (_image(_noise(6, 7, 8, 3).astype(np.uint8), folder / "rgb.nrrd", vector=True), "not-scalar"),
        "all NaN": (_image(with_nan, folder / "nan.nrrd"), "all-nan"),
        "all NaN in NIfTI": (_image(with_nan, folder / "nan.nii.gz"), "all-nan"),
        "zero spacing in NIfTI": (flat, "bad-spacing"),
        "constant": (_image(np.full((6, 7, 8), 3.0, np.float32), folder / "same.nrrd"), "constant"),
        "empty": (_image(np.zeros((6, 7, 8), np.float32), folder / "empty.nrrd"), "constant"),
        "one slice": (_image(_noise(1, 7, 8), folder / "slice.nrrd"), "one-slice"),
        "one voxel wide": (_image(_noise(6, 7, 1), folder / "line.nrrd"), "one-slice"),
        "sheared": (tilted, "bad-direction"),
        "zero spacing": (mha, "bad-spacing"),
        "negative spacing": (negative, "bad-spacing"),
        "truncated MetaImage": (cut, "unreadable"),
        "label map": (_image(labels, folder / "tumour-seg.nii.gz"), "label-map"),
        "unnamed label map": (_image(labels, folder / "scan1.nii.gz"), "label-map"),
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
    array = _noise(6, 7, 8)
    array[1, 2, 3], array[4, 4, 4] = np.nan, np.inf
    said: list[tuple[str, str]] = []
    volume = read_volume(_image(array, tmp_path / f"some{suffix}"), warn=lambda *told: said.append(told))
    assert [code for code, _ in said] == ["nan-replaced"] and "2 NaN" in said[0][1]
    assert volume.array[1, 2, 3] == volume.array[4, 4, 4] == np.nanmin(array) > 0
    good = np.isfinite(array)
    np.testing.assert_array_equal(volume.array[good], array[good])


@pytest.mark.filterwarnings("error")
def test_a_voxel_too_large_for_float32_is_replaced_and_told_like_an_infinite_one(tmp_path: Path) -> None:
    array = _noise(6, 7, 8).astype(np.float64)
    array[1, 2, 3] = 1e300
    said: list[str] = []
    volume = read_volume(_image(array, tmp_path / "huge.nrrd"), warn=lambda code, message: said.append(code))
    assert said == ["nan-replaced"] and volume.array[1, 2, 3] == np.float32(array.min())


def test_a_very_long_axis_is_allowed_and_told() -> None:
    said: list[str] = []
    grid = Grid((2000, 3, 3), (0.5, 1.0, 1.0))
    check_volume(Volume(_noise(3, 3, 2000), grid), warn=lambda code, message: said.append(code))
    assert said == ["large-volume"]


def test_a_3d_scan_written_as_4d_and_integer_scans_are_read(tmp_path: Path) -> None:
    assert read_volume(_image(_noise(1, 6, 7, 8), tmp_path / "wrapped.nii.gz")).grid.size == (8, 7, 6)
    integers = np.random.default_rng(0).integers(0, 900, (10, 11, 12)).astype(np.int16)
    assert read_volume(_image(integers, tmp_path / "t1.nii.gz")).array.max() <= 900


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
        read_volume(_image(_parcellation(values), tmp_path / name))
    assert caught.value.code == "label-map"


@pytest.mark.parametrize("name", ["aparc+aseg.nii.gz", "wmparc.mgz"])
def test_freesurfers_label_maps_are_known_by_name_even_where_their_regions_are_small(name: str, tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 100, (12, 12, 12)).astype(np.int32)
    path = tmp_path / name
    _ = _mgh(path, labels) if name.endswith("mgz") else _image(labels, path)
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
        assert read_volume(_image(array, tmp_path / f"{name}.nii.gz")).array.shape == array.shape


def _mgh(path: Path, array: np.ndarray, **changes: Any) -> Path:
    """A FreeSurfer file by its documented header; array (k, j, i)."""
    header: dict[str, Any] = {
        "version": 1, "frames": 1, "kind": {"u1": 0, "i4": 1, "f4": 3, "i2": 4, "u2": 10}[array.dtype.str[1:]], "given": 1,
        "spacing": (1, 1, 1), "axes": np.eye(3), "centre": (0, 0, 0),
    } | changes  # fmt: skip
    content = struct.pack(
        ">7ih15f", header["version"], *array.shape[::-1], header["frames"], header["kind"], 0, header["given"],
        *header["spacing"], *np.transpose(header["axes"]).ravel(), *header["centre"],
    )  # fmt: skip
    content = content.ljust(284, b"\0") + array.astype(array.dtype.newbyteorder(">")).tobytes() + bytes(20)
    path.write_bytes(gzip.compress(content) if path.suffix == ".mgz" else content)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_freesurfer_file_lies_where_the_same_nifti_lies(name: str, dtype: type, tmp_path: Path) -> None:
    """vox2ras = [axes x spacing | centre - axes x spacing x size / 2], RAS; NIfTI gets that matrix through SimpleITK."""
    array = np.random.default_rng(0).integers(0, 250, (8, 7, 6)).astype(dtype)
    axes, spacing, centre = ORIENTATIONS[name], np.array((0.7, 0.9, 3.0)), np.array((12.5, -40.0, 8.25))
    path = _mgh(tmp_path / "scan.mgz", array, spacing=spacing, axes=axes, centre=centre)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    to_lps = np.diag((-1.0, -1.0, 1.0))
    image.SetDirection((to_lps @ axes).ravel())
    image.SetOrigin(to_lps @ (centre - axes @ (spacing * (6, 7, 8) / 2)))
    sitk.WriteImage(image, str(tmp_path / "scan.nii.gz"))
    found, expected = read_volume(path), read_volume(tmp_path / "scan.nii.gz")
    np.testing.assert_allclose(found.grid.corners(), expected.grid.corners(), atol=1e-4)
    np.testing.assert_array_equal(found.array, array)
    assert found.array.dtype == np.float32 and found.name == "scan"


def test_a_freesurfer_file_without_geometry_is_read_as_freesurfer_does_and_told(tmp_path: Path) -> None:
    """FreeSurfer's vox2ras-tkr: i to the left, j down, k forward, 1 mm, the box's centre at 0."""
    said: list[str] = []
    path = _mgh(tmp_path / "old.mgh", _noise(12, 10, 8), given=0, spacing=(9, 9, 9))
    grid = read_volume(path, warn=lambda code, message: said.append(code)).grid
    vox2ras = np.array([[-1, 0, 0, 4], [0, 0, 1, -6], [0, -1, 0, 5], [0, 0, 0, 1]], dtype=float)
    ras = vox2ras @ (2, 3, 4, 1)
    np.testing.assert_allclose(grid.index_to_world(np.array([[2, 3, 4]]))[0], ras[:3] * (-1, -1, 1))
    assert said == ["no-geometry"]


def test_freesurfer_files_that_are_no_scan_are_refused_in_one_line(tmp_path: Path) -> None:
    scan = _noise(6, 7, 8)
    whole = _mgh(tmp_path / "whole.mgh", scan).read_bytes()
    (tmp_path / "short.mgh").write_bytes(whole[:-100])
    (tmp_path / "short.mgz").write_bytes(gzip.compress(whole)[:-200])
    (tmp_path / "text.mgz").write_bytes(gzip.compress(b"not an image at all" * 100))
    (tmp_path / "plain.mgz").write_bytes(whole)
    cases = {
        "short.mgh": "unreadable",
        "short.mgz": "unreadable",
        "text.mgz": "unreadable",
        "plain.mgz": "unreadable",
        _mgh(tmp_path / "two.mgz", np.concatenate((scan, scan)), frames=2).name: "4d",
        _mgh(tmp_path / "tensor.mgz", scan, kind=7).name: "not-scalar",
        _mgh(tmp_path / "spacing.mgz", scan, spacing=(1, 0, 1)).name: "bad-spacing",
        _mgh(tmp_path / "sheared.mgz", scan, axes=np.eye(3) + 0.2).name: "bad-direction",
        _mgh(tmp_path / "line.mgz", scan[:1]).name: "one-slice",
        _mgh(tmp_path / "nan.mgz", scan * np.float32(np.nan)).name: "all-nan",
    }
    for name, code in cases.items():
        with pytest.raises(BadVolume) as caught:
            read_volume(tmp_path / name)
        assert caught.value.code == code and "\n" not in caught.value.message, name
    assert read_volume(_mgh(tmp_path / "mapped.mgz", scan, version=0x201)).grid.size == (8, 7, 6)  # an intent in it


def test_silence_ends_with_the_reading(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Also where two threads read at once: standard error is one for both."""
    path = _image(_noise(16, 17, 18), tmp_path / "scan.nii.gz")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(read_volume, [path] * 20))
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_outputs_that_cannot_be_written_are_said_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = Volume(_noise(4, 4, 4), Grid((4, 4, 4), (1.0, 1.0, 1.0)))
    with pytest.raises(OutputError, match="does not exist"):
        write_volume(volume, tmp_path / "missing" / "x.nii.gz")
    with pytest.raises(OutputError, match="no format"):
        write_volume(volume, tmp_path / "x.docx")
    closed = tmp_path / "closed"
    closed.mkdir()
    if os.geteuid() != 0:  # root may write anywhere
        closed.chmod(stat.S_IRUSR | stat.S_IXUSR)
        with pytest.raises(OutputError, match="read-only"):
            write_volume(volume, closed / "x.nii.gz")
        closed.chmod(stat.S_IRWXU)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sitk, "WriteImage", full)
    with pytest.raises(OutputError, match="disk is full"):
        write_volume(volume, closed / "x.nii.gz")
    assert os.listdir(closed) == []


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
        resample(Volume(_noise(4, 4, 4), grid), grid.refine((2, 2, 2)), "quintic")
    with pytest.raises(BadVolume, match="fill"):
        Volume(_noise(3, 3, 3), grid)
