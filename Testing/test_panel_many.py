"""Many volumes from the panel: folders of the subject hierarchy and sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="the panel needs slicer-core")
pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")

from panel import application  # noqa: E402
from panel.kit import chosen, ended, folder, got, hidden, put, said, scan, select, tip, translator  # noqa: E402

from MRSuperResLib.models import Requirements  # noqa: E402


def test_all_volumes_of_a_folder_are_done_into_files(panel: Any, module: Any, tmp_path: Path) -> None:
    folder(chosen(panel, module), scan("T2 other"))
    select(panel, "Study (2)")
    put(panel.ui.manyFolderEdit, "currentPath", str(tmp_path / "out"))
    panel.ui.manyButton.click()
    ended(panel)
    assert got(panel.ui.statusLabel, "text") == "2 of 2 volumes done"
    assert len(list((tmp_path / "out").glob("*.nrrd"))) == 2
    panel.ui.manyButton.click()
    ended(panel)
    assert panel.ui.logText.toPlainText().count("was there already") == 2


def test_a_bad_volume_of_a_folder_is_reported_and_the_rest_is_done(panel: Any, module: Any, monkeypatch: Any) -> None:
    bad = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T2 bad")
    item = folder(chosen(panel, module), bad, scan("T2 other"))
    lines = said(panel, monkeypatch)
    select(panel, "Study (3)")
    panel.ui.manyButton.click()
    assert got(panel.ui.applyButton, "text") == "Cancel" and not got(panel.ui.manyButton, "enabled")
    assert not hidden(panel.ui.progressBar) and got(panel.ui.progressBar, "maximum") == 3
    ended(panel)
    text = got(panel.ui.statusLabel, "text")
    assert text.startswith("2 of 3 volumes done, 1 could not be: T2 bad has no voxels")
    assert any(line.startswith("0 of 3 volumes done; T2 thick") for line in lines)
    assert any(line.startswith("2 of 3 volumes done; T2 other, super-resolving") for line in lines)
    log = panel.ui.logText.toPlainText()
    assert "T2 thick: done" in log and "T2 bad: T2 bad has no voxels" in log and "T2 other: done" in log
    assert not got(panel.ui.logCollapsibleButton, "collapsed")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    made = [n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if n.GetName().endswith("(bspline)")]
    assert [node.GetName() for node in made] == ["T2 thick SR x2 (bspline)", "T2 other SR x2 (bspline)"]
    assert {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in made} == {item}
    assert got(panel.ui.manySelector, "currentText") == "Study (3)", "results must not be super-resolved again"


def test_all_frames_of_a_sequence_are_done_into_a_sequence(panel: Any, module: Any, monkeypatch: Any) -> None:
    node = chosen(panel, module)
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "T2 series")
    sequence.SetIndexName("time")
    for value in ("0", "1.5", "3"):
        slicer.util.arrayFromVolume(node)[:] += 1
        sequence.SetDataNodeAtValue(node, value)
    lines = said(panel, monkeypatch)
    select(panel, "T2 series (3)")
    panel.ui.manyButton.click()
    ended(panel)
    assert got(panel.ui.statusLabel, "text") == "3 of 3 volumes done"
    assert any(line.startswith("1 of 3 volumes done; T2 series 2") for line in lines)
    made = slicer.util.getFirstNodeByClassByName("vtkMRMLSequenceNode", "T2 series SR (bspline)")
    assert [made.GetNthIndexValue(n) for n in range(made.GetNumberOfDataNodes())] == ["0", "1.5", "3"]
    means = [slicer.util.arrayFromVolume(made.GetNthDataNode(n)).mean() for n in range(3)]
    np.testing.assert_allclose(np.diff(means), 1, atol=1e-3)
    assert made.GetNthDataNode(0).GetImageData().GetDimensions() == (20, 24, 20)
    left = {n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if n.GetHideFromEditors()}
    assert not left, "frames are taken out of the scene again"
    browser = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")[0]
    assert browser.IsSynchronizedSequenceNodeID(made.GetID(), True)
    assert panel.ui.manySelector.findText("T2 series SR (bspline) (3)") < 0, "a result is no input of the next run"


def test_cancel_stops_many_volumes_and_keeps_what_is_done(panel: Any, module: Any) -> None:
    folder(chosen(panel, module), *(scan(f"T2 {number}") for number in range(4)))
    select(panel, "Study (5)")
    panel.ui.manyButton.click()
    application.until(lambda: len(panel.work.run.results) == 1, 60, "the end of the first volume")
    panel.ui.applyButton.click()
    ended(panel, 60)
    text = got(panel.ui.statusLabel, "text")
    assert text == "1 of 5 volumes done, then cancelled" and tip(panel)[0]
    names = [n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if "bspline" in n.GetName()]
    assert names == ["T2 thick SR x2 (bspline)"]
    assert not list(Path(slicer.app.temporaryPath).glob("MRSuperRes-*"))


def test_closing_the_scene_ends_many_volumes_too(panel: Any, module: Any) -> None:
    folder(chosen(panel, module), scan("T2 other"))
    select(panel, "Study (2)")
    panel.ui.manyButton.click()
    run = panel.work.run
    slicer.mrmlScene.Clear()
    assert panel.work.run is None
    application.until(lambda: not run.isRunning, 5, "the end of the worker")
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    assert hidden(panel.ui.statusLabel) and hidden(panel.ui.progressBar), "nothing is said about what is gone"


def test_many_volumes_outside_of_the_card_are_warned_about_first(panel: Any, module: Any, monkeypatch: Any) -> None:
    asked: list[str] = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **_: asked.append(text))
    one = translator(
        id="x", title="x", task="super-resolve", plane="through-plane", contrasts=("T2w",), requirements=Requirements()
    )
    monkeypatch.setattr(panel.logic, "models", lambda: [one])
    monkeypatch.setattr(panel.logic, "estimate", lambda *_, **__: None)
    folder(chosen(panel, module, model="x"), scan("FLAIR 1"), scan("T2 other"))
    select(panel, "Study (3)")
    panel.ui.manyButton.click()
    assert panel.work.run is None and "FLAIR 1: trained on T2w, this scan is FLAIR" in asked[0]
