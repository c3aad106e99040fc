"""Places that a head does not have on its other side: what can be flagged where no lesion detector is installed.

A voxel is unlike its mirror image if it is brighter or darker than everything within some mm of that. Nothing is learnt; what lies
on the midline, or on both sides, or is small, is missed.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .symmetric_view import View

SMOOTHING = (0.3, 1.2, 1.2)  # standard deviations: slices, pixels
REACH = 5  # pixels of the view, 7 mm: two sides of a head fit no better
# Of the excess, on the normalised scale: more is flagged. 1 to 2 % of the brains of four people of the training data exceed it
EXCESS = {"T1w": 0.14, "T2w": 0.17, "FLAIR": 0.11}


def unlike_mirror(view: View, contrast: str) -> np.ndarray:
    """0 to 1 for each pixel of `view` (N, H, W): 0.5 where the excess over the other side is `EXCESS`."""
    own = ndimage.gaussian_filter(view.slices, SMOOTHING)
    other = own[:, :, ::-1]
    brighter = np.maximum(own - ndimage.maximum_filter(other, (1, REACH, REACH)), 0)
    darker = np.maximum(ndimage.minimum_filter(other, (1, REACH, REACH)) - own, 0)
    excess = ndimage.gaussian_filter(brighter + darker, (0, 1, 1))
    return np.asarray(np.minimum(0.5 * excess / EXCESS[contrast], 1.0), dtype=np.float32)
