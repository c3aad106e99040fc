"""Run a job in this process: read, compute, score, record, write all results or none."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import models, provenance
from ..contrasts import guess_contrast, telling_name
from ..documents import encode
from ..errors import (
    BadVolume,
    Cancelled,
    DeviceError,
    MRSuperResError,
    OutputError,
    UnsuitableVolume,
    UsageError,
    told,
)
from ..inference import (
    Estimate,
    estimate,
    plan_translation,
    planning,
    super_resolution,
    super_resolve,
    translate,
)
from ..inference.flags import detector_for
from ..inference.isotropic import isotropic_grid, to_isotropic
from ..inference.translation import check_memory
from ..inference.view_checks import check_view
from ..models import ModelEntry
from ..staging import Staging, clean
from .chosen import first_model_of, kept_samples, model_of, recorded_parameters
from .completed import with_first_model
from .events import Emit, Run, failed
from .existing import check_name, complete_record
from .job import Job
from .outputs import JobOutputs, finals_of, folders_of, outputs_of, places_of, write_text
from .privacy import without_names

if TYPE_CHECKING:
    from ..grid import Grid
    from ..inference import Aligned
    from ..inference.translation import TranslationPlan
    from ..volume import Volume

ROLES = {"input": "input", "reference": "reference", "truth": "ground truth"}  # in words
CHOSEN_THREADS: dict[str, int] = {}  # "before": SimpleITK's number of them, while another one is in use


def run_job(job: Job, emit: Emit, cancel: Callable[[], bool], staging: Staging | None = None) -> dict[str, Any]:
    """Run `job` in this process, telling `emit` all events but an error, and return the result event.

    Either every output is written or none. Raises `MRSuperResError`; `Cancelled` once `cancel()` is true.
    """
    job.check()
    with staging or Staging() as files:
        run = Run(job, emit, cancel, files)
        entry = model_of(job, run.warn)
        for folder in folders_of(job, entry):
            clean(folder)  # what a killed run had begun to put there is ours only once all of it is there
        if job.skip_existing and (record := complete_record(job, entry, finals_of(job, entry))):
            return _left_alone(run, entry, record)
        places = places_of(job, files, entry)
        check_name(job, run.warn)
        _use_threads(job.threads)
        with run.stage("reading"):
            volume = read_input(job, run.warn)
            truth = _read(job, job.truth, "ground truth", run.warn) if job.truth else None
            reference = _read(job, job.reference, "reference", run.warn) if job.reference else None
        for role, path in job.inputs.items():
            if maker := provenance.made_by(path):
                run.warn(f"{role}-made", f"the {ROLES[role]} is no scan: its record says that {maker} made it")
        asked, job = job, with_first_model(job, volume)
        run.job = job
        for why in models.subject_coverage(entry.card, volume):
            run.warn("outside-training", f"'{entry.card.id}': {why}")
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
            try:
                parameters = recorded_parameters(asked)
                made.write(places, provenance.header_fields(entry, parameters))
                written = provenance.files_record(places)
                earlier = provenance.earlier_files(finals_of(job, entry)["sidecar"], written)
                how |= {"parameters": parameters, "files": written, **earlier}
                record = _record(run, entry, made, **how)
                write_text(places["sidecar"], json.dumps(record, indent=2, ensure_ascii=False) + "\n")
            except OutputError as error:
                raise OutputError(files.in_final_names(error.message), code=error.code) from error
        files.commit()
    return _result(run, len(made.samples), made.metrics, record)


def _left_alone(run: Run, entry: ModelEntry, record: dict[str, Any]) -> dict[str, Any]:
    """The result of an earlier run of this job, which is whole."""
    metrics = record.get("metrics") or {}
    return _result(run, kept_samples(run.job, entry), metrics, record, skipped=True)


def _result(run: Run, samples: int, metrics: dict[str, Any], record: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Tell the result."""
    result = {
        "event": "result",
        "outputs": outputs_of(run.job, samples),
        "metrics": metrics,
        "provenance": record,
        "seconds": round(time.monotonic() - run.started, 3),
        **more,
    }
    run.emit(result)
    return result


def execute(
    job: Job | Callable[[], Job], emit: Emit, cancel: Callable[[], bool], staging: Staging | None = None
) -> int:
    """Run `job` (or what the callable reads), tell `emit` everything, an error as the last event, and return the exit
    code.

    What nobody foresaw becomes the error "internal", with its traceback on standard error. `emit` must not raise.
    """
    try:
        run_job(job if isinstance(job, Job) else job(), emit, cancel, staging)
    except MRSuperResError as error:
        return failed(emit, error.code, error.message, error.exit_code)
    except MemoryError:
        text = "this machine's memory ran out: close other programs, or crop the scan"
        return failed(emit, "memory", text, DeviceError.exit_code)
    except KeyboardInterrupt:
        return failed(emit, Cancelled.code, "cancelled; nothing was written", Cancelled.exit_code)
    except OSError as error:
        return failed(emit, "system", told(error), OutputError.exit_code)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        what = " ".join(str(error).split())[:200]
        return failed(emit, "internal", f"{type(error).__name__}: {what} (a bug in MRSuperRes: please report it)", 1)
    return 0


def estimate_job(job: Job, grid: Grid | None = None) -> Estimate:
    """What `job` will make and need; `grid` of its input, if known already, spares reading it. Loads no torch."""
    entry = model_of(job)
    if grid is None:
        grid = read_input(job, lambda code, message: None).grid
    wanted = {"factor": job.factor, "spacing": job.spacing, "plane": job.plane, "slice_axis": job.slice_axis}
    if job.to_iso is not None:
        made = estimate(grid, entry, spacing=(job.to_iso,) * 3, contrast=job.contrast, device=job.device)
        return replace(made, grid=isotropic_grid(grid, job.to_iso))
    if job.task != "translate":
        return estimate(grid, entry, **wanted, contrast=job.contrast, device=job.device)  # type: ignore[arg-type]
    first = first_model_of(job)
    if first:
        grid = estimate(grid, first, **wanted, device=job.device).grid  # type: ignore[arg-type]
    return estimate(
        grid,
        entry,
        slice_axis=job.slice_axis,
        contrast=job.contrast,
        device=job.device,
        kept_samples=kept_samples(job, entry),
    )


def _super_resolved(
    run: Run, entry: ModelEntry, volume: Volume, reference: Volume | None, expected: Estimate
) -> JobOutputs:
    job = run.job
    if job.to_iso is not None:
        with run.stage("super-resolving", announce=False):
            first = first_model_of(job, run.warn)
            more = {"options": job.options, "progress": run.progress, "warn": run.warn, "cancel": run.cancel}
            return JobOutputs(job, to_isotropic(volume, job.to_iso, entry, first, **more))  # type: ignore[arg-type]
    if job.consistency_map:  # here already, so that what cannot be compared is refused before long work
        from .. import fidelity

        thickness = fidelity.slice_thickness(volume, expected.slice_axis, job.thickness, job.profile, run.warn)
        acquisition = fidelity.acquisition_between(
            volume.grid, expected.grid, expected.slice_axis, job.profile, thickness
        )
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
            preview=run.preview if job.preview else None,
        )
    made = JobOutputs(job, result)
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
    contrast = job.contrast or guess_contrast(telling_name(volume.name, volume.metadata))
    of_reference = job.reference_contrast or guess_contrast(telling_name(reference.name, reference.metadata))
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
        name=telling_name(volume.name, volume.metadata),
    )
    if job.uncertainty_map and made.samples < 2:
        raise UsageError(f"'{entry.card.id}' gives one answer only, so no uncertainty map: leave it out")
    if job.flags and detector_for(made.source, job.options) is None:
        raise UnsuitableVolume(
            f"no lesion detector for {made.source} is installed, so no flags can be written: leave them out, or install one",
            code="not-flagged",
        )
    for code, message in made.notes:
        run.warn(code, message)
    check_memory(grid, kept_samples(job, entry))
    return made


def _translated(run: Run, entry: ModelEntry, volume: Volume, planned: TranslationPlan) -> JobOutputs:
    job = run.job
    first = first_model_of(job, run.warn)
    if first:
        from ..volume import check_volume

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
                options=replace(
                    job.options, contrast=job.contrast or guess_contrast(telling_name(volume.name, volume.metadata))
                ),
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
            preview=run.preview if job.preview else None,
        )
    uncertainty = answer.uncertainty if job.uncertainty_map else None
    return JobOutputs(
        job,
        answer.mean,
        uncertainty=uncertainty,
        flags=answer.flags.labels if answer.flags else None,
        samples=answer.samples,
        translation=answer.report,
    )


def _record(run: Run, entry: ModelEntry, made: JobOutputs, **how: Any) -> dict[str, Any]:
    """The sidecar. how: parameters, files, device, precision, threads, and what was chosen where the job left it open."""
    job = run.job
    more: dict[str, Any] = {"registration": encode(dict(made.registration))} if made.registration is not None else {}
    if made.translation is not None:
        more["translation"] = encode(dict(made.translation))
    first = first_model_of(job)
    if first:
        more["super_resolved_with"] = provenance.model_record(first)
    timings = {**run.timings, "total": time.monotonic() - run.started}
    grid = made.result.grid
    return provenance.record(
        entry,
        inputs=provenance.inputs_record(job.inputs),
        timings=timings,
        output={"size": list(grid.size), "spacing": list(grid.spacing)},
        metrics=made.metrics,
        warnings=[{**warning, "message": without_names(warning["message"], job)} for warning in run.warnings],
        **how,
        **more,
    )


def _device(job: Job, entry: ModelEntry) -> tuple[str, str]:
    """The device and precision that will be used, in words; interpolation needs neither and loads no torch."""
    if entry.card.is_baseline:
        return "cpu", "fp32"
    from ..inference import device

    chosen = device.choose_device(job.device)
    return str(chosen), device.choose_precision(job.precision, chosen, entry.card.requirements.bf16)


def _threads(entry: ModelEntry) -> int | None:
    """How many threads of the CPU the network took, which its last digits depend on; None for interpolation."""
    if entry.card.is_baseline:
        return None
    import torch

    return torch.get_num_threads()


def _use_threads(threads: int | None) -> None:
    """Limit SimpleITK as torch is limited; None: as before an earlier job of this process asked for a number."""
    if threads is None and "before" not in CHOSEN_THREADS:
        return
    import SimpleITK as sitk

    if threads is not None:
        CHOSEN_THREADS.setdefault("before", sitk.ProcessObject.GetGlobalDefaultNumberOfThreads())
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(CHOSEN_THREADS.pop("before") if threads is None else threads)


def read_input(job: Job, warn: Callable[[str, str], None]) -> Volume:
    from ..io.read import read_volume

    try:
        return read_volume(job.input, warn=warn, series=job.series, allow_labels=job.not_labels)
    except OSError as error:
        raise BadVolume(f"{job.input} cannot be read: {error.strerror}", code="unreadable") from error


def _read(job: Job, path: str, role: str, warn: Callable[[str, str], None]) -> Volume:
    from ..io.read import read_volume

    try:
        return read_volume(path, warn=warn, allow_labels=job.not_labels)
    except MRSuperResError as error:
        raise BadVolume(f"{role}: {error.message}", code=error.code) from error
    except OSError as error:
        raise BadVolume(f"{role}: {path} cannot be read: {error.strerror}", code="unreadable") from error


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
