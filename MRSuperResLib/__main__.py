"""`mrsuperres`, and `python -m MRSuperResLib`."""

from __future__ import annotations

import contextlib
import os
import sys

CANCELLED = 130  # `errors.Cancelled.exit_code`; here before anything is imported


def main() -> int:
    """Run the command line; Ctrl-C is one line also while Python is still loading it."""
    try:
        from .cli import main as run

        code = run()
    except KeyboardInterrupt:
        print("error: cancelled", file=sys.stderr)
        code = CANCELLED
    if code == CANCELLED:
        _end_at_once(code)
    return code


def _end_at_once(code: int) -> None:
    """End this process: nothing of the job is left, and taking torch down takes seconds on a busy machine.

    Not while it has children of its own (a training's), which Python ends first.
    """
    processes = sys.modules.get("multiprocessing")
    if processes is not None and processes.active_children():
        return
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody may be reading
            stream.flush()
    os._exit(code)


def _leave_current_folder() -> None:
    """Import nothing from the current folder, which Python puts first, unless it is where this library lies."""
    library = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    if not getattr(sys.flags, "safe_path", False) and sys.path and os.path.realpath(sys.path[0] or ".") != library:
        del sys.path[0]


if __name__ == "__main__":
    _leave_current_folder()
    sys.exit(main())
