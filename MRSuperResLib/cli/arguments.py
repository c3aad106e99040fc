"""What the commands' parsers share: one-line complaints, help's end, and arguments that several commands take."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ..errors import OutputError, UsageError
from ..staging import check_folder

PLANES = {"in-plane": "in-plane", "inplane": "in-plane", "through-plane": "through-plane", "through": "through-plane"}
EXIT_CODES = """\
exit codes: 0 done, 1 a bug, 2 wrong use of the command line, 3 unsuitable input volume, 4 unsuitable model,
5 output cannot be written, 6 device or memory, 7 missing requirement, 130 cancelled.
Research use only."""


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is, and leave with 2."""
        self.exit(UsageError.exit_code, f"error: {' '.join(message.split())} (see '{self.prog} --help')\n")


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    """A parser of the command `name`, which `run` carries out; the exit codes end its help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


def plane(text: str) -> str:
    """The plane that `text` names."""
    if text not in PLANES:
        raise argparse.ArgumentTypeError(f"plane is '{text}', expected in-plane or through-plane")
    return PLANES[text]


def add_model_folder(parser: argparse.ArgumentParser) -> None:
    """The argument `--models`."""
    parser.add_argument(
        "--models", action="append", default=[], metavar="DIR", help="look for models there too (repeatable)"
    )


def checked_folder(path: str) -> Path:
    """Check that the folder `path` can be made and written to, before long work; leaves nothing behind."""
    folder = Path(path)
    missing = [place for place in (folder, *folder.parents) if not os.path.exists(place)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_folder(folder)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made: {error.strerror}") from error
    finally:
        for place in missing:
            with contextlib.suppress(OSError):
                place.rmdir()
    return folder
