"""The module's logic on real MRML nodes with the real worker: everything lands where it must, and nothing is left behind."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")
import vtk  # noqa: E402
from panel import application  # noqa: E402
from panel.nodes import matrix, volume, volumes  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402

AXES = {
    "axial": np.eye(3),
    "coronal": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=float),
    "sagittal": np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]], dtype=float),
    "left-handed": np.diag([-1.0, 1.0, 1.0]),
    "oblique": Rotation.from_euler("xyz", [12, -20, 33], degrees=True).as_matrix(),
}


pytestmark = pytest.mark.usefixtures("scene")


def world_corners(node: Any) -> np.ndarray:
    """Outer corners of the voxel box, RAS in the world, from MRML's own matrices."""
    from MRSuperResSupport.scene import worldMatrix

    ends = np.array(np.meshgrid(*([-0.5, n - 0.5] for n in node.GetImageData().GetDimensions()), indexing="ij"))
    points = np.vstack([ends.reshape(3, -1), np.ones(8)])
    return (worldMatrix(node) @ points)[:3].T


def world_peak(node: Any) -> np.ndarray:
    """Centre of mass of the bright part, RAS in the world."""
    from MRSuperResSupport.scene import worldMatrix

    array = slicer.util.arrayFromVolume(node).astype(float) - 10
    array[array < 100] = 0
    k, j, i = (np.average(index, weights=array) for index in np.indices(array.shape))
    return (worldMatrix(node) @ (i, j, k, 1.0))[:3]


@pytest.mark.parametrize("moved", [False, True], ids=["", "under a transform"])
@pytest.mark.parametrize("name", AXES)
def test_results_lie_where_the_scan_lies(logic: Any, name: str, moved: bool) -> None:
    node = volume(axes=AXES[name])
    if moved:
        toWorld = np.eye(4)
        toWorld[:3, :3] = Rotation.from_euler("z", 25, degrees=True).as_matrix()
        toWorld[:3, 3] = (5.0, 6.0, -7.0)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "move")
        transform.SetMatrixTransformToParent(matrix(toWorld))
        node.SetAndObserveTransformNodeID(transform.GetID())
    before = slicer.util.arrayFromVolume(node).copy()
    result = logic.superResolve(node, "bspline", factor=2, plane="through-plane")
    assert result.GetImageData().GetDimensions() == (14, 12, 16)
    np.testing.assert_allclose(world_corners(result), world_corners(node), atol=1e-4)
    np.testing.assert_allclose(world_peak(result), world_peak(node), atol=0.4)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), before)
    assert (node.GetParentTransformNode() is not None) == moved
    assert not result.GetDisplayNode().GetAutoWindowLevel()


def test_a_node_alone_is_enough(logic: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    result = logic.superResolve(volume("PD knee", size=(14, 12, 8)))
    assert result.GetName() == "PD knee SR x3 (bspline)" and result.GetImageData().GetDimensions() == (14, 12, 24)
    assert any("no network covers this PDw scan" in message for message in caplog.messages)
    from MRSuperResLib.errors import BadVolume

    with pytest.raises(BadVolume, match="no voxels"):
        logic.superResolve(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))


def test_result_is_named_shown_placed_and_recorded_like_its_source(logic: Any) -> None:
    node = volume("T2 thick")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "visit 1")
    hierarchy.CreateItem(study, node)
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(321.0, 123.0)
    result = logic.superResolve(node, "lanczos", factor=2, plane="through-plane")
    assert result.GetName() == "T2 thick SR x2 (lanczos)"
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(result)) == study
    display = result.GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel(), display.GetAutoWindowLevel()) == (321.0, 123.0, 0)
    assert json.loads(result.GetAttribute("MRSuperRes.model"))["id"] == "lanczos"
    assert result.GetNodeReference("MRSuperRes.source") is node and result.GetAttribute("MRSuperRes.role") == "result"
    assert "Research use only" in result.GetAttribute("MRSuperRes.statement")


def test_chosen_nodes_are_filled_and_maps_and_scores_come_back(logic: Any) -> None:
    from MRSuperResSupport.run import RunRequest, wait

    node, truth = volume(), volume("truth", size=(14, 12, 16))
    finer = vtk.vtkMatrix4x4()
    truth.GetIJKToRASMatrix(finer)
    for row in range(3):
        finer.SetElement(row, 2, finer.GetElement(row, 2) / 2)
    finer.SetElement(2, 3, finer.GetElement(2, 3) - 1.0)
    truth.SetIJKToRASMatrix(finer)
    chosen = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "mine")
    seen: list[str] = []
    run = logic.start(
        RunRequest(
            node,
            "linear",
            plane="through-plane",
            factor=2,
            truth=truth,
            output=chosen,
            errorMap=True,
            consistencyMap=True,
        ),
        onProgress=lambda stage, done, total, left: seen.append(stage),
    )
    assert run.isRunning
    wait(run)
    assert run.error is None, run.error
    result = run.result
    assert result.output is chosen and chosen.GetName() == "mine"
    assert result.errorMap.GetName() == "T2 thick SR x2 (linear) error"
    difference = np.abs(slicer.util.arrayFromVolume(chosen) - slicer.util.arrayFromVolume(truth))
    np.testing.assert_allclose(slicer.util.arrayFromVolume(result.errorMap), difference, atol=1e-3)
    assert result.consistencyMap.GetImageData().GetDimensions() == node.GetImageData().GetDimensions()
    assert result.metrics["psnr"] > 0 and {"reading", "writing", "scoring"} <= set(seen)


def expected_errors(logic: Any, scan: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> tuple[np.ndarray, float]:
    """What the error network that ships says of a T2w made from a T1w, and what a flagged voxel has, in the scan's units."""
    from MRSuperResLib.grid import Grid
    from MRSuperResLib.inference import Options
    from MRSuperResLib.inference.flags import FLAGGED
    from MRSuperResLib.inference.uncertainty import error_network_for, uncertainty_of
    from MRSuperResLib.inference.view_checks import scale_above_air
    from MRSuperResLib.volume import Volume

    translator = logic.model("mtsr-mt-s")
    network = error_network_for(translator, Options())
    assert network is not None, "an error network ships for the translator that ships"
    grid = Grid(scan.shape[::-1], (1.0, 1.0, 1.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    scale = scale_above_air(Volume(scan.astype(np.float32), grid, "scan"), 2)
    span = scale.high - scale.low
    images = (np.maximum(scale.to_unit(scan), 0), scale.to_unit(mean), spread / span)
    made = uncertainty_of(*(image.astype(np.float32) for image in images), translator, network, ("T1w", "T2w"), 0)
    return span * made.deviation, span * FLAGGED


def test_a_translation_brings_its_samples_and_their_uncertainty_into_the_scene(logic: Any) -> None:
    from MRSuperResSupport import scene as scenes

    node = volume("T1w scan", AXES["oblique"], size=(48, 40, 4))
    result = logic.translate(node, "mtsr-mt-s", "T2", samples=2, seed=3, uncertaintyMap=True)
    assert result.GetName() == "T1w scan as T2w (mtsr-mt-s)" and logic.guessContrast(result) == "T2w"
    (uncertainty,), drawn = scenes.attached(result, "uncertaintyMap"), scenes.attached(result, "sample")
    display = uncertainty.GetDisplayNode()
    assert (display.GetColorNodeID(), display.GetWindowLevelMin()) == (scenes.SEQUENTIAL, 0)
    samples = np.array([slicer.util.arrayFromVolume(sample) for sample in drawn])
    assert len(samples) == 2
    mean, spread = (slicer.util.arrayFromVolume(made) for made in (result, uncertainty))
    np.testing.assert_allclose(mean, samples.mean(0), atol=1e-2 * np.ptp(samples))
    expected, flagged = expected_errors(logic, slicer.util.arrayFromVolume(node), mean, samples.std(0, ddof=1))
    wide = np.isclose(spread, flagged, rtol=1e-3)  # where something is flagged
    assert wide.mean() < 0.5
    np.testing.assert_allclose(spread[~wide], expected[~wide], atol=2e-2 * spread.max())
    for made in (result, uncertainty, *drawn):
        np.testing.assert_allclose(world_corners(made), world_corners(node), atol=1e-4)


def test_many_translations_to_different_contrasts_lie_side_by_side(logic: Any, tmp_path: Path) -> None:
    node = volume("T1w scan", AXES["oblique"], size=(48, 40, 4))
    for options in ({"target": "T2"}, {"target": "FLAIR"}, {"target": "T2w", "uncertaintyMap": True}):
        (made,) = logic.superResolveMany([node], "mtsr-mt-s", tmp_path, samples=2, **options)
        assert made.error is None and not made.skipped, "a map that is missing is made"
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".json") == [
        "T1w_scan_as_FLAIR_(mtsr-mt-s).nrrd",
        "T1w_scan_as_FLAIR_(mtsr-mt-s)_flags.nrrd",
        "T1w_scan_as_T2w_(mtsr-mt-s).nrrd",
        "T1w_scan_as_T2w_(mtsr-mt-s)_flags.nrrd",
        "T1w_scan_as_T2w_(mtsr-mt-s)_uncertainty.nrrd",
    ]
    (again,) = logic.superResolveMany([volume("T2w scan")], "mtsr-mt-s", target="T2w", otherContrast="T1w")
    assert "T2w already" in again.error.message


def test_unsuitable_nodes_are_refused_with_the_reason(logic: Any) -> None:
    from MRSuperResLib.errors import MRSuperResError

    add = slicer.mrmlScene.AddNewNodeByClass
    label = add("vtkMRMLLabelMapVolumeNode", "label")
    slicer.util.updateVolumeFromArray(label, np.ones((4, 4, 4), np.uint8))
    colour = add("vtkMRMLVectorVolumeNode", "colour")
    image = vtk.vtkImageData()
    image.SetDimensions(4, 4, 4)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    colour.SetAndObserveImageData(image)
    bent = volume("bent")
    warp = add("vtkMRMLBSplineTransformNode", "warp")
    bent.SetAndObserveTransformNodeID(warp.GetID())
    sheared = volume("sheared")
    shear = add("vtkMRMLLinearTransformNode", "shear")
    values = np.eye(4)
    values[0, 1] = 0.4
    shear.SetMatrixTransformToParent(matrix(values))
    sheared.SetAndObserveTransformNodeID(shear.GetID())
    cases = {
        "no voxels": add("vtkMRMLScalarVolumeNode", "empty"),
        "segmentation": label,
        "is a segmentation": add("vtkMRMLSegmentationNode", "segments"),
        "3 values": colour,
        "non-linear": bent,
        "right angles": sheared,
        "single slice": volume("slice", size=(8, 8, 1)),
    }
    count = len(volumes())
    for words, node in cases.items():
        assert words in logic.refusal(node), words
        with pytest.raises(MRSuperResError, match=words.split()[0]):
            logic.superResolve(node, "linear")
    assert logic.refusal(volume()) == "" and len(volumes()) == count + 1


def test_what_the_worker_refuses_is_told_and_leaves_no_node(logic: Any) -> None:
    from MRSuperResLib.errors import MRSuperResError

    node = volume()
    with pytest.raises(MRSuperResError, match="expected more than 1"):
        logic.superResolve(node, "linear", factor=1.0, plane="through-plane")
    with pytest.raises(MRSuperResError, match=r"did you mean|no model"):
        logic.superResolve(node, "liner")
    assert len(volumes()) == 1


class Script:
    """A process that runs a few lines of Python instead of the library: to crash and to hang on purpose."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __call__(self) -> Any:
        from MRSuperResSupport import worker

        process = worker.Worker()
        start = process.start
        process.start = lambda job, onLine, onEnd: self._start(start, job, onLine, onEnd)
        return process

    def _start(self, start: Any, job: Path, onLine: Any, onEnd: Any) -> None:
        from MRSuperResSupport import worker

        original = worker.subprocess.Popen

        def popen(command: list[str], **options: Any) -> Any:
            return original([command[0], "-c", self.code], **options)

        worker.subprocess.Popen = popen
        try:
            start(job, onLine, onEnd)
        finally:
            worker.subprocess.Popen = original


def test_a_worker_that_dies_leaves_slicer_up_and_says_why(app: Any) -> None:
    from MRSuperResSupport.logic import MRSuperResLogic

    from MRSuperResLib.errors import MRSuperResError

    code = "import os,sys; print('device fault', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)"
    with pytest.raises(MRSuperResError, match=r"signal 9.*device fault") as caught:
        MRSuperResLogic(process=Script(code)).superResolve(volume(), "linear", factor=2)
    assert caught.value.code == "crash" and len(volumes()) == 1


def test_cancel_ends_the_whole_tree_and_leaves_nothing(app: Any, tmp_path: Path) -> None:
    from MRSuperResSupport.logic import MRSuperResLogic
    from MRSuperResSupport.run import RunRequest, wait

    marker = tmp_path / "child"
    code = (
        "import signal,subprocess,sys,time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "ignore = 'import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)';"
        "child = subprocess.Popen([sys.executable, '-c', ignore]);"
        f"open({str(marker)!r}, 'w').write(str(child.pid)); time.sleep(600)"
    )
    ended: list[Any] = []
    run = MRSuperResLogic(process=Script(code)).start(RunRequest(volume(), "linear", factor=2), onFinished=ended.append)
    application.until(marker.exists, 30, "the worker's child")
    while not marker.read_text():
        time.sleep(0.01)
    child = int(marker.read_text())
    run.cancel()
    wait(run)
    application.until(lambda: not _alive(child), 60, "the end of the worker's child")
    assert run.error.code == "cancelled" and ended == [run] and len(volumes()) == 1


def test_cancel_in_the_middle_of_a_network_leaves_no_process_and_no_file(logic: Any, tmp_path: Path) -> None:
    """The real worker, with torch, while it computes into a folder of the user's."""
    pytest.importorskip("torch")
    entry = next(entry for entry in logic.models() if entry.card.id == "rdst-e-through-x4")
    spacing = entry.card.spacing
    node = volume(size=(96, 96, 12))
    node.SetSpacing(*[sum(spacing.in_plane) / 2] * 2, spacing.through_plane[1])
    slices: list[str] = []
    run = logic.superResolveMany(
        [node],
        entry.card.id,
        tmp_path / "out",
        blocking=False,
        device="cpu",
        onProgress=lambda *what: slices.append(what[2]),
    )
    application.until(lambda: any("super-resolving" in text for text in slices), 300, "the begin of the network")
    processes = _group(run._current._process._child.process.pid)
    assert processes
    run.cancel()
    application.until(lambda: not run.isRunning and not any(map(_alive, processes)), 60, "the end of the worker")
    assert run.results[0].error.code == "cancelled" and len(volumes()) == 1
    assert list((tmp_path / "out").iterdir()) == []


def _group(pid: int) -> list[int]:
    """The processes of a group that live."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(place.name)) == pid:
                found.append(int(place.name))
        except ProcessLookupError:
            continue
    return [number for number in found if _alive(number)]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_many_volumes_go_on_after_a_bad_one_and_resume(logic: Any, tmp_path: Path) -> None:
    good, bad, other = (
        volume("one"),
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "bad"),
        volume("two"),
    )
    seen: list[tuple[int, int, str]] = []
    first = logic.superResolveMany(
        [good, bad, other], "bspline", tmp_path / "out", factor=2, plane="through-plane",
        onProgress=lambda *progress: seen.append(progress),
    )  # fmt: skip
    assert [result.error is None for result in first] == [True, False, True]
    assert "no voxels" in first[1].error.message and len(volumes()) == 3
    assert seen[0] == (0, 3, "one") and seen[-1][:2] == (3, 3)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nrrd")) == [
        "one_SR_(bspline).nrrd",
        "two_SR_(bspline).nrrd",
    ]
    again = logic.superResolveMany([good, other], "bspline", tmp_path / "out", factor=2, plane="through-plane")
    assert [result.skipped for result in again] == [True, True]
    slicer.util.arrayFromVolume(other)[:] += 1
    third = logic.superResolveMany([good, other], "bspline", tmp_path / "out", factor=2, plane="through-plane")
    assert [result.skipped for result in third] == [True, False]


def test_files_folders_and_sequences_are_taken(logic: Any, tmp_path: Path) -> None:
    from MRSuperResSupport import scene as scenes

    node = volume("in folder")
    path = tmp_path / "scan.nii.gz"
    scenes.export(node, path)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "folder")
    hierarchy.CreateItem(folder, node)
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "series")
    for value in ("0", "1"):
        sequence.SetDataNodeAtValue(node, value)
    results = logic.superResolveMany([folder, path, sequence], "linear", factor=2, plane="through-plane")
    assert [result.error for result in results] == [None] * 4
    assert [result.name for result in results] == ["in folder", "scan.nii.gz", "series 1", "series 2"]
    made = results[2].output
    browser = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")[0]
    assert browser.GetMasterSequenceNode() is sequence and browser.IsSynchronizedSequenceNodeID(made.GetID(), True)
    assert made is results[3].output and made.IsA("vtkMRMLSequenceNode") and made.GetNumberOfDataNodes() == 2
    np.testing.assert_allclose(world_corners(made.GetNthDataNode(1)), world_corners(node), atol=1e-4)


def test_many_can_be_cancelled(logic: Any) -> None:
    nodes = [volume(f"scan {number}") for number in range(3)]
    ended: list[Any] = []
    run = logic.superResolveMany(nodes, "linear", factor=2, blocking=False, onFinished=ended.append)
    run.cancel()
    application.until(lambda: bool(ended), 20, "the end of the cancelled runs")
    assert [result.error.code for result in ended[0]] == ["cancelled"] * 3 and len(volumes()) == 3


def test_the_console_hears_what_the_worker_warns_of(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    from MRSuperResSupport.logic import MRSuperResLogic

    code = (
        "import json,sys; sys.stdin.close();"
        "print(json.dumps({'event': 'warning', 'code': 'gap', 'message': 'the slices have a gap'}), flush=True);"
        "print(json.dumps({'event': 'error', 'code': 'memory', 'message': 'out of memory'}), flush=True)"
    )
    from MRSuperResLib.errors import MRSuperResError

    with pytest.raises(MRSuperResError, match="out of memory"):
        MRSuperResLogic(process=Script(code)).superResolve(volume(), "linear", factor=2)
    assert caplog.messages == ["linear: the slices have a gap"]
