"""The module's panel: the real .ui file, the real MRML scene, the real worker; what Slicer itself adds is stood in for."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any, ClassVar
from xml.etree import ElementTree

import numpy as np
import pytest
import SimpleITK as sitk

slicer = pytest.importorskip("slicer", reason="the panel needs slicer-core")
pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")

sys.path.insert(0, str(Path(__file__).resolve().parent))
import vtk  # noqa: E402
from panel import application  # noqa: E402

from MRSuperResLib.errors import UnsuitableVolume  # noqa: E402
from MRSuperResLib.models import ModelCard, ModelEntry, Requirements  # noqa: E402

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


def got(widget: Any, name: str) -> Any:
    return widget.property(name)


def put(widget: Any, name: str, value: Any) -> None:
    assert widget.setProperty(name, value)


def hidden(widget: Any) -> bool:
    """Whether the panel hides it; a window that was never shown hides everything, so only the explicit flag counts."""
    return widget.testAttribute(application.widgets.Qt.WA_WState_ExplicitShowHide) and widget.testAttribute(
        application.widgets.Qt.WA_WState_Hidden
    )


@pytest.fixture
def slicerApp(tmp_path: Path) -> application.Application:
    return application.start(tmp_path)


@pytest.fixture
def module(slicerApp: application.Application) -> Any:
    return application.load()


@pytest.fixture
def panel(module: Any) -> Any:
    """The panel in an empty scene; a run that a test left is ended."""
    widget = module.MRSuperResWidget()
    widget.setup()
    yield widget
    run = widget._run
    widget.cleanup()
    for box in widget.parent.findChildren(application.widgets.qMRMLNodeComboBox):
        box.setMRMLScene(None)
    if run is not None:
        application.until(lambda: not run.isRunning, 10, "the end of the run")


def scan(name: str = "T2 thick", shape: tuple[int, int, int] = (10, 24, 20), spacing: Any = (1.0, 1.0, 4.0)) -> Any:
    """A small volume in the scene: a ball in noise."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    noise = np.random.default_rng(3).normal(size=shape)
    array = 100 * np.exp(-3 * (k**2 + j**2 + i**2)) + noise
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, array.astype(np.float32))
    node.SetSpacing(*spacing)
    node.CreateDefaultDisplayNodes()
    return node


def chosen(panel: Any, module: Any, **fields: Any) -> Any:
    """A scan, interpolation as the model, and `fields` of the parameter node set; returns the scan."""
    node = scan()
    parameters = panel._parameterNode
    parameters.inputVolume = node
    for name, value in {"task": module.Task.THROUGH_PLANE, "model": "bspline", "factor": 2.0, **fields}.items():
        setattr(parameters, name, value)
    return node


def ended(panel: Any, seconds: float = 60.0) -> None:
    application.until(lambda: panel._run is None, seconds, "the end of the run")


def translator(**changes: Any) -> ModelEntry:
    values = {
        "id": "mt-test",
        "title": "Translator",
        "version": "1",
        "architecture": "translation",
        "task": "translate",
        "plane": "any",
        "factors": (1.0, 1.0),
        "contrasts": ("T1w", "T2w"),
        "target_contrasts": ("T1w", "T2w", "FLAIR"),
        "spacing": None,
        "licence": "Apache-2.0",
        "intended_use": "Tests. Research use only.",
        "requirements": Requirements(latent=8),
    }
    return ModelEntry(ModelCard(**(values | changes)), Path("mt-test.safetensors"), "0" * 64)


# The .ui file


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
    assert fields - set(bound) == {"model", "target", "firstModel", "guessedFor", "metrics", "madeFrom", "madeFor"}


def test_only_widgets_that_slicer_ships_are_in_the_ui_file() -> None:
    kinds = {w.get("class") for w in ElementTree.parse(UI).getroot().iter("widget")}
    own = {"ctkCollapsibleButton", "ctkSliderWidget", "ctkPathLineEdit", "qMRMLNodeComboBox", "qMRMLWidget"}
    assert {kind for kind in kinds if not kind.startswith("Q")} == own


def test_the_panel_uses_only_widgets_that_exist(panel: Any) -> None:
    import re

    used = set(re.findall(r"\bui\.(\w+)", (application.MODULE / "MRSuperRes.py").read_text(encoding="utf-8")))
    assert not [name for name in used if not hasattr(panel.ui, name)]


def test_the_progress_of_a_translation_does_not_count_samples_as_slices(module: Any) -> None:
    assert module._progressText("translating", 300, 900, None) == "Translating: 33%"


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


# What can be pressed, and what is said when it cannot


def tip(panel: Any) -> tuple[bool, str]:
    return got(panel.ui.applyButton, "enabled"), got(panel.ui.applyButton, "toolTip")


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
    assert not hidden(panel.ui.offerAllCheckBox)


def test_apply_is_refused_when_nothing_would_be_refined(panel: Any, module: Any) -> None:
    chosen(panel, module, sizeMode=module.SizeMode.SPACING, spacing=5.0)
    enabled, reason = tip(panel)
    assert not enabled and "nothing to refine" in reason


def test_a_spacing_is_asked_for_along_the_refined_axes_only(panel: Any, module: Any) -> None:
    chosen(panel, module, sizeMode=module.SizeMode.SPACING, spacing=0.5)
    assert panel._size() == {"factor": None, "spacing": (1.0, 1.0, 0.5)}
    panel._parameterNode.task = module.Task.IN_PLANE
    assert panel._size() == {"factor": None, "spacing": (0.5, 0.5, 4.0)}
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
    assert not got(panel.ui.errorMapCheckBox, "enabled") and not panel._maps()["errorMap"][1]
    panel._parameterNode.truthVolume = scan("truth", (20, 24, 20), (1, 1, 2))
    assert got(panel.ui.errorMapCheckBox, "enabled") and panel._maps()["errorMap"][1]


def test_a_guided_task_asks_for_a_reference_and_shows_the_overlap(panel: Any, module: Any, monkeypatch: Any) -> None:
    guide = translator(id="guide", title="Guide", task="reference-guided", factors=(2.0, 2.0), target_contrasts=())
    monkeypatch.setattr(panel.logic, "models", lambda: [guide])
    monkeypatch.setattr(panel.logic, "estimate", lambda *_, **__: None)
    monkeypatch.setattr(panel.logic, "warnings", lambda *_, **__: [])
    node = chosen(panel, module, task=module.Task.GUIDED)
    assert tip(panel) == (False, "Select the sharp reference scan of the same patient.")
    assert not hidden(panel.ui.referenceRow) and not hidden(panel.ui.registerCheckBox)
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
    panel._present(node)
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
    assert not hidden(panel.ui.samplesRow) and hidden(panel.ui.sizeRow) and hidden(panel.ui.consistencyMapCheckBox)
    request = panel._request()
    assert (request.task, request.target, request.samples, request.uncertaintyMap) == ("translate", "FLAIR", 8, True)
    assert request.factor is None and request.plane is None and request.consistencyMap is None
    panel._parameterNode.samples = 3
    assert panel._manyOptions()["samples"] == 3
    panel._parameterNode.contrast = module.Contrast.UNKNOWN
    assert tip(panel) == (False, "Choose the scan's contrast.")


def test_the_card_is_shown_and_hidden_models_say_why(panel: Any, module: Any, monkeypatch: Any) -> None:
    hides = translator(id="t1-only", title="T1 only", task="super-resolve", plane="through-plane", contrasts=("T1w",))
    shown = panel.logic.models
    monkeypatch.setattr(panel.logic, "models", lambda: [*shown(), hides])
    chosen(panel, module)
    assert "B-spline" in got(panel.ui.cardLabel, "text")
    assert "T1 only: trained on T1w, this scan is T2w" in got(panel.ui.hiddenModelsLabel, "text")
    assert not hidden(panel.ui.hiddenModelsLabel)
    assert panel.ui.modelSelector.findText("T1 only") < 0
    put(panel.ui.offerAllCheckBox, "checked", True)
    put(panel.ui.modelSelector, "currentIndex", panel.ui.modelSelector.findText("T1 only"))
    assert panel._parameterNode.model == "t1-only"
    assert "trained on T1w" in panel._warnings()[0]


def test_the_contrast_is_guessed_once_and_can_be_corrected(panel: Any, module: Any) -> None:
    chosen(panel, module)
    assert panel._parameterNode.contrast is module.Contrast.T2W
    put(panel.ui.contrastSelector, "currentIndex", list(module.Contrast).index(module.Contrast.FLAIR))
    panel._parameterNode.factor = 3.0
    assert panel._parameterNode.contrast is module.Contrast.FLAIR


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
    assert panel._run is None and "2 to 3 mm" in asked[0]


# Runs, with the real worker


def test_apply_becomes_cancel_and_then_there_is_a_result(panel: Any, module: Any) -> None:
    node = chosen(panel, module, makeConsistencyMap=True)
    before = slicer.util.arrayFromVolume(node).copy()
    panel._parameterNode.truthVolume = scan("truth", (20, 24, 20), (1, 1, 2))
    panel.ui.applyButton.click()
    assert got(panel.ui.applyButton, "text") == "Cancel" and got(panel.ui.applyButton, "enabled")
    assert not hidden(panel.ui.progressBar) and not got(panel.ui.inputsCollapsibleButton, "enabled")
    ended(panel)
    parameters = panel._parameterNode
    assert parameters.outputVolume is not None, got(panel.ui.statusLabel, "text")
    assert parameters.outputVolume.GetImageData().GetDimensions() == (20, 24, 20)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), before)
    assert got(panel.ui.applyButton, "text") == "Apply" and hidden(panel.ui.progressBar)
    assert panel.ui.metricsTable.item(0, 0).text() == "PSNR (dB, higher is better)"
    assert float(panel.ui.metricsTable.item(0, 1).text()) > 0
    error, consistency = parameters.errorMap.GetDisplayNode(), parameters.consistencyMap.GetDisplayNode()
    assert error.GetWindowLevelMin() == 0
    assert consistency.GetWindowLevelMin() == pytest.approx(-consistency.GetWindowLevelMax())
    assert got(panel.ui.compareButton, "enabled")
    made = parameters.outputVolume
    parameters.model = "linear"
    assert parameters.outputVolume is None and parameters.errorMap is None, "the next run would overwrite the result"
    assert slicer.mrmlScene.IsNodePresent(made) and got(panel.ui.compareButton, "enabled")


def test_cancel_leaves_no_node(panel: Any, module: Any) -> None:
    chosen(panel, module)
    count = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    panel.ui.applyButton.click()
    panel.ui.applyButton.click()
    assert not got(panel.ui.applyButton, "enabled")
    ended(panel, 5)
    assert got(panel.ui.statusLabel, "text") == "Cancelled. Nothing was changed."
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == count
    assert tip(panel)[0]


def test_an_error_of_the_worker_is_shown(panel: Any, module: Any, monkeypatch: Any) -> None:
    shown: list[str] = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: shown.append(text))
    node = chosen(panel, module)
    truth = scan("truth")
    truth.SetOrigin(node.GetOrigin()[0] + 900, 0, 0)
    panel._parameterNode.truthVolume = truth
    panel.ui.applyButton.click()
    ended(panel)
    assert shown and "ground truth does not lie" in shown[0] == got(panel.ui.statusLabel, "text")
    assert "ground truth does not lie" in panel.ui.logText.toPlainText()


def test_apply_pressed_again_while_installing_starts_nothing(panel: Any, module: Any, monkeypatch: Any) -> None:
    started: list[Any] = []

    def install(request: Any, **_: Any) -> None:
        started.append(request)
        panel.ui.applyButton.click()
        panel.ui.manyButton.click()
        raise UnsuitableVolume("declined")

    chosen(panel, module)
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: None)
    monkeypatch.setattr(panel.logic, "start", install)
    panel.ui.applyButton.click()
    assert len(started) == 1 and tip(panel)[0]


def test_what_keeps_a_run_from_starting_is_shown(panel: Any, module: Any, monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise UnsuitableVolume("too small by far")

    chosen(panel, module)
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: None)
    monkeypatch.setattr(panel.logic, "start", refuse)
    panel.ui.applyButton.click()
    assert got(panel.ui.statusLabel, "text") == "too small by far"
    assert tip(panel)[0] and panel._run is None


def test_closing_the_scene_ends_the_run_and_the_panel_lives(panel: Any, module: Any) -> None:
    chosen(panel, module)
    panel.ui.applyButton.click()
    run = panel._run
    slicer.mrmlScene.Clear()
    assert panel._run is None
    application.until(lambda: not run.isRunning, 5, "the end of the worker")
    slicer.app.processEvents()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    assert tip(panel) == (False, "Select the volume to work on.")
    chosen(panel, module)
    assert tip(panel)[0]


def test_deleting_the_input_is_noticed(panel: Any, module: Any) -> None:
    node = chosen(panel, module)
    slicer.mrmlScene.RemoveNode(node)
    assert tip(panel) == (False, "Select the volume to work on.")


def test_choices_and_results_come_back_with_a_saved_scene(panel: Any, module: Any, tmp_path: Path) -> None:
    """Its volumes come one by one: the list of inputs would take the first of them if it were let."""
    scan("T1 other")
    node = chosen(panel, module, factor=3.0, seed=7, precision=module.Precision.FP32)
    parameters, result = panel._parameterNode, scan("result")
    parameters.contrast = module.Contrast.FLAIR
    parameters.outputVolume, parameters.metrics = result, '{"psnr": 30.0}'
    parameters.madeFrom, parameters.madeFor = node, panel._subject()
    parameters.parameterNode.SetNodeReferenceID(module.RESULT_ROLE, result.GetID())
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrml"))
    assert slicer.mrmlScene.Commit()
    slicer.mrmlScene.Connect()
    found = panel._parameterNode
    assert (found.factor, found.seed, found.precision) == (3.0, 7, module.Precision.FP32)
    assert found.contrast is module.Contrast.FLAIR
    assert found.inputVolume is not node and slicer.mrmlScene.IsNodePresent(found.inputVolume)
    assert (found.inputVolume.GetName(), found.outputVolume.GetName()) == ("T2 thick", "result")
    assert json.loads(found.metrics) == {"psnr": 30.0} and panel._result() is found.outputVolume
    found.inputVolume = slicer.util.getFirstNodeByClassByName("vtkMRMLScalarVolumeNode", "T1 other")
    assert got(panel.ui.inputSelector, "currentText") == "T1 other", "the lists are bound again"


def test_a_scene_loaded_beside_others_volumes_keeps_its_choices(translating: Any, module: Any, tmp_path: Path) -> None:
    """Its nodes get other IDs then."""
    panel, mrml = translating, slicer.mrmlScene
    panel._parameterNode.contrast = module.Contrast.T1W
    applied(panel)
    mrml.SetURL(str(tmp_path / "scene.mrml"))
    assert mrml.Commit()
    mrml.Clear()
    panel._parameterNode.inputVolume = scan("FLAIR there")
    scan("T1 there")
    mrml.Import()
    found = panel._parameterNode
    assert (found.inputVolume.GetName(), found.contrast) == ("T2 thick", module.Contrast.T1W)
    assert found.outputVolume.GetName() == "T2 thick as FLAIR (mt-test)" and len(panel._samples()) == 3


def test_quitting_waits_for_the_worker_and_leaves_no_file(panel: Any, module: Any) -> None:
    """Called when Slicer quits or the module is reloaded: no event loop comes after it."""
    chosen(panel, module)
    panel.ui.applyButton.click()
    run = panel._run
    started = time.monotonic()
    panel.cleanup()
    assert not run.isRunning and time.monotonic() - started < 2.0
    assert not list(Path(slicer.app.temporaryPath).glob("MRSuperRes-*"))
    panel.setup()


def test_the_parameter_node_is_wrapped_once(panel: Any) -> None:
    """Each wrapper observes the node as long as the node lives: one for each visit of the module would slow it down."""
    before = panel._parameterNode
    panel.enter()
    assert panel._parameterNode is before


def test_a_sample_needs_no_network(panel: Any, module: Any) -> None:
    from MRSuperResSupport import samples

    samples.register()
    source = slicer.modules.sampleDataSources[samples.CATEGORY][0]
    thick, truth = source.customDownloader(source)
    assert "no download" in source.sampleName
    assert thick.GetSpacing()[2] == pytest.approx(samples.THICKNESS * truth.GetSpacing()[2])
    first, second = [0.0] * 6, [0.0] * 6
    thick.GetRASBounds(first)
    truth.GetRASBounds(second)
    np.testing.assert_allclose(first, second, atol=1e-4)
    assert panel.logic.guessContrast(thick) == "T1w"
    offered = [entry.card.id for entry in panel.logic.suitable(thick, "through-plane", "T1w")[0]]
    assert "rdst-e-through-x4" in offered


def test_a_sample_that_cannot_be_downloaded_is_told_in_the_panel_it_was_asked_for_in(
    module: Any, monkeypatch: Any
) -> None:
    from MRSuperResSupport import samples

    asked: list[Any] = []
    logic = types.SimpleNamespace(downloadFromSource=lambda source: asked.append(source) or [])
    monkeypatch.setattr(slicer.modules, "SampleDataWidget", types.SimpleNamespace(logic=logic), raising=False)
    assert samples.load("a source") == [] and asked == ["a source"]


def test_the_first_input_is_one_that_the_list_shows(panel: Any) -> None:
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "colours")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    node = scan()
    panel._parameterNode.inputVolume = None
    panel.initializeParameterNode()
    assert panel._parameterNode.inputVolume is node


def test_voxels_that_come_after_the_volume_are_noticed(panel: Any) -> None:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T1 new")
    panel._parameterNode.inputVolume = node
    assert "no voxels" in tip(panel)[1]
    slicer.util.updateVolumeFromArray(node, np.random.default_rng(0).random((10, 24, 20), np.float32))
    assert hidden(panel.ui.refusalLabel) and "voxels of" in got(panel.ui.estimateLabel, "text")
    node.SetSpacing(2, 2, 2)
    assert "2 × 2 ×" in got(panel.ui.estimateLabel, "text")
    panel.exit()
    assert not panel.hasObserver(node, vtk.vtkCommand.ModifiedEvent, panel._refresh)


def test_a_second_panel_after_a_reload_works(panel: Any, slicerApp: Any) -> None:
    panel.cleanup()
    module = application.load()
    second = module.MRSuperResWidget()
    second.setup()
    chosen(second, module)
    assert tip(second)[0]
    second.cleanup()
    panel.setup()


# Many volumes


def folder(*nodes: Any) -> int:
    """The nodes in a folder of the subject hierarchy, called Study; its item."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = int(hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "Study"))
    for node in nodes:
        assert hierarchy.CreateItem(item, node)
    return item


def select(panel: Any, text: str) -> None:
    """Choose in the list of folders and sequences, as it is when the section is opened."""
    put(panel.ui.manyCollapsibleButton, "collapsed", False)
    number = panel.ui.manySelector.findText(text)
    assert number >= 0, [panel.ui.manySelector.itemText(n) for n in range(got(panel.ui.manySelector, "count"))]
    put(panel.ui.manySelector, "currentIndex", number)
    assert got(panel.ui.manyButton, "enabled"), got(panel.ui.manyButton, "toolTip")


def said(panel: Any, monkeypatch: Any) -> list[str]:
    """What the status line says from now on."""
    lines: list[str] = []
    say = panel._say
    monkeypatch.setattr(panel, "_say", lambda text, style="": (lines.append(text), say(text, style)))
    return lines


def test_all_volumes_of_a_folder_are_done_into_files(panel: Any, module: Any, tmp_path: Path) -> None:
    folder(chosen(panel, module), scan("T2 other"))
    select(panel, "Study (2)")
    put(panel.ui.manyFolderEdit, "currentPath", str(tmp_path / "out"))
    panel.ui.manyButton.click()
    ended(panel)
    assert got(panel.ui.statusLabel, "text") == "2 of 2 volumes done"
    assert len(list((tmp_path / "out").glob("*.nrrd"))) == 2
    panel.ui.manyButton.click()
    ended(panel)
    assert panel.ui.logText.toPlainText().count("was there already") == 2


def test_a_bad_volume_of_a_folder_is_reported_and_the_rest_is_done(panel: Any, module: Any, monkeypatch: Any) -> None:
    bad = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T2 bad")
    item = folder(chosen(panel, module), bad, scan("T2 other"))
    lines = said(panel, monkeypatch)
    select(panel, "Study (3)")
    panel.ui.manyButton.click()
    assert got(panel.ui.applyButton, "text") == "Cancel" and not got(panel.ui.manyButton, "enabled")
    assert not hidden(panel.ui.progressBar) and got(panel.ui.progressBar, "maximum") == 3
    ended(panel)
    text = got(panel.ui.statusLabel, "text")
    assert text.startswith("2 of 3 volumes done, 1 could not be: T2 bad has no voxels")
    assert any(line.startswith("0 of 3 volumes done; T2 thick") for line in lines)
    assert any(line.startswith("2 of 3 volumes done; T2 other, super-resolving") for line in lines)
    log = panel.ui.logText.toPlainText()
    assert "T2 thick: done" in log and "T2 bad: T2 bad has no voxels" in log and "T2 other: done" in log
    assert not got(panel.ui.logCollapsibleButton, "collapsed")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    made = [n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if n.GetName().endswith("(bspline)")]
    assert [node.GetName() for node in made] == ["T2 thick SR x2 (bspline)", "T2 other SR x2 (bspline)"]
    assert {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) for node in made} == {item}
    assert got(panel.ui.manySelector, "currentText") == "Study (3)", "results must not be super-resolved again"


def test_all_frames_of_a_sequence_are_done_into_a_sequence(panel: Any, module: Any, monkeypatch: Any) -> None:
    node = chosen(panel, module)
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "T2 series")
    sequence.SetIndexName("time")
    for value in ("0", "1.5", "3"):
        slicer.util.arrayFromVolume(node)[:] += 1
        sequence.SetDataNodeAtValue(node, value)
    lines = said(panel, monkeypatch)
    select(panel, "T2 series (3)")
    panel.ui.manyButton.click()
    ended(panel)
    assert got(panel.ui.statusLabel, "text") == "3 of 3 volumes done"
    assert any(line.startswith("1 of 3 volumes done; T2 series 2") for line in lines)
    made = slicer.util.getFirstNodeByClassByName("vtkMRMLSequenceNode", "T2 series SR (bspline)")
    assert [made.GetNthIndexValue(n) for n in range(made.GetNumberOfDataNodes())] == ["0", "1.5", "3"]
    means = [slicer.util.arrayFromVolume(made.GetNthDataNode(n)).mean() for n in range(3)]
    np.testing.assert_allclose(np.diff(means), 1, atol=1e-3)
    assert made.GetNthDataNode(0).GetImageData().GetDimensions() == (20, 24, 20)
    left = {n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if n.GetHideFromEditors()}
    assert not left, "frames are taken out of the scene again"
    browser = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")[0]
    assert browser.IsSynchronizedSequenceNodeID(made.GetID(), True)
    assert panel.ui.manySelector.findText("T2 series SR (bspline) (3)") < 0, "a result is no input of the next run"


def test_cancel_stops_many_volumes_and_keeps_what_is_done(panel: Any, module: Any) -> None:
    folder(chosen(panel, module), *(scan(f"T2 {number}") for number in range(4)))
    select(panel, "Study (5)")
    panel.ui.manyButton.click()
    application.until(lambda: len(panel._run.results) == 1, 60, "the end of the first volume")
    started = time.monotonic()
    panel.ui.applyButton.click()
    ended(panel, 10)
    assert time.monotonic() - started < 2.0
    text = got(panel.ui.statusLabel, "text")
    assert text == "1 of 5 volumes done, then cancelled" and tip(panel)[0]
    names = [n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if "bspline" in n.GetName()]
    assert names == ["T2 thick SR x2 (bspline)"]
    assert not list(Path(slicer.app.temporaryPath).glob("MRSuperRes-*"))


def test_closing_the_scene_ends_many_volumes_too(panel: Any, module: Any) -> None:
    folder(chosen(panel, module), scan("T2 other"))
    select(panel, "Study (2)")
    panel.ui.manyButton.click()
    run = panel._run
    slicer.mrmlScene.Clear()
    assert panel._run is None
    application.until(lambda: not run.isRunning, 5, "the end of the worker")
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    assert hidden(panel.ui.statusLabel) and hidden(panel.ui.progressBar), "nothing is said about what is gone"


def test_many_volumes_outside_of_the_card_are_warned_about_first(panel: Any, module: Any, monkeypatch: Any) -> None:
    asked: list[str] = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **_: asked.append(text))
    one = translator(
        id="x", title="x", task="super-resolve", plane="through-plane", contrasts=("T2w",), requirements=Requirements()
    )
    monkeypatch.setattr(panel.logic, "models", lambda: [one])
    monkeypatch.setattr(panel.logic, "estimate", lambda *_, **__: None)
    folder(chosen(panel, module, model="x"), scan("FLAIR 1"), scan("T2 other"))
    select(panel, "Study (3)")
    panel.ui.manyButton.click()
    assert panel._run is None and "FLAIR 1: trained on T2w, this scan is FLAIR" in asked[0]


# Translating, with a process that answers as the worker does


class Translates:
    """Answers a translation job at once: samples that are the input plus their number, their mean and their spread."""

    jobs: ClassVar[list[dict[str, Any]]] = []
    warnings: ClassVar[list[str]] = []

    def start(self, job: Path, onLine: Any, onEnd: Any) -> None:
        self.job, self.onLine, self.onEnd = json.loads(Path(job).read_text()), onLine, onEnd
        self.isRunning = True
        self.jobs.append(self.job)

    def cancel(self) -> None:
        raise AssertionError("nobody cancels")

    def pump(self) -> None:
        if not self.isRunning:
            return
        self.isRunning = False
        job, image = self.job, sitk.ReadImage(self.job["input"])
        sitk.WriteImage(image, job["output"])
        drawn = []
        if job["samples_folder"]:
            Path(job["samples_folder"]).mkdir()
            for number in range(1, job["samples"] + 1):
                drawn.append(str(Path(job["samples_folder"]) / f"output_sample-{number:02d}.nrrd"))
                sitk.WriteImage(image + number, drawn[-1])
        maps = {name: job[name] for name in ("error_map", "uncertainty_map")}
        for path in filter(None, maps.values()):
            sitk.WriteImage(image * 0 + 1, path)
        outputs = {"output": job["output"], **maps, "samples": drawn}
        answer = {"event": "result", "outputs": outputs, "metrics": {}, "provenance": {}, "seconds": 1.0}
        self.onLine(
            json.dumps({"event": "progress", "stage": "translating", "done": 1, "total": 2, "seconds_left": 3}), False
        )
        for text in self.warnings:
            self.onLine(json.dumps({"event": "warning", "code": "any", "message": text}), False)
        self.onLine(json.dumps(answer), False)
        self.onEnd(0)


@pytest.fixture
def translating(panel: Any, module: Any, monkeypatch: Any) -> Any:
    """The panel set to translate the scan to FLAIR, and `Translates` for the worker."""
    from MRSuperResSupport import requirements

    Translates.jobs = []
    monkeypatch.setattr(panel.logic, "_process", Translates)
    monkeypatch.setattr(requirements, "ensure", lambda entry: None)
    shipped = panel.logic.models()
    monkeypatch.setattr(panel.logic, "models", lambda: [*shipped, translator(requirements=Requirements(latent=8))])
    chosen(panel, module, task=module.Task.TRANSLATE, model="mt-test", seed=11, samples=3)
    pick(panel.ui.targetSelector, "FLAIR")
    return panel


def pick(box: Any, text: str) -> None:
    """Choose the entry of a list whose text has `text` in it."""
    number = box.findText(text, application.widgets.Qt.MatchContains)
    assert number >= 0, [box.itemText(n) for n in range(got(box, "count"))]
    put(box, "currentIndex", number)


def applied(panel: Any) -> Any:
    """What a run made: the result."""
    assert tip(panel)[0], tip(panel)
    panel.ui.applyButton.click()
    ended(panel)
    return panel._parameterNode.outputVolume


def scalars() -> list[str]:
    """Names of the scalar volumes of the scene."""
    return [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]


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
    samples = panel._samples()
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
    assert panel._samples() == [] and hidden(panel.ui.sampleRow)


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
    parameters.contrast = module.Contrast.FLAIR
    assert parameters.outputVolume is None


def test_a_run_into_the_same_volume_leaves_no_samples_of_the_one_before(translating: Any) -> None:
    panel = translating
    applied(panel)
    names = scalars()
    applied(panel)
    assert scalars() == names and len(panel._samples()) == 3
    put(panel.ui.samplesSpinBox, "value", 1)
    applied(panel)
    assert scalars() == ["T2 thick", "T2 thick as FLAIR (mt-test)"], "neither samples nor their spread"


def test_samples_are_only_kept_when_wanted(translating: Any) -> None:
    panel = translating
    memory = panel._estimate()[0].memory
    put(panel.ui.keepSamplesCheckBox, "checked", False)
    assert panel._estimate()[0].memory == memory - 3 * 4 * 20 * 24 * 10
    applied(panel)
    assert Translates.jobs[0]["samples_folder"] is None and Translates.jobs[0]["uncertainty_map"]
    assert panel._samples() == [] and hidden(panel.ui.sampleRow)


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
    assert parameters.factor == 4 and panel._warnings() == [] and tip(panel)[0]
    assert panel.ui.firstModelSelector.findText("RDST-E, in-plane x2") < 0
    assert "RDST-E, in-plane x2: trained on" in got(panel.ui.firstModelSelector, "toolTip")
    assert "models to super-resolve it first" in got(panel.ui.hiddenModelsLabel, "text")
    put(panel.ui.offerAllCheckBox, "checked", True)
    pick(panel.ui.firstModelSelector, "RDST-E, in-plane x2")
    assert parameters.factor == 2
    parameters.madeFrom, parameters.madeFor = parameters.inputVolume, panel._subject()
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
    assert panel._warnings() == [], "the factor is the first model's, not the translator's"
    panel.ui.applyButton.click()
    ended(panel)
    assert (Translates.jobs[0]["super_resolve_with"], Translates.jobs[0]["factor"]) == ("bspline", 2.0)


# Comparing


def _noting(names: list[str]) -> Any:
    """An observer that notes the classes of the nodes it is told of."""

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def note(caller: Any, event: str, node: Any) -> None:
        names.append(node.GetClassName())

    return note


def test_compare_lays_out_linked_views_and_goes_back(panel: Any, module: Any) -> None:
    node = chosen(panel, module)
    result, error = scan("result", (20, 24, 20), (1, 1, 2)), scan("error")
    panel._parameterNode.parameterNode.SetNodeReferenceID(module.RESULT_ROLE, result.GetID())
    module.scene.attach(result, "errorMap", [error])
    panel._refresh()
    module.scene.colourMap(error)
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
    names = list(module.compare.VIEWS)
    legends = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
    assert len(legends) == 1 and legends[0].GetPrimaryDisplayNode() is error.GetDisplayNode()
    assert added.index("vtkMRMLColorLegendDisplayNode") > added.index("vtkMRMLSliceNode"), (
        "views show younger legends only"
    )
    assert slicer.app.layoutManager().sliceViewNames() == names
    composites = [module.compare.compositeNode(name) for name in names]
    slices = [module.compare.sliceNode(name) for name in names]
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
    panel._onFlicker()
    assert composites[1].GetForegroundOpacity() == 1.0
    panel._onFlicker()
    assert composites[1].GetForegroundOpacity() == 0.0
    assert "black is zero" in got(panel.ui.legendLabel, "text")
    panel.ui.restoreLayoutButton.click()
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView
    assert crosshair.GetCrosshairMode() == crosshair.NoCrosshair


def test_a_scene_saved_while_comparing_opens_with_views_and_a_way_back(panel: Any, module: Any, slicerApp: Any) -> None:
    layout = slicerApp.layoutManager().layoutLogic().GetLayoutNode()
    layout.SetViewArrangement(layout.SlicerLayoutConventionalView)
    for number in module.compare.LAYOUTS.values():
        layout.SetLayoutDescription(number, "")  # as in an application that has not compared yet
    module.MRSuperRes(types.SimpleNamespace())
    signal, receiver = slicerApp.connected[-1]
    assert signal == "startupCompleted()"
    receiver()
    assert all(layout.IsLayoutDescription(number) for number in module.compare.LAYOUTS.values())
    layout.SetViewArrangement(module.compare.LAYOUTS[2])  # what reading the scene does
    panel._refresh()
    assert slicerApp.layoutManager().sliceViewNames() == list(module.compare.VIEWS[:2])
    assert got(panel.ui.restoreLayoutButton, "enabled")
    panel.ui.restoreLayoutButton.click()
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView


def test_the_slider_goes_through_the_samples(panel: Any, module: Any) -> None:
    chosen(panel, module)
    mean, first, second = scan("mean"), scan("first"), scan("second")
    panel._parameterNode.parameterNode.SetNodeReferenceID(module.RESULT_ROLE, mean.GetID())
    module.scene.attach(mean, "sample", [first, second])
    panel._refresh()
    assert not hidden(panel.ui.sampleRow)
    panel.ui.compareButton.click()
    view = module.compare.compositeNode(module.compare.VIEWS[1])
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
    slicer.mrmlScene.RemoveNode(panel._samples()[2])
    assert (got(slider, "value"), red.GetBackgroundVolumeID()) == (0, mean.GetID())
    panel.ui.compareButton.click()
    put(slider, "value", 2.0)
    panel.ui.compareButton.click()
    view = module.compare.compositeNode(module.compare.VIEWS[1])
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
    view = module.compare.compositeNode(module.compare.VIEWS[2])
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
    scene, node = module.scene, scan("error")
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
