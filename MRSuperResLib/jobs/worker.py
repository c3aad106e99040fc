"""The worker process: a job in, events out as JSON lines on its standard output."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import IO

from ..errors import Cancelled, DeviceError, ModelError, OutputError, UsageError
from ..files import read_regular
from ..inference.memory import give_back_freed_memory
from ..staging import Staging
from .events import Cancellation, Emit, Lines, failed
from .job import Job
from .run import execute

IDLE_SECONDS = 600.0  # a worker that stays ends after that long without a job, and frees memory
FIRST_JOB_SECONDS = 0.1  # one that was started for a job has it by then: interpolation needs no torch
NETWORKS_KEPT = 2
LONGEST_JOB = 2**20  # bytes
SECONDS_TO_TELL = 0.1
GRACE_SECONDS = 0.8  # after a signal, before the worker ends itself in the middle of whatever library call it is in


def work(source: str, stream: IO[str], cancel_file: str | None = None) -> int:
    """The worker process: run the job in the file `source` ("-": standard input), write events to `stream`, return the
    exit code.

    It stops on SIGTERM, SIGHUP and SIGINT, and once `cancel_file` (by default `source` + ".cancel") exists; if a library call
    holds it longer than `GRACE_SECONDS` after a signal, it removes its temporary files and ends itself.
    """
    return _work(source, stream, Cancellation(cancel_file or (f"{source}.cancel" if source != "-" else None)))


def _work(source: str, stream: IO[str], cancellation: Cancellation) -> int:
    staging = Staging()
    lines = Lines(stream, cancellation.pull)
    with ended_by_signals(cancellation, lines, staging):
        code = execute(lambda: Job.from_json(_source(source)), lines, cancellation, staging)
    if lines.complaint:
        print(f"error: {lines.complaint}", file=sys.stderr)
        return code or OutputError.exit_code
    return code


@contextlib.contextmanager
def ended_by_signals(cancellation: Cancellation, emit: Emit, staging: Staging) -> Iterator[None]:
    """While inside, a signal pulls `cancellation`, and ends this process after `GRACE_SECONDS`, a second one at once.

    Then whatever library call holds it does not matter: temporary files are removed and the error is told. A commit that
    has begun is waited for, and its results stay.
    """

    def end() -> None:
        staging.discard()
        if staging.committed:
            return
        telling = threading.Thread(
            target=failed,
            args=(emit, Cancelled.code, "cancelled; nothing was written", Cancelled.exit_code),
            daemon=True,
        )
        telling.start()
        telling.join(SECONDS_TO_TELL)  # nobody may be reading
        os._exit(Cancelled.exit_code)

    timers: list[threading.Timer] = []

    def watch() -> None:
        timer = threading.Timer(GRACE_SECONDS, end)
        timer.daemon = True
        timer.start()
        timers.append(timer)

    try:
        with cancellation.on_signals(watch, end):
            yield
    finally:  # once nobody can start another
        for timer in timers:
            timer.cancel()


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
        cancellation = Cancellation(f"{source}.cancel")
        code = _work(source, stream, cancellation)
        give_back_freed_memory()
        stream.write(json.dumps({"event": "ended", "exit_code": code}) + "\n")
        stream.flush()
        if cancellation() or code in (1, DeviceError.exit_code, Cancelled.exit_code):
            return code


def _load_libraries() -> None:
    """What a network needs; a job that needs it says what is missing."""
    with contextlib.suppress(ImportError):
        import safetensors.torch  # noqa: F401
        import torch  # noqa: F401

        from .. import models, networks
        from ..inference import runner  # noqa: F401
        from ..io import read, write  # noqa: F401

        for architecture in {entry.card.architecture for entry in models.list_models() if entry.path is not None}:
            with contextlib.suppress(ModelError):  # of a package that this version cannot build
                networks.requirements(architecture)  # imports it, and with it much of torch


def _source(source: str) -> bytes:
    """The job's JSON, without the byte order mark that some editors put before it."""
    try:
        if source == "-":
            text = sys.stdin.buffer.read(LONGEST_JOB + 1)
        else:
            text = read_regular(source, LONGEST_JOB + 1)
    except OSError as error:
        raise UsageError(f"the job {source} cannot be read: {error.strerror}", code="bad-job") from error
    if len(text) > LONGEST_JOB:
        raise UsageError(f"the job {source} is longer than {LONGEST_JOB // 2**20} MiB: that is no job", code="bad-job")
    if not text.strip():
        raise UsageError(f"the job {'on standard input' if source == '-' else source} is empty", code="bad-job")
    try:
        return text.decode("utf-16" if text[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig").encode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the job {source} is not text", code="bad-job") from error
