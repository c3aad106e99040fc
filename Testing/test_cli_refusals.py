"""Bad input and impossible requests: one clear line, its exit code, nothing half-written."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small import image, noise, save_tiny, shell

from MRSuperResLib import cli
from MRSuperResLib.io.read import read_volume

pytestmark = pytest.mark.usefixtures("no_models_of_this_machine")


def mha(path: Path, spacing: str = "1 1 3", matrix: str = "1 0 0 0 1 0 0 0 1") -> Path:
    """A MetaImage with a header written by hand."""
    header = (
        f"ObjectType = Image\nNDims = 3\nTransformMatrix = {matrix}\nOffset = 0 0 0\nElementSpacing = {spacing}\n"
        "DimSize = 12 12 6\nElementType = MET_FLOAT\nBinaryDataByteOrderMSB = False\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + noise(6, 12, 12).tobytes())
    return path


def nifti(path: Path, offset: int, values: list[float]) -> Path:
    """A NIfTI file with floats of its header overwritten."""
    image(noise(6, 12, 12), path)
    blob = bytearray(path.read_bytes())
    raw = np.asarray(values, "<f4").tobytes()
    blob[offset : offset + len(raw)] = raw
    path.write_bytes(blob)
    return path


def written(content: bytes) -> Callable[[Path], Path]:
    """A file with just that content."""

    def make(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return make


def truncated(path: Path) -> Path:
    image(noise(12, 40, 40), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def some(value: float) -> np.ndarray:
    array = noise(6, 12, 12)
    array[2, 3, 4] = value
    return array


def labels() -> np.ndarray:
    array = np.zeros((6, 16, 16), np.int16)
    array[1:5, 4:12, 4:12] = 2
    array[2:4, 6:10, 6:10] = 17
    return array


BAD = {
    "text": ("notes.nii.gz", written(b"these are not the voxels"), "notes.nii.gz"),
    "word file": ("report.docx", written(b"PK\x03\x04 report"), "image format"),
    "empty file": ("scan.nii", written(b""), "empty"),
    "nothing there": ("missing.nii.gz", lambda path: path, "does not exist"),
    "empty folder": ("series", lambda path: path.mkdir() or path, "DICOM"),
    "2D": ("slice.nrrd", lambda path: image(noise(12, 12), path), "2D"),
    "4D": ("bold.nii.gz", lambda path: image(noise(3, 6, 12, 12), path), "4D"),
    "RGB": ("colour.nrrd", lambda path: rgb(path), "colour or vectors"),
    "constant": ("flat.nii.gz", lambda path: image(np.full((6, 12, 12), 3.0, np.float32), path), "same value 3"),
    "all NaN": ("nan.nii.gz", lambda path: image(np.full((6, 12, 12), np.nan, np.float32), path), "no finite voxel"),
    "all infinite": (
        "inf.nii.gz",
        lambda path: image(np.full((6, 12, 12), np.inf, np.float32), path),
        "no finite voxel",
    ),
    "negative spacing": ("negative.mha", lambda path: mha(path, spacing="1 -1 3"), "pacing"),
    "zero spacing": ("zero.mha", lambda path: mha(path, spacing="1 0 3"), "pacing"),
    "zero spacing in NIfTI": ("zero.nii", lambda path: nifti(path, 80, [0.0, 0.0, 0.0]), "pacing"),
    "sheared": ("sheared.mha", lambda path: mha(path, matrix="1 0 0 0.5 1 0 0 0 1"), "right angles"),
    "one slice": ("one.nii.gz", lambda path: image(noise(1, 12, 12), path), "single slice"),
    "one voxel wide": ("line.nii.gz", lambda path: image(noise(6, 12, 1), path), "single slice or line"),
    "truncated gzip": ("half.nii.gz", truncated, "cut short"),
    "truncated nrrd": ("half.nrrd", truncated, "cut short"),
    "wrong extension": ("really.nii", lambda path: mha(path), "name it .mha"),
    "label map": ("aseg.nii.gz", lambda path: image(labels(), path), "label map"),
}


def rgb(path: Path) -> Path:
    import SimpleITK as sitk

    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((6, 12, 12, 3), np.uint8), isVector=True), str(path))
    return path


@pytest.mark.parametrize("case", BAD)
def test_a_volume_that_cannot_be_used_is_one_clear_line(
    case: str, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, what was found, no traceback, nothing written."""
    name, make, expected = BAD[case]
    path = make(tmp_path / name)
    code = cli.main(["run", str(path), "-o", str(out / "sr.nii.gz"), "--model", "linear", "--factor", "2"])
    output, errors = capsys.readouterr()
    assert code == 3, errors
    assert errors.count("\n") == 1 and errors.startswith("error: ") and expected in errors, errors
    assert "Traceback" not in errors and output == "" and not list(out.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_few_voxels_that_are_not_numbers_are_replaced_and_said(
    value: float, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = image(some(value), tmp_path / "scan.nii.gz")
    assert cli.main(["run", str(path), "-o", str(out / "sr.nii.gz"), "--model", "bspline", "--factor", "2"]) == 0
    errors = capsys.readouterr().err
    assert errors.startswith("warning: ") and "NaN or infinite" in errors and errors.count("\n") == 1
    assert np.isfinite(read_volume(out / "sr.nii.gz").array).all()


def test_an_axis_of_2000_voxels_is_served_with_a_warning(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = image(noise(4, 4, 2000), tmp_path / "long.nii.gz")
    assert cli.main(["run", str(path), "-o", str(out / "sr.nii.gz"), "--model", "linear", "--factor", "2"]) == 0
    assert "2000 voxels along one axis" in capsys.readouterr().err
    assert read_volume(out / "sr.nii.gz").grid.size == (2000, 4, 8)


def test_a_result_too_large_for_memory_is_refused_at_once(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = image(noise(200, 400, 400), tmp_path / "huge.nii", (0.1, 0.1, 0.2))
    arguments = [
        "run",
        str(path),
        "-o",
        str(out / "sr.nii.gz"),
        "--model",
        "linear",
        "--factor",
        "16",
        "--plane",
        "in-plane",
    ]
    assert cli.main(arguments) == 6
    errors = capsys.readouterr().err
    assert errors.startswith("error: a result of 6400 x 6400 x 200 voxels needs") and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--model", "rdts"], 4, "no model is called 'rdts'"),
        (["--model", "guided"], 4, "give a --reference"),
        (["--model", "tiny-through-x2", "--reference", "SCAN"], 4, "without --reference"),
        (["--model", "tiny-through-x2", "--plane", "inplane"], 4, "choose an in-plane model"),
        (["--model", "broken"], 4, "truncated"),
        (["--model", "linear"], 2, "say which"),
        (["--model", "linear", "--factor", "0.5"], 2, "expected more than 1"),
        (["--model", "linear", "--factor", "100"], 2, "at most 16"),
        (["--model", "linear", "--spacing", "1", "1", "-1"], 2, "positive"),
        (["--model", "linear", "--spacing", "1", "1", "3"], 3, "nothing to refine"),
        (["--model", "linear", "--factor", "2", "--error-map", "e.nii"], 2, "needs a ground truth"),
        (["--model", "tiny-through-x2", "--device", "cuda:99"], 6, "cuda:99"),
        (["--model", "tiny-through-x2", "--device", "tpu"], 2, "expected auto, cpu"),
        (["--model", "tiny-through-x2", "--device", "cpu", "--precision", "fp16"], 2, "needs a GPU"),
        (["--model", "linear", "--factor", "2", "-o", "OUT/missing/sr.nii"], 5, "does not exist"),
        (["--model", "linear", "--factor", "2", "-o", "/proc/sr.nii"], 5, "cannot be written to"),
        (["--model", "linear", "--factor", "2", "-o", "OUT/sr.jpg"], 2, "not as '.jpg'"),
        (["--model", "linear", "--factor", "2", "-o", "SCAN"], 2, "is an input of this job"),
        (["--model", "linear", "--factor", "2", "--truth", "missing.nii"], 3, "ground truth: missing.nii"),
    ],
)
def test_a_request_that_cannot_be_served_is_one_clear_line_with_its_own_exit_code(
    arguments: list[str],
    code: int,
    expected: str,
    scan: Path,
    out: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "models").mkdir()
    save_tiny(tmp_path / "models")
    save_tiny(tmp_path / "models", "guided", task="reference-guided")
    (tmp_path / "models" / "broken.safetensors").write_bytes(
        (tmp_path / "models" / "guided.safetensors").read_bytes()[:-9]
    )
    filled = [text.replace("SCAN", str(scan)).replace("OUT", str(out)) for text in arguments]
    output = [] if "-o" in filled else ["-o", str(out / "sr.nii.gz")]
    before = scan.read_bytes()
    assert cli.main(["run", str(scan), *output, *filled, "--models", str(tmp_path / "models")]) == code
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith("error: ") and expected in said.err, said.err
    assert said.out == "" and not list(out.iterdir()) and scan.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid"), reason="POSIX permissions")
def test_a_read_only_folder_is_refused_before_any_work(
    scan: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere; /proc stands for a read-only folder in the test above")
    out.chmod(0o555)
    try:
        assert cli.main(["run", str(scan), "-o", str(out / "sr.nii.gz"), "--model", "linear", "--factor", "2"]) == 5
    finally:
        out.chmod(0o755)
    assert "cannot be written to" in capsys.readouterr().err and not list(out.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_full_disk_leaves_nothing_behind(suffix: str, scan: Path, out: Path) -> None:
    """A limit on the size of files makes writes fail in the middle, as a full disk does."""
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = shell(
        "run", scan, "-o", out / f"sr{suffix}", "--model", "linear", "--factor", "4", preexec_fn=limit,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""},
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: "), done.stderr
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice"),
        (["run"], "required"),
        (["run", "a.nii", "-o", "b.nii", "-m", "linear", "--factor", "two"], "invalid float"),
        (
            ["run", "a.nii", "-o", "b.nii", "-m", "linear", "--factor", "2", "--spacing", "1", "1", "1"],
            "not allowed with",
        ),
        (["run", "a.nii", "-o", "b.nii", "-m", "linear", "--plane", "up"], "expected in-plane or through-plane"),
    ],
)
def test_a_mistyped_command_is_one_line_that_points_to_help(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    errors = capsys.readouterr().err
    assert ended.value.code == 2 and errors.count("\n") == 1 and expected in errors and "--help" in errors
