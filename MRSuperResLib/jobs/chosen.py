"""The models that a job names, found and checked against its task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import models
from ..contrasts import CONTRASTS
from ..errors import ModelError, UsageError
from ..inference.sampling import sample_count
from ..models import ModelEntry
from .job import Job


def model_of(job: Job, warn: Callable[[str, str], None] | None = None) -> ModelEntry:
    """The job's model, which must be one for the job's task, and know the scan's contrast."""
    entry = models.find_model(job.model, job.model_folders, warn)
    card = entry.card
    if card.task == job.task:
        known = tuple(dict.fromkeys((*CONTRASTS, *card.contrasts)))
        if job.contrast is not None and job.contrast not in known:
            raise UsageError(f"contrast is '{job.contrast}', expected {', '.join(known)}", code="unknown-contrast")
        known = tuple(dict.fromkeys((*CONTRASTS, *card.reference_contrasts)))
        if job.reference_contrast is not None and job.reference_contrast not in known:
            text = f"reference contrast is '{job.reference_contrast}', expected {', '.join(known)}"
            raise UsageError(text, code="unknown-contrast")
        return entry
    does = {
        "super-resolve": "super-resolves",
        "reference-guided": "super-resolves with a reference",
        "translate": "translates",
        "prior": "only draws slices, as the first stage of another model",
        "flag": "finds lesions in scans that are translated",
        "error": "says where translations are wrong",
    }
    hint = {
        "super-resolve": "use 'mrsuperres run' without --reference",
        "reference-guided": "give a --reference to 'mrsuperres run'",
        "translate": "use 'mrsuperres translate'",
        "prior": "train the second stage with --init, and use that",
        "flag": "translate, and it is used",
        "error": "translate, and it is used",
    }
    raise ModelError(f"'{card.id}' {does[card.task]}, and the task is {job.task}: {hint[card.task]}", code="wrong-task")


def first_model_of(job: Job, warn: Callable[[str, str], None] | None = None) -> ModelEntry | None:
    """The model to apply before translating; None if the job names none."""
    if not job.super_resolve_with:
        return None
    entry = models.find_model(job.super_resolve_with, job.model_folders, warn)
    if entry.card.task != "super-resolve":
        raise ModelError(
            f"'{entry.card.id}' does not super-resolve without a reference: before translating, choose a model that does",
            code="wrong-task",
        )
    return entry


def kept_samples(job: Job, entry: ModelEntry) -> int:
    """How many samples will be written beside their mean."""
    return sample_count(entry.card, job.samples) if job.samples_folder else 0


def recorded_parameters(job: Job) -> dict[str, Any]:
    """The job's parameters for the records: models by id, no paths."""
    first = first_model_of(job)
    return job.parameters | ({"super_resolve_with": first.card.id} if first else {})
