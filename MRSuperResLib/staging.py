"""All the outputs of a job or none: files are made under temporary names beside their places and renamed together."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from pathlib import Path
from types import TracebackType

from .errors import OutputError

PREFIX = ".mrsuperres-"


class Staging:
    """Temporary names for files to come; as a context manager it removes whatever was not committed.

    A file that a commit replaces is kept aside until every rename has succeeded, and put back if one fails.
    """

    def __init__(self) -> None:
        self._token = secrets.token_hex(6)
        self._files: dict[Path, Path] = {}
        self._folders: list[Path] = []
        self._lock = threading.Lock()
        self.committed = False

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def path(self, final: str | os.PathLike[str]) -> Path:
        """A name to write to now, in the folder of `final` and with its suffixes, for what `commit` will call `final`.

        Raises `OutputError` if that folder is missing or cannot be written to, so before any work is done.
        """
        target = Path(os.path.abspath(Path(final).expanduser()))
        if target.is_dir():
            raise OutputError(f"{final} is a folder: give the name of a file in it", code="output-is-folder")
        if target in self._files:
            raise OutputError(f"two results would be written to {final}: give each its own name", code="output-twice")
        check_folder(target.parent)
        self._files[target] = target.with_name(f"{PREFIX}{self._token}-{target.name}")
        return self._files[target]

    def in_final_names(self, message: str) -> str:
        """`message` with temporary names replaced by what the files are going to be called."""
        for target, temporary in self._files.items():
            message = message.replace(temporary.name, target.name)
        return message

    def folder(self, folder: str | os.PathLike[str]) -> Path:
        """`folder`, made if it is missing, and removed again if nothing is committed."""
        path = Path(os.path.abspath(Path(folder).expanduser()))
        if not path.exists():
            check_folder(path.parent)
            path.mkdir()
            self._folders.append(path)
        check_folder(path)
        return path

    def commit(self) -> None:
        """Rename every file to its own name; if one cannot be, leave everything as it was and raise `OutputError`."""
        with self._lock:
            kept: dict[Path, Path] = {}
            done: list[Path] = []
            try:
                for target, temporary in self._files.items():
                    if target.exists():
                        kept[target] = temporary.with_name(temporary.name + ".old")
                        os.replace(target, kept[target])
                    os.replace(temporary, target)
                    done.append(target)
            except OSError as error:
                for target in done:
                    target.unlink(missing_ok=True)
                for target, old in kept.items():
                    os.replace(old, target)
                raise OutputError(f"{target} cannot be written: {error.strerror}") from error
            for old in kept.values():
                old.unlink(missing_ok=True)
            self._files.clear()
            self._folders.clear()
            self.committed = True

    def discard(self) -> None:
        """Remove the temporary files and the folders made for them; nothing happens after a commit."""
        with self._lock:
            for folder in {target.parent for target in self._files}:
                for leftover in folder.glob(f"*{PREFIX}{self._token}*"):  # writers have their own names for a half file
                    leftover.unlink(missing_ok=True)
            for folder in self._folders:
                shutil.rmtree(folder, ignore_errors=True)
            self._files.clear()
            self._folders.clear()


def check_folder(folder: Path) -> None:
    """Raise `OutputError` unless files can be made in `folder`; tried, because permissions do not tell all."""
    if folder.is_file():
        raise OutputError(f"the output folder {folder} is a file: give a folder", code="no-folder")
    if not folder.is_dir():
        raise OutputError(f"the output folder {folder} does not exist: create it or choose another", code="no-folder")
    probe = folder / f"{PREFIX}{secrets.token_hex(4)}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"the output folder {folder} cannot be written to ({error.strerror}): choose another",
            code="read-only-folder",
        ) from error
