"""Read a volume from a file or a DICOM folder, or say in one line why not."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadVolume
from ..grid import Grid
from ..volume import Volume, Warn, check_volume
from . import nifti
from .dicom import series_reader
from .formats import READABLE, bad_spacing, quiet, suffix_of, volume_name
from .mgh import read_mgh

MOST_LABELS = 64  # an integer volume with fewer values than this, most of it 0, is taken for a label map
LABEL_NAMES = ("seg", "label", "labels", "mask", "dseg", "aseg", "aparc", "wmparc", "segmentation")
FLAT = 0.7  # share of equal neighbours outside the background: 0.85 and more in label maps, below 0.2 in MR


def read_volume(path: str | os.PathLike[str], *, allow_labels: bool = False, warn: Warn | None = None) -> Volume:
    """The 3D scalar volume in the file, or DICOM series folder, at `path`, as float32.

    Some NaN or infinite voxels are replaced by the lowest finite value and `warn` hears of it (but ITK makes those of a
    NIfTI pair, .hdr and .img, 0 without a word). Raises `BadVolume` for whatever is no single scalar 3D volume with sound
    geometry, for empty or constant ones, and for label maps unless `allow_labels`.
    """
    path = Path(path)
    if not path.exists():
        raise BadVolume(f"{path} does not exist", code="not-found")
    if path.is_dir():
        volume = _from_sitk(_executed(series_reader(path, warn), path), volume_name(path), str(path))
    elif path.stat().st_size == 0:
        raise BadVolume(f"{path} is empty (0 bytes); copy or export it again", code="unreadable")
    elif suffix_of(path) in (".mgh", ".mgz"):
        volume = read_mgh(path, warn)
    else:
        hidden = _check_file(path)
        volume = _from_sitk(_executed(_file(path), path), volume_name(path), str(path))
        volume.array.reshape(-1)[hidden] = np.nan
    volume = check_volume(volume, warn)
    if not allow_labels and not path.is_dir() and _looks_like_labels(volume.array, volume.name):
        raise BadVolume(
            f"{path} looks like a label map ({len(np.unique(volume.array))} integer values); give the MR volume it was "
            "drawn on",
            code="label-map",
        )
    return volume


def _executed(reader: Any, path: Path) -> Any:
    with quiet():
        try:
            return reader.Execute()
        except (RuntimeError, MemoryError) as error:
            raise _unreadable(path, error) from error


def _file(path: Path) -> Any:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with quiet():
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise _unreadable(path, error) from error
    dimensions, size = reader.GetDimension(), reader.GetSize()
    if reader.HasMetaDataKey("0020|000d") and math.prod(size[2:]) == 1:
        raise BadVolume(
            f"{path} is one slice of a DICOM series; give the folder that holds them all, {path.absolute().parent}",
            code="one-slice",
        )
    if dimensions > 3 and all(n == 1 for n in size[3:]):  # a 3D volume written as 4D
        reader.SetExtractSize([*size[:3], *(0 for _ in size[3:])])
        dimensions = 3
    if dimensions != 3:
        hint = "extract one time point or echo" if dimensions > 3 else "give a whole volume, not one slice"
        raise BadVolume(
            f"{path} is {dimensions}D ({' x '.join(map(str, size))}), expected 3D; {hint}", code=f"{dimensions}d"
        )
    if reader.GetNumberOfComponents() != 1:
        raise BadVolume(
            f"{path} has {reader.GetNumberOfComponents()} values in each voxel (colour or vectors), expected one intensity",
            code="not-scalar",
        )
    return reader


def _check_file(path: Path) -> np.ndarray:
    """Refuse what ITK would read without a word; returns which voxels it will read as 0 though they are not finite.

    It reads a NIfTI file cut short as zeros, its NaN and infinite voxels as 0, its spacing of 0 as 1, and takes the sign off
    a MetaImage's negative spacing.
    """
    if suffix_of(path) in (".nii", ".nii.gz"):
        expected, found, hidden = nifti.content(path)
        if found < expected:
            raise BadVolume(
                f"{path} is cut short: {found} of {expected} bytes; copy or export it again", code="unreadable"
            )
        return hidden
    if suffix_of(path) in (".mha", ".mhd"):
        with open(path, "rb") as stream:
            for line in stream.read(4096).split(b"\n"):
                key, _, value = line.partition(b"=")
                if key.strip() in (b"ElementSpacing", b"ElementSize") and b"-" in value.lower().replace(b"e-", b""):
                    raise bad_spacing(path, value.decode(errors="replace").strip())
    return np.zeros(0, dtype=int)


def _from_sitk(image: Any, name: str, path: str) -> Volume:
    import SimpleITK as sitk

    if image.GetDimension() != 3:
        raise BadVolume(f"{path} is {image.GetDimension()}D, expected 3D", code=f"{image.GetDimension()}d")
    if image.GetNumberOfComponentsPerPixel() != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise BadVolume(
            f"{path} holds {image.GetPixelIDTypeAsString()}, expected one intensity a voxel", code="not-scalar"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and `check_volume` tells
        array = sitk.GetArrayFromImage(image).astype(np.float32)
    grid = Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    metadata = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    return Volume(np.ascontiguousarray(array), grid, name, metadata)


def _looks_like_labels(array: np.ndarray, name: str) -> bool:
    """Whether this is a label map: integers from 0 up, few of them in a file called so, or in flat regions."""
    if float(array.min()) < 0 or not np.all(array == np.rint(array)):
        return False
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    values, counts = np.unique(array, return_counts=True)
    if len(values) <= 4 * MOST_LABELS and words & set(LABEL_NAMES):
        return True
    if len(values) <= MOST_LABELS and float(np.mean(np.diff(array, axis=2) == 0)) > 0.85:
        return True
    background = float(values[np.argmax(counts)])
    return all(_flatness(array, axis, background) > FLAT for axis in range(3))


def _flatness(array: np.ndarray, axis: int, background: float) -> float:
    """How many of the neighbours along array `axis`, neither of them background, have equal values; a share."""
    rest = np.moveaxis(array, axis, 0)
    inside = (rest[:-1] != background) & (rest[1:] != background)
    return int(np.count_nonzero((rest[:-1] == rest[1:]) & inside)) / max(1, int(np.count_nonzero(inside)))


def _unreadable(path: Path, error: BaseException) -> BadVolume:
    text = str(error)
    if isinstance(error, MemoryError) or "alloc" in text.lower():
        return BadVolume(f"{path} needs more memory than there is", code="unreadable")
    if "spacing" in text.lower():
        return BadVolume(f"{path}: voxel spacing in the header is 0 or negative; mend the header", code="bad-spacing")
    if "orthonormal" in text.lower() or "direction" in text.lower() or "determinant" in text.lower():
        return BadVolume(
            f"{path}: the header's axes are not at right angles; resample to a straight grid first",
            code="bad-direction",
        )
    if suffix_of(path) not in READABLE and "determine" in text.lower():
        return BadVolume(f"{path} is in no image format this can read; use {', '.join(READABLE)}", code="not-a-volume")
    return BadVolume(
        f"{path} cannot be read as {suffix_of(path) or 'an image'}: damaged, cut short or misnamed", code="unreadable"
    )
