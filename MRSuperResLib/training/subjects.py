"""Subject and contrast of a volume, from its name: BIDS, IXI002-Guys-0828-T2, OAS1_0001_MR1, patient7/flair.

Two volumes are taken for one person's only where their paths are the same but for the contrast. A name that holds a contrast alone,
in no folder, has no subject.
"""

from __future__ import annotations

import functools
import re

from ..contrasts import guess_contrast

BIDS_SUBJECT = re.compile(r"sub-[a-zA-Z0-9]+")
BIDS_SESSION = re.compile(r"(?<![a-zA-Z0-9])ses-[a-zA-Z0-9]+")
BETWEEN = re.compile(r"[_\-. ]+")


@functools.lru_cache(maxsize=65536)
def contrast_of(name: str) -> str:
    """The contrast that a path without suffix names in its last part, else in its folder; "" if neither does."""
    folder, _, stem = name.rpartition("/")
    return guess_contrast(stem) or guess_contrast(folder.rpartition("/")[2]) or ""


@functools.lru_cache(maxsize=65536)
def subject_of(name: str) -> str | None:
    """The subject and, where sessions are named, the visit, of a path without suffix; None if it does not tell."""
    parts = [_without_contrast(part) for part in name.split("/")]
    for number, part in enumerate(parts):
        subject = BIDS_SUBJECT.match(part)
        if subject:
            session = BIDS_SESSION.search(name)
            whole = [*parts[:number], subject[0], *([session[0]] if session else [])]
            return "/".join(one for one in whole if one)
    return "/".join(part for part in parts if part) or None


def _without_contrast(part: str) -> str:
    """A file's or folder's name without the words that name a contrast."""
    if BIDS_SUBJECT.match(part):
        return part
    return "-".join(word for word in BETWEEN.split(part) if word and not guess_contrast(word))
