"""Every way out is a clear line: streams, names, numbers, files that would hold or harm a reader."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small import REPOSITORY, left_in, save_scan, save_tiny, shell

from MRSuperResLib import cli, models
from MRSuperResLib.cli.streams import printable
from MRSuperResLib.errors import ModelError, UsageError
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.jobs import Job, work

pytestmark = pytest.mark.usefixtures("no_models_of_this_machine")
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX shell")
LINEAR = "-m linear --factor 2 --plane through-plane"
PROGRAM = f"{sys.executable} -m MRSuperResLib"


def command(line: str, folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """A line of bash in `folder`."""
    paths = {"PYTHONPATH": str(REPOSITORY)}
    environment = {**os.environ, **paths, **options.pop("env", {})}
    return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, env=environment, **options)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a scan and a job."""
    save_scan(tmp_path / "scan.nii.gz")
    job = Job("scan.nii.gz", "o.nii.gz", "linear", factor=2.0, plane="through-plane")
    (tmp_path / "job.json").write_text(job.to_json())
    return tmp_path


# streams


@posix
@pytest.mark.parametrize(
    ("line", "code"),
    [
        (f"run scan.nii.gz -o o.nii.gz {LINEAR} 2>&-", 0),
        (f"run scan.nii.gz -o o.nii.gz {LINEAR} >&-", 0),
        (f"run scan.nii.gz -o o.nii.gz {LINEAR} --json >&-", 0),
        (f"run scan.nii.gz -o o.nii.gz {LINEAR} <&- >&- 2>&-", 0),
        ("worker job.json >&-", 0),
        ("worker job.json <&- 2>&-", 0),
        (f"run scan.nii.gz -o o.nii.gz {LINEAR} >/dev/full", 5),
        (f"run scan.nii.gz -o o.nii.gz {LINEAR} --json >/dev/full", 5),
        (f"run scan.nii.gz -o o.nii.gz {LINEAR} 2>/dev/full", 0),
        ("worker job.json >/dev/full", 5),
    ],
)
def test_a_job_runs_whatever_its_streams_are_worth(line: str, code: int, here: Path) -> None:
    """pythonw, a service, cron, a full disk: the result is made, and lost lines are told where that is possible."""
    done = command(f"{PROGRAM} {line}", here)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("\n") == (1 if code else 0)
    assert read_volume(here / "o.nii.gz").grid.size == (16, 18, 12)
    assert not list(here.glob(".*")), "and nothing of libraries' chatter went into a file"


@posix
@pytest.mark.parametrize(
    "line",
    ["models", "models --json", "models show", "--help", "models --help", "worker --schema", "inspect scan.nii.gz"],
)
def test_a_reader_that_has_gone_ends_a_command_as_if_it_had_read_all(line: str, here: Path) -> None:
    """`mrsuperres models --json | head -1`; here the reader is gone for certain."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "MRSuperResLib", *line.split()], cwd=here, stdout=write, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@posix
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_run_whose_reader_has_gone_is_completed(more: list[str], here: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "MRSuperResLib", *f"run scan.nii.gz -o o.nii.gz {LINEAR}".split(), *more],
        cwd=here, stdout=write, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "") and (here / "o.nii.gz").is_file()


@posix
def test_a_worker_without_a_job_on_its_input_says_so(here: Path) -> None:
    done = command(f"{PROGRAM} worker - <&-", here)
    event = json.loads(done.stdout)
    assert done.returncode == event["exit_code"] == 2 and event["message"] == "the job on standard input is empty"


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp1252", "utf-8"])
def test_a_code_page_that_lacks_a_character_ends_nothing(encoding: str, here: Path) -> None:
    """A terminal of Windows, and a folder called after a patient."""
    folder = here / "Ľubomír – 磁共振"
    folder.mkdir()
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    arguments = ["run", here / "scan.nii.gz", "-o", folder / "o.nii.gz", *LINEAR.split()]
    done = shell(*arguments, env=environment, encoding=encoding, errors="strict")
    assert done.returncode == 0 and done.stderr == "" and (folder / "o.nii.gz").is_file()


# names


@posix
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_names_that_are_not_utf_8_are_read_and_written(suffix: str, tmp_path: Path) -> None:
    """A CD unzipped on Linux."""
    folder = os.path.join(os.fsencode(tmp_path), b"M\xfcller")
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    scan = save_scan(tmp_path / f"scan{suffix}")
    os.rename(scan, os.path.join(folder, os.fsencode(scan.name)))
    line = f"cd $'M\\374ller' && {PROGRAM} run scan{suffix} -o \"$PWD/o{suffix}\" {LINEAR} --json"
    done = command(line, tmp_path)
    last = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode in (0, 3, 5) and "Traceback" not in done.stderr and done.stderr == "", done.stderr
    left = sorted(os.listdir(folder))
    made = [f"o{suffix}".encode(), b"o.json"] if last["event"] == "result" else []
    assert left == sorted([f"scan{suffix}".encode(), *made])


@posix
@pytest.mark.parametrize(("length", "code"), [(255, 0), (256, 5)])
def test_a_result_with_a_name_that_is_too_long_is_refused_before_the_work(length: int, code: int, here: Path) -> None:
    name = "n" * (length - len(".nii.gz")) + ".nii.gz"
    done = command(f"{PROGRAM} run scan.nii.gz -o {name} {LINEAR} --json", here)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == code, done.stdout
    assert (here / name).is_file() if code == 0 else [event["event"] for event in events] == ["error"]
    assert not list(here.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["{long}.nii", "-o", "o.nii", "-m", "linear"], 3),
        (["scan.nii.gz", "-o", "o.nii", "-m", "linear", "--truth", "{long}.nii"], 3),
        (["scan.nii.gz", "-o", "o.nii", "-m", "{long}"], 4),
        (["scan.nii.gz", "-o", "o.nii", "-m", "{long}.safetensors"], 4),
        (["scan.nii.gz", "-o", "o.nii", "-m", "linear", "--models", "{long}"], 2),
        (["scan.nii.gz", "-o", "{long}/o.nii", "-m", "linear"], 5),
        (["scan.nii.gz", "-o", "o.nii", "-m", "linear", "--threads", "1000000000"], 2),
        (["scan.nii.gz", "-o", "o.nii", "-m", "linear", "--tile", "9" * 400], 2),
        (["scan\0.nii.gz", "-o", "o.nii", "-m", "linear"], 2),
        (["scan.nii.gz", "-o", "o\ud800.nii", "-m", "linear"], 2),
    ],
)
def test_names_and_numbers_that_nothing_takes_are_one_line(
    arguments: list[str], code: int, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    filled = [word.format(long="l" * 300) for word in arguments]
    before = left_in(here)
    assert cli.main(["run", *filled, "--factor", "2", "--plane", "through"]) == code
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1 and left_in(here) == before


@pytest.mark.parametrize("command", ["evaluate scan.nii.gz --plane in-plane --factor 2 -m linear", "demo"])
def test_numbers_are_in_their_range_for_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command.split(), "--threads", "1000000000"]) == 2
    assert capsys.readouterr().err == "error: threads is 1000000000, expected at most 256\n"


@posix
def test_a_user_without_a_home_can_work(here: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "MRSUPERRES_MODELS")}
    code = "import os, pwd; pwd.getpwuid = lambda uid: {}[uid]; import sys; from MRSuperResLib.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "models"], cwd=REPOSITORY, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0 and "linear" in done.stdout and done.stderr == ""
    assert command(f"unset HOME; {PROGRAM} run scan.nii.gz -o '~/o.nii' {LINEAR}", here).returncode in (0, 5)


def test_a_file_that_begins_with_a_dash_is_told_how_to_name(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "scan.nii.gz").rename(here / "-dash.nii.gz")
    monkeypatch.chdir(here)
    arguments = ["run", "-dash.nii.gz", "-o", "o.nii.gz", "-m", "linear"]
    monkeypatch.setattr(sys, "argv", ["mrsuperres", *arguments])
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert f"write .{os.sep}-dash.nii.gz" in capsys.readouterr().err


def test_control_characters_are_shown_and_not_obeyed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A card, or a file's name, could clear the screen, colour it, or print a line of its own."""
    assert (
        printable("a\x1b[2Jb\rc\nd\u202ee\x07") == "a\\x1b[2Jb\\rc\\nd\\u202ee\\x07"
        and printable("Müller µ×") == "Müller µ×"
    )
    save_tiny(tmp_path, title="Good\x1b]0;owned\x07\nerror: no", intended_use="\x9b31mTests")
    for command in (["models", "show", "tiny-through-x2"], ["models"]):
        assert cli.main([*command, "--models", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "\x1b" not in output and "\x9b" not in output and "\\x1b]0;owned" in output and "\nerror: no" not in output
    assert cli.main(["run", "no\x1b[2J.nii", "-o", str(tmp_path / "o.nii"), "-m", "linear"]) == 3
    assert capsys.readouterr().err.startswith("error: no\\x1b[2J.nii")


# files that would hold or harm a reader


def told(path: Path) -> str:
    """What a worker says of the job at `path`."""
    stream = io.StringIO()
    assert work(str(path), stream) == 2
    (event,) = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert event["code"] == "bad-job" and len(event["message"]) < 500
    return str(event["message"])


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16"])
def test_a_job_saved_by_notepad_or_powershell_is_read(mark: str, here: Path) -> None:
    job = Job(str(here / "scan.nii.gz"), str(here / "o.nii.gz"), "linear", factor=2.0, plane="through-plane")
    (here / "bom.json").write_text(job.to_json(), encoding=mark)
    assert work(str(here / "bom.json"), io.StringIO()) == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xff\xff",
        b"[" * 200_000,
        b'{"input": ' + b'{"a":' * 50_000,
        b"1" * 5000,
        b"{}" + b" " * 2**21,
        b'"\\ud800"',
    ],
)
def test_a_job_that_is_empty_damaged_nested_or_gigantic_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_bytes(content)
    assert told(tmp_path / "job.json")


@posix
def test_nothing_waits_on_a_pipe_a_device_or_a_loop(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "job.json")
    assert "no regular file" in told(tmp_path / "job.json") and "no regular file" in told(Path("/dev/zero"))
    (tmp_path / "loop.json").symlink_to("loop.json")
    assert "cannot be read" in told(tmp_path / "loop.json") and "cannot be read" in told(tmp_path)
    models_folder = tmp_path / "models"
    models_folder.mkdir()
    os.mkfifo(models_folder / "pipe.safetensors")
    (models_folder / "loop.safetensors").symlink_to("loop.safetensors")
    (models_folder / "folder.safetensors").mkdir()
    (models_folder / "zero.safetensors").symlink_to("/dev/zero")
    save_tiny(models_folder)
    warned: list[str] = []
    entries = models.list_models([models_folder], lambda code, message: warned.append(message))
    assert "tiny-through-x2" in [entry.card.id for entry in entries], "the sound one is served"
    assert len(warned) == 4 and all("is ignored" in line for line in warned)
    for name in ("pipe", "loop", "folder", "zero"):
        with pytest.raises(ModelError):
            models.find_model(models_folder / f"{name}.safetensors")


def test_a_model_whose_card_asks_for_a_gigantic_network_is_refused_before_it_is_built(tmp_path: Path) -> None:
    entry = models.read_entry(save_tiny(tmp_path))
    for value in (10**12, 1e300, [[0] * 20_000]):
        card = dataclasses.replace(entry.card, hyperparameters={**entry.card.hyperparameters, "blocks": value})
        with pytest.raises(ModelError, match="hyperparameter"):
            models.package._check_sizes(dataclasses.replace(entry, card=card))


def test_a_model_of_the_users_own_that_hides_a_shipped_one_is_an_error_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever can write to that folder could change what everybody's jobs compute."""
    shipped, own = tmp_path / "shipped", tmp_path / "own"
    for folder, title in ((shipped, "The true one"), (own, "Another")):
        folder.mkdir()
        save_tiny(folder, title=title)
    monkeypatch.setattr(models.registry, "user_folder", lambda: own)
    monkeypatch.setattr(models.registry, "default_folders", lambda: (shipped, own))
    with pytest.raises(ModelError, match="two models are called 'tiny-through-x2'") as refused:
        models.find_model("tiny-through-x2")
    assert refused.value.code == "shadowed-model" and str(own) in refused.value.message
    assert models.find_model(own / "tiny-through-x2.safetensors").card.title == "Another"
    assert cli.main(["models"]) == 0
    said = capsys.readouterr()
    assert "The true one" in said.out and "Another" not in said.out and "ships" in said.err
    (own / "tiny-through-x2.safetensors").write_bytes((shipped / "tiny-through-x2.safetensors").read_bytes())
    assert models.find_model("tiny-through-x2").card.title == "The true one", "a copy hides nothing"


def test_code_in_the_current_folder_is_not_run(here: Path) -> None:
    for name in ("numpy", "SimpleITK", "torch", "argparse"):
        (here / f"{name}.py").write_text("open('ran', 'w')")
    done = subprocess.run(
        [sys.executable, "-m", "MRSuperResLib", "worker", "job.json"], cwd=here, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0 and not (here / "ran").exists(), done.stderr


def test_a_data_set_whose_content_was_not_fetched_is_told_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """datalad leaves links that lead nowhere; macOS leaves `._` files that are no volumes."""
    folder = tmp_path / "folder"
    folder.mkdir()
    save_scan(folder / "scan.nii.gz")
    (folder / "._scan.nii.gz").write_bytes(b"Mac OS X")
    assert cli.main(["data", "pack", str(folder), str(tmp_path / "x.pack")]) == 0
    assert "._scan.nii.gz is left out" in capsys.readouterr().err
    (folder / "annexed.nii.gz").symlink_to("../.git/annex/objects/aa/bb")
    assert cli.main(["data", "pack", str(folder), str(tmp_path / "y.pack")]) == 3
    errors = capsys.readouterr().err.splitlines()
    assert "annexed.nii.gz" in errors[-1] and "not fetched" in errors[-1] and left_in(tmp_path) == ["folder", "x.pack"]


def test_a_pack_does_not_replace_what_is_no_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    scan = save_scan(tmp_path / "data" / "scan.nii.gz")
    before = scan.read_bytes()
    assert cli.main(["data", "pack", str(tmp_path / "data"), str(scan)]) == 5
    assert "is no pack" in capsys.readouterr().err and scan.read_bytes() == before
    for _ in range(2):
        assert cli.main(["data", "pack", str(tmp_path / "data"), str(tmp_path / "x.pack")]) == 0


# progress


class Told(io.StringIO):
    """Not a terminal."""


def test_without_a_terminal_a_line_now_and_then_tells_how_far_a_job_is() -> None:
    now, errors = [0.0], Told()
    show = cli.Show(errors, io.StringIO(), clock=lambda: now[0])
    for second in range(120):
        now[0] = float(second)
        show(
            {
                "event": "progress",
                "stage": "super-resolving",
                "done": second,
                "total": 120,
                "seconds_left": 120.0 - second,
            }
        )
    lines = errors.getvalue().splitlines()
    assert lines[0] == "super-resolving: 8%, 1 min 50 s left" and len(lines) == 4, lines
    assert "\r" not in errors.getvalue()


def test_a_quick_job_needs_no_line() -> None:
    errors = Told()
    show = cli.Show(errors, io.StringIO(), clock=lambda: 3.0)
    for done in range(10):
        show({"event": "progress", "stage": "writing", "done": done, "total": 9, "seconds_left": None})
    assert errors.getvalue() == ""


def test_a_field_that_is_no_number_is_refused() -> None:
    with pytest.raises(UsageError, match="a finite number"):
        Job("a.nii", "b.nii", "m", factor=float("inf")).check()
