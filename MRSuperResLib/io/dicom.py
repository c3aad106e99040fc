"""DICOM series in a folder: which files make the volume, and whether they are one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadVolume
from ..grid import ORTHONORMAL_TOLERANCE
from ..volume import Warn
from .formats import quiet

SAME_PLACE = 0.01  # mm; slices nearer than this lie at one position
SEARCHED = 1000  # files looked at for a DICOM series below a folder that holds none itself


def series_reader(folder: Path, warn: Warn | None) -> Any:
    import SimpleITK as sitk

    with quiet():
        found = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
        files = {uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid) for uid in found}
    if not files:
        below = _folder_of_dicom(folder)
        raise BadVolume(
            f"{folder} holds no DICOM series{' itself' if below else ''}; "
            f"give {f'the folder below it that does, such as {below}' if below else 'a file, or the folder of one series'}",
            code="not-a-volume",
        )
    if len(files) > 1:
        raise BadVolume(
            f"{folder} holds {len(files)} DICOM series ({', '.join(str(len(f)) for f in files.values())} files each); "
            "put the one you want in a folder of its own",
            code="several-series",
        )
    names = next(iter(files.values()))
    _check_positions(folder, names, warn)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    return reader


def _folder_of_dicom(folder: Path) -> Path | None:
    """The first folder below `folder` with a DICOM file in it, None if it is not soon found."""
    looked = 0
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            looked += 1
            if looked > SEARCHED:
                return None
            with contextlib.suppress(OSError), open(Path(place, name), "rb") as stream:
                if stream.read(132)[128:] == b"DICM":
                    return Path(place)
    return None


def _check_positions(folder: Path, names: tuple[str, ...], warn: Warn | None) -> None:
    """Refuse several volumes in one series, and tell of slices at uneven distances; nothing where the files do not say."""
    places = [_place(name) for name in names]
    known = [place for place in places if place is not None]
    if len(known) < len(places) or not known:
        return
    positions, normals = (np.array(each) for each in zip(*known, strict=True))
    steps = np.diff(np.sort(positions @ normals[0]))
    repeated = int(np.count_nonzero(steps < SAME_PLACE))
    turned = bool(np.ptp(normals, axis=0).max() > ORTHONORMAL_TOLERANCE)
    if repeated or turned:
        what = (
            "slices in several directions"
            if turned
            else f"{len(names)} slices at {len(names) - repeated} positions (several echoes or time points?)"
        )
        raise BadVolume(
            f"{folder} holds one DICOM series with {what}: no single volume; put the files of one in a folder of its own",
            code="several-volumes",
        )
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    if warn and len(steps) > 1 and np.ptp(steps) >= 0.05 * np.median(steps):
        warn(
            "uneven-slices",
            f"slices in {folder.name} are {steps.min():.2f} to {steps.max():.2f} mm apart (one missing?); the volume is read "
            "as if they were evenly spaced",
        )


def _place(name: str) -> tuple[np.ndarray, np.ndarray] | None:
    """A DICOM slice's position (mm) and normal, LPS; None if the file does not give them."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    try:
        with quiet():
            reader.ReadImageInformation()
        position, cosines = (
            [float(value) for value in reader.GetMetaData(key).split("\\")] for key in ("0020|0032", "0020|0037")
        )
        return np.reshape(position, 3), np.cross(*np.reshape(cosines, (2, 3)))
    except (RuntimeError, ValueError):  # unreadable, not there, or not so many numbers
        return None
