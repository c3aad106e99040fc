"""A comparison shows what it compares and says what it shows, whoever else changes its views; outside of it nothing stays."""

from __future__ import annotations

from typing import Any

import pytest

slicer = pytest.importorskip("slicer", reason="the panel needs slicer-core")
pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")

from panel.kit import chosen, got, made, put, scan, support  # noqa: E402


def _views() -> list[Any]:
    compare = support("compare")
    return [compare.compositeNode(name) for name in compare._comparing()]


def _labels() -> list[str]:
    compare = support("compare")
    return [compare.sliceNode(name).GetLayoutLabel() for name in compare._comparing()]


def _compared(panel: Any, module: Any) -> tuple[Any, Any]:
    node = chosen(panel, module)
    result = made(node, errorMap=scan("error"))
    panel.refresh()
    panel.ui.compareButton.click()
    return node, result


def test_a_volume_that_is_loaded_meanwhile_is_shown_elsewhere(panel: Any, module: Any, slicerApp: Any) -> None:
    """As Slicer's reader does after every load: the application logic's own way to show what is new."""
    _compared(panel, module)
    before = [(view.GetBackgroundVolumeID(), view.GetForegroundVolumeID()) for view in _views()]
    other = scan("T1 of B")
    slicerApp.logic.GetSelectionNode().SetActiveVolumeID(other.GetID())
    slicerApp.logic.PropagateVolumeSelection()
    assert [(view.GetBackgroundVolumeID(), view.GetForegroundVolumeID()) for view in _views()] == before
    users = [view for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode") if view not in _views()]
    assert all(view.GetBackgroundVolumeID() == other.GetID() for view in users)


def test_what_somebody_drags_into_a_view_is_named_there(panel: Any, module: Any) -> None:
    _compared(panel, module)
    assert _labels() == ["Input", "Result", "Error"]
    other = scan("T1 of B")
    _views()[0].SetBackgroundVolumeID(other.GetID())
    assert _labels() == ["T1 of B", "Result", "Error"]
    _views()[1].SetForegroundVolumeID(other.GetID())
    assert _labels()[1] == "T1 of B"


def test_the_views_own_opacity_moves_the_slider_and_the_label(panel: Any, module: Any) -> None:
    _compared(panel, module)
    _views()[1].SetForegroundOpacity(0.0)
    assert _labels()[1] == "Input" and got(panel.ui.blendSlider, "value") == 0.0
    _views()[1].SetForegroundOpacity(0.4)
    assert _labels()[1] == "Result 40%" and got(panel.ui.blendSlider, "value") == pytest.approx(0.4)
    put(panel.ui.blendSlider, "value", 1.0)
    put(panel.ui.flickerButton, "checked", True)
    panel.results.onFlicker()
    assert _labels()[1] == "Input" and got(panel.ui.blendSlider, "value") == 1.0, "flickering is not the user's wish"
    put(panel.ui.flickerButton, "checked", False)
    assert _labels()[1] == "Result"
    panel.ui.restoreLayoutButton.click()
    assert panel.results.comparison._watchedViews == []


@pytest.mark.parametrize("before", [False, True])
def test_hot_links_of_the_users_views_are_as_they_were(panel: Any, module: Any, before: bool) -> None:
    """The controller's button sets all views in the scene once one of them is hot-linked (qMRMLSliceControllerWidget)."""
    node = chosen(panel, module)
    made(node)
    panel.refresh()
    every = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    for view in every:
        view.SetHotLinkedControl(before)
    panel.ui.compareButton.click()
    for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        view.SetHotLinkedControl(True)
    panel.ui.restoreLayoutButton.click()
    names = support("compare").VIEWS
    users = [view for view in every if view.GetLayoutName() not in names]
    assert users and all(bool(view.GetHotLinkedControl()) == before for view in users)


def test_views_that_nobody_sees_stay_empty(panel: Any, module: Any) -> None:
    """What they held would keep its eye open in the Data module's tree, and be taken for what is shown."""
    _, result = _compared(panel, module)
    views = _views()
    panel.ui.restoreLayoutButton.click()
    panel.results.present(result)
    panel._parameterNode.task = module.Task.GUIDED
    reference = scan("T1 sharp")
    panel._parameterNode.referenceVolume = reference
    panel.ui.overlapButton.click()
    users = [view for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode") if view not in views]
    assert all(
        (view.GetForegroundVolumeID(), view.GetForegroundOpacity()) == (reference.GetID(), 0.5) for view in users
    )
    panel.results.present(result)
    assert users and all(view.GetForegroundVolumeID() is None for view in users)
    assert [view.GetBackgroundVolumeID() for view in views] == [None, None, None]
    shown = [view.GetBackgroundVolumeID() for view in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")]
    assert result.GetID() in shown
    assert support("scene").shownVolume() is result


def test_a_comparison_that_a_scene_brought_is_left_for_another_patient(panel: Any, module: Any) -> None:
    node, _ = _compared(panel, module)
    panel.results.comparison.low = panel.results.comparison.result = None  # as after reading a scene that was saved so
    panel._parameterNode.inputVolume = node
    panel.refresh()
    layout = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    assert layout.GetViewArrangement() in support("compare").LAYOUTS.values()
    panel._parameterNode.inputVolume = scan("T1 of B")
    assert layout.GetViewArrangement() not in support("compare").LAYOUTS.values()


def test_the_card_begins_with_why_the_model_was_recommended(panel: Any, module: Any) -> None:
    panel._parameterNode.inputVolume = scan("T1 thick", (10, 24, 20), (1.0, 1.0, 4.0))
    assert panel.inputs.why and got(panel.ui.cardLabel, "text").startswith(panel.inputs.why + "\n\n")
