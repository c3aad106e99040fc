"""MR contrasts: how they are spelt, and which one a name or a DICOM description tells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

CONTRASTS = ("T1w", "T2w", "FLAIR", "PDw")
NAMED = {  # what says so in a name or a DICOM description, in lower case and with blanks between its words
    # Siemens writes FLAIR as dark fluid, da-fl or SPACE with inversion recovery: t2_tirm_tra_dark-fluid, t2_spc_da-fl, t2_spc_ir
    "FLAIR": r"flair|dark ?fl|\bda ?fl\b|\bsp(a)?c(e)? ?ir",
    "T1w": r"\bt1w?\b|t1 ?(weighted|w|mprage|ce|gd|post|flair)|mp ?rage|spgr|fspgr|bravo|tfe",
    "T2w": r"\bt2w?\b|t2 ?(weighted|w|tse|fse)|haste",
    "PDw": r"\bpdw?\b|proton",
}
T1_FLAIR = r"t1w? ?(flair|tirm [a-z0-9 ]*dark ?fl\w*)"  # a T1w image: fluid is dark in it, and fat is bright
ELSEWHERE = r"space-[a-z0-9]+|(registered|aligned)[ _-]to[ _-][a-z0-9]+"  # another scan, in whose place this one lies
# "T1 map" is no T1w image, nor is "T2*" a T2w one, under whatever name its maker gives it
NO_IMAGE = r"t2\*|\b(star|map|dti|dwi|swi|gre|adc|hemo|medic|bold|asl|tof)\b|t2w? ?(fl2d|fl3d|ffe)"
DESCRIPTIONS = ("SeriesDescription", "ProtocolName")


def guess_contrast(text: str) -> str | None:
    """The contrast that a file's name or a DICOM description tells ("sub-01_T1w", "Ax FLAIR"); None if none, or several."""
    words = re.sub(r"[^a-z0-9*]+", " ", re.sub(ELSEWHERE, "", text.lower()))
    if re.search(NO_IMAGE, words):
        return None
    words = re.sub(T1_FLAIR, "t1", words)
    found = {contrast for contrast, pattern in NAMED.items() if re.search(pattern, words)}
    if "FLAIR" in found:  # most are T2-weighted, and often called so too
        found.discard("T2w")
    return found.pop() if len(found) == 1 else None


def telling_name(name: str, metadata: Mapping[str, str]) -> str:
    """Which text tells the contrast of a volume: its name if that does, else how the scanner described it, else its name."""
    texts = (name, *(metadata.get(key, "") for key in DESCRIPTIONS))
    return next((text for text in texts if guess_contrast(text)), name)


def spelt(name: str, known: Iterable[str] = CONTRASTS) -> str:
    """`name` as `known` spells that contrast (T1 and t1w are T1w); unchanged if it is none of them."""
    return next((contrast for contrast in known if same_contrast(contrast, name)), name)


def same_contrast(name: str, other: str | None) -> bool:
    """Whether both name one contrast: T1w, T1 and t1w do."""
    return other is not None and name.lower().removesuffix("w") == other.strip().lower().removesuffix("w")
