"""Moved to `evaluation.feature_distances`."""

from .evaluation.feature_distances import *  # noqa: F403 - moved
