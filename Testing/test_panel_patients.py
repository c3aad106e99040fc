"""Results, maps, scores, references and words belong to the scan they were made from, and are shown with nothing else."""

from __future__ import annotations

from typing import Any

import pytest

slicer = pytest.importorskip("slicer", reason="the panel needs slicer-core")
pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")

from panel import application  # noqa: E402
from panel.kit import applied, chosen, ended, got, hidden, made, scan, support, tip  # noqa: E402


def patient_a(panel: Any, module: Any) -> tuple[Any, Any]:
    """A scan with a truth, and the result of a run on it that has an error map and scores."""
    node = chosen(panel, module)
    panel._parameterNode.truthVolume = scan("A truth", (20, 24, 20), (1, 1, 2))
    return node, applied(panel)


@pytest.mark.parametrize("change", [{"model": "linear"}, {"factor": 3.0}, {"task": "IN_PLANE"}, {}], ids=str)
def test_another_patient_is_not_shown_beside_the_former_ones_result(panel: Any, module: Any, change: Any) -> None:
    node, result = patient_a(panel, module)
    panel.ui.compareButton.click()
    for name, value in change.items():
        setattr(panel._parameterNode, name, module.Task[value] if name == "task" else value)
    panel._parameterNode.inputVolume = scan("T1 of B")
    assert not got(panel.ui.compareButton, "enabled") and panel.results.result() is None
    assert hidden(panel.ui.metricsTable), "scores of A beside the name of B"
    assert panel._parameterNode.truthVolume is None
    assert got(panel.ui.statusLabel, "text") == "" == panel.ui.logText.toPlainText()
    assert panel._parameterNode.outputVolume is None and panel._parameterNode.errorMap is None
    layout = slicer.app.layoutManager().layoutLogic().GetLayoutNode().GetViewArrangement()
    assert layout not in support("compare").LAYOUTS.values(), "the comparison of A stays beside the panel of B"
    panel._parameterNode.inputVolume = node
    assert panel.results.result() is result and not hidden(panel.ui.metricsTable)
    panel.ui.compareButton.click()
    views = support("compare").VIEWS
    assert support("compare").compositeNode(views[0]).GetBackgroundVolumeID() == node.GetID()
    assert support("compare").compositeNode(views[1]).GetForegroundVolumeID() == result.GetID()
    panel.ui.restoreLayoutButton.click()


def test_the_reference_of_the_former_patient_goes_with_the_patient(panel: Any, module: Any) -> None:
    node = chosen(panel, module, task=module.Task.GUIDED)
    reference = scan("T1 sharp")
    reference.SetOrigin(*node.GetOrigin())
    panel._parameterNode.referenceVolume = reference
    panel.ui.overlapButton.click()
    assert "100%" in got(panel.ui.overlapLabel, "text")
    panel._parameterNode.inputVolume = scan("T2 of B")
    assert panel._parameterNode.referenceVolume is None
    assert got(panel.ui.overlapLabel, "text") == "" and hidden(panel.ui.overlapLabel)
    panel._parameterNode.task = module.Task.GUIDED
    assert tip(panel)[1] == "Select the sharp reference scan of the same patient." or not panel.inputs.offered


def test_no_name_of_a_patient_outlives_the_scene(panel: Any, module: Any) -> None:
    patient_a(panel, module)
    assert "T2 thick" in got(panel.ui.statusLabel, "text")
    slicer.mrmlScene.Clear()
    assert got(panel.ui.statusLabel, "text") == "" == panel.ui.logText.toPlainText()


def test_what_a_run_made_belongs_to_its_own_input_even_if_another_is_chosen_meanwhile(panel: Any, module: Any) -> None:
    node, other = chosen(panel, module), scan("T1 of B")
    panel.ui.applyButton.click()
    panel._parameterNode.inputVolume = other
    ended(panel)
    assert panel._parameterNode.outputVolume is None and panel.results.result() is None
    (result,) = support("scene").resultsOf(node)
    assert support("scene").sourceOf(result) is node
    panel._parameterNode.inputVolume = node
    assert panel.results.result() is result


def test_deleting_the_input_stops_the_run_at_once_and_says_why(panel: Any, module: Any, monkeypatch: Any) -> None:
    boxes: list[str] = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: boxes.append(text))
    node = chosen(panel, module)
    panel.ui.applyButton.click()
    run = panel.work.run
    slicer.mrmlScene.RemoveNode(node)
    application.until(lambda: not run.isRunning, 3, "the end of the worker")
    assert run.error.code == "gone"
    assert got(panel.ui.statusLabel, "text") == "T2 thick was removed from the scene: stopped." and not boxes
    assert not slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")


def test_maps_and_samples_are_not_offered_as_inputs_and_results_are(panel: Any, module: Any) -> None:
    node = chosen(panel, module)
    made(node, name="T2 fine", errorMap=scan("T2 fine error"))
    panel.refresh()
    for box in (panel.ui.inputSelector, panel.ui.referenceSelector, panel.ui.truthSelector):
        names = [box.itemText(number) for number in range(got(box, "count"))]
        assert "T2 fine" in names and "T2 fine error" not in names


# Which volume is the input, if nobody has chosen one


def test_the_volume_in_the_slice_views_is_the_input(panel: Any) -> None:
    panel.exit()
    first, truth = scan("T1 thick"), scan("T1 truth")
    slicer.util.setSliceViewerLayers(background=first)
    panel.enter()
    assert panel._parameterNode.inputVolume is first and truth is not first


def test_without_views_the_volume_loaded_last_is_the_input_and_no_result_is(panel: Any) -> None:
    panel.exit()
    slicer.util.setSliceViewerLayers(background=None)
    scan("T1 a")
    node = scan("T1 b")
    made(node)
    panel.enter()
    assert panel._parameterNode.inputVolume is node


def test_a_volume_that_is_loaded_becomes_the_input_until_one_is_chosen(panel: Any, module: Any) -> None:
    scan("T1 a")
    slicer.app.processEvents()
    second = scan("T1 b")
    application.until(lambda: panel._parameterNode.inputVolume is second, 2, "the choice of the newest")
    box = panel.ui.inputSelector
    box.setProperty("currentIndex", box.findText("T1 a"))
    box.activated.emit(box.findText("T1 a"))
    scan("T1 c")
    slicer.app.processEvents()
    assert panel._parameterNode.inputVolume.GetName() == "T1 a", "the user's choice stays"


def test_the_samples_thick_volume_is_the_input(panel: Any) -> None:
    samples = support("samples")
    samples.register()
    source = slicer.modules.sampleDataSources[samples.CATEGORY][0]
    thick, _truth = source.customDownloader(source)
    application.until(lambda: panel._parameterNode.inputVolume is thick, 2, "the choice of the thick volume")
