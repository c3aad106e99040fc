"""DICOM headers: every frame of every file of a folder, single-frame and multi-frame alike, in one form.

pydicom reads the headers. An enhanced (multi-frame) file says per frame, or once for all, what a classic series says in each of
its files; `Frame` has the answer whichever it was. Numbers that cannot be read as numbers are NaN: nothing is guessed here.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .formats import APPLE_DOUBLE, reason

TAGS = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription",
    "ProtocolName", "Modality", "BodyPartExamined", "PatientAge", "ImageType", "InstanceNumber", "AcquisitionNumber",
    "ImagesInAcquisition", "EchoTime", "EchoNumbers", "RepetitionTime", "InversionTime", "TriggerTime", "FlipAngle",
    "MagneticFieldStrength", "MRAcquisitionType", "TemporalPositionIdentifier", "ComplexImageComponent", "DiffusionBValue",
    "ContrastBolusAgent", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "AcquisitionTime",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "TransferSyntaxUID", "SpecificCharacterSet",
    "DirectoryRecordSequence", "FrameOfReferenceUID", "PatientID", "PatientName",
]  # fmt: skip
FACTS = (
    "Modality", "SeriesDescription", "ProtocolName", "BodyPartExamined", "PatientAge", "EchoTime", "RepetitionTime",
    "InversionTime", "MagneticFieldStrength", "SliceThickness", "SpacingBetweenSlices", "MRAcquisitionType",
)  # fmt: skip
OTHER_FILES = (  # found beside slices, and never one of them
    ".txt", ".json", ".csv", ".tsv", ".xml", ".pdf", ".png", ".jpg", ".jpeg", ".md", ".html", ".htm", ".bval", ".bvec", ".log",
    ".zip", ".gz", ".nii", ".nrrd", ".mha", ".mhd", ".raw", ".ini", ".db", ".exe", ".inf", ".py", ".sh", ".xlsx", ".docx", ".tar",
    ".css", ".js",
)  # fmt: skip
NO_IMAGES = (
    "1.2.840.10008.5.1.4.1.1.4.2",
    "1.2.840.10008.5.1.4.1.1.66",
)  # spectroscopy and raw data, with rows and columns
PREAMBLE = 132  # bytes before and with "DICM"


@dataclass(frozen=True)
class Frame:
    """One slice as its header describes it.

    index: which frame of `file`. position: centre of its first pixel, LPS mm. cosines: (2, 3), of its rows and columns. pixel: mm,
    from row to row and from column to column. between: mm from slice to slice as the header says. traits: what may tell the
    volumes of one series apart. frame_of_reference: UID; positions are
    comparable within one only.
    """

    file: Path
    index: int
    frames: int
    uid: str
    order: tuple[float, int]
    rows: int
    columns: int
    position: np.ndarray | None
    cosines: np.ndarray | None
    pixel: tuple[float, float] | None
    thickness: float | None
    between: float | None
    slope: float
    intercept: float
    traits: dict[str, str] = field(default_factory=dict)
    frame_of_reference: str = ""


@dataclass
class Series:
    """The frames of one patient that share a Series Instance UID. facts: what the header says of the scan, as text."""

    uid: str
    number: str
    facts: dict[str, str]
    frames: list[Frame]
    odd: dict[str, str]

    @property
    def description(self) -> str:
        """What people called it."""
        return self.facts.get("SeriesDescription") or self.facts.get("ProtocolName", "")


@dataclass
class Folder:
    """What was found. left_out: (file, why) for those that could not be read, and look as if they were slices."""

    series: list[Series]
    left_out: list[tuple[Path, str]]


def is_dicom(path: Path) -> bool:
    """Whether the file has DICOM's preamble, or a header without one that names an object."""
    return _begins_as_dicom(path) and (_has_preamble(path) or "SOPClassUID" in (header_of(path) or ()))


def _begins_as_dicom(path: Path) -> bool:
    """By the first bytes, so that no other file, however large, is searched for a header.

    Without a preamble, a data set begins with a tag of group 2 or 8, little-endian or big-endian, and a small element number.
    """
    start = _start(path)
    return (
        start[128:] == b"DICM"
        or (start[:2] in (b"\x02\x00", b"\x08\x00") and start[3:4] == b"\x00")
        or start[:3] == b"\x00\x08\x00"
    )


def _has_preamble(path: Path) -> bool:
    return _start(path)[128:] == b"DICM"


def _start(path: Path) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(PREAMBLE)
    except OSError:
        return b""


def scan(files: list[Path]) -> Folder:
    """The series in `files`, in the order of their numbers."""
    found: dict[tuple[str, str], Series] = {}
    left_out: list[tuple[Path, str]] = []
    for path in files:
        why = _no_slice(path)
        if why is not None:
            if why:
                left_out.append((path, why))
            continue
        try:
            with open(path, "rb"):  # for the reason, where it may not be opened
                header = header_of(path) if _begins_as_dicom(path) else None
        except OSError as error:
            left_out.append((path, reason(error)))
            continue
        if header is not None and "DirectoryRecordSequence" in header:  # DICOMDIR, a list of files
            continue
        if header is None or "SOPClassUID" not in header:
            if _has_preamble(path) or path.suffix.lower() in (".dcm", ".ima"):
                left_out.append((path, "damaged or cut short"))
            continue
        if _text(header, "SOPClassUID") in NO_IMAGES:
            continue
        if not {"Rows", "Columns"} <= _names(header):
            if _text(header, "Modality") in ("MR", "CT", "PT"):
                left_out.append((path, "cut short, or without an image"))
            continue
        uid = _text(header, "SeriesInstanceUID")
        whose = _text(header, "PatientID") or _text(header, "PatientName")  # never kept, nor told
        series = found.setdefault((uid, whose), Series(uid, _text(header, "SeriesNumber"), _facts(header), [], {}))
        try:
            series.frames.extend(list(frames_of(header, path, series.odd)))  # of a file all its frames, or none
        except Exception as error:  # hostile sequences bring out whatever the library below has
            left_out.append((path, f"damaged ({reason(error)})"))
    kept = [series for series in found.values() if series.frames]
    return Folder(sorted(kept, key=lambda each: (_number(each.number), each.uid)), left_out)


def _no_slice(path: Path) -> str | None:
    """Why `path` is no slice: "" if nobody took it for one; None if it may be one."""
    try:
        if not os.path.exists(path):
            return "a link to a file that is not there" if path.is_symlink() else "gone, or not to be opened"
        if not path.is_file():
            return "" if path.is_dir() else "neither a file nor a folder"
        if path.name.startswith("._"):
            with open(path, "rb") as stream:
                return "macOS's shadow of another file" if stream.read(4) == APPLE_DOUBLE else None
        if path.stat().st_size == 0:
            return "" if path.suffix.lower() in OTHER_FILES or path.name.startswith(".") else "empty"
    except OSError as error:
        return reason(error)
    if path.suffix.lower() in OTHER_FILES or path.name.startswith("."):
        return None if is_dicom(path) else ""
    return None


def header_of(path: Path) -> Any:
    """The data set without its pixels, None if this is no DICOM or damaged. Raises `OSError`."""
    import pydicom

    with _quiet_pydicom():
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=TAGS)  # type: ignore[arg-type]
            str(header.get("SOPClassUID", ""))
            return header
        except OSError:
            raise
        except Exception:  # a parser's answer to bytes that are no data set may be any
            return None


@contextlib.contextmanager
def _quiet_pydicom() -> Iterator[None]:
    """What pydicom finds odd in a header is judged here, not printed."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def _names(header: Any) -> set[str]:
    return {name for name in ("Rows", "Columns") if name in header}


def _facts(header: Any) -> dict[str, str]:
    return {name: text for name in FACTS if (text := _text(header, name))}


def _text(header: Any, name: str) -> str:
    """The element as text without control characters, "" if it is missing or cannot be read."""
    try:
        value = header.get(name)
        value = getattr(value, "value", value)
        text = "" if value is None else "\\".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        if not isinstance(value, str | int | float) and hasattr(value, "__iter__") and value is not None:
            text = "\\".join(map(str, value))
    except Exception:  # a value that is not of its type
        return ""
    return "".join(character for character in text if character.isprintable()).strip()


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf


def numbers_in(header: Any, name: str, count: int) -> np.ndarray | None:
    """`count` numbers of the element; NaN where they cannot be read; None if it is missing or empty."""
    text = _text(header, name)
    if not text:
        return None
    words = text.strip("[]").replace(",", "\\").split("\\")
    try:
        values = np.array([float(word) for word in words])
    except ValueError:
        return np.full(count, math.nan)
    return values if len(values) == count else np.full(count, math.nan)


def frames_of(header: Any, path: Path, odd: dict[str, str]) -> Iterator[Frame]:
    """The frames of one file. odd: gets what is to be told of the series (code: line)."""
    shared = _first(header, "SharedFunctionalGroupsSequence")
    groups = list(header.get("PerFrameFunctionalGroupsSequence") or [])
    if _text(header, "PhotometricInterpretation") == "MONOCHROME1":
        odd["reversed"] = "low values are to be shown bright (MONOCHROME1); the values are left as they are stored"
    number = numbers_in(header, "NumberOfFrames", 1)
    frames = int(number[0]) if number is not None and math.isfinite(number[0]) else 1
    if groups and len(groups) != frames:
        odd["frame-count"] = f"{path.name} holds {frames} frames, and describes {len(groups)}"
    order = numbers_in(header, "InstanceNumber", 1)
    first = float(order[0]) if order is not None and math.isfinite(order[0]) else math.inf
    rows, columns = (int(header.get(name) or 0) for name in ("Rows", "Columns"))
    for index in range(max(1, min(frames, 10**5))):
        sources = _Sources(header, groups[index] if index < len(groups) else None, shared)
        position = sources.numbers("PlanePositionSequence", "ImagePositionPatient", 3)
        cosines = sources.numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6)
        pixel = sources.numbers("PixelMeasuresSequence", "PixelSpacing", 2)
        slope = sources.numbers("PixelValueTransformationSequence", "RescaleSlope", 1)
        intercept = sources.numbers("PixelValueTransformationSequence", "RescaleIntercept", 1)
        yield Frame(
            path,
            index,
            frames,
            _text(header, "SOPInstanceUID"),
            (first, index),
            rows,
            columns,
            position,
            None if cosines is None else cosines.reshape(2, 3),
            None if pixel is None else (float(pixel[0]), float(pixel[1])),
            _positive(sources.numbers("PixelMeasuresSequence", "SliceThickness", 1)),
            _positive(sources.numbers("PixelMeasuresSequence", "SpacingBetweenSlices", 1)),
            1.0 if slope is None else float(slope[0]),
            0.0 if intercept is None else float(intercept[0]),
            sources.traits(),
            _text(header, "FrameOfReferenceUID"),
        )


def _positive(values: np.ndarray | None) -> float | None:
    return float(values[0]) if values is not None and math.isfinite(values[0]) and values[0] > 0 else None


def _first(holder: Any, name: str) -> Any:
    sequence = holder.get(name)
    return sequence[0] if sequence else None


class _Sources:
    """Where a frame's attributes are looked for: its own functional groups, those shared by all, then the data set itself."""

    def __init__(self, header: Any, *groups: Any) -> None:
        self.header = header
        self.places = [group for group in groups if group is not None]

    def numbers(self, sequence: str, name: str, count: int) -> np.ndarray | None:
        """`count` numbers as `numbers_in` gives them. A position is told frame by frame: one for all is no frame's."""
        for group in filter(None, (_first(place, sequence) for place in self.places)):
            found = numbers_in(group, name, count)
            if found is not None:
                return found
        if self.places and sequence == "PlanePositionSequence":
            return None
        return numbers_in(self.header, name, count)

    def text(self, sequence: str, name: str) -> str:
        """The attribute as text, "" where it is not told."""
        for group in filter(None, (_first(place, sequence) for place in self.places)):
            if found := _text(group, name):
                return found
        return _text(self.header, name)

    def traits(self) -> dict[str, str]:
        """What may tell one volume of a series from another, the plainest first; empty where it is not told."""
        image_type = (
            (self.text("MRImageFrameTypeSequence", "FrameType") or _text(self.header, "ImageType")).upper().split("\\")
        )
        component = self.text("MRImageFrameTypeSequence", "ComplexImageComponent").upper()
        letters = {"M": "MAGNITUDE", "P": "PHASE", "R": "REAL", "I": "IMAGINARY"}
        if component not in letters.values():
            component = next((letters[word] for word in image_type[2:] if word in letters), component)
        echo = self.text("MREchoSequence", "EffectiveEchoTime") or _text(self.header, "EchoTime")
        return {
            "component": component.lower(),
            "echo time": _rounded(echo),
            "echo": _text(self.header, "EchoNumbers"),
            "inversion time": _rounded(_text(self.header, "InversionTime")),
            "b value": _rounded(self.text("MRDiffusionSequence", "DiffusionBValue")),
            "image type": "\\".join(image_type),
            "time point": self.text("FrameContentSequence", "TemporalPositionIndex")
            or _text(self.header, "TemporalPositionIdentifier"),
            "trigger time": _rounded(
                self.text("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime")
                or _text(self.header, "TriggerTime")
            ),
            "acquisition": self.text("FrameContentSequence", "FrameAcquisitionNumber")
            or _text(self.header, "AcquisitionNumber"),
            "flip angle": _rounded(_text(self.header, "FlipAngle")),
            "stack": self.text("FrameContentSequence", "StackID"),
        }


def _rounded(text: str) -> str:
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text


def files_in(folder: Path, *, below: bool = False, most: int) -> list[Path]:
    """Files of the folder in the order of their names; with `below`, those of the folders in it too, `most` at most."""
    if not below:
        return sorted(folder.iterdir())[:most]
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        found.extend(Path(place, name) for name in sorted(files))
        if len(found) >= most:
            break
    return found[:most]
