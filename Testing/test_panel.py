"""The panel before a run: the .ui file, what can be pressed, and what is said when it cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

slicer = pytest.importorskip("slicer", reason="the panel needs slicer-core")
pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")

from panel import application  # noqa: E402
from panel.kit import chosen, got, hidden, put, scan, support, tip, translator  # noqa: E402

UI = application.MODULE / "Resources" / "UI" / "MRSuperRes.ui"
UNBOUND = {  # lists whose entries depend on the scan, which Slicer cannot bind, and what only shows
    "modelSelector",
    "targetSelector",
    "firstModelSelector",
    "mapSelector",
    "manySelector",
    "manyFolderEdit",
    "blendSlider",
    "sampleSlider",
}
EDITABLE = ("qMRMLNodeComboBox", "QComboBox", "QSpinBox", "QDoubleSpinBox", "QCheckBox", "ctkSliderWidget")


def test_every_scene_widget_is_given_the_scene() -> None:
    root = ElementTree.parse(UI).getroot()
    names = {w.get("name") for w in root.iter("widget") if w.get("class") == "qMRMLNodeComboBox"}
    told = {
        c.findtext("receiver")
        for c in root.iter("connection")
        if (c.findtext("signal"), c.findtext("slot"))
        == ("mrmlSceneChanged(vtkMRMLScene*)", "setMRMLScene(vtkMRMLScene*)")
    }
    assert names and told == names


def test_every_choice_is_kept_with_the_scene(module: Any) -> None:
    widgets = {w.get("name"): w for w in ElementTree.parse(UI).getroot().iter("widget") if w.get("class") in EDITABLE}
    bound = {
        p.findtext("string"): name
        for name, w in widgets.items()
        for p in w.findall("property")
        if p.get("name") == "SlicerParameterName"
    }
    assert set(widgets) - set(bound.values()) == UNBOUND - {"manyFolderEdit"}
    fields = set(module.MRSuperResParameterNode.allParameters)
    assert set(bound) <= fields
    assert fields - set(bound) == {
        "model",
        "target",
        "firstModel",
        "settledFor",
        "followedFactor",
        "factorFor",
        "madeFrom",
        "madeFor",
    }


def test_only_widgets_that_slicer_ships_are_in_the_ui_file() -> None:
    kinds = {w.get("class") for w in ElementTree.parse(UI).getroot().iter("widget")}
    own = {"ctkCollapsibleButton", "ctkSliderWidget", "ctkPathLineEdit", "qMRMLNodeComboBox", "qMRMLWidget"}
    assert {kind for kind in kinds if not kind.startswith("Q")} == own


def test_the_panel_uses_only_widgets_that_exist(panel: Any) -> None:
    import re

    files = [application.MODULE / "MRSuperRes.py", *(application.MODULE / "MRSuperResSupport").glob("*_view.py")]
    used = {name for file in files for name in re.findall(r"\bui\.(\w+)", file.read_text(encoding="utf-8"))}
    assert len(used) > 50
    assert not [name for name in used if not hasattr(panel.ui, name)]


def test_the_progress_of_a_translation_does_not_count_samples_as_slices(module: Any) -> None:
    assert support("work_view")._progressText("translating", 300, 900, None) == "Translating: 33%"


def test_loading_and_showing_the_panel_imports_nothing_heavy(tmp_path: Path) -> None:
    """In a process of its own: other tests of this one may have imported torch."""
    code = (
        "import sys; from pathlib import Path; from panel import application;"
        f"application.start(Path({str(tmp_path)!r})); application.load().MRSuperResWidget().setup();"
        "assert not {'torch', 'monai', 'safetensors', 'einops'} & set(sys.modules), 'heavy'; print('light')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "light" in done.stdout, done.stderr


def test_the_warning_is_visible(panel: Any) -> None:
    assert "Research use only" in got(panel.ui.researchLabel, "text")
    assert not hidden(panel.ui.researchLabel)


def test_everything_explains_itself_under_the_mouse(panel: Any) -> None:
    """Whatever can be chosen, pressed or opened has a tooltip; so have the labels before it."""
    shown = ("QPushButton", "QLabel", "QTableWidget", "QPlainTextEdit", "QProgressBar")
    kinds = (*EDITABLE, *shown, "ctkPathLineEdit", "ctkCollapsibleButton")
    names = [w.get("name") for w in ElementTree.parse(UI).getroot().iter("widget") if w.get("class") in kinds]
    assert not [name for name in names if not got(getattr(panel.ui, name), "toolTip")]


def test_apply_says_that_a_volume_is_missing(panel: Any) -> None:
    assert tip(panel) == (False, "Select the volume to work on.")


def test_apply_can_be_pressed_once_all_is_there(panel: Any, module: Any) -> None:
    chosen(panel, module)
    assert tip(panel)[0]
    assert got(panel.ui.estimateLabel, "text").startswith("20 × 24 × 20 voxels of 1 × 1 × 2 mm")


def test_a_volume_without_voxels_is_refused_with_the_reason(panel: Any) -> None:
    panel._parameterNode.inputVolume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    enabled, reason = tip(panel)
    assert not enabled and reason == got(panel.ui.refusalLabel, "text") != ""
    assert not hidden(panel.ui.refusalLabel)


def test_a_task_without_a_model_is_told_from_a_scan_without_one(panel: Any, module: Any, monkeypatch: Any) -> None:
    t1 = translator(contrasts=("T1w",))
    monkeypatch.setattr(panel.logic, "models", lambda: [t1])
    chosen(panel, module)
    assert tip(panel) == (False, "There is no model for this task here: choose another task, or install a model.")
    panel._parameterNode.task = module.Task.TRANSLATE
    assert not tip(panel)[0] and "offer the others too" in tip(panel)[1]
    assert not hidden(panel.ui.hiddenCollapsibleButton)


def test_apply_is_refused_when_nothing_would_be_refined(panel: Any, module: Any) -> None:
    chosen(panel, module, sizeMode=support("parameters").SizeMode.SPACING, spacing=5.0)
    enabled, reason = tip(panel)
    assert not enabled and "nothing to refine" in reason


def test_a_spacing_is_asked_for_along_the_refined_axes_only(panel: Any, module: Any) -> None:
    chosen(panel, module, sizeMode=support("parameters").SizeMode.SPACING, spacing=0.5)
    assert panel.inputs.size() == {"factor": None, "spacing": (1.0, 1.0, 0.5)}
    panel._parameterNode.task = module.Task.IN_PLANE
    assert panel.inputs.size() == {"factor": None, "spacing": (0.5, 0.5, 4.0)}
    assert hidden(panel.ui.factorSpinBox) and not hidden(panel.ui.spacingSpinBox)


def test_the_input_cannot_be_overwritten(panel: Any, module: Any) -> None:
    node = chosen(panel, module)
    panel._parameterNode.outputVolume = node
    assert tip(panel) == (False, "The outputs must be other volumes than the inputs.")


def test_two_outputs_cannot_share_a_volume(panel: Any, module: Any) -> None:
    chosen(panel, module)
    other = scan("other")
    panel._parameterNode.outputVolume = panel._parameterNode.consistencyMap = other
    assert tip(panel)[0]
    panel._parameterNode.makeConsistencyMap = True
    assert tip(panel) == (False, "Each output needs a volume of its own.")


def test_an_error_map_needs_a_ground_truth(panel: Any, module: Any) -> None:
    chosen(panel, module)
    assert not got(panel.ui.errorMapCheckBox, "enabled") and not panel.outputs.maps()["errorMap"][1]
    panel._parameterNode.truthVolume = scan("truth", (20, 24, 20), (1, 1, 2))
    assert got(panel.ui.errorMapCheckBox, "enabled") and panel.outputs.maps()["errorMap"][1]


def test_a_guided_task_asks_for_a_reference_and_shows_the_overlap(panel: Any, module: Any, monkeypatch: Any) -> None:
    guide = translator(id="guide", title="Guide", task="reference-guided", factors=(2.0, 2.0), target_contrasts=())
    monkeypatch.setattr(panel.logic, "models", lambda: [guide])
    monkeypatch.setattr(panel.logic, "estimate", lambda *_, **__: None)
    monkeypatch.setattr(panel.logic, "warnings", lambda *_, **__: [])
    node = chosen(panel, module, task=module.Task.GUIDED)
    assert tip(panel) == (False, "Select the sharp reference scan of the same patient.")
    assert not hidden(panel.ui.guidedRows)
    panel._parameterNode.referenceVolume = node
    assert tip(panel) == (False, "The reference must be another scan than the input.")
    far = scan("T1 sharp")
    far.SetOrigin(500, 0, 0)
    panel._parameterNode.referenceVolume = far
    assert tip(panel)[0]
    panel.ui.overlapButton.click()
    assert got(panel.ui.overlapLabel, "text").startswith("The reference covers 0% of the scan. Is it")
    far.SetOrigin(*node.GetOrigin())
    panel.ui.overlapButton.click()
    assert got(panel.ui.overlapLabel, "text") == "The reference covers 100% of the scan."
    red = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert (red.GetBackgroundVolumeID(), red.GetForegroundVolumeID()) == (node.GetID(), far.GetID())
    assert red.GetForegroundOpacity() == 0.5
    panel.results.present(node)
    assert not red.GetForegroundVolumeID(), "the reference must not lie over the result"


def test_translation_offers_other_contrasts_samples_and_a_seed(panel: Any, module: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(panel.logic, "models", lambda: [translator()])
    monkeypatch.setattr(panel.logic, "estimate", lambda *_, **__: None)
    monkeypatch.setattr(panel.logic, "warnings", lambda *_, **__: [])
    chosen(panel, module, task=module.Task.TRANSLATE)
    box = panel.ui.targetSelector
    assert [box.itemText(n) for n in range(got(box, "count"))] == ["T1w", "FLAIR"]
    put(box, "currentIndex", 1)
    assert panel._parameterNode.target == "FLAIR"
    assert not hidden(panel.ui.translationRows) and hidden(panel.ui.sizeRow)
    assert hidden(panel.ui.consistencyMapRow) and hidden(panel.ui.guidedRows)
    request = panel.work.request()
    assert (request.task, request.target, request.samples, request.uncertaintyMap) == ("translate", "FLAIR", 8, True)
    assert request.factor is None and request.plane is None and request.consistencyMap is None
    panel._parameterNode.samples = 3
    assert panel.many.options()["samples"] == 3
    panel._parameterNode.contrast = support("parameters").Contrast.UNKNOWN
    assert tip(panel) == (False, "Choose the scan's contrast.")


def test_the_card_is_shown_and_hidden_models_say_why(panel: Any, module: Any, monkeypatch: Any) -> None:
    hides = translator(id="t1-only", title="T1 only", task="super-resolve", plane="through-plane", contrasts=("T1w",))
    shown = panel.logic.models
    monkeypatch.setattr(panel.logic, "models", lambda: [*shown(), hides])
    chosen(panel, module)
    assert "B-spline" in got(panel.ui.cardLabel, "text")
    assert "T1 only: trained on T1w, this scan is T2w" in got(panel.ui.hiddenModelsLabel, "text")
    assert not hidden(panel.ui.hiddenCollapsibleButton)
    assert panel.ui.modelSelector.findText("T1 only") < 0
    put(panel.ui.offerAllCheckBox, "checked", True)
    put(panel.ui.modelSelector, "currentIndex", panel.ui.modelSelector.findText("T1 only"))
    assert panel._parameterNode.model == "t1-only"
    assert "trained on T1w" in panel.inputs.warnings()[0]


def test_the_contrast_is_guessed_once_and_can_be_corrected(panel: Any, module: Any) -> None:
    chosen(panel, module)
    assert panel._parameterNode.contrast is support("parameters").Contrast.T2W
    put(
        panel.ui.contrastSelector,
        "currentIndex",
        list(support("parameters").Contrast).index(support("parameters").Contrast.FLAIR),
    )
    panel._parameterNode.factor = 3.0
    assert panel._parameterNode.contrast is support("parameters").Contrast.FLAIR


def test_choosing_in_the_lists_reaches_the_parameters(panel: Any, module: Any) -> None:
    chosen(panel, module)
    box = panel.ui.modelSelector
    number = box.findText("Linear interpolation")
    put(box, "currentIndex", number)
    assert panel._parameterNode.model == "linear"
    put(panel.ui.factorSpinBox, "value", 3.5)
    put(panel.ui.projectCheckBox, "checked", True)
    assert (panel._parameterNode.factor, panel._parameterNode.project) == (3.5, True)


def test_the_user_is_warned_before_a_run_outside_of_the_card(panel: Any, module: Any, monkeypatch: Any) -> None:
    asked: list[str] = []

    def decline(text: str, **_: Any) -> bool:
        asked.append(text)
        return False

    monkeypatch.setattr(panel.logic, "warnings", lambda *_, **__: ["trained on slices of 2 to 3 mm"])
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", decline)
    chosen(panel, module)
    assert not hidden(panel.ui.warningLabel) and "2 to 3 mm" in got(panel.ui.warningLabel, "text")
    panel.ui.applyButton.click()
    assert panel.work.run is None and "2 to 3 mm" in asked[0]


def test_the_slice_profile_can_be_chosen_and_reaches_the_run(panel: Any, module: Any) -> None:
    chosen(panel, module, project=True)
    box = panel.ui.profileSelector
    assert [box.itemText(number) for number in range(got(box, "count"))] == [
        "Gaussian",
        "Box",
        "Sinc",
        "k-space",
        "Bicubic",
    ]
    put(box, "currentIndex", 1)
    assert panel.work.request().profile == "box" == panel.many.options()["profile"]
    panel._parameterNode.task = module.Task.TRANSLATE
    assert hidden(panel.ui.profileRow), "a translation reproduces nothing that was acquired"
