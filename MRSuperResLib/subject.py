"""What a file says of whom and what was scanned: body part, age, modality. A model's card decides whether it is fit for that."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .volume import Volume

HEAD = ("HEAD", "BRAIN", "SKULL", "CEREBRUM", "NEURO", "PITUITARY", "IAC", "ORBIT", "EAR", "FACE")
BODY = {  # what says so in a name or a DICOM description, in lower case and with blanks between its words
    "spine": r"\b([ctl] ?)?spine\b|spinal|lumbar|lumbosacral|thoracic|cervical|[ctl]spine",
    "knee": r"\bknee\b|patella|meniscus",
    "abdomen": r"abdom\w*|\bliver\b|hepat\w*|\bkidneys?\b|pancrea\w*|mrcp",
    "pelvis": r"pelvi[sc]|prostate|\bhips?\b|rectum|uterus",
    "breast": r"\bbreast\b|mamma",
    "heart": r"cardiac|\bheart\b|\bcine\b",
    "chest": r"\bchest\b|thorax|\blungs?\b",
    "shoulder": r"shoulder",
    "ankle": r"\bankle\b|\bfoot\b",
    "wrist": r"\bwrist\b|\bhand\b|\belbow\b",
}
UNITS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}  # of DICOM's age strings, in years
HOUNSFIELD = -900.0  # the air of CT has -1000; magnitudes of MR have 0 and more
LEAST_SHARE = 0.01  # of the voxels, that low
ADULT = 18.0  # years; heads are smaller before


def body_part(volume: Volume) -> str | None:
    """What was scanned, where the file tells: "head", or another part; the DICOM field before descriptions and the name."""
    told = re.sub(r"[^A-Z]+", " ", volume.metadata.get("BodyPartExamined", "").upper()).strip()
    if told:
        return "head" if told in HEAD or "BRAIN" in told or "HEAD" in told else told.lower()
    for text in (volume.metadata.get("SeriesDescription", ""), volume.metadata.get("ProtocolName", ""), volume.name):
        words = re.sub(r"[^a-z0-9]+", " ", text.lower())
        found = next((part for part, pattern in BODY.items() if re.search(pattern, words)), None)
        if found:
            return found
    return None


def age_of(volume: Volume) -> float | None:
    """Years, by DICOM's PatientAge ("045Y", "008M"); None where it is not told."""
    found = re.fullmatch(r"(\d{1,4}(?:\.\d+)?)([DWMY]?)", volume.metadata.get("PatientAge", "").strip().upper())
    return float(found[1]) * UNITS[found[2] or "Y"] if found else None


def other_modality(volume: Volume) -> str | None:
    """What speaks against an MR image: the DICOM modality, or values as low as CT's air; None if nothing does."""
    told = volume.metadata.get("Modality", "").upper()
    if told and told not in ("MR", "OT", "SC"):
        return f"its modality is {told}, expected MR"
    lowest = float(volume.array.min())
    if lowest <= HOUNSFIELD and float(np.mean(volume.array < HOUNSFIELD / 2)) > LEAST_SHARE:
        return f"its values go down to {lowest:.0f} (a CT in Hounsfield units?), those of MR images have 0 and more"
    return None
