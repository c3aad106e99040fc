"""Sequences that change, or lie elsewhere, while their frames are worked on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")
from panel import application  # noqa: E402
from panel.nodes import matrix, volume, volumes  # noqa: E402

pytestmark = pytest.mark.usefixtures("scene")
HOW = {"factor": 2, "plane": "through-plane"}


def sequence(*frames: Any, name: str = "series") -> Any:
    """A sequence of copies of `frames`."""
    made = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
    for number, frame in enumerate(frames):
        made.SetDataNodeAtValue(frame, str(number))
    return made


def test_a_sequence_that_is_deleted_stops_its_batch_and_the_others_go_on(logic: Any) -> None:
    node, ended = volume("T2"), []
    series, other = sequence(node, node, node), volume("other")
    run = logic.superResolveMany([series, other], "linear", blocking=False, onFinished=ended.append, **HOW)
    slicer.mrmlScene.RemoveNode(series)
    application.until(lambda: bool(ended), 60, "the end of the batch")
    errors = [result.error for result in run.results]
    assert [error and error.code for error in errors] == ["gone", "gone", "gone", None]
    assert {error.message for error in errors[:3]} == {"series was removed from the scene: stopped."}
    assert [made.GetName() for made in slicer.util.getNodesByClass("vtkMRMLSequenceNode")] == []
    assert sorted(made.GetName() for made in volumes()) == ["T2", "other", "other SR x2 (linear)"]


def test_a_volume_that_is_deleted_while_it_waits_is_left_out(logic: Any) -> None:
    nodes, ended = [volume("one"), volume("two")], []
    run = logic.superResolveMany(nodes, "linear", blocking=False, onFinished=ended.append, **HOW)
    slicer.mrmlScene.RemoveNode(nodes[1])
    application.until(lambda: bool(ended), 60, "the end of the batch")
    assert [result.error and result.error.code for result in run.results] == [None, "gone"]


def shown(*sequences: Any) -> Any:
    """A browser that plays `sequences`, whose proxies are in the scene."""
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(sequences[0].GetID())
    for other in sequences[1:]:
        browser.AddSynchronizedSequenceNodeID(other.GetID())
    player = slicer.vtkSlicerSequencesLogic()
    player.SetMRMLScene(slicer.mrmlScene)
    player.UpdateProxyNodesFromSequences(browser)
    return browser


@pytest.mark.parametrize("moves", [False, True], ids=["at rest", "moving"])
def test_results_of_frames_lie_where_the_frames_are_shown(logic: Any, moves: bool) -> None:
    toWorld = np.eye(4)
    toWorld[:3, 3] = (5.0, 6.0, -7.0)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "move")
    transform.SetMatrixTransformToParent(matrix(toWorld))
    series, places = sequence(volume("T2"), volume("T2")), sequence(transform, transform, name="places")
    browser = shown(series, places)
    shift = browser.GetProxyNode(places) if moves else transform
    browser.GetProxyNode(series).SetAndObserveTransformNodeID(shift.GetID())
    results = logic.superResolveMany([series], "linear", **HOW)
    assert [result.error for result in results] == [None, None]
    for number in range(2):
        made, frame = results[0].output.GetNthDataNode(number), series.GetNthDataNode(number)
        before, after = np.zeros(6), np.zeros(6)
        frame.GetBounds(before)
        made.GetBounds(after)
        np.testing.assert_allclose(after, before + np.repeat(toWorld[:3, 3], 2), atol=1e-4)
        assert any("changes with time" in line for line in results[number].warnings) == moves
