"""Volumes and where they lie in the patient: `Grid` owns all geometry, `Volume` is voxels on a grid.

Arrays are (k, j, i), as SimpleITK and Slicer give them; grids count (i, j, k). World coordinates are LPS, mm.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import math
import os
import re
import struct
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .errors import BadVolume, OutputError, UsageError

Warn = Callable[[str, str], None]

ORTHONORMAL_TOLERANCE = 1e-3
LONGEST_AXIS = 1024  # voxels; more is allowed, but rarely what was meant
FEWEST_SLICES = 2
MOST_LABELS = 64  # an integer volume with fewer values than this, most of it 0, is taken for a label map
LABEL_NAMES = ("seg", "label", "labels", "mask", "dseg", "aseg", "aparc", "wmparc", "segmentation")
FLAT = 0.7  # share of equal neighbours outside the background: 0.85 and more in label maps, below 0.2 in MR
WRITABLE = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".nhdr")
READABLE = (*WRITABLE, ".mgz", ".mgh", ".hdr", ".img", ".img.gz")
INTERPOLATIONS = ("linear", "bspline", "lanczos", "nearest")
PAD = 8  # voxels replicated around a volume before interpolating, so that nothing beyond its border is read as 0
LOBES = 5  # of the Lanczos kernel on each side, as in ITK's
SQUARE = 1.02  # ratio of a pixel's sides up to which one pair of axes is as square as another
NIFTI_HEADER = 540  # bytes: that of NIfTI-2; NIfTI-1 has 348
MGH_HEADER = 284  # bytes
MGH_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
MGH_UNTOLD = (1, 1, 1, -1, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0, 0)  # FreeSurfer's geometry for files that give none
SAME_PLACE = 0.01  # mm; slices nearer than this lie at one position
SEARCHED = 1000  # files looked at for a DICOM series below a folder that holds none itself


@dataclass(frozen=True)
class Grid:
    """A regular sampling of patient space (LPS, as SimpleITK).

    size: voxels along i, j, k. spacing: mm. origin: centre of voxel (0, 0, 0), mm. direction: 3x3 as nine numbers, row by
    row; its columns are the axes.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.size) != 3 or min(self.size) < 1:
            raise BadVolume(f"a grid of {self.size} voxels is not a 3D volume", code="bad-geometry")
        if len(self.spacing) != 3 or not all(math.isfinite(mm) and mm > 0 for mm in self.spacing):
            raise BadVolume(
                f"voxel spacing is {_numbers(self.spacing)} mm, expected three numbers above 0; mend the header",
                code="bad-spacing",
            )
        axes = self.axes
        if axes.shape != (3, 3) or not np.allclose(axes.T @ axes, np.eye(3), atol=ORTHONORMAL_TOLERANCE):
            raise BadVolume(
                f"the axes' directions {_numbers(self.direction)} are not at right angles and of length 1 (gantry tilt, or "
                "a sheared header?); resample the scan to a straight grid first",
                code="bad-direction",
            )

    @property
    def axes(self) -> np.ndarray:
        """Direction cosines, 3x3, one column for each of i, j, k."""
        return np.asarray(self.direction, dtype=float).reshape(3, -1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Array shape, (k, j, i)."""
        return (self.size[2], self.size[1], self.size[0])

    @property
    def extent(self) -> tuple[float, float, float]:
        """Length along i, j, k, voxel edge to voxel edge, mm."""
        i, j, k = (n * mm for n, mm in zip(self.size, self.spacing, strict=True))
        return (i, j, k)

    @property
    def slice_axis(self) -> int:
        """Which of i, j, k (0, 1, 2) has the coarsest spacing; the last of equals."""
        coarsest = max(self.spacing)
        return max(axis for axis in range(3) if self.spacing[axis] >= coarsest * (1 - 1e-3))

    def slice_axis_for(self, plane: str) -> int:
        """The axis across the slices that a network for `plane` sees: the coarsest, or the one across the squarest pixels.

        plane: "in-plane" asks for square pixels, which a coarse matrix of thin slices has too; another one for the coarsest.
        """
        if plane != "in-plane":
            return self.slice_axis
        within = [[self.spacing[other] for other in range(3) if other != axis] for axis in range(3)]
        stretch = [max(pair) / min(pair) for pair in within]
        square = [axis for axis in range(3) if stretch[axis] <= min(stretch) * SQUARE]
        return square[0] if len(square) == 1 else self.slice_axis

    def axis_name(self, axis: int) -> str:
        """The plane perpendicular to `axis`: "sagittal", "coronal" or "axial", the nearest one for oblique scans."""
        return ("sagittal", "coronal", "axial")[int(np.argmax(np.abs(self.axes[:, axis])))]

    def index_to_world(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) continuous indices i, j, k -> (N, 3) LPS mm."""
        return np.asarray(points, dtype=float) * self.spacing @ self.axes.T + self.origin

    def world_to_index(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) LPS mm -> (N, 3) continuous indices i, j, k."""
        return (np.asarray(points, dtype=float) - self.origin) @ self.axes / self.spacing

    def corners(self) -> np.ndarray:
        """The eight outer corners of the voxel box, (8, 3) LPS mm."""
        ends = np.array(np.meshgrid(*([-0.5, n - 0.5] for n in self.size), indexing="ij")).reshape(3, -1).T
        return self.index_to_world(ends)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) LPS mm -> (N,) whether each lies inside the voxel box, edges included."""
        index = self.world_to_index(points)
        return np.all((index >= -0.5 - 1e-6) & (index <= np.asarray(self.size) - 0.5 + 1e-6), axis=-1)

    def refine(self, factors: tuple[float, float, float]) -> Grid:
        """The same physical extent, edge to edge, sampled `factors` times finer along i, j, k."""
        return self.with_size(*(max(1, round(n * f)) for n, f in zip(self.size, factors, strict=True)))

    def coarsen(self, factors: tuple[float, float, float]) -> Grid:
        """The same physical extent, edge to edge, sampled `factors` times coarser along i, j, k."""
        return self.with_size(*(max(1, round(n / f)) for n, f in zip(self.size, factors, strict=True)))

    def with_spacing(self, spacing: tuple[float, float, float]) -> Grid:
        """The same physical extent at the voxel spacing nearest to `spacing` (mm) that fits it."""
        return self.with_size(*(max(1, round(mm / step)) for mm, step in zip(self.extent, spacing, strict=True)))

    def with_size(self, i: int, j: int, k: int) -> Grid:
        """The same physical extent with another number of voxels."""
        size = (i, j, k)
        spacing = tuple(mm / n for mm, n in zip(self.extent, size, strict=True))
        shift = [(new - old) / 2 for new, old in zip(spacing, self.spacing, strict=True)]
        origin = np.asarray(self.origin) + self.axes @ shift
        return Grid(size, spacing, tuple(origin.tolist()), self.direction)  # type: ignore[arg-type]

    def crop(self, start: tuple[int, int, int], size: tuple[int, int, int]) -> Grid:
        """The part of the grid that begins at voxel `start` (i, j, k; may be negative, to pad)."""
        origin = self.index_to_world(np.asarray([start], dtype=float))[0]
        return Grid(size, self.spacing, tuple(origin.tolist()), self.direction)  # type: ignore[arg-type]

    def same_as(self, other: Grid, tolerance: float = 1e-3) -> bool:
        """Whether both sample the same points, to `tolerance` mm at every corner."""
        return self.size == other.size and bool(np.allclose(self.corners(), other.corners(), atol=tolerance, rtol=0))


@dataclass(frozen=True)
class Volume:
    """Voxels on a grid. array: (k, j, i), float32. metadata: the header fields that came with the file."""

    array: np.ndarray
    grid: Grid
    name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.array.shape != self.grid.shape:
            raise BadVolume(
                f"{self.array.shape} voxels do not fill a grid of {self.grid.shape} (k, j, i)", code="bad-geometry"
            )

    def crop(self, start: tuple[int, int, int], size: tuple[int, int, int]) -> Volume:
        """The box of `size` voxels (i, j, k) from `start` on."""
        (i, j, k), (ni, nj, nk) = start, size
        array = np.ascontiguousarray(self.array[k : k + nk, j : j + nj, i : i + ni])
        return Volume(array, self.grid.crop(start, size), self.name, self.metadata)


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
        volume = _from_sitk(_executed(_series(path, warn), path), volume_name(path), str(path))
    elif path.stat().st_size == 0:
        raise BadVolume(f"{path} is empty (0 bytes); copy or export it again", code="unreadable")
    elif _suffix(path) in (".mgh", ".mgz"):
        volume = _read_mgh(path, warn)
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


def volume_name(path: str | os.PathLike[str]) -> str:
    """What `read_volume` calls the volume at `path`: the file's name without its suffixes, or the folder's."""
    path = Path(path)
    return path.name if path.is_dir() else _stem(path)


def check_volume(volume: Volume, warn: Warn | None = None) -> Volume:
    """`volume` with its few non-finite voxels replaced, or `BadVolume` if it cannot be worked on."""
    array, name = volume.array, volume.name or "the volume"
    finite = np.isfinite(array)
    if not finite.any():
        raise BadVolume(f"{name} has no finite voxel (all NaN or infinite); export it again", code="all-nan")
    if not finite.all():
        lowest = array[finite].min()
        if warn:
            bad = int(array.size - finite.sum())
            warn(
                "nan-replaced", f"{bad} NaN or infinite voxels of {name} were replaced by {lowest:g}, its lowest value"
            )
        array = np.where(finite, array, lowest).astype(np.float32)
    if float(array.max()) == float(array.min()):
        raise BadVolume(
            f"{name} has the same value {float(array.min()):g} in every voxel: there is no image", code="constant"
        )
    thin = sum(n < FEWEST_SLICES for n in volume.grid.size)
    if thin:
        size = " x ".join(map(str, volume.grid.size))
        raise BadVolume(f"{name} is {size} voxels: a single slice or line, expected a 3D volume", code="one-slice")
    if warn and max(volume.grid.size) > LONGEST_AXIS:
        warn(
            "large-volume",
            f"{name} has {max(volume.grid.size)} voxels along one axis: this will take long and much memory",
        )
    return volume if array is volume.array else Volume(array, volume.grid, volume.name, volume.metadata)


def write_volume(
    volume: Volume,
    path: str | os.PathLike[str],
    *,
    fields: Mapping[str, str] | None = None,
    dtype: Any = None,
) -> None:
    """Write `volume` to `path`, under a temporary name until it is whole.

    fields: what NRRD and MHA keep as header fields, and NIfTI as its 79-character description ("mrsuperres" first). dtype:
    numpy type of the voxels, float32 if None. Raises `OutputError`: folder missing or read-only, disk full, or a suffix
    this cannot write.
    """
    import SimpleITK as sitk

    path = Path(path)
    suffix = _suffix(path)
    if suffix not in WRITABLE:
        raise OutputError(f"{path} ends in no format this can write; use {', '.join(WRITABLE)}", code="output-format")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist; make it first", code="no-folder")
    image = to_sitk(volume if dtype is None else Volume(volume.array.astype(dtype), volume.grid), sitk)
    for key, value in (fields or {}).items():
        if suffix.startswith(".nii"):  # one field of 79 characters is all there is; ITK calls it so
            image.SetMetaData("ITK_FileNotes", "; ".join(f"{k}={v}" for k, v in (fields or {}).items())[:79])
            break
        image.SetMetaData(key.replace(" ", "_"), str(value).replace("\n", " "))
    handle, name = -1, ""
    try:
        handle, name = tempfile.mkstemp(suffix=suffix, prefix=f".{_stem(path)}.", dir=path.parent)
        os.close(handle)
        with _quiet():
            sitk.WriteImage(image, name, useCompression=suffix in (".nii.gz", ".nrrd", ".mha"))
        _check_written(Path(name))
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise OutputError(f"cannot write {path}: {_reason(error, path.parent)}", code="cannot-write") from error


def _check_written(path: Path) -> None:
    """ITK does not say when a disk is full: what it wrote is looked at again. Raises OSError."""
    whole = path.stat().st_size > 0
    if whole and _suffix(path) in (".nii", ".nii.gz"):
        try:
            expected, found, _ = _nifti_content(path)
            whole = found >= expected
        except BadVolume:
            whole = False
    if not whole:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def resample(volume: Volume, grid: Grid, interpolation: str = "linear", fill: float | None = None) -> Volume:
    """`volume` sampled on `grid`, anywhere in space.

    interpolation: "linear", "bspline" (cubic), "lanczos" (windowed sinc, 5 lobes) or "nearest". Outside the volume the
    border voxels are continued for a few voxels; beyond, and everywhere outside if `fill` is given, the value is `fill`
    (else the volume's lowest). Down-sampling is antialiased for all but "nearest": samples are averaged over the new voxel.
    """
    import SimpleITK as sitk

    if interpolation not in INTERPOLATIONS:
        raise UsageError(f"interpolation '{interpolation}' is unknown; choose one of {', '.join(INTERPOLATIONS)}")
    if grid.same_as(volume.grid, 1e-6):
        return Volume(volume.array, grid, volume.name, volume.metadata)
    array = volume.array.astype(np.float32, copy=False)
    if interpolation != "nearest":
        array = _antialiased(array, volume.grid, grid)
    if interpolation == "lanczos" and fill is None and np.allclose(volume.grid.axes, grid.axes, atol=1e-6):
        return Volume(_lanczos(array, volume.grid, grid), grid, volume.name, volume.metadata)
    outside = float(array.min()) if fill is None else float(fill)
    if fill is None:
        padded = np.pad(array, PAD, mode="edge")
        source = Volume(padded, volume.grid.crop((-PAD, -PAD, -PAD), tuple(n + 2 * PAD for n in volume.grid.size)))  # type: ignore[arg-type]
    else:
        source = Volume(array, volume.grid)
    kinds = {
        "linear": sitk.sitkLinear,
        "bspline": sitk.sitkBSpline,
        "lanczos": sitk.sitkLanczosWindowedSinc,
        "nearest": sitk.sitkNearestNeighbor,
    }
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([int(n) for n in grid.size])
    resampler.SetOutputSpacing(grid.spacing)
    resampler.SetOutputOrigin(grid.origin)
    resampler.SetOutputDirection(grid.direction)
    resampler.SetInterpolator(kinds[interpolation])
    resampler.SetDefaultPixelValue(outside)
    result = sitk.GetArrayFromImage(resampler.Execute(to_sitk(source, sitk)))
    return Volume(result.astype(np.float32, copy=False), grid, volume.name, volume.metadata)


def _lanczos(array: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """`array` on a grid whose axes run alike: one matrix an axis, a hundred times faster than ITK's 11 x 11 x 11 taps."""
    first = source.world_to_index(np.asarray([target.origin]))[0]
    for axis in range(3):
        step = target.spacing[axis] / source.spacing[axis]
        positions = first[axis] + step * np.arange(target.size[axis])
        taps = np.floor(positions)[:, None] + np.arange(1 - LOBES, LOBES + 1)
        distance = positions[:, None] - taps
        weights = np.sinc(distance) * np.sinc(distance / LOBES) * (np.abs(distance) < LOBES)
        matrix = np.zeros((target.size[axis], source.size[axis]))
        columns = np.clip(taps, 0, source.size[axis] - 1).astype(int)
        np.add.at(matrix, (np.arange(len(positions))[:, None], columns), weights / weights.sum(axis=1, keepdims=True))
        array = np.moveaxis(np.tensordot(matrix.astype(np.float32), array, axes=(1, 2 - axis)), 0, 2 - axis)
    return np.ascontiguousarray(array, dtype=np.float32)


def to_sitk(volume: Volume, sitk: Any = None) -> Any:
    """`volume` as a SimpleITK image."""
    if sitk is None:
        import SimpleITK as sitk
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(volume.grid.spacing)
    image.SetOrigin(volume.grid.origin)
    image.SetDirection(volume.grid.direction)
    return image


def _antialiased(array: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """`array` averaged over the width of the coarser voxels of `target`, along each axis that gets coarser."""
    from scipy import ndimage

    match = np.abs(source.axes.T @ target.axes)  # which axis of the target runs along which of the source
    for axis in range(3):
        step = target.spacing[int(np.argmax(match[axis]))] / source.spacing[axis]
        if step > 1.01:
            sigma = 0.5 * math.sqrt(step**2 - 1)
            array = ndimage.gaussian_filter1d(array, sigma, axis=2 - axis, mode="nearest")
    return array


def _executed(reader: Any, path: Path) -> Any:
    with _quiet():
        try:
            return reader.Execute()
        except (RuntimeError, MemoryError) as error:
            raise _unreadable(path, error) from error


def _file(path: Path) -> Any:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with _quiet():
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
    if _suffix(path) in (".nii", ".nii.gz"):
        expected, found, hidden = _nifti_content(path)
        if found < expected:
            raise BadVolume(
                f"{path} is cut short: {found} of {expected} bytes; copy or export it again", code="unreadable"
            )
        return hidden
    if _suffix(path) in (".mha", ".mhd"):
        with open(path, "rb") as stream:
            for line in stream.read(4096).split(b"\n"):
                key, _, value = line.partition(b"=")
                if key.strip() in (b"ElementSpacing", b"ElementSize") and b"-" in value.lower().replace(b"e-", b""):
                    raise _bad_spacing(path, value.decode(errors="replace").strip())
    return np.zeros(0, dtype=int)


def _unpacked(path: Path) -> Any:
    """The file's bytes as a stream, out of gzip if that is what its name says."""
    return (gzip.open if path.suffix.lower() in (".gz", ".mgz") else open)(path, "rb")


def _damaged(path: Path) -> BadVolume:
    return BadVolume(f"{path} is damaged or cut short; copy or export it again", code="unreadable")


def _bad_spacing(path: Path, found: str) -> BadVolume:
    return BadVolume(
        f"{path}: voxel spacing is {found} mm, expected numbers above 0; mend the header", code="bad-spacing"
    )


def _nifti_content(path: Path) -> tuple[int, int, np.ndarray]:
    """(bytes the unpacked NIfTI file should have, bytes it has, places of the voxels that are not finite, i fastest).

    Raises `BadVolume` for damaged files and for spacings that are not above 0.
    """
    try:
        with _unpacked(path) as stream:
            header = stream.read(NIFTI_HEADER)
            layout = _nifti_layout(header)
            if layout is None:
                raise BadVolume(f"{path} is no NIfTI file: damaged or misnamed", code="unreadable")
            start, voxels, dtype, spacing = layout
            if not all(math.isfinite(mm) and mm > 0 for mm in spacing):
                raise _bad_spacing(path, _numbers(spacing))
            stream.seek(start)
            found, bad = 0, [np.zeros(0, dtype=int)]
            while block := stream.read(2**22):
                if dtype.kind == "f":
                    values = np.frombuffer(block[: len(block) // dtype.itemsize * dtype.itemsize], dtype)
                    bad.append(np.flatnonzero(~np.isfinite(values)) + found // dtype.itemsize)
                found += len(block)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path) from error
    places = np.concatenate(bad)
    return start + voxels * dtype.itemsize, start + found, places[places < voxels]


def _nifti_layout(header: bytes) -> tuple[int, int, np.dtype[Any], tuple[float, ...]] | None:
    """(where the voxels begin, how many there are, their type, spacing) of a single-file NIfTI, None if it is none."""
    for order in "<>":
        if len(header) >= 348 and struct.unpack_from(f"{order}i", header)[0] == 348 and header[344:346] == b"n+":
            dimensions, spacing = (
                struct.unpack_from(f"{order}8h", header, 40),
                struct.unpack_from(f"{order}8f", header, 76),
            )
            kind, bits = struct.unpack_from(f"{order}2h", header, 70)
            start = struct.unpack_from(f"{order}f", header, 108)[0]
        elif len(header) >= NIFTI_HEADER and struct.unpack_from(f"{order}i", header)[0] == 540:
            dimensions, spacing = (
                struct.unpack_from(f"{order}8q", header, 16),
                struct.unpack_from(f"{order}8d", header, 104),
            )
            kind, bits = struct.unpack_from(f"{order}2h", header, 12)
            start = struct.unpack_from(f"{order}q", header, 168)[0]
        else:
            continue
        floating = {16: "f4", 64: "f8"}.get(kind)
        dtype = np.dtype(f"{order}{floating}" if floating else f"V{max(1, bits // 8)}")
        count = min(max(int(dimensions[0]), 0), 7)
        return (
            int(start),
            math.prod(max(1, n) for n in dimensions[1 : 1 + count]),
            dtype,
            spacing[1 : 1 + min(count, 3)],
        )
    return None


def _read_mgh(path: Path, warn: Warn | None) -> Volume:
    """The volume in FreeSurfer's own format (.mgh, packed .mgz), for which ITK has no reader here.

    Its header, big-endian: version, size, frames, type, degrees of freedom, whether the geometry is given; then spacing
    (mm), direction cosines axis by axis, and the centre of the voxel box (mm), RAS.
    """
    try:
        with _unpacked(path) as stream:
            content = stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path) from error
    if len(content) < MGH_HEADER or content[3] != 1:  # the version; the bytes before it may say what is mapped
        raise BadVolume(f"{path} is no MGH file: damaged or misnamed", code="unreadable")
    i, j, k, frames, kind, _, given = struct.unpack_from(">6ih", content, 4)
    if frames > 1:
        raise BadVolume(f"{path} is 4D ({frames} frames), expected 3D; extract one time point or echo", code="4d")
    if kind not in MGH_TYPES:
        raise BadVolume(
            f"{path} holds voxels of MGH type {kind}, expected uint8, int16, uint16, int32 or float32; convert it first",
            code="not-scalar",
        )
    voxels, dtype = i * j * k, np.dtype(MGH_TYPES[kind])
    if min(i, j, k, frames) < 1 or len(content) < MGH_HEADER + voxels * dtype.itemsize:
        raise _damaged(path)
    if given <= 0 and warn:
        warn("no-geometry", f"{path.name} does not say where it lies: read as coronal slices of 1 mm, its centre at 0")
    geometry = np.array(struct.unpack_from(">15f", content, 30) if given > 0 else MGH_UNTOLD, dtype=float)
    spacing, to_lps = geometry[:3], np.diag([-1.0, -1.0, 1.0])
    axes = to_lps @ geometry[3:12].reshape(3, 3).T
    origin = to_lps @ geometry[12:] - axes @ (spacing * (i, j, k) / 2)
    grid = Grid((i, j, k), tuple(spacing.tolist()), tuple(origin.tolist()), tuple(axes.ravel().tolist()))  # type: ignore[arg-type]
    array = np.frombuffer(content, dtype, voxels, MGH_HEADER).reshape(grid.shape).astype(np.float32)
    return Volume(array, grid, volume_name(path))


def _series(folder: Path, warn: Warn | None) -> Any:
    import SimpleITK as sitk

    with _quiet():
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
        with _quiet():
            reader.ReadImageInformation()
        position, cosines = (
            [float(value) for value in reader.GetMetaData(key).split("\\")] for key in ("0020|0032", "0020|0037")
        )
        return np.reshape(position, 3), np.cross(*np.reshape(cosines, (2, 3)))
    except (RuntimeError, ValueError):  # unreadable, not there, or not so many numbers
        return None


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
    if _suffix(path) not in READABLE and "determine" in text.lower():
        return BadVolume(f"{path} is in no image format this can read; use {', '.join(READABLE)}", code="not-a-volume")
    return BadVolume(
        f"{path} cannot be read as {_suffix(path) or 'an image'}: damaged, cut short or misnamed", code="unreadable"
    )


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((s for s in sorted(READABLE, key=len, reverse=True) if name.endswith(s)), path.suffix.lower())


def _stem(path: Path) -> str:
    suffix = _suffix(path)
    return path.name[: -len(suffix)] if suffix else path.name


def _reason(error: BaseException, folder: Path) -> str:
    if isinstance(error, PermissionError) or not os.access(folder, os.W_OK):
        return f"{folder} is read-only for you; choose another folder"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; make room or choose another folder"
    with contextlib.suppress(OSError, AttributeError):
        space = os.statvfs(folder)
        if space.f_bavail * space.f_frsize < 2**20:
            return "the disk is full; make room or choose another folder"
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _numbers(values: Any) -> str:
    return "(" + ", ".join(f"{float(value):.4g}" for value in values) + ")"


_STANDARD_ERROR = threading.RLock()  # there is one for the whole process


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what ITK and the libraries below it print off the terminal: the errors that ITK raises say the same, once."""
    import SimpleITK as sitk

    with _STANDARD_ERROR:
        before = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            with _no_standard_error():
                yield
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(before)


@contextlib.contextmanager
def _no_standard_error() -> Iterator[None]:
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # closed, as under pythonw: nothing can be printed
        yield
        return
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
