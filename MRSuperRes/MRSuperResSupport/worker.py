"""The worker: `PythonSlicer -m MRSuperResLib worker JOB.json` as a process that can be watched and really ended.

`slicer.util.launchConsoleProcess` is not used: it starts the child in Slicer's own process group, so that only the launcher
could be killed, and PythonSlicer's real interpreter would go on computing. Here the child gets a group of its own.
"""

import contextlib
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

import slicer

LIBRARY = Path(__import__("MRSuperResLib").__file__).resolve().parent.parent
WINDOWS = os.name == "nt"
SAFE_PATH = ("-P",) if sys.version_info >= (3, 11) else ()  # the current folder is none to import from
SECONDS_TO_STOP = 1.4  # a worker asked to stop is ended by force after this; it gives itself 1 s


class WorkerProcess(Protocol):
    """What the logic needs of a process; tests and other hosts may bring their own."""

    def start(self, job, onLine, onEnd):
        """Run `python -m MRSuperResLib worker` on the file `job`; see `Worker.start`."""

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
        self._onLine = self._onEnd = self._job = None

    def start(self, job, onLine, onEnd):
        """Start on the file `job`. `onLine(line, isError)` for each line written; `onEnd(exit code)` once, after the last.

        Raises OSError when the interpreter cannot be started.
        """
        self._job, self._onLine, self._onEnd = job, onLine, onEnd
        grouping = {"creationflags": subprocess.CREATE_NO_WINDOW} if WINDOWS else {"start_new_session": True}
        self._process = subprocess.Popen(
            [interpreter(), *SAFE_PATH, "-m", "MRSuperResLib", "worker", str(job)],
            cwd=Path(job).parent,  # where nobody else can put a numpy.py
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            encoding="utf-8",
            errors="replace",
            **grouping,
        )
        self._ended = False
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
            self._end()
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
        if self._ended or self._deadline is not None:
            return
        self._deadline = time.monotonic() + SECONDS_TO_STOP
        if WINDOWS:  # no signal reaches a child without a console: the worker looks for this file
            Path(f"{self._job}.cancel").touch()
        else:
            self._signal(signal.SIGTERM)

    def _end(self):
        """End the whole tree, whatever it is doing."""
        if WINDOWS:  # has no groups to end: taskkill follows the tree
            command = ["taskkill", "/F", "/T", "/PID", str(self._process.pid)]
            subprocess.run(command, capture_output=True, creationflags=subprocess.CREATE_NO_WINDOW, check=False)
        else:
            self._signal(signal.SIGKILL)

    def _signal(self, number):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has just ended (macOS: not yet collected)
            os.killpg(self._process.pid, number)

    def _read(self, stream, isError):
        with stream:
            for line in stream:
                self._events.put(("error" if isError else "line", line.rstrip("\n")))

    def _await(self, readers):
        code = self._process.wait()
        if self._deadline is not None and not WINDOWS:  # cancelled: children that outlive their parent end with it
            self._signal(signal.SIGKILL)
        for reader in readers:
            reader.join()
        self._events.put(("end", code))


def _environment():
    """Slicer's own environment, without folders to import from that somebody else has added to it."""
    home = getattr(getattr(slicer, "app", None), "slicerHome", "")
    kept = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if home and _isBelow(entry, home)]
    paths = os.pathsep.join([str(LIBRARY), *kept])
    return {**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}


def _isBelow(entry, folder):
    return os.path.isabs(entry) and Path(folder).resolve() in (Path(entry).resolve(), *Path(entry).resolve().parents)


def interpreter():
    """PythonSlicer, which Slicer puts on its PATH; outside of Slicer this Python. Raises FileNotFoundError."""
    found = shutil.which("PythonSlicer")
    if found is None and hasattr(getattr(slicer, "app", None), "slicerHome"):
        raise FileNotFoundError("PythonSlicer, which belongs to Slicer, is not on its PATH")
    return found or sys.executable
