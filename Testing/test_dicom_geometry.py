"""Whatever comes back from DICOM lies where every one of its frames says, single-frame and multi-frame alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_dicom import (
    ORIGIN,
    PIXEL,
    SHAPE,
    STEP,
    TURNED,
    check_every_frame,
    classic,
    classic_series,
    classic_slice,
    cosines,
    item,
    multi,
    multi_in_folder,
    place,
    read,
    voxels,
)

from MRSuperResLib.errors import BadVolume, UsageError

WAYS = [classic, multi, multi_in_folder]

Way = Callable[..., Path]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("places", [[0, 1, 2, 3, 4, 5], [0, 2, 4, 1, 3, 5], [5, 4, 3, 2, 1, 0], [-3, 0, -1, 2, 1, -2]])
def test_slices_lie_where_their_positions_say_whatever_the_order_they_are_stored_in(
    way: Way, places: list[float], tmp_path: Path
) -> None:
    array = voxels(6)
    volume, said = read(way(tmp_path, array, places))
    assert volume.grid.size == (SHAPE[1], SHAPE[0], 6) and said == []
    np.testing.assert_allclose(volume.grid.spacing, (PIXEL[1], PIXEL[0], STEP), atol=1e-6)
    check_every_frame(volume, array, places)
    assert volume.thickness == 3.0, "slices of 3 mm, 4 mm apart: a gap of 1 mm"
    assert volume.metadata["Modality"] == "MR" and "PatientName" not in volume.metadata


@pytest.mark.parametrize("way", WAYS)
def test_a_missing_slice_is_refused_naming_its_neighbours(way: Way, tmp_path: Path) -> None:
    with pytest.raises(BadVolume, match=r"8\.00 mm between .* \(one missing") as caught:
        read(way(tmp_path, voxels(5), [0, 1, 2, 4, 5]))
    assert caught.value.code == "uneven-slices"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("jitter", "told"), [(0.02, False), (0.035, True), (0.1, True), (0.3, True)])
def test_steps_that_differ_by_a_twentieth_are_told_with_how_far_they_are_off(
    way: Way, jitter: float, told: bool, tmp_path: Path
) -> None:
    """The steps are 1 and 1 + jitter, and 1 - jitter: 5 % of difference is the limit, not 50 %."""
    volume, said = read(way(tmp_path, voxels(6), [0, 1, 2 + jitter, 3, 4, 5]))
    assert said == (["uneven-slices"] if told else [])
    np.testing.assert_allclose(volume.grid.origin, place(0), atol=1e-9)
    np.testing.assert_allclose(volume.grid.spacing[2], STEP, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_slices_shifted_in_their_plane_are_refused_as_sheared(way: Way, tmp_path: Path) -> None:
    """A tilted gantry (1.5 mm a slice), and every other slice 3 mm aside."""
    for name, aside in {"tilted": [1.5 * n for n in range(6)], "zigzag": [3.0 * (n % 2) for n in range(6)]}.items():
        places = [(np.asarray(place(n)) + TURNED[:, 0] * mm).tolist() for n, mm in enumerate(aside)]
        if way is classic:
            for number, where in enumerate(places):
                classic_slice(tmp_path / name / f"{number}.dcm", voxels(6)[number], number, ImagePositionPatient=where)
            path = tmp_path / name
        else:
            frames = [{"PlanePositionSequence": item(ImagePositionPatient=where)} for where in places]
            path = way(tmp_path / name, voxels(6), frames=frames)
        with pytest.raises(BadVolume, match="gantry tilt, or a sheared") as caught:
            read(path)
        assert caught.value.code == "bad-direction"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("decimals", [2, 3, 4])
def test_directions_rounded_by_an_archive_are_made_orthogonal_not_dropped(
    way: Way, decimals: int, tmp_path: Path
) -> None:
    rounded = np.round(cosines(), decimals).tolist()
    if way is classic:
        path = way(tmp_path, voxels(6), ImageOrientationPatient=rounded)
    else:
        path = way(
            tmp_path, voxels(6), frames=[{"PlaneOrientationSequence": item(ImageOrientationPatient=rounded)}] * 6
        )
    volume, _ = read(path)
    degrees = np.degrees(np.arccos(np.clip(np.trace(volume.grid.axes.T @ TURNED) - 1, -2, 2) / 2))
    assert degrees < 60 * 10.0**-decimals, "within the rounding"
    aside = volume.grid.world_to_index(np.array([place(n) for n in range(6)]))[:, :2]
    assert np.abs(aside).max() < 1e-3, "positions are not rounded: the slices lie on their line"
    np.testing.assert_allclose(volume.grid.axes.T @ volume.grid.axes, np.eye(3), atol=1e-9)


def test_directions_that_rounding_cannot_explain_are_refused(tmp_path: Path) -> None:
    skewed = [1, 0, 0, 0.1, 0.99, 0]
    with pytest.raises(BadVolume, match="not at right angles") as caught:
        read(classic(tmp_path, voxels(4), ImageOrientationPatient=skewed))
    assert caught.value.code == "bad-direction"


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("PixelSpacing", [0, 1.2], "bad-spacing"),
        ("PixelSpacing", [-1.2, 0.9], "bad-spacing"),
        ("PixelSpacing", None, "no-geometry"),
        ("ImagePositionPatient", None, "no-geometry"),
        ("ImageOrientationPatient", None, "no-geometry"),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0], "bad-direction"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "bad-direction"),
        ("RescaleSlope", "NaN", "bad-scale"),
    ],
)
def test_geometry_that_is_missing_or_impossible_is_refused_not_replaced_by_1_mm(
    name: str, value: Any, code: str, tmp_path: Path
) -> None:
    with pytest.raises(BadVolume) as caught:
        read(classic(tmp_path, voxels(4), **{name: value}))
    assert caught.value.code == code and "\n" not in caught.value.message


def test_a_position_of_nan_is_refused(tmp_path: Path) -> None:
    path = classic(tmp_path, voxels(4))
    file = sorted(path.iterdir())[1]
    content = file.read_bytes()
    start = content.index(b"\x20\x00\x32\x00DS")
    length = int.from_bytes(content[start + 6 : start + 8], "little")
    file.write_bytes(content[: start + 8] + b"NaN\\1.0\\2.0".ljust(length) + content[start + 8 + length :])
    with pytest.raises(BadVolume, match="position of"):
        read(path)


def test_files_that_tell_nothing_of_where_they_lie_are_read_and_told(tmp_path: Path) -> None:
    """As FreeSurfer's files without geometry are; secondary captures and derived files are so."""
    empty = {"SharedFunctionalGroupsSequence": None, "PerFrameFunctionalGroupsSequence": None}
    volume, said = read(multi(tmp_path, voxels(4), **empty))
    assert said == ["no-geometry"] and volume.grid.spacing == (1.0, 1.0, 1.0)
    np.testing.assert_array_equal(volume.array, voxels(4))


def echoes(way: Way, folder: Path) -> tuple[Path, np.ndarray]:
    """Two echoes of six slices, alternating."""
    array, places = voxels(12), [n // 2 for n in range(12)]
    if way is classic:
        for number, where in enumerate(places):
            classic_slice(
                folder / "series" / f"{number}.dcm", array[number], number, ImagePositionPatient=place(where),
                EchoTime=10.0 + 80 * (number % 2), EchoNumbers=1 + number % 2,
            )  # fmt: skip
        return folder / "series", array
    frames = [{"MREchoSequence": item(EffectiveEchoTime=10.0 + 80 * (n % 2))} for n in range(12)]
    return way(folder, array, places, frames=frames), array


@pytest.mark.parametrize("way", WAYS)
def test_two_echoes_are_refused_and_each_can_be_chosen(way: Way, tmp_path: Path) -> None:
    path, array = echoes(way, tmp_path)
    with pytest.raises(BadVolume, match="12 slices at 6 positions") as caught:
        read(path)
    assert caught.value.code == "several-volumes"
    assert "3.1 (echo time 10 ms, 6 slices), 3.2 (echo time 90 ms, 6 slices)" in caught.value.message
    for key, first in (("3.1", 0), ("3.2", 1)):
        volume, said = read(path, series=key)
        check_every_frame(volume, array[first::2], list(range(6)))
        assert said == []
    with pytest.raises(UsageError, match=r"no series '3.3'.*3\.1"):
        read(path, series="3.3")


def test_magnitude_and_phase_are_two_volumes(tmp_path: Path) -> None:
    """Even where no position is there twice."""
    frames = [
        {"MRImageFrameTypeSequence": item(ComplexImageComponent="MAGNITUDE" if n < 3 else "PHASE")} for n in range(6)
    ]
    path = multi(tmp_path, voxels(6), frames=frames)
    with pytest.raises(BadVolume, match=r"magnitude, 3 slices.*phase, 3 slices"):
        read(path)
    np.testing.assert_array_equal(read(path, series="3.2")[0].array, voxels(6)[3:])


def test_time_points_without_any_sign_are_told_apart_by_their_order(tmp_path: Path) -> None:
    path = classic(tmp_path, voxels(9), [0, 1, 2] * 3)
    with pytest.raises(BadVolume, match="9 slices at 3 positions"):
        read(path)
    np.testing.assert_array_equal(read(path, series="3.2")[0].array, voxels(9)[3:6])


def test_two_orientations_are_refused_and_each_can_be_chosen(tmp_path: Path) -> None:
    """A localizer. The second three frames are turned by a quarter about their rows."""
    other = np.column_stack([TURNED[:, 0], TURNED[:, 2], -TURNED[:, 1]])
    frames = [
        {
            "PlaneOrientationSequence": item(ImageOrientationPatient=cosines(other)),
            "PlanePositionSequence": item(ImagePositionPatient=place(n - 3, other)),
        }
        if n > 2
        else {}
        for n in range(6)
    ]
    path = multi(tmp_path, voxels(6), frames=frames)
    with pytest.raises(BadVolume, match="several directions") as caught:
        read(path)
    assert caught.value.code == "several-volumes" and "coronal, 3 slices" in caught.value.message
    volume, _ = read(path, series="3.2")
    np.testing.assert_allclose(volume.grid.axes, other, atol=1e-6)


def test_a_scout_among_the_slices_is_named(tmp_path: Path) -> None:
    path = classic(tmp_path, voxels(6))
    classic_slice(path / "scout.dcm", np.ones((5, 5), np.uint16), 9)
    with pytest.raises(BadVolume, match=r"scout\.dcm is unlike the rest \(5 x 5 pixels"):
        read(path)
    assert read(path, series="3.1")[0].grid.size == (SHAPE[1], SHAPE[0], 6)


def test_a_series_of_a_study_is_chosen_by_number_uid_or_description_from_above(tmp_path: Path) -> None:
    for number, name in ((1, "T2 tse tra"), (2, "FLAIR"), (3, "FLAIR")):
        classic_series(
            tmp_path / "study" / f"s{number}", voxels(4, number), SeriesNumber=number, SeriesInstanceUID=f"1.9.{number}",
            SeriesDescription=name,
        )  # fmt: skip
    for key in ("1", "1.9.1", "t2 TSE tra"):
        np.testing.assert_array_equal(read(tmp_path / "study", series=key)[0].array, voxels(4, 1))
    with pytest.raises(BadVolume, match="choose one"):
        read(tmp_path / "study", series="FLAIR")


def test_a_mosaic_is_not_taken_for_a_slice(tmp_path: Path) -> None:
    with pytest.raises(BadVolume, match="mosaic"):
        read(classic(tmp_path, voxels(3), ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]))


def test_a_header_that_speaks_of_another_distance_is_told(tmp_path: Path) -> None:
    """Every other slice copied: positions 4 mm apart, the header says 2."""
    _, said = read(classic(tmp_path, voxels(4), SpacingBetweenSlices=2.0, SliceThickness=2.0))
    assert said == ["two-spacings"]
    _, said = read(classic(tmp_path / "gap", voxels(4), SpacingBetweenSlices=1.0))
    assert said == [], "some makers give the gap: 3 mm of thickness and 1 mm of gap are 4 mm"


def test_origin_is_the_first_slices(tmp_path: Path) -> None:
    np.testing.assert_allclose(read(classic(tmp_path, voxels(4)))[0].grid.origin, ORIGIN, atol=1e-6)


def test_two_slabs_apart_are_two_volumes_by_the_names_of_their_stacks(tmp_path: Path) -> None:
    frames = [{"FrameContentSequence": item(StackID="ab"[n // 3], InStackPositionNumber=1 + n % 3)} for n in range(6)]
    path = multi(tmp_path, voxels(6), [0, 1, 2, 9, 10, 11], frames=frames)
    with pytest.raises(BadVolume, match=r"stack a, 3 slices.*stack b, 3 slices"):
        read(path)
    volume, _ = read(path, series="3.2")
    np.testing.assert_allclose(volume.grid.origin, place(9), atol=1e-6)
    together = multi(tmp_path / "one", voxels(6), frames=frames)
    assert read(together)[0].grid.size[2] == 6, "stacks that continue each other are one"


@pytest.mark.parametrize("mixed", ["patients", "frames of reference"])
def test_slices_that_do_not_lie_in_one_space_are_never_stacked(mixed: str, tmp_path: Path) -> None:
    """A careless merger gave them one series UID; no name of a patient is told."""
    array = voxels(6)
    for number, values in enumerate(array):
        who, where = ("A" if number < 3 else "B"), f"1.5.{number // 3}"
        tags = (
            {"PatientID": who, "PatientName": f"Name^{who}"} if mixed == "patients" else {"FrameOfReferenceUID": where}
        )
        classic_slice(tmp_path / f"{number}.dcm", values, number, **tags)
    with pytest.raises(BadVolume, match=f"slices of (2|several) {mixed}") as caught:
        read(tmp_path)
    assert "Name" not in str(caught.value)
    key = {"patients": "3-1", "frames of reference": "3.1"}[mixed]
    np.testing.assert_array_equal(read(tmp_path, series=key)[0].array, array[:3])


def test_frames_of_reference_made_anew_for_every_slice_say_nothing(tmp_path: Path) -> None:
    """As some anonymisers do: the slices still are one volume."""
    for number, values in enumerate(voxels(4)):
        classic_slice(tmp_path / f"{number}.dcm", values, number, FrameOfReferenceUID=f"1.5.{number}")
    np.testing.assert_array_equal(read(tmp_path)[0].array, voxels(4))


def test_pixels_of_two_sizes_are_two_volumes(tmp_path: Path) -> None:
    path = classic(tmp_path, voxels(6))
    for number in (6, 7):
        classic_slice(path / f"late{number}.dcm", voxels(8)[number], number, PixelSpacing=[2.4, 1.8])
    with pytest.raises(BadVolume, match=r"of \(1\.2, 0\.9\) mm, 6 slices.*of \(2\.4, 1\.8\) mm, 2 slices"):
        read(path)


def test_pixel_spacings_that_differ_by_rounding_are_one(tmp_path: Path) -> None:
    path = classic(tmp_path, voxels(4), PixelSpacing=[0.4885, 0.4885])
    classic_slice(path / "last.dcm", voxels(5)[4], 4, PixelSpacing=[0.48850001, 0.48849999])
    volume, said = read(path)
    assert volume.grid.size[2] == 5 and said == []
