"""`Volume`: voxels on a grid. Arrays are (k, j, i), as SimpleITK and Slicer give them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BadVolume
from .grid import Grid, numbers

if TYPE_CHECKING:
    from .io.read import read_volume as read_volume
    from .io.write import write_volume as write_volume

PUBLIC = {"read_volume": ".io.read", "write_volume": ".io.write"}  # scripts that use the library find them here

Warn = Callable[[str, str], None]

LONGEST_AXIS = 1024  # voxels; more is allowed, but rarely what was meant
FEWEST_SLICES = 2
FINEST_MM, COARSEST_MM = 0.05, 30.0  # of a voxel; beyond, a header's units are likelier wrong than right
LARGEST = 1e30  # programs mark missing voxels by FLT_MAX or 1e30: no such value is an intensity


@dataclass(frozen=True)
class Volume:
    """Voxels on a grid. array: (k, j, i), float32. metadata: the header fields that came with the file.

    thickness: of the acquired slices, mm along the slice axis, where the file tells; it is more or less than the spacing where
    slices overlap or leave gaps.
    """

    array: np.ndarray
    grid: Grid
    name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    thickness: float | None = None

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape:
            raise BadVolume(
                f"{self.array.shape} voxels do not fill a grid of {self.grid.shape} (k, j, i)", code="bad-geometry"
            )

    def crop(self, start: tuple[int, int, int], size: tuple[int, int, int]) -> Volume:
        """The box of `size` voxels (i, j, k) from `start` on."""
        (i, j, k), (ni, nj, nk) = start, size
        array = np.ascontiguousarray(self.array[k : k + nk, j : j + nj, i : i + ni])
        return Volume(array, self.grid.crop(start, size), self.name, self.metadata, self.thickness)


def check_volume(volume: Volume, warn: Warn | None = None) -> Volume:
    """`volume` with its few non-finite voxels replaced, or `BadVolume` if it cannot be worked on."""
    array, name = volume.array, volume.name or "the volume"
    with np.errstate(invalid="ignore"):
        finite = np.abs(array) < LARGEST  # False for NaN too
    if not finite.any():
        raise BadVolume(f"{name} has no finite voxel (all NaN or infinite); export it again", code="all-nan")
    if not finite.all():
        lowest = array[finite].min()
        if warn:
            bad, large = int(array.size - finite.sum()), bool(np.isfinite(array[~finite]).any())
            what = f"NaN, infinite or huge ({LARGEST:g} and more) voxels" if large else "NaN or infinite voxels"
            warn("nan-replaced", f"{bad} {what} of {name} were replaced by {lowest:g}, its lowest value")
        array = np.where(finite, array, lowest).astype(np.float32)
    if float(array.max()) == float(array.min()):
        raise BadVolume(
            f"{name} has the same value {float(array.min()):g} in every voxel: there is no image", code="constant"
        )
    check_extent(volume.grid, name)
    if warn:
        for code, text in oddities(volume.grid, name):
            warn(code, text)
    return volume if array is volume.array else replace(volume, array=array)


def check_extent(grid: Grid, name: str) -> None:
    """Raise `BadVolume` unless there are several voxels along each axis."""
    if min(grid.size) < FEWEST_SLICES:
        size = " x ".join(map(str, grid.size))
        raise BadVolume(f"{name} is {size} voxels: a single slice or line, expected a 3D volume", code="one-slice")


def oddities(grid: Grid, name: str) -> list[tuple[str, str]]:
    """What is unusual about a grid, though it can be worked on: (code, line) each."""
    found = []
    if max(grid.size) > LONGEST_AXIS:
        text = f"{name} has {max(grid.size)} voxels along one axis: this will take long and much memory"
        found.append(("large-volume", text))
    if min(grid.spacing) < FINEST_MM or max(grid.spacing) > COARSEST_MM:
        found.append(("odd-spacing", f"{name} has voxels of {numbers(grid.spacing)} mm: are its units right?"))
    return found


def to_sitk(volume: Volume, sitk: Any = None) -> Any:
    """`volume` as a SimpleITK image."""
    if sitk is None:
        import SimpleITK as sitk
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(volume.grid.spacing)
    image.SetOrigin(volume.grid.origin)
    image.SetDirection(volume.grid.direction)
    return image


def __getattr__(name: str) -> Any:
    """`read_volume` and `write_volume`, loaded when first asked for: `io` stands above this module."""
    if name in PUBLIC:
        return getattr(importlib.import_module(PUBLIC[name], __package__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
