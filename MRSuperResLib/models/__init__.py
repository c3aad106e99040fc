"""Models as data: one `.safetensors` file each, whose metadata carries the card that says what the model is for."""

from __future__ import annotations

from .card import (
    IDENTIFIER,
    INTERPOLATION,
    SCHEMA,
    ModelCard,
    ModelEntry,
    Paper,
    Plane,
    Requirements,
    Score,
    Source,
    SpacingRange,
    Task,
    Training,
)
from .coverage import TOLERANCE, contrast_coverage, coverage, reference_coverage, shown_grid, subject_coverage
from .kept import keep_networks, kept_network
from .package import SUFFIX, load_network, read_entry, save_model, verify
from .registry import BASELINES, Warn, baselines, default_folders, find_model, list_models, user_folder

__all__ = [
    "BASELINES",
    "IDENTIFIER",
    "INTERPOLATION",
    "SCHEMA",
    "SUFFIX",
    "TOLERANCE",
    "ModelCard",
    "ModelEntry",
    "Paper",
    "Plane",
    "Requirements",
    "Score",
    "Source",
    "SpacingRange",
    "Task",
    "Training",
    "Warn",
    "baselines",
    "contrast_coverage",
    "coverage",
    "default_folders",
    "find_model",
    "keep_networks",
    "kept_network",
    "list_models",
    "load_network",
    "read_entry",
    "reference_coverage",
    "save_model",
    "shown_grid",
    "subject_coverage",
    "user_folder",
    "verify",
]
