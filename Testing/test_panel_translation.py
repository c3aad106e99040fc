"""Translating from the panel, with a process that answers as the worker does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

slicer = pytest.importorskip("slicer", reason="the panel needs slicer-core")
pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")

from panel import application  # noqa: E402
from panel.kit import (  # noqa: E402
    Translates,
    applied,
    ended,
    folder,
    got,
    hidden,
    pick,
    put,
    scalars,
    scan,
    select,
    support,
    tip,
    translator,
)  # fmt: skip

from MRSuperResLib.models import Requirements  # noqa: E402


def test_translating_draws_samples_and_the_slider_shows_each_in_the_views(translating: Any, module: Any) -> None:
    panel = translating
    assert panel._parameterNode.model == "mt-test" and tip(panel)[0], tip(panel)
    panel.ui.applyButton.click()
    ended(panel)
    (job,) = Translates.jobs
    assert {name: job[name] for name in ("task", "target", "samples", "seed", "contrast", "factor", "plane")} == {
        "task": "translate", "target": "FLAIR", "samples": 3, "seed": 11, "contrast": "T2w", "factor": None, "plane": None,
    }  # fmt: skip
    parameters = panel._parameterNode
    assert parameters.outputVolume.GetName() == "T2 thick as FLAIR (mt-test)"
    assert parameters.uncertaintyMap.GetDisplayNode().GetWindowLevelMin() == 0
    samples = panel.results.samples()
    assert [node.GetName() for node in samples] == [f"T2 thick as FLAIR (mt-test) sample {n}" for n in (1, 2, 3)]
    assert not hidden(panel.ui.sampleRow) and got(panel.ui.sampleSlider, "maximum") == 3
    red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    for number, node in ((2, samples[1]), (3, samples[2]), (0, parameters.outputVolume)):
        put(panel.ui.sampleSlider, "value", float(number))
        assert red.GetBackgroundVolumeID() == node.GetID()
        assert panel.ui.statusLabel.property("text") == node.GetName()
    displays = {node.GetDisplayNode().GetWindow() for node in (*samples, parameters.outputVolume)}
    assert len(displays) == 1, "samples differ by what they show, not by their window"
    slicer.mrmlScene.RemoveNode(samples[0])
    assert got(panel.ui.sampleSlider, "maximum") == 2


def test_one_sample_has_no_uncertainty_and_no_samples(translating: Any) -> None:
    panel = translating
    put(panel.ui.samplesSpinBox, "value", 1)
    assert not got(panel.ui.uncertaintyMapCheckBox, "enabled")
    panel.ui.applyButton.click()
    ended(panel)
    (job,) = Translates.jobs
    assert (job["samples"], job["samples_folder"], job["uncertainty_map"]) == (1, None, None)
    assert panel.results.samples() == [] and hidden(panel.ui.sampleRow)


def test_another_target_contrast_or_first_model_leaves_the_answer_there_is(translating: Any, module: Any) -> None:
    panel, parameters = translating, translating._parameterNode
    first = applied(panel)
    pick(panel.ui.targetSelector, "T1w")
    second = applied(panel)
    assert first is not second and second.GetName() == "T2 thick as T1w (mt-test)"
    assert applied(panel) is second, "the same once more goes to the same place"
    pick(panel.ui.firstModelSelector, "B-spline")
    assert parameters.outputVolume is None
    assert applied(panel).GetName().endswith("(bspline) as T1w (mt-test)")
    parameters.factor = 3.0
    assert parameters.outputVolume is None
    pick(panel.ui.firstModelSelector, "No")
    applied(panel)
    parameters.contrast = support("parameters").Contrast.FLAIR
    assert parameters.outputVolume is None


def test_a_run_into_the_same_volume_leaves_no_samples_of_the_one_before(translating: Any) -> None:
    panel = translating
    applied(panel)
    names = scalars()
    applied(panel)
    assert scalars() == names and len(panel.results.samples()) == 3
    put(panel.ui.samplesSpinBox, "value", 1)
    applied(panel)
    assert scalars() == ["T2 thick", "T2 thick as FLAIR (mt-test)"], "neither samples nor their spread"


def test_samples_are_only_kept_when_wanted(translating: Any) -> None:
    panel = translating
    memory = panel.inputs.estimate()[0].memory
    put(panel.ui.keepSamplesCheckBox, "checked", False)
    assert panel.inputs.estimate()[0].memory == memory - 3 * 4 * 20 * 24 * 10
    applied(panel)
    assert Translates.jobs[0]["samples_folder"] is None and Translates.jobs[0]["uncertainty_map"]
    assert panel.results.samples() == [] and hidden(panel.ui.sampleRow)


def test_a_warning_raised_while_running_is_seen(translating: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(Translates, "warnings", ["the border is bright", "no air around"])
    applied(translating)
    done, warned = got(translating.ui.statusLabel, "text").split("\n")
    assert done.startswith("Done in 1 s") and warned == "Warning: the border is bright (1 more in the log)"
    assert not got(translating.ui.logCollapsibleButton, "collapsed")


def test_each_of_many_is_translated_as_what_its_name_says_and_keeps_its_map(translating: Any, tmp_path: Path) -> None:
    panel = translating
    folder(panel._parameterNode.inputVolume, scan("T1 other"), scan("unnamed"))
    select(panel, "Study (3)")
    panel.ui.manyButton.click()
    ended(panel)
    assert [job["contrast"] for job in Translates.jobs] == ["T2w", "T1w", "T2w"]
    assert scalars().count("T1 other as FLAIR (mt-test) uncertainty") == 1
    assert not [name for name in scalars() if "sample" in name]
    put(panel.ui.manyFolderEdit, "currentPath", str(tmp_path))
    panel.ui.manyButton.click()
    ended(panel)
    assert (tmp_path / "T1_other_as_FLAIR_(mt-test)_uncertainty.nrrd").is_file()


def test_the_maps_of_a_sequence_become_a_sequence(translating: Any) -> None:
    panel, node = translating, translating._parameterNode.inputVolume
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "T2 series")
    for value in ("0", "1"):
        sequence.SetDataNodeAtValue(node, value)
    select(panel, "T2 series (2)")
    panel.ui.manyButton.click()
    ended(panel)
    names = ["T2 series as FLAIR (mt-test)", "T2 series as FLAIR (mt-test) uncertainty"]
    for name in names:
        assert slicer.util.getFirstNodeByClassByName("vtkMRMLSequenceNode", name).GetNumberOfDataNodes() == 2
    assert set(scalars()) == {"T2 thick", "T2 series", *names}, "what the browser plays, and no frame beside it"


def test_a_coarse_scan_can_be_made_finer_and_translated_in_one_run(panel: Any, module: Any) -> None:
    """With the models shipped: the translator's voxels are the first model's to make."""
    parameters = panel._parameterNode
    parameters.inputVolume = scan("T2 LR", (10, 64, 60), (3.2, 3.2, 3.0))
    parameters.task = module.Task.TRANSLATE
    assert parameters.target == "T1w" and "in-plane voxels" in got(panel.ui.warningLabel, "text")
    pick(panel.ui.firstModelSelector, "x4")
    assert parameters.factor == 4 and panel.inputs.warnings() == [] and tip(panel)[0]
    assert panel.ui.firstModelSelector.findText("RDST-E, in-plane x2") < 0
    assert "RDST-E, in-plane x2: trained on" in got(panel.ui.firstModelSelector, "toolTip")
    assert "models to super-resolve it first" in got(panel.ui.hiddenModelsLabel, "text")
    put(panel.ui.offerAllCheckBox, "checked", True)
    pick(panel.ui.firstModelSelector, "RDST-E, in-plane x2")
    assert parameters.factor == 2
    parameters.madeFrom, parameters.madeFor = parameters.inputVolume, panel.outputs.subject()
    parameters.outputVolume = scan("made with it")
    put(panel.ui.offerAllCheckBox, "checked", False)
    assert parameters.firstModel == "" and parameters.outputVolume is None


def test_a_model_may_enlarge_the_scan_before_it_is_translated(translating: Any, module: Any) -> None:
    panel = translating
    assert hidden(panel.ui.sizeRow)
    box = panel.ui.firstModelSelector
    put(box, "currentIndex", box.findText("B-spline", application.widgets.Qt.MatchContains))
    assert panel._parameterNode.firstModel == "bspline" and not hidden(panel.ui.sizeRow)
    assert got(panel.ui.estimateLabel, "text").startswith("20 × 24 × 20 voxels")
    assert panel.inputs.warnings() == [], "the factor is the first model's, not the translator's"
    panel.ui.applyButton.click()
    ended(panel)
    assert (Translates.jobs[0]["super_resolve_with"], Translates.jobs[0]["factor"]) == ("bspline", 2.0)


def detecting(panel: Any, monkeypatch: Any) -> None:
    """A detector of lesions for T2w scans is installed."""
    there = panel.logic.models()
    values = {"id": "flag-test", "title": "Detector", "task": "flag", "contrasts": ("T2w",), "target_contrasts": ()}
    detector = translator(**values, requirements=Requirements())
    monkeypatch.setattr(panel.logic, "models", lambda: [*there, detector])


def test_without_a_detector_what_is_unlike_the_other_side_is_asked_for(translating: Any) -> None:
    applied(translating)
    assert Translates.jobs[0]["flags"]
    assert not translating.logic.canFlag("PDw"), "nothing is known that finds lesions in it"
