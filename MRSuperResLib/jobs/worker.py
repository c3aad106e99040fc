"""The worker process: a job in, events out as JSON lines on its standard output."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import IO, Any

from ..errors import Cancelled, UsageError
from ..staging import Staging
from .events import Cancellation, failed
from .job import Job
from .run import execute

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


def _source(source: str) -> str:
    """The text of the job."""
    try:
        return sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the job {source} cannot be read: {error.strerror}", code="bad-job") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the job {source} is not text", code="bad-job") from error
