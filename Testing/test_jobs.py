"""A job from its JSON to its files: what is refused, what is dispatched, what is recorded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import REPOSITORY, left_in, run, save_tiny

from MRSuperResLib import jobs, models
from MRSuperResLib.errors import Cancelled, ModelError, OutputError, UsageError
from MRSuperResLib.grid import Grid
from MRSuperResLib.inference import Aligned, Translation
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.jobs import Job
from MRSuperResLib.jobs.privacy import without_names
from MRSuperResLib.models import Requirements
from MRSuperResLib.provenance import digest_of, sidecar_path
from MRSuperResLib.volume import Volume

pytestmark = pytest.mark.usefixtures("no_models_of_this_machine")


# errors


def test_an_unforeseen_error_is_one_line_and_its_traceback_goes_to_the_log(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(jobs.run, "super_resolve", broken)
    last = run(job)[-1]
    assert last["code"] == "internal" and last["exit_code"] == 1
    assert last["message"] == "ZeroDivisionError: division by zero (a bug in MRSuperRes: please report it)"
    assert "Traceback" in capsys.readouterr().err


def test_host_memory_running_out_is_a_device_error(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(jobs.run, "super_resolve", full)
    assert run(job)[-1]["exit_code"] == 6


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected an object"),
        ({}, "input is missing"),
        ({"input": "a", "output": "b.nii"}, "model is missing"),
        ({"colour": 1}, "colour is not a known field"),
        ({"schema": 2}, "schema 2"),
        ({"task": "paint"}, 'task is "paint", expected one of super-resolve'),
        ({"factor": "4"}, 'factor is "4", expected a number'),
        ({"factor": True}, "factor is true, expected a number"),
        ({"factor": 1}, "factor is 1, expected more than 1"),
        ({"factor": 2, "spacing": [1, 1, 1]}, "give one"),
        ({"spacing": [1, 1]}, "spacing has 2 values, expected 3"),
        ({"spacing": [1, 1, 0]}, "positive"),
        ({"slice_axis": 4}, "expected 0, 1 or 2"),
        ({"slice_axis": 1.5}, "expected a whole number"),
        ({"profile": "round"}, "expected one of gaussian"),
        ({"precision": "int8"}, "expected one of auto"),
        ({"tile": 0}, "tile is 0, expected at least 1"),
        ({"threads": 10**9}, "threads is 1000000000, expected at most 256"),
        ({"seed": 10**30}, "seed is 10{30}, expected at most"),
        ({"factor": 10**400}, "factor is 1.*, expected a finite number"),
        ({"thickness": 0}, "thickness is 0, expected a positive number"),
        ({"reference": "a\0b"}, "NUL"),
        ("[" * 100_000, "not valid JSON"),
        ({"model": " "}, "model is empty"),
        ({"error_map": "e.nii"}, "needs a ground truth"),
        ({"task": "reference-guided"}, "needs a reference"),
        ({"reference": "r.nii"}, "leave it out, or make the task reference-guided"),
        ({"samples": 3}, "for translation only"),
        ({"task": "translate", "samples": 0}, "samples is 0, expected at least 1"),
        ({"task": "translate", "samples": 10000}, "samples is 10000, expected at most 100"),
        ({"task": "translate", "samples": 1, "uncertainty_map": "u.nii"}, "at least 2"),
        ({"task": "translate", "project": True}, "super-resolution only"),
        ({"task": "translate", "factor": 2}, "a factor needs a model to super-resolve with"),
        ({"task": "translate", "plane": "in-plane"}, "a plane needs a model to super-resolve with"),
        ({"seed": -1}, "seed is -1"),
        ({"register": None}, "register is null, expected true or false"),
        ({"model_folders": "here"}, "expected a list"),
    ],
)
def test_a_job_with_a_mistake_is_refused_by_the_fields_name(document: Any, complaint: str) -> None:
    if isinstance(document, dict) and document:
        whole = "input" not in document
        document = ({"input": "a.nii", "output": "b.nii", "model": "linear"} if whole else {}) | document
    with pytest.raises(UsageError, match=complaint) as refused:
        Job.from_json(document)
    assert "\n" not in refused.value.message and refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("given", "contrast"), [("t1w", "T1w"), ("T2", "T2w"), ("flair", "FLAIR"), ("Pd", "PDw"), ("", None)]
)
def test_a_contrast_is_understood_however_it_is_written(
    job: Job, tmp_path: Path, given: str, contrast: str | None
) -> None:
    """A scan the model was trained on must not be told to be outside its training."""
    save_tiny(tmp_path / "models", "usual", contrasts=("T1w", "T2w", "FLAIR", "PDw"))
    named = dataclasses.replace(job, model="usual", contrast=given, target=given)
    assert named.contrast == named.target == contrast
    events = run(dataclasses.replace(named, target=None))
    assert events[-1]["event"] == "result", events[-1]
    assert "outside-training" not in [event.get("code") for event in events]
    assert events[-1]["provenance"]["parameters"].get("contrast") == contrast


def test_an_unknown_contrast_is_refused_with_those_that_are_known(job: Job, tmp_path: Path) -> None:
    save_tiny(tmp_path / "models", "special", contrasts=("SWI",))
    event = run(dataclasses.replace(job, model="special", contrast="banana"))[-1]
    assert event["code"] == "unknown-contrast" and event["exit_code"] == 2
    assert event["message"] == "contrast is 'banana', expected T1w, T2w, FLAIR, PDw, SWI"
    assert run(dataclasses.replace(job, model="special", contrast="SWI"))[-1]["event"] == "result"


def test_a_job_comes_back_equal_from_json(job: Job) -> None:
    assert Job.from_json(job.to_json()) == job
    full = dataclasses.replace(job, spacing=(1.0, 1.0, 1.5), tile=64, slice_axis=2, contrast="T2w")
    assert Job.from_json(json.loads(full.to_json())) == full


@pytest.mark.parametrize(
    ("changes", "error", "complaint"),
    [
        ({"output": "{out}/missing/sr.nii"}, OutputError, "does not exist: create it"),
        ({"output": "{out}/../truth.nii.gz/sr.nii"}, OutputError, "truth.nii.gz is a file: give a folder"),
        ({"output": "{out}"}, UsageError, "is a folder: name a file in it"),
        ({"output": "{out}/sr.png"}, UsageError, "not as '.png'"),
        ({"output": "{out}/../DOE^JANE.nii.gz"}, UsageError, "is an input of this job"),
        ({"error_map": "{out}/sr.nii.gz"}, OutputError, "its own name"),
        ({"model": "tiny-trough-x2"}, ModelError, "did you mean tiny-through-x2"),
    ],
)
def test_outputs_and_models_are_checked_before_any_work(
    job: Job, tmp_path: Path, changes: dict[str, str], error: type[Exception], complaint: str
) -> None:
    events: list[dict[str, Any]] = []
    filled = {name: text.format(out=tmp_path / "out") for name, text in changes.items()}
    with pytest.raises(error, match=complaint):
        jobs.run_job(dataclasses.replace(job, **filled), events.append, lambda: False)
    assert not events and left_in(tmp_path / "out") == []


@pytest.mark.parametrize("wanted", [{"project": True, "consistency_map": None}, {}], ids=["project", "map"])
def test_a_consistency_that_is_not_defined_is_refused_before_the_network_runs(job: Job, wanted: dict[str, Any]) -> None:
    coarser = dataclasses.replace(job, spacing=(2.0, 2.0, 1.5), truth=None, error_map=None, **wanted)
    events = run(coarser)
    assert "the result is coarser than the scan along i" in events[-1]["message"] and events[-1]["exit_code"] == 2
    assert "super-resolving" not in [event.get("stage") for event in events]


def test_a_folder_of_models_that_is_not_there_is_named(job: Job, tmp_path: Path) -> None:
    event = run(dataclasses.replace(job, model_folders=(*job.model_folders, str(tmp_path / "nope"))))[-1]
    assert event["code"] == "no-model-folder" and event["exit_code"] == 2 and str(tmp_path / "nope") in event["message"]


def test_a_sidecar_of_somebody_else_is_not_overwritten(job: Job, tmp_path: Path) -> None:
    """A BIDS study keeps a scan's acquisition parameters in such a file."""
    theirs = tmp_path / "out" / "sr.json"
    theirs.write_text('{"EchoTime": 0.1}')
    event = run(job)[-1]
    assert event["code"] == "sidecar-taken" and event["exit_code"] == 5
    assert left_in(tmp_path / "out") == ["sr.json"] and theirs.read_text() == '{"EchoTime": 0.1}'
    theirs.unlink()
    assert run(job)[-1]["event"] == "result"
    assert run(job)[-1]["event"] == "result", "its own record is replaced"


def test_a_model_for_another_task_says_how_to_use_it(job: Job, tmp_path: Path) -> None:
    save_tiny(tmp_path / "models", "guided", task="reference-guided")
    save_tiny(tmp_path / "models", "translator", task="translate", target_contrasts=("T2w",))
    for model, hint in (("guided", "give a --reference"), ("translator", "use 'mrsuperres translate'")):
        event = run(dataclasses.replace(job, model=model))[-1]
        assert event["code"] == "wrong-task" and event["exit_code"] == 4 and hint in event["message"]
    event = run(dataclasses.replace(job, task="reference-guided", reference=job.input))[-1]
    assert event["code"] == "wrong-task" and "without --reference" in event["message"]


def test_a_damaged_truth_is_named_as_the_truth(job: Job, tmp_path: Path) -> None:
    (tmp_path / "truth.nii.gz").write_bytes(b"no volume")
    event = run(job)[-1]
    assert event["exit_code"] == 3 and event["message"].startswith("ground truth: ")


def test_a_truth_of_another_place_is_refused_and_one_of_another_grid_is_resampled(job: Job, tmp_path: Path) -> None:
    truth = read_volume(job.truth or "")
    write_volume(
        Volume(truth.array[:, 1:, :].copy(), dataclasses.replace(truth.grid, size=(16, 17, 12))), job.truth or ""
    )
    events = run(job)
    assert events[-1]["event"] == "result"
    assert "truth-resampled" in [event.get("code") for event in events]
    far = dataclasses.replace(truth.grid, origin=(9000.0, 0.0, 0.0))
    write_volume(Volume(truth.array, far), job.truth or "")
    events = run(job)
    assert events[-1]["code"] == "truth-elsewhere"
    assert "super-resolving" not in [event.get("stage") for event in events], "refused before the long work"


# tasks that other modules compute


def test_a_reference_is_registered_recorded_and_used(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dispatch: `registration.align` onto the network's own grid, its report into the record."""
    asked: dict[str, Any] = {}

    def align(reference: Volume, volume: Volume, grid: Grid, **options: Any) -> Aligned:
        asked.update(options, grid=grid)
        options["progress"]("registering", 1, 2, None)
        return Aligned(Volume(np.ones(grid.shape, np.float32), grid), np.ones(grid.shape, bool), {"cost": 0.25})

    monkeypatch.setitem(sys.modules, "MRSuperResLib.inference.registration", types.SimpleNamespace(align=align))
    seen: dict[str, Any] = {}

    def super_resolve(volume: Volume, entry: Any, **options: Any) -> Volume:
        seen.update(options)
        grid = volume.grid.refine((1.0, 1.0, 1.5))
        return Volume(np.ones(grid.shape, np.float32), grid)

    monkeypatch.setattr(jobs.run, "super_resolve", super_resolve)
    save_tiny(tmp_path / "models", "guided", task="reference-guided", reference_contrasts=("T1w",))
    guided = dataclasses.replace(
        job, model="guided", task="reference-guided", reference=job.truth, register=False, factor=1.5, truth=None,
        error_map=None,
    )  # fmt: skip
    events = run(guided)
    assert events[-1]["event"] == "result", events[-1]
    assert "registering" in [event.get("stage") for event in events]
    assert asked["register"] is False and asked["grid"].size == (16, 18, 12)
    assert isinstance(seen["reference"], Aligned)
    assert events[-1]["provenance"]["registration"] == {"cost": 0.25}
    assert events[-1]["provenance"]["parameters"]["register"] is False


def test_a_translation_writes_its_mean_its_uncertainty_and_its_samples(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dispatch: super-resolution first if asked, then `inference.translate`."""
    asked: dict[str, Any] = {}

    def translate(volume: Volume, entry: Any, **options: Any) -> Translation:
        asked.update(options, size=volume.grid.size)
        drawn = tuple(
            Volume(np.full(volume.grid.shape, n, np.float32), volume.grid) for n in range(options["samples"] or 1)
        )
        report = {"robust_range": [0.0, 1.0], "target": options["target"]}
        return Translation(drawn[0], drawn[-1] if len(drawn) > 1 else None, drawn, report=report)

    monkeypatch.setattr(jobs.run, "translate", translate)
    fields = {"task": "translate", "target_contrasts": ("T2w",), "plane": "in-plane", "factors": (1, 1)}
    save_tiny(tmp_path / "models", "translator", **fields, requirements=Requirements(latent=8))
    save_tiny(tmp_path / "models", "regressor", **fields)
    out = tmp_path / "out"
    wanted = dataclasses.replace(
        job, model="translator", task="translate", target="T2w", samples=3, seed=7, consistency_map=None, truth=None,
        error_map=None, uncertainty_map=str(out / "u.nii.gz"), samples_folder=str(out / "samples"),
        super_resolve_with="linear", factor=2.0, plane="through-plane",
    )  # fmt: skip
    result = run(wanted)[-1]
    assert result["event"] == "result", result
    assert (asked["target"], asked["samples"], asked["seed"], asked["size"]) == ("T2w", 3, 7, (16, 18, 12))
    assert left_in(out) == ["samples", "sr.json", "sr.nii.gz", "u.nii.gz"]
    assert left_in(out / "samples") == [f"sr_sample-0{n}.nii.gz" for n in (1, 2, 3)]
    assert [Path(path).name for path in result["outputs"]["samples"]] == left_in(out / "samples")
    assert result["provenance"]["super_resolved_with"]["id"] == "linear"
    assert result["provenance"]["parameters"]["seed"] == 7
    assert result["provenance"]["translation"] == {"robust_range": [0.0, 1.0], "target": "T2w"}

    single = dataclasses.replace(wanted, model="regressor", samples=None, samples_folder=None)
    assert "gives one answer only" in run(single)[-1]["message"]
    kept = dataclasses.replace(single, uncertainty_map=None, samples_folder=str(out / "one"))
    assert run(kept)[-1]["event"] == "result" and left_in(out / "one") == ["sr_sample-01.nii.gz"]


# estimates and records


def test_the_sidecar_records_how_to_repeat_it_and_never_who_the_patient_is(job: Job) -> None:
    holed = read_volume(job.input)
    holed.array[0, 0, 0] = np.nan
    write_volume(holed, job.input)
    result = run(job)[-1]
    text = Path(result["outputs"]["sidecar"]).read_text()
    record = json.loads(text)
    assert record == result["provenance"]
    entry = models.find_model(job.model, job.model_folders)
    assert record["model"]["digest"] == entry.digest and record["model"]["id"] == entry.card.id
    assert record["inputs"]["input"]["sha256"] == hashlib.sha256(Path(job.input).read_bytes()).hexdigest()
    assert record["versions"]["MRSuperRes"] and record["versions"]["torch"]
    assert record["threads"] == 1, "the last digits depend on it"
    assert record["chosen"] == {"plane": "through-plane", "slice_axis": 2, "passes": 1}
    assert record["timings"]["super-resolving"] > 0 and record["output"]["size"] == [16, 18, 12]
    assert "DOE" not in text and "JANE" not in text
    assert record["warnings"][0]["message"].startswith("1 NaN or infinite voxels of the input were replaced")


@pytest.mark.parametrize(
    ("changes", "told", "recorded"),
    [
        ({"input": "in/DOE_JANE.nrrd"}, "2 voxels of DOE_JANE were", "2 voxels of the input were"),
        ({"input": "in/DOE_JANE/"}, "in/DOE_JANE: slices in DOE_JANE", "the input: slices in the input"),
        ({"reference": "DOE_JANE_T1.mgz"}, "the reference DOE_JANE_T1 was moved", "the reference was moved"),
        (
            {"input": "DOE.nii", "reference": "DOE-JANE.nii", "truth": "DOE-JANE-HR.nii"},
            "DOE, DOE-JANE and DOE-JANE-HR differ",
            "the input, the reference and the truth differ",
        ),
        ({"input": "scan.nii", "truth": "truth.nii"}, "the ground truth, this scan", "the ground truth, this scan"),
        (
            {"input": "T1w.nii", "reference": "a.nii"},
            "trained on T2w, this scan is T1w",
            "trained on T2w, this scan is T1w",
        ),
        (
            {"input": "sr.nii", "output": "x/DOE.nii"},
            "x/DOE.nii by mtsr-sr-s: sra",
            "the output by mtsr-the input-s: sra",
        ),
    ],
)
def test_a_recorded_warning_calls_files_by_what_they_are(
    job: Job, changes: dict[str, str], told: str, recorded: str
) -> None:
    fresh = dataclasses.replace(job, **{"input": "i.nii", "truth": None, **changes})
    assert without_names(told, fresh) == recorded


def test_a_nrrd_carries_its_origin_in_its_header(job: Job) -> None:
    import SimpleITK as sitk

    run(dataclasses.replace(job, output=job.output.replace(".nii.gz", ".nrrd")))
    image = sitk.ReadImage(job.output.replace(".nii.gz", ".nrrd"))
    fields = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    assert fields["MRSuperRes_model"] == "tiny-through-x2 1.0"
    assert fields["MRSuperRes_digest"] == models.find_model(job.model, job.model_folders).digest
    assert "DOE" not in "".join(fields.values())


def test_an_estimate_of_a_job_needs_no_torch(job: Job, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(job.to_json())
    code = (
        "import sys; from MRSuperResLib import jobs; from pathlib import Path;"
        f"e = jobs.estimate_job(jobs.Job.from_json(Path({str(tmp_path / 'job.json')!r}).read_text()));"
        "print(*e.grid.size, e.slices, e.memory > 0, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.split() == ["16", "18", "12", "34", "True", "False"], done.stderr


def test_the_digest_of_a_series_does_not_depend_on_its_file_names(tmp_path: Path) -> None:
    for folder, names in (("a", ("1", "2")), ("b", ("y", "x")), ("c", ("1",))):
        (tmp_path / folder).mkdir()
        for name, content in zip(names, (b"one", b"two"), strict=False):
            (tmp_path / folder / name).write_bytes(content)
    assert digest_of(tmp_path / "a") == digest_of(tmp_path / "b") != digest_of(tmp_path / "c")


@pytest.mark.parametrize(
    ("output", "sidecar"),
    [
        ("a/sr.nii.gz", "a/sr.json"),
        ("sr.nrrd", "sr.json"),
        ("sub-1.5_T2w.nii", "sub-1.5_T2w.json"),
        ("x.MHA", "x.json"),
    ],
)
def test_the_sidecar_lies_beside_its_volume(output: str, sidecar: str) -> None:
    assert sidecar_path(output) == Path(sidecar)


def test_a_cancelled_error_says_that_nothing_was_written() -> None:
    assert Cancelled("x").exit_code == 130
