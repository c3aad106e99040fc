"""The module's worker between runs: one process for all of them, gone when nobody needs it, and never in the way of a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")
from panel.nodes import volume, volumes  # noqa: E402


@pytest.fixture
def workers(app: Any) -> Iterator[Any]:
    from MRSuperResSupport.worker import Workers

    slicer.mrmlScene.Clear(0)
    made = Workers()
    yield made
    made.close()
    assert not list(Path(app.temporaryPath).glob("MRSuperRes-*")), "temporary files were left behind"


@pytest.fixture
def logic(workers: Any) -> Any:
    from MRSuperResSupport.logic import MRSuperResLogic

    return MRSuperResLogic(process=workers)


def refined(logic: Any) -> Any:
    return logic.superResolve(volume(), "linear", factor=2, plane="through-plane")


def test_the_second_run_uses_the_process_of_the_first(logic: Any, workers: Any) -> None:
    """Which spares it the start of Python and, for networks, the import of torch."""
    refined(logic)
    first = workers._idle.process.pid
    refined(logic)
    assert workers._idle.process.pid == first and len(volumes()) == 4


def test_a_worker_that_ended_while_it_waited_is_replaced(logic: Any, workers: Any) -> None:
    refined(logic)
    waiting = workers._idle
    os.killpg(waiting.process.pid, signal.SIGKILL)
    waiting.process.wait()
    refined(logic)
    assert workers._idle is not waiting and len(volumes()) == 4


def test_a_worker_that_ends_just_as_it_is_asked_is_replaced_too(logic: Any, workers: Any) -> None:
    from MRSuperResSupport.run import RunRequest, wait

    refined(logic)
    os.killpg(workers._idle.process.pid, signal.SIGSTOP)  # takes the job, and never reads it
    child = workers._idle
    run = logic.start(RunRequest(volume(), "linear", factor=2, plane="through-plane"))
    os.killpg(child.process.pid, signal.SIGKILL)
    wait(run)
    assert run.error is None and run.result.output is not None


def test_cancelling_a_warm_worker_ends_its_process(logic: Any, workers: Any) -> None:
    from MRSuperResSupport.run import RunRequest, wait

    refined(logic)
    child = workers._idle
    run = logic.start(RunRequest(volume(), "linear", factor=2, plane="through-plane"))
    run.cancel()
    wait(run)
    assert run.error.code == "cancelled" and len(volumes()) == 3
    child.process.wait(timeout=5)
    assert workers._idle is None


def test_closing_ends_the_process_that_waits(logic: Any, workers: Any) -> None:
    workers.warm()
    child = workers._idle
    workers.warm()
    assert workers._idle is child, "one is enough"
    workers.close()
    child.process.wait(timeout=5)
    assert not child.isAlive
