"""Apply and Cancel, progress, status and log: what starts a run and tells how it goes."""

import time

import qt
import slicer
from slicer.i18n import tr as _

from MRSuperResLib.errors import MRSuperResError

from . import cards
from .parameters import RESULT_ROLE, Task
from .part import Part
from .run import MAPS, RunRequest

ALARM = "QLabel { color: #c62828; font-weight: bold; }"
APPLY_KEYS = "Ctrl+Return"
PARTS = 1000  # of the progress bar
SECONDS_BEFORE_TELLING = 5.0  # how long the rest will take
PREVIEW_WIDTH, PREVIEW_HEIGHT = 240, 110  # pixels, at most
QUIET = ("gone", "declined")  # codes of what the user did: removed the input, declined an installation


class WorkView(Part):
    """The run in progress, of one volume or of many, and what is said about it."""

    def __init__(self, panel):
        Part.__init__(self, panel)
        self.run = None
        self._stage, self._stageBegan = "", 0.0  # of the run, for its progress
        self._named = ""  # the button's text
        self._subject = ""  # settings of the run, see `OutputsView.subject`
        self.starting = False  # installing may let the user press Apply once more
        self.ui.applyButton.clicked.connect(self.onApplyButton)

    @property
    def isRunning(self):
        """Whether a run is in progress."""
        return self.run is not None

    def showApply(self, problem):
        button = self.ui.applyButton
        ui = self.ui
        for section in (ui.inputsPart, ui.outputsCollapsibleButton, ui.advancedCollapsibleButton):
            section.enabled = not self.isRunning
        if self.isRunning:
            self._name(_("Cancel"), "")
            button.enabled = True
            button.toolTip = _("Stop. Nothing is changed; of many volumes, those that are done stay.")
            self.ui.manyButton.enabled = False
            return
        missing = self.panel.inputs.missing(problem)
        self._name(_("Apply"), APPLY_KEYS)
        button.enabled = not missing
        button.toolTip = missing or _("Run the model (Ctrl+Enter). You can go on working meanwhile.")
        self.panel.many.showMany(missing)

    def _name(self, text, keys):
        """The button's text, and its shortcut, which Qt forgets with every new text. Cancel has none: it is pressed on purpose."""
        button = self.ui.applyButton
        if self._named != text:
            self._named = button.text = text
            button.shortcut = qt.QKeySequence(keys)

    def onApplyButton(self, checked=False):
        """Start; or, while running, cancel."""
        if self.isRunning:
            self.ui.applyButton.enabled = False
            self.say(_("Cancelling…"))
            self.run.cancel()
            return
        if self.starting or not self.confirmed(self.panel.inputs.warnings()):
            return
        self.begin()
        self.panel.inputs.accept()
        self._subject = self.panel.outputs.subject()
        try:
            run = self.logic.start(
                self.request(),
                onProgress=self._onProgress,
                onWarning=self._onWarning,
                onPreview=self._onPreview,
                onLog=self.log,
                onFinished=self._onFinished,
            )
        except MRSuperResError as error:
            self.fail(error)
        else:
            self._follow(run)
        finally:
            self.starting = False
        self.panel.refresh()

    @staticmethod
    def confirmed(warnings):
        """Whether the user wants to run in spite of `warnings`."""
        return not warnings or slicer.util.confirmOkCancelDisplay(
            _("The model was not made for this scan:") + "\n\n" + "\n".join(warnings) + "\n\n" + _("Run it anyway?"),
            windowTitle=_("Outside of what the model was trained on"),
        )

    def _follow(self, run):
        """Make `run` the one in progress; it may have ended before it could be."""
        self.run = run
        if not run.isRunning:
            self._onFinished(run)

    def say(self, text, style=""):
        """The line under the progress bar."""
        self.ui.statusLabel.text = text
        self.ui.statusLabel.styleSheet = style
        self.ui.statusLabel.visible = bool(text)

    def forget(self):
        """Say nothing any more about a run that has ended: it was on another input, whose name it may tell."""
        if not self.isRunning:
            self.say("")
            self.ui.logText.clear()

    def begin(self):
        """Empty what tells of the last run."""
        self.starting = True
        self.ui.logText.clear()
        self.say(_("Starting…"))
        self.ui.progressBar.setRange(0, 0)
        self.ui.progressBar.visible = True
        self._stage, self._stageBegan = "", 0.0

    def request(self):
        """The run the panel asks for."""
        parameters = self._parameterNode
        guided, translates = parameters.task is Task.GUIDED, parameters.task is Task.TRANSLATE
        maps = {
            name: (self._live(node) or True) if wanted else None
            for name, (node, wanted) in self.panel.outputs.maps().items()
        }
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
            samples=parameters.samples if self.panel.inputs.draws() else None,
            keepSamples=parameters.keepSamples,
            seed=parameters.seed,
            output=self._live(parameters.outputVolume),
            project=parameters.project and not translates,
            profile=parameters.profile.value,
            device=parameters.device.value,
            precision=parameters.precision.value,
            superResolveWith=parameters.firstModel or None if translates else None,
            **self.panel.inputs.size(),
            **maps,
        )

    def _onProgress(self, stage, done, total, secondsLeft=None):
        bar, now = self.ui.progressBar, time.monotonic()
        if stage != self._stage:
            self._stage, self._stageBegan = stage, now
        bar.setRange(0, PARTS if total > 1 else 0)  # voxels may be more than Qt's integers hold
        bar.value = int(PARTS * done / max(total, 1))
        if now - self._stageBegan < SECONDS_BEFORE_TELLING:  # the first batch tells little about the others
            secondsLeft = None
        self.say(_progressText(stage, done, total, secondsLeft))

    def _onPreview(self, rows, columns, spacing, pixels):
        """Show a slice that is done, in the proportions of the patient."""
        image = qt.QPixmap()  # from text, because bytes with zeros in them do not reach Qt whole from every Python
        if not image.loadFromData(f"P2 {columns} {rows} 255 {' '.join(map(str, pixels))}".encode()):
            return
        height = PREVIEW_HEIGHT
        width = max(1, round(height * (columns * spacing[1]) / (rows * spacing[0])))
        if width > PREVIEW_WIDTH:
            width, height = PREVIEW_WIDTH, max(1, round(height * PREVIEW_WIDTH / width))
        picture = image.scaled(width, height, qt.Qt.IgnoreAspectRatio, qt.Qt.SmoothTransformation)
        self.ui.previewLabel.pixmap = picture
        self.ui.previewLabel.visible = True

    def stop(self):
        """Nothing runs any more: no progress, no preview."""
        self.run = None
        self.ui.progressBar.visible = False
        self.ui.previewLabel.visible = False
        self.ui.previewLabel.clear()

    def _onWarning(self, code, message):
        self.ui.logText.appendPlainText(_("Warning: {message}").format(message=message))

    def log(self, line):
        self.ui.logText.appendPlainText(str(line).rstrip())

    def _onFinished(self, run):
        """The run ended, one way or another."""
        if run is not self.run or self._parameterNode is None:  # abandoned: the scene was closed meanwhile
            return
        self.stop()
        if run.error is not None:
            self.fail(run.error)
        else:
            self._show(run)
        self.panel.refresh()

    def fail(self, error):
        """Say why a run ended without a result: in a box, unless the user wanted it so."""
        self.stop()
        if error.code == "cancelled":
            self.say(_("Cancelled. Nothing was changed."))
        elif error.code in QUIET:
            self.say(error.message)
        else:
            self.say(error.message, ALARM)
            self.ui.logText.appendPlainText(_("Error: {message}").format(message=error.message))
            slicer.util.errorDisplay(error.message, windowTitle=_("MRSuperRes"))

    def abandon(self):
        """Cancel a run nobody waits for any more."""
        run = self.run
        self.stop()
        if run is not None:
            run.cancel()
        self.forget()

    def _show(self, run):
        """Put the results into the panel, and on the screen."""
        parameters, result = self._parameterNode, run.result
        done = _("Done in {seconds:.0f} s: {name}").format(seconds=result.seconds, name=result.output.GetName())
        if run.request.input is not self._live(parameters.inputVolume):  # a program chose another meanwhile
            self.say(done)
            return
        with slicer.util.NodeModify(parameters.parameterNode):
            parameters.outputVolume = result.output
            for name in MAPS:
                node = getattr(result, name)
                if node is not None:
                    setattr(parameters, name, node)
            parameters.madeFrom, parameters.madeFor = run.request.input, self._subject
            parameters.parameterNode.SetNodeReferenceID(RESULT_ROLE, result.output.GetID())
        voxels = result.output.GetImageData().GetNumberOfPoints()
        cards.rememberSeconds(run.request.model, run.request.device, voxels, result.seconds)
        self.ui.sampleSlider.value = 0.0
        self.ui.compareCollapsibleButton.collapsed = False
        if self.panel.results.comparison.isShown:
            self.panel.results.onCompareButton()
        else:
            self.panel.results.present(result.output)
        text = done
        if result.warnings:
            text += "\n" + _("Warning: {message}").format(message=result.warnings[0])
            self.ui.logCollapsibleButton.collapsed = False
        if len(result.warnings) > 1:
            text += " " + _("({count} more in the log)").format(count=len(result.warnings) - 1)
        self.say(text)


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
    if total > 1:  # voxels, or steps
        text = _("{stage}: {share:.0%}").format(stage=text, share=done / total)
    if secondsLeft is not None and done < total:
        text += _(", about {left} left").format(left=cards.duration(secondsLeft))
    return text
