"""Standard streams that may be missing, full, left by their reader, or unable to show a character."""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import IO

HIDDEN = ("Cc", "Cf", "Zl", "Zp")  # control and format characters: they move the cursor, or turn the text around


def mend_streams() -> None:
    """Give each missing standard stream (pythonw, cron, `2>&-`) somewhere to go; escape what an encoding lacks.

    A missing one would be given to the next file that is opened, and what libraries print would end up in it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
        stream = getattr(sys, name)
        if number and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def flush_stdout() -> OSError | None:
    """Have everything printed; what went wrong if that was not possible. From then on nothing is printed any more."""
    try:
        sys.stdout.flush()
    except OSError as error:
        silence_stdout()
        return error
    except ValueError:  # closed by somebody
        return None
    return None


def silence_stdout() -> None:
    """Nobody reads standard output any more: let what is printed, also at the interpreter's end, go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def clean_stdout() -> Iterator[IO[str]]:
    """Standard output for our lines alone: what libraries print meanwhile goes to standard error."""
    flush_stdout()
    ours = os.dup(1)
    os.dup2(2, 1)
    stream = os.fdopen(ours, "w", encoding="utf-8", newline="\n")
    try:
        yield stream
    finally:
        flush_stdout()
        with contextlib.suppress(OSError):
            stream.flush()
        os.dup2(ours, 1)
        with contextlib.suppress(OSError):
            stream.close()


def printable(text: str) -> str:
    """`text` on one line, with control characters shown and not obeyed: names and cards may come from anybody."""
    return "".join(repr(letter)[1:-1] if unicodedata.category(letter) in HIDDEN else letter for letter in text)


def show(text: str) -> None:
    """Print `text`, of one line or several, on standard output."""
    print("\n".join(map(printable, text.split("\n"))), flush=True)


def put(text: str, stream: IO[str]) -> None:
    """Print a line for people on standard error; one that nobody can read is dropped."""
    with contextlib.suppress(OSError, ValueError):
        print(printable(text), file=stream, flush=True)
