"""DICOM series become the volume that their files describe, or one clear line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MRSuperResLib.errors import BadVolume
from MRSuperResLib.io.read import read_volume


def dicom_series(folder: Path, positions: list[float], value: int = 0, rows: str = "1\\0\\0") -> None:
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
    dicom_series(tmp_path / "one", [0, 3, 6, 9])
    volume = read_volume(tmp_path / "one")
    assert volume.grid.size == (9, 8, 4)
    np.testing.assert_allclose(volume.grid.spacing, (0.8, 0.9, 3.0), atol=1e-6)
    np.testing.assert_allclose(volume.grid.origin, (-10, -20, 0))
    assert volume.array[3, 0, 0] == 103


def test_dicom_trouble_is_said(tmp_path: Path) -> None:
    dicom_series(tmp_path / "gap", [0, 3, 6, 12])  # read as evenly spaced, a slice would be 2 mm off
    with pytest.raises(BadVolume, match="one missing") as caught:
        read_volume(tmp_path / "gap")
    assert caught.value.code == "uneven-slices"
    dicom_series(tmp_path / "two", [0, 3, 6])
    dicom_series(tmp_path / "two", [0, 3, 6], value=7)
    with pytest.raises(BadVolume, match="2 DICOM series") as caught:
        read_volume(tmp_path / "two")
    assert caught.value.code == "several-series"
    (tmp_path / "none").mkdir()
    with pytest.raises(BadVolume, match="no DICOM"):
        read_volume(tmp_path / "none")


def test_two_echoes_in_one_series_are_not_read_as_one_volume_of_thin_slices(tmp_path: Path) -> None:
    dicom_series(tmp_path / "echoes", [0, 3, 6, 0, 3, 6])
    said: list[str] = []
    with pytest.raises(BadVolume, match="6 slices at 3 positions") as caught:
        read_volume(tmp_path / "echoes", warn=lambda code, message: said.append(code))
    assert caught.value.code == "several-volumes" and not said


def test_a_localizers_directions_are_not_read_as_one_volume(tmp_path: Path) -> None:
    dicom_series(tmp_path / "scout", [0, 3, 6])
    dicom_series(tmp_path / "more", [9, 12], rows="0\\0\\1")
    for file in (tmp_path / "more").iterdir():
        file.rename(tmp_path / "scout" / f"more-{file.name}")
    with pytest.raises(BadVolume, match="several directions") as caught:
        read_volume(tmp_path / "scout")
    assert caught.value.code == "several-volumes"


def test_one_dicom_slice_or_the_folder_above_tells_which_folder_to_give(tmp_path: Path) -> None:
    series = tmp_path / "study" / "scans" / "series"
    dicom_series(series, [0, 3, 6])
    with pytest.raises(BadVolume, match="one slice of a DICOM series") as caught:
        read_volume(series / "0-1.dcm")
    assert caught.value.code == "one-slice" and str(series) in caught.value.message
    with pytest.raises(BadVolume, match="no DICOM series itself") as caught:
        read_volume(tmp_path / "study")
    assert caught.value.code == "not-a-volume" and str(series) in caught.value.message
