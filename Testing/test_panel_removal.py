"""Volumes that are deleted: Qt makes the row before a deleted one current, and that is nobody's choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="the panel needs slicer-core")
pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")

from panel.kit import applied, chosen, scan, tip  # noqa: E402


def test_no_other_scan_becomes_the_output_when_a_result_is_deleted(panel: Any, module: Any) -> None:
    """The next run wrote into the scan of the row before: another patient's voxels were lost."""
    node, other = chosen(panel, module), scan("T1 of B")
    voxels = slicer.util.arrayFromVolume(other).copy()
    result = applied(panel)
    assert panel._parameterNode.outputVolume is result
    slicer.mrmlScene.RemoveNode(result)
    assert panel._parameterNode.outputVolume is None and panel._parameterNode.inputVolume is node
    again = applied(panel)
    assert again is not other and np.array_equal(slicer.util.arrayFromVolume(other), voxels)


@pytest.mark.parametrize("name", ["referenceVolume", "truthVolume", "errorMap", "consistencyMap", "outputVolume"])
def test_no_other_scan_takes_the_place_of_a_deleted_one(panel: Any, module: Any, name: str) -> None:
    chosen(panel, module)
    scan("T1 of B")
    going = scan("going")
    setattr(panel._parameterNode, name, going)
    slicer.mrmlScene.RemoveNode(going)
    assert getattr(panel._parameterNode, name) is None


def test_a_deleted_input_leaves_no_choice_behind(panel: Any, module: Any) -> None:
    scan("T1 of B")
    going = chosen(panel, module)
    panel.inputs.accept()
    slicer.mrmlScene.RemoveNode(going)
    assert panel._parameterNode.inputVolume is not going
    newest = scan("T1 of C")
    panel.inputs.suggest(newest=newest)
    assert panel._parameterNode.inputVolume is newest, "what took the place of the deleted one was chosen by nobody"


def test_the_truth_is_another_scan_than_the_input(panel: Any, module: Any) -> None:
    node = chosen(panel, module)
    panel._parameterNode.truthVolume = node
    assert tip(panel) == (False, "The ground truth must be another scan than the input.")
