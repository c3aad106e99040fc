"""The command line: what it prints and how it ends."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import REPOSITORY, image, noise, save_scan, save_tiny, shell

from MRSuperResLib import cli, jobs, models
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.provenance import sidecar_path

pytestmark = pytest.mark.usefixtures("no_models_of_this_machine")


def test_help_documents_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["run", "--help"]):
        with pytest.raises(SystemExit):
            cli.main(arguments)
        text = capsys.readouterr().out
        assert "130 cancelled" in text and "3 unsuitable input" in text and "Research use only" in text


def test_help_says_that_a_spacing_is_met_as_nearly_as_the_extent_allows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    assert "nearest that fits the extent" in " ".join(capsys.readouterr().out.split())


def test_run_super_resolves_and_says_where_the_result_is(
    scan: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny(tmp_path)
    arguments = ["run", str(scan), "-o", str(out / "sr.nrrd"), "-m", "tiny-through-x2", "--models", str(tmp_path)]
    assert cli.main([*arguments, "--device", "cpu", "--consistency-map", str(out / "c.nrrd")]) == 0
    output, errors = capsys.readouterr()
    assert output.splitlines()[:3] == [str(out / name) for name in ("sr.nrrd", "c.nrrd", "sr.json")]
    assert "research use only" in output and errors == ""
    assert read_volume(out / "sr.nrrd").grid.size == (16, 18, 12)


def test_json_prints_events_and_nothing_else(scan: Path, out: Path) -> None:
    done = shell("run", scan, "-o", out / "sr.nii.gz", "-m", "linear", "--factor", "2", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and events[-1]["event"] == "result" and done.stderr == ""
    failed = shell("run", scan, "-o", out / "sr.nii.gz", "-m", "liner", "--factor", "2", "--json")
    assert json.loads(failed.stdout.splitlines()[-1])["exit_code"] == failed.returncode == 4 and failed.stderr == ""


def test_what_a_library_prints_does_not_spoil_the_events(scan: Path, out: Path) -> None:
    """C++ libraries print to the process's standard output; it goes to standard error instead."""
    code = (
        "import os, sys; from MRSuperResLib import cli; from MRSuperResLib.jobs import run; before = run.run_job\n"
        "def noisy(*a, **k):\n    os.write(1, b'ITK says hello\\n'); print('and Python'); return before(*a, **k)\n"
        "run.run_job = noisy; sys.exit(cli.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "run", str(scan), "-o", str(out / "sr.nii"), "-m", "linear", "--factor", "2"]
    done = subprocess.run([*command, "--json"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and all(json.loads(line) for line in done.stdout.splitlines())
    assert "ITK says hello" in done.stderr and "and Python" in done.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_progress_and_wipes_it(scan: Path) -> None:
    errors, output = Terminal(), io.StringIO()
    show = cli.Show(errors, output)
    show({"event": "started", "model": "m", "device": "cpu", "precision": "fp32", "output_size": [1, 2, 3],
          "output_spacing": [1.0, 1.0, 0.5]})  # fmt: skip
    show({"event": "progress", "stage": "super-resolving", "done": 5, "total": 10, "seconds_left": 75.0})
    assert "[############            ]  50%  1 min 15 s left" in errors.getvalue()
    show({"event": "warning", "code": "c", "message": "mind this"})
    show({"event": "progress", "stage": "writing", "done": 1, "total": 1, "seconds_left": 0.0})
    outputs = {"output": "sr.nii", "error_map": None, "flags": "f.nii", "samples": ["s1.nii"], "sidecar": "sr.json"}
    show({"event": "result", "outputs": outputs, "metrics": {"psnr": 31.234567, "slices": 3}, "seconds": 4000.0})
    assert "warning: mind this\n" in errors.getvalue()
    assert errors.getvalue().rstrip("\r").rsplit("\r", 1)[-1].strip() == ""
    assert output.getvalue().splitlines()[:4] == ["sr.nii", "f.nii", "s1.nii", "sr.json"]
    assert "psnr: 31.23" in output.getvalue() and "slices: 3" in output.getvalue() and "1 h 06 min" in output.getvalue()


def test_a_reference_that_is_not_used_is_not_called_registered() -> None:
    found = {"searched": True, "moved": False, "similarity": 0.0, "used": False}
    assert cli.output.reference_text(found) == "reference: not aligned; similarity 0.000; not used"
    assert "its header was right" in cli.output.reference_text({**found, "similarity": 0.5, "used": True})


def test_the_list_of_models_is_a_table_and_json_prints_cards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny(tmp_path)
    assert cli.main(["models", "--models", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["ID", "TASK", "PLANE", "FACTOR"]
    assert any(line.split()[:4] == ["tiny-through-x2", "super-resolve", "through-plane", "x2"] for line in lines)
    assert cli.main(["models", "--json", "--models", str(tmp_path)]) == 0
    cards = {entry["card"]["id"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(models.BASELINES) <= set(cards) and cards["tiny-through-x2"]["card"]["factors"] == [2.0, 1.0]
    assert models.ModelCard.from_json(cards["tiny-through-x2"]["card"]).id == "tiny-through-x2"


def test_a_card_is_shown_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_tiny(
        tmp_path, spacing=models.SpacingRange((0.5, 1.0), (2.0, 6.0)),
        sources=(models.Source("Colin27", "BSD-3", "truth"),),
        training=models.Training("rdst-e", 9000, 38.0, "2 CPU threads", "2025-01-01", "batch 8"),
        metrics=(models.Score("colin27", "through-plane", "through-gaussian", 31.0, 0.92, 0.01, {"bspline": (28.5, 0.9)}),),
        paper=models.Paper("A residual dense vision transformer", "Zhu et al.", 2023, "", "+3.4 dB"),
    )  # fmt: skip
    assert cli.main(["models", "show", "tiny-through-x2", "--models", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "samples:" not in text
    for part in (
        "slices of 2 to 6 mm",
        "takes a scan of one channel",
        "notes: batch 8",
        "Colin27 (BSD-3)",
        "9000 steps in 38 minutes",
        "bspline 28.50 dB",
        "+3.4 dB",
        "Tests",
    ):
        assert part in text


@pytest.mark.parametrize(("scale", "told"), [(2.153, "calibrated by x 2.153"), (None, "not calibrated")])
def test_the_card_of_a_sampled_model_tells_whether_its_uncertainty_can_be_trusted(
    scale: float | None, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs = models.Requirements(latent=8, uncertainty_scale=scale)
    save_tiny(tmp_path, "sampled", task="translate", target_contrasts=("T2w",), requirements=needs)
    assert cli.main(["models", "show", "sampled", "--models", str(tmp_path)]) == 0
    assert f"samples: 1 to 100 answers; uncertainty map {told}\n" in capsys.readouterr().out


def test_verify_reads_every_model_and_fails_on_a_changed_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_tiny(tmp_path)
    assert cli.main(["models", "verify", "--models", str(tmp_path)]) == 0
    assert "ok" in capsys.readouterr().out
    blob = bytearray(path.read_bytes())
    blob[-3] ^= 4
    path.write_bytes(blob)
    assert cli.main(["models", "verify", "tiny-through-x2", "--json", "--models", str(tmp_path)]) == 4
    assert json.loads(capsys.readouterr().out)[0]["ok"] is False
    path.write_bytes(blob[:-50])
    assert cli.main(["models", "verify", "--models", str(tmp_path)]) == 4
    assert "truncated" in capsys.readouterr().err


def test_run_and_translate_make_the_jobs_their_options_say(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[jobs.Job] = []
    monkeypatch.setattr(jobs, "execute", lambda job, *_: made.append(job) or 0)
    run = (
        "run a.nii -o b.nii -m m --spacing 1 1 2 --plane through --slice-axis 1 --reference r.nii --no-register --contrast T2w"
        " --truth t.nii --error-map e.nii --consistency-map c.nii --project --profile box --device cuda:1 --precision bf16"
        " --tile 96 --batch 2 --threads 3 --models d1 --models d2"
    )
    cli.main(run.split())
    assert made[0] == jobs.Job(
        input="a.nii", output="b.nii", model="m", task="reference-guided", spacing=(1.0, 1.0, 2.0), plane="through-plane",
        slice_axis=1, reference="r.nii", register=False, contrast="T2w", truth="t.nii", error_map="e.nii",
        consistency_map="c.nii", project=True, profile="box", device="cuda:1", precision="bf16", tile=96, batch=2, threads=3,
        model_folders=("d1", "d2"),
    )  # fmt: skip
    translate = (
        "translate a.nii -o b.nii -m m --to T2w --samples 5 --samples-folder s --seed 3 --uncertainty-map u.nii"
        " --super-resolve rdst --factor 4"
    )
    cli.main(translate.split())
    assert made[1] == jobs.Job(
        input="a.nii", output="b.nii", model="m", task="translate", target="T2w", samples=5, samples_folder="s", seed=3,
        uncertainty_map="u.nii", super_resolve_with="rdst", factor=4.0,
    )  # fmt: skip


def sharp(path: Path) -> Path:
    """A ball in noise on an isotropic grid."""
    k, j, i = np.meshgrid(*[np.arange(24) - 11.5] * 3, indexing="ij")
    ball = 400.0 * (k**2 + j**2 + i**2 < 81)
    return image((ball + 0.2 * noise(24, 24, 24)).astype(np.float32), path, (1.0, 1.0, 1.0))


def test_evaluate_scores_models_beside_the_baselines_and_draws(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    save_tiny(tmp_path)
    scans = [str(sharp(tmp_path / f"{name}.nii.gz")) for name in ("one", "two")]
    arguments = ["evaluate", *scans, "--model", "tiny-through-x2,linear", "--plane", "through", "--factor", "2"]
    arguments += ["--models", str(tmp_path), "--device", "cpu", "--profile", "box"]
    assert cli.main([*arguments, "--json", "--figure", str(out / "gain.png")]) == 0
    output, told = capsys.readouterr()
    rows = json.loads(output)
    drawn = [line.removeprefix("drawn: ") for line in told.splitlines() if line.startswith("drawn: ")]
    assert drawn == [str(out / "gain-one.png"), str(out / "gain-two.png")]
    assert {(row["scan"], row["model"]) for row in rows} == {
        (scan, model) for scan in ("one", "two") for model in (*models.BASELINES, "tiny-through-x2")
    }
    assert {row["degradation"] for row in rows} == {"through-box"} and all(row["metrics"]["psnr"] > 15 for row in rows)
    assert sorted(path.name for path in out.iterdir()) == ["gain-one.png", "gain-two.png"]
    assert cli.main([*arguments, "--figure", "", "--publish", str(out / "new" / "models")]) == 0
    assert "mean over 2 scans" in capsys.readouterr().out
    assert len(models.read_entry(out / "new" / "models" / "tiny-through-x2.safetensors").card.metrics) == 2


@pytest.mark.parametrize(
    ("changes", "code", "expected"),
    [
        (["--profile", "round"], 2, "degradation 'round' is unknown"),
        (["--factor", "1"], 2, "more than 1"),
        (["--factor", "nan"], 2, "more than 1"),
        (["--seed", "-1"], 2, "seed is -1"),
        (["--slices", "0"], 2, "slices is 0, expected at least 2"),
        (["--figure", "gain.docx"], 5, "not as '.docx'"),
        (["--figure", "/proc/gain.png"], 5, "cannot be written to"),
        (["--model", "nothing"], 4, "no model is called"),
        (["--reference", "a.nii", "b.nii"], 2, "give one for each"),
        (["--publish", "/proc/models"], 5, "the folder /proc/models cannot be made"),
    ],
)
def test_evaluate_refuses_what_it_cannot_do_in_one_line(
    changes: list[str], code: int, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", str(sharp(tmp_path / "one.nii.gz")), "--figure", "", "--plane", "through"]
    assert cli.main([*arguments, "--model", "linear", "--factor", "2", *changes]) == code
    errors = capsys.readouterr().err
    assert errors.splitlines()[-1].startswith("error: ") and expected in errors and "Traceback" not in errors
    assert "dB" not in errors, "refused before anything was run"


EVALUATE = ["--model", "linear", "--plane", "through", "--factor", "2"]


def test_evaluate_keeps_scans_of_one_file_name_apart(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
    scans = [str(sharp(tmp_path / place / "T1w.nii.gz")) for place in ("a", "b")]
    assert cli.main(["evaluate", *scans, *EVALUATE, "--json", "--figure", str(out / "gain.png")]) == 0
    assert {row["scan"] for row in json.loads(capsys.readouterr().out)} == {"a_T1w", "b_T1w"}
    assert sorted(path.name for path in out.iterdir()) == ["gain-a_T1w.png", "gain-b_T1w.png"]


def test_evaluate_prints_what_it_scored_even_if_the_next_scan_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = [str(sharp(tmp_path / "one.nii.gz")), str(tmp_path / "missing.nii.gz")]
    publish = ["--publish", str(tmp_path / "new" / "models")]
    assert cli.main(["evaluate", *scans, *EVALUATE, "--figure", "", *publish]) == 3
    output, errors = capsys.readouterr()
    assert "mean over 1 scans" in output and "missing.nii.gz does not exist" in errors.splitlines()[-1]
    assert not (tmp_path / "new").exists(), "nothing was published"


def test_evaluate_without_matplotlib_scores_and_says_that_it_drew_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from MRSuperResLib import evaluation

    monkeypatch.setattr(evaluation.figures.importlib.util, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", str(sharp(tmp_path / "one.nii.gz")), *EVALUATE]) == 0
    output, errors = capsys.readouterr()
    assert "mean over 1 scans" in output and "warning: no figure: matplotlib" in errors
    assert not (tmp_path / "evaluation.png").exists()


def test_results_of_one_name_in_two_formats_keep_a_record_each(scan: Path, out: Path) -> None:
    """The second run's must not replace the first one's, and each is found again when it is made anew."""
    for name, model in [("x.nii.gz", "linear"), ("x.nrrd", "bspline"), ("x.nii.gz", "lanczos"), ("x.nrrd", "linear")]:
        assert cli.main(["run", str(scan), "-o", str(out / name), "--model", model, "--factor", "2"]) == 0
        record = json.loads(sidecar_path(out / name).read_text(encoding="utf-8"))
        assert record["model"]["id"] == model
    assert {path.name for path in out.iterdir()} == {"x.nii.gz", "x.json", "x.nrrd", "x.nrrd.json"}
    assert json.loads((out / "x.json").read_text(encoding="utf-8"))["model"]["id"] == "lanczos"


def test_demo_hands_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from MRSuperResLib import demo

    asked: list[Any] = []
    monkeypatch.setattr(demo, "run", lambda *a, **k: asked.append((a, k)))
    command = "demo --output d --input v.nii --model m --whole --device cpu --threads 2 --models f"
    assert cli.main(command.split()) == 0
    assert cli.main(["demo"]) == 0
    everything = {
        "source": "v.nii",
        "model": "m",
        "model_folders": ["f"],
        "block_mm": None,
        "device": "cpu",
        "threads": 2,
    }
    assert asked[0] == (("d",), everything)
    assert asked[1][0] == ("demo-output",) and asked[1][1]["block_mm"] == demo.BLOCK_MM


def test_train_and_data_pack_hand_their_options_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lightning_fabric")
    from MRSuperResLib.training import fit, pack

    asked: list[Any] = []
    monkeypatch.setattr(fit, "fit", lambda *a, **k: asked.append((a, k)) or Path("o/model.safetensors"))
    command = "train rdst-e-through-x4 --data d --out o --minutes 2 --resume --device cpu --init linear"
    assert cli.main(command.split()) == 0
    assert asked[0][0] == ("rdst-e-through-x4", "d", "o")
    assert asked[0][1] == {
        "minutes": 2.0, "resume": True, "device": "cpu", "init": "linear", "workers": 0, "seed": 0, "validate": True,
        "checkpoint_minutes": 2.0, "id": None, "sources": (),
    }  # fmt: skip
    (tmp_path / "data").mkdir()
    save_scan(tmp_path / "data" / "a_T1w.nii.gz")
    assert cli.main(["data", "pack", str(tmp_path / "data"), str(tmp_path / "a.pack")]) == 0
    assert "1 volumes" in capsys.readouterr().out and pack.Pack(tmp_path / "a.pack").entries[0].name == "a_T1w"
    assert cli.main(["data", "pack", str(tmp_path / "out"), str(tmp_path / "b.pack")]) == 2
    assert capsys.readouterr().err.endswith("give the one that holds the volumes\n")


def test_a_bug_is_one_line_and_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("colour")

    monkeypatch.setattr(models, "list_models", broken)
    assert cli.main(["models"]) == 1
    errors = capsys.readouterr().err
    assert "Traceback" in errors and errors.splitlines()[-1] == "error: KeyError: 'colour' (a bug: please report it)"


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (ModuleNotFoundError("No module named 'monai'", name="monai"), 7, "pip install monai"),
        (KeyboardInterrupt(), 130, "cancelled"),
    ],
)
def test_a_missing_package_and_an_interrupt_have_their_own_codes(
    error: BaseException, code: int, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> None:
        raise error

    monkeypatch.setattr(models, "list_models", broken)
    assert cli.main(["models"]) == code
    errors = capsys.readouterr().err
    assert expected in errors and "Traceback" not in errors


@pytest.mark.parametrize("arguments", ["models --json", "run {scan} -o {out}/sr.nii.gz -m linear --factor 2 --json"])
def test_a_closed_pipe_is_no_error(arguments: str, scan: Path, out: Path) -> None:
    """`mrsuperres models | head -1`."""
    command = f"{sys.executable} -m MRSuperResLib {arguments.format(scan=scan, out=out)} | head -c 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stderr == "" and done.returncode == 0


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("mrsuperres ")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            ["run", "a.nii", "b.nii", "c.nii"],
            "error: one input is taken, and c.nii is another: repeat the command for each",
        ),
        (["run", "a.nii", "d.nii"], "error: unrecognized arguments: d.nii"),
        (["train", "x", "--data", ".", "--out", "o", "--minutes", "1", "--workers", "-1"], "'-1' is no number from 0"),
        (["evaluate-translation", "a.nii", "b.nii", "-m", ", ,"], "error: ', ,' names no model"),
        (["evaluate", "a.nii", "-m", ",", "--plane", "in-plane", "--factor", "2"], "error: ',' names no model"),
        (["data", "pack", "nowhere", "x.pack"], "error: nowhere is no folder"),
    ],
)
def test_what_a_glob_or_a_slip_of_the_finger_makes_is_said(
    command: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in "abc":
        (tmp_path / f"{name}.nii").touch()
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(SystemExit):
        assert cli.main(command) == 2
    told = capsys.readouterr().err
    assert expected in told and told.count("\n") == 1
