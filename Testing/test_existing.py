"""Nothing is overwritten that is not ours, and what is complete can be left alone."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import made_translators as translators
import numpy as np
import pytest
from small import REPOSITORY, left_in, run, save_scan, save_tiny

from MRSuperResLib import cli, models, networks, provenance
from MRSuperResLib.jobs import Job
from MRSuperResLib.models import Requirements
from MRSuperResLib.staging import PREFIX

pytestmark = pytest.mark.usefixtures("no_models_of_this_machine")
LINEAR = ["--model", "linear", "--factor", "2"]


@pytest.fixture
def plain(job: Job) -> Job:
    """Interpolation with an error map: quick."""
    return dataclasses.replace(job, model="linear", factor=2.0, plane="through-plane", consistency_map=None)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    "form", ["~/scan.nii.gz", "{home}/scan.nii.gz", "{home}/../home/scan.nii.gz", "{home}/link.nii.gz"]
)
def test_an_input_is_never_overwritten_however_its_path_is_written(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """bash leaves `~` alone in `--output=~/x`, as do other shells, JSON and Python."""
    home = tmp_path / "home"
    home.mkdir()
    scan = save_scan(home / "scan.nii.gz")
    (home / "link.nii.gz").symlink_to(scan)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    before = snapshot(home)
    output = form.format(home=home)
    assert cli.main(["run", str(scan), f"--output={output}", *LINEAR, "--overwrite"]) == 2
    assert "is an input of this job" in capsys.readouterr().err and snapshot(home) == before


def test_a_sidecar_of_another_program_is_found_behind_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = save_scan(tmp_path / "scan.nii.gz")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "t2.json").write_text('{"EchoTime": 0.1}')
    assert cli.main(["run", str(scan), "--output=~/t2.nii.gz", *LINEAR]) == 5
    assert "holds something else" in capsys.readouterr().err
    assert left_in(tmp_path) == ["scan.nii.gz", "t2.json"] and "EchoTime" in (tmp_path / "t2.json").read_text()


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_what_a_bids_sidecar_tells_of_the_input_is_never_overwritten(
    overwrite: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A result of the same stem in another format would put its record there."""
    scan = save_scan(tmp_path / "t2.nii.gz")
    (tmp_path / "t2.json").write_text('{"SliceThickness": 3.0}')
    assert cli.main(["run", str(scan), "-o", str(tmp_path / "t2.nrrd"), *LINEAR, *overwrite]) == 2
    assert "tells about an input" in capsys.readouterr().err
    assert left_in(tmp_path) == ["t2.json", "t2.nii.gz"] and "3.0" in (tmp_path / "t2.json").read_text()


def test_a_result_is_made_anew_where_the_sidecar_of_its_input_says_something_else(plain: Job) -> None:
    """The thickness of its slices, say: the result depends on it."""
    skip = dataclasses.replace(plain, skip_existing=True)
    sidecar = Path(str(plain.input).removesuffix(".gz")).with_suffix(".json")
    sidecar.write_text('{"SliceThickness": 3.0}')
    assert "skipped" not in run(skip)[-1] and run(skip)[-1]["skipped"] is True
    sidecar.write_text('{"SliceThickness": 2.0}')
    assert "skipped" not in run(skip)[-1] and run(skip)[-1]["skipped"] is True
    sidecar.unlink()
    assert "skipped" not in run(skip)[-1]


@pytest.mark.parametrize("name", ["", "new/"])
def test_a_folder_as_output_is_refused_with_a_name_to_give(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = save_scan(tmp_path / "t2.nii.gz")
    assert cli.main(["run", str(scan), "-o", f"{tmp_path}/{name}", *LINEAR]) == 2
    assert "is a folder: name a file in it" in capsys.readouterr().err and left_in(tmp_path) == ["t2.nii.gz"]


@pytest.mark.parametrize("role", ["output", "error_map"])
def test_a_file_that_was_not_made_here_is_replaced_only_when_that_is_said(plain: Job, role: str) -> None:
    """A real scan of that name, say."""
    theirs = Path(getattr(plain, role))
    save_scan(theirs, seed=5)
    before = theirs.read_bytes()
    last = run(plain)[-1]
    assert last["code"] == "not-ours" and last["exit_code"] == 5 and "--overwrite" in last["message"]
    assert left_in(theirs.parent) == [theirs.name] and theirs.read_bytes() == before
    assert run(dataclasses.replace(plain, overwrite=True))[-1]["event"] == "result"
    assert theirs.read_bytes() != before
    assert run(plain)[-1]["event"] == "result", "from now on it is ours"


def test_a_result_that_was_changed_since_is_no_longer_ours(plain: Job) -> None:
    """Somebody put a real scan, or hand-made corrections, in its place; the record beside it still is the old one."""
    run(plain)
    save_scan(Path(plain.output), seed=7)
    changed = Path(plain.output).read_bytes()
    assert run(plain)[-1]["code"] == "not-ours" and Path(plain.output).read_bytes() == changed


def test_a_map_that_another_result_had_made_is_ours_as_well(plain: Job, tmp_path: Path) -> None:
    run(plain)
    for name in ("other.nrrd", "third.nrrd"):
        assert run(dataclasses.replace(plain, output=str(tmp_path / name)))[-1]["event"] == "result"


def test_a_link_that_leads_nowhere_is_somebodys_too(plain: Job, tmp_path: Path) -> None:
    Path(plain.output).symlink_to(tmp_path / "unmounted" / "scan.nii.gz")
    assert run(plain)[-1]["code"] == "not-ours" and Path(plain.output).is_symlink()


def test_results_of_versions_that_kept_no_digests_are_known_by_their_header(plain: Job) -> None:
    sidecar = Path(run(plain)[-1]["outputs"]["sidecar"])
    record = json.loads(sidecar.read_text())
    assert set(record.pop("files")) == {"output", "error_map"}
    sidecar.write_text(json.dumps(record))
    assert run(plain)[-1]["event"] == "result"


def test_complete_results_are_left_alone_and_others_are_made_anew(plain: Job, tmp_path: Path) -> None:
    folder, skip = Path(plain.output).parent, dataclasses.replace(plain, skip_existing=True)
    first = run(skip)[-1]
    assert "skipped" not in first
    before = snapshot(folder)
    events = run(skip)
    assert [event["event"] for event in events] == ["result"] and events[0]["skipped"] is True
    assert events[0]["outputs"] == first["outputs"] and events[0]["metrics"] == first["metrics"]
    assert snapshot(folder) == before
    for changed in (
        dataclasses.replace(skip, factor=3.0),
        dataclasses.replace(skip, model="bspline", factor=3.0),
        dataclasses.replace(skip, error_map=None, truth=None, model="bspline", factor=3.0),
    ):
        assert "skipped" not in run(changed)[-1]
        assert run(changed)[-1]["skipped"] is True
    save_scan(Path(plain.input), seed=9)
    assert "skipped" not in run(changed)[-1], "the scan is another"
    Path(changed.output).unlink()
    assert "skipped" not in run(changed)[-1] and Path(changed.output).is_file(), "half a result is none"


def test_a_result_whose_first_model_the_scan_asked_for_is_left_alone_too(
    plain: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    from MRSuperResLib.jobs import run as runs

    def choose(job: Job, volume: object) -> Job:
        return dataclasses.replace(job, super_resolve_with="bspline")

    monkeypatch.setattr(runs, "with_first_model", choose)
    skip = dataclasses.replace(plain, skip_existing=True, truth=None, error_map=None)
    first = run(skip)[-1]
    assert first["event"] == "result", first
    assert first["provenance"]["super_resolved_with"]["id"] == "bspline" and run(skip)[-1]["skipped"] is True
    assert "super_resolve_with" not in first["provenance"]["parameters"], "nobody asked for it"


def test_a_translation_is_complete_only_as_it_would_be_made_now(tmp_path: Path) -> None:
    """Other weights of the model that goes first, another detector, another contrast by the scan's name: made anew."""
    folder = tmp_path / "models"
    folder.mkdir()

    def save(name: str, architecture: str, hyperparameters: dict[str, Any], **changes: Any) -> None:
        network = networks.build(architecture, hyperparameters)
        card = translators.card(id=name, architecture=architecture, hyperparameters=hyperparameters, **changes)
        models.save_model(folder / f"{name}.safetensors", card, network.state_dict())

    detector = {"task": "flag", "plane": "any", "target_contrasts": ()}
    detector |= {"requirements": Requirements(smallest=8, multiple_of=2, halo=8, tiling=False)}
    save("tiny-mt", "translation", translators.TINY)
    save("yy", "lesion_detector", {"widths": [4, 8]}, **detector)
    finer = save_tiny(folder, "finer")
    scan = save_scan(tmp_path / "k_T1w.nii.gz", (40, 40, 8))
    flags = str(tmp_path / "flags.nrrd")
    plain = Job(
        str(scan), str(tmp_path / "o.nrrd"), "tiny-mt", task="translate",
        target="T2w", samples=2, flags=flags, model_folders=(str(folder),), device="cpu", skip_existing=True,
    )  # fmt: skip
    first = dataclasses.replace(plain, super_resolve_with="finer")
    made = run(first)[-1]
    assert made["event"] == "result", made
    assert "skipped" not in made and run(first)[-1]["skipped"] is True
    shutil.move(finer, tmp_path / "old.safetensors")
    save_tiny(folder, "finer", version="1.1")
    assert "skipped" not in run(first)[-1], "other weights of the same name"
    assert "skipped" not in run(plain)[-1], "nothing goes first"
    assert run(plain)[-1]["skipped"] is True
    save("zz", "lesion_detector", {"widths": [4, 8]}, **detector)
    assert "skipped" not in run(plain)[-1], "another detector"
    assert run(plain)[-1]["skipped"] is True
    other = scan.with_name("k_FLAIR.nii.gz")
    scan.rename(other)
    made = run(dataclasses.replace(plain, input=str(other)))[-1]
    assert "skipped" not in made and made["provenance"]["translation"]["source"] == "FLAIR"


def test_a_map_of_an_earlier_run_stays_ours_when_its_result_is_replaced(plain: Job) -> None:
    first = dataclasses.replace(plain, consistency_map=str(Path(plain.output).with_name("c.nii.gz")))
    run(first)
    assert run(dataclasses.replace(plain, model="bspline"))[-1]["event"] == "result"
    assert run(dataclasses.replace(plain, model="lanczos"))[-1]["event"] == "result"
    assert run(first)[-1]["event"] == "result"
    Path(first.consistency_map or "").write_bytes(b"somebody's")
    assert run(first)[-1]["code"] == "not-ours"


KILLED = """
import os, signal, sys
from MRSuperResLib.jobs import Job, execute
job, fatal, calls = Job.from_json(open(sys.argv[1]).read()), int(sys.argv[2]), 0
replace = os.replace
def counted(source, target):
    global calls
    replace(source, target)
    calls += os.path.basename(source)[0].isdigit()  # a result, not the plan or the mark
    if calls == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = counted
sys.exit(execute(job, lambda event: None, lambda: False))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("before", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("renamed", [1, 2, 3])
def test_a_run_killed_between_two_renames_can_be_repeated(
    plain: Job, tmp_path: Path, renamed: int, before: bool
) -> None:
    """Half of its results were there, which no record vouched for."""
    if before:
        assert run(dataclasses.replace(plain, model="bspline"))[-1]["event"] == "result"
    (tmp_path / "job.json").write_text(plain.to_json())
    command = [sys.executable, "-c", KILLED, str(tmp_path / "job.json"), str(renamed)]
    assert subprocess.run(command, cwd=REPOSITORY, check=False).returncode == -signal.SIGKILL
    assert any(name.startswith(PREFIX) for name in left_in(tmp_path / "out")), "killed in the middle of its commit"
    skipping = run(dataclasses.replace(plain, skip_existing=True))[-1]
    assert skipping.get("skipped") is True, skipping
    assert run(plain)[-1]["event"] == "result"
    assert left_in(tmp_path / "out") == ["error.nrrd", "sr.json", "sr.nii.gz"]


def test_the_shell_says_that_it_left_results_alone(plain: Job, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", plain.input, "-o", plain.output, *LINEAR, "--skip-existing"]
    assert cli.main(command) == 0 and cli.main(command) == 0
    assert "already complete" in capsys.readouterr().out.splitlines()[-1]


def test_a_synthetic_image_with_the_name_of_a_real_scan_is_warned_about(job: Job, tmp_path: Path) -> None:
    fields = {"task": "translate", "target_contrasts": ("T2w",), "plane": "in-plane", "factors": (1, 1)}
    save_tiny(tmp_path / "models", "regressor", **fields)
    translation = Job(
        input=job.input, output=str(tmp_path / "sub-01_T2w.nii.gz"), model="regressor", task="translate", target="T2w",
        contrast="T1w", device="cpu", model_folders=job.model_folders,
    )  # fmt: skip
    warnings = {event["code"]: event["message"] for event in run(translation) if event["event"] == "warning"}
    assert "sub-01_desc-synthetic_T2w.nii.gz" in warnings["synthetic-name"]
    named = dataclasses.replace(translation, output=str(tmp_path / "sub-01_desc-synthetic_T2w.nii.gz"))
    assert "synthetic-name" not in [event.get("code") for event in run(named)]


@pytest.mark.parametrize("kept", ["record and header", "record", "header"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_what_a_model_made_is_no_truth(
    kept: str, suffix: str, plain: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import SimpleITK as sitk

    made = Path(plain.output.replace(".nii.gz", suffix))
    run(dataclasses.replace(plain, output=str(made), truth=None, error_map=None))
    sidecar = provenance.sidecar_path(made)
    if kept == "header":
        sidecar.unlink()
    if kept == "record":
        image = sitk.ReadImage(str(made))
        clean = sitk.GetImageFromArray(sitk.GetArrayFromImage(image))
        clean.CopyInformation(image)
        sitk.WriteImage(clean, str(made))
        record = json.loads(sidecar.read_text())
        record.pop("files")  # as records were before digests
        sidecar.write_text(json.dumps(record))
    save_tiny(
        tmp_path / "models",
        "translator",
        task="translate",
        target_contrasts=("T2w",),
        requirements=Requirements(latent=8),
    )
    command = ["evaluate-translation", plain.input, str(made), "--model", "translator", "--from", "T1w", "--to", "T2w"]
    assert cli.main([*command, "--models", *plain.model_folders]) == 2
    assert "is no truth" in capsys.readouterr().err
    assert cli.main(["evaluate", str(made), "-m", "linear", "--plane", "through", "--factor", "2", "--figure", ""]) == 2
    assert "is no truth" in capsys.readouterr().err
    warned = [
        event.get("code")
        for event in run(dataclasses.replace(plain, truth=str(made), output=str(made.with_name("other.nii"))))
    ]
    assert "truth-made" in warned
    again = dataclasses.replace(
        plain, input=str(made), output=str(made.with_name("again.nii")), truth=None, error_map=None
    )
    assert "input-made" in [event.get("code") for event in run(again)]
    flipped = [*command[:1], str(made), plain.input, *command[3:], "--models", *plain.model_folders]
    assert cli.main(flipped) == 2 and "is no scan" in capsys.readouterr().err


def test_a_scan_beside_the_record_of_a_result_that_is_gone_is_a_truth(plain: Job) -> None:
    run(dataclasses.replace(plain, truth=None, error_map=None))
    shutil.copy(plain.input, plain.output)
    assert provenance.made_by(plain.output) is None


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"{", b'{"statement": 3}', b"[" * 100_000, b"\xff\xfe", b'{"files": 1}']
)
def test_a_sidecar_that_is_no_record_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content)
    assert provenance.read_record(tmp_path / "x.json") is None
    assert provenance.made_by(tmp_path / "x.nii.gz") is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names")
def test_nothing_waits_on_a_pipe_where_a_record_would_be(plain: Job) -> None:
    os.mkfifo(provenance.sidecar_path(plain.output))
    assert run(plain)[-1]["code"] == "sidecar-taken"


def test_the_digests_of_what_was_made_are_recorded_by_role_without_names(plain: Job) -> None:
    result: dict[str, Any] = run(plain)[-1]
    files = result["provenance"]["files"]
    assert files["output"]["sha256"] == provenance.digest_of(plain.output)
    assert files["error_map"]["sha256"] == provenance.digest_of(plain.error_map or "")
    assert np.isfinite(result["metrics"]["psnr"])


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg", ".jpg"])
def test_a_picture_replaces_only_what_was_drawn_here(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    scan, picture = save_scan(tmp_path / "scan.nii", (24, 24, 24)), tmp_path / f"evaluation{suffix}"
    command = ["evaluate", str(scan), "-m", "linear", "--plane", "through", "--factor", "2", "--figure", str(picture)]
    picture.write_bytes(b"of a holiday")
    assert cli.main(command) == 5
    said = capsys.readouterr()
    assert "was not drawn here" in said.err and "dB" not in said.out and picture.read_bytes() == b"of a holiday"
    picture.unlink()
    assert cli.main(command) == 0 and cli.main(command) == 0


def test_a_published_model_replaces_only_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "there").mkdir()
    save_tiny(tmp_path / "models")
    scan = save_scan(tmp_path / "scan.nii", (24, 24, 24))
    command = ["evaluate", str(scan), "-m", "tiny-through-x2", "--models", str(tmp_path / "models"), "--figure", ""]
    command += ["--plane", "through", "--factor", "2", "--device", "cpu", "--publish", str(tmp_path / "there")]
    theirs = tmp_path / "there" / "tiny-through-x2.safetensors"
    theirs.write_bytes(b"weights of another program")
    assert cli.main(command) == 5 and theirs.read_bytes() == b"weights of another program"
    said = capsys.readouterr()
    assert "no sound model" in said.err and "dB" not in said.out
    theirs.unlink()
    assert cli.main(command) == 0 and cli.main(command) == 0


def test_the_demo_replaces_its_own_files_only(tmp_path: Path) -> None:
    """Its truth and its acquired volume have names that somebody's scans may have."""
    from MRSuperResLib import demo
    from MRSuperResLib.errors import OutputError
    from MRSuperResLib.io.read import read_volume

    scans = [read_volume(save_scan(tmp_path / f"{seed}.nii", (24, 24, 24), seed)) for seed in (1, 2)]
    folder = tmp_path / "demo"
    folder.mkdir()
    truth = folder / "truth.nii.gz"
    demo._write(scans[0], truth)
    demo._write(scans[0], truth)  # the demo was stopped before it made anything of it, and is run again
    before = truth.read_bytes()
    with pytest.raises(OutputError, match="is not the demo's"):
        demo._write(scans[1], truth)
    assert truth.read_bytes() == before and left_in(folder) == ["truth.nii.gz"]
    result = run(Job(str(truth), str(folder / "linear.nii.gz"), "linear", factor=2.0, plane="through-plane"))[-1]
    assert result["event"] == "result", result
    demo._write(scans[1], truth)
    assert truth.read_bytes() != before
