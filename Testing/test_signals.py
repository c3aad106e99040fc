"""Signals end a job as soon as is possible: inside of a library call, while Python loads, one after another, or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small import REPOSITORY, left_in, save_scan

from MRSuperResLib.jobs import Job

pytestmark = pytest.mark.usefixtures("no_models_of_this_machine")
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
linux = pytest.mark.skipif(sys.platform != "linux", reason="a lock of glibc's")


def held(arguments: list[str]) -> subprocess.Popen[str]:
    """A process inside of a B-spline, which is one call of a library that does not come back to Python: here it never does.

    It hears SIGINT also where the tests run in the background, and tells where it stands if it has not ended by then.
    """
    code = (
        "import ctypes, faulthandler, signal, sys, SimpleITK as sitk\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Held(sitk.ResampleImageFilter):\n"
        "    def Execute(self, *given):\n"
        "        library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)\n"
        "        library.pthread_mutex_lock(mutex)\n"
        "        faulthandler.dump_traceback_later(50, exit=True)\n"
        "        print('held', file=sys.stderr, flush=True)\n"
        "        library.pthread_mutex_lock(mutex)\n"
        "sitk.ResampleImageFilter = Held\n"
        "from MRSuperResLib.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines = [process.stderr.readline()]
    while lines[-1] and lines[-1] != "held\n":
        lines.append(process.stderr.readline())
    assert lines[-1] == "held\n", lines
    return process


@linux
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("door", ["run", "worker", "evaluate"])
def test_a_signal_ends_a_job_inside_of_a_library_call_that_does_not_return(
    door: str, number: str, tmp_path: Path
) -> None:
    scan, out = save_scan(tmp_path / "scan.nii", (32, 32, 32)), tmp_path / "out"
    out.mkdir()
    job = Job(str(scan), str(out / "o.nii"), "bspline", factor=2.0, plane="in-plane")
    (tmp_path / "job.json").write_text(job.to_json())
    doors = {
        "run": ["run", job.input, "-o", job.output, *["-m", "bspline", "--factor", "2", "--plane", "in-plane"]],
        "worker": ["worker", str(tmp_path / "job.json")],
        "evaluate": [
            "evaluate",
            job.input,
            *["-m", "bspline", "--factor", "2", "--plane", "in-plane", "--figure"],
            str(out / "f.png"),
        ],
    }
    process = held(doors[door])
    process.send_signal(getattr(signal, number))
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and left_in(out) == [], errors
    assert "Traceback" not in errors and "cancelled" in output + errors


def test_ctrl_c_while_python_is_loading_is_one_line_too() -> None:
    code = (
        "import sys\n"
        "class Impatient:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'MRSuperResLib.jobs': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Impatient())\n"
        "from MRSuperResLib.__main__ import main\n"
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code, "models"], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: cancelled\n")


@linux
def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    scan = save_scan(tmp_path / "scan.nii")
    arguments = [
        "run",
        str(scan),
        "-o",
        str(tmp_path / "o.nii"),
        *["-m", "bspline", "--factor", "2", "--plane", "in-plane"],
    ]
    process = held(arguments)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        if process.poll() is not None:
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and left_in(tmp_path) == ["scan.nii"], errors


@posix
def test_a_signal_inside_of_another_ones_handler_stops_nothing() -> None:
    """Two of them so close that the second interrupts what the first set off, at any line of it."""
    code = (
        "import signal, sys, threading; from MRSuperResLib.jobs import Cancellation\n"
        "def trace(frame, event, argument):\n"
        "    global left\n"
        "    if not frame.f_code.co_filename.endswith(('signals.py', 'events.py')): return None\n"
        "    if event == 'line':\n"
        "        left -= 1\n"
        "        if left == 0: signal.raise_signal(signal.SIGTERM)\n"
        "    return trace\n"
        "for line in range(1, 12):\n"
        "    left, again, cancellation = line, threading.Event(), Cancellation()\n"
        "    with cancellation.on_signals(None, again.set):\n"
        "        sys.settrace(trace); signal.raise_signal(signal.SIGINT); sys.settrace(None)\n"
        "        assert cancellation()\n"
        "        if left <= 0: assert again.wait(20), line\n"
        "assert left > 0, 'no line is left out'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


@posix
def test_a_job_that_was_told_to_outlive_its_terminal_does(tmp_path: Path) -> None:
    """nohup ignores SIGHUP for the program it starts."""
    code = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); from MRSuperResLib import jobs\n"
        "from MRSuperResLib.cli import main; from MRSuperResLib.jobs import run; before = run.run_job\n"
        "def hung_up(*given): signal.raise_signal(signal.SIGHUP); return before(*given)\n"
        "run.run_job = hung_up; sys.exit(main(sys.argv[1:]))"
    )
    scan, output = save_scan(tmp_path / "scan.nii.gz"), tmp_path / "o.nii.gz"
    arguments = ["run", str(scan), "-o", str(output), *["-m", "linear", "--factor", "2", "--plane", "through-plane"]]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and output.is_file(), done.stderr
