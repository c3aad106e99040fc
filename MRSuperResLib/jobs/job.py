"""A job as data: one volume, one model, and what to make of them. Plain values, no work."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..documents import BadDocument, decode, encode
from ..errors import UsageError
from ..inference import Options
from ..inference.translation import MOST_SAMPLES, spelt

SCHEMA = 1
FORMATS = (".nii.gz", ".nii", ".nrrd", ".mha")  # what results are written as: one file each, so that it can be renamed
Task = Literal["super-resolve", "reference-guided", "translate"]


@dataclass(frozen=True)
class Job:
    """One volume, one model, and what to make. Paths are text; None leaves a choice to the program, or a result unmade.

    spacing: mm along i, j, k. truth: a volume to score against; error_map: |result - truth| on the result's grid.
    consistency_map: what the result would have been acquired as minus what was, on the input's grid. target: contrast
    to translate to. samples: answers to draw, of which the result is the mean. super_resolve_with: a model to apply
    before translating. project: make the result reproduce the acquired voxels, assuming slices of that profile.
    reference_contrast: None for what the reference's name tells.
    """

    input: str
    output: str
    model: str
    schema: int = SCHEMA
    task: Task = "super-resolve"
    plane: Literal["in-plane", "through-plane"] | None = None
    slice_axis: int | None = None
    factor: float | None = None
    spacing: tuple[float, float, float] | None = None
    contrast: str | None = None
    reference: str | None = None
    reference_contrast: str | None = None
    register: bool = True
    truth: str | None = None
    error_map: str | None = None
    consistency_map: str | None = None
    uncertainty_map: str | None = None
    samples: int | None = None
    samples_folder: str | None = None
    seed: int = 0
    target: str | None = None
    super_resolve_with: str | None = None
    project: bool = False
    profile: Literal["gaussian", "box", "sinc", "kspace", "bicubic"] = "gaussian"
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    tile: int | None = None
    batch: int | None = None
    threads: int | None = None
    model_folders: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Spell contrasts in one way; an empty one is none."""
        for name in ("contrast", "reference_contrast", "target"):
            object.__setattr__(self, name, spelt(getattr(self, name) or "") or None)

    @classmethod
    def from_json(cls, document: str | bytes | Mapping[str, Any]) -> Job:
        """The job in `document`. Raises `UsageError` naming the first field that is unknown, missing or wrong."""
        try:
            value = json.loads(document) if isinstance(document, (str, bytes)) else document
        except ValueError as error:
            raise UsageError(f"the job is not valid JSON: {error}", code="bad-job") from error
        try:
            job = decode(cls, value)
        except BadDocument as error:
            raise UsageError(f"the job's {error}" if "." in str(error) else f"job: {error}", code="bad-job") from error
        job.check()
        return job

    def to_json(self) -> str:
        """The job as JSON text; `from_json` gives it back equal."""
        return json.dumps(encode(self), ensure_ascii=False)

    def check(self) -> None:
        """Raise `UsageError` for values that contradict each other or are out of range, before anything is read."""
        complaint = next(_complaints(self), None)
        if complaint:
            raise UsageError(complaint)

    @property
    def options(self) -> Options:
        """The part that says how to run."""
        return Options(
            device=self.device,
            precision=self.precision,
            tile=self.tile,
            batch=self.batch,
            threads=self.threads,
            slice_axis=self.slice_axis,
            contrast=self.contrast,
            register=self.register,
            project=self.project,
            profile=self.profile,
            model_folders=self.model_folders,
        )

    @property
    def parameters(self) -> dict[str, Any]:
        """What shaped the result, nothing left at None; `super_resolve_with` as the job names it, an id or a path."""
        names = (
            "task",
            "plane",
            "slice_axis",
            "factor",
            "spacing",
            "contrast",
            "reference_contrast",
            "target",
            "samples",
        )
        chosen = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        chosen |= {"super_resolve_with": self.super_resolve_with} if self.super_resolve_with else {}
        chosen |= {"seed": self.seed} if self.task == "translate" else {}
        chosen |= {"register": self.register} if self.reference else {}
        chosen |= {"project": True} if self.project else {}
        return chosen | ({"profile": self.profile} if self.project or self.consistency_map else {})


def _complaints(job: Job) -> Iterator[str]:
    """What makes a job impossible whatever its input, in the order a user would mend it."""
    if job.schema != SCHEMA:
        yield f"the job has schema {job.schema}, this version reads {SCHEMA}"
    for name in ("input", "output", "model"):
        if not getattr(job, name).strip():
            yield f"the job's {name} is empty"
    if job.slice_axis is not None and job.slice_axis not in (0, 1, 2):
        yield f"slice axis is {job.slice_axis}, expected 0, 1 or 2 (i, j or k)"
    if job.factor is not None and job.spacing is not None:
        yield "both a factor and a spacing are given: give one"
    if job.factor is not None and not job.factor > 1:
        yield f"factor is {job.factor:g}, expected more than 1"
    if job.spacing is not None and not all(math.isfinite(mm) and mm > 0 for mm in job.spacing):
        yield f"spacing is {job.spacing}, expected three positive numbers of mm"
    for name in ("tile", "batch", "threads"):
        value = getattr(job, name)
        if value is not None and value < 1:
            yield f"{name} is {value}, expected at least 1"
    if job.error_map and not job.truth:
        yield "an error map needs a ground truth: add one"
    if job.seed < 0:
        yield f"seed is {job.seed}, expected 0 or more"
    yield from _task_complaints(job)


def _task_complaints(job: Job) -> Iterator[str]:
    if job.task == "reference-guided" and not job.reference:
        yield "a reference-guided job needs a reference volume: add one"
    if job.task != "reference-guided" and job.reference:
        yield f"a reference is given, and the task is {job.task}: leave it out, or make the task reference-guided"
    if job.reference_contrast and not job.reference:
        yield "the contrast of a reference is given, and no reference: add one"
    if job.task == "translate":
        if job.samples is not None and not 1 <= job.samples <= MOST_SAMPLES:
            yield f"{job.samples} samples are asked for, expected 1 to {MOST_SAMPLES}"
        if job.uncertainty_map and job.samples == 1:
            yield "an uncertainty map needs at least 2 samples"
        if job.consistency_map or job.project:
            yield "consistency with the acquisition is defined for super-resolution only: leave it out when translating"
        if not job.super_resolve_with:
            sizes = ("factor", "spacing", "plane")
            given = next((name for name in sizes if getattr(job, name) is not None), None)
            if given:
                yield f"translation keeps the grid: a {given} needs a model to super-resolve with"
        return
    names = ("uncertainty_map", "samples", "samples_folder", "target", "super_resolve_with")
    given = next((name for name in names if getattr(job, name) is not None), None)
    if given:
        yield f"{given.replace('_', ' ')} is for translation only: leave it out"
