"""List what a folder or file holds: every volume that could be chosen, where it lies, and what is odd about it.

Headers only are read (and pixels where two slices seem to be one): a clinic's folder holds thousands of files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..contrasts import guess_contrast
from ..errors import BadVolume
from ..grid import Grid
from ..volume import check_extent, oddities
from . import dicom, metaimage, mgh, nifti, nrrd
from .dicom_headers import Folder, files_in, scan
from .dicom_stack import stacked
from .formats import READABLE, check_content, check_place, damaged, stem_of, suffix_of
from .raw import check_length
from .sidecar import fields_beside, thickness_of

MOST_FILES = 20000
THICK = 1.5  # slices that many times as far apart as pixels are thick ones, whose thickness matters


@dataclass(frozen=True)
class Found:
    """One volume. key: what `--series` takes, "" where there is nothing to choose. format: "DICOM", "NIfTI-1", ...

    size: voxels along i, j, k. spacing: mm. thickness: of the slices, mm; gap: spacing minus thickness along the slice axis,
    negative where slices overlap. plane: axial, coronal or sagittal. contrast: what its name or description tells. odd: what to
    know before it is used. usable: whether it can be read as a volume.
    """

    path: str
    key: str
    format: str
    name: str
    size: tuple[int, int, int] | None
    spacing: tuple[float, float, float] | None
    thickness: float | None
    gap: float | None
    plane: str | None
    contrast: str | None
    odd: tuple[str, ...]
    usable: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # numbers that cannot be are judged, not printed about
def inspect(path: str | os.PathLike[str]) -> list[Found]:
    """Every volume in the file, or in the folder and those below it. Raises `BadVolume` if there is nothing at `path`."""
    path = Path(path)
    check_place(path)
    if not path.is_dir():
        if dicom.is_dicom(path):
            return list(_dicom(scan([path]), path))
        return [_file(path)]
    try:
        files = files_in(path, below=True, most=MOST_FILES)
    except OSError as error:
        raise damaged(path, error) from error
    volumes = [file for file in files if suffix_of(file) in READABLE and not _half(file)]
    rest = [file for file in files if suffix_of(file) not in READABLE]
    return [*_dicom(scan(rest), path), *(_file(file) for file in volumes)]


def _half(file: Path) -> bool:
    """Whether `file` holds only the voxels of a volume whose header is another file."""
    suffix = suffix_of(file)
    return ".img" in suffix and any(
        os.path.exists(file.with_name(f"{stem_of(file)}{other}")) for other in (".hdr", ".hdr.gz")
    )


def _dicom(found: Folder, path: Path) -> Iterator[Found]:
    for choice in dicom.choices(found):
        files = sorted({frame.file for frame in choice.part.frames})
        where = str(files[0] if len(files) == 1 else files[0].parent)
        name = ", ".join(word for word in (choice.series.description, choice.part.label) if word)
        odd = [text for code, text in choice.series.odd.items() if code != "frame-count"]
        grid, thickness, usable = None, choice.part.frames[0].thickness, False
        try:
            wrong = dicom.contradiction(choice.series)
            if wrong:
                raise BadVolume(wrong)
            stack = stacked(choice.part, where)
            grid = stack.grid
            check_extent(grid, where)
            usable = True
            odd += [text for _, text in oddities(grid, name or where)]
            odd += [text for _, text in stack.notes]
        except BadVolume as error:
            odd.append(error.message)
        contrast = guess_contrast(choice.series.description) or guess_contrast(
            choice.series.facts.get("ProtocolName", "")
        )
        yield _described(where, choice.key, "DICOM", name, grid, thickness, contrast, odd, usable)
    for file, why in found.left_out:
        yield _described(str(file), "", "DICOM", "", None, None, None, [f"not read: {why}"], False)


def _file(path: Path) -> Found:
    odd: list[str] = []
    kind, grid, thickness, usable = suffix_of(path).lstrip("."), None, None, False
    told = fields_beside(path)
    try:
        check_place(path)
        check_content(path)
        kind, grid, notes, thickness = _header_reader(suffix_of(path))(path)
        odd += [text for _, text in notes]
        odd += [text for _, text in oddities(grid, path.name)]
        thickness = thickness_of(told) or thickness
        if thickness is None and _has_thick_slices(grid):
            odd.append(
                "the thickness of the slices is not known: it is estimated from the scan, unless --thickness or a JSON file "
                "beside the volume (BIDS: SliceThickness) tells it"
            )
        check_extent(grid, str(path))
        usable = True
    except (BadVolume, metaimage.LeftToITK) as error:
        odd.append(error.message if isinstance(error, BadVolume) else "read by ITK: not looked into")
    name = stem_of(path)
    contrast = guess_contrast(name) or guess_contrast(str(told.get("SeriesDescription", "")))
    return _described(str(path), "", kind, name, grid, thickness, contrast, odd, usable)


Header = tuple[str, Grid, list[tuple[str, str]], float | None]  # format, grid, notes, thickness of slices in mm


def _has_thick_slices(grid: Grid) -> bool:
    axis = grid.slice_axis
    return grid.spacing[axis] >= THICK * max(mm for other, mm in enumerate(grid.spacing) if other != axis)


def _header_reader(suffix: str) -> Callable[[Path], Header]:
    if suffix in (".mgh", ".mgz"):
        return _mgh
    if suffix in (".mha", ".mhd"):
        return _metaimage
    return _nrrd if suffix in (".nrrd", ".nhdr") else _nifti


def _nifti(path: Path) -> Header:
    header = nifti.read_header(path)
    check_length(nifti.block_of(header, path), path)
    grid, notes = nifti.grid_of(header, path)
    return header.kind, grid, notes, None


def _metaimage(path: Path) -> Header:
    fields, after = metaimage.read_header(path)
    grid = metaimage.grid_of(fields, path)
    check_length(metaimage.block_of(fields, after, path), path)
    return "MetaImage", grid, metaimage.untold(fields, path), None


def _nrrd(path: Path) -> Header:
    header = nrrd.read_header(path)
    grid, notes = nrrd.grid_of(header, path)
    check_length(nrrd.block_of(header, path), path)
    return "NRRD", grid, notes, nrrd.thickness_of(header, grid, path)


def _mgh(path: Path) -> Header:
    notes: list[tuple[str, str]] = []
    volume = mgh.read_mgh(path, lambda code, text: notes.append((code, text)))
    return "MGH", volume.grid, notes, None


def _described(
    path: str,
    key: str,
    kind: str,
    name: str,
    grid: Grid | None,
    thickness: float | None,
    contrast: str | None,
    odd: list[str],
    usable: bool,
) -> Found:
    axis = None if grid is None else grid.slice_axis
    gap = None if grid is None or axis is None or thickness is None else round(grid.spacing[axis] - thickness, 4)
    return Found(
        path,
        key,
        kind,
        name,
        None if grid is None else grid.size,
        None if grid is None else grid.spacing,
        thickness,
        gap,
        None if grid is None or axis is None else grid.axis_name(axis),
        contrast,
        tuple(odd),
        usable,
    )
