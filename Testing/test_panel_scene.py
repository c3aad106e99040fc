"""The panel and the rest of the scene: the tree's context menu, what DICOM export is told, segmentations of the scan."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="the panel needs slicer-core")
pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")

import vtk  # noqa: E402
from panel import hierarchy  # noqa: E402
from panel.kit import applied, chosen, ended, folder, got, made, scan, support  # noqa: E402
from vtkmodules.util.numpy_support import vtk_to_numpy  # noqa: E402


def tree() -> Any:
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


@pytest.fixture
def menu(panel: Any, module: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugin, registered as at Slicer's start, and the panel as `selectModule` would have opened it."""
    monkeypatch.setattr(slicer.modules, "MRSuperResWidget", panel, raising=False)
    monkeypatch.setattr(slicer.util, "selectModule", lambda name: None)
    module.MRSuperRes(types.SimpleNamespace()).setup()
    return hierarchy.PLUGINS["MRSuperRes"].plugin


def right_click(menu: Any, item: int) -> Any:
    """The action as the context menu of that item has it; the menu hides all before it asks."""
    (action,) = menu.itemContextMenuActions()
    action.setProperty("visible", False)
    menu.showContextMenuActionsForItem(item)
    return action


def test_a_volume_can_be_super_resolved_from_the_tree(menu: Any, panel: Any) -> None:
    scan("T1 other")
    node = scan("T2 thick")
    item = tree().CreateItem(tree().GetSceneItemID(), node)
    action = right_click(menu, item)
    assert action.property("visible") and action.property("text") == "Super-resolve..."
    action.trigger()
    assert panel._parameterNode.inputVolume is node
    scan("T1 later")
    slicer.app.processEvents()
    assert panel._parameterNode.inputVolume is node, "it was chosen"


def test_a_study_with_several_volumes_opens_the_section_for_many(menu: Any, panel: Any) -> None:
    item = folder(scan("T2 a"), scan("T2 b"))
    action = right_click(menu, item)
    assert action.property("visible")
    action.trigger()
    assert not got(panel.ui.manyCollapsibleButton, "collapsed")
    assert got(panel.ui.manySelector, "currentText") == "Study (2)"


def test_a_patient_with_several_studies_is_run_whole(menu: Any, panel: Any) -> None:
    shown = tree()
    patient = shown.CreateSubjectItem(shown.GetSceneItemID(), "A")
    for number in range(2):
        study = shown.CreateStudyItem(patient, f"visit {number}")
        for name in ("T1", "T2"):
            shown.CreateItem(study, scan(f"{name} {number}"))
    panel._parameterNode.task = support("parameters").Task.THROUGH_PLANE
    right_click(menu, patient).trigger()
    assert got(panel.ui.manySelector, "currentText") == "A (4)"
    panel._parameterNode.model, panel._parameterNode.factor = "bspline", 2.0
    panel.ui.manyButton.click()
    ended(panel)
    assert got(panel.ui.statusLabel, "text") == "4 of 4 volumes done"


def test_nothing_is_taken_while_a_run_is_in_progress(menu: Any, panel: Any, module: Any, monkeypatch: Any) -> None:
    said: list[str] = []
    monkeypatch.setattr(slicer.util, "showStatusMessage", lambda text, duration=0: said.append(text))
    node = chosen(panel, module)
    panel.ui.applyButton.click()
    right_click(menu, tree().CreateItem(tree().GetSceneItemID(), scan("T2 other"))).trigger()
    assert panel._parameterNode.inputVolume is node and "at work" in said[0]
    panel.ui.applyButton.click()
    ended(panel, 10)


def test_what_cannot_be_super_resolved_has_no_such_entry(menu: Any) -> None:
    node = scan()
    error = scan("error")
    made(node, errorMap=error)
    label = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "label")
    empty = tree().CreateFolderItem(tree().GetSceneItemID(), "empty")
    items = [tree().CreateItem(tree().GetSceneItemID(), other) for other in (error, label)]
    for item in (*items, empty, 0):
        assert not right_click(menu, item).property("visible")
    assert menu.canOwnSubjectHierarchyItem(items[0]) == 0.0


def test_slicers_dicom_export_is_told_mr_and_the_same_study_and_patient(panel: Any, module: Any) -> None:
    node = chosen(panel, module)
    patient = tree().CreateSubjectItem(tree().GetSceneItemID(), "DOE^JANE")
    study = tree().CreateStudyItem(patient, "visit 1")
    item = tree().CreateItem(study, node)
    names = slicer.vtkMRMLSubjectHierarchyConstants
    tree().SetItemAttribute(item, names.GetDICOMFrameOfReferenceUIDAttributeName(), "1.2.3")
    tree().SetItemUID(study, "DICOM", "1.2.3.4")
    result = applied(panel)
    place = tree().GetItemByDataNode(result)
    assert tree().GetItemParent(place) == study and tree().GetItemParent(study) == patient
    assert tree().GetItemAttribute(place, "DICOM.Modality") == "MR", "Slicer writes CT unless told"
    assert tree().GetItemAttribute(place, "DICOM.SeriesDescription") == result.GetName()
    assert tree().GetItemAttribute(place, names.GetDICOMFrameOfReferenceUIDAttributeName()) == "1.2.3"
    assert tree().GetItemAttribute(place, "DICOM.FrameOfReferenceInstanceUID") == "1.2.3", "the exporter's word"
    assert tree().GetItemAttribute(study, "DICOM.StudyInstanceUID") == "1.2.3.4", "else the export makes a new study"


def test_segmentations_of_the_scan_are_shown_on_the_result_and_not_resampled(panel: Any, module: Any) -> None:
    node = chosen(panel, module)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "lesion")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(node)
    segmentation.CreateDefaultDisplayNodes()
    image, toRAS = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    image.SetDimensions(20, 24, 10)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    voxels = vtk_to_numpy(image.GetPointData().GetScalars())
    voxels[:] = np.arange(voxels.size) % 7 == 0
    before = voxels.copy()
    node.GetIJKToRASMatrix(toRAS)
    image.SetImageToWorldMatrix(toRAS)
    segment = slicer.vtkSegment()
    segment.AddRepresentation("Binary labelmap", image)
    segmentation.GetSegmentation().AddSegment(segment, "lesion")
    red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode()
    segmentation.GetDisplayNode().AddViewNodeID(red.GetID())
    result = applied(panel)
    assert support("scene").attached(result, "segmentation") == [segmentation]
    panel.ui.compareButton.click()
    compare, display = support("compare"), segmentation.GetDisplayNode()
    views = [compare.sliceNode(name).GetID() for name in compare.VIEWS[:2]]
    assert all(display.IsDisplayableInView(view) for view in views)
    panel.ui.restoreLayoutButton.click()
    assert display.GetViewNodeIDs() == (red.GetID(),)
    kept = segmentation.GetSegmentation().GetSegment("lesion").GetRepresentation("Binary labelmap")
    assert kept.GetDimensions() == (20, 24, 10), "the scan's grid, not the result's"
    np.testing.assert_array_equal(vtk_to_numpy(kept.GetPointData().GetScalars()), before)
