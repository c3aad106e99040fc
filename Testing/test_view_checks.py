"""What a scan must show before it is translated, at the limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from MRSuperResLib.grid import Grid
from MRSuperResLib.inference.view_checks import check_view
from MRSuperResLib.volume import Volume


def head(border: float, middle: float) -> Volume:
    """A smooth ball of `middle` in a surrounding of `border`, with some voxels at 0 and 1: both are parts of the robust range."""
    _, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in (12, 48, 48)), indexing="ij")
    inside = (i**2 + j**2) < 0.7
    array = np.where(inside, middle, border) + 0.05 * ndimage.gaussian_filter(
        np.random.default_rng(0).normal(size=i.shape), 2
    )
    array[:, 14:17, 14:34] = 0.0  # dark and bright structures inside of the head
    array[:, 31:34, 14:34] = 1.0
    return Volume(array.astype(np.float32) * 900, Grid((48, 48, 12), (1.0, 1.0, 3.0)))


@pytest.mark.parametrize(
    ("border", "middle", "expected"),
    [
        (0.45, 0.2, "doubtful-view"),  # not dark, but no negative either: half of the range is the limit
        (0.55, 0.2, "reversed"),
        (0.9, 0.2, "reversed"),
        (0.55, 0.7, "doubtful-view"),  # brighter in the middle, as heads are
        (0.02, 0.6, None),
    ],
)
def test_a_negative_is_told_where_the_border_has_half_the_range_and_more(
    border: float, middle: float, expected: str | None
) -> None:
    told: list[str] = []
    check_view(head(border, middle), 2, lambda code, message: told.append(code))
    assert (told or [None])[0] == expected
