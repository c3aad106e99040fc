"""Is the result true to what the scanner measured? The result is put back through the acquisition and compared.

The acquisition is a model too (see `acquisition.py`): a profile wrongly assumed shows up in the map as structure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .acquisition import KINDS, Acquisition, axis_operator
from .errors import UsageError

if TYPE_CHECKING:
    from .grid import Grid
    from .volume import Volume

IN_PLANE = "kspace"  # a coarse matrix is a cropped k-space, whatever the slice profile


THICKNESS = (0.1, 4.0)  # of the spacing between slices: what is told beyond is a mistake of units


def acquisition_between(
    acquired: Grid, result: Grid, slice_axis: int, profile: str = "gaussian", thickness: float | None = None
) -> Acquisition:
    """The acquisition that makes a volume on `acquired` out of one on `result`, which is finer and has the same extent.

    profile: of the slices, "gaussian", "box" or "sinc"; "kspace" or "bicubic" is used for every axis. slice_axis: 0..2
    (i, j, k). thickness: of a slice in mm, None for the spacing; below it there are gaps. In plane a matrix is taken to
    be a cropped k-space. Raises `UsageError` if an axis of `result` is coarser, or for an impossible thickness.
    """
    if profile not in KINDS:
        raise UsageError(f"profile is '{profile}', expected one of {', '.join(KINDS)}")
    relative = 1.0 if thickness is None else thickness / acquired.spacing[slice_axis]
    if not THICKNESS[0] <= relative <= THICKNESS[1]:
        low, high = (share * acquired.spacing[slice_axis] for share in THICKNESS)
        raise UsageError(
            f"the slice thickness is {thickness:g} mm, expected {low:.3g} to {high:.3g} mm for these slices"
        )
    operators = {}
    for axis, (low, high) in enumerate(zip(acquired.size, result.size, strict=True)):
        if high < low:
            raise UsageError(
                f"the result is coarser than the scan along {'ijk'[axis]}: consistency is defined for finer grids only"
            )
        if high > low:
            kind = profile if axis == slice_axis or profile in ("kspace", "bicubic") else IN_PLANE
            wide = relative if axis == slice_axis else 1.0
            operators[2 - axis] = axis_operator(kind, high, high / low, thickness=wide)
    return Acquisition(operators)


def consistency_map(result: Volume, acquired: Volume, acquisition: Acquisition) -> Volume:
    """What the result would have been acquired as, minus what was acquired: on the acquired grid, in its units.

    Zero everywhere means that nothing in the result contradicts the measurement.
    """
    from .volume import Volume

    again = acquisition.apply(result.array)
    return Volume(
        np.ascontiguousarray(again - acquired.array, dtype=np.float32), acquired.grid, f"{acquired.name} consistency"
    )


def project(result: Volume, acquired: Volume, acquisition: Acquisition) -> Volume:
    """The volume nearest to `result` that the acquisition turns into exactly `acquired`: x + A+ (y - A x)."""
    from .volume import Volume

    missing = acquired.array - acquisition.apply(result.array)
    corrected = result.array + acquisition.pinv(missing)
    return Volume(np.ascontiguousarray(corrected, dtype=np.float32), result.grid, result.name, result.metadata)
