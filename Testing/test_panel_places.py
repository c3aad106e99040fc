"""What a translation may have lost: a segmentation over the result, a warning in the panel, and the button that goes there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

slicer = pytest.importorskip("slicer", reason="the panel needs slicer-core")
pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")

import vtk  # noqa: E402
from panel.kit import Translates, applied, ended, got, hidden, scalars, scan, support  # noqa: E402


def segmentations() -> list[Any]:
    return list(slicer.util.getNodesByClass("vtkMRMLSegmentationNode"))


def shown(node: Any) -> bool:
    return bool(node.GetDisplayNode().GetVisibility())


def centre(name: str) -> list[float]:
    """RAS of what a slice view shows in its middle."""
    matrix = slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode().GetSliceToRAS()
    return [round(matrix.GetElement(row, 3), 3) for row in range(3)]


def test_places_are_a_segmentation_in_the_study_outlined_over_the_result(translating: Any) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    node = translating._parameterNode.inputVolume
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "visit")
    hierarchy.SetItemParent(hierarchy.CreateItem(study, node), study)
    result = applied(translating)
    assert Translates.jobs[0]["flags"]
    (segmentation,) = segmentations()
    assert segmentation is support("places").segmentationOf(result)
    assert segmentation.GetName() == "T2 thick as FLAIR (mt-test) flags"
    segments, display = segmentation.GetSegmentation(), segmentation.GetDisplayNode()
    assert segments.GetNumberOfSegments() == 2
    first = segments.GetNthSegment(0)
    assert first.GetName().startswith("1: ") and first.GetName().endswith(" ml") and first.GetColor() == (1, 0.55, 0)
    assert "Lesion" in first.GetTerminology() and "Morphologically" in first.GetTerminology()
    assert shown(segmentation) and display.GetVisibility2D() and display.GetVisibility2DOutline()
    assert not display.GetVisibility2DFill(), "outlines hide nothing"
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(segmentation)) == study
    role = segmentation.GetReferenceImageGeometryReferenceRole()
    assert segmentation.GetNodeReference(role) is result
    assert not slicer.util.getNodesByClass("vtkMRMLLabelMapVolumeNode")


def test_the_segments_lie_where_the_scan_shows_them(translating: Any) -> None:
    import numpy as np

    node = translating._parameterNode.inputVolume
    node.SetOrigin(-30.0, 12.0, 5.0)
    applied(translating)
    (segmentation,) = segmentations()
    voxels = slicer.util.arrayFromVolume(node) > 50
    voxels[6:] = False
    identities = vtk.vtkStringArray()
    identities.InsertNextValue(segmentation.GetSegmentation().GetNthSegmentID(0))
    labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    assert logic.ExportSegmentsToLabelmapNode(segmentation, identities, labels, node)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(labels) > 0, voxels)


def test_the_panel_warns_and_goes_to_one_place_after_the_other(translating: Any) -> None:
    panel = translating
    assert hidden(panel.ui.placesRow)
    result = applied(panel)
    places = panel.logic.places(result)
    total = sum(place.volume for place in places) / 1000
    assert [place.number for place in places] == [1, 2] and places[0].volume > places[1].volume
    assert not hidden(panel.ui.placesRow)
    assert got(panel.ui.placesLabel, "text").startswith(f"2 places unlike healthy brain, {total:.2g} ml in all: ")
    for text, place in (("Go to 1 of 2", places[0]), ("Go to 2 of 2", places[1]), ("Go to 1 of 2", places[0])):
        assert got(panel.ui.placesButton, "text") == text
        panel.ui.placesButton.click()
        for name in ("Red", "Yellow", "Green"):
            assert centre(name) == pytest.approx(place.centre, abs=1e-3)
    crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    assert list(crosshair.GetCrosshairRAS()) == pytest.approx(places[0].centre)


def test_the_warning_is_told_once(translating: Any) -> None:
    """The status line leaves to the row below it what that says better."""
    applied(translating)
    assert got(translating.ui.statusLabel, "text") == "Done in 1 s: T2 thick as FLAIR (mt-test)"
    assert "Warning: the scan shows places" in translating.ui.logText.toPlainText()


def test_the_button_goes_there_in_the_comparison_too(translating: Any) -> None:
    panel = translating
    place = panel.logic.places(applied(panel))[0]
    panel.ui.compareButton.click()
    panel.ui.placesButton.click()
    for name in support("compare").VIEWS[:2]:
        assert centre(name) == pytest.approx(place.centre, abs=1e-3)
    panel.ui.restoreLayoutButton.click()


def test_places_under_a_transform_are_gone_to_where_they_are_seen(translating: Any) -> None:
    result = applied(translating)
    before = translating.logic.places(result)[0]
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 7.0)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(matrix)
    segmentations()[0].SetAndObserveTransformNodeID(transform.GetID())
    moved = translating.logic.places(result)[0]
    assert moved.centre == pytest.approx((before.centre[0] + 7.0, *before.centre[1:]))


def test_another_patients_places_are_neither_told_nor_shown(translating: Any) -> None:
    panel, first = translating, translating._parameterNode.inputVolume
    applied(panel)
    (segmentation,) = segmentations()
    panel._parameterNode.inputVolume = scan("T2 of B")
    assert hidden(panel.ui.placesRow) and not shown(segmentation)
    panel._parameterNode.inputVolume = first
    assert not hidden(panel.ui.placesRow) and shown(segmentation)


def test_places_that_the_user_hides_stay_hidden(translating: Any) -> None:
    applied(translating)
    (segmentation,) = segmentations()
    segmentation.GetDisplayNode().SetVisibility(False)
    translating._parameterNode.seed = 12
    assert not shown(segmentation)


def test_a_run_into_the_same_volume_uses_the_same_segmentation(translating: Any, monkeypatch: Any) -> None:
    panel = translating
    applied(panel)
    names, (segmentation,) = scalars(), segmentations()
    applied(panel)
    assert scalars() == names and segmentations() == [segmentation]
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 2
    monkeypatch.setattr(Translates, "loses", False)
    applied(panel)
    assert segmentations() == [] and hidden(panel.ui.placesRow), "nothing is lost, nothing is marked"


def test_deleting_the_segmentation_takes_the_warning_away(translating: Any) -> None:
    applied(translating)
    slicer.mrmlScene.RemoveNode(segmentations()[0])
    assert hidden(translating.ui.placesRow)


def test_places_come_back_with_a_saved_scene(translating: Any, tmp_path: Path) -> None:
    panel = translating
    before = panel.logic.places(applied(panel))
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    assert slicer.mrmlScene.Commit()
    slicer.mrmlScene.Connect()
    result = panel.results.result()
    assert panel.logic.places(result) == before and not hidden(panel.ui.placesRow)


def test_a_result_without_places_says_nothing(panel: Any, module: Any) -> None:
    from panel.kit import chosen, made

    chosen(panel, module)
    made(panel._parameterNode.inputVolume)
    panel.refresh()
    assert panel.logic.places(panel.results.result()) == [] and hidden(panel.ui.placesRow)
    panel.results._onPlacesButton()


def test_what_is_made_of_a_translation_keeps_its_places(translating: Any) -> None:
    panel, scenes = translating, support("scene")
    translation = applied(panel)
    panel._parameterNode.inputVolume = translation
    assert not hidden(panel.ui.placesRow), "the input is a translation"
    finer = scan("finer", (20, 24, 20), (1, 1, 2))
    scenes.record(finer, "result", translation)
    panel.refresh()
    assert len(panel.logic.places(finer)) == 2 and not hidden(panel.ui.placesRow)
    scenes.record(translation, "result", finer)
    assert panel.logic.places(scan("other")) == [] and len(panel.logic.places(finer)) == 2, "not for ever in a circle"
    segmentation = segmentations()[0]
    slicer.mrmlScene.RemoveNode(segmentation)
    assert panel.logic.places(finer) == [] and hidden(panel.ui.placesRow)


@pytest.mark.parametrize(
    ("volume", "text"), [(14.0, "0.014"), (149.0, "0.15"), (999.0, "1"), (3930.0, "3.9"), (124300.0, "124.3")]
)
def test_no_place_is_told_as_nothing(slicerApp: Any, volume: float, text: str) -> None:
    assert support("places")._millilitres(volume) == text


def test_one_place_is_told_as_one(translating: Any) -> None:
    panel, places = translating, support("places")
    result = applied(panel)
    segmentation = places.segmentationOf(result)
    segmentation.SetAttribute(places.KEPT, json.dumps(json.loads(segmentation.GetAttribute(places.KEPT))[:1]))
    panel.refresh()
    assert got(panel.ui.placesLabel, "text").startswith("A place unlike healthy brain, ")
    assert got(panel.ui.placesButton, "text") == "Go there"


def test_the_console_has_the_places_too(translating: Any) -> None:
    logic, node = translating.logic, translating._parameterNode.inputVolume
    result = logic.translate(node, "mt-test", "FLAIR", samples=2)
    place = logic.places(result)[-1]
    logic.goTo(place)
    assert centre("Red") == pytest.approx(place.centre, abs=1e-3)
    ended(translating)
