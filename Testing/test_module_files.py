"""The module and files: results of many subjects, code from where nobody put it, leftovers of runs that died."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small import REPOSITORY

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")
from test_module_logic import volume  # noqa: E402

pytestmark = pytest.mark.usefixtures("scene")


def test_subjects_of_one_file_name_get_a_result_each_in_any_order_and_however_it_is_spelt(
    logic: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a loop over subjects does it; `T1` and `t1` are one file on Windows and macOS."""
    from MRSuperResSupport import scene as scenes

    monkeypatch.chdir(tmp_path)
    for number, (folder, name) in enumerate((("a", "T1"), ("b", "T1"), ("c", "t1"))):
        node = volume(f"scan {number}")
        slicer.util.arrayFromVolume(node)[:] += number
        (tmp_path / folder).mkdir()
        scenes.export(node, tmp_path / folder / f"{name}.nii.gz")
    scans = [str(path) for path in sorted(tmp_path.glob("*/*.nii.gz"))]
    how = {"model": "linear", "outputFolder": "out", "factor": 2, "plane": "through-plane"}
    first = [logic.superResolveMany([scan], **how)[0] for scan in scans]
    files = {Path(result.output).name: Path(result.output).read_bytes() for result in first}
    assert len({name.casefold() for name in files}) == 3 and not any(result.error for result in first)
    assert all(Path(result.output).parent == tmp_path / "out" for result in first)
    again = logic.superResolveMany(scans[::-1], **how)
    assert [result.skipped for result in again] == [True] * 3
    assert [result.output for result in again] == [result.output for result in first[::-1]]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.nrrd")} == files


def test_many_volumes_go_on_after_a_name_that_no_file_system_takes(logic: Any, tmp_path: Path) -> None:
    nodes = [volume("n" * 300), volume("fine")]
    results = logic.superResolveMany(nodes, "linear", tmp_path / "out", factor=2, plane="through-plane")
    assert "too long" in results[0].error.message and results[1].error is None
    nobody = [str(tmp_path / ("m" * 300 + ".nii")), nodes[1]]
    results = logic.superResolveMany(nobody, "linear", tmp_path / "out", factor=2, plane="through-plane")
    assert results[0].error is not None and results[1].skipped


def test_a_worker_runs_no_code_from_the_current_folder_or_from_folders_somebody_added(
    logic: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "added"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "numpy.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'added'}{os.pathsep}.")
    from MRSuperResSupport.logic import MRSuperResLogic
    from MRSuperResSupport.worker import Worker, Workers

    for process in (Worker, Workers()):  # a process that was started before would prove nothing
        run = MRSuperResLogic(process=process).superResolve(volume(), "linear", factor=2, plane="through-plane")
        assert run is not None and not (tmp_path / "ran").exists()


def test_what_a_slicer_that_crashed_has_left_is_removed_by_the_next_run(logic: Any, tmp_path: Path) -> None:
    code = (
        "import os, sys; from MRSuperResLib.private import PrivateFolder;"
        "(PrivateFolder(sys.argv[1], 'MRSuperRes-').path / 'input.nrrd').touch(); os._exit(0)"
    )
    from MRSuperResSupport import run as runs

    temporary = Path(runs.temporaryPath())
    subprocess.run([sys.executable, "-c", code, str(temporary)], cwd=REPOSITORY, check=True)
    assert list(temporary.glob("MRSuperRes-*/input.nrrd"))
    logic.superResolve(volume(), "linear", factor=2, plane="through-plane")
    assert not list(temporary.glob("MRSuperRes-*"))


def test_every_setting_of_a_job_can_be_given_in_slicer(tmp_path: Path) -> None:
    """Slice axis, profile, thickness and the reference's contrast among them; what is not given has the job's default."""
    from MRSuperResSupport.run import SETTINGS, RunRequest, jobOf

    from MRSuperResLib.jobs.job import fields

    node = volume()
    given = {
        "sliceAxis": 1, "profile": "box", "thickness": 2.5, "project": True, "referenceContrast": "T1w", "contrast": "T2w",
        "register": False, "task": "reference-guided", "factor": 2.0, "plane": "in-plane", "tile": 64, "batch": 2,
        "threads": 1, "precision": "fp32", "device": "cpu", "seed": 3, "notLabels": True,
    }  # fmt: skip
    job = jobOf(RunRequest(node, "m", reference=node, **given), tmp_path)
    assert {name: getattr(job, SETTINGS[name].name) for name in given} == given
    plain = jobOf(RunRequest(node, "m"), tmp_path)
    for field in fields():
        if field.role not in ("input", "output", "model"):
            assert getattr(plain, field.name) == field.default, field.name
    translation = jobOf(
        RunRequest(node, "m", task="translate", target="t2", superResolveWith="~/x.safetensors"), tmp_path
    )
    assert translation.target == "T2w" and Path(translation.super_resolve_with or "").is_absolute()
