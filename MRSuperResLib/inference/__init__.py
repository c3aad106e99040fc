"""From a volume and a model to a volume: planning, slices, tiles, precision, memory. Importing this loads no torch."""

from __future__ import annotations

from .options import Aligned, Cancel, Options, Progress, Translation, Warn
from .planning import Estimate, Plan, estimate, plan
from .super_resolution import super_resolve
from .translation import plan_translation, translate

__all__ = [
    "Aligned",
    "Cancel",
    "Estimate",
    "Options",
    "Plan",
    "Progress",
    "Translation",
    "Warn",
    "estimate",
    "plan",
    "plan_translation",
    "super_resolve",
    "translate",
]
