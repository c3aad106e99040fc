"""All the outputs of a job or none."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from small import REPOSITORY, left_in, run

from MRSuperResLib import private
from MRSuperResLib.errors import Cancelled, OutputError
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.jobs import Job
from MRSuperResLib.private import PrivateFolder, dead_folders
from MRSuperResLib.staging import PREFIX, Staging, clean, write_whole
from MRSuperResLib.volume import Volume

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

    monkeypatch.setattr("MRSuperResLib.io.write.write_volume", fail)
    events = run(dataclasses.replace(job, overwrite=True))
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
        staging.path(staging.folder(tmp_path / "samples") / "x").touch()
        assert left_in(tmp_path)[1:] == ["a.txt"], "nothing but a hidden folder is there before the commit"
        staging.commit()
    assert left_in(tmp_path) == ["a.txt", "samples"] and (tmp_path / "a.txt").read_text() == "new"


def test_a_folder_made_for_results_goes_with_them(tmp_path: Path) -> None:
    with Staging() as staging:
        staging.folder(tmp_path / "samples")
        staging.path(tmp_path / "samples" / "x.nii").touch()
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("before", [None, "old"], ids=["new", "replaced"])
def test_a_file_that_somebody_wrote_while_a_job_ran_is_kept(tmp_path: Path, before: str | None) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("old a")
    if before is not None:
        second.write_text(before)
    with pytest.raises(OutputError, match=r"b\.txt was written by somebody else") as caught, Staging() as staging:
        for path in (first, second):
            staging.path(path).write_text("new")
        (tmp_path / "other").write_text("precious")
        (tmp_path / "other").replace(second)
        staging.commit()
    assert caught.value.code == "not-ours"
    assert content(tmp_path) == {"a.txt": "old a", "b.txt": "precious"}


def test_results_that_were_dropped_cannot_be_committed(tmp_path: Path) -> None:
    staging = Staging()
    staging.path(tmp_path / "a.txt").write_text("new")
    staging.discard()
    with pytest.raises(Cancelled):
        staging.commit()
    assert not staging.committed and left_in(tmp_path) == []


# killed

KILLED = """
import os, signal, sys
from pathlib import Path
from MRSuperResLib.staging import Staging
folder, fatal, calls = Path(sys.argv[1]), int(sys.argv[2]), [0]
def counted(call):
    def counting(*given, **named):
        calls[0] += 1
        if calls[0] == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **named)
    return counting
with Staging() as staging:
    samples = staging.folder(folder / "samples")
    for place in (folder / "a.txt", folder / "b.txt", folder / "maps" / "c.txt", samples / "d.txt", samples / "e.txt"):
        staging.path(place).write_text("new " + place.name)
    for name in ("replace", "link", "unlink", "rmdir", "rename", "mkdir", "open"):
        setattr(os, name, counted(getattr(os, name)))
    staging.commit()
print(calls[0])
"""
OLD = {"a.txt": "old a.txt", "maps/c.txt": "old c.txt"}
NEW = {
    name: f"new {name.rsplit('/')[-1]}" for name in ("a.txt", "b.txt", "maps/c.txt", "samples/d.txt", "samples/e.txt")
}


def old_files(folder: Path) -> Path:
    """A folder with yesterday's results."""
    (folder / "maps").mkdir(parents=True)
    for name, text in OLD.items():
        (folder / name).write_text(text)
    return folder


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def killed(folder: Path, call: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILLED, str(folder), str(call)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env={**os.environ, **NOT_COVERED})


NOT_COVERED = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}  # it opens files of its own


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_run_killed_at_any_call_leaves_all_old_or_all_new_files_once_the_next_run_has_looked(tmp_path: Path) -> None:
    whole = killed(old_files(tmp_path / "whole"), 0)
    calls = int(whole.stdout)
    assert content(tmp_path / "whole") == NEW and calls > 15, whole.stderr
    found = []
    for call in range(1, calls + 1):
        folder = old_files(tmp_path / str(call))
        assert killed(folder, call).returncode == -signal.SIGKILL
        clean(folder if call % 2 else folder / "maps")  # the next run may write to either
        clean(folder)
        clean(folder / "maps")
        assert content(folder) in (OLD, NEW), f"killed at call {call} of {calls}"
        assert not list(folder.rglob(f"*{PREFIX}*"))
        found.append(content(folder) == NEW)
    assert found == sorted(found) and found[0] is False and found[-1] is True, "old until a moment, new from then on"


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_file_that_somebody_wrote_after_a_run_was_killed_is_kept(tmp_path: Path) -> None:
    """Whenever the commit is marked and that result is not yet in its place."""
    calls = int(killed(old_files(tmp_path / "whole"), 0).stdout)
    seen = 0
    for call in range(1, calls + 1):
        folder = old_files(tmp_path / str(call))
        killed(folder, call)
        marked = list(folder.glob(f"{PREFIX}*/commit"))
        if not marked or (folder / "samples" / "e.txt").exists():
            continue
        seen += 1
        (folder / "samples").mkdir(exist_ok=True)
        (folder / "samples" / "e.txt").write_text("precious")
        clean(folder)
        clean(folder / "maps")
        assert content(folder) == {**NEW, "samples/e.txt": "precious"}
    assert seen > 5


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_run_in_a_folder_finishes_what_a_killed_one_had_begun_there(tmp_path: Path) -> None:
    """The next run only asks for a name in that folder."""
    folder = old_files(tmp_path / "out")
    calls = int(killed(old_files(tmp_path / "whole"), 0).stdout)
    for call in (3, calls // 2, calls - 3):
        killed(folder, call)
        with Staging() as staging:
            staging.path(folder / "maps" / "other.txt")
            staging.path(folder / "other.txt")
        assert content(folder) in (OLD, NEW) and not list(folder.rglob(f"*{PREFIX}*"))


def test_what_a_living_run_is_writing_is_left_to_it(tmp_path: Path) -> None:
    with Staging() as first, Staging() as second:
        first.path(tmp_path / "a.txt").write_text("a")
        second.path(tmp_path / "b.txt").write_text("b")
        clean(tmp_path)
        second.commit()
        first.commit()
    assert content(tmp_path) == {"a.txt": "a", "b.txt": "b"}


def test_leftovers_of_earlier_versions_are_removed(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}0123456789ab-sr.nii.gz").touch()
    (tmp_path / f".{PREFIX}0123456789ab-sr.x7gh2k.nii.gz").touch()
    (tmp_path / "sr.nii.gz").touch()
    with Staging() as staging:
        staging.path(tmp_path / "other.nii")
    assert left_in(tmp_path) == ["sr.nii.gz"]


@pytest.mark.parametrize(
    "plan",
    [
        {"files": {"0.txt": "../victim.txt"}, "home": ".", "partners": []},
        {"files": {"0.txt": "/victim.txt"}, "home": ".", "partners": []},
        {"files": {"../victim.txt": "mine.txt"}, "home": ".", "partners": []},
        {"files": {"0.txt": "a/../../victim.txt"}, "home": ".", "partners": []},
        {"files": {"link.txt": "mine.txt"}, "home": ".", "partners": []},
        {"files": {"0.txt": "linked/victim.txt"}, "home": ".", "partners": []},
        {"files": ["0.txt"], "home": 3, "partners": "../.."},
        "no plan",
    ],
)
def test_a_planted_plan_moves_nothing_out_of_its_folder(tmp_path: Path, plan: object) -> None:
    (tmp_path / "victim.txt").write_text("precious")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path, target_is_directory=True)
    planted = tmp_path / "data" / f"{PREFIX}evil"
    planted.mkdir(mode=0o700)
    (planted / "0.txt").write_text("evil")
    (planted / "link.txt").symlink_to(tmp_path / "victim.txt")
    (planted / "plan.json").write_text(json.dumps(plan))
    (planted / "commit").write_text("{}")
    clean(tmp_path / "data")
    assert content(tmp_path)["victim.txt"] == "precious" and left_in(tmp_path) == ["data", "victim.txt"]
    assert left_in(tmp_path / "data") == ["linked"]


# names, links and permissions


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_permissions_that_the_umask_says(tmp_path: Path, job: Job, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        assert run(job)[-1]["event"] == "result"
        write_whole(tmp_path / "out" / "whole.txt", b"text")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert set(modes.values()) == {mode} and len(modes) == 5, modes


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_temporary_files_lie_where_nobody_else_can_write_and_their_names_cannot_be_guessed(tmp_path: Path) -> None:
    """A link planted under a name that a job is going to open would let it overwrite any file of the user's."""
    names = set()
    for _ in range(3):
        with Staging() as staging:
            place = staging.path(tmp_path / "sr.json")
            assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700 and place.parent.parent == tmp_path
            names.add(place.parent.name)
    assert len(names) == 3 and all(len(name) >= len(PREFIX) + 8 for name in names)


def test_a_link_under_the_results_name_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.txt").write_text("precious")
    (tmp_path / "sr.json").symlink_to(tmp_path / "elsewhere.txt")
    write_whole(tmp_path / "sr.json", b"record")
    assert (tmp_path / "elsewhere.txt").read_text() == "precious" and not (tmp_path / "sr.json").is_symlink()


@pytest.mark.parametrize("name", ["n" * 248 + ".nii.gz", "ü" * 124 + ".nii.gz"])
def test_a_name_as_long_as_the_file_system_takes_is_written(tmp_path: Path, name: str) -> None:
    write_whole(tmp_path / name, b"content")
    assert left_in(tmp_path) == [name]
    with pytest.raises(OutputError, match="too long a name"), Staging() as staging:
        staging.path(tmp_path / f"x{name}")


@pytest.mark.parametrize(("first", "second"), [("E.nii", "e.nii"), ("\u00fc.nii", "u\u0308.nii")])
def test_two_results_that_some_file_systems_take_for_one_are_refused(tmp_path: Path, first: str, second: str) -> None:
    with Staging() as staging:
        staging.path(tmp_path / first)
        with pytest.raises(OutputError, match="its own name"):
            staging.path(tmp_path / second)


# private folders elsewhere


def test_a_dead_process_private_folder_is_found_and_a_living_ones_is_not(tmp_path: Path) -> None:
    """A patient's voxels in the temporary folder of a Slicer that crashed."""
    code = (
        "import os, sys; from MRSuperResLib.private import PrivateFolder;"
        "folder = PrivateFolder(sys.argv[1], 'MRSuperRes-'); (folder.path / 'input.nrrd').touch();"
        "print(folder.path.name, flush=True); os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True)
    with PrivateFolder(tmp_path, "MRSuperRes-") as living:
        assert [path.name for path in dead_folders(tmp_path, "MRSuperRes-")] == [done.stdout.strip()], done.stderr
        assert living.path.is_dir()
    assert left_in(tmp_path) == [done.stdout.strip()]


def test_a_folder_whose_process_is_slow_to_lock_it_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine two runs that begin together must not take each other's folder for a dead one's."""
    lock = private._locked_file

    def slow(folder: Path) -> int:
        time.sleep(0.3)
        return lock(folder)

    monkeypatch.setattr(private, "_locked_file", slow)
    made: list[PrivateFolder] = []
    other = threading.Thread(target=lambda: made.append(PrivateFolder(tmp_path, PREFIX)))
    other.start()
    while not list(tmp_path.iterdir()):
        time.sleep(0.01)
    private.remove_dead(tmp_path, PREFIX)
    other.join()
    assert made and made[0].path.is_dir()
    made[0].remove()
