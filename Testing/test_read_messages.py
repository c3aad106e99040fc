"""A file that only stands for a volume, or cannot be opened, is named with what it is and what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import SimpleITK as sitk
from made_files import image_file, mgh_file, noise
from small import save_scan

from MRSuperResLib.errors import BadVolume, UsageError
from MRSuperResLib.io.read import load_volume, read_volume


def refusal(path: Path) -> str:
    with pytest.raises(BadVolume) as caught:
        read_volume(path)
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nrrd", "scan.mgz", "scan.dcm"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("/annex/objects/MD5E-s1--d41d8cd98f00b204e9800998ecf8427e.nii.gz\n", "git-annex pointer"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n", "Git LFS pointer"),
    ],
)
def test_a_pointer_says_what_fetches_the_file(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert words in refusal(tmp_path / name) and "fetch" in refusal(tmp_path / name)


def test_a_link_whose_content_is_not_there_says_where_it_leads(tmp_path: Path) -> None:
    os.symlink("../.git/annex/objects/aa/bb", tmp_path / "annexed.nii.gz")
    os.symlink("elsewhere.nii.gz", tmp_path / "gone.nii.gz")
    assert "datalad get" in refusal(tmp_path / "annexed.nii.gz")
    assert "a link to elsewhere.nii.gz, which is not there" in refusal(tmp_path / "gone.nii.gz")


def test_macs_shadow_of_a_scan_names_the_scan(tmp_path: Path) -> None:
    (tmp_path / "._scan.nii.gz").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X" + bytes(100))
    assert "give scan.nii.gz" in refusal(tmp_path / "._scan.nii.gz")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_nothing_waits_on_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scan.nii.gz")
    assert "neither a file nor a folder" in refusal(tmp_path / "scan.nii.gz")
    assert "neither a file nor a folder" in refusal(Path("/dev/zero"))


@pytest.mark.parametrize("name", ["x" * 300 + ".nii.gz", "a\0b.nii"])
def test_a_name_that_cannot_be_is_a_clear_line(name: str, tmp_path: Path) -> None:
    assert "cannot be opened" in refusal(tmp_path / name)


def test_a_loop_of_links_is_a_clear_line(tmp_path: Path) -> None:
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    with pytest.raises(BadVolume):
        read_volume(tmp_path / "a")


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read anything")
@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nrrd", "scan.mha", "scan.mgz", "folder"])
def test_permission_denied_is_not_called_damage(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"x" * 1000)
    path.chmod(0)
    try:
        assert "permission denied" in refusal(path) and "damaged" not in refusal(path)
    finally:
        path.chmod(0o700)


def test_an_error_of_the_disk_is_told_as_the_system_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = image_file(noise(6, 7, 8), tmp_path / "scan.nii")

    def fails(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("MRSuperResLib.io.raw._pieces", fails)
    assert "input/output error" in refusal(path) and "damaged" not in refusal(path)


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".gipl"])
def test_a_name_that_is_not_utf_8_is_read_or_refused_and_never_ends_the_process(suffix: str, tmp_path: Path) -> None:
    """A folder from a CD: M\\xfcller. SimpleITK aborts on it, so it never sees it."""
    image_file(noise(6, 7, 8), tmp_path / f"scan{suffix}")
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system wants UTF-8")
    (tmp_path / f"scan{suffix}").rename(folder / f"scan{suffix}")
    if suffix == ".gipl":
        assert "not UTF-8" in refusal(folder / f"scan{suffix}")
    else:
        assert read_volume(folder / f"scan{suffix}").grid.size == (8, 7, 6)


def test_a_series_is_asked_of_dicom_only(tmp_path: Path) -> None:
    path = image_file(noise(6, 7, 8), tmp_path / "scan.nii")
    with pytest.raises(UsageError, match="no DICOM"):
        read_volume(path, series="3")


def test_a_map_is_loaded_though_it_is_no_scan(tmp_path: Path) -> None:
    """An error map may be constant; it has a place and values all the same."""
    path = image_file(noise(6, 7, 8) * 0, tmp_path / "error.nrrd")
    assert load_volume(path).array.max() == 0
    with pytest.raises(BadVolume, match="same value"):
        read_volume(path)


def test_a_format_that_only_itk_reads_is_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "scan.vtk"
    image_file(noise(6, 7, 8), path)
    assert read_volume(path).grid.size == sitk.ReadImage(str(path)).GetSize()


def test_a_file_of_another_format_than_its_name_says_is_told_what_it_is(tmp_path: Path) -> None:
    """Renamed by hand, or a download that went wrong: the message says what to do."""
    for name in ("scan.nii", "scan.nii.gz", "scan.nrrd", "scan.mha"):
        save_scan(tmp_path / name)
    for made, called, expected in (
        ("scan.nii", "a.nrrd", "no NRRD file, it holds NIfTI: name it .nii"),
        ("scan.nii.gz", "b.mgz", "no MGH file, it holds NIfTI: name it .nii.gz"),
        ("scan.nrrd", "c.nii", "no NIfTI file, it holds NRRD: name it .nrrd"),
        ("scan.mha", "d.nii.gz", "no NIfTI file, it holds MetaImage: name it .mha"),
        ("scan.nii.gz", "e", "it holds NIfTI: name it .nii.gz"),
    ):
        (tmp_path / called).write_bytes((tmp_path / made).read_bytes())
        with pytest.raises(BadVolume, match=expected):
            read_volume(tmp_path / called)
    mgh_file(tmp_path / "packed.mgz", noise(6, 7, 8))
    (tmp_path / "packed.mgz").rename(tmp_path / "f.nii.gz")
    with pytest.raises(BadVolume, match=r"no NIfTI file, it holds MGH: name it \.mgz"):
        read_volume(tmp_path / "f.nii.gz")
    (tmp_path / "page.nii.gz").write_bytes(b"<!DOCTYPE html><title>404</title>" * 20)
    with pytest.raises(BadVolume, match="holds a web page: download or export it again"):
        read_volume(tmp_path / "page.nii.gz")
    (tmp_path / "noise.nii").write_bytes(bytes(range(256)) * 3)
    with pytest.raises(BadVolume, match="damaged or misnamed"):
        read_volume(tmp_path / "noise.nii")
