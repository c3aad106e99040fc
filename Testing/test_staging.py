"""All the outputs of a job or none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from small import left_in, run

from MRSuperResLib.errors import OutputError
from MRSuperResLib.jobs import Job
from MRSuperResLib.staging import Staging
from MRSuperResLib.volume import Volume, write_volume

pytestmark = pytest.mark.usefixtures("no_models_of_this_machine")


def test_a_failure_while_writing_leaves_no_output_and_keeps_what_was_there(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error map cannot be written: the volume, written just before, is withdrawn, and yesterday's stays."""
    Path(job.output).write_text("yesterday's")

    def fail(volume: Volume, path: Path, **options: Any) -> None:
        if path.suffix == ".nrrd":
            path.write_text("half")
            raise OutputError("no space left on the disk: free some, or choose another folder")
        write_volume(volume, path, **options)

    monkeypatch.setattr("MRSuperResLib.volume.write_volume", fail)
    events = run(job)
    assert events[-1] == {
        "event": "error", "code": "output", "exit_code": 5,
        "message": "no space left on the disk: free some, or choose another folder",
    }  # fmt: skip
    assert left_in(tmp_path / "out") == ["sr.nii.gz"]
    assert Path(job.output).read_text() == "yesterday's"


def test_a_failed_rename_puts_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("old a")
    staging = Staging()
    for path in (first, second):
        staging.path(path).write_text("new")
    replace = os.replace

    def fail(source: Any, target: Any) -> None:
        if Path(target) == second:
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match="Permission denied"), staging:
        staging.commit()
    assert left_in(tmp_path) == ["a.txt"] and first.read_text() == "old a"


def test_committed_files_replace_old_ones_and_stay(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with Staging() as staging:
        staging.path(tmp_path / "a.txt").write_text("new")
        (staging.folder(tmp_path / "samples") / "x").touch()
        staging.commit()
    assert left_in(tmp_path) == ["a.txt", "samples"] and (tmp_path / "a.txt").read_text() == "new"


def test_a_folder_made_for_results_goes_with_them(tmp_path: Path) -> None:
    with Staging() as staging:
        staging.folder(tmp_path / "samples")
        staging.path(tmp_path / "samples" / "x.nii").touch()
    assert left_in(tmp_path) == []
