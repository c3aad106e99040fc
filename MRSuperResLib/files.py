"""Reading small files that somebody else may have put there: regular ones only, and no more than expected."""

from __future__ import annotations

import errno
import os
import stat


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """At most `limit` bytes from the start of the file at `path`. Raises OSError; also for pipes and devices, never waiting."""
    if "\0" in os.fsdecode(path):
        raise OSError(errno.EINVAL, "its name holds a NUL character, which no path can")
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", os.fspath(path))
        return file.read(limit)
