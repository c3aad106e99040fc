"""A job as data: what the panel, the console, the shell and the cohort all run, and the events it tells them.

A job is one JSON object (`Job`); running it emits events, each one JSON object: started, progress, warning, then result
or error. The worker process prints them as lines on its standard output.
"""

from __future__ import annotations

from .events import Cancellation, Emit
from .job import FORMATS, SCHEMA, Job
from .outputs import JobOutputs
from .run import estimate_job, execute, run_job
from .worker import ended_by_signals, serve, work

__all__ = [
    "FORMATS",
    "SCHEMA",
    "Cancellation",
    "Emit",
    "Job",
    "JobOutputs",
    "ended_by_signals",
    "estimate_job",
    "execute",
    "run_job",
    "serve",
    "work",
]
