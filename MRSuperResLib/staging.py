"""All the outputs of a job or none, also when the process is killed at any moment.

Files are made under short names in a private folder beside their places. A commit writes down where each belongs, sets
one mark, and moves them. Whoever finds the private folder of a dead run finishes what was marked and drops the rest: so
old or new files are there, never some of each.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
import threading
import unicodedata
import weakref
from pathlib import Path
from types import TracebackType

from .errors import Cancelled, OutputError
from .private import PrivateFolder, dead_folders, is_ours, taken_over

PREFIX = ".mrsuperres-"
PLAN = "plan.json"  # which file belongs where
MARK = "commit"  # in the first folder of a run: from here on the new files count
LONGEST_PLAN = 2**20  # bytes
State = tuple[int, int, int]  # of a file: inode, bytes, time of its last change in ns
LIVING: weakref.WeakSet[Staging] = weakref.WeakSet()  # of this process


class Staging:
    """Temporary names for files to come; as a context manager it removes whatever was not committed.

    A file that a commit replaces is kept aside until every rename has succeeded, and put back if one fails. One that was
    not there, or not the same, when its name was asked for is never replaced.
    """

    def __init__(self) -> None:
        LIVING.add(self)
        self._files: dict[Path, Path] = {}  # by target
        self._before: dict[Path, State | None] = {}  # what was at each target when its name was asked for
        self._keys: set[tuple[str, str]] = set()
        self._private: dict[Path, PrivateFolder] = {}
        self._folders: list[Path] = []
        self._lock = threading.Lock()
        self.committed = False
        self._discarded = False

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def path(self, final: str | os.PathLike[str]) -> Path:
        """A name to write to now, with the suffixes of `final`, for what `commit` will call `final`; nobody else can write there.

        Raises `OutputError` before any work is done: the folder is missing or read-only, the name is too long.
        """
        target = _absolute(final)
        _check_name(target)
        key = _key(target)
        if key in self._keys:
            raise OutputError(f"two results would be written to {final}: give each its own name", code="output-twice")
        home = target.parent.parent if target.parent in self._folders else target.parent
        private = self._private_in(home)
        self._keys.add(key)
        self._before[target] = _state(target)
        self._files[target] = private.path / f"{len(self._files)}{_suffix(target)}"
        return self._files[target]

    def in_final_names(self, message: str) -> str:
        """`message` with temporary names replaced by what the files are going to be called."""
        for target, temporary in self._files.items():
            message = message.replace(str(temporary), str(target))
        for folder, private in self._private.items():
            message = message.replace(str(private.path), str(folder))
        return message

    def folder(self, folder: str | os.PathLike[str]) -> Path:
        """`folder`, to be made by the commit if it is missing."""
        path = _absolute(folder)
        if path.is_dir():
            check_folder(path)
        elif path not in self._folders:
            _check_name(path)
            check_folder(path.parent)
            self._folders.append(path)
        return path

    def commit(self) -> None:
        """Move every file to its own name; if one cannot be, leave everything as it was and raise `OutputError`.

        Raises `Cancelled` after `discard`, which removed them.
        """
        with self._lock:
            if self._discarded:
                raise Cancelled("cancelled; nothing was written")
            if self._files:
                self._commit()
            self.committed = True

    def discard(self) -> None:
        """Remove the temporary files, and let no commit follow; nothing happens after a commit."""
        with self._lock:
            self._discarded = True
            for private in self._private.values():
                private.remove()
            self._private.clear()
            self._files.clear()
            self._folders.clear()

    def _private_in(self, folder: Path) -> PrivateFolder:
        if folder not in self._private:
            check_folder(folder)
            clean(folder)
            try:
                self._private[folder] = PrivateFolder(folder, PREFIX)
            except OSError as error:
                raise _unwritable(folder, error) from error
        return self._private[folder]

    def _commit(self) -> None:
        plans = self._plans()
        home, *partners = plans
        try:
            for temporary in self._files.values():
                _to_disk(temporary)
            for private, files in plans.items():
                before = {temporary.name: self._before[target] for target, temporary in self._files.items()}
                plan = {"files": files, "before": {name: before[name] for name in files}}
                _write(private / PLAN, {**plan, **_relations(private, home, partners)})
            _write(home / MARK, {})
        except OSError as error:
            raise OutputError(
                f"the results cannot be written to {home.parent}: {error.strerror}", code="cannot-write"
            ) from error
        self._move()
        for private in (*partners, home):  # the mark goes last
            next(p for p in self._private.values() if p.path == private).remove()
        self._private.clear()

    def _plans(self) -> dict[Path, dict[str, str]]:
        """By private folder: the name of each file in it, and where it belongs, seen from the folder's parent."""
        plans: dict[Path, dict[str, str]] = {}
        for target, temporary in self._files.items():
            place = target.relative_to(temporary.parent.parent).as_posix()
            plans.setdefault(temporary.parent, {})[temporary.name] = place
        return plans

    def _move(self) -> None:
        kept: dict[Path, Path] = {}
        done: list[Path] = []
        made: list[Path] = []
        try:
            for target, temporary in self._files.items():
                if not target.parent.exists():
                    target.parent.mkdir()
                    made.append(target.parent)
                found = _state(target)
                if found not in (None, self._before[target]):
                    text = f"{target} was written by somebody else meanwhile, and is kept: give the result another name"
                    raise OutputError(text, code="not-ours")
                if found is not None:
                    kept[target] = temporary.with_name(f"old-{temporary.name}")
                    _keep(target, kept[target])
                os.replace(temporary, target)
                done.append(target)
        except (OSError, OutputError) as error:
            if isinstance(error, OutputError):
                text, code = error.message, error.code
            else:
                text, code = f"{target} cannot be written: {error.strerror}", OutputError.code
            try:
                self._undo(done, kept, made)
            except OSError:  # neither forth nor back: all is kept, and the next run goes forth
                self._private.clear()
                text += f"; the results are kept in {PREFIX}* beside it and put into place by the next run"
            raise OutputError(text, code=code) from error

    def _undo(self, done: list[Path], kept: dict[Path, Path], made: list[Path]) -> None:
        """Have everything as it was before; the mark goes last, so that a kill meanwhile leaves the new files."""
        for target in done:
            os.replace(target, self._files[target])
        for target, old in kept.items():
            os.replace(old, target)
        for folder in made:
            folder.rmdir()
        (next(iter(self._files.values())).parent / MARK).unlink()


def discard_all() -> None:
    """Remove the temporary files of this process, which is about to end without unwinding."""
    for staging in list(LIVING):
        staging.discard()


def clean(folder: Path) -> None:
    """Finish or drop what dead runs have left in `folder`; one that is not there is left to who needs it."""
    if not os.path.isdir(folder):
        return
    for left in dead_folders(folder, PREFIX):
        home = _home(left)
        if home == left:
            _finish(left)
    for left in [path for path in folder.glob(f"{PREFIX}*") if path.is_dir() and is_ours(path)]:
        home = _home(left)
        if home != left:  # its run began in another folder: settled there, then here
            with taken_over(home) as dead:
                if dead:
                    _finish(home)
            with taken_over(left) as dead:
                if dead and not (home / MARK).exists():
                    shutil.rmtree(left, ignore_errors=True)
    for old in (*folder.glob(f"{PREFIX}*"), *folder.glob(f".{PREFIX}*")):  # files of earlier versions
        if old.is_file() and not old.is_symlink():
            with contextlib.suppress(OSError):
                old.unlink()


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all, with the permissions that the user's umask says. Raises `OutputError`."""
    with Staging() as staging:
        place = staging.path(path)
        try:
            with place.open("xb") as file:
                file.write(content)
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}", code="cannot-write") from error
        staging.commit()


def check_folder(folder: Path) -> None:
    """Raise `OutputError` unless files can be made in `folder`; tried, because permissions do not tell all."""
    if folder.is_file():
        raise OutputError(f"the output folder {folder} is a file: give a folder", code="no-folder")
    if not folder.is_dir():
        raise OutputError(f"the output folder {folder} does not exist: create it or choose another", code="no-folder")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"the output folder {folder} cannot be written to ({error.strerror}): choose another", code="read-only-folder"
    )


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))


def _check_name(target: Path) -> None:
    """Raise `OutputError` for a name that the file system cannot take, or that is a folder's."""
    try:
        target.lstat()
        if target.is_dir():
            raise OutputError(f"{target} is a folder: give the name of a file in it", code="output-is-folder")
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            length = len(os.fsencode(target.name))
            text = f"{target} is too long a name ({length} bytes, most file systems take 255): choose a shorter one"
            raise OutputError(text, code="name-too-long") from error
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(f"{target} cannot be written: {reason}", code="cannot-write") from error


def _key(target: Path) -> tuple[str, str]:
    """The same for names that some file system takes for one: letters of either case, composed or not."""
    return os.path.realpath(target.parent), unicodedata.normalize("NFC", target.name).casefold()


def _state(path: Path) -> State | None:
    """What tells the file or link at `path` from another one; None if there is nothing."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _suffix(target: Path) -> str:
    name = target.name
    return name[-len(".nii.gz") :] if name.lower().endswith(".nii.gz") else target.suffix


def _keep(target: Path, old: Path) -> None:
    """Have `target` as `old` too, or instead where a file cannot have two names."""
    try:
        os.link(target, old, follow_symlinks=False)
    except (OSError, NotImplementedError):
        os.replace(target, old)


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(path: Path, value: object) -> None:
    """A small JSON file that is there whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    with new.open("x", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def _relations(private: Path, home: Path, partners: list[Path]) -> dict[str, object]:
    def seen(other: Path) -> str:
        try:
            return os.path.relpath(other, private)
        except ValueError:  # another drive
            return str(other)

    return {"home": seen(home), "partners": [seen(other) for other in partners] if private == home else []}


def _plan(private: Path) -> dict[str, object]:
    """The plan in a private folder; empty if there is none, or none that this library wrote."""
    try:
        with (private / PLAN).open("rb") as file:
            plan = json.loads(file.read(LONGEST_PLAN))
        return plan if isinstance(plan, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _home(private: Path) -> Path:
    """The first private folder of the run that `private` belongs to."""
    home = Path(os.path.normpath(private / str(_plan(private).get("home") or ".")))
    return home if home.name.startswith(PREFIX) else private


def _finish(home: Path) -> None:
    """Move the files of a dead run whose commit was marked to their places, then remove its folders."""
    partners = _plan(home).get("partners")
    folders = [Path(os.path.normpath(home / str(name))) for name in partners] if isinstance(partners, list) else []
    folders = [folder for folder in folders if folder.name.startswith(PREFIX) and folder != home]
    marked, whole = (home / MARK).exists(), True
    for folder in folders:
        with taken_over(folder) as dead:
            if dead and _home(folder) == home:
                whole = (not marked or _move_on(folder)) and whole
    if marked and not (_move_on(home) and whole):
        return  # a disk is full, or read-only: the next run tries again
    for folder in folders:
        with taken_over(folder) as dead:
            if dead and _home(folder) == home:
                shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)


def _move_on(private: Path) -> bool:
    """Move what is left in `private` to its places, all in its parent or one folder below; whether that was possible.

    A file that somebody else has put there since is left as it is.
    """
    plan = _plan(private)
    files, before = plan.get("files"), plan.get("before")
    for name, place in files.items() if isinstance(files, dict) else ():
        parts = Path(str(place)).parts
        safe = (
            1 <= len(parts) <= 2 and not {"..", "/", "\\", os.sep} & set(parts) and not Path(str(place)).is_absolute()
        )
        temporary = private / str(name)
        if not safe or temporary.parent != private or temporary.is_symlink() or not temporary.is_file():
            continue
        target = private.parent / Path(*parts)
        if len(parts) == 2 and target.parent.is_symlink():
            continue
        try:
            found = _state(target)
            if isinstance(before, dict) and found is not None and list(found) != before.get(str(name)):
                continue
            target.parent.mkdir(exist_ok=True)
            os.replace(temporary, target)
        except OSError:
            return False
    return True
