"""What the commands print: events of a job for people or as JSON lines, tables, times, warnings."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

from ..jobs.events import Lines
from ..jobs.progress import LinesOfProgress, duration
from .streams import clean_stdout, printable, put

BAR = 24  # characters of the progress bar
REDRAW_SECONDS = 0.1
HINTS = {
    "no-contrast": " (--contrast)",
    "no-target": " (--to)",
    "label-map": " (--not-labels)",
    "several-series": " (--series)",
    "several-volumes": " (--series)",
    "unknown-model": " (see 'mrsuperres models')",
}  # what mends an error of that code in a shell


class Show:
    """A job's events for people: a progress bar and warnings on standard error, the outcome on standard output.

    On a terminal the bar is drawn again and again; elsewhere a line tells the progress now and then. failure: why
    standard output could not be written to, which ends no job.
    """

    def __init__(self, errors: IO[str], output: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.errors, self.output, self.clock = errors, output, clock
        self.live = errors.isatty()
        self.lines = LinesOfProgress(self._line, clock)
        self.drawn = 0.0
        self.width = 0
        self.failure: OSError | None = None

    def __call__(self, event: dict[str, Any]) -> None:
        show = {
            "started": self._started,
            "progress": self._progress,
            "warning": lambda e: self._line(f"warning: {e['message']}"),
            "error": lambda e: self._line(f"error: {e['message']}{HINTS.get(e['code'], '')}"),
            "result": self._result,
        }.get(event["event"])
        if show is not None:
            show(event)

    def clear(self) -> None:
        """Wipe the bar."""
        if self.width:
            self._draw("\r" + " " * self.width + "\r")
            self.width = 0

    def _line(self, text: str) -> None:
        self.clear()
        put(text, self.errors)

    def _draw(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.errors.write(text)
            self.errors.flush()

    def _started(self, event: dict[str, Any]) -> None:
        if self.live:
            size = " x ".join(map(str, event["output_size"]))
            spacing = " x ".join(f"{mm:.3g}" for mm in event["output_spacing"])
            self._line(f"{event['model']} on {event['device']} ({event['precision']}): {size} voxels of {spacing} mm")

    def _progress(self, event: dict[str, Any]) -> None:
        now, done, total = self.clock(), event["done"], max(event["total"], 1)
        if not self.live:
            self.lines(event["stage"], done, total, event["seconds_left"])
            return
        if now - self.drawn < REDRAW_SECONDS and done < total:
            return
        self.drawn = now
        left = "" if not event["seconds_left"] else f"{duration(event['seconds_left'])} left"
        text = f"{event['stage']:<16} [{'#' * (BAR * done // total):<{BAR}}] {done / total:4.0%}  {left}".rstrip()
        self._draw("\r" + text.ljust(self.width))
        self.width = len(text)

    def _result(self, event: dict[str, Any]) -> None:
        self.clear()
        outputs = event["outputs"]
        names = ("output", "error_map", "consistency_map", "uncertainty_map", "flags")
        lines = [outputs[name] for name in names if outputs.get(name)] + [*outputs["samples"], outputs["sidecar"]]
        for name, value in event["metrics"].items():
            lines.append(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
        registration = event.get("provenance", {}).get("registration")
        if registration:
            lines.append(reference_text(registration))
        done = "already complete, left alone" if event.get("skipped") else f"done in {duration(event['seconds'])}"
        try:
            print(*map(printable, [*lines, f"{done}; research use only"]), sep="\n", file=self.output, flush=True)
        except OSError as error:
            self.failure = error


@contextlib.contextmanager
def events(as_json: bool) -> Iterator[Show | Lines]:
    """Where a job's events go: JSON lines on standard output, or words for people. Neither ever ends the job."""
    if as_json:
        with clean_stdout() as stream:
            yield Lines(stream, lambda: None)
        return
    show = Show(sys.stderr, sys.stdout)
    try:
        yield show
    finally:
        show.clear()


def reference_text(found: Mapping[str, Any]) -> str:
    """How a reference was brought to its scan, from the record of it."""
    if not found["searched"]:
        how = "its header is trusted"
    elif not found["used"]:
        how = "not aligned"
    elif found["moved"]:
        how = f"registered, moved by {found['shift_mm']:.1f} mm and {found['rotation_degrees']:.1f} degrees"
    else:
        how = "registered, its header was right"
    alike = "similarity unknown" if found["similarity"] is None else f"similarity {found['similarity']:.3f}"
    return f"reference: {how}; {alike}{'' if found['used'] else '; not used'}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def tell(code: str, message: str) -> None:
    """A warning."""
    put(f"warning: {message}", sys.stderr)


def say(line: str) -> None:
    """A line of progress."""
    put(line, sys.stderr)


def complain(text: str, code: int) -> int:
    """The line that says why a command ends with `code`."""
    put(f"error: {text}", sys.stderr)
    return code
