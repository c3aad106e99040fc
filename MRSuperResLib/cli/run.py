"""`mrsuperres run` and `translate`: one volume, one model; their arguments are the fields of a job."""

from __future__ import annotations

import argparse
from typing import Any

from .. import jobs
from ..jobs import Cancellation, Job
from ..jobs.job import fields
from .arguments import add_command, add_fields
from .output import events


def add_run(commands: Any) -> None:
    """`run`."""
    parser = add_command(commands, "run", _run, "super-resolve a volume")
    _add_job_arguments(parser, "super-resolve", "reference-guided")


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
    """Run the job in this process, showing its events."""
    given = {name: value for name, value in vars(options).items() if name in {field.name for field in fields()}}
    several = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    job = Job(**{**given, **several, "task": task})  # type: ignore[arg-type]
    cancellation = Cancellation()
    with events(options.json) as emit, cancellation.on_signals():
        return jobs.execute(job, emit, cancellation)
