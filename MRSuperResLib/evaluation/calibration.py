"""How the deviation of a translation's samples relates to the error of their mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import UnsuitableVolume

BINS = 10  # of the calibration curve
INTERVAL = 1.645  # standard deviations on either side, for 90 % of a normal distribution


@dataclass(frozen=True)
class Voxels:
    """The voxels of the head's box, (n,) each: the samples' deviation and the absolute error of their mean on the unit
    scale, and which of them are head.
    """

    deviation: np.ndarray
    error: np.ndarray
    head: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """How the samples' deviation relates to the error of their mean: inside the head, but for `spearman_box`.

    scale: what the deviation is to be multiplied by, so that its mean square is the error's. spearman: rank correlation
    of deviation and absolute error; spearman_box: that in the whole of the head's box, air included, which is what a
    reader of the map sees. curve: (calibrated deviation, error), both root mean squares on the unit scale, of
    BINS equally large groups of voxels, the surest first: equal numbers mean a calibrated map. gap: mean difference of
    the two, over the mean error. coverage: part of the head where the truth lies in the 90 % interval that the map states;
    sharpness: mean width of that interval on the unit scale: of two maps of equal coverage the narrower is the better.
    """

    scale: float
    spearman: float
    spearman_box: float
    curve: tuple[tuple[float, float], ...]
    gap: float
    coverage: float = 0.0
    sharpness: float = 0.0


def calibrate(scans: Iterable[Voxels], stated: float | None = None) -> Calibration:
    """The calibration on the voxels of one or several scans, pooled.

    stated: what the map that users see multiplies the deviation by, for coverage and sharpness; None for the scale found here.

    Raises `UnsuitableVolume` (code "no-spread") when the samples do not differ.
    """
    from scipy import stats

    pool = list(scans)
    head = np.concatenate([scan.head for scan in pool])
    everywhere = [np.concatenate([getattr(scan, name) for scan in pool]) for name in ("deviation", "error")]
    deviation, error = (values[head].astype(np.float64) for values in everywhere)
    if not deviation.size or not float(deviation.max()) > 0:
        raise UnsuitableVolume(
            "the samples do not differ anywhere: there is no uncertainty to calibrate", code="no-spread"
        )
    scale = _rms(error) / _rms(deviation)
    groups = np.array_split(np.argsort(deviation, kind="stable"), BINS)
    curve = tuple((scale * _rms(deviation[group]), _rms(error[group])) for group in groups if group.size)
    gap = float(np.mean([abs(said - was) for said, was in curve]) / np.mean([was for _, was in curve]))
    half = INTERVAL * (scale if stated is None else stated) * deviation
    coverage, sharpness = float(np.mean(error <= half)), float(np.mean(2 * half))
    inside, box = (float(stats.spearmanr(*pair).statistic) for pair in ((deviation, error), everywhere))
    return Calibration(scale, inside, box, curve, gap, coverage, sharpness)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
