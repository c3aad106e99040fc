"""Puts a volume's intensities on a common scale for the networks, and exactly back.

MR intensities have no unit. Networks see about [0, 1]; the map is affine and never clips, so its inverse restores
the scanner's own numbers, including the few voxels beyond the robust range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

Values = TypeVar("Values", np.ndarray, "torch.Tensor")

LOW_PERCENTILE = 0.1
HIGH_PERCENTILE = 99.9


@dataclass(frozen=True)
class IntensityScale:
    """The affine map `unit = (value - low) / (high - low)`; `low` and `high` in the volume's own units."""

    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> IntensityScale:
        """The scale of `values` (any shape): its 0.1 and 99.9 percentiles map to 0 and 1.

        A volume whose percentiles coincide (a few bright voxels on a flat background) falls back to its full range;
        a constant volume gets the unit scale around its value.
        """
        low, high = (float(v) for v in np.percentile(values, (LOW_PERCENTILE, HIGH_PERCENTILE)))
        if high <= low:
            low, high = float(np.min(values)), float(np.max(values))
        if high <= low:
            high = low + 1.0
        return cls(low, high)

    def to_unit(self, values: Values) -> Values:
        """`values` on the networks' scale."""
        return (values - self.low) / (self.high - self.low)

    def from_unit(self, values: Values) -> Values:
        """`values` back in the volume's own units."""
        return values * (self.high - self.low) + self.low
