"""MRSuperRes in 3D Slicer: super-resolution and contrast translation of MR volumes. Research use only.

This file is the panel; what it asks for is done by `MRSuperResSupport.logic`, and computed in a child process.
"""

import enum
import json
import sys
from pathlib import Path
from typing import Annotated

import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

# Installed, everything lies in one folder; in a checkout the library lies one folder up.
_CHECKOUT = Path(__file__).resolve().parent.parent
if (_CHECKOUT / "MRSuperResLib" / "__init__.py").is_file() and str(_CHECKOUT) not in sys.path:
    sys.path.insert(0, str(_CHECKOUT))

from MRSuperResSupport import compare, scene  # noqa: E402
from MRSuperResSupport.logic import MAPS, MRSuperResLogic, RunRequest, refinedSpacing  # noqa: E402

from MRSuperResLib.errors import MRSuperResError  # noqa: E402

__all__ = ["MRSuperRes", "MRSuperResLogic", "MRSuperResParameterNode", "MRSuperResTest", "MRSuperResWidget"]

RESULT_ROLE = "MRSuperRes.result"  # node reference of the parameter node to the last result, which the comparison shows
OUTPUTS = ("outputVolume", *MAPS)
INPUT_EVENTS = (
    vtk.vtkCommand.ModifiedEvent,
    vtkMRMLScalarVolumeNode.ImageDataModifiedEvent,
    vtkMRMLScalarVolumeNode.TransformModifiedEvent,
)
LEAST_OVERLAP = 0.5  # share of the scan a reference should cover


class MRSuperRes(ScriptedLoadableModule):
    """What Slicer's module list, help and start-up need to know."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("MRSuperRes")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Filtering")]
        self.parent.dependencies = []
        self.parent.contributors = ["MRSuperRes contributors"]
        self.parent.helpText = _(
            "<p>Makes coarse MR volumes finer, in plane or through plane, alone or guided by a sharp scan of the same "
            "patient, and translates between contrasts. Pick a volume, a task and a model, and press Apply; then press "
            "Compare.</p>"
            "<p>Models state what they were trained on. Outside of it you are warned before running. The consistency "
            "map shows where a result disagrees with what was acquired, the uncertainty map where a model could have "
            "answered otherwise.</p>"
            "<p><b>Research use only.</b> Not for diagnosis or treatment.</p>"
        )
        self.parent.acknowledgementText = _(
            "<p>The models implement published work: RDST (residual dense Swin transformer), TransMRSR (generative "
            "prior through plane), MTSR-MRI (super-resolution and translation), FASR-Net (reference-guided) and "
            "DisViT (disentangled representation losses). Each model's card cites its paper.</p>"
        )
        slicer.app.connect("startupCompleted()", _register)


def _register():
    """Tell the application of the samples, and of the comparing layouts that a scene to be loaded may need."""
    from MRSuperResSupport import samples

    samples.register()
    compare.registerLayouts()


class Task(enum.Enum):
    """What to do; the value is what models and jobs call it."""

    IN_PLANE = "in-plane"
    THROUGH_PLANE = "through-plane"
    GUIDED = "reference-guided"
    TRANSLATE = "translate"

    def label(self):
        """For people."""
        return {
            "in-plane": _("Super-resolve in plane"),
            "through-plane": _("Super-resolve through plane"),
            "reference-guided": _("Super-resolve, guided by a reference"),
            "translate": _("Translate to another contrast"),
        }[self.value]

    @property
    def kind(self):
        """The task of a model card and of a job."""
        return "super-resolve" if self in (Task.IN_PLANE, Task.THROUGH_PLANE) else self.value

    @property
    def plane(self):
        """The plane a job is asked for, None where the model decides."""
        return self.value if self in (Task.IN_PLANE, Task.THROUGH_PLANE) else None


class Contrast(enum.Enum):
    """The scan's weighting."""

    UNKNOWN = ""
    T1W = "T1w"
    T2W = "T2w"
    FLAIR = "FLAIR"
    PDW = "PDw"

    def label(self):
        """For people."""
        return self.value or _("Unknown")


class SizeMode(enum.Enum):
    """How the fineness of the result is asked for."""

    FACTOR = "factor"
    SPACING = "spacing"

    def label(self):
        """For people."""
        return _("By a factor") if self is SizeMode.FACTOR else _("To a voxel size")


class Device(enum.Enum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"

    def label(self):
        """For people."""
        return {
            "auto": _("Automatic"),
            "cpu": _("Processor (CPU)"),
            "cuda": _("NVIDIA GPU (CUDA)"),
            "mps": _("Apple GPU (MPS)"),
        }[self.value]


class Precision(enum.Enum):
    """Numbers to compute with."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"

    def label(self):
        """For people."""
        return {
            "auto": _("Automatic"),
            "fp32": _("Full (32 bit)"),
            "bf16": _("Half (bfloat16)"),
            "fp16": _("Half (float16)"),
        }[self.value]


@parameterNodeWrapper
class MRSuperResParameterNode:
    """Everything the panel remembers; saved and restored with the scene.

    offerAll: also models that were not made for the scan, after a warning. spacing: mm along the axes the task refines.
    guessedFor: the volume whose contrast was guessed. metrics: JSON. madeFrom, madeFor: the input that the outputs now chosen
    were made from, and how, see `_subject`; "" if a run made none of them.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    contrast: Contrast = Contrast.UNKNOWN
    guessedFor: vtkMRMLScalarVolumeNode
    task: Task = Task.THROUGH_PLANE
    model: str = ""
    offerAll: bool = False
    sizeMode: SizeMode = SizeMode.FACTOR
    factor: Annotated[float, WithinRange(1.1, 16.0)] = 4.0
    spacing: Annotated[float, WithinRange(0.1, 10.0)] = 1.0
    referenceVolume: vtkMRMLScalarVolumeNode
    register: bool = True
    target: str = ""
    samples: Annotated[int, WithinRange(1, 100)] = 8
    keepSamples: bool = True
    seed: Annotated[int, WithinRange(0, 999999)] = 0
    firstModel: str = ""
    truthVolume: vtkMRMLScalarVolumeNode
    outputVolume: vtkMRMLScalarVolumeNode
    errorMap: vtkMRMLScalarVolumeNode
    consistencyMap: vtkMRMLScalarVolumeNode
    uncertaintyMap: vtkMRMLScalarVolumeNode
    makeErrorMap: bool = True
    makeConsistencyMap: bool = False
    makeUncertaintyMap: bool = True
    device: Device = Device.AUTO
    precision: Precision = Precision.AUTO
    project: bool = False
    metrics: str = ""
    madeFrom: vtkMRMLScalarVolumeNode
    madeFor: str = ""


class MRSuperResWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: shows what is possible, starts and stops the work, shows the results."""

    def __init__(self, parent=None):
        self.logic = None
        self.ui = None
        self._parameterNode = None
        self._guiTag = None
        self._run = None  # the run in progress, of one volume or of many
        self._offered = []
        self._firstModels = []
        self._targets = []
        self._collections = []  # what holds several volumes
        self._resultMaps = []  # that the comparison can show
        self._watched = None  # the volume whose changes are observed
        self._refreshing = False
        self._starting = False  # installing may let the user press Apply once more
        self._overlaid = False  # the reference lies over the slice views, to show the overlap
        self._compare = None
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    # Life of the panel

    def setup(self):
        """Build the panel. Called once, when the module is first opened, and on reload."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MRSuperRes.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = MRSuperResLogic()
        self._compare = compare.Comparison()
        self._flicker = qt.QTimer()
        self._flicker.interval = compare.FLICKER_MILLISECONDS
        self._flicker.timeout.connect(self._onFlicker)
        self._dress()
        self._connect()
        mrml = slicer.mrmlScene
        self.addObserver(mrml, mrml.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(mrml, mrml.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(mrml, mrml.StartImportEvent, self.onSceneStartImport)
        self.addObserver(mrml, mrml.EndImportEvent, self.onSceneEndImport)
        self.addObserver(mrml, mrml.NodeRemovedEvent, self._onNodeRemoved)
        self.initializeParameterNode()

    def cleanup(self):
        """Let go of everything. Called before a reload and when the application closes: nothing can be waited for after."""
        run = self._run
        self._abandonRun()
        if run is not None:
            run.end()
        self._flicker.stop()
        self._compare.forget()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        """The user opened the module."""
        self.initializeParameterNode()
        self._fillMany()

    def exit(self):
        """The user opened another module."""
        self.ui.flickerButton.checked = False
        self._watch(None)

    def onReload(self):
        """Reload the panel and what it is made of, not only this file."""
        for name in [name for name in sys.modules if name.split(".")[0] in ("MRSuperResSupport", "MRSuperResLib")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller=None, event=None):
        """The nodes are about to go."""
        self._abandonRun()
        self._flicker.stop()
        self.ui.flickerButton.checked = False
        self._compare.forget()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller=None, event=None):
        """The scene is empty."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneStartImport(self, caller=None, event=None):
        """A scene comes node by node: the lists it fills must not choose in place of what was saved (Slicer issue 7492)."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)

    def onSceneEndImport(self, caller=None, event=None):
        """A scene was loaded, perhaps with a parameter node of ours in it, whose volumes are only now all there."""
        if self._parameterNode is not None or self.parent.isEntered:
            self.setParameterNode(None)
            self.initializeParameterNode()

    def _onNodeRemoved(self, caller=None, event=None):
        if self._parameterNode is None or slicer.mrmlScene.IsClosing():
            return
        slider = self.ui.sampleSlider
        shown, count = slider.value, slider.maximum
        self._refresh()
        if shown > 0 and slider.maximum < count:  # perhaps it was the one in the views
            slider.value = 0.0
            self._onSample(0.0)

    def _watch(self, volume):
        """Follow the voxels and the place of `volume`, and of no other; None: of none."""
        if volume is self._watched:
            return
        for event in INPUT_EVENTS:
            if self._watched is not None:
                self.removeObserver(self._watched, event, self._refresh)
            if volume is not None:
                self.addObserver(volume, event, self._refresh)
        self._watched = volume

    def initializeParameterNode(self):
        """Use the scene's parameter node; take the first volume as input if none is chosen."""
        node = self.logic.getParameterNode()
        if self._parameterNode is None or self._parameterNode.parameterNode is not node:
            self.setParameterNode(MRSuperResParameterNode(node))
        self._refresh()
        if self._live(self._parameterNode.inputVolume) is None:
            offered = [  # what the list shows: neither label maps nor colour volumes, which are of derived classes
                node
                for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
                if node.GetClassName() == "vtkMRMLScalarVolumeNode" and not node.GetHideFromEditors()
            ]
            if offered:
                self._parameterNode.inputVolume = offered[0]

    def setParameterNode(self, parameterNode):
        """Bind the panel to `parameterNode` (a `MRSuperResParameterNode`), or to none."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self._refresh)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            widgets = [w for w in vars(self.ui).values() if w.property("SlicerParameterName")]
            self._guiTag = parameterNode.connectParametersToGui(
                {str(widget.property("SlicerParameterName")): widget for widget in widgets}
            )
            self.addObserver(parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self._refresh)
            self._refresh()
        else:
            self._watch(None)

    def _dress(self):
        """What a .ui file cannot say."""
        self.ui.metricsTable.setHorizontalHeaderLabels([_("Against ground truth"), _("Head"), _("Whole volume")])
        for widget in vars(self.ui).values():
            if type(widget) == qt.QLabel and widget.buddy() is not None:  # noqa: E721 - how PythonQt tells
                widget.toolTip = widget.buddy().toolTip
        self.ui.metricsTable.verticalHeader().visible = False
        header = self.ui.metricsTable.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.Stretch)
        header.setSectionResizeMode(0, qt.QHeaderView.ResizeToContents)
        self.ui.metricsTable.visible = False
        self.ui.progressBar.visible = False
        self.ui.statusLabel.visible = False
        self.ui.hiddenModelsLabel.visible = False
        self.ui.overlapLabel.visible = False
        self.ui.researchLabel.styleSheet = "QLabel { font-weight: bold; padding: 3px; }"
        self.ui.warningLabel.styleSheet = (
            "QLabel { background: #fff3cd; color: #664d03; border: 1px solid #e0c36a; border-radius: 3px;"
            " padding: 5px; }"
        )

    def _connect(self):
        ui = self.ui
        ui.applyButton.clicked.connect(self.onApplyButton)
        ui.modelSelector.currentIndexChanged.connect(self._onModel)
        ui.firstModelSelector.currentIndexChanged.connect(self._onFirstModel)
        ui.targetSelector.currentIndexChanged.connect(self._onTarget)
        ui.overlapButton.clicked.connect(self.onOverlapButton)
        ui.compareButton.clicked.connect(self.onCompareButton)
        ui.restoreLayoutButton.clicked.connect(self.onRestoreLayoutButton)
        ui.blendSlider.valueChanged.connect(self._onBlend)
        ui.flickerButton.toggled.connect(self._onFlickerButton)
        ui.mapSelector.currentIndexChanged.connect(self._onMap)
        ui.sampleSlider.valueChanged.connect(self._onSample)
        ui.manyButton.clicked.connect(self.onManyButton)
        ui.manyCollapsibleButton.contentsCollapsed.connect(self._onManyCollapsed)

    # What is possible: everything below the task follows from the volume, the task and the cards

    @staticmethod
    def _live(node):
        """`node` if it still is in the scene; parameter nodes remember deleted ones."""
        return node if node is not None and slicer.mrmlScene.IsNodePresent(node) else None

    @property
    def _isRunning(self):
        return self._run is not None

    def _refresh(self, caller=None, event=None):
        """Bring the whole panel in line with the parameter node and the scene."""
        mrml = slicer.mrmlScene
        if self._parameterNode is None or self._refreshing or mrml.IsClosing() or mrml.IsImporting():
            return
        self._refreshing = True
        try:
            self._watch(self._live(self._parameterNode.inputVolume) if self.parent.isEntered else None)
            self._guessContrast()
            self._showRows()
            self._showHidden(self._fillModels() + self._fillTranslation())
            self._leaveResults()  # what is chosen is settled now
            estimate, problem = self._estimate()
            self._showEstimate(estimate)
            self._showWarnings()
            self._showMetrics()
            self._showCompare()
            self._showApply(problem)
        finally:
            self._refreshing = False

    def _guessContrast(self):
        parameters = self._parameterNode
        volume = self._live(parameters.inputVolume)
        if volume is parameters.guessedFor:
            return
        parameters.guessedFor = volume
        if volume is None:
            return
        guess = self.logic.guessContrast(volume)
        parameters.contrast = next((c for c in Contrast if c.value == guess), Contrast.UNKNOWN)

    def _subject(self):
        """What else than the input makes a result what its name says it is."""
        parameters = self._parameterNode
        choices = [parameters.task.name, parameters.model]
        if parameters.task is Task.TRANSLATE:
            choices += [parameters.contrast.name, parameters.target, parameters.firstModel]
        if parameters.task is not Task.TRANSLATE or parameters.firstModel:
            choices += [parameters.sizeMode.name, parameters.factor, parameters.spacing]
        return " ".join(map(str, choices))

    def _leaveResults(self):
        """Once input or subject are others, the next results get volumes of their own, and overwrite none."""
        parameters = self._parameterNode
        sameInput = self._live(parameters.inputVolume) is parameters.madeFrom
        if not parameters.madeFor or (sameInput and parameters.madeFor == self._subject()):
            return
        parameters.madeFor = ""
        for name in OUTPUTS:
            setattr(parameters, name, None)
        if not sameInput:
            parameters.metrics = ""
            parameters.parameterNode.RemoveNodeReferenceIDs(RESULT_ROLE)

    def _result(self):
        """The node the last run on this input made, None if there is none any more."""
        return self._live(self._parameterNode.parameterNode.GetNodeReference(RESULT_ROLE))

    def _showRows(self):
        """Only the rows that the task needs."""
        ui, task = self.ui, self._parameterNode.task
        guided, translate_ = task is Task.GUIDED, task is Task.TRANSLATE
        enlarges = not translate_ or bool(self._parameterNode.firstModel)
        byFactor = self._parameterNode.sizeMode is SizeMode.FACTOR
        rows = (
            (guided, (ui.referenceLabel, ui.referenceRow, ui.registerCheckBox)),
            (
                translate_,
                (
                    ui.targetLabel,
                    ui.targetSelector,
                    ui.samplesLabel,
                    ui.samplesRow,
                    ui.firstLabel,
                    ui.firstModelSelector,
                )
                + (ui.uncertaintyMapCheckBox, ui.uncertaintyMapSelector, ui.keepSamplesCheckBox),
            ),
            (enlarges, (ui.sizeLabel, ui.sizeRow)),
            (enlarges and byFactor, (ui.factorSpinBox,)),
            (enlarges and not byFactor, (ui.spacingSpinBox,)),
            (not translate_, (ui.consistencyMapCheckBox, ui.consistencyMapSelector, ui.projectCheckBox)),
            (guided and bool(ui.overlapLabel.text), (ui.overlapLabel,)),
        )
        for visible, widgets in rows:
            for widget in widgets:
                widget.visible = visible
        hasTruth = self._live(self._parameterNode.truthVolume) is not None
        ui.errorMapCheckBox.enabled = hasTruth
        ui.errorMapSelector.enabled = hasTruth and self._parameterNode.makeErrorMap
        ui.consistencyMapSelector.enabled = self._parameterNode.makeConsistencyMap
        ui.uncertaintyMapSelector.enabled = self._parameterNode.makeUncertaintyMap
        refusal = self._refusal()
        ui.refusalLabel.text = refusal
        ui.refusalLabel.visible = bool(refusal)

    def _refusal(self):
        volume = self._live(self._parameterNode.inputVolume)
        return self.logic.refusal(volume) if volume else ""

    def _fillModels(self):
        """Offer the models whose cards suit; returns lines that say why the others are hidden."""
        parameters, ui = self._parameterNode, self.ui
        offered, hidden = [], []
        volume = self._live(parameters.inputVolume)
        if volume is not None and not self._refusal():
            offered, hidden = self.logic.suitable(
                volume, parameters.task.value, parameters.contrast.value, self._live(parameters.referenceVolume)
            )
        self._offered = offered + [entry for entry, _reason in hidden] if parameters.offerAll else offered
        offered = self._offered
        if parameters.model not in [entry.card.id for entry in offered] and offered:
            parameters.model = _preferred(offered).card.id
        _fill(ui.modelSelector, [entry.card.title for entry in offered], self._index(offered, parameters.model))
        ui.modelSelector.enabled = bool(offered)
        entry = self._entry()
        ui.cardLabel.text = self.logic.describe(entry) if entry else ""
        ui.cardLabel.visible = entry is not None
        return _reasons(hidden)

    def _showHidden(self, lines):
        """Which models are not offered and why, and how to have them."""
        self.ui.hiddenModelsLabel.text = "\n".join([_("Not made for this scan:"), *lines])
        for widget in (self.ui.hiddenModelsLabel, self.ui.offerAllCheckBox):
            widget.visible = bool(lines)

    @staticmethod
    def _index(entries, identity):
        return next((number for number, entry in enumerate(entries) if entry.card.id == identity), -1)

    def _entry(self):
        """The chosen model, None if there is none."""
        number = self._index(self._offered, self._parameterNode.model)
        return self._offered[number] if number >= 0 else None

    def _fillTranslation(self):
        """Target contrasts of the card, and models that may enlarge the scan first; returns a line on those hidden."""
        parameters, ui = self._parameterNode, self.ui
        entry = self._entry()
        if parameters.task is not Task.TRANSLATE or entry is None:
            self._targets, self._firstModels = [], []
            _fill(ui.targetSelector, [], -1)
            _fill(ui.firstModelSelector, [], -1)
            return []
        self._targets = [target for target in entry.card.target_contrasts if target != parameters.contrast.value]
        if parameters.target not in self._targets:
            parameters.target = self._targets[0] if self._targets else ""
        current = self._targets.index(parameters.target) if parameters.target in self._targets else -1
        _fill(ui.targetSelector, self._targets, current)
        volume = self._live(parameters.inputVolume)
        self._firstModels, hidden = [], []
        for task in (Task.IN_PLANE, Task.THROUGH_PLANE):
            suiting, others = self.logic.suitable(volume, task.value, parameters.contrast.value)
            self._firstModels += [e for e in suiting if e not in self._firstModels]
            hidden += [other for other in others if other not in hidden]
        if parameters.offerAll:
            self._firstModels += [entry for entry, _reason in hidden]
        if self._index(self._firstModels, parameters.firstModel) < 0:
            parameters.firstModel = ""
        titles = [_("No"), *(entry.card.title for entry in self._firstModels)]
        _fill(ui.firstModelSelector, titles, self._index(self._firstModels, parameters.firstModel) + 1)
        for widget in (ui.samplesSpinBox, ui.seedSpinBox):
            widget.enabled = self._draws()
        several = self._draws() and parameters.samples > 1
        ui.uncertaintyMapCheckBox.enabled = ui.keepSamplesCheckBox.enabled = several
        ui.uncertaintyMapSelector.enabled = several and parameters.makeUncertaintyMap
        tip = _("A model that enlarges the scan before it is translated.")
        ui.firstModelSelector.toolTip = tip
        if not hidden:
            return []
        ui.firstModelSelector.toolTip = "\n".join([tip, _("Not made for this scan:"), *_reasons(hidden)])
        return [
            _("{count} models to super-resolve it first.").format(count=len(hidden))
        ]  # their list's tooltip says why

    def _draws(self):
        """Whether the chosen model can give several answers."""
        entry = self._entry()
        return entry is not None and entry.card.task == "translate" and entry.card.requirements.latent > 0

    def _size(self):
        """The size asked for, as the logic takes it: a factor, or mm along i, j, k."""
        parameters = self._parameterNode
        if parameters.task is Task.TRANSLATE and not parameters.firstModel:
            return {"factor": None, "spacing": None}
        if parameters.sizeMode is SizeMode.FACTOR:
            return {"factor": parameters.factor, "spacing": None}
        volume = self._live(parameters.inputVolume)
        return {"factor": None, "spacing": refinedSpacing(volume, self._plane(), parameters.spacing)}

    def _plane(self):
        """The plane that will be refined, as far as it is known before the model decides."""
        parameters = self._parameterNode
        if parameters.task.plane:
            return parameters.task.plane
        if parameters.task is Task.TRANSLATE:
            number = self._index(self._firstModels, parameters.firstModel)
            entry = self._firstModels[number] if number >= 0 else None
        else:
            entry = self._entry()
        return entry.card.plane if entry and entry.card.plane != "any" else None

    def _estimate(self):
        """What the run would make, None if that is not known; and what stands in its way, "" if nothing does."""
        parameters = self._parameterNode
        volume, entry = self._live(parameters.inputVolume), self._entry()
        if volume is None or entry is None or self._refusal():
            return None, ""
        more = {"plane": self._plane()}
        if parameters.task is Task.TRANSLATE:
            kept = parameters.samples if self._draws() and parameters.samples > 1 and parameters.keepSamples else 0
            more |= {"firstModel": parameters.firstModel, "keptSamples": kept}
        try:
            return self.logic.estimate(volume, entry.card.id, **self._size(), **more), ""
        except MRSuperResError as error:
            return None, error.message

    def _showEstimate(self, estimate):
        text = "–"
        if estimate is not None:
            size = " × ".join(str(count) for count in estimate.grid.size)
            spacing = " × ".join(f"{length:.3g}" for length in estimate.grid.spacing)
            text = _("{size} voxels of {spacing} mm\nNeeds about {memory} of memory").format(
                size=size, spacing=spacing, memory=_bytes(estimate.memory)
            )
            if estimate.device_memory:
                text += _(" and {memory} on the GPU").format(memory=_bytes(estimate.device_memory))
        self.ui.estimateLabel.text = text

    def _warnings(self):
        """What the card does not cover, in plain words."""
        parameters, entry = self._parameterNode, self._entry()
        volume = self._live(parameters.inputVolume)
        if volume is None or entry is None or self._refusal():
            return []
        more = {"plane": self._plane(), "referenceNode": self._live(parameters.referenceVolume)}
        if parameters.task is Task.TRANSLATE:
            more["firstModel"] = parameters.firstModel
        try:
            return self.logic.warnings(volume, entry.card.id, parameters.contrast.value, **self._size(), **more)
        except MRSuperResError:  # a size that cannot be: Apply says so
            return []

    def _showWarnings(self):
        warnings = self._warnings()
        self.ui.warningLabel.text = "\n".join(warnings)
        self.ui.warningLabel.visible = bool(warnings)

    def _missing(self, problem):
        """What keeps Apply from being pressed, in one line; "" if nothing does."""
        parameters = self._parameterNode
        volume, reference = self._live(parameters.inputVolume), self._live(parameters.referenceVolume)
        truth, output = self._live(parameters.truthVolume), self._live(parameters.outputVolume)
        if volume is None:
            return _("Select the volume to work on.")
        if self._refusal():
            return self._refusal()
        if parameters.task.value not in self.logic.tasks():
            return _("There is no model for this task here: choose another task, or install a model.")
        if self._entry() is None:
            return _(
                "No model was made for this scan: choose another task, correct the contrast, or offer the others too."
            )
        if parameters.task is Task.GUIDED:
            if reference is None:
                return _("Select the sharp reference scan of the same patient.")
            if reference is volume:
                return _("The reference must be another scan than the input.")
            if self.logic.refusal(reference):
                return _("Reference: {reason}").format(reason=self.logic.refusal(reference))
        if parameters.task is Task.TRANSLATE and parameters.contrast is Contrast.UNKNOWN:
            return _("Choose the scan's contrast.")
        if parameters.task is Task.TRANSLATE and not parameters.target:
            return _("This model makes no contrast other than the scan's own: choose another model.")
        if truth is not None and self.logic.refusal(truth):
            return _("Ground truth: {reason}").format(reason=self.logic.refusal(truth))
        outputs = [output, *(self._live(node) for node, wanted in self._maps().values() if wanted)]
        outputs = [node for node in outputs if node is not None]
        if any(node in (volume, reference, truth) for node in outputs):
            return _("The outputs must be other volumes than the inputs.")
        if len(outputs) != len({node.GetID() for node in outputs}):
            return _("Each output needs a volume of its own.")
        return problem

    def _maps(self):
        """The maps by name: the node chosen for each and whether it will be made."""
        parameters = self._parameterNode
        translates = parameters.task is Task.TRANSLATE
        several = self._draws() and parameters.samples > 1
        hasTruth = self._live(parameters.truthVolume) is not None
        return {
            "errorMap": (parameters.errorMap, parameters.makeErrorMap and hasTruth),
            "consistencyMap": (parameters.consistencyMap, parameters.makeConsistencyMap and not translates),
            "uncertaintyMap": (parameters.uncertaintyMap, parameters.makeUncertaintyMap and several),
        }

    def _showApply(self, problem):
        button = self.ui.applyButton
        for section in (self.ui.inputsCollapsibleButton, self.ui.outputsCollapsibleButton):
            section.enabled = not self._isRunning
        self.ui.advancedCollapsibleButton.enabled = not self._isRunning
        if self._isRunning:
            button.text, button.enabled = _("Cancel"), True
            button.toolTip = _("Stop. Nothing is changed; of many volumes, those that are done stay.")
            self.ui.manyButton.enabled = False
            return
        missing = self._missing(problem)
        button.text, button.enabled = _("Apply"), not missing
        button.toolTip = missing or _("Run the model. You can go on working meanwhile.")
        self._showMany(missing)

    # Running

    def onApplyButton(self, checked=False):
        """Start; or, while running, cancel."""
        if self._isRunning:
            self.ui.applyButton.enabled = False
            self._say(_("Cancelling…"))
            self._run.cancel()
            return
        if self._starting or not self._confirmed(self._warnings()):
            return
        self._begin()
        try:
            run = self.logic.start(
                self._request(),
                onProgress=self._onProgress,
                onWarning=self._onWarning,
                onLog=self._onLog,
                onFinished=self._onFinished,
            )
        except MRSuperResError as error:
            self._fail(error.message)
        else:
            self._follow(run)
        finally:
            self._starting = False
        self._refresh()

    @staticmethod
    def _confirmed(warnings):
        """Whether the user wants to run in spite of `warnings`."""
        return not warnings or slicer.util.confirmOkCancelDisplay(
            _("The model was not made for this scan:") + "\n\n" + "\n".join(warnings) + "\n\n" + _("Run it anyway?"),
            windowTitle=_("Outside of what the model was trained on"),
        )

    def _follow(self, run):
        """Make `run` the one in progress; it may have ended before it could be."""
        self._run = run
        if not run.isRunning:
            self._onFinished(run)

    def _say(self, text, style=""):
        """The line under the progress bar."""
        self.ui.statusLabel.text = text
        self.ui.statusLabel.styleSheet = style
        self.ui.statusLabel.visible = bool(text)

    def _begin(self):
        """Empty what tells of the last run."""
        self._starting = True
        self.ui.logText.clear()
        self._say(_("Starting…"))
        self.ui.progressBar.setRange(0, 0)
        self.ui.progressBar.visible = True
        self._parameterNode.metrics = ""

    def _request(self):
        """The run the panel asks for."""
        parameters = self._parameterNode
        guided, translates = parameters.task is Task.GUIDED, parameters.task is Task.TRANSLATE
        maps = {name: (self._live(node) or True) if wanted else None for name, (node, wanted) in self._maps().items()}
        return RunRequest(
            input=self._live(parameters.inputVolume),
            model=parameters.model,
            task=parameters.task.kind,
            plane=parameters.task.plane,
            contrast=parameters.contrast.value,
            reference=self._live(parameters.referenceVolume) if guided else None,
            register=parameters.register,
            truth=self._live(parameters.truthVolume),
            target=parameters.target if translates else "",
            samples=parameters.samples if self._draws() else None,
            keepSamples=parameters.keepSamples,
            seed=parameters.seed,
            output=self._live(parameters.outputVolume),
            project=parameters.project and not translates,
            device=parameters.device.value,
            precision=parameters.precision.value,
            superResolveWith=parameters.firstModel or None if translates else None,
            **self._size(),
            **maps,
        )

    def _onProgress(self, stage, done, total, secondsLeft=None):
        self.ui.progressBar.setRange(0, max(0, int(total)))
        self.ui.progressBar.value = int(done)
        self._say(_progressText(stage, done, total, secondsLeft))

    def _onWarning(self, code, message):
        self.ui.logText.appendPlainText(_("Warning: {message}").format(message=message))

    def _onLog(self, line):
        self.ui.logText.appendPlainText(str(line).rstrip())

    def _onFinished(self, run):
        """The run ended, one way or another."""
        if run is not self._run or self._parameterNode is None:  # abandoned: the scene was closed meanwhile
            return
        self._run = None
        self.ui.progressBar.visible = False
        if run.error is not None:
            self._fail(run.error.message, cancelled=run.error.code == "cancelled")
        else:
            self._show(run.result)
        self._refresh()

    def _fail(self, message, cancelled=False):
        self._run = None
        self.ui.progressBar.visible = False
        if cancelled:
            self._say(_("Cancelled. Nothing was changed."))
            return
        self._say(message, "QLabel { color: #c62828; font-weight: bold; }")
        self.ui.logText.appendPlainText(_("Error: {message}").format(message=message))
        slicer.util.errorDisplay(message, windowTitle=_("MRSuperRes"))

    def _abandonRun(self):
        """Cancel a run nobody waits for any more."""
        run, self._run = self._run, None
        if run is not None:
            run.cancel()
            self.ui.progressBar.visible = False
            self._say("")

    def _show(self, result):
        """Put the results into the panel, and on the screen."""
        parameters = self._parameterNode
        with slicer.util.NodeModify(parameters.parameterNode):
            parameters.outputVolume = result.output
            for name in MAPS:
                node = getattr(result, name)
                if node is not None:
                    setattr(parameters, name, node)
            parameters.metrics = json.dumps(result.metrics) if result.metrics else ""
            parameters.madeFrom, parameters.madeFor = parameters.inputVolume, self._subject()
            parameters.parameterNode.SetNodeReferenceID(RESULT_ROLE, result.output.GetID())
        self.ui.sampleSlider.value = 0.0
        if self._compare.isShown:
            self.onCompareButton()
        else:
            self._present(result.output)
        text = _("Done in {seconds:.0f} s: {name}").format(seconds=result.seconds, name=result.output.GetName())
        if result.warnings:
            text += "\n" + _("Warning: {message}").format(message=result.warnings[0])
            self.ui.logCollapsibleButton.collapsed = False
        if len(result.warnings) > 1:
            text += " " + _("({count} more in the log)").format(count=len(result.warnings) - 1)
        self._say(text)

    def _present(self, node):
        """Show `node` in the slice views, without the reference that may lie over them."""
        layers = {"foreground": None} if self._overlaid else {}
        slicer.util.setSliceViewerLayers(background=node, **layers)
        self._overlaid = False

    # Results

    def _showMetrics(self):
        """The scores of the last run, kept with the scene."""
        table, text = self.ui.metricsTable, self._parameterNode.metrics
        scores = json.loads(text) if text else {}
        rows = [(name, key, form) for name, key, form in _scores() if scores.get(key) is not None]
        table.rowCount = len(rows)
        for number, (name, key, form) in enumerate(rows):
            whole = scores.get(f"{key}_whole")
            cells = (name, form.format(scores[key]), "" if whole is None else form.format(whole))
            for column, cell in enumerate(cells):
                table.setItem(number, column, qt.QTableWidgetItem(cell))
        table.visible = bool(rows)

    def _samples(self):
        """The samples of the last translation that still are in the scene."""
        result = self._result()
        return scene.attached(result, "sample") if result is not None else []

    def _shownMap(self):
        """The map chosen to be compared, None if there is none."""
        number = self.ui.mapSelector.currentIndex
        return self._resultMaps[number] if 0 <= number < len(self._resultMaps) else None

    def _showCompare(self):
        ui, parameters = self.ui, self._parameterNode
        volume, result = self._live(parameters.inputVolume), self._result()
        ready = volume is not None and result is not None
        ui.compareButton.enabled = ready
        ui.compareButton.toolTip = (
            _("Input, result and map in linked views with the same window, zoom and cross-hair.")
            if ready
            else _("There is no result to compare yet.")
        )
        shown = self._compare.isShown
        ui.restoreLayoutButton.enabled = shown
        for widget in (ui.blendSlider, ui.blendLabel, ui.flickerButton):
            widget.enabled = shown
        samples = self._samples()
        for widget in (ui.sampleLabel, ui.sampleRow):
            widget.visible = bool(samples)
        ui.sampleSlider.maximum = float(len(samples))
        self._resultMaps = [node for name in MAPS for node in scene.attached(result, name)] if ready else []
        current = min(max(0, ui.mapSelector.currentIndex), len(self._resultMaps) - 1)
        _fill(ui.mapSelector, [node.GetName() for node in self._resultMaps], current)
        for widget in (ui.mapLabel, ui.mapSelector):
            widget.visible = len(self._resultMaps) > 1
        ui.legendLabel.text = self._compare.caption if shown else ""
        ui.legendLabel.visible = shown and bool(self._compare.caption)

    def onCompareButton(self, checked=False):
        """Input | result (| map), side by side."""
        parameters = self._parameterNode
        volume, result = self._live(parameters.inputVolume), self._result()
        if volume is None or result is None:
            return
        self.ui.sampleSlider.value = 0.0
        self._compare.show(volume, result, self._shownMap(), through=self._plane() == "through-plane")
        self._compare.setBlend(self.ui.blendSlider.value)
        self._refresh()

    def onRestoreLayoutButton(self, checked=False):
        """The layout the user had."""
        self.ui.flickerButton.checked = False
        self._compare.restore()
        self._refresh()

    def _onBlend(self, value):
        self._compare.setBlend(value)

    def _onFlickerButton(self, on):
        if on:
            self._flicker.start()
        else:
            self._flicker.stop()
            self._compare.setBlend(self.ui.blendSlider.value)

    def _onFlicker(self):
        self._compare.swap()

    def _onMap(self, _entry=None):
        if not self._refreshing and self._compare.isShown and self._shownMap() is not None:
            self._compare.showMap(self._shownMap())
            self._refresh()

    def _onSample(self, value):
        """Show the mean (0) or a sample (1 and up)."""
        if self._parameterNode is None or self._refreshing:
            return
        samples, number = self._samples(), round(value)
        node = samples[number - 1] if 1 <= number <= len(samples) else self._result()
        if node is None:
            return
        if self._compare.isShown:
            self._compare.showResult(node)
        else:
            self._present(node)
        self._say(node.GetName())

    def onOverlapButton(self, checked=False):
        """Say how much of the scan the reference covers."""
        volume = self._live(self._parameterNode.inputVolume)
        reference = self._live(self._parameterNode.referenceVolume)
        if volume is None or reference is None:
            text = _("Select the volume and the reference first.")
        else:
            try:
                share = self.logic.overlap(volume, reference)
            except MRSuperResError as error:
                text = error.message
            else:
                text = _("The reference covers {share:.0%} of the scan.").format(share=share)
                if share < LEAST_OVERLAP:
                    text += " " + _("Is it of the same patient and body part?")
                layers = {"background": volume, "foreground": reference, "foregroundOpacity": 0.5}
                slicer.util.setSliceViewerLayers(fit=True, **layers)
                self._overlaid = True
        self.ui.overlapLabel.text = text
        self._refresh()

    # Choices in lists whose entries depend on the scan. Signals say index or text, by Qt's version: the index is asked for

    def _onModel(self, _entry=None):
        number = self.ui.modelSelector.currentIndex
        if not self._refreshing and self._parameterNode is not None and 0 <= number < len(self._offered):
            self._parameterNode.model = self._offered[number].card.id

    def _onFirstModel(self, _entry=None):
        number = self.ui.firstModelSelector.currentIndex
        if self._refreshing or self._parameterNode is None or number < 0:
            return
        card = self._firstModels[number - 1].card if number > 0 else None
        with slicer.util.NodeModify(self._parameterNode.parameterNode):
            self._parameterNode.firstModel = card.id if card else ""
            if card and card.factor:
                self._parameterNode.factor = float(card.factor)

    def _onTarget(self, _entry=None):
        number = self.ui.targetSelector.currentIndex
        if not self._refreshing and self._parameterNode is not None and 0 <= number < len(self._targets):
            self._parameterNode.target = self._targets[number]

    # Many volumes

    def _onManyCollapsed(self, collapsed):
        if not collapsed:
            self._fillMany()

    def _fillMany(self):
        """List what holds several volumes: items of the subject hierarchy, and sequences."""
        number = self.ui.manySelector.currentIndex
        before = self._collections[number][2] if 0 <= number < len(self._collections) else None
        self._collections = scene.collections()
        holders = [holder for _name, _count, holder in self._collections]
        labels = [f"{name} ({count})" for name, count, _holder in self._collections]
        _fill(self.ui.manySelector, labels, holders.index(before) if before in holders else 0 if holders else -1)
        if self._parameterNode is not None:
            self._refresh()

    def _showMany(self, missing):
        """Whether and why not many volumes can be run, and what would be done to them."""
        ui, parameters = self.ui, self._parameterNode
        reason = "" if self._collections else _("The scene has no folder, study or sequence with several volumes.")
        if not reason and parameters.task is Task.GUIDED:
            reason = _("Each volume would need a reference of its own: choose another task, or the command line.")
        if not reason and (self._entry() is None or (parameters.task is Task.TRANSLATE and not parameters.target)):
            reason = missing
        ui.manySelector.enabled = bool(self._collections)
        ui.manyButton.enabled = not reason
        ui.manyButton.toolTip = reason or _(
            "Uses the model and settings above for each volume and goes on after a bad one. Cancel is the button above."
        )

    def _manyOptions(self):
        """Model and settings for each of many volumes, as `superResolveMany` takes them."""
        parameters = self._parameterNode
        translates = parameters.task is Task.TRANSLATE
        enlarges = not translates or bool(parameters.firstModel)
        byFactor = parameters.sizeMode is SizeMode.FACTOR
        options = {
            "plane": self._plane(),
            "factor": parameters.factor if enlarges and byFactor else None,
            "spacing": parameters.spacing if enlarges and not byFactor else None,
            "project": parameters.project and not translates,
            "device": parameters.device.value,
            "precision": parameters.precision.value,
        }
        if translates:
            options |= {
                "otherContrast": parameters.contrast.value,
                "target": parameters.target,
                "samples": parameters.samples if self._draws() else None,
                "seed": parameters.seed,
                "superResolveWith": parameters.firstModel or None,
            }
        made = {name: True for name, (_node, wanted) in self._maps().items() if wanted and name != "errorMap"}
        return options | made

    def onManyButton(self, checked=False):
        """Run the model over all volumes of the chosen item."""
        number = self.ui.manySelector.currentIndex
        if self._isRunning or self._starting or not 0 <= number < len(self._collections):
            return
        parameters, holder = self._parameterNode, self._collections[number][2]
        options = self._manyOptions()
        asked = {name: options[name] for name in ("factor", "spacing", "plane", "otherContrast") if name in options}
        try:
            warnings = self.logic.warningsOfMany(
                holder, parameters.model, firstModel=options.get("superResolveWith") or "", **asked
            )
        except MRSuperResError as error:
            self._fail(error.message)
            return
        if not self._confirmed(_shortened(warnings)):
            return
        self._begin()
        started = []  # the run; what an abandoned one still says is not for this panel any more

        def mine():
            return not started or started[0] is self._run

        try:
            run = self.logic.superResolveMany(
                holder,
                parameters.model,
                outputFolder=self.ui.manyFolderEdit.currentPath or None,
                onProgress=lambda *progress: self._onManyProgress(*progress) if mine() else None,
                onFinished=lambda results: self._onManyFinished(results) if mine() else None,
                blocking=False,
                **options,
            )
        except MRSuperResError as error:
            self._fail(error.message)
        else:
            started.append(run)
            self._run = run if run.isRunning else None
        finally:
            self._starting = False
        self._refresh()

    def _onManyProgress(self, done, total, what):
        self.ui.progressBar.setRange(0, total)
        self.ui.progressBar.value = done
        self._say(_("{done} of {total} volumes done; {what}").format(done=done, total=total, what=what))

    def _onManyFinished(self, results):
        """All volumes are settled: say how many, which not and why; show the last that was made."""
        self._run = None
        self.ui.progressBar.visible = False
        failed = [result for result in results if result.error is not None and result.error.code != "cancelled"]
        good = sum(result.error is None for result in results)
        text = _("{good} of {total} volumes done").format(good=good, total=len(results))
        if failed:
            text += _(", {count} could not be: {reason}").format(count=len(failed), reason=failed[0].error.message)
        if any(result.error is not None and result.error.code == "cancelled" for result in results):
            text += _(", then cancelled")
        self._say(text, "QLabel { color: #c62828; font-weight: bold; }" if failed else "")
        for result in results:
            state = result.error.message if result.error else _("was there already") if result.skipped else _("done")
            self._onLog("; ".join([f"{result.name}: {state}", *result.warnings]))
        self.ui.logCollapsibleButton.collapsed = not failed and not any(result.warnings for result in results)
        made = [result.output for result in results if result.error is None and hasattr(result.output, "IsA")]
        made = [node for node in made if self._live(node) is not None and node.IsA("vtkMRMLVolumeNode")]
        if made and not self._compare.isShown:  # its views are slice views too
            self._present(made[-1])
        self._fillMany()


def _shortened(lines, most=8):
    """The first lines, and how many more there are."""
    more = len(lines) - most
    return lines if more <= 0 else [*lines[:most], _("... and {count} more").format(count=more)]


def _fill(combo, labels, current):
    """Give `combo` these entries, silently."""
    blocked = combo.blockSignals(True)
    try:
        if [combo.itemText(number) for number in range(combo.count)] != list(labels):
            combo.clear()
            combo.addItems(list(labels))
        combo.currentIndex = current
    finally:
        combo.blockSignals(blocked)


def _reasons(hidden):
    """A line for each (model, why it is not offered)."""
    return [f"{entry.card.title}: {reason}." for entry, reason in hidden]


def _preferred(entries):
    """The first model with weights, else the first."""
    return next((entry for entry in entries if not entry.card.is_baseline), entries[0])


def _bytes(count):
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(1, round(count / 2**20))} MiB"


def _scores():
    """(what people call it, key, format) of the scores the table shows."""
    return (
        (_("PSNR (dB, higher is better)"), "psnr", "{:.2f}"),
        (_("SSIM (1 is best)"), "ssim", "{:.4f}"),
        (_("NMSE (lower is better)"), "nmse", "{:.4f}"),
    )


def _progressText(stage, done, total, secondsLeft):
    names = {
        "reading": _("Reading"),
        "super-resolving": _("Super-resolving"),
        "registering": _("Aligning the reference"),
        "translating": _("Translating"),
        "scoring": _("Scoring"),
        "writing": _("Writing"),
    }
    text = names.get(stage, str(stage))
    if stage == "translating" and total > 1:  # counts the slices of all samples
        text = _("{stage}: {share:.0%}").format(stage=text, share=done / total)
    elif stage == "super-resolving" and total > 1:
        text = _("{stage}: {done} of {total} slices").format(stage=text, done=done, total=total)
    if secondsLeft is not None and done < total:
        minutes, seconds = divmod(round(secondsLeft), 60)
        left = _("{m} min {s} s").format(m=minutes, s=seconds) if minutes else _("{s} s").format(s=seconds)
        text += _(", about {left} left").format(left=left)
    return text


class MRSuperResTest(ScriptedLoadableModuleTest):
    """The user's journey, in a real Slicer: input, Apply, cancel, result, compare, back, save and restore."""

    def setUp(self):
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """All of it."""
        for journey in (self.test_apply, self.test_cancel, self.test_compare, self.test_many, self.test_restore):
            self.setUp()
            journey()

    def _panel(self):
        """The module's panel, shown, with a small scan chosen and B-spline interpolation as the model."""
        import numpy as np

        k, j, i = np.mgrid[0:12, 0:48, 0:40]
        ball = 100.0 * np.exp(-(((k - 6) / 4.0) ** 2 + ((j - 24) / 14.0) ** 2 + ((i - 20) / 12.0) ** 2))
        volume = slicer.util.addVolumeFromArray(ball.astype("float32"), name="T2 thick")
        volume.SetSpacing(1.0, 1.0, 4.0)
        volume.SetOrigin(10.0, -20.0, 30.0)
        volume.CreateDefaultDisplayNodes()
        slicer.util.selectModule("MRSuperRes")
        panel = slicer.modules.MRSuperResWidget
        panel.initializeParameterNode()
        panel._parameterNode.inputVolume = volume
        panel._parameterNode.task = Task.THROUGH_PLANE
        panel._parameterNode.model = "bspline"
        panel._parameterNode.factor = 2.0
        return panel, volume

    def _wait(self, panel, seconds=120.0):
        import time

        start = time.monotonic()
        while panel._isRunning:
            self.assertLess(time.monotonic() - start, seconds, "the run does not end")
            slicer.app.processEvents()
            time.sleep(0.02)

    def _applied(self):
        panel, volume = self._panel()
        self.assertEqual(panel.ui.applyButton.toolTip.count("Select"), 0)
        panel.ui.applyButton.click()
        self.assertEqual(panel.ui.applyButton.text, _("Cancel"))
        self._wait(panel)
        return panel, volume, panel._parameterNode.outputVolume

    def test_apply(self):
        """Apply makes a volume with the same extent and thinner slices, and leaves the input alone."""
        self.delayDisplay("Apply")
        panel, volume, result = self._applied()
        self.assertIsNotNone(result, panel.ui.statusLabel.text)
        self.assertEqual(result.GetImageData().GetDimensions(), (40, 48, 24))
        bounds, expected = [0.0] * 6, [0.0] * 6
        result.GetRASBounds(bounds)
        volume.GetRASBounds(expected)
        for found, wanted in zip(bounds, expected, strict=True):
            self.assertAlmostEqual(found, wanted, places=3)
        self.assertEqual(volume.GetImageData().GetDimensions(), (40, 48, 12))

    def test_cancel(self):
        """Cancel ends the run and leaves no node."""
        self.delayDisplay("Cancel")
        panel, _volume = self._panel()
        before = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
        panel.ui.applyButton.click()
        panel.ui.applyButton.click()
        self._wait(panel, seconds=10.0)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"), before)

    def test_compare(self):
        """Compare shows input and result, linked; back returns to the layout there was."""
        self.delayDisplay("Compare")
        panel, volume, result = self._applied()
        layoutNode = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
        before = layoutNode.GetViewArrangement()
        panel.ui.compareButton.click()
        views = [compare.compositeNode(name) for name in compare.VIEWS[:2]]
        self.assertEqual(views[0].GetBackgroundVolumeID(), volume.GetID())
        self.assertEqual(views[1].GetForegroundVolumeID(), result.GetID())
        self.assertTrue(all(view.GetLinkedControl() for view in views))
        panel.ui.restoreLayoutButton.click()
        self.assertEqual(layoutNode.GetViewArrangement(), before)

    def test_many(self):
        """All volumes of a folder are done, a bad one is reported."""
        self.delayDisplay("Many volumes")
        panel, volume = self._panel()
        bad = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T2 bad")
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "Study")
        for node in (volume, bad):
            item = hierarchy.GetItemByDataNode(node)
            if item == slicer.vtkMRMLSubjectHierarchyNode.GetInvalidItemID():
                item = hierarchy.CreateItem(folder, node)
            hierarchy.SetItemParent(item, folder)
        panel.enter()
        panel.ui.manySelector.currentIndex = panel.ui.manySelector.findText("Study (2)")
        self.assertTrue(panel.ui.manyButton.enabled, panel.ui.manyButton.toolTip)
        panel.ui.manyButton.click()
        self._wait(panel)
        self.assertIn("1 of 2 volumes done, 1 could not be", panel.ui.statusLabel.text)
        made = slicer.util.getFirstNodeByClassByName("vtkMRMLScalarVolumeNode", "T2 thick SR x2 (bspline)")
        self.assertEqual(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(made)), folder)

    def test_restore(self):
        """Choices come back with a saved scene; closing the scene empties the panel."""
        self.delayDisplay("Save and restore")
        panel, _volume = self._panel()
        panel._parameterNode.factor = 3.0
        path = str(Path(slicer.app.temporaryPath) / "MRSuperResTest.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        self.assertFalse(panel.ui.applyButton.enabled)
        slicer.util.loadScene(path)
        panel.initializeParameterNode()
        self.assertEqual(panel._parameterNode.factor, 3.0)
        self.assertEqual(panel._parameterNode.inputVolume.GetName(), "T2 thick")
        Path(path).unlink()
