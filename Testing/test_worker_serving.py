"""A worker that stays: several jobs in one process, networks kept, a preview first; it ends when nobody needs it."""

from __future__ import annotations

import base64
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import REPOSITORY, left_in, run

from MRSuperResLib.grid import Grid
from MRSuperResLib.inference.preview import upright
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.jobs import Job

pytestmark = pytest.mark.usefixtures("no_models_of_this_machine")


class Server:
    """The real process, and what it says."""

    def __init__(self, *arguments: str, code: str | None = None) -> None:
        command = ["-c", code] if code else ["-m", "MRSuperResLib", "worker", "--serve", *arguments]
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, job: Job, path: Path) -> None:
        path.write_text(job.to_json())
        assert self.process.stdin is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()

    def until(self, kind: str) -> list[dict[str, Any]]:
        """Events up to the first of that kind."""
        events: list[dict[str, Any]] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] == kind:
                return events
        raise AssertionError(f"no {kind}: {self.process.stderr.read() if self.process.stderr else ''}")


@pytest.fixture
def server() -> Iterator[Server]:
    served = Server()
    yield served
    served.process.kill()
    served.process.wait()
    for stream in (served.process.stdin, served.process.stdout, served.process.stderr):
        if stream is not None:
            stream.close()


def test_one_process_runs_job_after_job_and_its_answers_are_those_of_a_process_each(
    server: Server, job: Job, tmp_path: Path
) -> None:
    run(job)
    alone = read_volume(job.output).array
    server.until("ready")
    seconds = []
    for number in (1, 2):
        changed = dataclasses.replace(job, output=str(tmp_path / f"served-{number}.nrrd"))
        started = time.monotonic()
        server.ask(changed, tmp_path / f"job-{number}.json")
        events = server.until("ended")
        seconds.append(time.monotonic() - started)
        assert events[-1]["exit_code"] == 0 and events[-2]["event"] == "result"
        np.testing.assert_array_equal(read_volume(changed.output).array, alone)
    server.ask(dataclasses.replace(job, model="liner"), tmp_path / "job-3.json")
    events = server.until("ended")
    assert events[-2]["event"] == "error" and events[-1]["exit_code"] == 4
    server.ask(job, tmp_path / "job-4.json")
    assert server.until("ended")[-1]["exit_code"] == 0, "a mistake of the user's leaves the worker alive"


def test_it_ends_with_its_parent_and_when_idle(server: Server) -> None:
    assert server.process.stdin is not None
    server.until("ready")
    server.process.stdin.close()
    assert server.process.wait(timeout=30) == 0
    idle = Server("--idle", "0.1")
    assert idle.process.wait(timeout=60) == 0
    idle.process.communicate()


def test_a_worker_that_is_ready_has_nothing_heavy_left_to_import(tmp_path: Path) -> None:
    """With a shipped network: importing what was left took four seconds of the first run."""
    code = f"""
import sys
import numpy as np
from MRSuperResLib.grid import Grid
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.jobs import Job, execute, worker
from MRSuperResLib.volume import Volume

worker._load_libraries()
grid = Grid((40, 40, 6), (1.0, 1.0, 4.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
write_volume(Volume(np.random.default_rng(0).random(grid.shape, np.float32), grid), {str(tmp_path / "scan.nrrd")!r})
before = set(sys.modules)
job = {{"input": {str(tmp_path / "scan.nrrd")!r}, "output": {str(tmp_path / "sr.nrrd")!r}}}
job |= {{"model": "rdst-e-through-x4", "contrast": "T1w", "device": "cpu", "threads": 1}}
assert execute(Job.from_json(job), lambda event: None, lambda: False) == 0
print(*sorted({{name.split(".")[0] for name in set(sys.modules) - before}} & {{"torch", "sympy", "scipy", "safetensors"}}))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM handlers; the cancel file serves there")
def test_a_cancelled_job_ends_the_process_and_leaves_nothing(server: Server, job: Job, tmp_path: Path) -> None:
    server.until("ready")
    (tmp_path / "job.json.cancel").touch()
    server.ask(job, tmp_path / "job.json")
    assert server.until("ended")[-1]["exit_code"] == 130
    assert server.process.wait(timeout=30) == 130 and left_in(tmp_path / "out") == []


COMMITTING = """
import os, signal, sys
from MRSuperResLib import staging
move = staging.Staging._move
def signalled(self):
    move(self)
    os.kill(os.getpid(), signal.SIGTERM)
staging.Staging._move = signalled
from MRSuperResLib.cli import main
sys.exit(main(["worker", "--serve"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM handlers; the cancel file serves there")
def test_a_signal_while_results_are_put_into_place_ends_the_process_after_them(job: Job, tmp_path: Path) -> None:
    """It was forgotten once the results were there."""
    server = Server(code=COMMITTING)
    try:
        server.ask(job, tmp_path / "job.json")
        assert server.until("ended")[-2]["event"] == "result"
        assert server.process.wait(timeout=60) == 0 and "sr.nii.gz" in left_in(tmp_path / "out")
    finally:
        server.process.kill()
        server.process.communicate()


def test_the_threads_of_one_job_are_not_those_of_the_next(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    import SimpleITK as sitk
    import torch

    from MRSuperResLib.inference import device
    from MRSuperResLib.jobs import run as jobs_run

    for module in (device, jobs_run):  # what jobs of other tests asked for
        monkeypatch.setattr(module, "CHOSEN_THREADS", {})
    before = torch.get_num_threads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    torch.set_num_threads(3)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(3)
    try:
        for threads, used in ((None, 3), (1, 1), (2, 2), (None, 3), (None, 3)):
            result = run(dataclasses.replace(job, threads=threads))[-1]
            assert result["provenance"]["threads"] == used
            assert torch.get_num_threads() == sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == used
    finally:
        torch.set_num_threads(before[0])
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before[1])


def test_the_middle_slice_is_told_before_the_others(job: Job) -> None:
    events = run(dataclasses.replace(job, preview=True))
    kinds = [event["event"] for event in events]
    progress = [n for n, e in enumerate(events) if e["event"] == "progress" and e["stage"] == "super-resolving"]
    assert progress[0] < kinds.index("preview") < progress[1]
    (told,) = [event for event in events if event["event"] == "preview"]
    assert (told["rows"], told["columns"], told["spacing"]) == (12, 16, pytest.approx([1.5, 1.0]))
    pixels = np.frombuffer(base64.b64decode(told["pixels"]), np.uint8).reshape(told["rows"], told["columns"])
    answer = read_volume(job.output).array[:, 9]
    agreement = max(np.corrcoef(pixels.ravel(), turned.ravel())[0, 1] for turned in (answer[::-1], answer[::-1, ::-1]))
    assert agreement > 0.95, "the slice is that of the result, upright"
    assert "preview" not in [event["event"] for event in run(job)]


def test_a_translation_shows_its_middle_slice_first_too() -> None:
    from made_translators import Known
    from made_translators import run as translated

    network, shown, slices = Known(), [], []
    answer = translated(
        network=network,
        samples=2,
        keep_samples=True,
        preview=lambda picture: (shown.append(picture), slices.append(len(network.seen))),
    )
    (picture,) = shown
    assert slices == [1] < [len(network.seen)], "one slice, before all the others"
    middle = answer.samples[0].array[answer.samples[0].array.shape[0] // 2]
    assert picture.pixels.shape == middle.shape
    turned = [middle, middle[::-1], middle[:, ::-1], middle[::-1, ::-1]]
    assert max(np.corrcoef(picture.pixels.ravel(), image.ravel())[0, 1] for image in turned) > 0.95


@pytest.mark.parametrize("direction", ["axial", "coronal", "sagittal", "turned"])
def test_a_preview_is_upright(direction: str) -> None:
    """A bright corner that is superior (or anterior) and right (or anterior) of the patient lands in the upper left."""
    axes = {
        "axial": ([1, 0, 0], [0, 1, 0], [0, 0, 1]), "coronal": ([1, 0, 0], [0, 0, -1], [0, 1, 0]),
        "sagittal": ([0, 1, 0], [0, 0, -1], [1, 0, 0]), "turned": ([0, -1, 0], [-1, 0, 0], [0, 0, -1]),
    }[direction]  # fmt: skip
    matrix = np.array(axes, dtype=float).T
    grid = Grid((6, 5, 4), (1.0, 2.0, 3.0), (0.0, 0.0, 0.0), tuple(matrix.ravel().tolist()))
    k, j, i = np.indices(grid.shape)
    world = matrix @ np.stack([i.ravel() - 2.5, j.ravel() - 2.0, k.ravel() - 1.5])
    volume = (-world[0] - 2 * world[1] + 4 * world[2]).reshape(grid.shape)  # right +, anterior ++, superior ++++
    for slices in range(3):
        rows, columns = (axis for axis in range(3) if axis != slices)
        image = np.take(volume, 1, axis=slices)
        shown = upright(image, grid, (2 - rows, 2 - columns))
        assert shown.pixels[0].astype(int).sum() > shown.pixels[-1].astype(int).sum()
        assert shown.pixels[:, 0].astype(int).sum() > shown.pixels[:, -1].astype(int).sum()
        assert sorted(shown.spacing) == sorted([grid.spacing[2 - rows], grid.spacing[2 - columns]])
