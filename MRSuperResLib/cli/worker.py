"""`mrsuperres worker`: run a job given as JSON, printing events as JSON lines."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from .. import jobs
from ..errors import UsageError
from ..jobs.job import schema
from .arguments import add_command
from .streams import clean_stdout


def add_worker(commands: Any) -> None:
    parser = add_command(commands, "worker", _worker, "run a job given as JSON, printing events as JSON lines")
    parser.add_argument("job", metavar="JOB.json", nargs="?", help="the job, or - to read it from standard input")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of a job and end")
    parser.add_argument(
        "--serve", action="store_true", help="run the jobs whose files are named on standard input, a line each"
    )
    parser.add_argument(
        "--idle",
        type=float,
        default=jobs.worker.IDLE_SECONDS,
        metavar="SECONDS",
        help="with --serve, end after that long without a job (%(default)g)",
    )
    parser.add_argument("--cancel-file", metavar="PATH", help="stop once this file exists (JOB.json.cancel)")


def _worker(options: argparse.Namespace) -> int:
    if options.schema:
        print(json.dumps(schema(), indent=2))
        return 0
    if options.serve:
        with clean_stdout() as stream:
            return jobs.serve(sys.stdin, stream, options.idle)
    if options.job is None:
        raise UsageError("no job is given: give a JSON file, - for standard input, or --schema")
    with clean_stdout() as stream:
        return jobs.work(options.job, stream, options.cancel_file)
