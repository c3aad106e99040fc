"""DICOM files that the tests make for themselves with pydicom: classic series, and enhanced multi-frame files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy.spatial.transform import Rotation

from MRSuperResLib.io.read import read_volume
from MRSuperResLib.volume import Volume

CLASSIC, ENHANCED = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
TURNED = Rotation.from_euler(
    "xyz", [8, -12, 16], degrees=True
).as_matrix()  # columns: rows' direction, columns', normal
SHAPE = (9, 12)  # rows, columns
PIXEL = (1.2, 0.9)  # mm, between rows, between columns
STEP = 4.0  # mm
ORIGIN = np.array([-30.0, -40.0, 15.0])


def voxels(slices: int, seed: int = 0) -> np.ndarray:
    """Different values in every voxel and slice, uint16 (slices, rows, columns)."""
    return np.random.default_rng(seed).integers(0, 1200, (slices, *SHAPE)).astype(np.uint16)


def place(number: float, axes: np.ndarray = TURNED, step: float = STEP) -> list[float]:
    """Position of slice `number`, mm."""
    return (ORIGIN + axes[:, 2] * step * number).tolist()


def cosines(axes: np.ndarray = TURNED) -> list[float]:
    return [*axes[:, 0].tolist(), *axes[:, 1].tolist()]


def _dataset(path: Path, kind: str, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, generate_uid()
    meta.TransferSyntaxUID = syntax
    made = Dataset()
    made.file_meta = meta
    made.SOPClassUID, made.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    made.SeriesNumber, made.Modality, made.PatientName = 3, "MR", "Doe^Jane"
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    return made


def _put(made: Any, changes: dict[str, Any]) -> None:
    """Set what is given, take away what is None."""
    for name, value in changes.items():
        if value is None:
            if name in made:
                delattr(made, name)
        else:
            setattr(made, name, value)


def classic_slice(path: Path, array: np.ndarray, number: int, **changes: Any) -> Path:
    """One slice as a file of its own; changes: attributes of the data set, None to leave one out."""
    made = _dataset(path, CLASSIC)
    made.InstanceNumber = number + 1
    made.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    made.Rows, made.Columns = array.shape
    made.PixelSpacing, made.SliceThickness = list(PIXEL), 3.0
    made.ImagePositionPatient, made.ImageOrientationPatient = place(number), cosines()
    made.PixelData = array.tobytes()
    _put(made, changes)
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, made, enforce_file_format=True)
    return path


def classic_series(folder: Path, array: np.ndarray, places: Sequence[float] | None = None, **changes: Any) -> Path:
    """A folder of slices at `places` (in steps), named so that names and positions are in different orders."""
    places = list(range(len(array))) if places is None else list(places)
    for number, (values, where) in enumerate(zip(array, places, strict=True)):
        name = f"IM{(number * 7) % 1000:04d}.dcm"
        classic_slice(folder / name, values, number, **{"ImagePositionPatient": place(where)} | changes)
    return folder


def item(**values: Any) -> Items:
    """A sequence of one item."""
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return Items([made])


def enhanced(
    path: Path,
    array: np.ndarray,
    places: Iterable[float] | None = None,
    frames: Sequence[dict[str, Items]] | None = None,
    **changes: Any,
) -> Path:
    """An enhanced MR file. frames: functional groups to add to each frame's, or to replace them."""
    made = _dataset(path, ENHANCED)
    made.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    made.InstanceNumber, made.NumberOfFrames = 1, len(array)
    made.Rows, made.Columns = array.shape[1:]
    shared = Dataset()
    shared.PixelMeasuresSequence = item(PixelSpacing=list(PIXEL), SliceThickness=3.0, SpacingBetweenSlices=STEP)
    made.SharedFunctionalGroupsSequence = Items([shared])
    groups = []
    places = list(range(len(array)) if places is None else places)
    for number, where in enumerate(places):
        group = Dataset()
        group.PlanePositionSequence = item(ImagePositionPatient=place(where))
        group.PlaneOrientationSequence = item(ImageOrientationPatient=cosines())
        group.FrameContentSequence = item(StackID="1", InStackPositionNumber=number + 1)
        for name, value in (frames[number] if frames else {}).items():
            setattr(group, name, value)
        groups.append(group)
    made.PerFrameFunctionalGroupsSequence = Items(groups)
    made.PixelData = array.tobytes()
    _put(made, changes)
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, made, enforce_file_format=True)
    return path


def classic(folder: Path, array: np.ndarray, places: Any = None, **changes: Any) -> Path:
    return classic_series(folder / "series", array, places, **changes)


def multi(folder: Path, array: np.ndarray, places: Any = None, **changes: Any) -> Path:
    return enhanced(folder / "one.dcm", array, places, **changes)


def multi_in_folder(folder: Path, array: np.ndarray, places: Any = None, **changes: Any) -> Path:
    return enhanced(folder / "export" / "IM1", array, places, **changes).parent


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
