"""Comparing in the panel: layouts, layers, maps and samples."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="the panel needs slicer-core")
pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")

import vtk  # noqa: E402
from panel.kit import applied, chosen, got, hidden, made, pick, put, scan, support  # noqa: E402


def _noting(names: list[str]) -> Any:
    """An observer that notes the classes of the nodes it is told of."""

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def note(caller: Any, event: str, node: Any) -> None:
        names.append(node.GetClassName())

    return note


def test_compare_lays_out_linked_views_and_goes_back(panel: Any, module: Any) -> None:
    node = chosen(panel, module)
    error = scan("error")
    result = made(node, errorMap=error)
    panel.refresh()
    support("scene").colourMap(error)
    layout = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    layout.SetViewArrangement(layout.SlicerLayoutFourUpView)
    layout.AddMaximizedViewNode(slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode())
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    crosshair.SetCrosshairMode(crosshair.NoCrosshair)
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevel(80, 40)
    added: list[str] = []
    tag = slicer.mrmlScene.AddObserver(slicer.mrmlScene.NodeAddedEvent, _noting(added))
    panel.ui.compareButton.click()
    panel.ui.compareButton.click()
    slicer.mrmlScene.RemoveObserver(tag)
    assert layout.GetNumberOfMaximizedViewNodes() == 0, "it would be all there is to see"
    names = list(support("compare").VIEWS)
    legends = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
    assert len(legends) == 1 and legends[0].GetPrimaryDisplayNode() is error.GetDisplayNode()
    after = added[added.index("vtkMRMLColorLegendDisplayNode") :]
    assert "vtkMRMLSliceNode" not in after, "views show younger legends only"
    assert slicer.app.layoutManager().sliceViewNames() == names
    composites = [support("compare").compositeNode(name) for name in names]
    slices = [support("compare").sliceNode(name) for name in names]
    assert [c.GetBackgroundVolumeID() for c in composites] == [node.GetID(), node.GetID(), error.GetID()]
    assert composites[1].GetForegroundVolumeID() == result.GetID() and composites[1].GetForegroundOpacity() == 1
    assert all(c.GetLinkedControl() for c in composites) and len({s.GetViewGroup() for s in slices}) == 1
    assert {s.GetOrientation() for s in slices} == {"Sagittal"}
    assert len({s.GetFieldOfView() for s in slices}) == 1
    assert len({round(s.GetSliceOffset(), 6) for s in slices}) == 1
    assert crosshair.GetCrosshairMode() == crosshair.ShowBasic
    assert (result.GetDisplayNode().GetWindow(), result.GetDisplayNode().GetLevel()) == (80, 40)
    result.GetDisplayNode().SetWindowLevel(50, 30)
    assert (node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel()) == (50, 30)
    put(panel.ui.blendSlider, "value", 0.25)
    assert composites[1].GetForegroundOpacity() == 0.25
    panel.results.onFlicker()
    assert composites[1].GetForegroundOpacity() == 1.0
    panel.results.onFlicker()
    assert composites[1].GetForegroundOpacity() == 0.0
    assert "black is zero" in got(panel.ui.legendLabel, "text")
    panel.ui.restoreLayoutButton.click()
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView
    assert crosshair.GetCrosshairMode() == crosshair.NoCrosshair


def test_a_scene_saved_while_comparing_opens_with_views_and_a_way_back(panel: Any, module: Any, slicerApp: Any) -> None:
    layout = slicerApp.layoutManager().layoutLogic().GetLayoutNode()
    layout.SetViewArrangement(layout.SlicerLayoutConventionalView)
    for number in support("compare").LAYOUTS.values():
        layout.SetLayoutDescription(number, "")  # as in an application that has not compared yet
    module.MRSuperRes(types.SimpleNamespace())
    signal, receiver = slicerApp.connected[-1]
    assert signal == "startupCompleted()"
    receiver()
    assert all(layout.IsLayoutDescription(number) for number in support("compare").LAYOUTS.values())
    layout.SetViewArrangement(support("compare").LAYOUTS[2])  # what reading the scene does
    panel.refresh()
    assert slicerApp.layoutManager().sliceViewNames() == list(support("compare").VIEWS[:2])
    assert got(panel.ui.restoreLayoutButton, "enabled")
    panel.ui.restoreLayoutButton.click()
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView


def test_the_slider_goes_through_the_samples(panel: Any, module: Any) -> None:
    mean, first, second = made(chosen(panel, module)), scan("first"), scan("second")
    support("scene").attach(mean, "sample", [first, second])
    panel.refresh()
    assert not hidden(panel.ui.sampleRow)
    panel.ui.compareButton.click()
    view = support("compare").compositeNode(support("compare").VIEWS[1])
    put(panel.ui.sampleSlider, "value", 2.0)
    assert view.GetForegroundVolumeID() == second.GetID()
    put(panel.ui.sampleSlider, "value", 0.0)
    assert view.GetForegroundVolumeID() == mean.GetID()


def test_running_again_while_comparing_keeps_the_inputs_window(translating: Any) -> None:
    panel = translating
    result = applied(panel)
    panel.ui.compareButton.click()
    display = panel._parameterNode.inputVolume.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevel(40, 20)
    assert applied(panel) is result
    assert (display.GetWindow(), display.GetLevel()) == (40, 20)
    assert result.GetDisplayNode().GetWindow() == 40
    panel.ui.restoreLayoutButton.click()


def test_the_slider_says_which_answer_is_shown(translating: Any, module: Any) -> None:
    panel, slider = translating, translating.ui.sampleSlider
    mean = applied(panel)
    red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    put(slider, "value", 3.0)
    slicer.mrmlScene.RemoveNode(panel.results.samples()[2])
    assert (got(slider, "value"), red.GetBackgroundVolumeID()) == (0, mean.GetID())
    panel.ui.compareButton.click()
    put(slider, "value", 2.0)
    panel.ui.compareButton.click()
    view = support("compare").compositeNode(support("compare").VIEWS[1])
    assert (got(slider, "value"), view.GetForegroundVolumeID()) == (0, mean.GetID())
    put(slider, "value", 2.0)
    applied(panel)
    assert got(slider, "value") == 0 and got(panel.ui.statusLabel, "text").startswith("Done in")
    panel.ui.restoreLayoutButton.click()


def test_each_of_several_maps_can_be_compared(translating: Any, module: Any) -> None:
    panel, parameters = translating, translating._parameterNode
    applied(panel)
    assert hidden(panel.ui.mapRow), "one map leaves no choice"
    parameters.truthVolume = scan("FLAIR truth")
    applied(panel)
    panel.ui.compareButton.click()
    assert not hidden(panel.ui.mapRow)
    view = support("compare").compositeNode(support("compare").VIEWS[2])
    assert view.GetBackgroundVolumeID() == parameters.errorMap.GetID()
    assert "deviation" not in got(panel.ui.legendLabel, "text")
    pick(panel.ui.mapSelector, "uncertainty")
    assert view.GetBackgroundVolumeID() == parameters.uncertaintyMap.GetID()
    assert "uncertainty: black is zero" in got(panel.ui.legendLabel, "text")
    assert "One standard deviation, in the input's units." in got(panel.ui.legendLabel, "text")
    panel.ui.compareButton.click()
    assert view.GetBackgroundVolumeID() == parameters.uncertaintyMap.GetID(), "the choice stays"
    panel.ui.restoreLayoutButton.click()


def compared(panel: Any, module: Any) -> tuple[Any, Any, Any, Any]:
    """Input, result and its two maps, compared; the consistency map is not the first in the list."""
    node = chosen(panel, module)
    maps = {name: scan(f"T2 thick SR {name}") for name in ("errorMap", "consistencyMap")}
    for name, shown in maps.items():
        support("scene").colourMap(shown, signed=name == "consistencyMap")
    result = made(node, **maps)
    panel.refresh()
    panel.ui.compareButton.click()
    return node, result, *maps.values()


def test_another_map_leaves_the_result_in_the_view_called_result(panel: Any, module: Any) -> None:
    """Slicer's hot link hands the opacity of any view that changes to all others, with its own logic, here as there."""
    node, result, error, consistency = compared(panel, module)
    compare = support("compare")
    view = compare.compositeNode(compare.VIEWS[1])
    box = panel.ui.mapSelector
    assert [box.itemText(number) for number in range(got(box, "count"))] == ["Error", "Consistency"], "in full width"
    for word, shown in (("Consistency", consistency), ("Error", error), ("Consistency", consistency)):
        pick(box, word)
        assert compare.compositeNode(compare.VIEWS[2]).GetBackgroundVolumeID() == shown.GetID()
        assert view.GetForegroundVolumeID() == result.GetID()
        assert view.GetForegroundOpacity() == got(panel.ui.blendSlider, "value") == 1.0
    labels = [compare.sliceNode(name).GetLayoutLabel() for name in compare.VIEWS]
    assert labels == ["Input", "Result", "Consistency"]
    assert node.GetDisplayNode().GetInterpolate() and result.GetDisplayNode().GetInterpolate(), "smooth as they were"
    assert not consistency.GetDisplayNode().GetInterpolate(), "the map's voxels are seen as they are"
    put(panel.ui.blendSlider, "value", 0.25)
    assert compare.sliceNode(compare.VIEWS[1]).GetLayoutLabel() == "Result 25%"
    put(panel.ui.blendSlider, "value", 0.0)
    assert compare.sliceNode(compare.VIEWS[1]).GetLayoutLabel() == "Input", "the label says what is drawn"
    put(panel.ui.blendSlider, "value", 1.0)
    compare.compositeNode(compare.VIEWS[0]).SetForegroundOpacity(0.4)  # the slider of the first view's own controller
    assert view.GetForegroundOpacity() == 1.0
    panel.ui.restoreLayoutButton.click()


def test_the_views_of_a_comparison_move_together(panel: Any, module: Any) -> None:
    compared(panel, module)
    compare = support("compare")
    first, second = (slicer.app.layoutManager().sliceWidget(name) for name in compare.VIEWS[:2])
    logic, node = first.sliceLogic(), first.mrmlSliceNode()
    logic.StartSliceNodeInteraction(node.SliceToRASFlag)
    logic.SetSliceOffset(node.GetSliceOffset() + 2.0)
    logic.EndSliceNodeInteraction()
    assert second.mrmlSliceNode().GetSliceOffset() == pytest.approx(node.GetSliceOffset())
    where = second.mrmlSliceNode().GetSliceOffset(), second.mrmlSliceNode().GetFieldOfView()
    pick(panel.ui.mapSelector, "Consistency")
    assert (second.mrmlSliceNode().GetSliceOffset(), second.mrmlSliceNode().GetFieldOfView()) == where
    panel.ui.restoreLayoutButton.click()


def test_three_views_fit_a_small_screen(panel: Any, module: Any) -> None:
    compared(panel, module)
    manager = slicer.app.layoutManager()
    least = sum(
        max(controller.property("minimumWidth"), 0) or controller.minimumSizeHint().width()
        for controller in (manager.sliceWidget(name).sliceController() for name in support("compare").VIEWS)
    )
    assert least <= 640, "with the panel's 400 pixels it is a window of 1,040"
    panel.ui.restoreLayoutButton.click()


def test_leaving_by_slicers_layout_menu_takes_crosshair_and_linked_windows_away(panel: Any, module: Any) -> None:
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    crosshair.SetCrosshairMode(crosshair.NoCrosshair)
    node, result, error, _consistency = compared(panel, module)
    put(panel.ui.flickerButton, "checked", True)
    layout = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    layout.SetViewArrangement(layout.SlicerLayoutConventionalView)
    assert crosshair.GetCrosshairMode() == crosshair.NoCrosshair
    result.GetDisplayNode().AutoWindowLevelOff()
    before = node.GetDisplayNode().GetWindow()
    result.GetDisplayNode().SetWindowLevel(before + 50, 30)
    assert node.GetDisplayNode().GetWindow() == before, "windows are not linked any more"
    assert not got(panel.ui.flickerButton, "checked") and not got(panel.ui.restoreLayoutButton, "enabled")
    assert layout.GetViewArrangement() == layout.SlicerLayoutConventionalView, "the user's choice stays"
    shown = {
        identity
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        for identity in (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID())
    }
    assert error.GetID() not in shown, "an open eye in the Data module's tree for what nobody sees"


@pytest.mark.parametrize("top", [0.123456789, 1234.56789, 98765.4321, 3.1e-7], ids=str)
def test_a_legend_begins_at_zero_also_after_saving(module: Any, top: float, tmp_path: Any) -> None:
    """Scenes keep window and level as text with six digits: zero must come back as zero, not as -5e-05."""
    node = scan("error")
    slicer.util.arrayFromVolume(node)[:] = np.linspace(0, top, 4800).reshape(10, 24, 20)
    support("scene").colourMap(node)
    for name in ("Window", "Level"):
        value = getattr(node.GetDisplayNode(), f"Get{name}")()
        getattr(node.GetDisplayNode(), f"Set{name}")(float(f"{value:.6g}"))
    assert node.GetDisplayNode().GetWindowLevelMin() == 0.0
    assert top * 0.99 <= node.GetDisplayNode().GetWindowLevelMax() <= top * 1.25


def test_maps_get_slicers_own_colours_with_zero_where_it_belongs(module: Any) -> None:
    """Inferno and the diverging blue to red are Slicer's tables whose equal steps look equally large."""
    scene, node = support("scene"), scan("error")
    assert slicer.mrmlScene.GetNodeByID(scene.colourTable(False)).GetName() == "Inferno"
    assert slicer.mrmlScene.GetNodeByID(scene.colourTable(True)).GetName() == "DivergingBlueRed"
    scene.colourMap(node)
    display = node.GetDisplayNode()
    assert (display.GetColorNodeID(), display.GetWindowLevelMin()) == (scene.SEQUENTIAL, 0)
    scene.colourMap(node, signed=True)
    assert display.GetColorNodeID() == scene.DIVERGING
    assert display.GetWindowLevelMin() == -display.GetWindowLevelMax() != 0


def test_the_self_test_passes_here_as_it_does_in_slicer(module: Any, panel: Any, monkeypatch: Any) -> None:
    slicer.modules.MRSuperResWidget = panel
    monkeypatch.setattr(slicer.util, "selectModule", lambda name: None)
    test = module.MRSuperResTest()
    for journey in (test.test_apply, test.test_cancel, test.test_compare, test.test_many):
        test.setUp()
        journey()
    assert slicer.app.messages == ["Apply", "Cancel", "Compare", "Many volumes"]
