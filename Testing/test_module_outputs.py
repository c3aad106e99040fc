"""Nodes given for outputs: what cannot hold one, or would be destroyed, is refused before anything is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from MRSuperResLib.errors import UsageError

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")
from panel.nodes import volume  # noqa: E402

pytestmark = pytest.mark.usefixtures("scene")


def refused(node: Any, **options: Any) -> str:
    """What a run of `node` with these options is refused with, before its process is started."""
    from MRSuperResSupport.logic import MRSuperResLogic

    class Never:
        def start(self, *_: Any) -> None:
            raise AssertionError("nothing is started")

    with pytest.raises(UsageError) as error:
        MRSuperResLogic(process=Never).superResolve(node, "linear", factor=2, **options)
    assert "\n" not in error.value.message
    return str(error.value.message)


@pytest.mark.parametrize("role", ["output", "consistencyMap"])
@pytest.mark.parametrize("kind", ["LabelMapVolume", "VectorVolume", "Model", "Segmentation", "LinearTransform"])
def test_a_node_that_cannot_hold_an_output_keeps_what_it_has(logic: Any, kind: str, role: str) -> None:
    theirs = slicer.mrmlScene.AddNewNodeByClass(f"vtkMRML{kind}Node", "theirs")
    if kind == "LabelMapVolume":
        slicer.util.updateVolumeFromArray(theirs, np.ones((4, 4, 4), np.uint8))
    assert "theirs is no scalar volume" in refused(volume(), **{role: theirs})
    if kind == "LabelMapVolume":
        assert (slicer.util.arrayFromVolume(theirs) == 1).all()


def test_two_outputs_never_share_a_node(logic: Any) -> None:
    one = volume("one")
    assert "both the result and the consistency map" in refused(volume(), output=one, consistencyMap=one)
    truth = volume("truth")
    given = {"truth": truth, "errorMap": one, "consistencyMap": one}
    assert "both the error map and the consistency map" in refused(volume(), **given)


@pytest.mark.parametrize("role", ["output", "errorMap", "consistencyMap"])
def test_what_is_read_is_never_overwritten(logic: Any, role: str) -> None:
    node, truth = volume(), volume("truth")
    for theirs in (node, truth):
        assert "is read by this run" in refused(node, truth=truth, **{role: theirs})


def test_a_node_that_left_the_scene_is_no_obstacle(logic: Any) -> None:
    gone = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "gone")
    slicer.mrmlScene.RemoveNode(gone)
    made = logic.superResolve(volume(), "linear", factor=2, plane="through-plane", output=gone)
    assert made.GetClassName() == "vtkMRMLScalarVolumeNode"
