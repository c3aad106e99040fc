"""What is written can be read back in the same place, or nothing is left."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from made_files import ORIENTATIONS, noise

from MRSuperResLib.errors import OutputError
from MRSuperResLib.grid import Grid
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.volume import Volume


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_written_and_read_back_in_the_same_place(suffix: str, name: str, tmp_path: Path) -> None:
    grid = Grid((6, 7, 8), (0.7, 0.9, 3.0), (12.5, -40.0, 8.25), tuple(ORIENTATIONS[name].ravel()))
    array = np.random.default_rng(1).normal(size=grid.shape).astype(np.float32)
    path = tmp_path / f"scan{suffix}"
    write_volume(Volume(array, grid), path, fields={"MRSuperRes_model": "rdst-e"})
    back = read_volume(path)
    np.testing.assert_allclose(back.grid.corners(), grid.corners(), atol=1e-4)
    np.testing.assert_array_equal(back.array, array)
    if not suffix.startswith(".nii"):
        assert back.metadata["MRSuperRes_model"] == "rdst-e"
    else:
        assert "rdst-e" in back.metadata["descrip"]
    assert os.listdir(tmp_path) == [path.name]


def test_outputs_that_cannot_be_written_are_said_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = Volume(noise(4, 4, 4), Grid((4, 4, 4), (1.0, 1.0, 1.0)))
    with pytest.raises(OutputError, match="does not exist"):
        write_volume(volume, tmp_path / "missing" / "x.nii.gz")
    with pytest.raises(OutputError, match="no format"):
        write_volume(volume, tmp_path / "x.docx")
    closed = tmp_path / "closed"
    closed.mkdir()
    if os.geteuid() != 0:  # root may write anywhere
        closed.chmod(stat.S_IRUSR | stat.S_IXUSR)
        with pytest.raises(OutputError, match="read-only"):
            write_volume(volume, closed / "x.nii.gz")
        closed.chmod(stat.S_IRWXU)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("MRSuperResLib.io.write._put", full)
    with pytest.raises(OutputError, match="disk is full"):
        write_volume(volume, closed / "x.nii.gz")
    assert os.listdir(closed) == []
