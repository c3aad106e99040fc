"""Apply and Cancel, progress, status and log: what starts a run and tells how it goes."""

import enum
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
SETTLING_MILLISECONDS = 250  # for so long a press may have been meant for the Cancel that was there before


class State(enum.Enum):
    """What a press of the one button is: Apply when idle, Cancel while a run runs, and nothing in between.

    A press that was meant for Cancel must not start another run because the run has just ended: while results come into the
    scene the application takes no events, and delivers them afterwards.
    """

    IDLE = enum.auto()
    STARTING = enum.auto()  # asking, installing, exporting: events may be processed meanwhile
    RUNNING = enum.auto()
    CANCELLING = enum.auto()
    SETTLING = enum.auto()  # it has ended


class WorkView(Part):
    """The run in progress, of one volume or of many, and what is said about it."""

    def __init__(self, panel):
        Part.__init__(self, panel)
        self.state, self.run = State.IDLE, None
        self._show = None  # what to do with a run that has ended, a function of it
        self._warnings = []  # of the run, for the status line
        self._stage, self._stageBegan = "", 0.0  # of the run, for its progress
        self._named = ""  # the button's text
        self._subject = ""  # settings of the run, see `OutputsView.subject`
        self.ui.applyButton.clicked.connect(self.onApplyButton)

    @property
    def isRunning(self):
        """Whether a run is in progress, or about to be, or just ending: no other can be begun."""
        return self.state is not State.IDLE

    def showApply(self, problem):
        button = self.ui.applyButton
        ui = self.ui
        for section in (ui.inputsPart, ui.outputsCollapsibleButton, ui.advancedCollapsibleButton):
            section.enabled = not self.isRunning
        if self.isRunning:
            self._name(_("Cancel"), "")
            button.enabled = self.state is not State.CANCELLING  # who works with keys would lose the button they are on
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
        if self.state is State.RUNNING:
            self.state = State.CANCELLING
            self.ui.applyButton.enabled = False
            self.say(_("Cancelling…"))
            self.run.cancel()
        elif self.state is State.IDLE:
            self.launch(self.panel.inputs.warnings(), self._start, self._showResult)

    def _start(self):
        """The run that the panel asks for, begun. Raises `MRSuperResError`."""
        self.panel.inputs.accept()
        self._subject = self.panel.outputs.subject()
        return self.logic.start(
            self.request(),
            onProgress=self._onProgress,
            onWarning=self._onWarning,
            onPreview=self._onPreview,
            onLog=self.log,
            onFinished=self.finish,
        )

    def launch(self, warnings, start, show):
        """Follow the run that `start()` begins and returns, unless the user declines for `warnings`; `show(run)` at its end."""
        self.state = State.STARTING
        try:
            if not self.confirmed(warnings) or self.state is not State.STARTING:  # or the scene was closed meanwhile
                return
            self._begin()
            run = start()
            if self.state is not State.STARTING:  # the scene was closed meanwhile
                run.cancel()
                return
            self.run, self._show, self.state = run, show, State.RUNNING
            if not run.isRunning:  # it has ended already
                self.finish(run)
        except MRSuperResError as error:
            self._stop()
            self.fail(error)
        except BaseException:
            self.say("")
            raise
        finally:
            if self.state is State.STARTING:
                self._stop()
                self.state = State.IDLE
            self.panel.refresh()

    @staticmethod
    def confirmed(warnings):
        """Whether the user wants to run in spite of `warnings`."""
        return not warnings or slicer.util.confirmOkCancelDisplay(
            _("The model was not made for this scan:") + "\n\n" + "\n".join(warnings) + "\n\n" + _("Run it anyway?"),
            windowTitle=_("Outside of what the model was trained on"),
        )

    def say(self, text, style=""):
        """The line under the progress bar."""
        self.ui.statusLabel.text = text
        self.ui.statusLabel.styleSheet = style
        self.ui.statusLabel.visible = bool(text)

    def forget(self):
        """Say nothing any more about a run that has ended: it was on another input, whose name it may tell."""
        if self.state in (State.IDLE, State.SETTLING):
            self.say("")
            self.ui.logText.clear()

    def _begin(self):
        """Empty what tells of the last run."""
        self.ui.logText.clear()
        self.say(_("Starting…"))
        self.ui.progressBar.setRange(0, 0)
        self.ui.progressBar.visible = True
        self._stage, self._stageBegan, self._warnings = "", 0.0, []

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

    def _stop(self):
        """Nothing runs any more: no progress, no preview."""
        self.ui.progressBar.visible = False
        self.ui.previewLabel.visible = False
        self.ui.previewLabel.clear()

    def _onWarning(self, code, message):
        if code != "flagged":  # of which the panel warns by itself, with a way there
            self._warnings.append(message)
        self.ui.logText.appendPlainText(_("Warning: {message}").format(message=message))

    def log(self, line):
        self.ui.logText.appendPlainText(str(line).rstrip())

    def finish(self, run):
        """`run` has ended, one way or another; of one that nobody follows any more nothing is shown."""
        if run is not self.run or self.state is State.SETTLING:
            return
        self.state = State.SETTLING
        self._stop()
        try:
            if self._parameterNode is not None:
                self._show(run)
        finally:
            qt.QTimer.singleShot(SETTLING_MILLISECONDS, lambda: self._settle(run))
            self.panel.refresh()

    def _settle(self, run):
        """Another run may be begun."""
        if run is self.run and self.state is State.SETTLING:
            self.state, self.run = State.IDLE, None
            self.panel.refresh()

    def fail(self, error):
        """Say why there is no result: in a box, unless the user wanted it so."""
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
        run, self.run, self.state = self.run, None, State.IDLE
        self._stop()
        if run is not None:
            run.cancel()
        self.forget()

    def _showResult(self, run):
        """Put the results into the panel, and on the screen."""
        if run.error is not None:
            self.fail(run.error)
            return
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
        if self._warnings:
            text += "\n" + _("Warning: {message}").format(message=self._warnings[0])
            self.ui.logCollapsibleButton.collapsed = False
        if len(self._warnings) > 1:
            text += " " + _("({count} more in the log)").format(count=len(self._warnings) - 1)
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
