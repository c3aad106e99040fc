"""Upper part of the panel: the scan, the task, the model that suits them, and what a run would make of it."""

import math

import slicer
from slicer.i18n import tr as _

from MRSuperResLib.errors import MRSuperResError

from . import cards, scene
from .parameters import Contrast, SizeMode, Task
from .part import Part, fill

FINEST = 1.1  # the smallest factor that can be asked for
LEAST_OVERLAP = 0.5  # share of the scan a reference should cover


class InputsView(Part):
    """Scan, contrast, task, model, size, reference and target; what the cards say about them."""

    def __init__(self, panel):
        Part.__init__(self, panel)
        self.offered = []
        self.firstModels = []
        self._targets = []
        self._suggested = None  # the input that nobody chose
        self._modelPicked = False  # by the user: a scan that follows keeps it
        self.why = ""  # the model was recommended
        self.remark = ""  # on the scan, where none was
        ui = self.ui
        ui.inputSelector.nodeActivated.connect(self.accept)
        ui.modelSelector.currentIndexChanged.connect(self._onModel)
        ui.taskSelector.activated.connect(self._onPicked)
        ui.firstModelSelector.currentIndexChanged.connect(self._onFirstModel)
        ui.targetSelector.currentIndexChanged.connect(self._onTarget)
        ui.overlapButton.clicked.connect(self.onOverlapButton)

    def hideOurs(self):
        """Maps and samples are nobody's input, reference or truth."""
        hidden = [node.GetID() for node in scene.accompanying()]
        for selector in (self.ui.inputSelector, self.ui.referenceSelector, self.ui.truthSelector):
            model = selector.sortFilterProxyModel()
            if list(model.hiddenNodeIDs) != hidden:
                model.hiddenNodeIDs = hidden

    def suggest(self, newest=None):
        """Choose an input, unless the user or a program has chosen one that still is there.

        newest: a volume that was just added. Else what the slice views show, else what is selected in the Data module's
        tree, else the volume loaded last.
        """
        parameters = self._parameterNode
        current = self._live(parameters.inputVolume)
        if self.panel.work.isRunning or (current is not None and current is not self._suggested):
            return
        candidates = [newest] if newest is not None else [scene.shownVolume(), scene.selectedVolume()]
        volumes = [node for node in scene.volumes() if not self.logic.refusal(node)]
        node = next((node for node in [*candidates, *reversed(volumes)] if node in volumes), None)
        if node is not None and node is not current:
            parameters.inputVolume = node
        self._suggested = node

    def accept(self, _node=None):
        """The user works with the input there is: another volume that is loaded does not take its place."""
        self._suggested = None

    def settle(self):
        """For a new input: guess its contrast, recommend a model, and let go of what was chosen or said for the one before."""
        parameters = self._parameterNode
        volume = self._live(parameters.inputVolume)
        if volume is parameters.settledFor:
            return
        parameters.settledFor = volume
        parameters.referenceVolume = parameters.truthVolume = None  # perhaps another patient's
        self.ui.overlapLabel.text = ""
        self.remark = ""
        self.panel.work.forget()
        if volume is None:
            return
        guess = self.logic.guessContrast(volume)
        parameters.contrast = next((c for c in Contrast if c.value == guess), Contrast.UNKNOWN)
        if not self._modelPicked:
            self._recommend(volume)

    def _recommend(self, volume):
        """Take task, model and factor that suit, and remember why."""
        self.why = self.remark = ""
        found = None if self.refusal() else self.logic.recommend(volume, self._parameterNode.contrast.value)
        if found is None or found.factor < FINEST:
            self.remark = found.why if found else ""
            return
        parameters = self._parameterNode
        parameters.task = next(task for task in Task if task.value == found.plane)
        parameters.model = found.model
        parameters.factor = parameters.followedFactor = found.factor
        parameters.factorFor = found.model
        self.why = found.why

    def _onPicked(self, _entry=None):
        """The user has chosen a task or a model: it stays for the next scan, if it suits."""
        self.accept()
        self._modelPicked = True
        self.why = ""
        self.panel.refresh()

    def followFactor(self):
        """The factor is the model's until somebody has edited it."""
        parameters, entry = self._parameterNode, self.entry()
        if entry is None or parameters.factorFor == entry.card.id:
            return
        edited = parameters.factor != parameters.followedFactor
        parameters.factorFor = entry.card.id
        if (entry.card.factor or 1.0) > 1.0 and not edited:
            parameters.factor = parameters.followedFactor = float(entry.card.factor)

    def showRows(self):
        """Only the rows that the task needs."""
        ui, parameters, task = self.ui, self._parameterNode, self._parameterNode.task
        guided, translate_ = task is Task.GUIDED, task is Task.TRANSLATE
        research = _("Research use only. Not for diagnosis or treatment.")
        ui.researchLabel.text = (
            _("A translation is not a scan: it may lose or invent disease.") + " " + research
            if translate_
            else research
        )
        enlarges = not translate_ or bool(parameters.firstModel)
        byFactor = parameters.sizeMode is SizeMode.FACTOR
        rows = (
            (guided, (ui.guidedRows,)),
            (guided and bool(ui.overlapLabel.text), (ui.overlapRow, ui.overlapLabel)),
            (translate_, (ui.translationRows, ui.uncertaintyMapRow, ui.keepSamplesRow)),
            (enlarges, (ui.sizeRow,)),
            (enlarges and byFactor, (ui.factorSpinBox,)),
            (enlarges and not byFactor, (ui.spacingSpinBox,)),
            (not translate_, (ui.consistencyMapRow, ui.projectRow, ui.profileRow)),
        )
        for visible, widgets in rows:
            for widget in widgets:
                widget.visible = visible
        hasTruth = self._live(parameters.truthVolume) is not None
        ui.errorMapCheckBox.enabled = hasTruth
        ui.errorMapSelector.enabled = hasTruth and parameters.makeErrorMap
        ui.consistencyMapSelector.enabled = parameters.makeConsistencyMap
        ui.uncertaintyMapSelector.enabled = parameters.makeUncertaintyMap
        refusal = self.refusal()
        ui.refusalLabel.text = refusal
        ui.refusalLabel.visible = bool(refusal)

    def refusal(self):
        volume = self._live(self._parameterNode.inputVolume)
        return self.logic.refusal(volume) if volume else ""

    def fillModels(self):
        """Offer the models whose cards suit; returns lines that say why the others are hidden."""
        parameters, ui = self._parameterNode, self.ui
        offered, hidden = [], []
        volume = self._live(parameters.inputVolume)
        if volume is not None and not self.refusal():
            offered, hidden = self.logic.suitable(
                volume, parameters.task.value, parameters.contrast.value, self._live(parameters.referenceVolume)
            )
        self.offered = offered + [entry for entry, _reason in hidden] if parameters.offerAll else offered
        offered = self.offered
        if parameters.model not in [entry.card.id for entry in offered] and offered:
            parameters.model = offered[0].card.id
        fill(ui.modelSelector, [entry.card.title for entry in offered], self.index(offered, parameters.model))
        ui.modelSelector.enabled = bool(offered)
        entry = self.entry()
        said = [self.why, self.logic.describe(entry)] if entry else []
        ui.cardLabel.text = "\n\n".join(filter(None, said))
        ui.aboutCollapsibleButton.visible = entry is not None
        self.followFactor()
        return _reasons(hidden)

    def showHidden(self, lines):
        """Which models are not offered and why, and how to have them; nothing to see where there is none."""
        section = self.ui.hiddenCollapsibleButton
        self.ui.hiddenModelsLabel.text = "\n".join(lines)
        section.text = _("Models not made for this scan ({count})").format(count=len(lines))
        section.visible = bool(lines)

    @staticmethod
    def index(entries, identity):
        return next((number for number, entry in enumerate(entries) if entry.card.id == identity), -1)

    def entry(self):
        """The chosen model, None if there is none."""
        number = self.index(self.offered, self._parameterNode.model)
        return self.offered[number] if number >= 0 else None

    def fillTranslation(self):
        """Target contrasts of the card, and models that may enlarge the scan first; returns a line on those hidden."""
        parameters, ui = self._parameterNode, self.ui
        entry = self.entry()
        if parameters.task is not Task.TRANSLATE or entry is None:
            self._targets, self.firstModels = [], []
            fill(ui.targetSelector, [], -1)
            fill(ui.firstModelSelector, [], -1)
            return []
        self._targets = [target for target in entry.card.target_contrasts if target != parameters.contrast.value]
        if parameters.target not in self._targets:
            parameters.target = self._targets[0] if self._targets else ""
        current = self._targets.index(parameters.target) if parameters.target in self._targets else -1
        fill(ui.targetSelector, self._targets, current)
        volume = self._live(parameters.inputVolume)
        self.firstModels, hidden = [], []
        for task in (Task.IN_PLANE, Task.THROUGH_PLANE):
            suiting, others = self.logic.suitable(volume, task.value, parameters.contrast.value)
            self.firstModels += [e for e in suiting if e not in self.firstModels]
            hidden += [other for other in others if other not in hidden]
        if parameters.offerAll:
            self.firstModels += [entry for entry, _reason in hidden]
        if self.index(self.firstModels, parameters.firstModel) < 0:
            parameters.firstModel = ""
        titles = [_("No"), *(entry.card.title for entry in self.firstModels)]
        fill(ui.firstModelSelector, titles, self.index(self.firstModels, parameters.firstModel) + 1)
        for widget in (ui.samplesSpinBox, ui.seedSpinBox):
            widget.enabled = self.draws()
        several = self.draws() and parameters.samples > 1
        ui.uncertaintyMapCheckBox.enabled = ui.keepSamplesCheckBox.enabled = several
        ui.uncertaintyMapSelector.enabled = several and parameters.makeUncertaintyMap
        tip = _("A model that enlarges the scan before it is translated.")
        ui.firstModelSelector.toolTip = tip
        if not hidden:
            return []
        ui.firstModelSelector.toolTip = "\n".join([tip, _("Models not made for this scan:"), *_reasons(hidden)])
        return [
            _("{count} models to super-resolve it first: the tooltip of their list says why.").format(count=len(hidden))
        ]

    def draws(self):
        """Whether the chosen model can give several answers."""
        entry = self.entry()
        return entry is not None and entry.card.task == "translate" and entry.card.requirements.latent > 0

    def size(self):
        """The size asked for, as the logic takes it: a factor, or mm along i, j, k."""
        parameters = self._parameterNode
        if parameters.task is Task.TRANSLATE and not parameters.firstModel:
            return {"factor": None, "spacing": None}
        if parameters.sizeMode is SizeMode.FACTOR:
            return {"factor": parameters.factor, "spacing": None}
        volume = self._live(parameters.inputVolume)
        return {"factor": None, "spacing": scene.refinedSpacing(volume, self.plane(), parameters.spacing)}

    def plane(self):
        """The plane that will be refined, as far as it is known before the model decides."""
        parameters = self._parameterNode
        if parameters.task.plane:
            return parameters.task.plane
        if parameters.task is Task.TRANSLATE:
            number = self.index(self.firstModels, parameters.firstModel)
            entry = self.firstModels[number] if number >= 0 else None
        else:
            entry = self.entry()
        return entry.card.plane if entry and entry.card.plane != "any" else None

    def estimate(self):
        """What the run would make, None if that is not known; and what stands in its way, "" if nothing does."""
        parameters = self._parameterNode
        volume, entry = self._live(parameters.inputVolume), self.entry()
        if volume is None or entry is None or self.refusal():
            return None, ""
        more = {"plane": self.plane()}
        if parameters.task is Task.TRANSLATE:
            kept = parameters.samples if self.draws() and parameters.samples > 1 and parameters.keepSamples else 0
            more |= {"firstModel": parameters.firstModel, "keptSamples": kept}
        try:
            return self.logic.estimate(volume, entry.card.id, **self.size(), **more), ""
        except MRSuperResError as error:
            return None, error.message

    def showEstimate(self, estimate):
        """What the run would make, and beside the model what it is for and how long it will take."""
        text, tip, entry = "–", "", self.entry()
        seconds = None
        if estimate is not None:
            size = " × ".join(str(count) for count in estimate.grid.size)
            spacing = " × ".join(f"{length:.3g}" for length in estimate.grid.spacing)
            text = _("{size} voxels of {spacing} mm").format(size=size, spacing=spacing)
            tip = _("Needs about {memory} of memory").format(memory=_bytes(estimate.memory))
            if estimate.device_memory:
                tip += _(" and {memory} on the GPU").format(memory=_bytes(estimate.device_memory))
            device = self._parameterNode.device.value
            seconds = cards.expectedSeconds(self._parameterNode.model, device, math.prod(estimate.grid.size))
        self.ui.estimateLabel.text = text
        self.ui.estimateLabel.toolTip = tip or _("The grid of the result, and the memory it needs.")
        self.ui.modelLineRow.visible = entry is not None
        self.ui.modelLineLabel.text = cards.line(entry, seconds) if entry is not None else ""
        self.ui.modelSelector.toolTip = self.why or _("Models whose card suits the task and the scan.")

    def warnings(self):
        """What the card does not cover, in plain words."""
        parameters, entry = self._parameterNode, self.entry()
        volume = self._live(parameters.inputVolume)
        if volume is None or entry is None or self.refusal():
            return []
        more = {"plane": self.plane(), "referenceNode": self._live(parameters.referenceVolume)}
        if parameters.task is Task.TRANSLATE:
            more["firstModel"] = parameters.firstModel
        try:
            return self.logic.warnings(volume, entry.card.id, parameters.contrast.value, **self.size(), **more)
        except MRSuperResError:  # a size that cannot be: Apply says so
            return []

    def showWarnings(self):
        warnings = [line for line in (self.remark, *self.warnings()) if line]
        self.ui.warningLabel.text = "\n".join(warnings)
        self.ui.warningLabel.visible = bool(warnings)

    def missing(self, problem):
        """What keeps Apply from being pressed, in one line; "" if nothing does."""
        parameters = self._parameterNode
        volume, reference = self._live(parameters.inputVolume), self._live(parameters.referenceVolume)
        truth, output = self._live(parameters.truthVolume), self._live(parameters.outputVolume)
        if volume is None:
            return _("Select the volume to work on.")
        if self.refusal():
            return self.refusal()
        if parameters.task.value not in self.logic.tasks():
            return _("There is no model for this task here: choose another task, or install a model.")
        if self.entry() is None:
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
        if truth is not None and truth is volume:
            return _("The ground truth must be another scan than the input.")
        if truth is not None and self.logic.refusal(truth):
            return _("Ground truth: {reason}").format(reason=self.logic.refusal(truth))
        outputs = [output, *(self._live(node) for node, wanted in self.panel.outputs.maps().values() if wanted)]
        outputs = [node for node in outputs if node is not None]
        if any(node in (volume, reference, truth) for node in outputs):
            return _("The outputs must be other volumes than the inputs.")
        if len(outputs) != len({node.GetID() for node in outputs}):
            return _("Each output needs a volume of its own.")
        return problem

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
                scene.showInViews(volume, fit=True, foreground=reference, opacity=0.5)
                self.panel.results.overlaid = True
        self.ui.overlapLabel.text = text
        self.panel.refresh()

    def _onModel(self, _entry=None):
        number = self.ui.modelSelector.currentIndex
        if not self._refreshing and self._parameterNode is not None and 0 <= number < len(self.offered):
            self._modelPicked = True
            self.accept()
            self.why = ""
            self._parameterNode.model = self.offered[number].card.id

    def _onFirstModel(self, _entry=None):
        number = self.ui.firstModelSelector.currentIndex
        if self._refreshing or self._parameterNode is None or number < 0:
            return
        card = self.firstModels[number - 1].card if number > 0 else None
        with slicer.util.NodeModify(self._parameterNode.parameterNode):
            self._parameterNode.firstModel = card.id if card else ""
            if card and (card.factor or 1.0) > 1.0:
                self._parameterNode.factor = self._parameterNode.followedFactor = float(card.factor)

    def _onTarget(self, _entry=None):
        number = self.ui.targetSelector.currentIndex
        if not self._refreshing and self._parameterNode is not None and 0 <= number < len(self._targets):
            self._parameterNode.target = self._targets[number]


def _reasons(hidden):
    """A line for each (model, why it is not offered)."""
    return [f"{entry.card.title}: {reason}." for entry, reason in hidden]


def _bytes(count):
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(1, round(count / 2**20))} MiB"
