"""What lies already where a job's results go: another's file is never replaced, and a complete result can be left alone."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import models, provenance
from ..contrasts import guess_contrast
from ..documents import encode
from ..errors import ModelError, OutputError, UsageError
from ..inference.flags import detector_for
from ..inference.uncertainty import error_network_for
from ..io.formats import volume_name
from ..io.sidecar import path_beside
from ..models import ModelEntry
from .chosen import recorded_parameters
from .job import FIELDS, Job

SIDECAR = "sidecar"
BIDS = re.compile(r"sub-[A-Za-z0-9]+_")


def check_existing(job: Job, finals: Mapping[str, str]) -> None:
    """Raise unless every file of `finals` (by its role) is new, or was made here and is as it was made.

    `UsageError` if one is an input of this job, by whatever name; `OutputError` for a file that no record of ours
    vouches for, unless the job says `overwrite`.
    """
    inputs = [path for name, field in FIELDS.items() if field.role == "input" and (path := getattr(job, name))]
    beside = [str(path_beside(Path(path))) for path in inputs if not os.path.isdir(path)]
    record = provenance.read_record(finals[SIDECAR])
    for role, path in finals.items():
        words = role.replace("_", " ")
        if any(_same(path, other) for other in inputs):
            raise UsageError(f"{path} is an input of this job: give the {words} another name")
        if role == SIDECAR and record is None and os.path.exists(path) and any(_same(path, other) for other in beside):
            raise UsageError(f"{path} tells about an input of this job (BIDS): give the output another name")
        if job.overwrite or not os.path.lexists(path):
            continue
        if role == SIDECAR:
            if record is None:
                raise OutputError(
                    f"{path}, where the record of the result goes, holds something else: give the output another name",
                    code="sidecar-taken",
                )
        elif not provenance.vouched(path, record) and not provenance.vouched_in(path, _folders(path, job.output)):
            raise OutputError(
                f"{path} is there already and was not made by this program, or was changed since: give the {words} "
                "another name, or say --overwrite",
                code="not-ours",
            )


def check_name(job: Job, warn: Callable[[str, str], None]) -> None:
    """Warn if a synthetic image gets the name that a real scan would have in a BIDS study."""
    name = os.path.basename(job.output)
    if job.task == "translate" and BIDS.match(name) and "_desc-" not in name:
        start, _, end = name.rpartition("_")
        text = f"{name} is what a real scan would be called: name a synthetic one {start}_desc-synthetic_{end}"
        warn("synthetic-name", text)


def complete_record(job: Job, entry: ModelEntry, finals: Mapping[str, str]) -> dict[str, Any] | None:
    """The record of `finals` if all of them were made of the same inputs by the same models in the same way, else None."""
    record = provenance.read_record(finals[SIDECAR])
    if record is None or not all(os.path.isfile(path) for path in finals.values()):
        return None
    same = (
        record.get("model", {}).get("digest") == entry.digest
        and record.get("parameters") == encode(recorded_parameters(job))
        and _first_as_then(job, record)
        and _translated_as_then(job, entry, record)
        and record.get("inputs") == provenance.inputs_record(job.inputs)
        and record.get("files", {}).keys() == {role for role in finals if role != SIDECAR}
        and all(provenance.vouched(path, record) for role, path in finals.items() if role != SIDECAR)
    )
    return record if same else None


def _first_as_then(job: Job, record: Mapping[str, Any]) -> bool:
    """Whether the model that went first, asked for or chosen, is the one that is installed now."""
    first = _part(record, "super_resolved_with")
    try:
        name = job.super_resolve_with or first.get("id")
        return not name or models.find_model(name, job.model_folders).digest == first.get("digest")
    except ModelError:
        return False


def _translated_as_then(job: Job, entry: ModelEntry, record: Mapping[str, Any]) -> bool:
    """Whether a translation would start from the same contrast, and be judged by the same detector and error network."""
    if job.task != "translate":
        return True
    told = _part(record, "translation")
    source = str(told.get("source"))
    named = None if job.contrast or os.path.isdir(job.input) else guess_contrast(volume_name(job.input))
    detector = detector_for(source, job.options, _untold)
    judged = _part(told, "uncertainty")
    network = error_network_for(entry, job.options, _untold) if judged else None
    return (
        named in (None, source)
        and _part(told, "flags").get("digest") == (detector.digest if detector else None)
        and judged.get("digest") == (network.digest if network else None)
    )


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = record.get(name)
    return part if isinstance(part, dict) else {}


def _untold(code: str, message: str) -> None:
    """The run tells it, if there is one."""


def _folders(*paths: str) -> set[str]:
    return {os.path.dirname(os.path.realpath(path)) for path in paths}


def _same(path: str, other: str) -> bool:
    """Whether both name one file, or one is a folder that holds the other."""
    whole, source = os.path.realpath(path), os.path.realpath(other)
    if whole == source or (os.path.isdir(source) and Path(source) in Path(whole).parents and os.path.lexists(whole)):
        return True
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False
