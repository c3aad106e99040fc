"""What several test files share: where the real volumes are, and a quiet, small computer."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from MRSuperResLib.jobs import Job

# Set before anything imports torch or MKL: the tests share the machine, and small arrays gain nothing from threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

REPOSITORY = Path(__file__).resolve().parents[1]

# A shell starts what runs in the background with Ctrl-C ignored, nohup with the hang-up: the programs that tests start and
# interrupt would inherit that, and rightly heed neither.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
# Libraries of the system that Qt and VTK ask for, and the Debian packages they come in.
LIBRARIES = {
    "libGL.so": "libgl1",
    "libEGL.so": "libegl1",
    "libOpenGL.so": "libopengl0",
    "libxkbcommon.so": "libxkbcommon0",
    "libglib-2.0.so": "libglib2.0-0",
    "libgthread-2.0.so": "libglib2.0-0",
    "libdbus-1.so": "libdbus-1-3",
    "libfontconfig.so": "libfontconfig1",
    "libX11.so": "libx11-6",
    "libXrender.so": "libxrender1",
}
PANEL_PACKAGES = " ".join(sorted(set(LIBRARIES.values())))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Skip a file of tests that a minimal machine has no libraries for, and say which packages have them."""
    report = yield
    text = str(report.longrepr) if report.failed else ""
    missing = re.search(r"ImportError: (lib[\w.+-]+?\.so)[.\d]*: cannot open shared object file", text)
    if missing and missing[1] in LIBRARIES:
        reason = f"{missing[1]} is missing: apt install {PANEL_PACKAGES}"
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, f"Skipped: {reason}")
    return report


def pytest_addoption(parser: pytest.Parser) -> None:
    """Other odd inputs than the suite's, and more of them."""
    parser.addoption("--odd-seed", type=int, default=2026, help="seed of the odd inputs (test_odd_inputs.py)")
    parser.addoption("--odd-count", type=int, default=300, help="how many odd inputs")


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

    from MRSuperResLib.io.read import read_volume
    from MRSuperResLib.io.write import write_volume
    from MRSuperResLib.jobs import Job
    from MRSuperResLib.volume import Volume

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


# The module's panel and logic, without Slicer's application: see `panel`.


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What stands in for the application, for all tests of a file."""
    from panel import application

    return application.start(tmp_path_factory.mktemp("slicer"))


@pytest.fixture
def scene(app: Any) -> Iterator[Any]:
    """Slicer's scene, empty; a test that uses it leaves no temporary files."""
    import slicer

    slicer.mrmlScene.Clear(0)
    yield slicer.mrmlScene
    assert not list(Path(app.temporaryPath).glob("MRSuperRes-*")), "temporary files were left behind"


@pytest.fixture
def logic(scene: Any) -> Any:
    """The module's logic."""
    from MRSuperResSupport.logic import MRSuperResLogic

    return MRSuperResLogic()


@pytest.fixture
def slicerApp(tmp_path: Path) -> Any:
    """What stands in for the application, with an empty scene."""
    pytest.importorskip("slicer", reason="the panel needs slicer-core")
    pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")
    from panel import application

    return application.start(tmp_path)


@pytest.fixture
def module(slicerApp: Any) -> Any:
    """The module's own file."""
    from panel import application

    return application.load()


@pytest.fixture
def panel(module: Any) -> Iterator[Any]:
    """The panel in an empty scene; a run that a test left is ended."""
    from panel import application

    widget = module.MRSuperResWidget()
    widget.setup()
    yield widget
    run = widget.work.run
    widget.cleanup()
    for box in widget.parent.findChildren(application.widgets.qMRMLNodeComboBox):
        box.setMRMLScene(None)
    if run is not None:
        application.until(lambda: not run.isRunning, 10, "the end of the run")


@pytest.fixture
def translating(panel: Any, module: Any, monkeypatch: Any) -> Any:
    """The panel set to translate the scan to FLAIR, and `Translates` for the worker."""
    from MRSuperResSupport import requirements
    from panel.kit import Translates, chosen, pick, translator

    from MRSuperResLib.models import Requirements

    Translates.jobs = []
    monkeypatch.setattr(panel.logic, "_process", Translates)
    monkeypatch.setattr(requirements, "ensure", lambda entry: None)
    shipped = panel.logic.models()
    monkeypatch.setattr(panel.logic, "models", lambda: [*shipped, translator(requirements=Requirements(latent=8))])
    chosen(panel, module, task=module.Task.TRANSLATE, model="mt-test", seed=11, samples=3)
    pick(panel.ui.targetSelector, "FLAIR")
    return panel
