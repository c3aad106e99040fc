"""What a running job tells: events, warnings, progress, time; and how it hears that it should stop."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from ..inference.options import stop_if
from ..inference.preview import SlicePicture
from ..signals import on_signals
from ..staging import Staging
from .job import Job

CANCEL_FILE_SECONDS = 0.2  # how often the cancel file is looked for
Emit = Callable[[dict[str, Any]], None]


class Cancellation:
    """Whether the user wants to stop: `pull` it, or create its file. Calling it asks."""

    def __init__(self, file: str | os.PathLike[str] | None = None) -> None:
        self._pulled = False  # no event: that has a lock, which a signal's handler may find taken by what it interrupts
        self._file = Path(file) if file is not None else None
        self._looked = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if self._file is not None and now - self._looked > CANCEL_FILE_SECONDS:
            self._looked = now
            if self._file.exists():
                self.pull()
        return self._pulled

    def pull(self) -> None:
        """Stop at the next opportunity."""
        self._pulled = True

    @contextlib.contextmanager
    def on_signals(
        self, then: Callable[[], None] | None = None, again: Callable[[], None] | None = None
    ) -> Iterator[Cancellation]:
        """While inside, SIGINT, SIGTERM and SIGHUP pull; `then` is called after the first of them, `again` after others."""

        def first() -> None:
            self.pull()
            if then is not None:
                then()

        with on_signals(first, again or (lambda: None)):
            yield self


class Lines:
    """Events as JSON lines on a stream; gone: called once if nobody listens any more. failure: why a line was not written."""

    def __init__(self, stream: IO[str], gone: Callable[[], None]) -> None:
        self.failure: Exception | None = None
        self._stream, self._gone, self._lock = stream, gone, threading.Lock()

    def __call__(self, event: dict[str, Any]) -> None:
        with self._lock:
            if self.failure is not None:
                return
            try:
                self._stream.write(json.dumps(event, ensure_ascii=True, allow_nan=False) + "\n")
                self._stream.flush()
            except (OSError, ValueError) as error:
                self.failure = error
        if isinstance(self.failure, (BrokenPipeError, ValueError)):
            self._gone()

    @property
    def complaint(self) -> str | None:
        """What to tell if lines were lost to somebody who wants them: the disk was full, say."""
        lost = isinstance(self.failure, OSError) and not isinstance(self.failure, BrokenPipeError)
        return f"events could not be written: {self.failure.strerror}" if lost else None  # type: ignore[union-attr]


class Run:
    """One job being run: its events, its clock, its warnings, its temporary files."""

    def __init__(self, job: Job, emit: Emit, cancel: Callable[[], bool], staging: Staging) -> None:
        self.job, self.emit, self.cancel, self.staging = job, emit, cancel, staging
        self.started = time.monotonic()
        self.timings: dict[str, float] = {}
        self.warnings: list[dict[str, str]] = []

    def warn(self, code: str, message: str) -> None:
        """Tell of something the user should know, once."""
        if {"code": code, "message": message} in self.warnings:
            return
        self.warnings.append({"code": code, "message": message})
        self.emit({"event": "warning", "code": code, "message": message})

    def progress(self, stage: str, done: int, total: int, seconds_left: float | None = None) -> None:
        """Tell how far a stage is."""
        left = None if seconds_left is None else round(seconds_left, 1)
        self.emit({"event": "progress", "stage": stage, "done": done, "total": total, "seconds_left": left})

    def preview(self, picture: SlicePicture) -> None:
        """Tell a slice that is done: rows, columns, mm between them, and its pixels, 8 bits each, row by row, in base64."""
        rows, columns = picture.pixels.shape
        pixels = base64.b64encode(picture.pixels.tobytes()).decode("ascii")
        size = {"rows": rows, "columns": columns, "spacing": list(picture.spacing)}
        self.emit({"event": "preview", **size, "pixels": pixels})

    @contextlib.contextmanager
    def stage(self, name: str, announce: bool = True) -> Iterator[None]:
        """Time a stage, announce it, and stop before and after it if the user wants to."""
        stop_if(self.cancel)
        if announce:
            self.progress(name, 0, 1)
        start = time.monotonic()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.monotonic() - start
        if announce:
            self.progress(name, 1, 1, 0.0)
        stop_if(self.cancel)


def failed(emit: Emit, code: str, message: str, exit_code: int) -> int:
    emit({"event": "error", "code": code, "message": " ".join(message.split()), "exit_code": exit_code})
    return exit_code
