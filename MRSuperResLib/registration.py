"""Moved to `inference.registration`."""

from .inference.registration import *  # noqa: F403 - moved
