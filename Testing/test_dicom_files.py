"""Files of a DICOM series: none is left out in silence, and their voxels are those that were stored."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from made_dicom import (
    PIXEL,
    SHAPE,
    STEP,
    check_every_frame,
    classic,
    classic_slice,
    cosines,
    item,
    multi,
    multi_in_folder,
    place,
    read,
    voxels,
)
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from MRSuperResLib.errors import BadVolume
from MRSuperResLib.io import dicom_headers, dicom_pixels
from MRSuperResLib.io.read import read_volume

WAYS = [classic, multi, multi_in_folder]

Way = Callable[..., Path]


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


@pytest.mark.parametrize("kind", [np.uint8, np.int16])
def test_a_packed_enhanced_file_keeps_its_frames_where_they_are(kind: type, tmp_path: Path) -> None:
    """RLE, unpacked by ITK; bytes, or values below 0."""
    places, bits = [0.0, 2.0, 4.0, 1.0, 3.0, 5.0], 8 * np.dtype(kind).itemsize
    array = (voxels(6).astype(int) % 250 - (600 if bits > 8 else 0)).astype(kind)
    described = {"BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": int(bits > 8)}
    path = multi(tmp_path, array, places, **described)
    made = pydicom.dcmread(path)
    made.compress(RLELossless)
    pydicom.dcmwrite(path, made)
    check_every_frame(read(path)[0], array, places)


def test_bits_beside_the_value_are_no_value(tmp_path: Path) -> None:
    """Old scanners keep overlays in the bits above the twelve of a value, which may be negative."""
    values = np.random.default_rng(0).integers(-2048, 2048, (3, *SHAPE))
    array = ((values & 0x0FFF) | 0x5000).astype(np.uint16)
    path = classic(tmp_path, array, BitsStored=12, HighBit=11, PixelRepresentation=1)
    np.testing.assert_array_equal(read(path)[0].array, values)


def test_a_high_bit_that_contradicts_the_values_is_not_believed(tmp_path: Path) -> None:
    """12 bits, the highest said to be bit 15: the low four would be none, and hold values. pydicom takes the low twelve too."""
    array = voxels(3)
    path = classic(tmp_path, array | 0x2000, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(read(path)[0].array, array)
    shifted = classic(tmp_path / "high", array << 4, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(read(shifted)[0].array, array)


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


def test_voxels_of_more_frames_than_are_spoken_of_are_refused(tmp_path: Path) -> None:
    path = multi(tmp_path, voxels(6))
    made = pydicom.dcmread(path)
    made.NumberOfFrames = 4
    made.PerFrameFunctionalGroupsSequence = Items(list(made.PerFrameFunctionalGroupsSequence)[:4])
    pydicom.dcmwrite(path, made)
    with pytest.raises(BadVolume, match="speaks of 4 frames"):
        read(path)


def test_a_frame_count_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    path = multi(tmp_path, voxels(6))
    made = pydicom.dcmread(path)
    made.PerFrameFunctionalGroupsSequence = Items(list(made.PerFrameFunctionalGroupsSequence)[:4])
    pydicom.dcmwrite(path, made)
    with pytest.raises(BadVolume, match="6 frames, and describes 4"):
        read(path)


def test_no_other_file_is_searched_for_a_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw data of gigabytes may lie beside the slices: their first bytes tell what they are."""
    path = classic(tmp_path, voxels(4))
    (path / "meas.dat").write_bytes(np.random.default_rng(0).bytes(5000))
    looked: list[str] = []
    original = dicom_headers.header_of
    monkeypatch.setattr(dicom_headers, "header_of", lambda file: looked.append(file.name) or original(file))
    assert read(path)[1] == [] and "meas.dat" not in looked and len(looked) == 4


def test_a_slice_without_a_preamble_is_read(tmp_path: Path) -> None:
    """As some archives keep them: the data set alone, implicit little-endian."""
    path = classic(tmp_path, voxels(4))
    for file in path.iterdir():
        made = pydicom.dcmread(file)
        made.preamble = None
        del made.file_meta
        made.save_as(file, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert file.read_bytes()[128:132] != b"DICM"
    check_every_frame(read(path)[0], voxels(4), [0.0, 1.0, 2.0, 3.0])


def test_series_of_one_number_or_none_have_keys_of_their_own(tmp_path: Path) -> None:
    for uid, number in (("1.5.1", 4), ("1.5.2", 4), ("1.5.3", None), ("1.5.4", None)):
        for slice_number, values in enumerate(voxels(3, int(uid[-1]))):
            name = tmp_path / f"{uid}-{slice_number}.dcm"
            where = {"ImagePositionPatient": place(slice_number), "SeriesInstanceUID": uid, "SeriesNumber": number}
            classic_slice(name, values, slice_number, **where)
    with pytest.raises(BadVolume, match="4 DICOM series") as caught:
        read(tmp_path)
    for key, seed in (("4-1", 1), ("4-2", 2), ("none-1", 3), ("none-2", 4)):
        assert f"{key} (3 slices)" in caught.value.message
        np.testing.assert_array_equal(read(tmp_path, series=key)[0].array, voxels(3, seed))
