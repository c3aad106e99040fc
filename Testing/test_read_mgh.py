"""FreeSurfer files lie where the same NIfTI lies."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from made_files import ORIENTATIONS, mgh_file, noise

from MRSuperResLib.errors import BadVolume
from MRSuperResLib.io.read import read_volume


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_freesurfer_file_lies_where_the_same_nifti_lies(name: str, dtype: type, tmp_path: Path) -> None:
    """vox2ras = [axes x spacing | centre - axes x spacing x size / 2], RAS; NIfTI gets that matrix through SimpleITK."""
    array = np.random.default_rng(0).integers(0, 250, (8, 7, 6)).astype(dtype)
    axes, spacing, centre = ORIENTATIONS[name], np.array((0.7, 0.9, 3.0)), np.array((12.5, -40.0, 8.25))
    path = mgh_file(tmp_path / "scan.mgz", array, spacing=spacing, axes=axes, centre=centre)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    to_lps = np.diag((-1.0, -1.0, 1.0))
    image.SetDirection((to_lps @ axes).ravel())
    image.SetOrigin(to_lps @ (centre - axes @ (spacing * (6, 7, 8) / 2)))
    sitk.WriteImage(image, str(tmp_path / "scan.nii.gz"))
    found, expected = read_volume(path), read_volume(tmp_path / "scan.nii.gz")
    np.testing.assert_allclose(found.grid.corners(), expected.grid.corners(), atol=1e-4)
    np.testing.assert_array_equal(found.array, array)
    assert found.array.dtype == np.float32 and found.name == "scan"


def test_a_freesurfer_file_without_geometry_is_read_as_freesurfer_does_and_told(tmp_path: Path) -> None:
    """FreeSurfer's vox2ras-tkr: i to the left, j down, k forward, 1 mm, the box's centre at 0."""
    said: list[str] = []
    path = mgh_file(tmp_path / "old.mgh", noise(12, 10, 8), given=0, spacing=(9, 9, 9))
    grid = read_volume(path, warn=lambda code, message: said.append(code)).grid
    vox2ras = np.array([[-1, 0, 0, 4], [0, 0, 1, -6], [0, -1, 0, 5], [0, 0, 0, 1]], dtype=float)
    ras = vox2ras @ (2, 3, 4, 1)
    np.testing.assert_allclose(grid.index_to_world(np.array([[2, 3, 4]]))[0], ras[:3] * (-1, -1, 1))
    assert said == ["no-geometry"]


def test_freesurfer_files_that_are_no_scan_are_refused_in_one_line(tmp_path: Path) -> None:
    scan = noise(6, 7, 8)
    whole = mgh_file(tmp_path / "whole.mgh", scan).read_bytes()
    (tmp_path / "short.mgh").write_bytes(whole[:-100])
    (tmp_path / "short.mgz").write_bytes(gzip.compress(whole)[:-200])
    (tmp_path / "text.mgz").write_bytes(gzip.compress(b"not an image at all" * 100))
    (tmp_path / "plain.mgz").write_bytes(whole)
    cases = {
        "short.mgh": "unreadable",
        "short.mgz": "unreadable",
        "text.mgz": "unreadable",
        "plain.mgz": "unreadable",
        mgh_file(tmp_path / "two.mgz", np.concatenate((scan, scan)), frames=2).name: "4d",
        mgh_file(tmp_path / "tensor.mgz", scan, kind=7).name: "not-scalar",
        mgh_file(tmp_path / "spacing.mgz", scan, spacing=(1, 0, 1)).name: "bad-spacing",
        mgh_file(tmp_path / "sheared.mgz", scan, axes=np.eye(3) + 0.2).name: "bad-direction",
        mgh_file(tmp_path / "line.mgz", scan[:1]).name: "one-slice",
        mgh_file(tmp_path / "nan.mgz", scan * np.float32(np.nan)).name: "all-nan",
    }
    for name, code in cases.items():
        with pytest.raises(BadVolume) as caught:
            read_volume(tmp_path / name)
        assert caught.value.code == code and "\n" not in caught.value.message, name
    assert read_volume(mgh_file(tmp_path / "mapped.mgz", scan, version=0x201)).grid.size == (8, 7, 6)  # an intent in it
