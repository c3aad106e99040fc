"""A job as data: what the panel, the console, the shell and the cohort all run, and the events it tells them.

A job is one JSON object (`Job`); running it emits events, each one JSON object: started, progress, warning, then result
or error. The worker process prints them as lines on its standard output.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from . import models, provenance
from .documents import BadDocument, decode, encode
from .errors import (
    BadVolume,
    Cancelled,
    DeviceError,
    ModelError,
    MRSuperResError,
    OutputError,
    UnsuitableVolume,
    UsageError,
)
from .inference import (
    Estimate,
    Options,
    estimate,
    plan_translation,
    planning,
    super_resolution,
    super_resolve,
    translate,
)
from .inference.options import stop_if
from .inference.translation import (
    CONTRASTS,
    MOST_SAMPLES,
    check_memory,
    check_view,
    guess_contrast,
    sample_count,
    spelt,
)
from .intensity import IntensityScale
from .models import ModelEntry
from .staging import Staging

if TYPE_CHECKING:
    from .inference import Aligned
    from .inference.translation import TranslationPlan
    from .volume import Grid, Volume

__all__ = ["Cancellation", "Job", "estimate", "estimate_job", "execute", "run_job", "work"]

SCHEMA = 1
FORMATS = (".nii.gz", ".nii", ".nrrd", ".mha")  # what results are written as: one file each, so that it can be renamed
CANCEL_FILE_SECONDS = 0.2  # how often the cancel file is looked for
PLAIN = {"scan", "input", "reference", "truth", *CONTRASTS}  # words of our warnings: a file called so names nobody
GRACE_SECONDS = 1.0  # after a signal, before the worker ends itself in the middle of whatever library call it is in

Emit = Callable[[dict[str, Any]], None]
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
        """What shaped the result, for the records: no paths and nothing left at None."""
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
        first = _first_model(self)
        chosen |= {"super_resolve_with": first.card.id} if first else {}
        chosen |= {"seed": self.seed} if self.task == "translate" else {}
        chosen |= {"register": self.register} if self.reference else {}
        chosen |= {"project": True} if self.project else {}
        return chosen | ({"profile": self.profile} if self.project or self.consistency_map else {})


class Cancellation:
    """Whether the user wants to stop: `pull` it, or create its file. Calling it asks."""

    def __init__(self, file: str | os.PathLike[str] | None = None) -> None:
        self._pulled = threading.Event()
        self._file = Path(file) if file is not None else None
        self._looked = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if self._file is not None and now - self._looked > CANCEL_FILE_SECONDS:
            self._looked = now
            if self._file.exists():
                self.pull()
        return self._pulled.is_set()

    def pull(self) -> None:
        """Stop at the next opportunity."""
        self._pulled.set()

    @contextlib.contextmanager
    def on_signals(self, then: Callable[[], None] | None = None) -> Iterator[Cancellation]:
        """While inside, SIGINT, SIGTERM (and Windows' SIGBREAK) pull; `then` is called after the first of them."""

        def stop(number: int, frame: FrameType | None) -> None:
            first = not self._pulled.is_set()
            self.pull()
            if first and then is not None:
                then()

        names = [name for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
        before = {name: signal.signal(getattr(signal, name), stop) for name in names}
        try:
            yield self
        finally:
            for name, handler in before.items():
                signal.signal(getattr(signal, name), handler)


class Run:
    """One job being run: its events, its clock, its warnings, its temporary files."""

    def __init__(self, job: Job, emit: Emit, cancel: Callable[[], bool], staging: Staging) -> None:
        self.job, self.emit, self.cancel, self.staging = job, emit, cancel, staging
        self.started = time.monotonic()
        self.timings: dict[str, float] = {}
        self.warnings: list[dict[str, str]] = []

    def warn(self, code: str, message: str) -> None:
        """Tell of something the user should know, once."""
        if {"code": code, "message": message} in self.warnings:
            return
        self.warnings.append({"code": code, "message": message})
        self.emit({"event": "warning", "code": code, "message": message})

    def progress(self, stage: str, done: int, total: int, seconds_left: float | None = None) -> None:
        """Tell how far a stage is."""
        left = None if seconds_left is None else round(seconds_left, 1)
        self.emit({"event": "progress", "stage": stage, "done": done, "total": total, "seconds_left": left})

    @contextlib.contextmanager
    def stage(self, name: str, announce: bool = True) -> Iterator[None]:
        """Time a stage, announce it, and stop before and after it if the user wants to."""
        stop_if(self.cancel)
        if announce:
            self.progress(name, 0, 1)
        start = time.monotonic()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.monotonic() - start
        if announce:
            self.progress(name, 1, 1, 0.0)
        stop_if(self.cancel)


def run_job(job: Job, emit: Emit, cancel: Callable[[], bool], staging: Staging | None = None) -> dict[str, Any]:
    """Run `job` in this process, telling `emit` all events but an error, and return the result event.

    Either every output is written or none. Raises `MRSuperResError`; `Cancelled` once `cancel()` is true.
    """
    job.check()
    with staging or Staging() as files:
        run = Run(job, emit, cancel, files)
        entry = _model(job, run.warn)
        places = _places(job, files, entry)
        _use_threads(job.threads)
        with run.stage("reading"):
            volume = _read(job.input, "input", run.warn)
            truth = _read(job.truth, "ground truth", run.warn) if job.truth else None
            reference = _read(job.reference, "reference", run.warn) if job.reference else None
        expected = estimate_job(job, volume.grid)
        planned = _planned(run, entry, volume, expected.grid) if job.task == "translate" else None
        device, precision = _device(job, entry)  # loads torch
        if truth is not None:
            _check_place(truth.grid, expected.grid)
        run.emit(
            {
                "event": "started",
                "input": job.input,
                "model": entry.card.id,
                "digest": entry.digest,
                "device": device,
                "precision": precision,
                "output_size": list(expected.grid.size),
                "output_spacing": list(expected.grid.spacing),
            }
        )
        made = (
            _translated(run, entry, volume, planned)
            if planned
            else _super_resolved(run, entry, volume, reference, expected)
        )
        if truth is not None:
            with run.stage("scoring"):
                made.score(truth, run.warn)
        with run.stage("writing"):
            chosen = {"plane": expected.plane, "slice_axis": expected.slice_axis, "passes": expected.passes}
            how = {"device": device, "precision": precision, "threads": _threads(entry), "chosen": chosen}
            record = _record(run, entry, made, **how)
            try:
                made.write(places, provenance.header_fields(entry, job.parameters))
                _write_text(places["sidecar"], json.dumps(record, indent=2, ensure_ascii=False) + "\n")
            except OutputError as error:
                raise OutputError(files.in_final_names(error.message), code=error.code) from error
        files.commit()
    result = {
        "event": "result",
        "outputs": _outputs(job, len(made.samples)),
        "metrics": made.metrics,
        "provenance": record,
        "seconds": round(time.monotonic() - run.started, 3),
    }
    emit(result)
    return result


def execute(
    job: Job | Callable[[], Job], emit: Emit, cancel: Callable[[], bool], staging: Staging | None = None
) -> int:
    """Run `job` (or what the callable reads), tell `emit` everything, an error as the last event, and return the exit
    code.

    What nobody foresaw becomes the error "internal", with its traceback on standard error. Raises `BrokenPipeError`
    alone: nobody listens to `emit` any more.
    """
    try:
        run_job(job if isinstance(job, Job) else job(), emit, cancel, staging)
    except MRSuperResError as error:
        return _failed(emit, error.code, error.message, error.exit_code)
    except MemoryError:
        text = "this machine's memory ran out: close other programs, or crop the scan"
        return _failed(emit, "memory", text, DeviceError.exit_code)
    except KeyboardInterrupt:
        return _failed(emit, Cancelled.code, "cancelled; nothing was written", Cancelled.exit_code)
    except BrokenPipeError:
        raise
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        what = " ".join(str(error).split())[:200]
        return _failed(emit, "internal", f"{type(error).__name__}: {what} (a bug in MRSuperRes: please report it)", 1)
    return 0


def work(source: str, stream: IO[str], cancel_file: str | None = None) -> int:
    """The worker process: run the job in the file `source` ("-": standard input), write events to `stream`, return the
    exit code.

    It stops on SIGTERM and SIGINT, and once `cancel_file` (by default `source` + ".cancel") exists; if a library call
    holds it longer than `GRACE_SECONDS` after a signal, it removes its temporary files and ends itself.
    """
    lock, staging = threading.Lock(), Staging()
    cancellation = Cancellation(cancel_file or (f"{source}.cancel" if source != "-" else None))

    def emit(event: dict[str, Any]) -> None:
        with lock:
            try:
                stream.write(json.dumps(event, ensure_ascii=True, allow_nan=False) + "\n")
                stream.flush()
            except (BrokenPipeError, ValueError):  # nobody listens any more: no reason to go on
                cancellation.pull()

    def end() -> None:
        staging.discard()
        if staging.committed:
            return
        _failed(emit, Cancelled.code, "cancelled; nothing was written", Cancelled.exit_code)
        os._exit(Cancelled.exit_code)

    def watch() -> None:
        timer = threading.Timer(GRACE_SECONDS, end)
        timer.daemon = True
        timer.start()
        timers.append(timer)

    timers: list[threading.Timer] = []
    with cancellation.on_signals(watch):
        code = execute(lambda: Job.from_json(_source(source)), emit, cancellation, staging)
        for timer in timers:
            timer.cancel()
    return code


def estimate_job(job: Job, grid: Grid | None = None) -> Estimate:
    """What `job` will make and need; `grid` of its input, if known already, spares reading it. Loads no torch."""
    entry = _model(job)
    if grid is None:
        grid = _read(job.input, "input", lambda code, message: None).grid
    wanted = {"factor": job.factor, "spacing": job.spacing, "plane": job.plane, "slice_axis": job.slice_axis}
    if job.task != "translate":
        return estimate(grid, entry, **wanted, contrast=job.contrast, device=job.device)  # type: ignore[arg-type]
    first = _first_model(job)
    if first:
        grid = estimate(grid, first, **wanted, device=job.device).grid  # type: ignore[arg-type]
    return estimate(
        grid,
        entry,
        slice_axis=job.slice_axis,
        contrast=job.contrast,
        device=job.device,
        kept_samples=_kept_samples(job, entry),
    )


@dataclass
class Made:
    """What a job has made so far."""

    job: Job
    result: Volume
    consistency: Volume | None = None
    uncertainty: Volume | None = None
    samples: tuple[Volume, ...] = ()
    error: Volume | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    registration: Mapping[str, Any] | None = None
    translation: Mapping[str, Any] | None = None

    def score(self, truth: Volume, warn: Callable[[str, str], None]) -> None:
        """Metrics and error map against `truth`, first brought onto the result's grid if it lies on another.

        A translation, whose intensities have no unit, is first put on the truth's: robust range onto robust range.
        """
        from . import metrics
        from .volume import Volume, resample

        if not truth.grid.same_as(self.result.grid):
            warn("truth-resampled", "the ground truth lies on another grid than the result: it was resampled (linear)")
            truth = resample(truth, self.result.grid, "linear")
        array = self.result.array
        if self.translation is not None:
            unit = IntensityScale(*self.translation["robust_range"]).to_unit(array)
            array = np.asarray(IntensityScale.of(truth.array).from_unit(unit), dtype=np.float32)
        scores = metrics.summary(array, truth.array)
        self.metrics = {name: value if math.isfinite(value) else None for name, value in scores.items()}
        difference = np.abs(array - truth.array)
        self.error = Volume(difference, self.result.grid, f"{self.result.name} error")

    def write(self, places: Mapping[str, Path], fields: Mapping[str, str]) -> None:
        """Every volume to its temporary place."""
        from .volume import write_volume

        write_volume(self.result, places["output"], fields=fields)
        for name, volume in (
            ("error_map", self.error),
            ("consistency_map", self.consistency),
            ("uncertainty_map", self.uncertainty),
        ):
            if name in places and volume is not None:
                write_volume(volume, places[name], fields=fields)
        for number, sample in enumerate(self.samples):
            write_volume(sample, places[f"sample {number}"], fields=fields)


def _super_resolved(run: Run, entry: ModelEntry, volume: Volume, reference: Volume | None, expected: Estimate) -> Made:
    job = run.job
    if job.project or job.consistency_map:  # here already, so that what cannot be compared is refused before long work
        from . import fidelity

        acquisition = fidelity.acquisition_between(volume.grid, expected.grid, expected.slice_axis, job.profile)
    aligned = _registered(run, entry, volume, reference) if reference is not None else None
    with run.stage("super-resolving", announce=False):
        result = super_resolve(
            volume,
            entry,
            factor=job.factor,
            spacing=job.spacing,
            plane=job.plane,
            reference=aligned,
            options=job.options,
            progress=run.progress,
            warn=run.warn,
            cancel=run.cancel,
        )
    made = Made(job, result)
    if aligned is not None:
        alone = super_resolution.answering(entry, aligned, job.options)
        made.registration = aligned.report if alone is entry else {**aligned.report, "answered_by": alone.card.id}
    if job.consistency_map:
        made.consistency = fidelity.consistency_map(result, volume, acquisition)
    return made


def _registered(run: Run, entry: ModelEntry, volume: Volume, reference: Volume) -> Aligned:
    job = run.job
    super_resolution.check_task(entry, reference)
    made = planning.plan(
        volume.grid,
        entry.card,
        factor=job.factor,
        spacing=job.spacing,
        plane=job.plane,
        slice_axis=job.slice_axis,
        contrast=job.contrast,
    )
    contrast = job.contrast or guess_contrast(volume.name)
    of_reference = job.reference_contrast or guess_contrast(reference.name)
    for why in models.reference_coverage(entry.card, contrast, of_reference):
        run.warn("outside-training", f"'{entry.card.id}': {why}")
    with run.stage("registering", announce=False):
        return super_resolution.align_reference(
            reference, volume, made, job.options, run.warn, run.progress, run.cancel
        )


def _planned(run: Run, entry: ModelEntry, volume: Volume, grid: Grid) -> TranslationPlan:
    """How the volume will be translated, on `grid`: refusals and warnings come before torch is loaded and any long work."""
    job = run.job
    made = plan_translation(
        grid,
        entry.card,
        target=job.target,
        contrast=job.contrast,
        samples=job.samples,
        slice_axis=job.slice_axis,
        name=volume.name,
    )
    if job.uncertainty_map and made.samples < 2:
        raise UsageError(f"'{entry.card.id}' gives one answer only, so no uncertainty map: leave it out")
    for code, message in made.notes:
        run.warn(code, message)
    check_memory(grid, _kept_samples(job, entry))
    return made


def _translated(run: Run, entry: ModelEntry, volume: Volume, planned: TranslationPlan) -> Made:
    job = run.job
    first = _first_model(job, run.warn)
    if first:
        from .volume import check_volume

        volume = check_volume(volume, run.warn)
        axis = planning.translation_axis(volume.grid, job.slice_axis)
        check_view(volume, axis, run.warn)  # of noise, super-resolution would make something smooth
        with run.stage("super-resolving", announce=False):
            volume = super_resolve(
                volume,
                first,
                factor=job.factor,
                spacing=job.spacing,
                plane=job.plane,
                options=replace(job.options, contrast=job.contrast or guess_contrast(volume.name)),
                progress=run.progress,
                warn=run.warn,
                cancel=run.cancel,
            )
    with run.stage("translating", announce=False):
        answer = translate(
            volume,
            entry,
            target=planned.target,
            samples=planned.samples,
            seed=job.seed,
            keep_samples=job.samples_folder is not None,
            options=job.options,
            progress=run.progress,
            warn=run.warn,
            cancel=run.cancel,
        )
    uncertainty = answer.uncertainty if job.uncertainty_map else None
    return Made(job, answer.mean, uncertainty=uncertainty, samples=answer.samples, translation=answer.report)


def _record(run: Run, entry: ModelEntry, made: Made, **how: Any) -> dict[str, Any]:
    """The sidecar. how: device, precision, threads, and what was chosen where the job left it open."""
    job = run.job
    inputs = {"input": job.input, "reference": job.reference, "truth": job.truth}
    digests = {role: provenance.digest_of(path) for role, path in inputs.items() if path}
    more: dict[str, Any] = {"registration": encode(dict(made.registration))} if made.registration is not None else {}
    if made.translation is not None:
        more["translation"] = encode(dict(made.translation))
    first = _first_model(job)
    if first:
        more["super_resolved_with"] = provenance.model_record(first)
    timings = {**run.timings, "total": time.monotonic() - run.started}
    grid = made.result.grid
    return provenance.record(
        entry,
        parameters=job.parameters,
        inputs=digests,
        timings=timings,
        output={"size": list(grid.size), "spacing": list(grid.spacing)},
        metrics=made.metrics,
        warnings=[{**warning, "message": _without_names(warning["message"], job)} for warning in run.warnings],
        **how,
        **more,
    )


def _model(job: Job, warn: Callable[[str, str], None] | None = None) -> ModelEntry:
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
    }
    hint = {
        "super-resolve": "use 'mrsuperres run' without --reference",
        "reference-guided": "give a --reference to 'mrsuperres run'",
        "translate": "use 'mrsuperres translate'",
    }
    raise ModelError(f"'{card.id}' {does[card.task]}, and the task is {job.task}: {hint[card.task]}", code="wrong-task")


def _first_model(job: Job, warn: Callable[[str, str], None] | None = None) -> ModelEntry | None:
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


def _device(job: Job, entry: ModelEntry) -> tuple[str, str]:
    """The device and precision that will be used, in words; interpolation needs neither and loads no torch."""
    if entry.card.is_baseline:
        return "cpu", "fp32"
    from .inference import device

    chosen = device.choose_device(job.device)
    return str(chosen), device.choose_precision(job.precision, chosen)


def _threads(entry: ModelEntry) -> int | None:
    """How many threads of the CPU the network took, which its last digits depend on; None for interpolation."""
    if entry.card.is_baseline:
        return None
    import torch

    return torch.get_num_threads()


def _use_threads(threads: int | None) -> None:
    """Limit SimpleITK as torch is limited."""
    if threads is not None:
        import SimpleITK as sitk

        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def _read(path: str, role: str, warn: Callable[[str, str], None]) -> Volume:
    from .volume import read_volume

    try:
        return read_volume(path, warn=warn)
    except MRSuperResError as error:
        if role == "input":
            raise
        raise BadVolume(f"{role}: {error.message}", code=error.code) from error


def _places(job: Job, files: Staging, entry: ModelEntry) -> dict[str, Path]:
    """A temporary name for every file the job will make; wrong formats, folders and clashes are refused here."""
    taken = {os.path.realpath(path) for path in (job.input, job.reference, job.truth) if path}
    places: dict[str, Path] = {}
    finals = _finals(job, _kept_samples(job, entry))
    if job.samples_folder:
        samples = [Path(path).name for name, path in finals.items() if name.startswith("sample ")]
        _check_samples_folder(files.folder(job.samples_folder), samples)
    for name, path in finals.items():
        if name != "sidecar" and not path.lower().endswith(FORMATS):
            raise UsageError(f"{path}: results are written as {', '.join(FORMATS)}, not as '{Path(path).suffix}'")
        if os.path.realpath(path) in taken:
            raise UsageError(f"{path} is an input of this job: give the {name.replace('_', ' ')} another name")
        if name == "sidecar" and not provenance.is_ours(path):
            raise OutputError(
                f"{path}, where the record of the result goes, holds something else: give the output another name",
                code="sidecar-taken",
            )
        places[name] = files.path(path)
    return places


def _kept_samples(job: Job, entry: ModelEntry) -> int:
    """How many samples will be written beside their mean."""
    return sample_count(entry.card, job.samples) if job.samples_folder else 0


def _check_samples_folder(folder: Path, names: Sequence[str]) -> None:
    """Raise `OutputError` if samples of another job would stay in `folder` beside those called `names`."""
    start = names[0].rpartition("01")[0]
    left = sorted(path.name for path in folder.iterdir() if path.name.startswith(start) and path.name not in names)
    if left:
        raise OutputError(
            f"{folder} holds samples that this job would not overwrite, {left[0]} for one: remove them, or choose another "
            "folder",
            code="samples-there",
        )


def _finals(job: Job, samples: int) -> dict[str, str]:
    """Where every result will be, by its name."""
    maps = ("error_map", "consistency_map", "uncertainty_map")
    finals = {"output": job.output, "sidecar": str(provenance.sidecar_path(job.output))}
    finals |= {name: getattr(job, name) for name in maps if getattr(job, name)}
    if job.samples_folder:
        suffix = next((ending for ending in FORMATS if job.output.lower().endswith(ending)), "")
        stem = Path(job.output).name[: len(Path(job.output).name) - len(suffix)]
        for number in range(samples):
            finals[f"sample {number}"] = str(Path(job.samples_folder) / f"{stem}_sample-{number + 1:02d}{suffix}")
    return finals


def _outputs(job: Job, samples: int) -> dict[str, Any]:
    finals = _finals(job, samples)
    names = ("output", "error_map", "consistency_map", "uncertainty_map", "sidecar")
    drawn = [path for name, path in finals.items() if name.startswith("sample ")]
    return {**{name: finals.get(name) for name in names}, "samples": drawn}


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


def _check_place(truth: Grid, result: Grid) -> None:
    """Raise `UnsuitableVolume` unless a corner or the centre of either box lies inside the other."""
    inside = [
        a.contains(np.vstack((b.corners(), b.corners().mean(axis=0)))).any()
        for a, b in ((truth, result), (result, truth))
    ]
    if not any(inside):
        raise UnsuitableVolume(
            "the ground truth does not lie where the scan lies: is it of the same patient and session?",
            code="truth-elsewhere",
        )


def _failed(emit: Emit, code: str, message: str, exit_code: int) -> int:
    emit({"event": "error", "code": code, "message": " ".join(message.split()), "exit_code": exit_code})
    return exit_code


def _source(source: str) -> str:
    """The text of the job."""
    try:
        return sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the job {source} cannot be read: {error.strerror}", code="bad-job") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the job {source} is not text", code="bad-job") from error


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path.name} cannot be written: {error.strerror}") from error


def _without_names(message: str, job: Job) -> str:
    """`message` with the job's paths and volumes' names, which may name a patient, replaced by what they are."""
    from .volume import volume_name

    roles: dict[str, str] = {}
    for role in ("input", "reference", "truth", "output"):
        path = getattr(job, role)
        if path:
            stem = {volume_name(path)} - PLAIN if role != "output" else set()
            roles |= dict.fromkeys({path, str(Path(path)), Path(path).name} | stem, role)
    names = "|".join(re.escape(name) for name in sorted(roles, key=len, reverse=True) if name)
    whole = rf"(?:the ({'|'.join(set(roles.values()))}) )?(?<![^\W_])({names})(?![^\W_])"
    return re.sub(whole, lambda found: f"the {found[1] or roles[found[2]]}", message)
