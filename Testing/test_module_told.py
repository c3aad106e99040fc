"""What DICOM, a file or a name tells of scan and patient counts in Slicer as in the shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import run as run_job
from small import save_scan

from MRSuperResLib.io.read import read_volume
from MRSuperResLib.jobs import Job

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")
from panel.nodes import volume  # noqa: E402

pytestmark = pytest.mark.usefixtures("scene")
HOW = {"factor": 2.0, "plane": "through-plane", "project": True}


class Database:
    """Slicer's DICOM database, of one instance. tells: texts by tag."""

    isOpen = True

    def __init__(self, **tells: str) -> None:
        self.tells = {tag.lstrip("t").replace("_", ","): text for tag, text in tells.items()}

    def instanceValue(self, uid: str, tag: str) -> str:
        return self.tells.get(tag, "") if uid == "1.2.3" else ""


def known(monkeypatch: pytest.MonkeyPatch, node: Any, **tells: str) -> Any:
    """`node` as if it had been loaded from DICOM."""
    monkeypatch.setattr(slicer, "dicomDatabase", Database(**tells), raising=False)
    node.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    return node


def brain_model(logic: Any, task: str = "super-resolve") -> Any:
    found = [entry for entry in logic.models() if entry.card.task == task and entry.card.anatomy == "brain"]
    return next(entry for entry in found if entry.card.plane != "in-plane")


def test_a_file_gets_the_voxels_in_slicer_that_it_gets_in_the_shell(logic: Any, tmp_path: Path) -> None:
    """The thickness that its sidecar tells shapes a projected result."""
    scan = save_scan(tmp_path / "T2.nii.gz")
    (tmp_path / "T2.json").write_text(json.dumps({"SliceThickness": 1.5}))
    shell = run_job(Job(str(scan), str(tmp_path / "shell.nrrd"), "bspline", **HOW))[-1]
    (made,) = logic.superResolveMany([scan], "bspline", tmp_path / "slicer", **HOW)
    expected, found = (read_volume(path).array for path in (shell["outputs"]["output"], made.output))
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.ptp(expected))
    assert not made.warnings, "nothing is estimated that is known"


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_the_thickness_that_dicom_knows_shapes_a_projected_result(
    logic: Any, monkeypatch: pytest.MonkeyPatch, many: bool
) -> None:
    def made(node: Any, **options: Any) -> np.ndarray:
        if many:
            (result,) = logic.superResolveMany([node], "bspline", **HOW, **options)
            assert result.error is None, result.error
            return slicer.util.arrayFromVolume(result.output).copy()
        return slicer.util.arrayFromVolume(logic.superResolve(node, "bspline", **HOW, **options)).copy()

    given, default = made(volume(), thickness=2.0), made(volume(), thickness=4.0)
    assert np.abs(given - default).max() > 1
    node = known(monkeypatch, volume(), t0018_0050="2.0")
    np.testing.assert_array_equal(made(node), given)
    np.testing.assert_array_equal(made(node, thickness=4.0), default)


def test_a_translation_of_a_scan_of_known_thickness_is_not_refused(logic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    node = known(monkeypatch, volume("T1w scan", size=(48, 40, 4)), t0018_0050="2.0")
    assert logic.translate(node, "mtsr-mt-s", "T2", samples=1) is not None


def test_another_body_part_ct_and_a_child_are_told_before_and_after(
    logic: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entry = brain_model(logic)
    spine = volume("T2 Doe L-spine", size=(32, 32, 6))
    assert any("of the spine" in line for line in logic.warnings(spine, entry.card.id, "T2w"))
    assert any("of the spine" in line for line in logic.warningsOfMany([spine], entry.card.id))
    logic.superResolve(spine, entry.card.id, device="cpu")
    assert any("of the spine" in line for line in caplog.messages)
    tells = {"t0008_0060": "CT", "t0018_0015": "KNEE", "t0010_1010": "004Y"}
    node = known(monkeypatch, volume("T2", size=(32, 32, 6)), **tells)
    (made,) = logic.superResolveMany([node], entry.card.id, device="cpu")
    for lines in (logic.warnings(node, entry.card.id, "T2w"), made.warnings):
        for word in (
            "modality is CT",
            "of the knee",
            "child of 4 years" if entry.card.ages is None else "this one is 4",
        ):
            assert any(word in line for line in lines), (word, lines)


def test_a_file_tells_whose_scan_it_is(logic: Any, tmp_path: Path) -> None:
    scan = save_scan(tmp_path / "T2.nii.gz", (32, 32, 6))
    (tmp_path / "T2.json").write_text(json.dumps({"SeriesDescription": "T1w knee", "PatientAge": "004Y"}))
    (made,) = logic.superResolveMany([scan], brain_model(logic).card.id, tmp_path / "out", device="cpu")
    assert made.error is None and any("of the knee" in line for line in made.warnings), made


def test_no_name_reaches_the_folder_through_which_the_worker_gets_its_scan(
    logic: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from MRSuperResSupport import scene as scenes

    told = {"t0008_103e": "Doe knee", "t0018_1030": "Doe", "t0018_0015": "KNEE"}
    node = known(monkeypatch, volume("Doe knee"), **told)
    scenes.tell(node, tmp_path / "input.nrrd")
    assert json.loads((tmp_path / "input.json").read_text()) == {"BodyPartExamined": "KNEE"}


def test_the_console_hears_of_a_contrast_that_the_model_was_not_made_for(
    logic: Any, caplog: pytest.LogCaptureFixture
) -> None:
    entry = brain_model(logic)
    assert "PDw" not in entry.card.contrasts
    logic.superResolve(volume("PD scan", size=(32, 32, 6)), entry.card.id, device="cpu")
    assert any("this scan is PDw" in line for line in caplog.messages), caplog.messages


def test_the_console_hears_of_a_reference_of_the_scans_own_contrast(
    logic: Any, caplog: pytest.LogCaptureFixture
) -> None:
    reference = volume("T2 sharp", size=(32, 32, 24))
    reference.SetSpacing(1.0, 1.2, 1.0)
    guided = brain_model(logic, "reference-guided").card.id
    logic.superResolve(volume("T2", size=(32, 32, 6)), guided, reference=reference, register=False, device="cpu")
    assert any("one of T2w too adds little" in line for line in caplog.messages), caplog.messages


def with_nan(node: Any) -> Any:
    """`node` with a voxel that is no number."""
    array = slicer.util.arrayFromVolume(node).astype(np.float32)
    array[2, 3, 4] = np.nan
    slicer.util.updateVolumeFromArray(node, array)
    return node


def test_voxels_that_had_to_be_replaced_are_told(logic: Any, caplog: pytest.LogCaptureFixture) -> None:
    logic.superResolve(with_nan(volume("T2")), "linear", factor=2)
    assert [line for line in caplog.messages if "replaced" in line] == [
        "linear: 1 NaN or infinite voxels of T2 were replaced by 10, its lowest value"
    ]
    (made,) = logic.superResolveMany([with_nan(volume("T2"))], "linear", factor=2)
    assert [line for line in made.warnings if "replaced" in line], made


def test_what_is_wrong_with_a_file_is_told_once(logic: Any, tmp_path: Path) -> None:
    import nibabel

    array = np.random.default_rng(0).normal(100, 20, (12, 10, 6)).astype(np.float32)
    array[4, 3, 2] = np.nan
    image = nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 40.0, 1.0]))
    image.set_qform(np.diag([1.0, 1.0, 40.0, 1.0]), 1)
    image.set_sform(np.diag([1.0, 1.2, 40.0, 1.0]), 1)
    nibabel.save(image, tmp_path / "T2.nii")
    heard: list[str] = []
    read_volume(tmp_path / "T2.nii", warn=lambda code, message: heard.append(code))
    assert {"nan-replaced", "odd-spacing"} < set(heard), heard
    (made,) = logic.superResolveMany([tmp_path / "T2.nii"], "linear", tmp_path / "out", factor=2)
    assert made.error is None, made.error
    assert any("sform" in line for line in made.warnings), made.warnings
    for word in ("NaN", "are its units right"):
        assert sum(word in line for line in made.warnings) == 1, made.warnings


def test_a_scan_of_a_rare_contrast_is_still_super_resolved(logic: Any) -> None:
    """What a translator of one's own has made: interpolation knows nothing of that contrast, and need not."""
    node = volume("scan")
    node.SetAttribute("MRSuperRes.parameters", json.dumps({"target": "STIR"}))
    assert logic.guessContrast(node) == "STIR"
    assert (
        logic.superResolve(node, "linear", factor=2) is not None and logic.superResolve(node, device="cpu") is not None
    )
    (made,) = logic.superResolveMany([node], "linear", factor=2)
    assert made.error is None, made.error
