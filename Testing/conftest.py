"""What several test files share: where the real volumes are, and a quiet, small computer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from MRSuperResLib.jobs import Job

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


@pytest.fixture
def no_models_of_this_machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own model folder is empty."""
    monkeypatch.setenv("MRSUPERRES_MODELS", str(tmp_path_factory.mktemp("empty")))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder for results."""
    (tmp_path / "out").mkdir(exist_ok=True)
    return tmp_path / "out"


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A scan whose name gives a patient away."""
    from small import save_scan

    return save_scan(tmp_path / "DOE^JANE.nii.gz")


@pytest.fixture
def job(tmp_path: Path, scan: Path) -> Job:
    """The tiny model on that scan, every result asked for."""
    import numpy as np
    from small import save_tiny

    from MRSuperResLib.jobs import Job
    from MRSuperResLib.volume import Volume, read_volume, write_volume

    (tmp_path / "models").mkdir()
    save_tiny(tmp_path / "models")
    (tmp_path / "out").mkdir(exist_ok=True)
    truth = tmp_path / "truth.nii.gz"
    fine = read_volume(scan)
    on = fine.grid.refine((1.0, 1.0, 2.0))
    write_volume(Volume(np.repeat(fine.array, 2, axis=0), on), truth)
    out = tmp_path / "out"
    return Job(
        input=str(scan),
        output=str(out / "sr.nii.gz"),
        model="tiny-through-x2",
        truth=str(truth),
        error_map=str(out / "error.nrrd"),
        consistency_map=str(out / "consistency.nii.gz"),
        device="cpu",
        threads=1,
        model_folders=(str(tmp_path / "models"),),
    )
