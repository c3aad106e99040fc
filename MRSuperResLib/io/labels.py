"""Tell label maps from scans: a segmentation given as the scan is the commonest mistake."""

from __future__ import annotations

import re

import numpy as np

MOST_LABELS = 64  # an integer volume with fewer values than this, most of it 0, is taken for a label map
LABEL_NAMES = ("seg", "label", "labels", "mask", "dseg", "aseg", "aparc", "wmparc", "segmentation")
FLAT = 0.7  # share of equal neighbours outside the background: 0.85 and more in label maps, below 0.2 in MR


def looks_like_labels(array: np.ndarray, name: str) -> bool:
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
