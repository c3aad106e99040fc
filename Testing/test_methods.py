"""A way to train is one file: found by its name, as `training.method` describes it, and driven by `fit`."""

from __future__ import annotations

import csv
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from made_trainings import RECIPE, one_contrast
from safetensors.torch import load_file

from MRSuperResLib.models import find_model
from MRSuperResLib.training import fit as loop
from MRSuperResLib.training import method, methods
from MRSuperResLib.training.checkpoint import LAST
from MRSuperResLib.training.fit import fit


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one smooth textured volume and one label map, in train/ and val/."""
    return one_contrast(tmp_path_factory.mktemp("study"))


@pytest.mark.parametrize("name", methods.methods())
def test_every_file_of_the_folder_is_a_method(name: str) -> None:
    found = methods.find_method(name)
    assert issubclass(found, method.Method) and found.losses and found.__module__.endswith(f".{name}")
    assert found.training_step is not method.Method.training_step and found.stream is not method.Method.stream


def test_the_documented_example_is_a_whole_method(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example in `training/method.py`, put into a file of the folder as it stands, trains and ships a model."""
    text = (method.__doc__ or "").split("squared error:\n\n")[1].split("\nMore than one")[0]
    imports = """
        from torch.nn import functional
        from MRSuperResLib.training.data.single import pair_stream
        from MRSuperResLib.training.method import Method
        from MRSuperResLib.training.validation import EngineValidator
    """
    (tmp_path / "squared.py").write_text(textwrap.dedent(imports) + textwrap.dedent(text))
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    assert "squared" in methods.methods()
    (tmp_path / "tiny.toml").write_text(
        RECIPE.replace('"supervised"', '"squared"').replace("batch = 2", "batch = 2\nsteps = 3")
    )
    path = fit(tmp_path / "tiny.toml", study, tmp_path / "out", minutes=5, device="cpu", report=lambda line: None)
    assert find_model(path).card.training.steps == 3
    assert ",l2," in (tmp_path / "out" / "curves.csv").read_text()


def test_losses_are_weighed_as_the_recipe_says(study: Path, tmp_path: Path) -> None:
    """L2 alone, and L1 with L2, lead elsewhere than L1; a loss of weight 0 is not counted."""
    ends = {}
    for name, loss in {"l1": "l1 = 1.0", "l2": "l1 = 0\nl2 = 1.0", "both": "l1 = 1.0\nl2 = 5.0"}.items():
        (tmp_path / f"{name}.toml").write_text(
            RECIPE.replace("batch = 2", "batch = 2\nsteps = 3").replace("[data]", f"[loss]\n{loss}\n[data]")
        )
        out = tmp_path / name
        fit(tmp_path / f"{name}.toml", study, out, minutes=5, device="cpu", validate=False, report=lambda line: None)
        ends[name] = load_file(out / LAST)["network.network.tail.weight"]
        told = {row[2] for row in csv.reader((out / "curves.csv").open())}
        assert told - {"name", "rate"} == ({"l1", "l2"} if name == "both" else {name})
    assert not torch.equal(ends["l1"], ends["l2"]) and not torch.equal(ends["l1"], ends["both"])


def test_a_training_that_diverges_stops_and_says_so(study: Path, tmp_path: Path) -> None:
    (tmp_path / "steep.toml").write_text(RECIPE.replace("learning_rate = 2e-3", "learning_rate = 1e30\nsteps = 60"))
    with pytest.raises(loop.ModelError, match="diverged"):
        fit(tmp_path / "steep.toml", study, tmp_path / "out", minutes=5, device="cpu", validate=False)


def test_a_resumed_training_s_curves_have_each_step_once(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were written after the last checkpoint are written again."""
    monkeypatch.setattr(loop, "CURVE_STEPS", 1)
    monkeypatch.setattr(loop.Run, "is_due", lambda run, what, seconds: what == "checkpoint" and run.progress.step == 3)
    (tmp_path / "tiny.toml").write_text(RECIPE.replace("batch = 2", "batch = 2\nsteps = 6"))

    def report(line: str) -> None:
        if line.startswith("step      5"):
            raise KeyboardInterrupt

    def run(**options: object) -> None:
        fit(tmp_path / "tiny.toml", study, tmp_path / "out", minutes=5, device="cpu", validate=False, **options)

    with pytest.raises(KeyboardInterrupt):
        run(report=report)
    run(resume=True, report=lambda line: None)
    steps = [row[0] for row in csv.reader((tmp_path / "out" / "curves.csv").open()) if row[2] == "l1"]
    assert steps == ["1", "2", "3", "4", "5", "6"]


def test_batches_that_are_ready_are_taken_as_they_are(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any iterable of batches will do as a stream; a resumed training asks it for the position where it stopped."""
    starts: list[int] = []

    def ready(pack: object, spec: object, factors: object, *, batch: int, start: int, **options: object) -> object:
        starts.append(start)
        generator = torch.Generator().manual_seed(start)
        return iter(
            lambda: (torch.rand(5, 1, 8, 8, generator=generator), torch.rand(5, 1, 16, 16, generator=generator)), 0
        )

    monkeypatch.setattr(methods.find_method("supervised"), "stream", lambda self, pack, seed, start: ready(
        pack, None, None, batch=5, start=start))  # fmt: skip
    for steps, resume in ((3, False), (5, True)):
        (tmp_path / "tiny.toml").write_text(RECIPE.replace("batch = 2", f"batch = 2\nsteps = {steps}"))
        fit(
            tmp_path / "tiny.toml", study, tmp_path / "out", minutes=5, device="cpu", validate=False, resume=resume,
            report=lambda line: None,
        )  # fmt: skip
    assert starts == [0, 15]


def test_training_starts_without_what_only_validation_needs(repository: Path) -> None:
    """A machine that trains on packs needs neither SimpleITK nor MONAI nor matplotlib to begin."""
    code = """
import sys
from MRSuperResLib.training import fit
from MRSuperResLib.training.methods import find_method, methods
for name in methods():
    find_method(name)
print(*(name for name in ("SimpleITK", "monai", "matplotlib", "sklearn") if name in sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository, timeout=300)
    assert run.returncode == 0 and not run.stdout.strip(), run.stdout + run.stderr
