"""A request that leaves model, factor or output open: chosen from the scan, the result named beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..inference.recommend import recommend
from ..io.formats import volume_name
from ..volume import Volume
from .job import FORMATS, Job

BIDS_SUFFIX = re.compile(r"(.*_)([A-Za-z0-9]+)$")  # "sub-01_ses-1_" and "T1w"


def completed(given: Mapping[str, Any], volume: Volume) -> tuple[Job, str]:
    """The job that `given`, fields of one, asks for with `volume`, and why the model was chosen; "" if it was given.

    Without a model: the one that `recommend` finds, with its plane and factor unless they are given. Without
    an output: `beside` the input. Raises `UnsuitableVolume` where nothing is given and the scan is fine as it is.
    """
    fields, why = dict(given), ""
    if not fields.get("model"):
        chosen = recommend(
            volume,
            contrast=fields.get("contrast"),
            thickness=fields.get("thickness"),
            to_iso=fields.get("to_iso"),
            guided=bool(fields.get("reference")),
            finer=any(fields.get(name) is not None for name in ("factor", "spacing", "plane")),
            model_folders=fields.get("model_folders", ()),
        )
        chosen.check()
        why, fields["model"], fields["task"] = f"{chosen.why} (chosen: {chosen.model})", chosen.model, chosen.task
        if fields.get("to_iso") is None:
            fields["plane"] = fields.get("plane") or chosen.plane
            if fields.get("factor") is None and fields.get("spacing") is None:
                fields["factor"] = chosen.factor
    if not fields.get("output"):
        mm = fields.get("to_iso")
        description = "sr" if mm is None else f"iso{f'{mm:g}'.replace('.', 'p')}mm"
        fields["output"] = beside(fields["input"], description, fields.get("series") or "")
    return Job(**fields), why


def with_first_model(job: Job, volume: Volume) -> Job:
    """`job` with the model that refines `volume` in the plane first, where its `to_iso` needs one and it names none."""
    if job.to_iso is None or job.super_resolve_with:
        return job
    found = recommend(
        volume,
        contrast=job.contrast,
        thickness=job.thickness,
        to_iso=job.to_iso,
        model_folders=job.model_folders,
    )
    return replace(job, super_resolve_with=found.first or None)


def beside(path: str, description: str, series: str = "") -> str:
    """A name for a result beside the file or folder `path`, as BIDS names derivatives: `_desc-` before the contrast.

    Two scans of one name get two: series of a folder by their keys, files of other formats by their suffixes.
    """
    place, name = Path(path), volume_name(path)
    suffix = next((suffix for suffix in FORMATS if place.name.lower().endswith(suffix)), FORMATS[0])
    if series:
        name += "_series-" + re.sub(r"[^A-Za-z0-9]+", "", series)
    elif place.name != name + suffix and os.path.lexists(place.with_name(name + suffix)):
        name += re.sub(r"[^A-Za-z0-9]+", "-", place.name[len(name) :]).rstrip("-")
    bids = BIDS_SUFFIX.match(name) if name.startswith("sub-") else None
    named = f"{bids[1]}desc-{description}_{bids[2]}" if bids else f"{name}_desc-{description}"
    return str(place.parent / f"{named}{suffix}")
