"""Translation as a job and from the shell: one command, one record, refusals before any long work."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_translators import REPOSITORY, TINY, Known, card, head, of, tiny_translator
from small import save_tiny

from MRSuperResLib import cli, jobs, models, networks
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.jobs import Job
from MRSuperResLib.models import ModelEntry, SpacingRange
from MRSuperResLib.volume import Volume


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelEntry:
    """A package of `tiny_translator`."""
    return tiny_translator(tmp_path_factory.mktemp("models"))


# jobs and the command line


@pytest.fixture(autouse=True)
def _no_models_of_this_machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MRSUPERRES_MODELS", str(tmp_path_factory.mktemp("empty")))


def saved(volume: Volume, path: Path) -> Path:
    write_volume(volume, path)
    return path


def shell(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "MRSuperResLib", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def test_one_command_super_resolves_translates_and_maps_the_uncertainty(tiny: ModelEntry, tmp_path: Path) -> None:
    """Equations 1 to 3 with a shipped model, nothing written between: files, events, sidecar."""
    scan = saved(head((12, 14, 3), (4.0, 4.0, 3.0)), tmp_path / "DOE_T2w.nii.gz")
    out = tmp_path / "out"
    out.mkdir()
    translator, first = tmp_path / "DOE_mt.safetensors", tmp_path / "DOE_sr.safetensors"
    shutil.copy(tiny.path or "", translator)
    shutil.copy(models.find_model("rdst-e-inplane-x4").path or "", first)
    done = shell(
        "translate", scan, "-o", out / "t1.nii.gz", "--model", translator, "--to", "T1w", "--samples", "3", "--seed", "9",
        "--uncertainty-map", out / "u.nrrd", "--samples-folder", out / "samples", "--super-resolve", first,
        "--flags", out / "f.nii.gz", "--device", "cpu", "--threads", "1", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events if event["event"] != "progress"][-1] == "result"
    started = next(event for event in events if event["event"] == "started")
    assert started["output_size"] == [48, 56, 3]
    stages = list(dict.fromkeys(event["stage"] for event in events if event["event"] == "progress"))
    assert stages == ["reading", "super-resolving", "translating", "writing"]
    last = [event for event in events if event.get("stage") == "translating"][-1]
    assert last["done"] == last["total"] == 3 * (48 * 56 * 3)
    codes = [event["code"] for event in events if event["event"] == "warning"]
    assert {"contrast-guessed", "uncalibrated"} <= set(codes) and len(codes) == len(set(codes))

    assert sorted(path.name for path in out.iterdir()) == ["f.nii.gz", "samples", "t1.json", "t1.nii.gz", "u.nrrd"]
    samples = [read_volume(path) for path in sorted((out / "samples").iterdir())]
    assert len(samples) == 3
    answer, spread = read_volume(out / "t1.nii.gz"), read_volume(out / "u.nrrd")
    drawn = np.stack([sample.array for sample in samples])
    np.testing.assert_allclose(answer.array, drawn.mean(axis=0), rtol=1e-4, atol=1e-2)
    unflagged = (
        read_volume(out / "f.nii.gz", allow_labels=True).array == 0
    )  # elsewhere the map is wider than the samples
    assert unflagged.mean() > 0.5
    np.testing.assert_allclose(spread.array[unflagged], drawn.std(axis=0, ddof=1)[unflagged], rtol=1e-2, atol=1e-2)
    assert answer.grid.same_as(read_volume(scan).grid.refine((4.0, 4.0, 1.0)))

    text = (out / "t1.json").read_text()
    record = json.loads(text)
    assert record["translation"]["source"] == "T2w" and record["translation"]["target"] == "T1w"
    assert record["translation"]["samples"] == 3 and "robust range" in record["translation"]["intensities"]
    assert record["super_resolved_with"]["id"] == "rdst-e-inplane-x4"
    assert record["parameters"]["super_resolve_with"] == "rdst-e-inplane-x4"
    assert record["parameters"]["seed"] == 9 and "DOE" not in text
    header = (out / "u.nrrd").read_bytes().split(b"\n\n")[0]
    assert b"rdst-e-inplane-x4" in header and b"DOE" not in header


@pytest.fixture
def job(tiny: ModelEntry, tmp_path: Path) -> Job:
    (tmp_path / "out").mkdir()
    return Job(
        input=str(saved(head(), tmp_path / "scan_T1w.nii.gz")),
        output=str(tmp_path / "out" / "t2.nii.gz"),
        model=str(tiny.path),
        task="translate",
        target="T2w",
        samples=2,
        device="cpu",
        threads=1,
    )


def test_super_resolving_first_does_not_turn_noise_into_a_head(job: Job, tmp_path: Path) -> None:
    """Enlarged noise is smooth; the scan itself is examined, and before the long work."""
    noise = np.random.default_rng(0).rayleigh(20, head().array.shape)
    scan = saved(of(noise), tmp_path / "noise_T1w.nii.gz")
    events = events_of(dataclasses.replace(job, input=str(scan), super_resolve_with="linear", factor=2.0))
    assert (events[-1]["event"], events[-1]["code"], events[-1]["exit_code"]) == ("error", "no-head", 3)
    assert "super-resolving" not in {event.get("stage") for event in events}


def test_a_folder_for_samples_takes_as_many_as_are_drawn_by_default(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "samples"
    result = events_of(dataclasses.replace(job, samples=None, samples_folder=str(folder)))[-1]
    assert result["event"] == "result", result
    assert len(list(folder.iterdir())) == len(result["outputs"]["samples"]) == 8
    assert result["provenance"]["translation"]["samples"] == 8


def test_samples_of_an_earlier_job_are_not_left_among_the_new_ones(job: Job, tmp_path: Path) -> None:
    """Somebody who averages what is in the folder would average two jobs."""
    folder = tmp_path / "out" / "samples"
    three = dataclasses.replace(job, samples=3, samples_folder=str(folder))
    assert events_of(three)[-1]["event"] == "result"
    event = events_of(dataclasses.replace(three, samples=2, seed=1))[-1]
    assert (event["code"], event["exit_code"]) == ("samples-there", 5) and "t2_sample-03.nii.gz" in event["message"]
    event = events_of(dataclasses.replace(three, output=job.output.replace(".nii.gz", ".nrrd")))[-1]
    assert event["code"] == "samples-there", "the same names in another format"
    assert len(list(folder.iterdir())) == 3
    assert events_of(dataclasses.replace(three, samples=4))[-1]["event"] == "result", "all of them are overwritten"
    other = dataclasses.replace(three, output=job.output.replace("t2.", "other."), samples=1)
    assert events_of(other)[-1]["event"] == "result" and len(list(folder.iterdir())) == 5


def test_kept_samples_that_would_not_fit_are_refused_before_the_super_resolution(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    combined = dataclasses.replace(job, super_resolve_with="linear", factor=2.0, plane="in-plane", samples=20)
    kept = dataclasses.replace(combined, samples_folder=str(tmp_path / "out" / "samples"))
    voxels = 4 * head().array.size
    assert jobs.estimate_job(kept).memory - jobs.estimate_job(combined).memory == 20 * 4 * voxels
    monkeypatch.setattr("MRSuperResLib.inference.translation.available_memory", lambda: 20 * 4 * voxels)
    events = events_of(kept)
    assert (events[-1]["event"], events[-1]["code"], events[-1]["exit_code"]) == ("error", "memory", 6)
    assert "super-resolving" not in {event.get("stage") for event in events}
    assert events_of(combined)[-1]["event"] == "result"


def test_all_that_is_doubtful_is_told_before_the_super_resolution(job: Job, tmp_path: Path) -> None:
    """Of the finer grid that is translated too; the contrast is what the scan's name tells."""
    thick = card(spacing=SpacingRange((0.9, 1.1), (2.0, 4.0)))
    translator = models.save_model(tmp_path / "mt.safetensors", thick, networks.build("translation", TINY).state_dict())
    first = save_tiny(tmp_path, "trained-on-t2", contrasts=("T2w",))
    events = events_of(dataclasses.replace(job, model=str(translator.path), super_resolve_with=str(first)))
    assert events[-1]["event"] == "result", events[-1]
    work = next(n for n, event in enumerate(events) if event.get("stage") == "super-resolving")
    told = [event["message"] for event in events[:work] if event["event"] == "warning"]
    assert "the scan's name says T1w: it is translated as such" in told
    assert any(message.startswith("'tiny-mt': ") and "1.5 mm" in message for message in told), told
    assert "'trained-on-t2': trained on T2w, this scan is T1w" in told
    later = [event["code"] for event in events[work:] if event["event"] == "warning"]
    assert [code for code in later if not code.endswith("flagged")] == ["uncalibrated"]


def test_a_wrong_target_is_refused_before_torch_is_loaded(job: Job) -> None:
    """Which takes seconds."""
    code = (
        "import sys; from MRSuperResLib import jobs\n"
        "code = jobs.execute(jobs.Job.from_json(sys.argv[1]), lambda event: None, lambda: False)\n"
        "print(code, 'torch' in sys.modules)"
    )
    document = dataclasses.replace(job, target="PDw", device="auto").to_json()
    done = subprocess.run([sys.executable, "-c", code, document], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.split() == ["2", "False"], done.stderr


@pytest.mark.parametrize(
    ("name", "arguments", "option"), [("scan", ["--to", "T2w"], "--contrast"), ("scan_T1w", [], "--to")]
)
def test_the_shell_names_the_option_that_is_missing(
    name: str, arguments: list[str], option: str, tiny: ModelEntry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = saved(head(), tmp_path / f"{name}.nii.gz")
    command = ["translate", str(scan), "-o", str(tmp_path / "t2.nii.gz"), "-m", str(tiny.path), *arguments]
    assert cli.main(command) == 2
    errors = capsys.readouterr().err
    assert "say which contrast" in errors and errors.endswith(f"({option})\n") and errors.count("\n") == 1


def events_of(job: Job) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    jobs.execute(job, events.append, lambda: False)
    return events


def test_the_same_job_gives_the_same_file(job: Job) -> None:
    arrays = []
    for how in (job, dataclasses.replace(job, batch=5), dataclasses.replace(job, seed=1)):
        assert events_of(how)[-1]["event"] == "result"
        arrays.append(read_volume(job.output).array)
    np.testing.assert_array_equal(arrays[1], arrays[0])
    assert np.abs(arrays[2] - arrays[0]).max() > 1.0


def test_a_truth_of_other_units_and_on_another_grid_scores_alike(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A perfect translation is perfect whatever the target scan's units are; its error map is in those units."""
    load = models.kept.load_network
    monkeypatch.setattr(
        models.kept, "load_network", lambda model: Known() if model.card.task == "translate" else load(model)
    )
    made = head()
    truth = saved(dataclasses.replace(made, array=3 * made.array + 100), tmp_path / "truth.nii.gz")
    scored = dataclasses.replace(job, truth=str(truth), error_map=str(tmp_path / "out" / "e.nii.gz"), samples=3)
    result = events_of(scored)[-1]
    shift = read_volume(job.output).array - made.array  # what z = 0.1 z_0 adds, in the scan's units
    np.testing.assert_allclose(read_volume(scored.error_map or "").array, 3 * np.abs(shift), atol=0.1)
    span = np.subtract(*np.percentile(made.array, (99.9, 0.1)))
    assert result["metrics"]["psnr"] == pytest.approx(20 * np.log10(span / np.abs(shift).mean()), abs=0.05)

    larger = saved(Volume(np.pad(3 * made.array, 2), made.grid.crop((-2, -2, -2), (26, 30, 10))), truth)
    events = events_of(dataclasses.replace(scored, truth=str(larger)))
    assert "truth-resampled" in [event.get("code") for event in events] and events[-1]["event"] == "result"


@pytest.mark.parametrize(
    ("changes", "code", "exit_code"),
    [
        ({"target": "CT"}, "unknown-target", 2),
        ({"target": "T1w"}, "same-contrast", 2),
        ({"super_resolve_with": "nothing"}, "unknown-model", 4),
        ({"super_resolve_with": "{model}"}, "wrong-task", 4),
        ({"super_resolve_with": "fasr-s-inplane-x2"}, "wrong-task", 4),
        ({"samples": 0}, "usage", 2),
        ({"samples": 10_000}, "usage", 2),
        ({"contrast": "T2w"}, "same-contrast", 2),
        ({"contrast": "bogus"}, "unknown-contrast", 2),
    ],
)
def test_a_job_that_cannot_be_served_writes_nothing(
    job: Job, changes: dict[str, Any], code: str, exit_code: int
) -> None:
    filled = {
        name: value.format(model=job.model) if isinstance(value, str) else value for name, value in changes.items()
    }
    event = events_of(dataclasses.replace(job, **filled))[-1]
    assert (event["event"], event["code"], event["exit_code"]) == ("error", code, exit_code), event
    assert "add" not in event["message"], "a translation has no reference that could be added"
    assert list(Path(job.output).parent.iterdir()) == []
