"""`mrsuperres run` and `translate`: one volume, one model; their arguments are the fields of a job."""

from __future__ import annotations

import argparse
from typing import Any

from .. import jobs
from ..errors import OutputError
from ..jobs import Cancellation, Job
from ..jobs.completed import completed
from ..jobs.job import fields
from ..jobs.run import read_input
from ..staging import Staging
from .arguments import add_command, add_fields
from .output import complain, events, say, tell
from .streams import silence_stdout


def add_run(commands: Any) -> None:
    """`run`."""
    parser = add_command(commands, "run", _run, "super-resolve a volume")
    _add_job_arguments(parser, "super-resolve", "reference-guided")
    for action in parser._actions:
        if action.dest in ("output", "model"):
            chosen = "the one that suits the scan" if action.dest == "model" else "beside the input, _desc- in its name"
            action.required, action.help = False, f"{action.help}; by default {chosen}"


def add_translate(commands: Any) -> None:
    """`translate`."""
    parser = add_command(commands, "translate", _translate, "translate a volume to another contrast")
    _add_job_arguments(parser, "translate")


def _add_job_arguments(parser: argparse.ArgumentParser, *tasks: str) -> None:
    """An argument for every field that concerns one of `tasks`."""
    wanted = {field.name for task in tasks for field in fields(task)}
    names = [field.name for field in fields() if field.name in wanted and field.flags]
    size = parser.add_mutually_exclusive_group()
    add_fields(parser, *[name for name in names if name not in ("factor", "spacing")])
    add_fields(size, "factor", "spacing")
    parser.add_argument("--json", action="store_true", help="print events as JSON lines instead of a progress bar")


def _run(options: argparse.Namespace) -> int:
    return _execute(options, "reference-guided" if options.reference else "super-resolve")


def _translate(options: argparse.Namespace) -> int:
    return _execute(options, "translate")


def _execute(options: argparse.Namespace, task: str) -> int:
    """Run the job in this process, showing its events; what `run` leaves open is chosen for the scan first, and said."""
    given = {name: value for name, value in vars(options).items() if name in {field.name for field in fields()}}
    several = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    asked: dict[str, Any] = {**given, **several, "task": task}
    whole = task == "translate" or bool(asked["model"] and asked["output"])
    job = Job(**asked) if whole else lambda: _completed(asked)
    cancellation, staging = Cancellation(), Staging()
    with events(options.json) as emit, jobs.ended_by_signals(cancellation, emit, staging):
        code = jobs.execute(job, emit, cancellation, staging)
    failure = emit.failure
    if isinstance(failure, OSError) and not isinstance(failure, BrokenPipeError):  # a reader who left is no error
        silence_stdout()
        return code or complain(f"standard output cannot be written: {failure.strerror}", OutputError.exit_code)
    return code


def _completed(asked: dict[str, Any]) -> Job:
    """The job that `asked`, without a model or an output, becomes for its scan."""
    looked_at = Job(**{**asked, "model": asked["model"] or "linear", "output": asked["output"] or "result.nii.gz"})
    looked_at.check()
    job, why = completed(asked, read_input(looked_at, tell))
    if why:
        say(why)
    return job
