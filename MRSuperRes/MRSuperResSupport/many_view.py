"""The same model and settings for all volumes of a folder, or all frames of a sequence."""

from slicer.i18n import tr as _

from MRSuperResLib.errors import MRSuperResError

from . import scene
from .parameters import SizeMode, Task
from .part import Part, fill


class ManyView(Part):
    """What holds several volumes, and the run over all of them."""

    def __init__(self, panel):
        Part.__init__(self, panel)
        self.collections = []  # what holds several volumes
        ui = self.ui
        ui.manyButton.clicked.connect(self.onManyButton)
        ui.manyCollapsibleButton.contentsCollapsed.connect(self._onCollapsed)

    def _onCollapsed(self, collapsed):
        if not collapsed:
            self.fillMany()

    def fillMany(self):
        """List what holds several volumes: items of the subject hierarchy, and sequences."""
        number = self.ui.manySelector.currentIndex
        before = self.collections[number][2] if 0 <= number < len(self.collections) else None
        self.collections = scene.collections()
        holders = [holder for _name, _count, holder in self.collections]
        labels = [f"{name} ({count})" for name, count, _holder in self.collections]
        fill(self.ui.manySelector, labels, holders.index(before) if before in holders else 0 if holders else -1)
        if self._parameterNode is not None:
            self.panel.refresh()

    def choose(self, item):
        """Show the section with that subject-hierarchy item chosen."""
        self.ui.manyCollapsibleButton.collapsed = False
        self.fillMany()
        holders = [holder for _name, _count, holder in self.collections]
        if item in holders:
            self.ui.manySelector.currentIndex = holders.index(item)

    def showMany(self, missing):
        """Whether and why not many volumes can be run, and what would be done to them."""
        ui, parameters = self.ui, self._parameterNode
        reason = "" if self.collections else _("The scene has no folder, study or sequence with several volumes.")
        if not reason and parameters.task is Task.GUIDED:
            reason = _("Each volume would need a reference of its own: choose another task, or a script.")
        if not reason and (
            self.panel.inputs.entry() is None or (parameters.task is Task.TRANSLATE and not parameters.target)
        ):
            reason = missing
        ui.manySelector.enabled = bool(self.collections)
        ui.manyButton.enabled = not reason
        ui.manyButton.toolTip = reason or _(
            "Uses the model and settings above for each volume and goes on after a bad one. Cancel is the button above."
        )

    def options(self):
        """Model and settings for each of many volumes, as `superResolveMany` takes them."""
        parameters = self._parameterNode
        translates = parameters.task is Task.TRANSLATE
        enlarges = not translates or bool(parameters.firstModel)
        byFactor = parameters.sizeMode is SizeMode.FACTOR
        options = {
            "plane": self.panel.inputs.plane(),
            "factor": parameters.factor if enlarges and byFactor else None,
            "spacing": parameters.spacing if enlarges and not byFactor else None,
            "project": parameters.project and not translates,
            "profile": parameters.profile.value,
            "device": parameters.device.value,
            "precision": parameters.precision.value,
        }
        if translates:
            options |= {
                "otherContrast": parameters.contrast.value,
                "target": parameters.target,
                "samples": parameters.samples if self.panel.inputs.draws() else None,
                "seed": parameters.seed,
                "superResolveWith": parameters.firstModel or None,
            }
        made = {
            name: True for name, (_node, wanted) in self.panel.outputs.maps().items() if wanted and name != "errorMap"
        }
        return options | made

    def onManyButton(self, checked=False):
        """Run the model over all volumes of the chosen item."""
        number = self.ui.manySelector.currentIndex
        work = self.panel.work
        if work.isRunning or not 0 <= number < len(self.collections):
            return
        parameters, holder = self._parameterNode, self.collections[number][2]
        options = self.options()
        asked = {name: options[name] for name in ("factor", "spacing", "plane", "otherContrast") if name in options}
        try:
            warnings = self.logic.warningsOfMany(
                holder, parameters.model, firstModel=options.get("superResolveWith") or "", **asked
            )
        except MRSuperResError as error:
            work.fail(error)
            return
        started = []  # the run; what an abandoned one still says is not for this panel any more

        def begin():
            run = self.logic.superResolveMany(
                holder,
                parameters.model,
                outputFolder=self.ui.manyFolderEdit.currentPath or None,
                onProgress=lambda *progress: self._onProgress(*progress) if started in ([], [work.run]) else None,
                onFinished=lambda _results: work.finish(started[0]) if started else None,
                blocking=False,
                **options,
            )
            started.append(run)
            return run

        work.launch(_shortened(warnings), begin, lambda run: self._onFinished(run.results))

    def _onProgress(self, done, total, what):
        self.ui.progressBar.setRange(0, total)
        self.ui.progressBar.value = done
        self.panel.work.say(_("{done} of {total} volumes done; {what}").format(done=done, total=total, what=what))

    def _onFinished(self, results):
        """All volumes are settled: say how many, which not and why; show the last that was made."""
        failed = [result for result in results if result.error is not None and result.error.code != "cancelled"]
        good = sum(result.error is None for result in results)
        text = _("{good} of {total} volumes done").format(good=good, total=len(results))
        if failed:
            text += _(", {count} could not be: {reason}").format(count=len(failed), reason=failed[0].error.message)
        if any(result.error is not None and result.error.code == "cancelled" for result in results):
            text += _(", then cancelled")
        self.panel.work.say(text, "QLabel { color: #c62828; font-weight: bold; }" if failed else "")
        for result in results:
            state = result.error.message if result.error else _("was there already") if result.skipped else _("done")
            self.panel.work.log("; ".join([f"{result.name}: {state}", *result.warnings]))
        self.ui.logCollapsibleButton.collapsed = not failed and not any(result.warnings for result in results)
        made = [result.output for result in results if result.error is None and hasattr(result.output, "IsA")]
        made = [node for node in made if self._live(node) is not None and node.IsA("vtkMRMLVolumeNode")]
        if made and not self.panel.results.comparison.isShown:  # its views are slice views too
            self.panel.results.present(made[-1])
        self.fillMany()


def _shortened(lines, most=8):
    """The first lines, and how many more there are."""
    more = len(lines) - most
    return lines if more <= 0 else [*lines[:most], _("... and {count} more").format(count=more)]
