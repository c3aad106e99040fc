"""Comparing in the panel: layouts, layers, maps and samples."""

from __future__ import annotations

import types
from typing import Any

import pytest

slicer = pytest.importorskip("slicer", reason="the panel needs slicer-core")
pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")

import vtk  # noqa: E402
from panel.kit import applied, chosen, got, hidden, pick, put, scan, support  # noqa: E402


def _noting(names: list[str]) -> Any:
    """An observer that notes the classes of the nodes it is told of."""

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def note(caller: Any, event: str, node: Any) -> None:
        names.append(node.GetClassName())

    return note


def test_compare_lays_out_linked_views_and_goes_back(panel: Any, module: Any) -> None:
    node = chosen(panel, module)
    result, error = scan("result", (20, 24, 20), (1, 1, 2)), scan("error")
    panel._parameterNode.parameterNode.SetNodeReferenceID(support("parameters").RESULT_ROLE, result.GetID())
    support("scene").attach(result, "errorMap", [error])
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
    assert added.index("vtkMRMLColorLegendDisplayNode") > added.index("vtkMRMLSliceNode"), (
        "views show younger legends only"
    )
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
    chosen(panel, module)
    mean, first, second = scan("mean"), scan("first"), scan("second")
    panel._parameterNode.parameterNode.SetNodeReferenceID(support("parameters").RESULT_ROLE, mean.GetID())
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
    assert hidden(panel.ui.mapSelector), "one map leaves no choice"
    parameters.truthVolume = scan("FLAIR truth")
    applied(panel)
    panel.ui.compareButton.click()
    assert not hidden(panel.ui.mapSelector) and not hidden(panel.ui.mapLabel)
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
