"""The panel fits: 400 pixels of width, Apply and progress on the first 600 pixels, no gaps; and it can be used by keyboard."""

from __future__ import annotations

import base64
import re
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="the panel needs slicer-core")
pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")

from panel import application  # noqa: E402
from panel.kit import chosen, ended, got, hidden, made, put, scan, support  # noqa: E402

Qt = application.widgets.Qt
WIDTH, HEIGHT = 400, 600
UI = application.MODULE / "Resources" / "UI" / "MRSuperRes.ui"
SECTIONS = [
    w.get("name", "")
    for w in ElementTree.parse(UI).getroot().iter("widget")
    if w.get("class") == "ctkCollapsibleButton"
]


def laid_out(panel: Any) -> Any:
    """The panel's frame in the size that Slicer gives it, never on a screen."""
    frame = panel.parent
    frame.setAttribute(Qt.WA_DontShowOnScreen, True)
    frame.show()
    frame.setProperty("size", application.widgets.QtCore.QSize(WIDTH, HEIGHT))
    for _ in range(5):
        slicer.app.processEvents()
    return frame


def bottom(widget: Any, frame: Any) -> int:
    return int(widget.mapTo(frame, application.widgets.QtCore.QPoint(0, widget.height())).y())


@pytest.mark.parametrize("task", ["IN_PLANE", "THROUGH_PLANE", "GUIDED", "TRANSLATE"])
def test_what_matters_is_on_the_first_screen_and_nothing_is_wider(
    panel: Any, module: Any, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        panel.logic, "warnings", lambda *_, **__: ["trained on slices of 2 to 3 mm, this scan has 7"] * 2
    )
    node = chosen(panel, module, task=module.Task[task])
    long = "Sag T2 SPACE DOE^JANE 1970 with a name that no list of 400 pixels can show in full"
    for volume in (node, made(node, name=f"{long} SR"), scan(f"{long} truth")):
        volume.SetName(f"{long} {volume.GetName()}")
    panel.refresh()
    panel.work.launch([], types_run, lambda run: None)
    panel.work._onProgress("super-resolving", 1, 3)
    frame = laid_out(panel)
    assert not hidden(panel.ui.warningLabel)
    for widget in (panel.ui.applyButton, panel.ui.progressBar, panel.ui.statusLabel):
        assert bottom(widget, frame) <= HEIGHT, widget.property("objectName")
    panel.work.finish(panel.work.run)
    ended(panel)
    panel.work.say("Done in 41 s: " + long)
    for name in SECTIONS:
        put(getattr(panel.ui, name), "collapsed", False)
    panel.ui.logText.appendPlainText(long * 3)
    frame = laid_out(panel)
    assert frame.minimumSizeHint().width() <= WIDTH
    assert got(frame, "size").width() == WIDTH, "Qt made it as wide as it wants to be"
    frame.hide()


def test_places_that_a_translation_may_have_lost_are_warned_of_on_the_first_screen(translating: Any) -> None:
    translating.ui.applyButton.click()
    ended(translating)
    frame = laid_out(translating)
    assert not hidden(translating.ui.placesRow) and bottom(translating.ui.placesRow, frame) <= HEIGHT
    assert frame.minimumSizeHint().width() <= WIDTH
    frame.hide()


def types_run() -> Any:
    """Something that runs."""

    class Going:
        isRunning = True

        def cancel(self) -> None:
            pass

        def end(self) -> None:
            self.isRunning = False

    return Going()


def test_everything_else_is_collapsed_when_the_panel_opens(panel: Any) -> None:
    assert len(SECTIONS) == 7 and all(got(getattr(panel.ui, name), "collapsed") for name in SECTIONS)


@pytest.mark.parametrize("task", ["IN_PLANE", "GUIDED", "TRANSLATE"])
def test_hidden_rows_leave_no_gaps(panel: Any, module: Any, task: str) -> None:
    chosen(panel, module, task=module.Task[task])
    laid_out(panel)
    rows = sorted(
        (w.geometry().top(), w.geometry().bottom(), w.property("objectName"))
        for w in panel.ui.inputsPart.children()
        if w.isWidgetType() and w.isVisible()
    )
    assert len(rows) >= 6
    gaps = {(a[2], b[2]): b[0] - a[1] for a, b in pairwise(rows)}
    assert max(gaps.values()) <= 6, gaps
    panel.parent.hide()


def test_the_tab_key_goes_from_top_to_bottom(panel: Any, module: Any) -> None:
    chosen(panel, module)
    frame = laid_out(panel)
    stops = [t.text or "" for t in ElementTree.parse(UI).getroot().iter("tabstop")]
    assert {"inputSelector", "modelSelector", "applyButton", "compareButton"} <= set(stops)
    places = [
        getattr(panel.ui, name).mapTo(frame, application.widgets.QtCore.QPoint(0, 0)).toTuple()[::-1]
        for name in stops
        if getattr(panel.ui, name).isVisible()
    ]
    rows = [place[0] // 12 for place in places]
    assert rows == sorted(rows)
    panel.parent.hide()


def test_a_screen_reader_hears_what_each_control_is_for(panel: Any) -> None:
    root = ElementTree.parse(UI).getroot()
    told = (
        "QComboBox",
        "QSpinBox",
        "QDoubleSpinBox",
        "qMRMLNodeComboBox",
        "ctkSliderWidget",
        "ctkPathLineEdit",
        "QProgressBar",
    )
    silent = [
        w.get("name")
        for w in root.iter("widget")
        if w.get("class") in told and not got(getattr(panel.ui, w.get("name", "")), "accessibleName")
    ]
    assert not silent


@pytest.mark.parametrize("task", ["THROUGH_PLANE", "GUIDED", "TRANSLATE"])
def test_no_two_controls_of_a_task_share_a_key(panel: Any, module: Any, task: str) -> None:
    chosen(panel, module, task=module.Task[task])
    laid_out(panel)
    keys = [
        found.group(1).lower()
        for label in panel.parent.findChildren(application.widgets.QtWidgets.QLabel)
        if label.isVisible() and label.buddy() is not None and (found := re.search(r"&(\w)", got(label, "text")))
    ]
    assert len(keys) >= 5 and len(keys) == len(set(keys)), sorted(keys)
    assert got(panel.ui.applyButton, "shortcut").toString() == "Ctrl+Return", "it survives that the button is renamed"
    panel.parent.hide()


def test_time_left_is_told_after_five_seconds_and_progress_is_a_share(
    panel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(support("work_view").time, "monotonic", lambda: clock[0])
    panel.work._onProgress("super-resolving", 1, 356, 9.0)
    assert got(panel.ui.statusLabel, "text") == "Super-resolving: 0%"
    clock[0] += 6
    panel.work._onProgress("super-resolving", 5 * 10**9, 10**10, 75.0)
    assert got(panel.ui.statusLabel, "text") == "Super-resolving: 50%, about 1 min 15 s left"
    assert got(panel.ui.progressBar, "value") * 2 == got(panel.ui.progressBar, "maximum"), "more voxels than Qt counts"


def test_a_preview_is_shown_in_the_patients_proportions_and_goes_with_the_run(panel: Any, module: Any) -> None:
    class Previews:
        """Answers with a picture of 10 x 40 pixels, 4 mm from row to row, then fails."""

        isRunning = False

        def start(self, job: Any, onLine: Any, onEnd: Any) -> None:
            self.asked, self.onLine, self.onEnd, self.isRunning, self.told = job, onLine, onEnd, True, 0

        def cancel(self) -> None:
            self.isRunning = False
            self.onEnd(130)

        def pump(self) -> None:
            self.told += 1
            if self.told == 1:
                pixels = base64.b64encode(np.arange(400, dtype=np.uint8).tobytes()).decode()
                size = f'"rows": 10, "columns": 40, "spacing": [4.0, 1.0], "pixels": "{pixels}"'
                self.onLine('{"event": "preview", ' + size + "}", False)

    chosen(panel, module)
    panel.logic._process = Previews
    panel.ui.applyButton.click()
    application.until(lambda: not hidden(panel.ui.previewLabel), 2, "the preview")
    picture = got(panel.ui.previewLabel, "pixmap")
    assert picture.width() == picture.height() == support("work_view").PREVIEW_HEIGHT
    panel.ui.applyButton.click()
    ended(panel, 3)
    assert hidden(panel.ui.previewLabel)


def test_the_line_under_the_model_says_how_long_it_took_here(panel: Any, module: Any) -> None:
    network = support("cards").line(panel.logic.model("rdst-e-through-x4"), 125.0)
    assert re.fullmatch(r"For T1w, T2w, FLAIR of the brain · \+\d\.\d dB · about 2 min", network)
    assert len(network) <= 60, "a line"
    chosen(panel, module)
    assert got(panel.ui.modelLineLabel, "text") == "Interpolation, no model"
    support("cards").rememberSeconds("bspline", "auto", 10**6, 65.0)
    panel._parameterNode.factor = 100 / 10
    voxels = 20 * 24 * 100
    assert got(panel.ui.modelLineLabel, "text") == f"Interpolation, no model · about {round(65 * voxels / 1e6)} s"
