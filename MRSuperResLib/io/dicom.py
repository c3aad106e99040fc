"""DICOM series, of single-frame or enhanced multi-frame files: which volume is meant, and its voxels where the files put them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import BadVolume, UsageError
from ..volume import Volume, Warn
from . import dicom_pixels
from .dicom_headers import Folder, Frame, Series, files_in, is_dicom, scan
from .dicom_stack import Part, parts_of, positions_of, stacked
from .formats import damaged, tell, volume_name

MOST_FILES = 20000  # in one folder
SEARCHED = 1000  # files looked at for a DICOM series below a folder that holds none itself
MOST_NAMED = 6  # choices or files in one message
SHARE_OF_MAIN = 0.5  # a part with fewer slices than this share of the largest is named as the odd one

__all__ = ["Choice", "choices", "is_dicom", "read_file", "read_folder"]


@dataclass(frozen=True)
class Choice:
    """One volume of a folder or file. key: what `--series` takes: the series' number, and the part's where it has several."""

    key: str
    series: Series
    part: Part
    parts: int

    @property
    def text(self) -> str:
        """For people: key, description, what tells it apart, slices."""
        count = len(self.part.frames)
        words = [self.series.description, self.part.label, f"{count} slice{'s' if count > 1 else ''}"]
        return f"{self.key} ({', '.join(word for word in words if word)})"


def read_folder(folder: Path, warn: Warn | None = None, series: str | None = None) -> Volume:
    """The one DICOM volume in `folder`, or the one that `series` names, in it or in the folders below."""
    try:
        found = scan(files_in(folder, below=series is not None, most=MOST_FILES))
    except OSError as error:
        raise damaged(folder, error) from error
    if not found.series:
        raise _no_series(folder, found)
    return _chosen(found, folder, warn, series)


def read_file(path: Path, warn: Warn | None = None, series: str | None = None) -> Volume:
    """The volume in one multi-frame file."""
    found = scan([path])
    if not found.series:
        why = found.left_out[0][1] if found.left_out else "it holds no image"
        raise BadVolume(f"{path} cannot be read as DICOM: {why}", code="unreadable")
    if len(found.series[0].frames) == 1:
        raise BadVolume(
            f"{path} is one slice of a DICOM series; give the folder that holds them all, {path.absolute().parent}",
            code="one-slice",
        )
    return _chosen(found, path, warn, series)


def choices(found: Folder) -> list[Choice]:
    """Every volume in what was found, with a key of its own."""
    numbers = [series.number for series in found.series]
    result = []
    for index, series in enumerate(found.series):
        key = series.number or "none"
        if numbers.count(series.number) > 1:
            key += f"-{numbers[:index].count(series.number) + 1}"
        parts, doubled = parts_of(series.frames, dicom_pixels.same_voxels)
        if doubled:
            series.odd["doubled-slices"] = (
                f"{len(doubled)} of the slices are there twice ({_names([frame.file for frame in doubled])}): each is taken once"
            )
        for number, part in enumerate(parts):
            result.append(Choice(key if len(parts) == 1 else f"{key}.{number + 1}", series, part, len(parts)))
    dicom_pixels.forget()
    return result


def _matches(choice: Choice, wanted: str) -> bool:
    """Whether `--series` means this: by key, UID, or description; a series of several parts by those of its parts only."""
    names = (
        choice.key,
        choice.series.uid,
        choice.series.description,
        f"{choice.series.description}, {choice.part.label}",
    )
    return wanted.strip().lower() in {name.strip().lower() for name in names if name}


def _chosen(found: Folder, path: Path, warn: Warn | None, series: str | None) -> Volume:
    offered = choices(found)
    meant = [choice for choice in offered if series is None or _matches(choice, series)]
    if not meant:
        raise UsageError(f"{path} holds no series '{series}': it holds {_listed(offered)}", code="no-series")
    patients = len({id(choice.series) for choice in meant})  # where they share one UID
    if patients > 1 and len({choice.series.uid for choice in meant}) == 1:
        raise BadVolume(
            f"{path} holds slices of {patients} patients under one series UID: no single volume; choose one: {_listed(meant)}",
            code="several-series",
        )
    if series is None and len(found.series) > 1:
        counts = ", ".join(str(len(each.frames)) for each in found.series[:MOST_NAMED])
        raise BadVolume(
            f"{path} holds {len(found.series)} DICOM series ({counts} slices): choose one: {_listed(offered)}",
            code="several-series",
        )
    wrong = next(filter(None, (contradiction(choice.series) for choice in meant)), None)
    if wrong:
        raise BadVolume(f"{path}: {wrong}", code="unreadable")
    if len(meant) > 1:
        raise _several(path, meant)
    return _volume(meant[0], found, path, warn)


def contradiction(series: Series) -> str | None:
    """Why no part of the series can be a volume, None if nothing is wrong with it as a whole."""
    if "frame-count" in series.odd:
        return f"{series.odd['frame-count']}: damaged"
    if "MOSAIC" in series.frames[0].traits.get("image type", ""):
        return "mosaics (many slices in one image), no single volume; convert them first"
    return None


def _volume(choice: Choice, found: Folder, path: Path, warn: Warn | None) -> Volume:
    series = choice.series
    notes = list(series.odd.items())
    if found.left_out:
        files = ", ".join(f"{file.name} ({why})" for file, why in found.left_out[:MOST_NAMED])
        more = len(found.left_out) - MOST_NAMED
        notes.append(("files-left-out", f"not read from {path.name}: {files}{f' and {more} more' if more > 0 else ''}"))
    try:
        stack = stacked(choice.part, path.name)
    except BadVolume as error:
        if not found.left_out:
            raise
        raise BadVolume(f"{error.message}; {notes[-1][1]}", code=error.code) from error
    try:
        array = np.empty(stack.grid.shape, dtype=np.float32)
    except MemoryError as error:
        raise damaged(path, error) from error
    dicom_pixels.fill(array, stack.frames)
    tell((*notes, *stack.notes), warn)
    return Volume(array, stack.grid, volume_name(path), dict(series.facts), stack.thickness)


def _several(path: Path, meant: list[Choice]) -> BadVolume:
    """Several volumes in one series: say what tells them apart, and which is the odd one where one is much smaller."""
    largest = len(meant[0].part.frames)
    few = [choice for choice in meant[1:] if len(choice.part.frames) < SHARE_OF_MAIN * largest]
    frames = [frame for choice in meant for frame in choice.part.frames]
    total = len(frames)
    directions = {_direction(frame) for frame in frames}
    if any("frame of reference" in choice.part.label for choice in meant):
        what = "slices of several frames of reference, whose positions cannot be compared"
    elif len(directions) > 1:
        what = "slices in several directions"
    elif few and len(few) == len(meant) - 1 and meant[0].part.label.endswith("pixels"):
        what = f"{largest} slices of {meant[0].part.label}, and others"
    else:
        what = f"{total} slices at {positions_of(frames)} positions (several echoes or time points?)"
    odd = ""
    if few:
        names = _names([frame.file for choice in few for frame in choice.part.frames])
        odd = f"; {names} {'is' if len(few) == 1 else 'are'} unlike the rest ({few[0].part.label}; a scout?)"
    return BadVolume(
        f"{path} holds one DICOM series with {what}{odd}: no single volume; choose one: {_listed(meant)}",
        code="several-volumes",
    )


def _direction(frame: Frame) -> tuple[float, ...]:
    return () if frame.cosines is None else tuple(np.round(frame.cosines.ravel(), 1).tolist())


def _listed(offered: list[Choice]) -> str:
    more = len(offered) - MOST_NAMED
    return ", ".join(choice.text for choice in offered[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _names(files: list[Path]) -> str:
    names = list(dict.fromkeys(file.name for file in files))
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _no_series(folder: Path, found: Folder) -> BadVolume:
    if found.left_out:
        files = ", ".join(f"{file.name} ({why})" for file, why in found.left_out[:MOST_NAMED])
        return BadVolume(f"{folder} holds no DICOM series that can be read: {files}", code="unreadable")
    below = folder_of_dicom(folder)
    return BadVolume(
        f"{folder} holds no DICOM series{' itself' if below else ''}; "
        f"give {f'the folder below it that does, such as {below}' if below else 'a file, or the folder of one series'}",
        code="not-a-volume",
    )


def folder_of_dicom(folder: Path) -> Path | None:
    """The first folder below `folder` with a DICOM file in it, None if it is not soon found."""
    for path in files_in(folder, below=True, most=SEARCHED):
        if path.is_file() and is_dicom(path):
            return path.parent
    return None
