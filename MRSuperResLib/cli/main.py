"""`mrsuperres`: the shell's door to the library. Every command is a thin reader of arguments."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence

from .. import __version__
from ..errors import Cancelled, DeviceError, MissingRequirement, MRSuperResError, OutputError, UsageError, told
from ..inference.device import let_idle_threads_sleep
from ..inference.memory import keep_freed_memory
from ..jobs.fields import complaints
from ..jobs.job import FIELDS
from ..jobs.worker import GRACE_SECONDS
from ..signals import on_signals
from ..staging import discard_all
from .arguments import EXIT_CODES, Parser
from .demo import add_demo
from .evaluate import add_evaluate, add_scores
from .inspect import add_inspect
from .models import add_models
from .output import HINTS, complain
from .run import add_run, add_translate
from .streams import flush_stdout, mend_streams, silence_stdout
from .train import add_blend, add_data, add_train
from .worker import add_worker


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors are one line on standard error, tracebacks only for bugs.

    A reader of our output who leaves early (`| head -1`) is no error: the command ends as if all had been read.
    """
    mend_streams()
    let_idle_threads_sleep()
    keep_freed_memory()
    try:
        code = _run(arguments)
    except SystemExit:  # help, or a mistyped command
        flush_stdout()
        raise
    lost = flush_stdout()
    if lost is not None and not isinstance(lost, BrokenPipeError):
        return code or complain(f"standard output cannot be written: {lost.strerror}", OutputError.exit_code)
    return code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = parser().parse_args(arguments)
        _check_numbers(options)
        with _interruptible(options):
            return int(options.command(options))
    except MRSuperResError as error:
        return complain(" ".join(error.message.split()) + HINTS.get(error.code, ""), error.exit_code)
    except KeyboardInterrupt:
        return complain("cancelled", Cancelled.exit_code)
    except BrokenPipeError:
        silence_stdout()
        return 0
    except MemoryError:
        return complain("this machine's memory ran out: close other programs, or crop the scan", DeviceError.exit_code)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("MRSuperResLib"):
            raise
        package = (error.name or "?").split(".")[0]
        text = f"the package '{package}' is not installed and this command needs it: pip install {package}"
        return complain(text, MissingRequirement.exit_code)
    except OSError as error:
        return complain(told(error), OutputError.exit_code)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return complain(f"{type(error).__name__}: {' '.join(str(error).split())[:200]} (a bug: please report it)", 1)


def _check_numbers(options: argparse.Namespace) -> None:
    """Raise `UsageError` for numbers out of the range that a job's field of that name has."""
    numbers = [field for name, field in FIELDS.items() if field.kind in (int, float) and hasattr(options, name)]
    complaint = next(complaints(options, numbers), None)
    if complaint:
        raise UsageError(complaint)


@contextlib.contextmanager
def _interruptible(options: argparse.Namespace) -> Iterator[None]:
    """While inside, a signal ends the command as soon as Python runs, and in any case after `GRACE_SECONDS`; a second at once.

    `train` has as long as it takes to write its checkpoint. Commands that run a job see to its signals themselves.
    """
    timers: list[threading.Timer] = []

    def end() -> None:
        discard_all()
        complain("cancelled", Cancelled.exit_code)
        os._exit(Cancelled.exit_code)

    def first() -> None:
        if not options.patient:
            timers.append(threading.Timer(GRACE_SECONDS, end))
            timers[0].daemon = True
            timers[0].start()

    try:
        with on_signals(first, end, interrupt=True):
            yield
    finally:  # once nobody can start another
        for timer in timers:
            timer.cancel()


def parser() -> Parser:
    parser = Parser(
        prog="mrsuperres",
        description="Super-resolution and contrast translation of MR volumes. Research use only.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mrsuperres {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        add_demo,
        add_run,
        add_translate,
        add_inspect,
        add_models,
        add_evaluate,
        add_scores,
        add_train,
        add_blend,
        add_data,
        add_worker,
    ):
        add(commands)
    return parser
