"""The worker process: a job in, events out as JSON lines on its standard output."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import IO, Any

from ..errors import Cancelled, DeviceError, UsageError
from ..staging import Staging
from .events import Cancellation, failed
from .job import Job
from .run import execute

IDLE_SECONDS = 600.0  # a worker that stays ends after that long without a job, and frees memory
FIRST_JOB_SECONDS = 0.1  # one that was started for a job has it by then: interpolation needs no torch
NETWORKS_KEPT = 2
GRACE_SECONDS = 1.0  # after a signal, before the worker ends itself in the middle of whatever library call it is in


def work(source: str, stream: IO[str], cancel_file: str | None = None) -> int:
    """The worker process: run the job in the file `source` ("-": standard input), write events to `stream`, return the
    exit code.

    It stops on SIGTERM and SIGINT, and once `cancel_file` (by default `source` + ".cancel") exists; if a library call
    holds it longer than `GRACE_SECONDS` after a signal, it removes its temporary files and ends itself.
    """
    lock, staging = threading.Lock(), Staging()
    cancellation = Cancellation(cancel_file or (f"{source}.cancel" if source != "-" else None))

    def emit(event: dict[str, Any]) -> None:
        with lock:
            try:
                stream.write(json.dumps(event, ensure_ascii=True, allow_nan=False) + "\n")
                stream.flush()
            except (BrokenPipeError, ValueError):  # nobody listens any more: no reason to go on
                cancellation.pull()

    def end() -> None:
        staging.discard()
        if staging.committed:
            return
        failed(emit, Cancelled.code, "cancelled; nothing was written", Cancelled.exit_code)
        os._exit(Cancelled.exit_code)

    def watch() -> None:
        timer = threading.Timer(GRACE_SECONDS, end)
        timer.daemon = True
        timer.start()
        timers.append(timer)

    timers: list[threading.Timer] = []
    with cancellation.on_signals(watch):
        code = execute(lambda: Job.from_json(_source(source)), emit, cancellation, staging)
        for timer in timers:
            timer.cancel()
    return code


def serve(requests: IO[str], stream: IO[str], idle_seconds: float = IDLE_SECONDS) -> int:
    """A worker that stays: run the job in each file that `requests` names, a line each, and tell its exit code last.

    Without a job to begin with it loads torch, and tells {"event": "ready"}; it keeps the last networks, so that the next job
    starts sooner. Events are those of `work`, then {"event": "ended", "exit_code": N}. It ends where `requests` does, after
    `idle_seconds` without a job, after a signal, and after an error that may have harmed this process: the device's, memory's,
    or a bug's.
    """
    from .. import models

    waiting: queue.Queue[str | None] = queue.Queue()

    def listen() -> None:
        for line in requests:
            waiting.put(line.strip())
        waiting.put(None)

    threading.Thread(target=listen, daemon=True).start()
    models.keep_networks(NETWORKS_KEPT)
    patience = FIRST_JOB_SECONDS
    while True:
        try:
            source = waiting.get(timeout=patience)
        except queue.Empty:
            if patience == idle_seconds:
                return 0
            _load_libraries()
            stream.write(json.dumps({"event": "ready"}) + "\n")
            stream.flush()
            patience = idle_seconds
            continue
        patience = idle_seconds
        if source is None:
            return 0
        code = work(source, stream)
        stream.write(json.dumps({"event": "ended", "exit_code": code}) + "\n")
        stream.flush()
        if code in (1, DeviceError.exit_code, Cancelled.exit_code):
            return code


def _load_libraries() -> None:
    """What a network needs; a job that needs it says what is missing."""
    with contextlib.suppress(ImportError):
        import torch  # noqa: F401

        from ..inference import runner  # noqa: F401


def _source(source: str) -> str:
    """The text of the job."""
    try:
        return sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the job {source} cannot be read: {error.strerror}", code="bad-job") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the job {source} is not text", code="bad-job") from error
