"""`mrsuperres inspect`: what a folder holds, what to choose it by, and what is odd about it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_dicom import SHAPE, STEP, classic_series, enhanced, item, place, voxels
from made_files import image_file, mgh_file, noise

from MRSuperResLib.cli.main import main
from MRSuperResLib.errors import BadVolume
from MRSuperResLib.grid import Grid
from MRSuperResLib.io.inspect import inspect
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.volume import Volume

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value")  # pydicom's, of the control character in a description


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A clinic's folder: two series beside each other in one folder, one with two echoes, and files of research."""
    classic_series(
        tmp_path / "dicom", voxels(4), SeriesInstanceUID="1.1", SeriesNumber=2,
        SeriesDescription="t2_tirm_tra_dark-fluid", SliceThickness=5.0,
    )  # fmt: skip
    frames = [{"MREchoSequence": item(EffectiveEchoTime=10.0 + 80 * (n % 2))} for n in range(8)]
    enhanced(
        tmp_path / "dicom" / "IM99", voxels(8), [n // 2 for n in range(8)], frames, SeriesInstanceUID="1.2", SeriesNumber=7,
        SeriesDescription="PD/T2 dual\x1b[31m",
    )  # fmt: skip
    image_file(noise(6, 7, 8), tmp_path / "bids" / "sub-01_T1w.nii.gz") if (tmp_path / "bids").mkdir() is None else None
    (tmp_path / "bids" / "sub-01_T1w.json").write_text('{"SliceThickness": 0.75}')
    image_file(noise(6, 7, 8), tmp_path / "bids" / "pair.img")
    mgh_file(tmp_path / "orig.mgz", noise(6, 7, 8))
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "broken.nii.gz").write_bytes(b"not at all")
    return tmp_path


def test_every_volume_of_a_folder_is_listed_with_what_chooses_it(study: Path) -> None:
    found = {each.key or Path(each.path).name: each for each in inspect(study)}
    assert set(found) == {"2", "7.1", "7.2", "sub-01_T1w.nii.gz", "pair.hdr", "orig.mgz", "broken.nii.gz"}
    first = found["2"]
    assert (
        first.size == (SHAPE[1], SHAPE[0], 4) and first.spacing is not None and first.spacing[2] == pytest.approx(STEP)
    )
    assert (first.thickness, first.gap, first.plane, first.contrast) == (5.0, -1.0, "axial", "FLAIR")
    assert "echo time 90 ms" in found["7.2"].name and found["7.2"].usable
    assert found["sub-01_T1w.nii.gz"].thickness == 0.75 and found["sub-01_T1w.nii.gz"].contrast == "T1w"
    assert not found["broken.nii.gz"].usable and "no NIfTI" in found["broken.nii.gz"].odd[0]


def test_every_key_that_is_listed_chooses_that_volume(study: Path) -> None:
    for key, expected in {"2": voxels(4), "7.1": voxels(8)[::2], "7.2": voxels(8)[1::2]}.items():
        np.testing.assert_array_equal(read_volume(study, series=key).array, expected)


def test_thick_slices_of_unknown_thickness_are_told(tmp_path: Path) -> None:
    thick = tmp_path / "scan_T2w.nii.gz"
    write_volume(Volume(noise(4, 12, 12), Grid((12, 12, 4), (1.0, 1.0, 4.0))), thick)
    (found,) = inspect(thick)
    assert found.usable and found.thickness is None and "thickness of the slices is not known" in found.odd[-1]
    (tmp_path / "scan_T2w.json").write_text('{"SliceThickness": 3.5}')
    assert inspect(thick)[0].odd == () and inspect(thick)[0].gap == 0.5
    even = tmp_path / "even_T1w.nii.gz"
    write_volume(Volume(noise(12, 12, 12), Grid((12, 12, 12), (1.0, 1.0, 1.2))), even)
    assert inspect(even)[0].odd == ()


def test_an_nrrd_tells_how_thick_its_slices_are(tmp_path: Path) -> None:
    path = tmp_path / "scan.nrrd"
    write_volume(Volume(noise(4, 12, 12), Grid((12, 12, 4), (1.0, 1.0, 4.0))), path)
    header, _, voxels_ = path.read_bytes().partition(b"\n\n")
    path.write_bytes(header + b"\nthicknesses: nan nan 3\n\n" + voxels_)
    (found,) = inspect(path)
    assert found.thickness == 3.0 == read_volume(path).thickness and not any("thickness" in line for line in found.odd)


def test_what_is_odd_is_listed(tmp_path: Path) -> None:
    classic_series(tmp_path / "gap", voxels(4), [0, 1, 2, 4])
    (tmp_path / "gap" / "IM0000.dcm").write_bytes((tmp_path / "gap" / "IM0000.dcm").read_bytes()[:280])
    classic_series(tmp_path / "uneven", voxels(4), [0, 1, 2.2, 3], SeriesInstanceUID="1.9", SeriesNumber=9)
    found = inspect(tmp_path)
    gap, uneven, cut = found
    assert not gap.usable and "one missing" in gap.odd[-1]
    assert uneven.usable and "evenly spaced" in uneven.odd[0]
    assert cut.path.endswith("IM0000.dcm") and cut.odd[0].startswith("not read")
    with pytest.raises(BadVolume, match="does not exist"):
        inspect(tmp_path / "nowhere")


def test_what_a_run_would_refuse_is_not_called_usable(tmp_path: Path) -> None:
    volume = Volume(noise(6, 7, 8), Grid((8, 7, 6), (1.0, 1.0, 1.0)))
    write_volume(volume, tmp_path / "cut.nii")  # packed ones tell nothing before they are unpacked
    content = (tmp_path / "cut.nii").read_bytes()
    (tmp_path / "cut.nii").write_bytes(content[: len(content) // 2])
    write_volume(Volume(noise(1, 7, 8), Grid((8, 7, 1), (1.0, 1.0, 1.0))), tmp_path / "single.nii.gz")
    classic_series(tmp_path / "one", voxels(1))
    found = inspect(tmp_path)
    assert len(found) == 3 and not any(each.usable for each in found)
    assert all("cut short" in each.odd[-1] or "single slice" in each.odd[-1] for each in found)


def test_units_that_cannot_be_right_and_results_of_ours_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume(Volume(noise(6, 7, 8), Grid((8, 7, 6), (600.0, 600.0, 3000.0))), tmp_path / "a.nii.gz")
    assert "are its units right" in inspect(tmp_path / "a.nii.gz")[0].odd[0]
    write_volume(Volume(noise(6, 7, 8), Grid((8, 7, 6), (1.0, 1.0, 3.0))), tmp_path / "b.nii.gz")
    run = ["run", str(tmp_path / "b.nii.gz"), "-o", str(tmp_path / "c.nii.gz"), "-m", "linear", "--factor", "2"]
    assert main(run) == 0
    assert main(["inspect", str(tmp_path / "c.nii.gz")]) == 0
    assert "no scan: linear made it" in capsys.readouterr().out


def test_a_path_that_is_not_there_hides_no_other(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(study / "nowhere"), str(study)]) == 3
    printed = capsys.readouterr()
    assert "does not exist" in printed.err and "7.1" in printed.out and str(study) in printed.out


def test_the_command_prints_a_table_or_json_and_no_control_characters(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(study)]) == 0
    text = capsys.readouterr().out
    assert "7.1" in text and "FLAIR" in text and "\x1b" not in text
    assert main(["inspect", "--json", str(study)]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"key", "size", "spacing", "thickness", "gap", "plane", "contrast", "odd"} <= set(listed[0])
    (study / "empty").mkdir()
    assert main(["inspect", str(study / "empty")]) == 3


def test_a_run_takes_the_series_that_is_chosen(study: Path, tmp_path: Path) -> None:
    arguments = [
        "run",
        str(study / "dicom"),
        "-m",
        "linear",
        "--factor",
        "2",
        "-o",
        str(tmp_path / "o.nii.gz"),
        "--json",
    ]
    assert main(arguments) == 3
    assert main([*arguments, "--series", "7.2"]) == 0
    assert read_volume(tmp_path / "o.nii.gz").grid.size[2] in (4, 8)
    corner = read_volume(tmp_path / "o.nii.gz").grid.index_to_world(np.zeros((1, 3)))[0]
    assert np.linalg.norm(corner - place(0)) < STEP


def test_an_8_bit_scan_called_mask_runs_when_it_is_said_to_be_a_scan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = (noise(12, 14, 16) / 2).astype(np.uint8)
    path = image_file(scan, tmp_path / "t1_after_mask.nii.gz")
    arguments = ["run", str(path), "-m", "linear", "--factor", "2", "-o", str(tmp_path / "o.nii.gz")]
    assert main(arguments) == 3
    assert "(--not-labels)" in capsys.readouterr().err
    assert main([*arguments, "--not-labels"]) == 0


@pytest.mark.parametrize("role", ["truth", "evaluate"])
def test_a_scan_taken_for_labels_can_be_the_truth_as_well(
    role: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the message says to add is an option of that command, and mends it."""
    scan, mask = (
        image_file((noise(12, 14, 16) / 2).astype(np.uint8), tmp_path / name) for name in ("t1.nii", "mask.nii")
    )
    how = ["-m", "linear", "--factor", "2", "--plane", "through-plane"]
    arguments = {
        "truth": ["run", str(scan), "-o", str(tmp_path / "o.nii"), *how, "--truth", str(mask)],
        "evaluate": ["evaluate", str(mask), *how, "--figure", ""],
    }[role]
    assert main(arguments) == 3
    assert "(--not-labels)" in capsys.readouterr().err
    assert main([*arguments, "--not-labels"]) == 0
