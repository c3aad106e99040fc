"""`mrsuperres`: the shell's door to the library. Every command is a thin reader of arguments."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from .. import __version__
from ..errors import Cancelled, MissingRequirement, MRSuperResError
from ..inference.device import let_idle_threads_sleep
from .arguments import EXIT_CODES, Parser
from .demo import add_demo
from .evaluate import add_evaluate, add_scores
from .inspect import add_inspect
from .models import add_models
from .output import HINTS, complain
from .run import add_run, add_translate
from .train import add_data, add_train
from .worker import add_worker


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors are one line on standard error, tracebacks only for bugs."""
    let_idle_threads_sleep()
    options = parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except MRSuperResError as error:
        return complain(" ".join(error.message.split()) + HINTS.get(error.code, ""), error.exit_code)
    except KeyboardInterrupt:
        return complain("cancelled", Cancelled.exit_code)
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("MRSuperResLib"):
            raise
        package = (error.name or "?").split(".")[0]
        text = f"the package '{package}' is not installed and this command needs it: pip install {package}"
        return complain(text, MissingRequirement.exit_code)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return complain(f"{type(error).__name__}: {' '.join(str(error).split())[:200]} (a bug: please report it)", 1)


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
        add_data,
        add_worker,
    ):
        add(commands)
    return parser
