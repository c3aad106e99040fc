"""MetaImage and NRRD files: where SimpleITK has them, in every locale; damage and impossible headers are refused before ITK."""

from __future__ import annotations

import gzip
import locale
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from made_files import LEFT_HANDED, OBLIQUE, SAGITTAL, mgh_file, noise

from MRSuperResLib.errors import BadVolume
from MRSuperResLib.grid import Grid
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.volume import Volume

SHAPE = (6, 7, 8)  # k, j, i
MHA = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = {packed}
{more}TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 1 2 3
ElementSpacing = 1 1.5 3
DimSize = 8 7 6
ElementType = MET_FLOAT
ElementDataFile = {data}
"""
NRRD = """NRRD0004
type: float
dimension: 3
space: left-posterior-superior
sizes: 8 7 6
space directions: (1,0,0) (0,1.5,0) (0,0,3)
kinds: domain domain domain
endian: little
encoding: {encoding}
space origin: (1,2,3)
{more}
"""


def made(axes: np.ndarray, dtype: Any = np.float32) -> Any:
    image = sitk.GetImageFromArray((noise(*SHAPE) % 120).astype(dtype))
    image.SetSpacing((0.7, 1.5, 3.25))
    image.SetOrigin((12.5, -40.0, 8.25))
    image.SetDirection(axes.ravel())
    return image


@pytest.mark.parametrize("name", ["scan.mha", "scan.mhd", "scan.nrrd", "scan.nhdr"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("axes", [np.eye(3), OBLIQUE, SAGITTAL, LEFT_HANDED])
def test_a_file_lies_where_simpleitk_has_it(name: str, packed: bool, axes: np.ndarray, tmp_path: Path) -> None:
    image = made(axes)
    sitk.WriteImage(image, str(tmp_path / name), packed)
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(volume.grid.spacing, image.GetSpacing(), rtol=1e-9)
    np.testing.assert_allclose(volume.grid.origin, image.GetOrigin(), atol=1e-9)
    np.testing.assert_allclose(volume.grid.direction, image.GetDirection(), atol=1e-9)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float64])
@pytest.mark.parametrize("name", ["scan.mha", "scan.nrrd"])
def test_every_type_is_read(name: str, dtype: Any, tmp_path: Path) -> None:
    sitk.WriteImage(made(np.eye(3), dtype), str(tmp_path / name), True)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name)))
    np.testing.assert_array_equal(read_volume(tmp_path / name).array, expected.astype(np.float32))


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr", ".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [None, np.uint8, np.int16, np.float64, bool])
def test_what_is_written_is_read_by_simpleitk_in_the_same_place(suffix: str, dtype: Any, tmp_path: Path) -> None:
    grid = Grid((8, 7, 6), (0.7, 1.5, 3.25), (12.5, -40.0, 8.25), tuple(OBLIQUE.ravel().tolist()))
    array = np.abs(noise(*SHAPE)) % 120
    write_volume(Volume(array, grid), tmp_path / f"scan{suffix}", fields={"made by": "a\nb"}, dtype=dtype)
    assert [path.name for path in tmp_path.iterdir()] == [f"scan{suffix}"], "one file, which one rename puts there"
    image = sitk.ReadImage(str(tmp_path / f"scan{suffix}"))
    expected = array if dtype is None else array.astype(dtype)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).astype(np.float64), expected.astype(np.float64))
    np.testing.assert_allclose(image.GetSpacing(), grid.spacing, rtol=1e-6)
    np.testing.assert_allclose(image.GetOrigin(), grid.origin, atol=1e-4)
    np.testing.assert_allclose(image.GetDirection(), grid.direction, atol=1e-6)
    if "nii" not in suffix:
        assert image.GetMetaData("made_by") == "a b"


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("right-anterior-superior", (-1, -1, 1)),
        ("RAS", (-1, -1, 1)),
        ("left-anterior-superior", (1, -1, 1)),
        ("LPS", (1, 1, 1)),
    ],
)
def test_other_spaces_of_nrrd_are_turned_into_lps(space: str, signs: tuple[int, ...], tmp_path: Path) -> None:
    text = NRRD.format(encoding="raw", more="").replace("left-posterior-superior", space)
    path = tmp_path / "scan.nrrd"
    path.write_bytes(text.encode() + noise(*SHAPE).tobytes())
    grid, image = read_volume(path).grid, sitk.ReadImage(str(path))
    np.testing.assert_allclose(grid.origin, np.array(signs) * (1, 2, 3))
    np.testing.assert_allclose(grid.origin, image.GetOrigin())
    np.testing.assert_allclose(grid.direction, image.GetDirection(), atol=1e-12)


def test_a_nrrd_without_directions_is_told(tmp_path: Path) -> None:
    text = NRRD.format(encoding="raw", more="").replace(
        "space directions: (1,0,0) (0,1.5,0) (0,0,3)", "spacings: 1 1.5 3"
    )
    text = text.replace("space: left-posterior-superior\n", "").replace("space origin: (1,2,3)\n", "")
    (tmp_path / "scan.nrrd").write_bytes(text.encode() + noise(*SHAPE).tobytes())
    said: list[str] = []
    volume = read_volume(tmp_path / "scan.nrrd", warn=lambda code, message: said.append(code))
    assert said == ["no-geometry"] and volume.grid.spacing == (1.0, 1.5, 3.0)


@pytest.mark.parametrize(
    ("more", "thickness"), [("thicknesses: nan nan 2.5\n", 2.5), ("thicknesses: nan nan nan\n", None), ("", None)]
)
def test_a_nrrd_tells_the_thickness_of_its_slices(more: str, thickness: float | None, tmp_path: Path) -> None:
    (tmp_path / "scan.nrrd").write_bytes(NRRD.format(encoding="raw", more=more).encode() + noise(*SHAPE).tobytes())
    assert read_volume(tmp_path / "scan.nrrd").thickness == thickness


@pytest.mark.parametrize(("unit", "told"), [("mm", []), ("um", ["units"]), ("m", ["units"])])
def test_lengths_of_a_nrrd_that_are_no_millimetres_are_told(unit: str, told: list[str], tmp_path: Path) -> None:
    more = f'space units: "{unit}" "{unit}" "{unit}"\n'
    (tmp_path / "scan.nrrd").write_bytes(NRRD.format(encoding="raw", more=more).encode() + noise(*SHAPE).tobytes())
    said: list[str] = []
    read_volume(tmp_path / "scan.nrrd", warn=lambda code, message: said.append(code))
    assert said == told


def test_compressed_metaimage_without_its_size_is_read_whole(tmp_path: Path) -> None:
    """ITK returns what happens to lie in memory."""
    path = tmp_path / "scan.mha"
    path.write_bytes(MHA.format(packed=True, more="", data="LOCAL").encode() + zlib.compress(noise(*SHAPE).tobytes()))
    np.testing.assert_array_equal(read_volume(path).array, noise(*SHAPE))


@pytest.mark.parametrize("how", ["changed", "cut", "checksum"])
@pytest.mark.parametrize("kind", ["mha", "mhd", "nrrd", "nhdr"])
def test_damaged_packed_voxels_are_refused(kind: str, how: str, tmp_path: Path) -> None:
    raw = noise(*SHAPE).tobytes()
    packed = bytearray(zlib.compress(raw) if kind.startswith("m") else gzip.compress(raw))
    if how == "changed":
        packed[200:220] = bytes(20)
    elif how == "cut":
        del packed[-100:]
    else:
        packed[-5] ^= 255
    data = "LOCAL" if kind == "mha" else "voxels.bin"
    header = MHA.format(packed=True, more="", data=data)
    if kind.startswith("n"):
        header = NRRD.format(encoding="gzip", more="" if kind == "nrrd" else "data file: voxels.bin\n")
    path = tmp_path / f"scan.{kind}"
    if kind in ("mha", "nrrd"):
        path.write_bytes(header.encode() + packed)
    else:
        path.write_text(header)
        (tmp_path / "voxels.bin").write_bytes(packed)
    with pytest.raises(BadVolume) as caught:
        read_volume(path)
    assert caught.value.code == "unreadable"


@pytest.mark.parametrize("missing", [1, 8])
@pytest.mark.parametrize("kind", ["mha", "nrrd"])
def test_voxels_that_are_not_all_there_are_refused(kind: str, missing: int, tmp_path: Path) -> None:
    header = NRRD.format(encoding="raw", more="") if kind == "nrrd" else MHA.format(packed=False, more="", data="LOCAL")
    path = tmp_path / f"scan.{kind}"
    path.write_bytes(header.encode() + noise(*SHAPE).tobytes()[:-missing])
    with pytest.raises(BadVolume, match="cut short"):
        read_volume(path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["mha", "nrrd", "nii", "nii.gz"])
def test_slices_that_the_header_does_not_speak_of_are_told(kind: str, packed: bool, tmp_path: Path) -> None:
    """A header that promises too few slices: the rest of the head is in the file."""
    path, more, said = tmp_path / f"scan.{kind}", noise(2, *SHAPE[1:]).tobytes(), []
    raw = noise(*SHAPE).tobytes() + more
    if kind == "mha":
        header = MHA.format(packed=packed, more="", data="LOCAL").encode()
        path.write_bytes(header + (zlib.compress(raw) if packed else raw))
    elif kind == "nrrd":
        header = NRRD.format(encoding="gzip" if packed else "raw", more="").encode()
        path.write_bytes(header + (gzip.compress(raw) if packed else raw))
    else:
        write_volume(Volume(noise(*SHAPE), Grid(SHAPE[::-1], (1.0, 1.0, 3.0))), tmp_path / "whole.nii")
        content = (tmp_path / "whole.nii").read_bytes() + more
        path.write_bytes(gzip.compress(content) if packed else content)
    volume = read_volume(path, warn=lambda code, message: said.append((code, message)))
    np.testing.assert_array_equal(volume.array, noise(*SHAPE))
    assert [code for code, _ in said] == ["longer-than-said"] and "2 slices" in said[0][1]


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("NDims = 3", "NDims = 0", "unreadable"),
        ("NDims = 3", "NDims = -1", "unreadable"),
        ("NDims = 3", "NDims = 99999", "unreadable"),
        ("NDims = 3", "NDims = many", "unreadable"),
        ("DimSize = 8 7 6", "DimSize = 8 7 -6", "unreadable"),
        ("DimSize = 8 7 6", "DimSize = 8 7 0", "unreadable"),
        ("DimSize = 8 7 6", "DimSize = 8 7", "unreadable"),
        ("DimSize = 8 7 6", "DimSize = 2000000 2000000 2000000", "unreadable"),
        ("DimSize = 8 7 6", "DimSize = 99999999999999999999 7 6", "unreadable"),
        ("ElementSpacing = 1 1.5 3", "ElementSpacing = 1 1.5 1e-30", "bad-spacing"),
        ("ElementSpacing = 1 1.5 3", "ElementSpacing = 1 nan 3", "bad-spacing"),
        ("ElementSpacing = 1 1.5 3", "ElementSpacing = 1 3", "unreadable"),
        ("Offset = 1 2 3", "Offset = 1 nan 3", "bad-origin"),
        ("Offset = 1 2 3", "Offset = 1 inf 3", "bad-origin"),
        ("TransformMatrix = 1 0 0 0 1 0 0 0 1", "TransformMatrix = 1 0 0 1 0 0 0 0 1", "bad-direction"),
        ("ElementType = MET_FLOAT", "ElementType = MET_FLOAT\nElementNumberOfChannels = 3", "not-scalar"),
        ("ElementType = MET_FLOAT", "ElementType = MET_FLOAT_ARRAY", "not-scalar"),
        ("CompressedData = False", "CompressedData = True", "unreadable"),
        ("CompressedData = False", "CompressedData = True\nCompressedDataSize = 99999999", "unreadable"),
        ("ElementDataFile = LOCAL", "ElementDataFile = voxels.raw", "unreadable"),
        ("ElementDataFile = LOCAL", "ElementDataFile = LIST\nslice1.raw\nslice2.raw", "unreadable"),
    ],
)
def test_a_metaimage_header_that_cannot_be_is_refused_before_itk_sees_it(
    old: str, new: str, code: str, tmp_path: Path
) -> None:
    header = MHA.format(packed=False, more="", data="LOCAL")
    assert old in header
    path = tmp_path / "scan.mha"
    path.write_bytes(header.replace(old, new).encode() + noise(*SHAPE).tobytes())
    with pytest.raises(BadVolume) as caught:
        read_volume(path)
    assert caught.value.code == code and "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("dimension: 3", "dimension: 0", "unreadable"),
        ("dimension: 3", "dimension: 4", "unreadable"),
        ("sizes: 8 7 6", "sizes: 8 7 -6", "unreadable"),
        ("sizes: 8 7 6", "sizes: 8 7 99999999", "unreadable"),
        ("(0,0,3)", "(0,0,1e-30)", "bad-spacing"),
        ("(0,0,3)", "(0,0,nan)", "bad-spacing"),
        ("(0,0,3)", "(0,0,0)", "bad-spacing"),
        ("(0,0,3)", "(0,0,3,5 mm)", "unreadable"),
        ("(0,0,3)", "none", "not-scalar"),
        ("space origin: (1,2,3)", "space origin: (1,nan,3)", "bad-origin"),
        ("space origin: (1,2,3)", "space origin: (1,2)", "bad-origin"),
        ("type: float", "type: block", "not-scalar"),
        ("space origin: (1,2,3)\n", "space origin: (1,2,3)\ndata file: gone.raw\n", "unreadable"),
    ],
)
def test_a_nrrd_header_that_cannot_be_is_refused(old: str, new: str, code: str, tmp_path: Path) -> None:
    header = NRRD.format(encoding="raw", more="")
    assert old in header
    path = tmp_path / "scan.nrrd"
    path.write_bytes(header.replace(old, new).encode() + noise(*SHAPE).tobytes())
    with pytest.raises(BadVolume) as caught:
        read_volume(path)
    assert caught.value.code == code and "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["scan.mha", "scan.nrrd"])
def test_varieties_left_to_itk_are_read_as_it_does(name: str, tmp_path: Path) -> None:
    """Voxels as text."""
    values = np.arange(8 * 7 * 6).reshape(SHAPE)
    text = " ".join(map(str, values.ravel()))
    header = (
        NRRD.format(encoding="ascii", more="") if "nrrd" in name else MHA.format(packed=False, more="", data="LOCAL")
    )
    (tmp_path / name).write_text(header.replace("BinaryData = True", "BinaryData = False") + text + "\n")
    np.testing.assert_array_equal(read_volume(tmp_path / name).array, values)


@pytest.mark.parametrize("name", ["scan.mha", "scan.nrrd"])
def test_text_that_is_too_short_for_its_sizes_is_refused_before_room_is_made_for_it(name: str, tmp_path: Path) -> None:
    header = (
        NRRD.format(encoding="ascii", more="") if "nrrd" in name else MHA.format(packed=False, more="", data="LOCAL")
    )
    text = header.replace("BinaryData = True", "BinaryData = False").replace("8 7 6", "30000 30000 30")
    (tmp_path / name).write_text(text + "1 2 3\n")
    with pytest.raises(BadVolume, match="cut short"):
        read_volume(tmp_path / name)


def comma_locale() -> str | None:
    """A locale of this machine that writes 1,5."""
    before = locale.setlocale(locale.LC_NUMERIC)
    try:
        for name in ("de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "es_ES.UTF-8", "pt_BR.UTF-8", "German_Germany.1252"):
            try:
                locale.setlocale(locale.LC_NUMERIC, name)
                return name
            except locale.Error:
                continue
        return None
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)


IN_THE_LOCALE = """
import locale, sys
import numpy as np
locale.setlocale(locale.LC_NUMERIC, sys.argv[1])
assert locale.localeconv()["decimal_point"] == ","
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.io.write import write_volume
for suffix in sys.argv[3:]:
    volume = read_volume(f"{sys.argv[2]}/scan{suffix}")
    np.testing.assert_allclose(volume.grid.spacing, (0.5, 1.5, 3.5))
    np.testing.assert_allclose(volume.grid.origin, (-10.5, 4.25, 7.75))
    write_volume(volume, f"{sys.argv[2]}/again{suffix}", fields={"factor": "2.5"})
    assert locale.localeconv()["decimal_point"] == ","
"""


def test_numbers_have_points_whatever_the_locale(tmp_path: Path) -> None:
    """Qt and GTK set the locale of the process. A locale is made if the machine has none with a comma."""
    suffixes = [".nrrd", ".nhdr", ".mha", ".mhd", ".nii.gz"]
    grid = Grid((8, 7, 6), (0.5, 1.5, 3.5), (-10.5, 4.25, 7.75))
    for suffix in suffixes:
        write_volume(Volume(noise(*SHAPE), grid), tmp_path / f"scan{suffix}")
    name, environment = comma_locale(), None
    if name is None:
        name, environment = "de_XX.UTF-8", {"LOCPATH": str(tmp_path / "locales"), "PATH": "/usr/bin:/bin"}
        (tmp_path / "locales").mkdir()
        command = ["localedef", "-i", "de_DE", "-f", "UTF-8", str(tmp_path / "locales" / name)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this machine has no locale with a decimal comma, and cannot make one")
    arguments = [sys.executable, "-c", IN_THE_LOCALE, name, str(tmp_path), *suffixes]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    for suffix in suffixes:
        np.testing.assert_allclose(
            sitk.ReadImage(str(tmp_path / f"again{suffix}")).GetSpacing(), grid.spacing, rtol=1e-6
        )


def test_itk_reads_numbers_with_points_in_a_process_with_a_decimal_comma(tmp_path: Path) -> None:
    """Where ITK reads (voxels as text, here), the locale is C meanwhile, and as it was afterwards."""
    name = comma_locale()
    if name is None:
        pytest.skip("this machine has no locale with a decimal comma")
    text = " ".join(map(str, range(8 * 7 * 6)))
    (tmp_path / "scan.nrrd").write_text(NRRD.format(encoding="ascii", more="") + text + "\n")
    before = locale.setlocale(locale.LC_NUMERIC)
    try:
        locale.setlocale(locale.LC_NUMERIC, name)
        assert read_volume(tmp_path / "scan.nrrd").grid.spacing == (1.0, 1.5, 3.0)
        assert locale.localeconv()["decimal_point"] == ","
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd", "mha", "mgz"])
def test_a_file_that_unpacks_to_far_more_than_it_says_is_not_unpacked_to_its_end(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MRSuperResLib.io.raw.MOST_BEHIND", 2**16)
    path, more, scan = tmp_path / f"scan.{kind}", bytes(2**24), noise(*SHAPE)
    if kind == "nii.gz":
        write_volume(Volume(scan, Grid(SHAPE[::-1], (1.0, 1.0, 3.0))), tmp_path / "whole.nii")
        path.write_bytes(gzip.compress((tmp_path / "whole.nii").read_bytes() + more))
    elif kind == "nrrd":
        path.write_bytes(NRRD.format(encoding="gzip", more="").encode() + gzip.compress(scan.tobytes() + more))
    elif kind == "mha":
        header = MHA.format(packed=True, more="", data="LOCAL")
        path.write_bytes(header.encode() + zlib.compress(scan.tobytes() + more))
    else:
        whole = gzip.decompress(mgh_file(tmp_path / "whole.mgz", scan).read_bytes())
        path.write_bytes(gzip.compress(whole + more))
    with pytest.raises(BadVolume, match="far more"):
        read_volume(path)
