"""German beside English: every text is translated, placeholders survive, the panel still fits, and files are up to date."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

slicer = pytest.importorskip("slicer", reason="the panel needs slicer-core")
pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")

sys.path.insert(0, str(Path(__file__).resolve().parent))
import translations  # noqa: E402
from panel import application  # noqa: E402
from panel.kit import applied, chosen, got, put, scan, support  # noqa: E402

GERMAN = translations.FOLDER / "MRSuperRes_de-DE.ts"
Qt = application.widgets.Qt


@pytest.fixture
def german(slicerApp: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The panel of a Slicer whose user has chosen German."""
    settings = slicerApp.userSettings()
    settings.setValue("Internationalization/Enabled", "true")
    settings.setValue("language", "de-DE")
    settings.sync()
    module = application.load()
    language = support("language")
    assert language.install()
    try:
        panel = module.MRSuperResWidget()
        panel.setup()
        yield panel
        panel.cleanup()
        for box in panel.parent.findChildren(application.widgets.qMRMLNodeComboBox):
            box.setMRMLScene(None)
    finally:
        for translator in language._installed.values():
            application.widgets.QtCore.QCoreApplication.removeTranslator(translator)
        language._installed.clear()


def test_the_files_are_what_the_sources_say(tmp_path: Path) -> None:
    """Else: python Testing/translations.py"""
    known = translations.translated(GERMAN)
    assert GERMAN.read_text(encoding="utf-8") == translations.document("de_DE", known)
    translations.compiled(GERMAN, tmp_path / "again.qm")
    assert (tmp_path / "again.qm").read_bytes() == GERMAN.with_suffix(".qm").read_bytes()


def test_every_text_is_translated_and_keeps_its_placeholders() -> None:
    known = translations.translated(GERMAN)
    wanted = {(context, text) for context, texts in translations.sources().items() for text in texts}
    assert len(wanted) > 200 and not wanted - set(known)
    for (_context, text), answer in known.items():
        assert sorted(re.findall(r"{[^}]*}", text)) == sorted(re.findall(r"{[^}]*}", answer)), text
        assert ("&" in text) == ("&" in answer), text
        assert text[-1:].isspace() == answer[-1:].isspace() and text[:1].isspace() == answer[:1].isspace(), text
        assert text.endswith(":") == answer.endswith(":"), text


def test_the_panel_speaks_german_and_fits(german: Any, module: Any) -> None:
    ui = german.ui
    assert got(ui.inputLabel, "text") == "&Aufnahme:" and got(ui.applyButton, "text") == "Anwenden"
    assert got(ui.applyButton, "toolTip") == "Das Volumen wählen, mit dem gearbeitet wird."
    node = chosen(german, module)
    assert got(ui.taskSelector, "currentText") == "Superauflösung quer zur Schicht"
    assert got(ui.estimateLabel, "text") == "20 × 24 × 20 Voxel von 1 × 1 × 2 mm"
    german._parameterNode.truthVolume = scan("Wahrheit", (20, 24, 20), (1, 1, 2))
    assert applied(german).GetName() == "T2 thick SR x2 (bspline)", "names in the scene are the same in every language"
    assert got(ui.statusLabel, "text").startswith("Fertig in ") and node is not None
    for name in ("about", "hidden", "outputs", "compare", "many", "advanced", "log"):
        put(getattr(ui, f"{name}CollapsibleButton"), "collapsed", False)
    german.parent.setAttribute(Qt.WA_DontShowOnScreen, True)
    for task in module.Task:
        german._parameterNode.task = task
        assert german.parent.minimumSizeHint().width() <= 400, task


@pytest.mark.parametrize("task", ["THROUGH_PLANE", "GUIDED", "TRANSLATE"])
def test_no_two_german_labels_share_a_key(german: Any, module: Any, task: str) -> None:
    chosen(german, module, task=module.Task[task])
    german.parent.setAttribute(Qt.WA_DontShowOnScreen, True)
    german.parent.show()
    labels = german.parent.findChildren(application.widgets.QtWidgets.QLabel)
    keys = [
        found.group(1).lower()
        for label in labels
        if label.isVisible() and label.buddy() is not None and (found := re.search(r"&(\w)", got(label, "text")))
    ]
    german.parent.hide()
    assert len(keys) >= 5 and len(keys) == len(set(keys)), sorted(keys)


def test_without_the_choice_slicer_stays_english(slicerApp: Any, panel: Any) -> None:
    slicerApp.userSettings().setValue("language", "de-DE")
    assert not support("language").install(), "the setting is there, but internationalization is off"
    assert got(panel.ui.applyButton, "text") == "Apply"


def test_no_shortcut_of_a_label_is_one_of_slicers_menus() -> None:
    """Alt+F, E, V and H open File, Edit, View and Help: Qt calls a letter of two owners ambiguous, and neither acts."""
    texts = [text for _context, text in translations.translated(GERMAN)]
    texts += [answer for answer in translations.translated(GERMAN).values() if answer]
    letters = [letter.upper() for text in texts for letter in re.findall(r"&(\w)", text)]
    assert len(letters) > 20 and not set(letters) & set("FEVH")
