"""What a BIDS sidecar says about the scan beside it: slice thickness, sequence, body part."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..volume import Volume
from .formats import stem_of

LARGEST = 2**20  # bytes; more is no sidecar
THICKEST = 100.0  # mm
KEPT = (
    "Modality", "SeriesDescription", "ProtocolName", "BodyPartExamined", "PatientAge", "EchoTime", "RepetitionTime",
    "InversionTime", "MagneticFieldStrength", "SliceThickness", "SpacingBetweenSlices", "MRAcquisitionType",
)  # fmt: skip


def with_sidecar(volume: Volume, path: Path) -> Volume:
    """`volume`, read from `path`, with what the JSON file of the same name says; unchanged if there is none that can be read."""
    fields = fields_beside(path)
    if not fields:
        return volume
    told = {key: str(fields[key]) for key in KEPT if isinstance(fields.get(key), str | int | float)}
    return replace(volume, metadata=told | dict(volume.metadata), thickness=thickness_of(fields) or volume.thickness)


def thickness_of(fields: Mapping[str, Any]) -> float | None:
    """Slice thickness in mm, None if it is not told or cannot be."""
    try:
        found = float(fields["SliceThickness"])
    except (KeyError, TypeError, ValueError):
        return None
    return found if math.isfinite(found) and 0 < found <= THICKEST else None


def path_beside(path: Path) -> Path:
    """Where a sidecar of the volume at `path` would be."""
    return path.with_name(f"{stem_of(path)}.json")


def fields_beside(path: Path) -> dict[str, Any]:
    """The fields of the JSON file of the same name as the volume at `path`, {} if there is none that can be read."""
    path = path_beside(path)
    try:
        if not path.is_file() or path.stat().st_size > LARGEST:
            return {}
        found = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):  # another program's, or damaged: it is no part of the volume
        return {}
    return found if isinstance(found, dict) else {}
