"""Moved to `evaluation.metrics`."""

from .evaluation.metrics import *  # noqa: F403 - moved
