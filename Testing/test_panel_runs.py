"""Runs from the panel with the real worker: progress, results, errors, cancelling, closing, saving and restoring."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="the panel needs slicer-core")
pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")

import vtk  # noqa: E402
from panel import application  # noqa: E402
from panel.kit import applied, chosen, ended, got, hidden, made, scan, support, tip  # noqa: E402

from MRSuperResLib.errors import UnsuitableVolume  # noqa: E402


def test_apply_becomes_cancel_and_then_there_is_a_result(panel: Any, module: Any) -> None:
    node = chosen(panel, module, makeConsistencyMap=True)
    before = slicer.util.arrayFromVolume(node).copy()
    panel._parameterNode.truthVolume = scan("truth", (20, 24, 20), (1, 1, 2))
    panel.ui.applyButton.click()
    assert got(panel.ui.applyButton, "text") == "Cancel" and got(panel.ui.applyButton, "enabled")
    assert not hidden(panel.ui.progressBar) and not got(panel.ui.inputsPart, "enabled")
    ended(panel)
    parameters = panel._parameterNode
    assert parameters.outputVolume is not None, got(panel.ui.statusLabel, "text")
    assert parameters.outputVolume.GetImageData().GetDimensions() == (20, 24, 20)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), before)
    assert got(panel.ui.applyButton, "text") == "Apply" and hidden(panel.ui.progressBar)
    assert panel.ui.metricsTable.item(0, 0).text() == "PSNR (dB, higher is better)"
    assert float(panel.ui.metricsTable.item(0, 1).text()) > 0
    error, consistency = parameters.errorMap.GetDisplayNode(), parameters.consistencyMap.GetDisplayNode()
    assert error.GetWindowLevelMin() == 0
    assert consistency.GetWindowLevelMin() == pytest.approx(-consistency.GetWindowLevelMax())
    assert got(panel.ui.compareButton, "enabled")
    made = parameters.outputVolume
    parameters.model = "linear"
    assert parameters.outputVolume is None and parameters.errorMap is None, "the next run would overwrite the result"
    assert slicer.mrmlScene.IsNodePresent(made) and got(panel.ui.compareButton, "enabled")


def test_cancel_leaves_no_node(panel: Any, module: Any) -> None:
    chosen(panel, module)
    count = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    panel.ui.applyButton.click()
    panel.ui.applyButton.click()
    assert not got(panel.ui.applyButton, "enabled")
    ended(panel, 5)
    assert got(panel.ui.statusLabel, "text") == "Cancelled. Nothing was changed."
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == count
    assert tip(panel)[0]


def test_an_error_of_the_worker_is_shown(panel: Any, module: Any, monkeypatch: Any) -> None:
    shown: list[str] = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: shown.append(text))
    node = chosen(panel, module)
    truth = scan("truth")
    truth.SetOrigin(node.GetOrigin()[0] + 900, 0, 0)
    panel._parameterNode.truthVolume = truth
    panel.ui.applyButton.click()
    ended(panel)
    assert shown and "ground truth does not lie" in shown[0] == got(panel.ui.statusLabel, "text")
    assert "ground truth does not lie" in panel.ui.logText.toPlainText()


def test_apply_pressed_again_while_installing_starts_nothing(panel: Any, module: Any, monkeypatch: Any) -> None:
    started: list[Any] = []

    def install(request: Any, **_: Any) -> None:
        started.append(request)
        panel.ui.applyButton.click()
        panel.ui.manyButton.click()
        raise UnsuitableVolume("declined")

    chosen(panel, module)
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: None)
    monkeypatch.setattr(panel.logic, "start", install)
    panel.ui.applyButton.click()
    assert len(started) == 1 and tip(panel)[0]


def test_what_keeps_a_run_from_starting_is_shown(panel: Any, module: Any, monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise UnsuitableVolume("too small by far")

    chosen(panel, module)
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: None)
    monkeypatch.setattr(panel.logic, "start", refuse)
    panel.ui.applyButton.click()
    assert got(panel.ui.statusLabel, "text") == "too small by far"
    assert tip(panel)[0] and panel.work.run is None


def test_closing_the_scene_ends_the_run_and_the_panel_lives(panel: Any, module: Any) -> None:
    chosen(panel, module)
    panel.ui.applyButton.click()
    run = panel.work.run
    slicer.mrmlScene.Clear()
    assert panel.work.run is None
    application.until(lambda: not run.isRunning, 5, "the end of the worker")
    slicer.app.processEvents()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    assert tip(panel) == (False, "Select the volume to work on.")
    chosen(panel, module)
    assert tip(panel)[0]


def test_deleting_the_input_is_noticed(panel: Any, module: Any) -> None:
    node = chosen(panel, module)
    slicer.mrmlScene.RemoveNode(node)
    assert tip(panel) == (False, "Select the volume to work on.")


def test_choices_and_results_come_back_with_a_saved_scene(panel: Any, module: Any, tmp_path: Path) -> None:
    """Its volumes come one by one: the list of inputs would take the first of them if it were let."""
    scan("T1 other")
    node = chosen(panel, module, factor=3.0, seed=7, precision=support("parameters").Precision.FP32)
    parameters, result = panel._parameterNode, made(node)
    support("scene").record(result, "result", node, metrics={"psnr": 30.0})
    parameters.contrast = support("parameters").Contrast.FLAIR
    parameters.outputVolume = result
    parameters.madeFrom, parameters.madeFor = node, panel.outputs.subject()
    parameters.parameterNode.SetNodeReferenceID(support("parameters").RESULT_ROLE, result.GetID())
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    assert slicer.mrmlScene.Commit()
    slicer.mrmlScene.Connect()
    found = panel._parameterNode
    assert (found.factor, found.seed, found.precision) == (3.0, 7, support("parameters").Precision.FP32)
    assert found.contrast is support("parameters").Contrast.FLAIR
    assert found.inputVolume is not node and slicer.mrmlScene.IsNodePresent(found.inputVolume)
    assert (found.inputVolume.GetName(), found.outputVolume.GetName()) == ("T2 thick", "result")
    assert panel.results.result() is found.outputVolume
    assert panel.ui.metricsTable.item(0, 1).text() == "30.00"
    found.inputVolume = slicer.util.getFirstNodeByClassByName("vtkMRMLScalarVolumeNode", "T1 other")
    assert got(panel.ui.inputSelector, "currentText") == "T1 other", "the lists are bound again"


def test_a_scene_loaded_beside_others_volumes_keeps_its_choices(translating: Any, module: Any, tmp_path: Path) -> None:
    """Its nodes get other IDs then."""
    panel, mrml = translating, slicer.mrmlScene
    panel._parameterNode.contrast = support("parameters").Contrast.T1W
    applied(panel)
    mrml.SetURL(str(tmp_path / "scene.mrml"))
    assert mrml.Commit()
    mrml.Clear()
    panel._parameterNode.inputVolume = scan("FLAIR there")
    scan("T1 there")
    mrml.Import()
    found = panel._parameterNode
    assert (found.inputVolume.GetName(), found.contrast) == ("T2 thick", support("parameters").Contrast.T1W)
    assert found.outputVolume.GetName() == "T2 thick as FLAIR (mt-test)" and len(panel.results.samples()) == 3


def test_quitting_waits_for_the_worker_and_leaves_no_file(panel: Any, module: Any) -> None:
    """Called when Slicer quits or the module is reloaded: no event loop comes after it."""
    chosen(panel, module)
    panel.ui.applyButton.click()
    run = panel.work.run
    panel.cleanup()
    assert not run.isRunning and run.error.code == "cancelled"
    assert not list(Path(slicer.app.temporaryPath).glob("MRSuperRes-*"))
    panel.setup()


def test_the_parameter_node_is_wrapped_once(panel: Any) -> None:
    """Each wrapper observes the node as long as the node lives: one for each visit of the module would slow it down."""
    before = panel._parameterNode
    panel.enter()
    assert panel._parameterNode is before


def test_a_sample_needs_no_network(panel: Any, module: Any) -> None:
    from MRSuperResSupport import samples

    samples.register()
    source = slicer.modules.sampleDataSources[samples.CATEGORY][0]
    thick, truth = source.customDownloader(source)
    assert "no download" in source.sampleName
    assert thick.GetSpacing()[2] == pytest.approx(samples.THICKNESS * truth.GetSpacing()[2])
    first, second = [0.0] * 6, [0.0] * 6
    thick.GetRASBounds(first)
    truth.GetRASBounds(second)
    np.testing.assert_allclose(first, second, atol=1e-4)
    assert panel.logic.guessContrast(thick) == "T1w"
    offered = [entry.card.id for entry in panel.logic.suitable(thick, "through-plane", "T1w")[0]]
    assert "rdst-e-through-x4" in offered


def test_a_sample_that_cannot_be_downloaded_is_told_in_the_panel_it_was_asked_for_in(
    module: Any, monkeypatch: Any
) -> None:
    from MRSuperResSupport import samples

    asked: list[Any] = []
    logic = types.SimpleNamespace(downloadFromSource=lambda source: asked.append(source) or [])
    monkeypatch.setattr(slicer.modules, "SampleDataWidget", types.SimpleNamespace(logic=logic), raising=False)
    assert samples.load("a source") == [] and asked == ["a source"]


def test_the_first_input_is_one_that_the_list_shows(panel: Any) -> None:
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "colours")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    node = scan()
    panel._parameterNode.inputVolume = None
    panel.initializeParameterNode()
    assert panel._parameterNode.inputVolume is node


def test_voxels_that_come_after_the_volume_are_noticed(panel: Any) -> None:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T1 new")
    panel._parameterNode.inputVolume = node
    assert "no voxels" in tip(panel)[1]
    slicer.util.updateVolumeFromArray(node, np.random.default_rng(0).random((10, 24, 20), np.float32))
    assert hidden(panel.ui.refusalLabel) and "voxels of" in got(panel.ui.estimateLabel, "text")
    node.SetSpacing(2, 2, 2)
    assert "2 × 2 ×" in got(panel.ui.estimateLabel, "text")
    panel.exit()
    assert not panel.hasObserver(node, vtk.vtkCommand.ModifiedEvent, panel.refresh)


def test_a_second_panel_after_a_reload_works(panel: Any, slicerApp: Any) -> None:
    panel.cleanup()
    module = application.load()
    second = module.MRSuperResWidget()
    second.setup()
    chosen(second, module)
    assert tip(second)[0]
    second.cleanup()
    panel.setup()
