"""Folders that belong to one running process: unpredictable names, nobody else may write there, found and removed when it is dead.

A process holds a lock on a file in its folder for as long as it lives, however it ends. So whoever comes next can tell a
dead run's folder from a living one's without asking for process numbers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

LOCK = "lock"
CONTENT = (LOCK, "job.json", "input.nrrd")  # at least one of them is in every run's folder
SECONDS_TO_LOCK = 1.0  # between making a folder and locking it a process may take so long on a busy machine
WINDOWS = os.name == "nt"


class PrivateFolder:
    """A new folder in `parent`, readable by this user alone, removed at the end of a `with` or by `remove`.

    Raises OSError if `parent` cannot be written to.
    """

    def __init__(self, parent: str | os.PathLike[str] | None, prefix: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._lock: int | None = None
        try:
            self._lock = _locked_file(self.path)
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            raise

    def __enter__(self) -> PrivateFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the folder and all in it; what cannot be removed is left to the next run."""
        if self._lock is not None:
            if WINDOWS:  # where an open file cannot be removed
                os.close(self._lock)
            shutil.rmtree(self.path, ignore_errors=True)
            if not WINDOWS:
                os.close(self._lock)
            self._lock = None


def dead_folders(parent: Path, prefix: str) -> Iterator[Path]:
    """This user's folders `prefix`* in `parent` whose process is dead; each is locked while the caller looks at it."""
    try:
        names = sorted(entry.name for entry in os.scandir(parent) if entry.name.startswith(prefix))
    except OSError:
        return
    for name in names:
        with taken_over(parent / name) as dead:
            if dead:
                yield parent / name


def remove_dead(parent: str | os.PathLike[str] | None, prefix: str) -> None:
    """Remove this user's folders `prefix`* in `parent` (None: the system's temporary folder) whose process is dead.

    A folder that merely has such a name, and holds neither lock nor job nor exported volume, is left alone.
    """
    for folder in dead_folders(Path(parent or tempfile.gettempdir()), prefix):
        if any((folder / name).exists() for name in CONTENT) or not any(folder.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def taken_over(folder: Path) -> Iterator[bool]:
    """Whether `folder` belonged to a process that is dead, and is ours while inside."""
    handle = None
    dead = False
    try:
        if is_ours(folder):
            handle, dead = _try_lock(folder)
        yield dead
    finally:
        if handle is not None:
            os.close(handle)


def is_ours(folder: Path) -> bool:
    """Whether `folder` is a real folder, and no other user can have put anything into it."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    private = WINDOWS or (status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    return stat.S_ISDIR(status.st_mode) and private


def _locked_file(folder: Path) -> int:
    """A lock that this process holds until it ends; it appears in the folder only once it is held."""
    new = folder / f"{LOCK}-new"
    handle = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    if WINDOWS:  # an open file cannot be removed there, which is lock enough
        os.close(handle)
        os.rename(new, folder / LOCK)
        return os.open(folder / LOCK, os.O_RDWR)
    import fcntl

    with contextlib.suppress(OSError):  # a file system without locks: such folders are told by their age
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.rename(new, folder / LOCK)
    return handle


def _try_lock(folder: Path) -> tuple[int | None, bool]:
    """The lock of `folder` if nobody else holds it, and whether its process is dead."""
    if not (folder / LOCK).exists():
        time.sleep(min(max(SECONDS_TO_LOCK - _age(folder), 0.0), SECONDS_TO_LOCK))
    if WINDOWS:
        try:
            (folder / LOCK).unlink(missing_ok=True)
        except OSError:
            return None, False
        return None, True
    import fcntl

    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        return None, error.errno == errno.ENOENT
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        day_old = error.errno not in (errno.EAGAIN, errno.EACCES) and _age(folder) > 86400
        return None, day_old
    return handle, True


def _age(path: Path) -> float:
    """Seconds since `path` was changed."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
