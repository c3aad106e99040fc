"""A job as data: one volume, one model, and what to make of them. Plain values, no work, no torch.

Each field says here, once, what it means, what it may be and for which tasks it is. The shell's arguments, the JSON
schema, the checks and the Slicer module's request are derived from it; `fields()` lists them.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from ..contrasts import CONTRASTS, spelt
from ..documents import BadDocument, decode, encode
from ..errors import UsageError
from ..inference import Options
from ..inference.sampling import MOST_SAMPLES
from ..terms import PLANES, Plane, Precision, Profile, Task
from .fields import Field, complaints, described, fields_of, json_schema

SCHEMA = 1
FORMATS = (".nii.gz", ".nii", ".nrrd", ".mha")  # what results are written as: one file each, so that it can be renamed
MOST_THREADS = 256
LARGEST = 2**31 - 1
SUPER_RESOLUTION = ("super-resolve", "reference-guided")
GUIDED = ("reference-guided",)
TRANSLATION = ("translate",)
NAMED = ", ".join(CONTRASTS[:-1]) + f" or {CONTRASTS[-1]}"


@dataclass(frozen=True)
class Job:
    """One volume, one model, and what to make; see `fields()` for each field's help, choices and range.

    Paths are text, `~` is the home folder. None leaves a choice to the program, or a result unmade.
    """

    input: str = described(
        "NIfTI, NRRD, MHA or MGZ file, or the folder of a DICOM series", role="input", metavar="INPUT"
    )
    output: str = described(
        f"file to write ({', '.join(FORMATS)})", role="output", flags=("-o", "--output"), metavar="OUTPUT"
    )
    model: str = described(
        "id (see 'mrsuperres models') or a .safetensors file", role="model", flags=("-m", "--model"), metavar="ID"
    )
    series: str | None = described(
        "which volume of a DICOM folder or file: a key that 'mrsuperres inspect' lists, a UID or a description",
        None,
        metavar="KEY",
    )
    not_labels: bool = described("the volumes are scans, even if they look like label maps", False)
    schema: int = described("version of this form of job", SCHEMA, flags=())
    task: Task = described("what to do", "super-resolve", flags=())
    plane: Plane | None = described(
        "in-plane or through-plane; by default the model's", None, metavar="PLANE", aliases=PLANES
    )
    slice_axis: int | None = described(
        "0, 1 or 2 (i, j, k); by default across square pixels, or the coarsest", None, choices=(0, 1, 2), metavar="A"
    )
    factor: float | None = described("how much finer; by default the model's own factor", None, above=1, metavar="F")
    spacing: tuple[float, float, float] | None = described(
        "mm wanted along i, j, k; the nearest that fits the extent is made", None, above=0, metavar=("X", "Y", "Z")
    )
    to_iso: float | None = described(
        "mm wanted along every axis, exactly; in-plane and through-plane models go in turn where both are needed",
        None,
        tasks=("super-resolve",),
        above=0,
        metavar="MM",
    )
    contrast: str | None = described(f"of the input: {NAMED}; checked against the model", None, metavar="NAME")
    reference: str | None = described(
        "a sharp volume of the same anatomy, for a reference-guided model",
        None,
        tasks=GUIDED,
        role="input",
        metavar="REF",
    )
    reference_contrast: str | None = described(
        "of the reference; by default what its file name tells", None, tasks=GUIDED, metavar="NAME"
    )
    register: bool = described(
        "move the reference to where it fits the scan, if their headers disagree",
        True,
        tasks=GUIDED,
        flags=("--no-register",),
        off="trust the reference's header: do not move it to where it fits the scan",
    )
    truth: str | None = described("a ground truth: the result is scored against it", None, role="input", metavar="HR")
    error_map: str | None = described("write |result - truth|", None, role="output", metavar="PATH")
    consistency_map: str | None = described(
        "write where the result contradicts what was acquired",
        None,
        tasks=SUPER_RESOLUTION,
        role="output",
        metavar="PATH",
    )
    uncertainty_map: str | None = described(
        "write the samples' standard deviation, calibrated", None, tasks=TRANSLATION, role="output", metavar="PATH"
    )
    flags: str | None = described(
        "write a label map of the places that the scan shows unlike healthy brain, which the translation may have lost",
        None,
        tasks=TRANSLATION,
        role="output",
        metavar="PATH",
    )
    samples: int | None = described(
        f"how many plausible answers to draw (8; 1 to {MOST_SAMPLES}); the result is their mean",
        None,
        tasks=TRANSLATION,
        at_least=1,
        at_most=MOST_SAMPLES,
        metavar="N",
    )
    samples_folder: str | None = described(
        "write each of the samples there", None, tasks=TRANSLATION, role="output", metavar="DIR"
    )
    seed: int = described(
        "of the samples: same seed, same result", 0, tasks=TRANSLATION, at_least=0, at_most=LARGEST, metavar="S"
    )
    target: str | None = described(
        "contrast to make: T1w, T2w or FLAIR; by default the only other",
        None,
        tasks=TRANSLATION,
        flags=("--to",),
        metavar="CONTRAST",
    )
    super_resolve_with: str | None = described(
        "super-resolve with this model first: before a translation, or with to_iso in the plane before the slices",
        None,
        tasks=("super-resolve", "translate"),
        role="model",
        flags=("--super-resolve",),
        metavar="MODEL",
    )
    project: bool = described("make the result reproduce the acquired voxels", False, tasks=SUPER_RESOLUTION)
    profile: Profile = described(
        "slice profile assumed for --project and --consistency-map", "gaussian", tasks=SUPER_RESOLUTION
    )
    thickness: float | None = described(
        "slice thickness in mm for those two, below the spacing if there are gaps; by default the file's, else estimated",
        None,
        tasks=SUPER_RESOLUTION,
        above=0,
        metavar="MM",
    )
    preview: bool = described("tell the middle slice in an event before the others are computed", False, flags=())
    overwrite: bool = described("replace files that this program has not made, but never an input", False, role="how")
    skip_existing: bool = described(
        "leave results alone that were made of the same input by the same model in the same way", False, role="how"
    )
    device: str = described("auto (CUDA if there is one), cpu, cuda, cuda:n or mps", "auto", role="how")
    precision: Precision = described("of the network", "auto", role="how")
    tile: int | None = described(
        "at most N x N pixels of a slice at once", None, role="how", at_least=1, at_most=LARGEST, metavar="N"
    )
    batch: int | None = described("slices at once", None, role="how", at_least=1, at_most=LARGEST, metavar="N")
    threads: int | None = described("of the CPU", None, role="how", at_least=1, at_most=MOST_THREADS, metavar="N")
    model_folders: tuple[str, ...] = described(
        "look for models there too (repeatable)", (), role="how", flags=("--models",), metavar="DIR"
    )

    def __post_init__(self) -> None:
        """Spell contrasts in one way, an empty one being none; expand `~` once, for checks and for writing."""
        for name in ("contrast", "reference_contrast", "target"):
            object.__setattr__(self, name, spelt(getattr(self, name) or "") or None)
        for name in PATHS:
            object.__setattr__(self, name, _expanded(getattr(self, name)))
        object.__setattr__(self, "model_folders", tuple(_expanded(folder) for folder in self.model_folders))

    @classmethod
    def from_json(cls, document: str | bytes | Mapping[str, Any]) -> Job:
        """The job in `document`. Raises `UsageError` naming the first field that is unknown, missing or wrong."""
        try:
            value = json.loads(document) if isinstance(document, (str, bytes)) else document
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the job is not valid JSON: {error}", code="bad-job") from error
        try:
            job = decode(cls, value)
        except BadDocument as error:
            raise UsageError(f"the job's {error}" if "." in str(error) else f"job: {error}", code="bad-job") from error
        job.check()
        return job

    def to_json(self) -> str:
        """The job as JSON text; `from_json` gives it back equal."""
        return json.dumps(encode(self))

    def check(self) -> None:
        """Raise `UsageError` for values that contradict each other or are out of range, before anything is read."""
        complaint = next(_complaints(self), None)
        if complaint:
            raise UsageError(complaint)

    @property
    def inputs(self) -> dict[str, str]:
        """The paths that are read, by their role."""
        given = {name: getattr(self, name) for name, field in FIELDS.items() if field.role == "input"}
        return {name: path for name, path in given.items() if path}

    @property
    def options(self) -> Options:
        """The part that says how to run."""
        return Options(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Options)})

    @property
    def parameters(self) -> dict[str, Any]:
        """What shaped the result, nothing left at None; `super_resolve_with` as the job names it, an id or a path."""
        names: tuple[str, ...] = (
            "task",
            "plane",
            "slice_axis",
            "factor",
            "spacing",
            "contrast",
            "reference_contrast",
            "target",
        )
        names = (*names, "samples", "super_resolve_with", "series", "to_iso")
        chosen = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        chosen |= {"seed": self.seed} if self.task == "translate" else {}
        chosen |= {"register": self.register} if self.reference else {}
        chosen |= {"project": True} if self.project else {}
        if self.project or self.consistency_map:
            chosen |= {"profile": self.profile}
            chosen |= {"thickness": self.thickness} if self.thickness is not None else {}
        return chosen


def fields(task: str | None = None) -> tuple[Field, ...]:
    """Every field of a job, or those that concern `task`: name, type, default, help, choices, range. Needs no torch."""
    return tuple(field for field in FIELDS.values() if task is None or not field.tasks or task in field.tasks)


def schema() -> dict[str, Any]:
    """The JSON schema of a job."""
    return json_schema(Job, "MRSuperRes job", "One volume, one model, and what to make of them.")


FIELDS: dict[str, Field] = {field.name: field for field in fields_of(Job)}
PATHS = tuple(name for name, field in FIELDS.items() if field.role in ("input", "output", "model"))
TASK_WORDS: dict[tuple[str, ...], str] = {
    TRANSLATION: "translation",
    SUPER_RESOLUTION: "super-resolution",
    GUIDED: "a reference",
    ("super-resolve",): "super-resolution without a reference",
    ("super-resolve", "translate"): "translation, or super-resolution without a reference,",
}


def _expanded(path: str | None) -> str | None:
    return path if path is None else os.path.expanduser(path)


def _encodable(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _complaints(job: Job) -> Iterator[str]:
    """What makes a job impossible whatever its input, in the order a user would mend it."""
    if job.schema != SCHEMA:
        yield f"the job has schema {job.schema}, this version reads {SCHEMA}"
    for name, field in FIELDS.items():
        value = getattr(job, name)
        if field.required and not value.strip():
            yield f"the job's {name} is empty"
        if field.role in ("input", "output", "model") and value is not None and "\0" in value:
            yield f"the job's {field.words} holds a NUL character, which no path can"
        if field.role in ("input", "output", "model") and value is not None and not _encodable(value):
            yield f"the job's {field.words} holds half a character (a lone surrogate), which no path can"
    yield from complaints(job, FIELDS.values())
    if job.factor is not None and job.spacing is not None:
        yield "both a factor and a spacing are given: give one"
    if job.to_iso is not None and (job.factor is not None or job.spacing is not None):
        yield "a spacing along every axis (to_iso) is given, and a factor or spacing too: give one"
    if job.to_iso is not None and job.consistency_map:
        yield "a consistency map needs a result of the scan's own extent: leave out to_iso, or the map"
    if job.task == "super-resolve" and job.super_resolve_with and job.to_iso is None:
        yield "a model to go first is for translation and for to_iso: leave it out"
    if job.error_map and not job.truth:
        yield "an error map needs a ground truth: add one"
    yield from _task_complaints(job)


def _task_complaints(job: Job) -> Iterator[str]:
    if job.task == "reference-guided" and not job.reference:
        yield "a reference-guided job needs a reference volume: add one"
    if job.task != "reference-guided" and job.reference:
        yield f"a reference is given, and the task is {job.task}: leave it out, or make the task reference-guided"
    if job.reference_contrast and not job.reference:
        yield "the contrast of a reference is given, and no reference: add one"
    if job.uncertainty_map and job.samples == 1:
        yield "an uncertainty map needs at least 2 samples"
    for name, field in FIELDS.items():
        given = getattr(job, name) is not None if field.optional else name == "project" and job.project
        if given and field.tasks and job.task not in field.tasks:
            yield f"{field.words} is for {TASK_WORDS[field.tasks]} only: leave it out"
    if job.task == "translate" and not job.super_resolve_with:
        given_size = next((name for name in ("factor", "spacing", "plane") if getattr(job, name) is not None), None)
        if given_size:
            yield f"translation keeps the grid: a {given_size} needs a model to super-resolve with"


assert set(get_args(Task)) == {task for tasks in TASK_WORDS for task in tasks}
