"""Moved to `parts.patchgan`."""

from .parts.patchgan import MultiScaleDiscriminator as MultiScaleDiscriminator
