"""Which model is chosen for a scan, until the user chooses; and the factor that goes with it."""

from __future__ import annotations

from typing import Any

import pytest

slicer = pytest.importorskip("slicer", reason="the panel needs slicer-core")
pytest.importorskip("PySide6.QtUiTools", reason="the panel needs PySide6-Essentials")

from panel.kit import chosen, got, pick, put, scan, support  # noqa: E402

CLINICAL = {  # name, voxels (k, j, i), mm (i, j, k) -> task, factor of the network
    "thick T2": (("T2 tse", (20, 64, 64), (0.9, 0.9, 4.0)), ("THROUGH_PLANE", 4.0)),
    "coarse pixels, thin slices": (("T1 gre", (20, 64, 64), (2.0, 2.0, 2.0)), ("IN_PLANE", 2.0)),
}


@pytest.mark.parametrize("name", CLINICAL)
def test_a_model_is_recommended_for_a_scan_and_the_panel_says_why(panel: Any, name: str) -> None:
    (title, shape, spacing), (task, factor) = CLINICAL[name]
    panel._parameterNode.inputVolume = scan(title, shape, spacing)
    parameters = panel._parameterNode
    card = panel.logic.model(parameters.model).card
    assert (parameters.task.name, card.factor, parameters.factor) == (task, factor, factor) and not card.is_baseline
    assert got(panel.ui.modelSelector, "currentText") == card.title
    assert panel.inputs.why.startswith("The axial slices are") and card.id in panel.inputs.why
    assert got(panel.ui.modelSelector, "toolTip") == panel.inputs.why
    assert panel.inputs.warnings() == [], "what is recommended suits"


def test_a_scan_that_no_network_was_made_for_gets_interpolation(panel: Any) -> None:
    panel._parameterNode.inputVolume = scan("PD knee", (8, 12, 12), (0.3, 0.3, 3.0))
    assert panel._parameterNode.model == "bspline" and "no network covers" in panel.inputs.why
    assert panel._parameterNode.factor == 8.0


def test_a_scan_that_is_fine_gets_a_remark_and_the_next_one_does_not(panel: Any) -> None:
    panel._parameterNode.inputVolume = scan("T1 mprage", (20, 24, 24), (1.0, 1.0, 1.0))
    assert "fine as it is" in got(panel.ui.warningLabel, "text") and panel.inputs.why == ""
    panel._parameterNode.inputVolume = scan("T2 tse", (20, 64, 64), (0.9, 0.9, 4.0))
    assert "fine as it is" not in got(panel.ui.warningLabel, "text") and panel.inputs.why


def test_the_next_scan_gets_its_own_model_until_the_user_picks_one(panel: Any, module: Any) -> None:
    thick, fine = scan("T2 tse", (20, 64, 64), (0.9, 0.9, 4.0)), scan("T1 gre", (20, 64, 64), (2.0, 2.0, 2.0))
    panel._parameterNode.inputVolume = thick
    panel._parameterNode.inputVolume = fine
    card = panel.logic.model(panel._parameterNode.model).card
    assert (card.plane, card.factor) == ("in-plane", 2.0)
    panel._parameterNode.inputVolume = thick
    pick(panel.ui.modelSelector, "B-spline")
    assert panel._parameterNode.model == "bspline" and panel.inputs.why == ""
    panel._parameterNode.inputVolume = fine
    assert (panel._parameterNode.task, panel._parameterNode.model) == (module.Task.THROUGH_PLANE, "bspline")


def test_baselines_stand_last_in_the_list(panel: Any) -> None:
    panel._parameterNode.inputVolume = scan("T2 tse", (20, 64, 64), (0.9, 0.9, 4.0))
    baselines = [entry.card.is_baseline for entry in panel.inputs.offered]
    assert baselines == sorted(baselines) and not baselines[0] and baselines.count(True) >= 3


def test_the_factor_follows_the_model_until_it_is_edited(panel: Any, module: Any) -> None:
    node = scan("T1 gre", (20, 64, 64), (2.4, 2.4, 3.0))
    panel._parameterNode.inputVolume = node
    panel._parameterNode.task = module.Task.IN_PLANE
    for title, factor in (("RDST-E, in-plane x4", 4.0), ("RDST-E, in-plane x2", 2.0), ("RDST-E, in-plane x4", 4.0)):
        pick(panel.ui.modelSelector, title)
        assert panel._parameterNode.factor == factor and panel.inputs.warnings() == [], "then warns about the factor"
    put(panel.ui.factorSpinBox, "value", 3.0)
    pick(panel.ui.modelSelector, "RDST-E, in-plane x2")
    assert panel._parameterNode.factor == 3.0, "the user's own factor stays"
    assert "x3 is asked" in panel.inputs.warnings()[0]


def test_a_program_that_sets_the_factor_has_edited_it(panel: Any, module: Any) -> None:
    chosen(panel, module, factor=2.5)
    panel._parameterNode.model = "linear"
    assert panel._parameterNode.factor == 2.5


def test_the_console_is_told_what_the_panel_would_take(panel: Any) -> None:
    node = scan("T2 tse", (20, 64, 64), (0.9, 0.9, 4.0))
    found = panel.logic.recommend(node, "T2w")
    panel._parameterNode.inputVolume = node
    assert (found.plane, found.factor) == ("through-plane", 4.0) and found.model == panel._parameterNode.model
    assert "The axial slices are 4 mm apart, pixels 0.9 mm" in found.why
    assert support("recommend").ranked([]) == []


def test_the_thickness_that_dicom_tells_is_taken_into_account(panel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Database:
        isOpen = True

        def instanceValue(self, uid: str, tag: str) -> str:
            return {("1.2.3", "0018,0050"): "3.2"}.get((uid, tag), "")

    monkeypatch.setattr(slicer, "dicomDatabase", Database(), raising=False)
    node = scan("T2 tse", (20, 64, 64), (0.9, 0.9, 4.0))
    node.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    assert support("scene").thicknessOf(node) == 3.2
    assert "3.2 mm thick" in panel.logic.recommend(node, "T2w").why
