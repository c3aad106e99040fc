"""fastMRI's files: the reference reconstruction of a volume, in HDF5."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadVolume, MissingRequirement
from ..grid import Grid
from ..volume import Volume, check_volume

RECONSTRUCTIONS = ("reconstruction_rss", "reconstruction_esc")
UNTOLD = (0.5, 0.5, 3.0)  # mm, of the knees, where the header does not tell
IN_RECONSTRUCTION = re.compile(r"<reconSpace>(.*?)</reconSpace>", re.S)


def read_fastmri(path: Path) -> Volume:
    """The reconstruction in the fastMRI file `path`, slices along k; its name is followed by the acquisition's.

    Raises `MissingRequirement` without h5py, `BadVolume` for a file without a reconstruction (the test set's have none).
    """
    try:
        with _h5py().File(path, "r") as file:
            name = next((name for name in RECONSTRUCTIONS if name in file), None)
            if name is None:
                raise BadVolume(
                    f"{path} holds no reconstruction: give the training or validation set", code="unreadable"
                )
            array = np.asarray(file[name], dtype=np.float32)
            acquisition = str(file.attrs.get("acquisition", ""))
            header = file["ismrmrd_header"][()] if "ismrmrd_header" in file else b""
    except OSError as error:
        raise BadVolume(f"{path} cannot be read as HDF5: {error}", code="unreadable") from error
    size = (array.shape[2], array.shape[1], array.shape[0])
    spacing = _spacing(header.decode(errors="replace") if isinstance(header, bytes) else str(header), size)
    return check_volume(Volume(array, Grid(size, spacing), f"{path.stem}_{acquisition}".rstrip("_")))


def acquisition_of(path: Path) -> str:
    """What the fastMRI file `path` holds, "CORPDFS_FBK" for one; "" if it does not tell. Raises as `read_fastmri`."""
    try:
        with _h5py().File(path, "r") as file:
            return str(file.attrs.get("acquisition", ""))
    except OSError as error:
        raise BadVolume(f"{path} cannot be read as HDF5: {error}", code="unreadable") from error


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingRequirement("fastMRI's files need h5py, which is not installed: pip install h5py") from error
    return h5py


def _spacing(header: str, size: tuple[int, int, int]) -> tuple[float, float, float]:
    """mm along i, j, k, from the field of view in the ISMRMRD header."""
    space = IN_RECONSTRUCTION.search(header)
    view = re.search(r"<fieldOfView_mm>(.*?)</fieldOfView_mm>", space[1], re.S) if space else None
    told = dict(re.findall(r"<([xyz])>\s*([0-9.eE+-]+)\s*</", view[1])) if view else {}
    if set(told) != {"x", "y", "z"} or min(float(mm) for mm in told.values()) <= 0:
        return UNTOLD
    return (float(told["x"]) / size[0], float(told["y"]) / size[1], float(told["z"]))
