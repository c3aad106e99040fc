"""What the commands print: events of a job for people or as JSON lines, tables, times, warnings."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from .. import jobs

BAR = 24  # characters of the progress bar
REDRAW_SECONDS = 0.1
HINTS = {
    "no-contrast": " (--contrast)",
    "no-target": " (--to)",
    "label-map": " (--not-labels)",
    "several-series": " (--series)",
    "several-volumes": " (--series)",
}  # the option that mends an error of that code


class Show:
    """A job's events for people: a progress bar and warnings on standard error, the outcome on standard output."""

    def __init__(self, errors: IO[str], output: IO[str]) -> None:
        self.errors, self.output = errors, output
        self.live = errors.isatty()
        self.drawn = 0.0
        self.width = 0

    def __call__(self, event: dict[str, Any]) -> None:
        {
            "started": self._started,
            "progress": self._progress,
            "warning": lambda e: self._line(f"warning: {e['message']}"),
            "error": lambda e: self._line(f"error: {e['message']}{HINTS.get(e['code'], '')}"),
            "result": self._result,
        }[event["event"]](event)

    def clear(self) -> None:
        """Wipe the bar."""
        if self.width:
            self.errors.write("\r" + " " * self.width + "\r")
            self.errors.flush()
            self.width = 0

    def _line(self, text: str) -> None:
        self.clear()
        print(text, file=self.errors, flush=True)

    def _started(self, event: dict[str, Any]) -> None:
        if self.live:
            size = " x ".join(map(str, event["output_size"]))
            spacing = " x ".join(f"{mm:.3g}" for mm in event["output_spacing"])
            self._line(f"{event['model']} on {event['device']} ({event['precision']}): {size} voxels of {spacing} mm")

    def _progress(self, event: dict[str, Any]) -> None:
        now, done, total = time.monotonic(), event["done"], max(event["total"], 1)
        if not self.live or (now - self.drawn < REDRAW_SECONDS and done < total):
            return
        self.drawn = now
        bar = "#" * (BAR * done // total)
        left = "" if not event["seconds_left"] else f"  {duration(event['seconds_left'])} left"
        text = f"{event['stage']:<16} [{bar:<{BAR}}] {done / total:4.0%}{left}"
        self.errors.write("\r" + text.ljust(self.width))
        self.errors.flush()
        self.width = len(text)

    def _result(self, event: dict[str, Any]) -> None:
        self.clear()
        outputs = event["outputs"]
        paths = [
            outputs[name] for name in ("output", "error_map", "consistency_map", "uncertainty_map") if outputs.get(name)
        ]
        for path in [*paths, *outputs["samples"], outputs["sidecar"]]:
            print(path, file=self.output)
        for name, value in event["metrics"].items():
            print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}", file=self.output)
        registration = event.get("provenance", {}).get("registration")
        if registration:
            print(reference_text(registration), file=self.output)
        done = "already complete, left alone" if event.get("skipped") else f"done in {duration(event['seconds'])}"
        print(f"{done}; research use only", file=self.output, flush=True)


@contextlib.contextmanager
def events(as_json: bool) -> Iterator[jobs.Emit]:
    """Where a job's events go: JSON lines on standard output, or words for people."""
    if as_json:
        with clean_stdout() as stream:
            yield lambda event: print(json.dumps(event), file=stream, flush=True)
        return
    show = Show(sys.stderr, sys.stdout)
    try:
        yield show
    finally:
        show.clear()


@contextlib.contextmanager
def clean_stdout() -> Iterator[IO[str]]:
    """Standard output for our lines alone: what libraries print meanwhile goes to standard error."""
    sys.stdout.flush()
    try:
        ours = os.dup(1)
    except OSError:  # closed, as under pythonw
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            yield nowhere
        return
    os.dup2(2, 1)
    stream = os.fdopen(ours, "w", encoding="utf-8", newline="\n")
    try:
        yield stream
    finally:
        sys.stdout.flush()
        with contextlib.suppress(BrokenPipeError):
            stream.flush()
        os.dup2(ours, 1)
        with contextlib.suppress(BrokenPipeError):
            stream.close()


def reference_text(found: Mapping[str, Any]) -> str:
    """How a reference was brought to its scan, from the record of it."""
    if not found["searched"]:
        how = "its header is trusted"
    elif found["moved"]:
        how = f"registered, moved by {found['shift_mm']:.1f} mm and {found['rotation_degrees']:.1f} degrees"
    else:
        how = "registered, its header was right"
    alike = "similarity unknown" if found["similarity"] is None else f"similarity {found['similarity']:.3f}"
    return f"reference: {how}; {alike}{'' if found['used'] else '; not used'}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def tell(code: str, message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def complain(text: str, code: int) -> int:
    print(f"error: {text}", file=sys.stderr)
    return code
