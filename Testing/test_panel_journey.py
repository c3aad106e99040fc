"""The steps of Testing/Slicer/journey.py here, with what stands in for Slicer's window: what widgets allow, CI holds."""

from __future__ import annotations

import importlib.util
import types
from pathlib import Path
from typing import Any

import pytest

slicer = pytest.importorskip("slicer", reason="the panel needs slicer-core")
pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")

FILE = Path(__file__).parent / "Slicer" / "journey.py"


def loaded() -> types.ModuleType:
    specification = importlib.util.spec_from_file_location("journey", FILE)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


STEPS = [name for name in dir(loaded().Journey) if name.startswith("step_")]


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_the_journey_passes_here_too(
    panel: Any, module: Any, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slicer.modules, "MRSuperResWidget", panel, raising=False)
    monkeypatch.setattr(slicer.util, "selectModule", lambda name: None)
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: pytest.fail(text))
    module.MRSuperRes(types.SimpleNamespace()).setup()
    journey = loaded().Journey()
    slicer.mrmlScene.Clear()
    getattr(journey, step)()
