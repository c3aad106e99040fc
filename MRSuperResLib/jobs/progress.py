"""Progress in words, for whoever cannot be shown a bar."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_LINE_SECONDS = 10.0  # quick work needs no line
LINE_SECONDS = 30.0


class LinesOfProgress:
    """A `Progress` that says a line now and then: after `FIRST_LINE_SECONDS`, then every `LINE_SECONDS`."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.say, self.clock = say, clock
        self.told = clock() - LINE_SECONDS + FIRST_LINE_SECONDS

    def __call__(self, stage: str, done: int, total: int, seconds_left: float | None = None) -> None:
        """Tell how far a stage is, if it is time to."""
        now = self.clock()
        if now - self.told >= LINE_SECONDS:
            self.told = now
            left = f", {duration(seconds_left)} left" if seconds_left else ""
            self.say(f"{stage}: {done / max(total, 1):.0%}{left}")


def duration(seconds: float) -> str:
    """Seconds in words: "0.8 s", "12 s", "1 min 05 s", "2 h 03 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
