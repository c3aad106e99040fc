"""Cancel, pressed at any moment and in any order with what the worker says: nothing of a cancelled run reaches the scene."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

slicer = pytest.importorskip("slicer", reason="the panel needs slicer-core")
pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")

import SimpleITK as sitk  # noqa: E402
from panel import application, widgets  # noqa: E402
from panel.kit import chosen, ended, got, hidden, scalars, support, tip  # noqa: E402

PREVIEW = {"event": "preview", "rows": 2, "columns": 2, "spacing": [1.0, 1.0], "pixels": "AAECAw=="}
PROGRESS = {"event": "progress", "stage": "super-resolving", "done": 1, "total": 2, "seconds_left": 3}


class Held:
    """A worker that says what a test lets it say, when it lets it."""

    made: ClassVar[list[Held]] = []

    def __init__(self) -> None:
        self.isRunning, self.asked, self.ready = False, 0, []
        self.made.append(self)

    def start(self, job: Path, onLine: Any, onEnd: Any) -> None:
        self.job, self.onLine, self.onEnd = json.loads(Path(job).read_text()), onLine, onEnd
        self.isRunning = True

    def cancel(self) -> None:
        self.asked += 1

    def pump(self) -> None:
        while self.ready and self.isRunning:
            self.ready.pop(0)()

    def says(self, *events: dict[str, Any]) -> None:
        for event in events:
            self.ready.append(lambda event=event: self.onLine(json.dumps(event), False))

    def ends(self, code: int = 0) -> None:
        def end() -> None:
            self.isRunning = False
            self.onEnd(code)

        self.ready.append(end)

    def answers(self) -> None:
        """The result is written, told, and the process has ended."""
        image = sitk.ReadImage(self.job["input"])
        sitk.WriteImage(image, self.job["output"])
        outputs = {"output": self.job["output"], "samples": []}
        self.says({"event": "result", "outputs": outputs, "metrics": {}, "provenance": {}, "seconds": 1.0})
        self.ends()


@pytest.fixture
def held(panel: Any, module: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The panel with a scan, ready for Apply, and `Held` for its workers."""
    Held.made = []
    monkeypatch.setattr(panel.logic, "_process", Held)
    chosen(panel, module)
    yield panel
    for process in Held.made:
        process.ready.clear()
        process.ends(130)


def begun(panel: Any) -> tuple[Any, Held]:
    """A run of the panel's that has just been begun, and its process."""
    assert tip(panel)[0], tip(panel)
    panel.ui.applyButton.click()
    assert panel.work.run is not None
    return panel.work.run, Held.made[-1]


def press(button: Any) -> None:
    """A press of the mouse that waits in the application's queue, as one does that comes while the application is busy."""
    centre = widgets.QtCore.QPointF(button.rect().center())
    left, none = widgets.Qt.LeftButton, widgets.Qt.NoModifier
    kinds = (
        (widgets.QtCore.QEvent.MouseButtonPress, left),
        (widgets.QtCore.QEvent.MouseButtonRelease, widgets.Qt.NoButton),
    )
    for kind, buttons in kinds:
        event = widgets.QtGui.QMouseEvent(kind, centre, button.mapToGlobal(centre), left, buttons, none)
        widgets.QtCore.QCoreApplication.postEvent(button, event)


def quiet(seconds: float) -> None:
    """Let the application live."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        slicer.app.processEvents()


def test_cancel_pressed_while_the_result_comes_in_does_not_start_another_run(
    held: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application hears of the press only when the button may have become Apply again."""
    scene = support("scene")
    fill = scene.fill

    def slow(*values: Any) -> None:
        press(held.ui.applyButton)
        fill(*values)

    monkeypatch.setattr(scene, "fill", slow)
    run, process = begun(held)
    process.answers()
    application.until(lambda: not run.isRunning, 5, "the result")
    quiet(0.3)
    assert run.result is not None and len(Held.made) == 1
    assert scalars() == ["T2 thick", "T2 thick SR x1 (bspline)"] and tip(held)[0]


def test_a_press_of_apply_in_the_queue_starts_one_run(held: Any) -> None:
    """That `press` is one: the test above could not fail otherwise."""
    press(held.ui.applyButton)
    application.until(lambda: len(Held.made) == 1, 2, "the run")


def test_a_result_that_was_complete_when_cancel_was_pressed_stays_out(held: Any) -> None:
    run, process = begun(held)
    process.answers()
    held.ui.applyButton.click()
    ended(held, 5)
    assert run.error.code == "cancelled" and process.asked == 1
    assert scalars() == ["T2 thick"] and got(held.ui.statusLabel, "text") == "Cancelled. Nothing was changed."


def test_cancel_while_the_results_files_are_read_keeps_them_out(held: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, load = support("scene"), support("scene").load

    def pressed(path: str) -> Any:
        held.ui.applyButton.click()
        return load(path)

    monkeypatch.setattr(scene, "load", pressed)
    run, process = begun(held)
    process.answers()
    ended(held, 5)
    assert run.error.code == "cancelled" and scalars() == ["T2 thick"]


def test_what_a_cancelled_run_still_says_is_not_shown(held: Any) -> None:
    run, process = begun(held)
    held.ui.applyButton.click()
    process.says(PREVIEW, PROGRESS, {"event": "warning", "code": "any", "message": "late"})
    application.until(lambda: not process.ready, 2, "the late lines")
    assert hidden(held.ui.previewLabel) and got(held.ui.statusLabel, "text") == "Cancelling…"
    assert "late" not in held.ui.logText.toPlainText()
    process.answers()
    ended(held, 5)
    assert run.error.code == "cancelled" and hidden(held.ui.previewLabel) and hidden(held.ui.progressBar)
    assert scalars() == ["T2 thick"]


def test_cancel_pressed_again_and_again_cancels_once_and_starts_nothing(held: Any) -> None:
    _run, process = begun(held)
    for _press in range(3):
        held.ui.applyButton.click()
        press(held.ui.applyButton)
        slicer.app.processEvents()
    process.ends(130)
    application.until(lambda: not process.isRunning, 2, "the end")
    held.ui.applyButton.click()
    assert len(Held.made) == 1 and process.asked == 1
    ended(held, 5)
    assert tip(held)[0] and scalars() == ["T2 thick"]


def test_apply_after_cancel_makes_one_result(held: Any) -> None:
    first, process = begun(held)
    process.answers()
    late, process.ready = process.ready, []
    held.ui.applyButton.click()
    process.ends(130)
    ended(held, 5)
    second, other = begun(held)
    process.isRunning, process.ready = True, late  # it speaks once more
    process.pump()
    other.answers()
    ended(held, 5)
    assert first.error.code == "cancelled" and second.error is None
    assert scalars() == ["T2 thick", "T2 thick SR x1 (bspline)"]


def test_a_run_that_was_too_quick_to_be_cancelled_keeps_its_result(held: Any) -> None:
    run, process = begun(held)
    process.answers()
    application.until(lambda: not run.isRunning, 2, "the end")
    run.cancel()
    assert run.error is None and run.result.output is not None
    ended(held, 5)
    assert len(scalars()) == 2


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), OSError("no memory")])
def test_a_start_that_fails_leaves_no_process_and_no_busy_panel(
    held: Any, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the press meant for Cancel is the Apply of a second run."""
    shown: list[str] = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: shown.append(text))
    monkeypatch.setattr(Held, "start", lambda *_: (_ for _ in ()).throw(error))
    held.ui.applyButton.click()
    assert str(error) in shown[0] and tip(held)[0]
    assert hidden(held.ui.progressBar) and held.work.run is None


def test_a_mistake_in_a_callback_ends_no_run(held: Any) -> None:
    """Else the worker goes on computing for nobody."""
    from MRSuperResSupport.run import RunRequest, wait

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("in a script")

    node = held._parameterNode.inputVolume
    run = held.logic.start(RunRequest(node, "bspline", factor=2.0, plane="through-plane"), onProgress=broken)
    process = Held.made[-1]
    process.says(PROGRESS)
    process.answers()
    wait(run)
    assert run.error is None and run.result.output is not None


def test_a_bug_in_the_start_leaves_the_panel_usable(held: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(held.logic, "start", lambda *_, **__: {}["nothing"])
        with pytest.raises(KeyError):
            held.work.launch([], held.work._start, held.work._showResult)
    assert hidden(held.ui.progressBar) and got(held.ui.statusLabel, "text") == ""
    begun(held)


def test_a_scene_closed_while_something_is_installed_starts_no_run(held: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    start = held.logic.start

    def install(request: Any, **callbacks: Any) -> Any:
        slicer.mrmlScene.Clear()
        return start(request, **callbacks)

    monkeypatch.setattr(held.logic, "start", install)
    held.ui.applyButton.click()
    assert held.work.run is None and not held.work.isRunning
    Held.made[-1].answers()
    application.until(lambda: not Held.made[-1].isRunning, 2, "the end")
    assert scalars() == []


@pytest.mark.parametrize("what", ["colourMap", "attach"])
def test_a_result_that_cannot_be_brought_in_whole_is_not_brought_in(
    held: Any, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the panel does not wait for it for ever."""
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: None)

    def broken(*_: Any, **__: Any) -> None:
        raise TypeError("an observer's mistake")

    held._parameterNode.makeConsistencyMap = True
    run, process = begun(held)
    process.answers()
    answer = process.ready[0]

    def with_map() -> None:
        sitk.WriteImage(sitk.ReadImage(process.job["output"]), process.job["consistency_map"])
        said, process.onLine = process.onLine, lambda line, _: heard.append(json.loads(line))
        heard: list[dict[str, Any]] = []
        answer()
        heard[0]["outputs"]["consistency_map"] = process.job["consistency_map"]
        process.onLine = said
        said(json.dumps(heard[0]), False)

    process.ready[0] = with_map
    monkeypatch.setattr(support("scene"), what, broken)
    ended(held, 5)
    assert run.error.code == "import" and "observer's mistake" in got(held.ui.statusLabel, "text")
    assert scalars() == ["T2 thick"] and tip(held)[0]


# The worker


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stand-ins for processes, in the order in which they are made; each has ended before it could be asked."""
    made: list[Any] = []

    class Dead:
        answered = False
        process = None
        ask: Callable[..., bool]

        def __init__(self, mode: str) -> None:
            self.events: queue.Queue[Any] = queue.Queue()
            self.events.put(("error", "a library is missing"))
            self.events.put(("end", 127))
            made.append(self)

        def end(self) -> None:
            pass

        stop = end

    worker = support("worker")
    Dead.ask = worker.Child.ask
    monkeypatch.setattr(worker, "Child", Dead)
    return made


def test_a_process_that_ends_at_once_ends_its_run(slicerApp: Any, children: list[Any], tmp_path: Path) -> None:
    """Cancel could not end it either."""
    worker = support("worker")
    run, codes = worker.Worker(worker.Workers()), []
    run.start(tmp_path / "job.json", lambda *_: None, codes.append)
    for _ in range(3):
        run.pump()
    assert codes == [127] and not run.isRunning


def test_a_machine_without_threads_keeps_no_process(slicerApp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, ended_ = support("worker"), []

    def refuse(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(worker.Child, "end", lambda self: (ended_.append(self.process), self.process.kill()))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(OSError, match="new thread"):
        worker.Child("--serve")
    assert len(ended_) == 1 and ended_[0].wait(10) is not None
    for stream in (ended_[0].stdin, ended_[0].stdout, ended_[0].stderr):
        stream.close()


def test_what_a_warm_worker_says_late_is_no_answer_to_the_next_job(slicerApp: Any, tmp_path: Path) -> None:
    """It is replaced if it then ends, and its lines are not taken for the next job's."""
    worker = support("worker")

    class Late:
        def __init__(self) -> None:
            self.events: queue.Queue[Any] = queue.Queue()
            self.answered, self.isAlive, self.begun = False, True, []
            self.events.put(("line", '{"event": "result"}'))
            self.process = self
            self.stdin = self

        def write(self, text: str) -> None:
            self.begun.append(text)

        def flush(self) -> None:
            pass

        ask = worker.Child.ask

    workers, child, heard, codes = worker.Workers(), Late(), [], []
    workers.giveBack(child)
    run = worker.Worker(workers)
    run.start(tmp_path / "job.json", lambda line, _: heard.append(line), codes.append)
    assert child.begun and heard == []
    child.events.put(("line", worker.READY))
    child.events.put(("error", "a warning of a library"))
    child.events.put(("end", -15))
    begun_: list[int] = []
    run._begin = lambda: begun_.append(1)
    run.pump()
    assert begun_ == [1] and heard == ["a warning of a library"] and codes == []
