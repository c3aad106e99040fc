"""`mrsuperres worker`: run a job given as JSON, printing events as JSON lines."""

from __future__ import annotations

import argparse
from typing import Any

from .. import jobs
from .arguments import add_command
from .output import clean_stdout


def add_worker(commands: Any) -> None:
    parser = add_command(commands, "worker", _worker, "run a job given as JSON, printing events as JSON lines")
    parser.add_argument("job", metavar="JOB.json", help="the job, or - to read it from standard input")
    parser.add_argument("--cancel-file", metavar="PATH", help="stop once this file exists (JOB.json.cancel)")


def _worker(options: argparse.Namespace) -> int:
    with clean_stdout() as stream:
        return jobs.work(options.job, stream, options.cancel_file)
