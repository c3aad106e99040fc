"""`mrsuperres`, and `python -m MRSuperResLib`."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command line; Ctrl-C is one line also while Python is still loading it."""
    try:
        from .cli import main as run

        return run()
    except KeyboardInterrupt:
        print("error: cancelled", file=sys.stderr)
        return 130


def _leave_current_folder() -> None:
    """Import nothing from the current folder, which Python puts first, unless it is where this library lies."""
    library = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    if not getattr(sys.flags, "safe_path", False) and sys.path and os.path.realpath(sys.path[0] or ".") != library:
        del sys.path[0]


if __name__ == "__main__":
    _leave_current_folder()
    sys.exit(main())
