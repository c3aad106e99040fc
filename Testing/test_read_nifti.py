"""NIfTI and Analyze files lie where nifti1.h says, in nibabel's reading of the same bytes; results keep both transforms."""

from __future__ import annotations

import gzip
import itertools
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from made_files import OBLIQUE, noise
from scipy.spatial.transform import Rotation

from MRSuperResLib.errors import BadVolume
from MRSuperResLib.grid import Grid
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.io.spaces import LPS_TO_RAS, affine_of
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.resample import resample
from MRSuperResLib.volume import Volume

SPACING = (0.9, 1.1, 3.0)
SHAPE = (12, 9, 6)  # i, j, k


def affine(
    axes: np.ndarray = OBLIQUE, spacing: Any = SPACING, origin: Any = (12.0, -30.0, 41.0), shear: float = 0.0
) -> np.ndarray:
    made = np.eye(4)
    made[:3, :3] = (axes @ np.array([[1, shear, 0], [0, 1, 0], [0, 0, 1]])) * spacing
    made[:3, 3] = origin
    return made


def nifti_file(
    path: Path, *, sform: tuple[Any, int] = (None, 0), qform: tuple[Any, int] = (None, 0), kind: Any = nibabel.Nifti1Image,
    array: np.ndarray | None = None, **header: Any,
) -> Path:  # fmt: skip
    """A file that nibabel writes; pixdim is SPACING."""
    values = noise(*SHAPE[::-1]).T if array is None else array
    image = kind(values, None)
    image.header.set_zooms(SPACING)
    image.header.set_qform(qform[0], qform[1])
    image.header.set_sform(sform[0], sform[1])
    for name, value in header.items():
        image.header[name] = value
    image.header.set_data_dtype(values.dtype)
    nibabel.save(image, str(path))
    return path


def read(path: Path) -> tuple[Volume, list[str]]:
    said: list[str] = []
    volume = read_volume(path, warn=lambda code, message: said.append(code))
    return volume, said


def lies(volume: Volume, expected: np.ndarray) -> None:
    np.testing.assert_allclose(affine_of(volume.grid), expected, atol=2e-5)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("which", ["qform", "sform", "both"])
@pytest.mark.parametrize("turn", [(0, 0, 0), (12, -20, 33), (180, 0, 0), (0, 180, 0), (90, 0, 90), (0, 0, 179.9)])
@pytest.mark.parametrize("flipped", [False, True])
def test_a_file_lies_where_nibabel_has_it(
    kind: Any, suffix: str, which: str, turn: Any, flipped: bool, tmp_path: Path
) -> None:
    axes = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() * (1, 1, -1 if flipped else 1)
    given = {name: (affine(axes), 1) for name in ("qform", "sform") if which in (name, "both")}
    path = nifti_file(tmp_path / f"scan{suffix}", kind=kind, **given)
    volume, said = read(path)
    image = nibabel.load(path)
    lies(volume, image.affine)
    np.testing.assert_array_equal(volume.array.T, image.get_fdata().astype(np.float32))
    assert said == [] and volume.grid.size == SHAPE


def test_an_sform_alone_gives_the_spacing_too_and_pixdim_is_told_to_differ(tmp_path: Path) -> None:
    """Method 3 of nifti1.h."""
    larger = affine(spacing=np.array(SPACING) * 1.1)
    volume, said = read(nifti_file(tmp_path / "scan.nii", sform=(larger, 2), pixdim=[1, *SPACING, 0, 0, 0, 0]))
    lies(volume, larger)
    np.testing.assert_allclose(volume.grid.spacing, np.array(SPACING) * 1.1, rtol=1e-6)
    assert said == ["two-spacings"]


def test_a_sheared_sform_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadVolume, match="right angles") as caught:
        read(nifti_file(tmp_path / "scan.nii", sform=(affine(shear=0.2), 2)))
    assert caught.value.code == "bad-direction"


ELSEWHERE = affine(np.eye(3), origin=(50.0, 3.0, -20.0))


@pytest.mark.parametrize(
    ("qform", "sform", "taken"),
    [
        ((affine(), 1), (ELSEWHERE, 2), "qform"),  # the scanner's space is where the patient's other scans lie
        ((affine(), 1), (ELSEWHERE, 4), "qform"),
        ((ELSEWHERE, 2), (affine(), 1), "sform"),
        ((affine(), 1), (ELSEWHERE, 1), "sform"),
        ((affine(), 1), (affine(shear=0.15), 1), "qform"),  # sheared: no grid
    ],
)
def test_two_places_are_told_and_both_are_kept_in_what_is_written(
    qform: Any, sform: Any, taken: str, tmp_path: Path
) -> None:
    path = nifti_file(tmp_path / "scan.nii.gz", qform=qform, sform=sform)
    volume, said = read(path)
    assert said == ["two-places"]
    lies(volume, (qform if taken == "qform" else sform)[0])
    fine = resample(volume, volume.grid.refine((2, 1, 3)), "linear")
    write_volume(fine, tmp_path / "fine.nii.gz")
    result = nibabel.load(tmp_path / "fine.nii.gz")
    to_old = np.diag([1 / 2, 1, 1 / 3, 1])  # index of the result to that of the scan: edges stay
    to_old[:3, 3] = [-0.25, 0, -1 / 3]
    for name, (expected, code) in {"qform": qform, "sform": sform}.items():
        found, kept = getattr(result.header, f"get_{name}")(coded=True)
        assert kept == code
        np.testing.assert_allclose(found, expected @ to_old, atol=1e-4)
    again, said = read(tmp_path / "fine.nii.gz")
    assert said == ["two-places"]
    np.testing.assert_allclose(again.grid.corners(), fine.grid.corners(), atol=1e-3)


@pytest.mark.parametrize(("qcode", "scode"), [(1, 0), (0, 2), (2, 2), (4, 4), (1, 1)])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_result_keeps_the_codes_of_its_scan(qcode: int, scode: int, kind: Any, tmp_path: Path) -> None:
    given = {"qform": (affine() if qcode else None, qcode), "sform": (affine() if scode else None, scode)}
    volume, said = read(nifti_file(tmp_path / "scan.nii", kind=kind, **given))
    assert said == []
    write_volume(resample(volume, volume.grid.refine((1, 1, 3)), "linear"), tmp_path / "fine.nii")
    result = nibabel.load(tmp_path / "fine.nii")
    assert (int(result.header["qform_code"]), int(result.header["sform_code"])) == (qcode, scode)
    centre = (np.array(SHAPE) - 1) / 2
    np.testing.assert_allclose(
        result.affine @ [*((np.array(SHAPE) * (1, 1, 3) - 1) / 2), 1], affine() @ [*centre, 1], atol=1e-4
    )


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti1Pair, nibabel.AnalyzeImage])
def test_a_scan_that_does_not_say_where_it_lies_is_told_and_its_result_does_not_say_either(
    kind: Any, tmp_path: Path
) -> None:
    name = "scan.nii" if kind is nibabel.Nifti1Image else "scan.img"
    if kind is nibabel.AnalyzeImage:
        image = kind(noise(*SHAPE[::-1]).T, None)
        image.header.set_zooms(SPACING)
        nibabel.save(image, tmp_path / name)
    else:
        nifti_file(tmp_path / name, kind=kind)
    volume, said = read(tmp_path / name)
    assert said == ["no-geometry"]
    lies(volume, np.diag([*SPACING, 1]))  # method 1 of nifti1.h: +x is right
    write_volume(resample(volume, volume.grid.refine((1, 1, 3)), "linear"), tmp_path / "result.nii.gz")
    result = nibabel.load(tmp_path / "result.nii.gz")
    assert (int(result.header["qform_code"]), int(result.header["sform_code"])) == (0, 0)
    np.testing.assert_allclose(result.header.get_zooms(), np.array(SPACING) / (1, 1, 3))


@pytest.mark.parametrize("given", ["scan.hdr", "scan.img"])
def test_a_pair_is_read_by_either_name_and_has_the_right_length(given: str, tmp_path: Path) -> None:
    nifti_file(tmp_path / "scan.img", kind=nibabel.Nifti1Pair, sform=(affine(), 1))
    volume, _ = read(tmp_path / given)
    lies(volume, affine())
    np.testing.assert_array_equal(volume.array, noise(*SHAPE[::-1]))
    data = tmp_path / "scan.img"
    data.write_bytes(data.read_bytes()[:-8])
    with pytest.raises(BadVolume, match="cut short"):
        read(tmp_path / given)
    other = tmp_path / ("scan.img" if given == "scan.hdr" else "scan.hdr")
    other.unlink()
    with pytest.raises(BadVolume, match=other.name):
        read(tmp_path / given)


@pytest.mark.parametrize("missing", [1, 4, 8, 100])
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_lacks_one_byte_is_cut_short(missing: int, packed: bool, tmp_path: Path) -> None:
    content = nifti_file(tmp_path / "whole.nii", sform=(affine(), 1)).read_bytes()[:-missing]
    path = tmp_path / ("scan.nii.gz" if packed else "scan.nii")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(BadVolume, match="cut short") as caught:
        read(path)
    assert caught.value.code == "unreadable"


def test_a_gzip_file_of_the_wrong_checksum_is_damaged(tmp_path: Path) -> None:
    content = bytearray(nifti_file(tmp_path / "scan.nii.gz", sform=(affine(), 1)).read_bytes())
    content[-6] ^= 1
    (tmp_path / "scan.nii.gz").write_bytes(bytes(content))
    with pytest.raises(BadVolume, match="damaged"):
        read(tmp_path / "scan.nii.gz")


def test_packed_or_not_is_told_by_the_content(tmp_path: Path) -> None:
    plain = nifti_file(tmp_path / "a.nii", sform=(affine(), 1)).read_bytes()
    (tmp_path / "plain.nii.gz").write_bytes(plain)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(plain))
    for name in ("plain.nii.gz", "packed.nii"):
        np.testing.assert_array_equal(read(tmp_path / name)[0].array, noise(*SHAPE[::-1]))


@pytest.mark.parametrize(
    ("slope", "intercept", "factor", "offset"), [(0, 5, 1, 0), (np.nan, 5, 1, 0), (0.1, -3, 0.1, -3), (1, 0, 1, 0)]
)
def test_values_are_scaled_as_nifti1_h_says(
    slope: float, intercept: float, factor: float, offset: float, tmp_path: Path
) -> None:
    stored = np.random.default_rng(0).integers(-900, 900, SHAPE).astype(np.int16)
    path = nifti_file(tmp_path / "scan.nii", sform=(affine(), 1), array=stored)
    content = bytearray(path.read_bytes())
    content[112:120] = struct.pack("<2f", slope, intercept)
    path.write_bytes(bytes(content))
    expected = stored * np.float64(np.float32(factor)) + offset
    np.testing.assert_allclose(read(path)[0].array.T, expected, rtol=1e-6)


@pytest.mark.parametrize("offset", [0, 348, 352, 368])
def test_voxels_begin_where_the_header_says_and_right_after_it_where_it_says_nothing(
    offset: int, tmp_path: Path
) -> None:
    path = nifti_file(tmp_path / "scan.nii", sform=(affine(), 1))
    content = path.read_bytes()
    header = bytearray(content[:348]) + bytes((offset or 352) - 348)
    header[108:112] = struct.pack("<f", offset)
    path.write_bytes(bytes(header) + content[352:])
    np.testing.assert_array_equal(read(path)[0].array, noise(*SHAPE[::-1]))


@pytest.mark.parametrize(
    ("place", "content"),
    [
        (108, struct.pack("<f", np.nan)),
        (108, struct.pack("<f", -5.0)),
        (108, struct.pack("<f", 1e9)),
        (108, struct.pack("<f", 200.0)),
        (40, struct.pack("<h", 0)),
        (40, struct.pack("<h", 9)),
        (42, struct.pack("<h", -3)),
        (42, struct.pack("<3h", 32767, 32767, 32767)),
        (70, struct.pack("<h", 128)),
        (70, struct.pack("<h", 32)),
        (70, struct.pack("<h", 999)),
        (80, struct.pack("<f", 0.0)),
        (80, struct.pack("<f", -1.0)),
        (80, struct.pack("<f", np.nan)),
        (280, struct.pack("<f", np.nan)),
        (292, struct.pack("<f", np.inf)),
        (112, struct.pack("<f", np.inf)),
    ],
)
def test_numbers_no_header_may_say_are_one_clear_line(place: int, content: bytes, tmp_path: Path) -> None:
    path = nifti_file(tmp_path / "scan.nii", sform=(affine(), 1))
    held = bytearray(path.read_bytes())
    held[place : place + len(content)] = content
    path.write_bytes(bytes(held))
    with pytest.raises(BadVolume) as caught:
        read(path)
    assert "\n" not in caught.value.message and str(path) in caught.value.message


@pytest.mark.parametrize(("code", "mm"), [(1, 1000.0), (2, 1.0), (3, 0.001), (0, 1.0)])
def test_metres_and_micrometres_are_made_millimetres(code: int, mm: float, tmp_path: Path) -> None:
    stored = affine()
    stored[:3] /= mm
    path = nifti_file(
        tmp_path / "scan.nii", sform=(stored, 1), xyzt_units=code, pixdim=[1, *np.array(SPACING) / mm, 0, 0, 0, 0]
    )
    volume, said = read(path)
    lies(volume, affine())
    assert said == ([] if mm == 1 else ["units"]), "nibabel and FSL overlook them"


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_type_in_both_byte_orders(dtype: Any, order: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 100, SHAPE).astype(np.dtype(dtype).newbyteorder(order))
    header = nibabel.Nifti1Header(endianness=order)
    image = nibabel.Nifti1Image(values, affine(), header)
    nibabel.save(image, tmp_path / "scan.nii")
    np.testing.assert_array_equal(read(tmp_path / "scan.nii")[0].array.T, values)


def test_a_written_file_is_read_by_nibabel_in_the_same_place(tmp_path: Path) -> None:
    """Whatever the turn: the quaternion too, at half turns where its first number is 0."""
    for number, (turn, flip) in enumerate(
        itertools.product([(0, 0, 0), (180, 0, 0), (0, 180, 0), (0, 0, 180), (90, 90, 0), (31, -17, 200)], (1, -1))
    ):
        axes = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() * (1, 1, flip)
        grid = Grid((5, 6, 7), (0.7, 1.3, 2.9), (10.0, -3.0, 8.0), tuple(axes.ravel().tolist()))
        path = tmp_path / f"{number}.nii.gz"
        write_volume(Volume(noise(7, 6, 5), grid), path, fields={"mrsuperres": "x" * 200})
        image = nibabel.load(path)
        expected = LPS_TO_RAS @ np.vstack([np.column_stack([axes * grid.spacing, grid.origin]), [0, 0, 0, 1]])
        np.testing.assert_allclose(image.get_sform(), expected, atol=1e-5)
        np.testing.assert_allclose(image.get_qform(), expected, atol=1e-4)
        np.testing.assert_array_equal(image.get_fdata().astype(np.float32).T, noise(7, 6, 5))
        assert len(bytes(image.header["descrip"])) <= 80 and image.header.get_xyzt_units()[0] == "mm"


def test_an_axis_too_long_for_nifti_1_is_written_as_nifti_2(tmp_path: Path) -> None:
    grid = Grid((40000, 2, 2), (0.1, 1.0, 1.0))
    write_volume(Volume(noise(2, 2, 40000), grid), tmp_path / "long.nii")
    image = nibabel.load(tmp_path / "long.nii")
    assert isinstance(image, nibabel.Nifti2Image) and image.shape == (40000, 2, 2)
    np.testing.assert_array_equal(read(tmp_path / "long.nii")[0].array, noise(2, 2, 40000))


def test_slice_thickness_comes_from_the_bids_sidecar(tmp_path: Path) -> None:
    path = nifti_file(tmp_path / "sub-01_T2w.nii.gz", sform=(affine(), 1))
    assert read(path)[0].thickness is None
    sidecar = tmp_path / "sub-01_T2w.json"
    sidecar.write_bytes(
        b"\xef\xbb\xbf" + b'{"SliceThickness": 2.5, "SpacingBetweenSlices": 3, "BodyPartExamined": "HEAD"}'
    )
    volume = read(path)[0]
    assert volume.thickness == 2.5 and volume.metadata["BodyPartExamined"] == "HEAD"
    assert volume.crop((0, 0, 0), (4, 4, 4)).thickness == 2.5
    for text in ('{"SliceThickness": -1}', '{"SliceThickness": "thin"}', "{", "[1]", '{"SliceThickness": NaN}'):
        sidecar.write_text(text)
        assert read(path)[0].thickness is None


def test_no_data_is_no_intensity(tmp_path: Path) -> None:
    """FLT_MAX and 1e30 mark voxels outside of the reconstruction in SPM, AFNI and others."""
    for mark in (np.finfo(np.float32).max, -np.finfo(np.float32).max, 1e30, -1e30, np.inf):
        array = noise(*SHAPE[::-1]).T.copy()
        array[:, :3] = mark
        path = nifti_file(tmp_path / "scan.nii", sform=(affine(), 1), array=array)
        volume, said = read(path)
        assert said == ["nan-replaced"] and float(np.abs(volume.array).max()) < 1000
