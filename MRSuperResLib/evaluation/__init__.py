"""How good results are: degrade and score super-resolution, score translations, tables and figures of both."""

from __future__ import annotations

from .degrade import DegradedPair, acquired_axis, degraded_pair
from .figures import check_figure, figure
from .super_resolution import Row, evaluate, publish, scan_names, score, with_baselines
from .tables import gains, table, to_json

__all__ = [
    "DegradedPair",
    "Row",
    "acquired_axis",
    "check_figure",
    "degraded_pair",
    "evaluate",
    "figure",
    "gains",
    "publish",
    "scan_names",
    "score",
    "table",
    "to_json",
    "with_baselines",
]
