"""References find their place: motion is undone, strangers are told and not used, grids and edges come out right."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from MRSuperResLib.acquisition import acquire
from MRSuperResLib.errors import BadVolume, Cancelled, UnsuitableVolume
from MRSuperResLib.grid import Grid
from MRSuperResLib.inference.options import Aligned
from MRSuperResLib.inference.registration import align, motion, moved, mutual_information, rotation_of
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.resample import resample
from MRSuperResLib.volume import Volume

GRID = Grid((56, 64, 48), (2.0, 2.0, 2.0), (-55.0, -63.0, -47.0))


def heads(seed: int = 0, grid: Grid = GRID) -> tuple[Volume, Volume]:
    """One made-up head in two contrasts: the second is a folded function of the first's tissues, as T2w is of T1w."""
    rng = np.random.default_rng(seed)
    k, j, i = np.meshgrid(*((np.arange(n) - n / 2) / (n / 2) for n in grid.shape), indexing="ij")
    semi = rng.uniform(0.65, 0.85, 3)  # heads differ in shape
    inside = (k / semi[0]) ** 2 + (j / semi[1]) ** 2 + (i / semi[2]) ** 2 < 1
    tissue = ndimage.gaussian_filter(rng.standard_normal(grid.shape), 2.0)
    tissue = inside * (1.5 + tissue / tissue.std())
    first = np.where(inside, 400 + 150 * tissue, 0).astype(np.float32)
    second = np.where(inside, 500 - 200 * np.abs(tissue - 1.0), 0).astype(np.float32)
    return Volume(first, grid, "first"), Volume(second, grid, "second")


def rigid(shift: tuple[float, float, float], degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = shift
    return matrix


class Told:
    """Collects warnings."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        self.messages: list[str] = []

    def __call__(self, code: str, message: str) -> None:
        assert "\n" not in message
        self.codes.append(code)
        self.messages.append(message)


@pytest.mark.parametrize("factors", [(2.0, 2.0, 1.0), (1.0, 1.0, 3.0)])
def test_a_patient_who_moved_is_found(factors: tuple[float, float, float]) -> None:
    """The header says one place, the reference was taken in another: after registration it is off by well under a voxel."""
    truth, other = heads()
    low = acquire(truth, factors)
    true = rigid((5.0, -3.0, 4.0), 5.0)
    elsewhere = resample(moved(other, np.linalg.inv(true)), GRID, "bspline")  # as if scanned after the motion
    told = Told()
    found = align(elsewhere, low, low.grid.refine(factors), warn=told)
    assert isinstance(found, Aligned)
    left = motion(np.linalg.inv(found.transform) @ true, truth)
    assert left < 1.0, f"{left:.2f} mm remain"
    assert told.codes == ["reference-moved"]
    assert found.report["moved"] and found.report["rotation_degrees"] == pytest.approx(5.0, abs=0.5)
    inside = ndimage.binary_erosion(other.array > 100, iterations=5)
    assert np.corrcoef(found.volume.array[inside], other.array[inside])[0, 1] > 0.9


def test_headers_that_agree_are_left_alone() -> None:
    truth, other = heads()
    low = acquire(truth, (2.0, 2.0, 1.0))
    told = Told()
    found = align(other, low, truth.grid, warn=told)
    assert told.codes == [] and not found.report["moved"]
    np.testing.assert_array_equal(found.transform, np.eye(4))
    np.testing.assert_array_equal(found.volume.array, other.array)
    assert found.valid.all() and found.overlap == 1.0


def test_without_registration_the_headers_decide() -> None:
    truth, other = heads()
    low = acquire(truth, (2.0, 2.0, 1.0))
    shifted = Volume(other.array, GRID.crop((2, 0, 0), GRID.size), "shifted")
    found = align(shifted, low, truth.grid, register=False, warn=Told())
    assert found.report["searched"] is False and not found.report["moved"]
    np.testing.assert_allclose(found.volume.array[:, :, 10:], other.array[:, :, 8:-2], atol=1e-2)


def test_a_reference_in_another_orientation_lands_voxel_on_voxel() -> None:
    """Sagittal storage of the same anatomy: axes permuted and flipped, the world the same."""
    truth, other = heads()
    low = acquire(truth, (2.0, 2.0, 1.0))
    array = np.ascontiguousarray(other.array.transpose(2, 0, 1)[::-1])  # array axes: i reversed, k, j
    origin = GRID.index_to_world(np.array([[GRID.size[0] - 1, 0, 0]], dtype=float))[0]
    axes = np.stack([GRID.axes[:, 1], GRID.axes[:, 2], -GRID.axes[:, 0]], axis=1)
    turned = Volume(array, Grid((64, 48, 56), (2.0, 2.0, 2.0), tuple(origin.tolist()), tuple(axes.ravel().tolist())))
    found = align(turned, low, truth.grid, warn=Told())
    np.testing.assert_allclose(found.volume.array, other.array, atol=0.5)
    assert not found.report["moved"]


def test_another_persons_scan_is_told_and_not_used() -> None:
    truth, _ = heads(0)
    _, stranger = heads(7)
    told = Told()
    found = align(stranger, acquire(truth, (2.0, 2.0, 1.0)), truth.grid, warn=told)
    assert told.codes == ["reference-unlike"]
    assert not found.valid.any() and found.report["used"] is False


def test_a_reference_of_two_slices_is_judged_by_what_it_shows() -> None:
    """3 mm across them nothing is left in sight. That says nothing: noise is noise, and the same anatomy the same."""
    slab = Grid((56, 64, 2), (2.0, 2.0, 1.0), (-55.0, -63.0, 0.0))
    truth, other = (resample(head, slab, "linear") for head in heads())
    low = acquire(truth, (2.0, 2.0, 1.0))
    assert align(other, low, slab, register=False, warn=Told()).valid.all()
    noise = Volume(np.random.default_rng(0).random(slab.shape).astype(np.float32), slab)
    told = Told()
    assert not align(noise, low, slab, register=False, warn=told).valid.any()
    assert told.codes == ["reference-unlike"]


def test_a_small_field_of_view_does_not_hide_that_it_is_the_same_anatomy() -> None:
    """864 noisy voxels in sight: 32 x 32 bins would find as much in chance as in the anatomy."""
    rng = np.random.default_rng(1)

    def noisy(volume: Volume) -> Volume:
        return Volume(volume.array + rng.normal(0, 60, volume.array.shape).astype(np.float32), volume.grid)

    truth, other, stranger = (head.crop((16, 20, 20), (32, 36, 3)) for head in (*heads(), heads(7)[1]))
    part = noisy(acquire(truth, (2.0, 2.0, 1.0)))
    assert align(noisy(other), part, truth.grid, register=False, warn=Told()).report["used"]
    assert not align(noisy(stranger), part, truth.grid, register=False, warn=Told()).report["used"]


def test_a_reference_too_small_to_be_judged_is_used_and_told() -> None:
    """112 voxels in sight, fewer than 100 after any shift."""
    truth, other = (head.crop((20, 24, 24), (16, 14, 2)) for head in heads())
    told = Told()
    found = align(other, acquire(truth, (2.0, 2.0, 1.0)), truth.grid, register=False, warn=told)
    assert told.codes == ["reference-unjudged"] and found.valid.all()
    assert found.report["similarity"] is None and np.isnan(found.similarity)
    json.dumps(found.report, allow_nan=False)


def test_who_trusts_the_headers_hears_that_a_motion_may_be_the_reason() -> None:
    truth, other = heads()
    low = acquire(truth, (2.0, 2.0, 1.0))
    elsewhere = moved(other, rigid((5.0, 0.0, 0.0), 0.0))
    told = Told()
    align(elsewhere, low, truth.grid, register=False, warn=told)
    assert told.codes[0] == "reference-unlike" and "registration was left out" in told.messages[0]
    assert re.search(r"similarity 0\.\d{3},", told.messages[0])
    told = Told()
    align(heads(7)[1], low, truth.grid, warn=told)
    assert told.codes[0] == "reference-unlike" and "registration" not in told.messages[0]


def test_a_blunt_reference_is_told_by_what_was_asked_and_not_by_what_the_model_makes() -> None:
    """2 mm is sharp enough for an answer of 2 mm, which a x4 model makes by way of 1 mm; thick slices are told on any axis."""
    truth, other = heads()
    low = acquire(truth, (2.0, 2.0, 1.0))
    finest = low.grid.refine((4.0, 4.0, 1.0))
    told = Told()
    align(other, low, finest, target=truth.grid, register=False, warn=told)
    assert told.codes == []
    align(other, low, finest, register=False, warn=told)
    assert told.codes == ["blunt-reference"] and "2 mm where the result has 1 mm" in told.messages[0]
    told = Told()
    align(acquire(other, (1.0, 1.0, 3.0)), low, truth.grid, register=False, warn=told)
    assert told.codes[0] == "blunt-reference" and "6 mm along k where the scan has 2 mm" in told.messages[0]


def test_beyond_a_reference_there_is_none() -> None:
    truth, other = heads()
    low = acquire(truth, (2.0, 2.0, 1.0))
    part = other.crop((0, 0, 0), (56, 64, 30))
    told = Told()
    found = align(part, low, truth.grid, warn=told)
    assert found.valid[:30].all() and not found.valid[30:].any()
    assert told.codes == ["reference-partial"] and 0.4 < found.overlap < 0.9


def test_what_cannot_be_a_reference_is_refused_in_one_line() -> None:
    truth, other = heads()
    low = acquire(truth, (2.0, 2.0, 1.0))
    far = Volume(other.array, Grid(GRID.size, GRID.spacing, (500.0, 0.0, 0.0)), "far")
    with pytest.raises(UnsuitableVolume, match="different places") as caught:
        align(far, low, truth.grid, warn=Told())
    assert caught.value.code == "no-overlap"
    blunt = acquire(other, (4.0, 4.0, 1.0))
    with pytest.raises(UnsuitableVolume, match="must be finer") as caught:
        align(blunt, low, truth.grid, warn=Told())
    assert caught.value.code == "coarse-reference"
    with pytest.raises(BadVolume, match="no image"):
        align(Volume(np.full(GRID.shape, 3.0, np.float32), GRID), low, truth.grid, warn=Told())
    told = Told()
    align(acquire(other, (2.0, 2.0, 1.0)), acquire(truth, (4.0, 4.0, 1.0)), truth.grid, register=False, warn=told)
    assert told.codes[0] == "blunt-reference"


def test_the_user_can_stop_it_and_sees_it_advance() -> None:
    truth, other = heads()
    low = acquire(truth, (2.0, 2.0, 1.0))
    with pytest.raises(Cancelled):
        align(other, low, truth.grid, warn=Told(), cancel=lambda: True)
    seen: list[tuple[str, int, int]] = []
    align(
        other, low, truth.grid, warn=Told(), progress=lambda stage, done, total, left: seen.append((stage, done, total))
    )
    assert [done for _, done, _ in seen] == [0, 1, 2, 3, 4] and {total for _, _, total in seen} == {4}


def test_mutual_information_of_what_is_known() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(200_000)
    assert mutual_information(values, 3 - 2 * values) > 0.99
    assert mutual_information(values, rng.random(values.size)) < 0.01
    assert rotation_of(rigid((0, 0, 0), 12.0)) == pytest.approx(12.0)


def test_real_contrasts_of_one_visit_agree_and_of_two_people_do_not(data_folder: Path) -> None:
    folder = data_folder / "val" / "multicontrast"
    scan = read_volume(folder / "openms-26_T2w.nii.gz")
    low = acquire(scan, (4.0, 4.0, 1.0))
    own = align(read_volume(folder / "openms-26_T1w.nii.gz"), low, scan.grid, warn=Told())
    told = Told()
    other = align(read_volume(folder / "openmslong-04-1_T1w.nii.gz"), low, scan.grid, warn=told)
    assert own.similarity > 0.4 and own.valid.all() and not own.report["moved"]
    assert other.similarity < 0.2 and "reference-unlike" in told.codes


def test_a_thick_scan_knows_the_same_persons_scan_of_another_position(data_folder: Path) -> None:
    """5 mm T2w and a whole-head T1w, heads 18 degrees apart: scalp and neck, which are alike in all people, must not decide."""
    scan = read_volume(data_folder / "val" / "thick" / "ucla-11_T2w.nii.gz")
    own = read_volume(data_folder / "val" / "nearisotropic" / "ucla-11_T1w.nii.gz")
    found = align(own, scan, scan.grid, warn=Told())
    assert found.report["used"] and found.report["moved"] and found.report["rotation_degrees"] > 10
    told = Told()
    stranger = read_volume(data_folder / "val" / "isotropic" / "nsk-51_T1w.nii.gz")
    there = np.eye(4)
    there[:3, 3] = np.subtract(stranger.grid.corners().mean(0), scan.grid.corners().mean(0))
    found = align(moved(stranger, there), scan, scan.grid, warn=told)
    assert not found.report["used"] and "reference-unlike" in told.codes


def test_a_small_part_of_a_real_scan_is_known_again(data_folder: Path) -> None:
    """64 x 72 x 3 mm of a head, x4: 864 voxels."""
    folder, box = data_folder / "val" / "multicontrast", ((36, 48, 38), (64, 72, 3))
    part = read_volume(folder / "openms-26_T2w.nii.gz").crop(*box)
    for reference, alike in (("openms-26_T1w", True), ("openms-26_FLAIR", True), ("openmslong-04-1_T1w", False)):
        whole = read_volume(folder / f"{reference}.nii.gz")
        found = align(whole, acquire(part, (4.0, 4.0, 1.0)), part.grid, register=False, warn=Told())
        assert found.report["used"] is alike, (reference, found.similarity)
