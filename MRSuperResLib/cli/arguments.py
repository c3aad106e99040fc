"""What the commands' parsers share: one-line complaints, help's end, and arguments that several commands take."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ..errors import OutputError, UsageError
from ..jobs.fields import Field
from ..jobs.job import FIELDS
from ..staging import check_folder
from ..terms import PLANES
from .streams import put

MACHINE = ("device", "precision", "tile", "batch", "threads")

EXIT_CODES = """\
exit codes: 0 done, 1 a bug, 2 wrong use of the command line, 3 unsuitable input volume, 4 unsuitable model,
5 output cannot be written, 6 device or memory, 7 missing requirement, 130 cancelled.
Research use only."""


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is, and leave with 2."""
        dashed = next((word for word in sys.argv[1:] if word.startswith("-") and os.path.isfile(word)), None)
        hint = f" (for the file, write .{os.sep}{dashed})" if dashed else ""
        more = message.removeprefix("unrecognized arguments: ").split(" ")
        if more[0] != message and os.path.exists(more[-1]) and not dashed:
            message, hint = f"one input is taken, and {more[-1]} is another", ": repeat the command for each"
        put(f"error: {' '.join(message.split())}{hint} (see '{self.prog} --help')", sys.stderr)
        self.exit(UsageError.exit_code)


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, notes: str = ""
) -> argparse.ArgumentParser:
    """A parser of the command `name`, which `run` carries out; `notes` and the exit codes end its help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"{notes}\n\n{EXIT_CODES}" if notes else EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run, patient=False)
    return parser


def whole(text: str) -> int:
    """The number that `text` holds, which is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 0 upwards")
    return int(text)


def plane(text: str) -> str:
    """The plane that `text` names."""
    if text not in PLANES:
        raise argparse.ArgumentTypeError(f"plane is '{text}', expected in-plane or through-plane")
    return PLANES[text]


def add_fields(parser: Any, *names: str, **changes: Any) -> None:
    """Arguments for those fields of a job; changes: to what `argparse` is told, of all of them."""
    machine = None
    for name in names:
        field = FIELDS[name]
        target: Any = parser
        if name in MACHINE and len(names) > 4:
            target = machine = machine or parser.add_argument_group("machine")
        target.add_argument(*((name,) if name == "input" else field.flags), **{**_told(field), **changes})


def _told(field: Field) -> dict[str, Any]:
    """What `argparse` is told about a field."""
    told: dict[str, Any] = {"help": field.help}
    if field.metavar:
        told["metavar"] = field.metavar
    if field.name == "input":
        return told
    told |= {"dest": field.name, "required": field.required, "default": field.default}
    if field.kind is bool:
        return told | ({"action": "store_false", "help": field.off} if field.default else {"action": "store_true"})
    if field.count == 0:
        return told | {"action": "append", "default": []}
    if field.count:
        told["nargs"] = field.count
    if field.aliases:
        told["type"] = plane
    elif field.kind is not str:
        told["type"] = field.kind
    elif field.choices:
        told["choices"] = field.choices
    if field.default is not None:
        told["help"] = f"{field.help} ({field.default})"
    return told


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
