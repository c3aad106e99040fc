"""Read a volume from a file or a DICOM folder, or say in one line why not."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadVolume, UsageError
from ..grid import Grid
from ..volume import Volume, Warn, check_volume
from . import metaimage, nifti, nrrd
from .content import held_by
from .formats import READABLE, check_content, check_place, damaged, not_scalar, quiet, suffix_of, three, volume_name
from .labels import looks_like_labels
from .metaimage import LeftToITK
from .mgh import read_mgh
from .sidecar import with_sidecar

NIFTI = (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz")


def read_volume(
    path: str | os.PathLike[str], *, allow_labels: bool = False, warn: Warn | None = None, series: str | None = None
) -> Volume:
    """The 3D scalar volume in the file, or DICOM series folder, at `path`, as float32.

    What the reader makes of a file is compared with what the file says; `warn` hears of what was mended or is doubtful. Some NaN
    or infinite voxels are replaced by the lowest finite value. series: which of a DICOM folder's or file's volumes to take, by
    the key that `inspect` lists, its Series Instance UID or its description. Raises `BadVolume` for whatever is no single scalar
    3D volume with sound geometry, for empty or constant ones, and for label maps unless `allow_labels`.
    """
    path = Path(path)
    volume = check_volume(load_volume(path, warn=warn, series=series), warn)
    if not allow_labels and not path.is_dir() and looks_like_labels(volume.array, volume.name):
        raise BadVolume(
            f"{path} looks like a label map ({len(np.unique(volume.array))} integer values); give the MR volume it was "
            "drawn on, or say that it is a scan",
            code="label-map",
        )
    return volume


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # numbers that cannot be are judged, not printed about
def load_volume(path: str | os.PathLike[str], *, warn: Warn | None = None, series: str | None = None) -> Volume:
    """As `read_volume`, without judging the voxels: a map of errors may well be constant, or NaN outside of the head."""
    from . import dicom

    path = Path(path)
    check_place(path)
    if path.is_dir():
        return dicom.read_folder(path, warn, series)
    check_content(path)
    suffix = suffix_of(path)
    if dicom.is_dicom(path):
        return dicom.read_file(path, warn, series)
    if series is not None:
        raise UsageError(f"{path} is no DICOM: there is no series to choose from", code="no-series")
    try:
        if suffix in (".mgh", ".mgz"):
            volume = read_mgh(path, warn)
        elif suffix in NIFTI:
            volume = nifti.read(path, warn)
        elif suffix in (".mha", ".mhd"):
            volume = metaimage.read(path, warn)
        elif suffix in (".nrrd", ".nhdr"):
            volume = nrrd.read(path, warn)
        else:
            volume = _read_by_itk(path)
    except LeftToITK:
        volume = _read_by_itk(path)
    return with_sidecar(volume, path)


def _read_by_itk(path: Path) -> Volume:
    """A volume of a format, or a variety of one, that only ITK reads here."""
    import SimpleITK as sitk

    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:  # ITK ends the process
        raise BadVolume(
            f"{os.fsencode(path)!r} is no name that can be read (not UTF-8); rename the file or its folder",
            code="unreadable",
        ) from error
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with quiet():
        try:
            reader.ReadImageInformation()
            size = reader.GetSize()
            three(path, size)
            if reader.GetNumberOfComponents() != 1:
                raise not_scalar(path, f"{reader.GetNumberOfComponents()} values")
            if len(size) > 3:  # a 3D volume written as 4D
                reader.SetExtractSize([*size[:3], *(0 for _ in size[3:])])
            image = reader.Execute()
        except (RuntimeError, MemoryError) as error:
            raise _unreadable(path, error) from error
    return _from_sitk(image, volume_name(path), path)


def _from_sitk(image: Any, name: str, path: Path) -> Volume:
    import SimpleITK as sitk

    if image.GetNumberOfComponentsPerPixel() != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise not_scalar(path, image.GetPixelIDTypeAsString())
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and `check_volume` tells
        array = sitk.GetArrayFromImage(image).astype(np.float32)
    if not math.prod(image.GetSize()):
        raise damaged(path)
    grid = Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    metadata = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    return Volume(np.ascontiguousarray(array), grid, name, metadata)


def _unreadable(path: Path, error: BaseException) -> BadVolume:
    text = str(error)
    if isinstance(error, MemoryError) or "alloc" in text.lower():
        return damaged(path, MemoryError())
    if "spacing" in text.lower():
        return BadVolume(f"{path}: voxel spacing in the header is 0 or negative; mend the header", code="bad-spacing")
    if "orthonormal" in text.lower() or "direction" in text.lower() or "determinant" in text.lower():
        return BadVolume(
            f"{path}: the header's axes are not at right angles; resample to a straight grid first",
            code="bad-direction",
        )
    if suffix_of(path) not in READABLE and "determine" in text.lower():
        text = f"{path} is in no image format this can read{held_by(path)}; use {', '.join(READABLE)}"
        return BadVolume(text, code="not-a-volume")
    return BadVolume(
        f"{path} cannot be read as {suffix_of(path) or 'an image'}: damaged, cut short or misnamed", code="unreadable"
    )
