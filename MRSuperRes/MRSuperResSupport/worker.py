"""The worker: `PythonSlicer -m MRSuperResLib worker` as a process that can be watched, kept for the next run, and really ended.

`slicer.util.launchConsoleProcess` is not used: it starts the child in Slicer's own process group, so that only the launcher
could be killed, and PythonSlicer's real interpreter would go on computing. Here the child gets a group of its own.
"""

import contextlib
import json
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
ENDING = (1, 6, 130)  # exit codes after which a worker that stays ends: a bug, the device or memory, cancelled
READY = json.dumps({"event": "ready"})  # a worker that stays has loaded its libraries
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
    """One run in a child process with its own group; its lines arrive through `pump`, in the thread that calls it.

    workers: where a process that is warm is taken from, and given back to after the run; None: a process for this run alone.
    """

    def __init__(self, workers=None):
        self._workers, self._child = workers, None
        self._ended, self._deadline, self._fresh = True, None, True
        self._onLine = self._onEnd = self._job = None

    def start(self, job, onLine, onEnd):
        """Start on the file `job`. `onLine(line, isError)` for each line written; `onEnd(exit code)` once, after the last.

        Raises OSError when the interpreter cannot be started.
        """
        self._job, self._onLine, self._onEnd = job, onLine, onEnd
        self._child = self._workers.take() if self._workers is not None else None
        self._fresh = self._child is None
        if self._child is not None and not self._child.ask(job):
            self._child, self._fresh = None, True
        if self._child is None:
            self._begin()
        self._ended = False

    def _begin(self):
        """A process of its own for the job."""
        if self._workers is None:
            self._child = Child(str(self._job))
        else:
            self._child = Child("--serve")
            self._child.ask(self._job)

    @property
    def isRunning(self):
        """Whether `onEnd` is still to come."""
        return not self._ended

    def pump(self):
        """Deliver what has arrived, in this thread; end by force a worker that does not stop."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._deadline = None
            self._child.end()
        while not self._ended:
            try:
                kind, value = self._child.events.get_nowait()
            except queue.Empty:
                return
            code = _exitCode(value) if kind == "line" else None
            if kind == "end":
                if not self._fresh and self._deadline is None and not self._child.answered:
                    self._fresh = True  # it had just grown tired of waiting
                    try:
                        self._begin()
                    except OSError as error:
                        self._onLine(f"the worker could not be started again: {error}", True)
                    else:
                        continue
                self._finish(value)
            elif code is not None:
                if code not in ENDING and self._deadline is None:
                    self._workers.giveBack(self._child)
                else:
                    self._child.end()  # all is written or discarded: interpreters with torch take seconds to end
                self._finish(code)
            elif value != READY:  # which may come late, and is no answer
                self._child.answered = self._child.answered or kind == "line"
                self._onLine(value, kind == "error")

    def _finish(self, code):
        self._ended = True
        self._onEnd(code)

    def cancel(self):
        """Ask the whole process tree to stop; `pump` ends it by force after `SECONDS_TO_STOP`."""
        if self._ended or self._deadline is not None:
            return
        self._deadline = time.monotonic() + SECONDS_TO_STOP
        self._child.stop(self._job)


class Child:
    """A process of the library's worker, and the lines it has written. mode: a job's file, or "--serve"."""

    def __init__(self, mode):
        self.events, self.answered = queue.Queue(), False
        self._stopped = False
        grouping = {"creationflags": subprocess.CREATE_NO_WINDOW} if WINDOWS else {"start_new_session": True}
        self.process = subprocess.Popen(
            [interpreter(), *SAFE_PATH, "-m", "MRSuperResLib", "worker", mode],
            cwd=LIBRARY,  # and not where Slicer happens to have been started, where there may be a numpy.py
            stdin=subprocess.PIPE if mode == "--serve" else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            encoding="utf-8",
            errors="replace",
            **grouping,
        )
        readers = [
            threading.Thread(target=self._read, args=(stream, isError), daemon=True)
            for stream, isError in ((self.process.stdout, False), (self.process.stderr, True))
        ]
        try:
            for reader in readers:
                reader.start()
            threading.Thread(target=self._await, args=(readers,), daemon=True).start()
        except RuntimeError as error:  # a machine that has no thread left
            self.end()
            raise OSError(str(error)) from error

    @property
    def isAlive(self):
        """Whether it has not ended."""
        return self.process.poll() is None

    def ask(self, job):
        """Name the next job's file to it; whether that was possible. What it still says of the job before is dropped."""
        with contextlib.suppress(queue.Empty):
            while True:
                event = self.events.get_nowait()
                if event[0] == "end":
                    self.events.put(event)  # whoever waits for it is still to hear of it
                    return False
        try:
            self.process.stdin.write(f"{job}\n")
            self.process.stdin.flush()
        except (OSError, ValueError):  # it has ended
            return False
        self.answered = False
        return True

    def stop(self, job=None):
        """Ask the process tree to stop; the worker leaves nothing half written behind."""
        self._stopped = True
        if not WINDOWS:
            self._signal(signal.SIGTERM)
        elif job is not None:  # no signal reaches a child without a console: the worker looks for this file
            Path(f"{job}.cancel").touch()
        else:
            self.end()

    def end(self):
        """End the whole tree, whatever it is doing."""
        if WINDOWS:  # has no groups to end: taskkill follows the tree
            command = ["taskkill", "/F", "/T", "/PID", str(self.process.pid)]
            subprocess.run(command, capture_output=True, creationflags=subprocess.CREATE_NO_WINDOW, check=False)
        else:
            self._signal(signal.SIGKILL)

    def _signal(self, number):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has just ended (macOS: not yet collected)
            os.killpg(self.process.pid, number)

    def _read(self, stream, isError):
        with stream:
            for line in stream:
                self.events.put(("error" if isError else "line", line.rstrip("\n")))

    def _await(self, readers):
        code = self.process.wait()
        if self._stopped and not WINDOWS:  # children that outlive their parent end with it
            self._signal(signal.SIGKILL)
        for reader in readers:
            reader.join()
        self.events.put(("end", code))


class Workers:
    """Makes a `Worker` for each run, and keeps one process that has its libraries loaded for the next.

    The process ends by itself after ten minutes without a run, which frees its memory, and with Slicer.
    """

    def __init__(self):
        self._idle = None

    def __call__(self):
        """The worker of a run."""
        return Worker(self)

    def warm(self):
        """Have a process ready, if there is an interpreter to start."""
        if self._idle is None or not self._idle.isAlive:
            with contextlib.suppress(OSError):  # the run that needs it will say so
                self._idle = Child("--serve")

    def take(self):
        """The process that waits, None if there is none."""
        child, self._idle = self._idle, None
        return child if child is not None and child.isAlive else None

    def giveBack(self, child):
        """Keep `child` for the next run, unless there is one already."""
        if self._idle is not None and self._idle.isAlive:
            child.stop()
        else:
            self._idle = child

    def close(self):
        """End the process that waits."""
        child = self.take()
        if child is not None:
            child.stop()


WORKERS = Workers()  # of the panel and the console


def _exitCode(line):
    """The exit code that a line tells which ends a job of a worker that stays, None for any other line."""
    if '"ended"' not in line:
        return None
    try:
        event = json.loads(line)
        return event["exit_code"] if event["event"] == "ended" else None
    except (ValueError, KeyError, TypeError):
        return None


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
