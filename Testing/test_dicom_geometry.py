"""Whatever comes back from DICOM lies where every one of its frames says, single-frame and multi-frame alike."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from made_dicom import (
    ORIGIN,
    PIXEL,
    SHAPE,
    STEP,
    TURNED,
    classic_series,
    classic_slice,
    cosines,
    enhanced,
    item,
    place,
    voxels,
)
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from MRSuperResLib.errors import BadVolume, UsageError
from MRSuperResLib.io import dicom_pixels
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.volume import Volume


def classic(folder: Path, array: np.ndarray, places: Any = None, **changes: Any) -> Path:
    return classic_series(folder / "series", array, places, **changes)


def multi(folder: Path, array: np.ndarray, places: Any = None, **changes: Any) -> Path:
    return enhanced(folder / "one.dcm", array, places, **changes)


def multi_in_folder(folder: Path, array: np.ndarray, places: Any = None, **changes: Any) -> Path:
    return enhanced(folder / "export" / "IM1", array, places, **changes).parent


WAYS = [classic, multi, multi_in_folder]
Way = Callable[..., Path]


def read(path: Path, **options: Any) -> tuple[Volume, list[str]]:
    said: list[str] = []
    volume = read_volume(path, warn=lambda code, message: said.append(code), **options)
    return volume, said


def check_every_frame(volume: Volume, array: np.ndarray, places: list[float], tolerance: float = 1e-3) -> None:
    """Each slice is found where its header put it: its corners in mm, and its voxels."""
    ends = np.array([[0, 0, 0], [SHAPE[1] - 1, 0, 0], [0, SHAPE[0] - 1, 0]], dtype=float)
    for values, where in zip(array, places, strict=True):
        first = np.asarray(place(where))
        corners = first + np.outer(ends[:, 0] * PIXEL[1], TURNED[:, 0]) + np.outer(ends[:, 1] * PIXEL[0], TURNED[:, 1])
        index = volume.grid.world_to_index(corners)
        k = round(float(index[0, 2]))
        np.testing.assert_allclose(index, ends + (0, 0, k), atol=tolerance)
        np.testing.assert_array_equal(volume.array[k], values)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("places", [[0, 1, 2, 3, 4, 5], [0, 2, 4, 1, 3, 5], [5, 4, 3, 2, 1, 0], [-3, 0, -1, 2, 1, -2]])
def test_slices_lie_where_their_positions_say_whatever_the_order_they_are_stored_in(
    way: Way, places: list[float], tmp_path: Path
) -> None:
    array = voxels(6)
    volume, said = read(way(tmp_path, array, places))
    assert volume.grid.size == (SHAPE[1], SHAPE[0], 6) and said == []
    np.testing.assert_allclose(volume.grid.spacing, (PIXEL[1], PIXEL[0], STEP), atol=1e-6)
    check_every_frame(volume, array, places)
    assert volume.thickness == 3.0, "slices of 3 mm, 4 mm apart: a gap of 1 mm"
    assert volume.metadata["Modality"] == "MR" and "PatientName" not in volume.metadata


@pytest.mark.parametrize("way", WAYS)
def test_a_missing_slice_is_refused_naming_its_neighbours(way: Way, tmp_path: Path) -> None:
    with pytest.raises(BadVolume, match=r"8\.00 mm between .* \(one missing") as caught:
        read(way(tmp_path, voxels(5), [0, 1, 2, 4, 5]))
    assert caught.value.code == "uneven-slices"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("jitter", "told"), [(0.02, False), (0.035, True), (0.1, True), (0.3, True)])
def test_steps_that_differ_by_a_twentieth_are_told_with_how_far_they_are_off(
    way: Way, jitter: float, told: bool, tmp_path: Path
) -> None:
    """The steps are 1 and 1 + jitter, and 1 - jitter: 5 % of difference is the limit, not 50 %."""
    volume, said = read(way(tmp_path, voxels(6), [0, 1, 2 + jitter, 3, 4, 5]))
    assert said == (["uneven-slices"] if told else [])
    np.testing.assert_allclose(volume.grid.spacing[2], STEP, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_slices_shifted_in_their_plane_are_refused_as_sheared(way: Way, tmp_path: Path) -> None:
    """A tilted gantry (1.5 mm a slice), and every other slice 3 mm aside."""
    for name, aside in {"tilted": [1.5 * n for n in range(6)], "zigzag": [3.0 * (n % 2) for n in range(6)]}.items():
        places = [(np.asarray(place(n)) + TURNED[:, 0] * mm).tolist() for n, mm in enumerate(aside)]
        if way is classic:
            for number, where in enumerate(places):
                classic_slice(tmp_path / name / f"{number}.dcm", voxels(6)[number], number, ImagePositionPatient=where)
            path = tmp_path / name
        else:
            frames = [{"PlanePositionSequence": item(ImagePositionPatient=where)} for where in places]
            path = way(tmp_path / name, voxels(6), frames=frames)
        with pytest.raises(BadVolume, match="gantry tilt, or a sheared") as caught:
            read(path)
        assert caught.value.code == "bad-direction"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("decimals", [2, 3, 4])
def test_directions_rounded_by_an_archive_are_made_orthogonal_not_dropped(
    way: Way, decimals: int, tmp_path: Path
) -> None:
    rounded = np.round(cosines(), decimals).tolist()
    if way is classic:
        path = way(tmp_path, voxels(6), ImageOrientationPatient=rounded)
    else:
        path = way(
            tmp_path, voxels(6), frames=[{"PlaneOrientationSequence": item(ImageOrientationPatient=rounded)}] * 6
        )
    volume, _ = read(path)
    degrees = np.degrees(np.arccos(np.clip(np.trace(volume.grid.axes.T @ TURNED) - 1, -2, 2) / 2))
    assert degrees < 60 * 10.0**-decimals, "within the rounding"
    np.testing.assert_allclose(volume.grid.axes.T @ volume.grid.axes, np.eye(3), atol=1e-9)


def test_directions_that_rounding_cannot_explain_are_refused(tmp_path: Path) -> None:
    skewed = [1, 0, 0, 0.1, 0.99, 0]
    with pytest.raises(BadVolume, match="not at right angles") as caught:
        read(classic(tmp_path, voxels(4), ImageOrientationPatient=skewed))
    assert caught.value.code == "bad-direction"


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("PixelSpacing", [0, 1.2], "bad-spacing"),
        ("PixelSpacing", [-1.2, 0.9], "bad-spacing"),
        ("PixelSpacing", None, "no-geometry"),
        ("ImagePositionPatient", None, "no-geometry"),
        ("ImageOrientationPatient", None, "no-geometry"),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0], "bad-direction"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "bad-direction"),
        ("RescaleSlope", "NaN", "bad-scale"),
    ],
)
def test_geometry_that_is_missing_or_impossible_is_refused_not_replaced_by_1_mm(
    name: str, value: Any, code: str, tmp_path: Path
) -> None:
    with pytest.raises(BadVolume) as caught:
        read(classic(tmp_path, voxels(4), **{name: value}))
    assert caught.value.code == code and "\n" not in caught.value.message


def test_a_position_of_nan_is_refused(tmp_path: Path) -> None:
    path = classic(tmp_path, voxels(4))
    file = sorted(path.iterdir())[1]
    content = file.read_bytes()
    start = content.index(b"\x20\x00\x32\x00DS")
    length = int.from_bytes(content[start + 6 : start + 8], "little")
    file.write_bytes(content[: start + 8] + b"NaN\\1.0\\2.0".ljust(length) + content[start + 8 + length :])
    with pytest.raises(BadVolume, match="position of"):
        read(path)


def test_files_that_tell_nothing_of_where_they_lie_are_read_and_told(tmp_path: Path) -> None:
    """As FreeSurfer's files without geometry are; secondary captures and derived files are so."""
    empty = {"SharedFunctionalGroupsSequence": None, "PerFrameFunctionalGroupsSequence": None}
    volume, said = read(multi(tmp_path, voxels(4), **empty))
    assert said == ["no-geometry"] and volume.grid.spacing == (1.0, 1.0, 1.0)
    np.testing.assert_array_equal(volume.array, voxels(4))


def echoes(way: Way, folder: Path) -> tuple[Path, np.ndarray]:
    """Two echoes of six slices, alternating."""
    array, places = voxels(12), [n // 2 for n in range(12)]
    if way is classic:
        for number, where in enumerate(places):
            classic_slice(
                folder / "series" / f"{number}.dcm", array[number], number, ImagePositionPatient=place(where),
                EchoTime=10.0 + 80 * (number % 2), EchoNumbers=1 + number % 2,
            )  # fmt: skip
        return folder / "series", array
    frames = [{"MREchoSequence": item(EffectiveEchoTime=10.0 + 80 * (n % 2))} for n in range(12)]
    return way(folder, array, places, frames=frames), array


@pytest.mark.parametrize("way", WAYS)
def test_two_echoes_are_refused_and_each_can_be_chosen(way: Way, tmp_path: Path) -> None:
    path, array = echoes(way, tmp_path)
    with pytest.raises(BadVolume, match="12 slices at 6 positions") as caught:
        read(path)
    assert caught.value.code == "several-volumes"
    assert "3.1 (echo time 10 ms, 6 slices), 3.2 (echo time 90 ms, 6 slices)" in caught.value.message
    for key, first in (("3.1", 0), ("3.2", 1)):
        volume, said = read(path, series=key)
        check_every_frame(volume, array[first::2], list(range(6)))
        assert said == []
    with pytest.raises(UsageError, match=r"no series '3.3'.*3\.1"):
        read(path, series="3.3")


def test_magnitude_and_phase_are_two_volumes(tmp_path: Path) -> None:
    """Even where no position is there twice."""
    frames = [
        {"MRImageFrameTypeSequence": item(ComplexImageComponent="MAGNITUDE" if n < 3 else "PHASE")} for n in range(6)
    ]
    path = multi(tmp_path, voxels(6), frames=frames)
    with pytest.raises(BadVolume, match=r"magnitude, 3 slices.*phase, 3 slices"):
        read(path)
    np.testing.assert_array_equal(read(path, series="3.2")[0].array, voxels(6)[3:])


def test_time_points_without_any_sign_are_told_apart_by_their_order(tmp_path: Path) -> None:
    path = classic(tmp_path, voxels(9), [0, 1, 2] * 3)
    with pytest.raises(BadVolume, match="9 slices at 3 positions"):
        read(path)
    np.testing.assert_array_equal(read(path, series="3.2")[0].array, voxels(9)[3:6])


def test_two_orientations_are_refused_and_each_can_be_chosen(tmp_path: Path) -> None:
    """A localizer. The second three frames are turned by a quarter about their rows."""
    other = np.column_stack([TURNED[:, 0], TURNED[:, 2], -TURNED[:, 1]])
    frames = [
        {
            "PlaneOrientationSequence": item(ImageOrientationPatient=cosines(other)),
            "PlanePositionSequence": item(ImagePositionPatient=place(n - 3, other)),
        }
        if n > 2
        else {}
        for n in range(6)
    ]
    path = multi(tmp_path, voxels(6), frames=frames)
    with pytest.raises(BadVolume, match="several directions") as caught:
        read(path)
    assert caught.value.code == "several-volumes" and "coronal, 3 slices" in caught.value.message
    volume, _ = read(path, series="3.2")
    np.testing.assert_allclose(volume.grid.axes, other, atol=1e-6)


def test_a_scout_among_the_slices_is_named(tmp_path: Path) -> None:
    path = classic(tmp_path, voxels(6))
    classic_slice(path / "scout.dcm", np.ones((5, 5), np.uint16), 9)
    with pytest.raises(BadVolume, match=r"scout\.dcm is unlike the rest \(5 x 5 pixels"):
        read(path)
    assert read(path, series="3.1")[0].grid.size == (SHAPE[1], SHAPE[0], 6)


def test_a_slice_exported_twice_is_taken_once_and_told(tmp_path: Path) -> None:
    path, array = classic(tmp_path, voxels(5)), voxels(5)
    for number in (1, 3):
        classic_slice(path / f"again{number}.dcm", array[number], number)
    volume, said = read(path)
    check_every_frame(volume, array, list(range(5)))
    assert said == ["doubled-slices"]


def test_two_slices_of_one_name_and_different_voxels_are_no_double(tmp_path: Path) -> None:
    path = classic(tmp_path, voxels(4))
    uid = str(pydicom.dcmread(path / "IM0007.dcm").SOPInstanceUID)
    classic_slice(path / "again.dcm", voxels(4)[0], 1, SOPInstanceUID=uid)
    with pytest.raises(BadVolume, match="5 slices at 4 positions"):
        read(path)


@pytest.mark.parametrize("name", ["README", "IM0021.dcm.bak", ".#IM0007.dcm"])
def test_a_dangling_link_costs_no_slice_and_is_told(name: str, tmp_path: Path) -> None:
    path = classic(tmp_path, voxels(8))
    os.symlink("../.git/annex/objects/gone", path / name)
    told: list[tuple[str, str]] = []
    volume = read_volume(path, warn=lambda *each: told.append(each))
    check_every_frame(volume, voxels(8), list(range(8)))
    assert [code for code, _ in told] == ["files-left-out"] and name in told[0][1]


@pytest.mark.parametrize("damage", ["cut in its header", "dangling", "empty", "no permission", "text"])
@pytest.mark.parametrize("number", [0, 3, 7])
def test_a_slice_that_cannot_be_read_is_never_left_out_in_silence(damage: str, number: int, tmp_path: Path) -> None:
    path = classic(tmp_path, voxels(8))
    file = path / f"IM{number * 7:04d}.dcm"
    if damage == "cut in its header":
        file.write_bytes(file.read_bytes()[:300])
    elif damage == "dangling":
        file.unlink()
        os.symlink("nowhere", file)
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "text":
        file.write_text("fetch me from the archive\n")
    elif os.geteuid() == 0:
        pytest.skip("root may read anything")
    else:
        file.chmod(0)
    told: list[tuple[str, str]] = []
    if number == 3:
        with pytest.raises(BadVolume, match=file.name):
            read_volume(path, warn=lambda *each: told.append(each))
    else:
        assert read_volume(path, warn=lambda *each: told.append(each)).grid.size[2] == 7
        assert [code for code, _ in told] == ["files-left-out"] and file.name in told[0][1]


def test_a_slice_cut_short_in_its_pixels_is_refused_by_name(tmp_path: Path) -> None:
    path = classic(tmp_path, voxels(4))
    file = path / "IM0014.dcm"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(BadVolume, match=r"IM0014\.dcm.*cut short") as caught:
        read(path)
    assert caught.value.code == "unreadable"


def test_other_files_beside_the_slices_are_no_matter(tmp_path: Path) -> None:
    path = classic(tmp_path, voxels(4))
    (path / "notes.txt").write_text("seen by M.D.")
    (path / "report.pdf").write_bytes(b"%PDF")
    (path / "._IM0000.dcm").write_bytes(b"\x00\x05\x16\x07" + bytes(60))
    (path / "empty").mkdir()
    volume, said = read(path)
    assert volume.grid.size[2] == 4 and said == ["files-left-out"], "of macOS's shadow a word is said"


@pytest.mark.parametrize("way", [classic, multi])
def test_rescaling_is_that_of_each_frame_and_unrounded(way: Way, tmp_path: Path) -> None:
    """PS3.3 C.11.1.1.2: value = slope x stored + intercept."""
    array, slopes = voxels(4), [1.0, 0.1, 0.25, 0.001]
    if way is classic:
        for number in range(4):
            classic_slice(
                tmp_path / "series" / f"{number}.dcm",
                array[number],
                number,
                RescaleSlope=slopes[number],
                RescaleIntercept=-3,
            )
        path = tmp_path / "series"
    else:
        frames = [
            {"PixelValueTransformationSequence": item(RescaleSlope=slope, RescaleIntercept=-3)} for slope in slopes
        ]
        path = way(tmp_path, array, frames=frames)
    expected = array * np.array(slopes)[:, None, None] - 3
    np.testing.assert_allclose(read(path)[0].array, expected, rtol=1e-6)


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless])
def test_every_coding_gives_the_same_voxels(syntax: str, tmp_path: Path) -> None:
    path = classic(tmp_path, voxels(3))
    for file in path.iterdir():
        made = pydicom.dcmread(file)
        if syntax == RLELossless:
            made.compress(RLELossless)
            pydicom.dcmwrite(file, made)
        else:
            little = syntax != ExplicitVRBigEndian
            values = np.frombuffer(made.PixelData, "<u2").astype("<u2" if little else ">u2")
            made.file_meta.TransferSyntaxUID = syntax
            made.PixelData = values.tobytes()
            pydicom.dcmwrite(file, made, little_endian=little, implicit_vr=syntax == ImplicitVRLittleEndian)
    np.testing.assert_array_equal(read(path)[0].array, voxels(3))


def test_bits_beside_the_value_are_no_value(tmp_path: Path) -> None:
    """Old scanners keep overlays in the bits above the twelve of a value, which may be negative."""
    values = np.random.default_rng(0).integers(-2048, 2048, (3, *SHAPE))
    array = ((values & 0x0FFF) | 0x5000).astype(np.uint16)
    path = classic(tmp_path, array, BitsStored=12, HighBit=11, PixelRepresentation=1)
    np.testing.assert_array_equal(read(path)[0].array, values)


def test_jpeg_lossless_and_itks_own_files_are_read_as_itk_reads_them(tmp_path: Path) -> None:
    """An independent writer and decoder; the series has no rescaling, so both must agree to the last bit."""
    path = tmp_path / "series"
    path.mkdir()
    array = voxels(4).astype(np.int16)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetUseCompression(True)
    for number in range(4):
        image = sitk.GetImageFromArray(array[number : number + 1])
        image.SetSpacing((PIXEL[1], PIXEL[0], STEP))
        position = "\\".join(map(str, np.round(place(number), 6)))
        turned = "\\".join(map(str, np.round(cosines(), 9)))
        for key, text in {
            "0008|0060": "MR", "0020|000d": "1.2.3", "0020|000e": "1.2.3.4", "0020|0013": str(number),
            "0008|0018": f"1.2.3.4.{number}", "0020|0032": position, "0020|0037": turned, "0018|0050": "3",
        }.items():  # fmt: skip
            image.SetMetaData(key, text)
        writer.SetFileName(str(path / f"{number}.dcm"))
        writer.Execute(image)
    assert pydicom.dcmread(path / "0.dcm").file_meta.TransferSyntaxUID.is_compressed
    volume, _ = read(path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path)))
    theirs = reader.Execute()
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(theirs))
    np.testing.assert_allclose(volume.grid.origin, theirs.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(volume.grid.direction, theirs.GetDirection(), atol=1e-5)


def test_a_frame_count_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    path = multi(tmp_path, voxels(6))
    made = pydicom.dcmread(path)
    made.PerFrameFunctionalGroupsSequence = Items(list(made.PerFrameFunctionalGroupsSequence)[:4])
    pydicom.dcmwrite(path, made)
    with pytest.raises(BadVolume, match="6 frames, and describes 4"):
        read(path)


def test_a_series_of_a_study_is_chosen_by_number_uid_or_description_from_above(tmp_path: Path) -> None:
    for number, name in ((1, "T2 tse tra"), (2, "FLAIR"), (3, "FLAIR")):
        classic_series(
            tmp_path / "study" / f"s{number}", voxels(4, number), SeriesNumber=number, SeriesInstanceUID=f"1.9.{number}",
            SeriesDescription=name,
        )  # fmt: skip
    for key in ("1", "1.9.1", "t2 TSE tra"):
        np.testing.assert_array_equal(read(tmp_path / "study", series=key)[0].array, voxels(4, 1))
    with pytest.raises(BadVolume, match="choose one"):
        read(tmp_path / "study", series="FLAIR")


def test_a_mosaic_is_not_taken_for_a_slice(tmp_path: Path) -> None:
    with pytest.raises(BadVolume, match="mosaic"):
        read(classic(tmp_path, voxels(3), ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]))


def test_a_header_that_speaks_of_another_distance_is_told(tmp_path: Path) -> None:
    """Every other slice copied: positions 4 mm apart, the header says 2."""
    _, said = read(classic(tmp_path, voxels(4), SpacingBetweenSlices=2.0, SliceThickness=2.0))
    assert said == ["two-spacings"]
    _, said = read(classic(tmp_path / "gap", voxels(4), SpacingBetweenSlices=1.0))
    assert said == [], "some makers give the gap: 3 mm of thickness and 1 mm of gap are 4 mm"


def test_origin_is_the_first_slices(tmp_path: Path) -> None:
    np.testing.assert_allclose(read(classic(tmp_path, voxels(4)))[0].grid.origin, ORIGIN, atol=1e-6)


def test_values_to_be_shown_reversed_are_left_as_stored_and_told(tmp_path: Path) -> None:
    volume, said = read(classic(tmp_path, voxels(3), PhotometricInterpretation="MONOCHROME1"))
    assert said == ["reversed"]
    np.testing.assert_array_equal(volume.array, voxels(3))


def test_hundreds_of_time_points_are_told_apart_without_reading_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two frames at each position are compared, no more, once they differ; an enhanced file is unpacked once."""
    unpacked: list[Path] = []
    original = dicom_pixels.stored_values
    monkeypatch.setattr(dicom_pixels, "stored_values", lambda path: unpacked.append(path) or original(path))
    for path in (
        classic(tmp_path / "a", voxels(60), [n % 3 for n in range(60)]),
        multi(tmp_path, voxels(60), [n % 3 for n in range(60)]),
    ):
        unpacked.clear()
        with pytest.raises(BadVolume, match="60 slices at 3 positions"):
            read(path)
        assert len(unpacked) <= 2 * 3


def test_two_slabs_apart_are_two_volumes_by_the_names_of_their_stacks(tmp_path: Path) -> None:
    frames = [{"FrameContentSequence": item(StackID="ab"[n // 3], InStackPositionNumber=1 + n % 3)} for n in range(6)]
    path = multi(tmp_path, voxels(6), [0, 1, 2, 9, 10, 11], frames=frames)
    with pytest.raises(BadVolume, match=r"stack a, 3 slices.*stack b, 3 slices"):
        read(path)
    volume, _ = read(path, series="3.2")
    np.testing.assert_allclose(volume.grid.origin, place(9), atol=1e-6)
    together = multi(tmp_path / "one", voxels(6), frames=frames)
    assert read(together)[0].grid.size[2] == 6, "stacks that continue each other are one"


def test_pixels_of_two_sizes_are_two_volumes(tmp_path: Path) -> None:
    path = classic(tmp_path, voxels(6))
    for number in (6, 7):
        classic_slice(path / f"late{number}.dcm", voxels(8)[number], number, PixelSpacing=[2.4, 1.8])
    with pytest.raises(BadVolume, match=r"of \(1\.2, 0\.9\) mm, 6 slices.*of \(2\.4, 1\.8\) mm, 2 slices"):
        read(path)


def test_a_dicomdir_and_a_spectrum_beside_the_slices_are_no_slices(tmp_path: Path) -> None:
    path = classic(tmp_path, voxels(4))
    made = pydicom.dcmread(path / "IM0000.dcm")
    del made.PixelData
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.2"
    pydicom.dcmwrite(path / "SPEC", made)
    listing = pydicom.Dataset()
    listing.file_meta = made.file_meta
    listing.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    listing.FileSetID = "DISC1"
    listing.DirectoryRecordSequence = Items([])
    pydicom.dcmwrite(path / "DICOMDIR", listing)
    volume, said = read(path)
    assert volume.grid.size[2] == 4 and said == []
