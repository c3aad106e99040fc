"""The voxels of DICOM frames: stored values, unpacked and unmasked, times slope plus intercept of each frame, unrounded."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadVolume
from .dicom_headers import Frame, _quiet_pydicom
from .formats import cut_short, damaged, not_scalar, quiet, reason

GRAY = ("MONOCHROME1", "MONOCHROME2", "")
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "")
KEPT = (
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation",
)  # fmt: skip


def fill(array: np.ndarray, frames: Sequence[Frame]) -> None:
    """Put the values of `frames` into `array` (k, j, i), one a slice. Raises `BadVolume`."""
    stored: dict[Path, np.ndarray] = {}
    for k, frame in enumerate(frames):
        if not np.isfinite((frame.slope, frame.intercept)).all():
            raise BadVolume(f"{frame.file}: rescale slope or intercept is no number; mend the header", code="bad-scale")
        if frame.file not in stored:
            stored.clear()  # frames of one file mostly follow each other
            stored[frame.file] = stored_values(frame.file)
        values = stored[frame.file]
        if frame.index >= len(values) or values.shape[1:] != array.shape[1:]:
            raise damaged(frame.file)
        with np.errstate(over="ignore", invalid="ignore"):  # `check_volume` tells of what float32 cannot hold
            array[k] = values[frame.index].astype(np.float64) * frame.slope + frame.intercept


def same_voxels(frames: Sequence[Frame]) -> bool:
    """Whether all the frames hold equal values; False if one cannot be read. Looks no further than the first difference."""
    if len({(frame.slope, frame.intercept) for frame in frames}) > 1:
        return False
    try:
        first = _kept(frames[0].file)[frames[0].index]
        return all(np.array_equal(first, _kept(frame.file)[frame.index]) for frame in frames[1:])
    except (BadVolume, IndexError, OSError):
        return False


def _kept(path: Path) -> np.ndarray:
    """`stored_values`, of the last file once only: frames of one enhanced file are compared one by one."""
    state = path.stat()
    return _stored(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=2)
def _stored(path: Path, modified: int, size: int) -> np.ndarray:
    return stored_values(path)


def forget() -> None:
    """Let the files go that are kept for comparing."""
    _stored.cache_clear()


def stored_values(path: Path) -> np.ndarray:
    """What the file stores, (frames, rows, columns), before rescaling. Raises `BadVolume`."""
    import pydicom

    try:
        with _quiet_pydicom():
            header = pydicom.dcmread(path, force=True)
            return _values(header, path)
    except BadVolume:
        raise
    except (OSError, MemoryError) as error:
        raise damaged(path, error) from error
    except Exception as error:  # a parser's answer to damaged bytes may be any
        raise BadVolume(
            f"{path} is damaged or cut short ({reason(error)}); export it again", code="unreadable"
        ) from error


def _values(header: Any, path: Path) -> np.ndarray:
    samples, photometric = int(header.get("SamplesPerPixel") or 1), str(header.get("PhotometricInterpretation") or "")
    if samples != 1 or photometric not in GRAY:
        raise not_scalar(path, f"a colour ({photometric or samples})")
    bits = int(header.get("BitsAllocated") or 16)
    if bits == 1:
        raise BadVolume(
            f"{path} is a segmentation (one bit a voxel): give the MR volume it was drawn on", code="label-map"
        )
    frames, rows, columns = int(header.get("NumberOfFrames") or 1), int(header.Rows), int(header.Columns)
    syntax = str(getattr(header.file_meta, "TransferSyntaxUID", "")) if hasattr(header, "file_meta") else ""
    if syntax not in NATIVE:
        return _unpacked(header, path).reshape(frames, rows, columns)
    order = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
    name, dtype = _pixel_element(header, bits, order)
    if name is None:
        raise damaged(path)
    content = header[name].value
    expected = frames * rows * columns * dtype.itemsize
    if len(content) < expected:
        raise cut_short(path, expected, len(content))
    if len(content) >= expected + expected // frames:
        raise BadVolume(
            f"{path} holds {len(content)} bytes of voxels, but speaks of {frames} frames, which take {expected}: damaged",
            code="unreadable",
        )
    values = np.frombuffer(content, dtype, frames * rows * columns).reshape(frames, rows, columns)
    return values if dtype.kind == "f" else _unmasked(values, header, bits)


def _pixel_element(header: Any, bits: int, order: str) -> tuple[str | None, np.dtype[Any]]:
    for name, kind in (("FloatPixelData", "f4"), ("DoubleFloatPixelData", "f8")):
        if name in header:
            return name, np.dtype(order + kind)
    signed = int(header.get("PixelRepresentation") or 0)
    kind = f"{'i' if signed else 'u'}{bits // 8}"
    if bits not in (8, 16, 32, 64) or "PixelData" not in header:
        return None, np.dtype("u1")
    return "PixelData", np.dtype(order + kind)


def _unmasked(values: np.ndarray, header: Any, bits: int) -> np.ndarray:
    """Without what old files keep in the bits that their values do not use (overlays)."""
    stored = int(header.get("BitsStored") or bits)
    high = int(header.get("HighBit") if header.get("HighBit") is not None else stored - 1)
    if not 0 < stored < bits or not stored - 1 <= high < bits:
        return values
    below = (1 << (high + 1 - stored)) - 1
    if below and np.any(values & values.dtype.type(below)):
        high = stored - 1  # the bits below are in use, whatever the header says
    shifted = values.astype(np.int64) >> (high + 1 - stored) & ((1 << stored) - 1)
    if values.dtype.kind == "i":
        shifted = np.where(shifted >> (stored - 1), shifted - (1 << stored), shifted)
    return shifted


def _unpacked(header: Any, path: Path) -> np.ndarray:
    """Values of a compressed file, by ITK's decoders, from a copy that says no more than how they are stored."""
    import pydicom
    import SimpleITK as sitk
    from pydicom.dataset import FileMetaDataset

    copy, meta = pydicom.Dataset(), FileMetaDataset()
    for name in KEPT:
        if name in header:
            copy[name] = header[name]
    copy["PixelData"] = header["PixelData"]
    multi = int(header.get("NumberOfFrames") or 1) > 1
    copy.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7.3" if multi else "1.2.840.10008.5.1.4.1.1.7"
    copy.SOPInstanceUID = "1.2.3"
    copy.Modality = "OT"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = copy.SOPClassUID, copy.SOPInstanceUID
    meta.TransferSyntaxUID = header.file_meta.TransferSyntaxUID
    copy.file_meta = meta
    handle, name = tempfile.mkstemp(suffix=".dcm", prefix="mrsuperres-")
    os.close(handle)
    try:
        _write_whole(name, copy)
        with quiet():
            image = sitk.ReadImage(name)
    except RuntimeError as error:
        raise BadVolume(
            f"{path} cannot be decompressed ({meta.TransferSyntaxUID.name}): damaged, or a coding this does not know",
            code="unreadable",
        ) from error
    finally:
        os.unlink(name)
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise not_scalar(path, f"{image.GetNumberOfComponentsPerPixel()} values")
    return np.asarray(sitk.GetArrayFromImage(image))


def _write_whole(name: str, dataset: Any) -> None:
    """Write a whole file, preamble included: how pydicom is told so changed with its version 3."""
    import pydicom

    if int(pydicom.__version__.split(".")[0]) >= 3:
        pydicom.dcmwrite(name, dataset, enforce_file_format=True)
    else:
        dataset.is_little_endian, dataset.is_implicit_VR = True, False
        pydicom.dcmwrite(name, dataset, write_like_original=False)
