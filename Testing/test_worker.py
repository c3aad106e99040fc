"""The worker process: its events, and how it ends when it is told to stop."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import REPOSITORY, left_in, run

from MRSuperResLib import jobs
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.jobs import Cancellation, Job
from MRSuperResLib.staging import Staging

pytestmark = pytest.mark.usefixtures("no_models_of_this_machine")


def worker(job: Job, folder: Path) -> subprocess.Popen[str]:
    """The real worker process."""
    path = folder / "job.json"
    path.write_text(job.to_json())
    return subprocess.Popen(
        [sys.executable, "-m", "MRSuperResLib", "worker", str(path)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# the worker


def test_a_worker_process_turns_a_job_into_files_and_tells_every_step(job: Job, tmp_path: Path) -> None:
    process = worker(job, tmp_path)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    events = [json.loads(line) for line in output.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds.count("started") == 1 and kinds[-1] == "result" and "error" not in kinds
    started = next(event for event in events if event["event"] == "started")
    assert started["model"] == "tiny-through-x2" and started["device"] == "cpu" and started["precision"] == "fp32"
    assert started["output_size"] == [16, 18, 12] and started["output_spacing"] == pytest.approx([1.0, 1.0, 1.5])
    stages = [event["stage"] for event in events if event["event"] == "progress"]
    assert list(dict.fromkeys(stages)) == ["reading", "super-resolving", "scoring", "writing"]
    slices = [event for event in events if event["event"] == "progress" and event["stage"] == "super-resolving"]
    assert slices[-1]["done"] == slices[-1]["total"] == 2 * 16 * 18 * 6, "voxels of both views"

    result = events[-1]
    assert set(result["metrics"]) >= {"psnr", "ssim", "nmse"}
    outputs = result["outputs"]
    assert left_in(tmp_path / "out") == ["consistency.nii.gz", "error.nrrd", "sr.json", "sr.nii.gz"]
    source, answer, error = (read_volume(path) for path in (job.input, outputs["output"], outputs["error_map"]))
    assert answer.grid.same_as(source.grid.refine((1.0, 1.0, 2.0)))
    assert error.grid.same_as(answer.grid) and error.array.min() >= 0
    truth = read_volume(job.truth or "")
    np.testing.assert_allclose(error.array, np.abs(answer.array - truth.array), atol=1e-2)
    assert read_volume(outputs["consistency_map"]).grid.same_as(source.grid)
    assert 400 < answer.array[6, 9, 8] < 600


def test_a_job_read_from_standard_input_runs_alike(job: Job) -> None:
    simple = dataclasses.replace(job, model="linear", factor=2.0, truth=None, error_map=None, consistency_map=None)
    process = subprocess.run(
        [sys.executable, "-m", "MRSuperResLib", "worker", "-"],
        cwd=REPOSITORY, input=simple.to_json(), capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout.splitlines()[-1])["event"] == "result"
    assert process.stderr == ""


def test_the_same_job_gives_the_same_voxels(job: Job) -> None:
    run(job)
    first = read_volume(job.output).array
    run(dataclasses.replace(job, batch=3))
    np.testing.assert_allclose(read_volume(job.output).array, first, atol=1e-2)


# cancelling

SLOW = """
import sys, time
import MRSuperResLib.networks.rdst as rdst
forward = rdst.RDST.forward
def slow(self, x):
    time.sleep(0.1)
    return forward(self, x)
rdst.RDST.forward = slow
from MRSuperResLib.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def slow_worker(job: Job, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A worker that would take seconds, caught in its third batch."""
    path = tmp_path / "job.json"
    path.write_text(dataclasses.replace(job, batch=1).to_json())
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, "worker", str(path)],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "progress" and event["stage"] == "super-resolving" and event["done"] >= 3 * 18 * 6:
            break
    yield process
    process.kill()
    process.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM handlers; the cancel file serves there")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_worker_at_once_and_leaves_nothing(
    slow_worker: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    slow_worker.send_signal(number)
    output, errors = slow_worker.communicate(timeout=60)
    assert slow_worker.returncode == 130
    last = json.loads(output.splitlines()[-1])
    assert last["event"] == "error" and last["code"] == "cancelled" and last["exit_code"] == 130
    assert left_in(tmp_path / "out") == [] and errors == ""


def test_a_cancel_file_stops_the_worker_where_signals_cannot(
    slow_worker: subprocess.Popen[str], tmp_path: Path
) -> None:
    (tmp_path / "job.json.cancel").touch()
    output, _ = slow_worker.communicate(timeout=60)
    assert slow_worker.returncode == 130
    assert json.loads(output.splitlines()[-1])["code"] == "cancelled"
    assert left_in(tmp_path / "out") == []


def test_a_worker_whose_listener_is_gone_stops(slow_worker: subprocess.Popen[str], tmp_path: Path) -> None:
    """Slicer crashed: nobody reads the events, so nobody wants the result."""
    assert slow_worker.stdout is not None
    slow_worker.stdout.close()
    assert slow_worker.wait(timeout=60) == 130
    assert left_in(tmp_path / "out") == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_worker_held_by_a_library_ends_itself_without_leftovers(job: Job, tmp_path: Path) -> None:
    """A call that does not return to Python's loop cannot be asked to stop: the worker waits a moment, cleans up and goes."""
    path = tmp_path / "job.json"
    path.write_text(job.to_json())
    code = SLOW.replace(
        "time.sleep(0.1)", "print('held', file=sys.stderr, flush=True); [time.sleep(0.05) for _ in range(400)]"
    )
    code = code.replace(
        "import sys, time", "import sys, time\nfrom MRSuperResLib import jobs\njobs.worker.GRACE_SECONDS = 0.5"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "worker", str(path)],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None and process.stderr.readline() == "held\n"
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and json.loads(output.splitlines()[-1])["code"] == "cancelled"
    assert left_in(tmp_path / "out") == []


def test_cancelling_while_results_are_written_leaves_none_of_them(job: Job, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []

    def cancel() -> bool:
        return any(event.get("stage") == "writing" and event["done"] == 1 for event in events)

    assert jobs.execute(job, events.append, cancel) == 130
    assert events[-1]["code"] == "cancelled" and left_in(tmp_path / "out") == []


def test_a_run_whose_files_were_removed_announces_no_result(job: Job, tmp_path: Path) -> None:
    """The worker that is about to end itself removes them just before they would be committed."""
    events: list[dict[str, Any]] = []
    staging = Staging()

    def emit(event: dict[str, Any]) -> None:
        events.append(event)
        if event.get("stage") == "writing" and event["done"] == 1:
            staging.discard()

    assert jobs.execute(job, emit, lambda: False, staging) == 130
    assert events[-1]["code"] == "cancelled" and "result" not in {event["event"] for event in events}
    assert left_in(tmp_path / "out") == []


def test_pulling_cancels_and_signals_are_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    pulled: list[int] = []
    cancellation = Cancellation()
    with cancellation.on_signals(lambda: pulled.append(1)):
        assert not cancellation()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert cancellation() and pulled == [1]
    assert signal.getsignal(signal.SIGINT) is before
