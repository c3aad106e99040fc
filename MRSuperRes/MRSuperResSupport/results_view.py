"""What a run made: scores, maps, samples, and input and result side by side."""

import qt
from slicer.i18n import tr as _

from . import compare, places, scene
from .parameters import RESULT_ROLE
from .part import Part, fill
from .run import MAPS


class ResultsView(Part):
    """Scores, comparison, map and samples of the last result."""

    def __init__(self, panel):
        Part.__init__(self, panel)
        self._resultMaps = []  # that the comparison can show
        self._marked = None  # the volume whose places are shown
        self._next = 0  # of those places, the one that the button goes to
        self.overlaid = False  # the reference lies over the slice views, to show the overlap
        self.comparison = compare.Comparison(onLeft=self._onLeft, onBlend=self._onBlended)
        self.flicker = qt.QTimer()
        self.flicker.interval = compare.FLICKER_MILLISECONDS
        self.flicker.timeout.connect(self.onFlicker)
        ui = self.ui
        ui.compareButton.clicked.connect(self.onCompareButton)
        ui.restoreLayoutButton.clicked.connect(self.onRestoreLayoutButton)
        ui.blendSlider.valueChanged.connect(self._onBlend)
        ui.flickerButton.toggled.connect(self._onFlickerButton)
        ui.mapSelector.currentIndexChanged.connect(self._onMap)
        ui.sampleSlider.valueChanged.connect(self.onSample)
        ui.placesButton.clicked.connect(self._onPlacesButton)

    def result(self):
        """What was made last from the input that is chosen now, None if nothing was: never another patient's."""
        volume = self._live(self._parameterNode.inputVolume)
        if volume is None:
            return None
        last = self._live(self._parameterNode.parameterNode.GetNodeReference(RESULT_ROLE))
        if last is not None and scene.sourceOf(last) is volume:
            return last
        return next(reversed(scene.resultsOf(volume)), None)

    def leaveOthers(self):
        """Take a comparison away whose input or result is not the panel's any more."""
        shown = self.comparison
        shown.adopt()
        if not shown.isShown or shown.low is None:
            return
        if shown.low is not self._live(self._parameterNode.inputVolume) or self._live(shown.result) is None:
            self.ui.flickerButton.checked = False
            shown.restore()

    def present(self, node):
        """Show `node` in the slice views, without the reference that may lie over them."""
        layers = {"foreground": None} if self.overlaid else {}
        scene.showInViews(node, **layers)
        self.overlaid = False
        places.showOnly(node if scene.roleOf(node) == "result" else self.result())

    def showPlaces(self):
        """What the translation may have lost: the warning, and the button that goes there, the largest first."""
        ui, volume = self.ui, self._translated()
        found = places.placesOf(volume)
        if volume is not self._marked:  # what the user shows or hides afterwards is left alone
            self._marked, self._next = volume, 0
            places.showOnly(volume)
        ui.placesRow.visible = bool(found)
        if not found:
            return
        self._next %= len(found)
        ui.placesLabel.text = places.warning(found)
        ui.placesButton.text = (
            _("Go there")
            if len(found) == 1
            else _("Go to {number} of {count}").format(number=self._next + 1, count=len(found))
        )

    def _translated(self):
        """What may be a translation, or made from one: the result, else the input."""
        return self.result() or self._live(self._parameterNode.inputVolume)

    def _onPlacesButton(self, checked=False):
        """To the next place, in all slice views."""
        found = places.placesOf(self._translated())
        if found:
            places.goTo(found[self._next % len(found)])
            self._next += 1
            self.showPlaces()

    def showMetrics(self):
        """The scores of the result that Compare would show."""
        table, result = self.ui.metricsTable, self.result()
        scores = scene.metricsOf(result) if result is not None else {}
        rows = [(name, key, form) for name, key, form in _scores() if scores.get(key) is not None]
        table.rowCount = len(rows)
        for number, (name, key, form) in enumerate(rows):
            whole = scores.get(f"{key}_whole")
            cells = (name, form.format(scores[key]), "" if whole is None else form.format(whole))
            for column, cell in enumerate(cells):
                table.setItem(number, column, qt.QTableWidgetItem(cell))
        table.visible = bool(rows)

    def samples(self):
        """The samples of the last translation that still are in the scene."""
        result = self.result()
        return scene.attached(result, "sample") if result is not None else []

    def shownMap(self):
        """(map chosen to be compared, what it is in a word), None if there is none."""
        number = self.ui.mapSelector.currentIndex
        return self._resultMaps[number] if 0 <= number < len(self._resultMaps) else None

    def showCompare(self):
        ui, parameters = self.ui, self._parameterNode
        volume, result = self._live(parameters.inputVolume), self.result()
        ready = volume is not None and result is not None
        ui.compareButton.enabled = ready
        ui.compareButton.toolTip = (
            _("Input, result and map in linked views with the same window, zoom and cross-hair.")
            if ready
            else _("There is no result to compare yet.")
        )
        shown = self.comparison.isShown
        ui.restoreLayoutButton.enabled = shown
        for widget in (ui.blendSlider, ui.blendLabel, ui.flickerButton):
            widget.enabled = shown
        samples = self.samples()
        ui.sampleRow.visible = bool(samples)
        ui.sampleSlider.maximum = float(len(samples))
        words = mapWords()
        self._resultMaps = (
            [(node, words[name]) for name in MAPS for node in scene.attached(result, name)] if ready else []
        )
        current = min(max(0, ui.mapSelector.currentIndex), len(self._resultMaps) - 1)
        fill(ui.mapSelector, [word for _node, word in self._resultMaps], current)
        ui.mapRow.visible = len(self._resultMaps) > 1
        ui.legendLabel.text = self.comparison.caption if shown else ""
        ui.legendLabel.visible = shown and bool(self.comparison.caption)

    def onCompareButton(self, checked=False):
        """Input | result (| map), side by side."""
        parameters = self._parameterNode
        volume, result = self._live(parameters.inputVolume), self.result()
        if volume is None or result is None:
            return
        self.ui.sampleSlider.value = 0.0
        through = self.panel.inputs.plane() == "through-plane"
        self.comparison.show(volume, result, self.shownMap(), through, self.ui.blendSlider.value)
        self.panel.refresh()

    def onRestoreLayoutButton(self, checked=False):
        """The layout the user had."""
        self.ui.flickerButton.checked = False
        self.comparison.restore()
        self.panel.refresh()

    def _onLeft(self):
        """The user left by Slicer's layout menu."""
        self.flicker.stop()
        self.ui.flickerButton.checked = False
        self.panel.refresh()

    def _onBlend(self, value):
        self.comparison.setBlend(value)

    def _onBlended(self, opacity):
        """The view's own controller, or a drag in it, has changed what the slider says; flickering is no such change."""
        if not self.ui.flickerButton.checked and abs(self.ui.blendSlider.value - opacity) > 1e-6:
            self.ui.blendSlider.value = opacity

    def _onFlickerButton(self, on):
        if on:
            self.flicker.start()
        else:
            self.flicker.stop()
            self.comparison.setBlend(self.ui.blendSlider.value)

    def onFlicker(self):
        self.comparison.swap()

    def _onMap(self, _entry=None):
        if not self._refreshing and self.comparison.isShown and self.shownMap() is not None:
            self.comparison.showMap(*self.shownMap())
            self.panel.refresh()

    def onSample(self, value):
        """Show the mean (0) or a sample (1 and up)."""
        if self._parameterNode is None or self._refreshing:
            return
        samples, number = self.samples(), round(value)
        node = samples[number - 1] if 1 <= number <= len(samples) else self.result()
        if node is None:
            return
        if self.comparison.isShown:
            self.comparison.showResult(node, _("Sample {number}").format(number=number) if number else "")
        else:
            self.present(node)
        self.panel.work.say(node.GetName())


def mapWords():
    """What each map is, in a word."""
    return {"errorMap": _("Error"), "consistencyMap": _("Consistency"), "uncertaintyMap": _("Uncertainty")}


def _scores():
    """(what people call it, key, format) of the scores the table shows."""
    return (
        (_("PSNR (dB, higher is better)"), "psnr", "{:.2f}"),
        (_("SSIM (1 is best)"), "ssim", "{:.4f}"),
        (_("NMSE (lower is better)"), "nmse", "{:.4f}"),
    )
