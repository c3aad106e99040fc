"""What several test files share: where the real volumes are, and a quiet, small computer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Set before anything imports torch or MKL: the tests share the machine, and small arrays gain nothing from threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real MR volumes (train/, val/), which are not part of the project: without them the test is skipped.

    Looked for in the environment variable MRSUPERRES_DATA, then in ../shared/data beside the source tree.
    """
    named = os.environ.get("MRSUPERRES_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not (folder / "val").is_dir():
        where = "MRSUPERRES_DATA" if named else "../shared/data (or set MRSUPERRES_DATA)"
        pytest.skip(f"no real MR volumes at {where}")
    return folder
