"""The worker: `PythonSlicer -m MRSuperResLib worker JOB.json` as a process that can be watched and really ended.

`slicer.util.launchConsoleProcess` is not used: it starts the child in Slicer's own process group, so that only the launcher
could be killed, and PythonSlicer's real interpreter would go on computing. Here the child gets a group of its own.
"""

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Protocol

LIBRARY = Path(__import__("MRSuperResLib").__file__).resolve().parent.parent
SECONDS_TO_STOP = 1.7  # a worker asked to stop is ended by force after this
KEPT_LINES = 40  # of what the worker writes to standard error, to say why it died


class WorkerProcess(Protocol):
    """What the logic needs of a process; tests and other hosts may bring their own."""

    def start(self, arguments, onLine, onEnd):
        """Run `python -m MRSuperResLib` with `arguments`; see `Worker.start`."""

    def cancel(self):
        """End it, children included."""

    def pump(self):
        """Deliver what has arrived."""

    @property
    def isRunning(self):
        """Whether `onEnd` is still to come."""


class Worker:
    """A child process with its own group; its lines arrive through `pump`, in the thread that calls it."""

    def __init__(self):
        self._process, self._events, self._ended, self._deadline = None, queue.Queue(), True, None
        self._onLine = self._onEnd = None

    def start(self, arguments, onLine, onEnd):
        """Start. `onLine(line, isError)` for each line written; `onEnd(exit code)` once, after the last line.

        Raises OSError when the interpreter cannot be started.
        """
        self._onLine, self._onEnd, self._ended = onLine, onEnd, False
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(LIBRARY), environment.get("PYTHONPATH"))))
        environment["PYTHONUNBUFFERED"] = "1"
        grouping = (
            {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
            if os.name == "nt"
            else {"start_new_session": True}
        )
        self._process = subprocess.Popen(
            [interpreter(), "-m", "MRSuperResLib", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            encoding="utf-8",
            errors="replace",
            **grouping,
        )
        readers = [
            threading.Thread(target=self._read, args=(stream, isError), daemon=True)
            for stream, isError in ((self._process.stdout, False), (self._process.stderr, True))
        ]
        for reader in readers:
            reader.start()
        threading.Thread(target=self._await, args=(readers,), daemon=True).start()

    @property
    def isRunning(self):
        """Whether `onEnd` is still to come."""
        return not self._ended

    def pump(self):
        """Deliver what has arrived, in this thread; end by force a worker that does not stop."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._deadline = None
            self._signal(force=True)
        while not self._ended:
            try:
                kind, value = self._events.get_nowait()
            except queue.Empty:
                return
            if kind == "end":
                self._ended = True
                self._onEnd(value)
            else:
                self._onLine(value, kind == "error")

    def cancel(self):
        """Ask the whole process tree to stop; `pump` ends it by force after `SECONDS_TO_STOP`."""
        if not self._ended and self._deadline is None:
            self._deadline = time.monotonic() + SECONDS_TO_STOP
            self._signal(force=False)

    def _signal(self, force):
        process = self._process
        if os.name == "nt":  # Windows has no group to end: taskkill follows the tree
            if force:
                command = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
                subprocess.run(command, capture_output=True, creationflags=subprocess.CREATE_NO_WINDOW, check=False)
            else:
                process.send_signal(signal.CTRL_BREAK_EVENT)
            return
        try:
            os.killpg(process.pid, signal.SIGKILL if force else signal.SIGTERM)
        except ProcessLookupError:  # it has just ended by itself
            return

    def _read(self, stream, isError):
        with stream:
            for line in stream:
                self._events.put(("error" if isError else "line", line.rstrip("\n")))

    def _await(self, readers):
        code = self._process.wait()
        for reader in readers:
            reader.join()
        self._events.put(("end", code))


def interpreter():
    """PythonSlicer, beside the running application; outside of Slicer this Python."""
    return shutil.which("PythonSlicer") or sys.executable
