"""Moved to `parts.projection`."""

from .parts.projection import back_projected as back_projected
from .parts.projection import bicubic as bicubic
