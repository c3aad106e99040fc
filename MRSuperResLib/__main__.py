"""`python -m MRSuperResLib` is `mrsuperres`."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Python puts the current folder first: nothing is imported from there, unless it is where this library lies.
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if (
        not getattr(sys.flags, "safe_path", False)
        and sys.path
        and os.path.realpath(sys.path[0] or ".") != os.path.realpath(here)
    ):
        del sys.path[0]
    from .cli import main

    sys.exit(main())
