"""What a scan shows and a translation may have lost is flagged: found, measured, placed, written, and told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from MRSuperResLib import models, networks
from MRSuperResLib.errors import MRSuperResError
from MRSuperResLib.evaluation.lesions import CORE, VISIBLE, lesioned_pairs
from MRSuperResLib.evaluation.masks import brain_mask
from MRSuperResLib.evaluation.metrics import dice
from MRSuperResLib.grid import Grid
from MRSuperResLib.inference import Options, flags, translate
from MRSuperResLib.inference import translation as translation_module
from MRSuperResLib.inference.flags import ASYMMETRY, FLAGGED, LEAST_MM3, detector_for, find_flags, flags_of, widened
from MRSuperResLib.inference.symmetric_view import (
    COLUMNS,
    PIXEL_MM,
    ROWS,
    TYPICAL,
    axial,
    axial_stack,
    from_axial_stack,
    in_view,
    inputs_of,
    midline,
    normalised,
    slices_apart,
)
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.jobs import Job, run_job
from MRSuperResLib.jobs import run as run_module
from MRSuperResLib.models import ModelCard, Requirements, SpacingRange
from MRSuperResLib.volume import Volume

CPU = Options(device="cpu", threads=1)
OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


def head(shape: tuple[int, int, int] = (20, 120, 100), shift: float = 0.0, angle: float = 0.0) -> np.ndarray:
    """A symmetric head of T1w levels (k, j, i), 1.5 mm pixels: grey around white around two ventricles; turned and moved."""
    rows, columns = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape[1:]), indexing="ij")
    columns = columns - shift
    y, x = np.cos(angle) * rows - np.sin(angle) * columns, np.sin(angle) * rows + np.cos(angle) * columns
    radius = np.hypot(y / 50, x / 38)
    ventricles = np.minimum(np.hypot((y + 5) / 12, (x - 8) / 4), np.hypot((y + 5) / 12, (x + 8) / 4)) < 1
    image = np.select([ventricles, radius < 0.75, radius < 0.95, radius < 1.0], [0.15, 0.72, 0.52, 0.15], 0.0)
    noise = 0.01 * np.random.default_rng(0).standard_normal(shape)
    return np.asarray(np.maximum(image[None] + noise, 0), dtype=np.float32)


def scan(
    array: np.ndarray, direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1), name: str = "head_T1w"
) -> Volume:
    return Volume(1000 * array, Grid(array.shape[::-1], (1.5, 1.5, 4.0), (-70.0, -90.0, 10.0), direction), name)


def card(identifier: str, task: str, architecture: str, **changes: object) -> ModelCard:
    fields = {
        "id": identifier,
        "title": identifier,
        "version": "1",
        "architecture": architecture,
        "task": task,
        "plane": "any",
        "factors": (1.0, 1.0),
        "contrasts": ("T1w", "T2w", "FLAIR"),
        "spacing": SpacingRange((0.5, 2.0), (0.5, 6.0)),
        "licence": "Apache-2.0",
        "intended_use": "A test.",
    }
    return ModelCard(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models: a translator and a detector."""
    place = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    small = {"widths": [4, 8], "latent": 2}
    network = networks.build("translation", small)
    made = card(
        "tiny", "translate", "translation", hyperparameters=small, target_contrasts=("T1w", "T2w", "FLAIR"),
        requirements=Requirements(smallest=8, multiple_of=4, halo=8, latent=2, uncertainty_scale=1.0),
    )  # fmt: skip
    models.save_model(place / "tiny.safetensors", made, network.state_dict())
    small = {"widths": [4, 8]}
    network = networks.build("lesion_detector", small)
    made = card(
        "zz-detector", "flag", "lesion_detector", hyperparameters=small,
        requirements=Requirements(smallest=8, multiple_of=2, halo=8, tiling=False),
    )  # fmt: skip
    models.save_model(place / "zz-detector.safetensors", made, network.state_dict())
    return place


@pytest.fixture
def blob(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The detector is sure of a ball of 10 mm and a grain, whatever the scan."""
    likely = np.zeros((20, 120, 100), dtype=np.float32)
    k, j, i = np.indices(likely.shape)
    likely[np.sqrt((4 * (k - 9)) ** 2 + (1.5 * (j - 70)) ** 2 + (1.5 * (i - 30)) ** 2) <= 5] = 1
    likely[3, 50, 50] = 1
    monkeypatch.setattr(flags, "probabilities", lambda *given, **more: likely)
    return likely


@pytest.mark.parametrize(("shift", "degrees"), [(0.0, 0.0), (6.0, 0.0), (-4.0, 7.5), (3.0, -10.0)])
def test_the_midline_is_found(shift: float, degrees: float) -> None:
    array = head(shift=shift, angle=np.deg2rad(degrees))
    view = in_view(array, scan(array).grid, "T1w")
    assert view.slices.shape == (20, ROWS, COLUMNS)
    middle = view.slices[10, 50:110, 20:-20]
    assert np.abs(middle - middle[:, ::-1]).mean() < 0.035  # halves that do not fit differ by 0.1 and more
    angle, columns = midline(array, (4.0, 1.5, 1.5))
    assert abs(np.rad2deg(angle) - -degrees) < 2.6 or abs(np.rad2deg(angle) - degrees) < 2.6
    assert np.ptp(columns) < 2.0


def test_a_view_goes_back_to_where_it_came_from() -> None:
    array = head(shift=4.0, angle=np.deg2rad(5))
    marked = array.copy()
    marked[10, 60:66, 30:36] = 1.5
    view = in_view(marked, scan(array).grid, "T1w")
    back = from_axial_stack(view.back(view.slices, (120, 100)), scan(array).grid)
    assert back.shape == array.shape
    found = ndimage.center_of_mass(back[10] > 1.0)
    assert np.abs(np.array(found) - (62.5, 32.5)).max() < 0.7


def test_what_else_is_known_of_a_scan_is_seen_as_the_scan_is() -> None:
    array = head(shift=4.0, angle=np.deg2rad(5))
    grid = scan(array).grid
    view = in_view(array, grid, "T1w", apart=8.0)
    stack = slices_apart(array, grid, 8.0)
    assert np.array_equal(stack, axial_stack(array, grid)[::2])
    tissue = view.shown((stack > 0.33).astype(np.float32))
    assert dice(tissue > 0.5, view.slices > 0.33) > 0.98
    assert 0 <= tissue.min() and tissue.max() <= 1


def test_nothing_is_flagged_outside_of_the_brain_where_that_is_known(tmp_path: Path) -> None:
    """A network that is sure of lesions everywhere and of the brain on none of a slice flags nothing."""
    told = {}
    for sure in (-9.0, 9.0):
        network = networks.build("lesion_detector", {"widths": [4, 8], "brain": True})
        with torch.no_grad():
            for tail, bias in ((network.tail, 9.0), (network.brain, sure)):
                tail.weight.zero_()
                tail.bias.fill_(bias)
        made = card(
            "sure", "flag", "lesion_detector", hyperparameters={"widths": [4, 8], "brain": True},
            requirements=Requirements(smallest=8, multiple_of=2, halo=8, tiling=False),
        )  # fmt: skip
        models.save_model(tmp_path / "sure.safetensors", made, network.state_dict())
        entry = models.read_entry(tmp_path / "sure.safetensors")
        volume = scan(head())
        told[sure] = flags.probabilities(volume, entry, "T1w")
    assert told[-9.0].max() < 0.01 and told[9.0].max() > 0.99


@pytest.mark.parametrize("flipped", [(), (0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0), (1, 2, 0)])
def test_however_a_file_stores_a_scan_it_is_seen_and_flagged_alike(
    order: tuple[int, int, int], flipped: tuple[int, ...], folder: Path
) -> None:
    """Rows from the front or from the back, slices from below or above, sagittal or coronal: the same places."""
    array = head(shift=3.0)
    array[12, 20:30, 60:70] += 0.4  # of no symmetry
    plain = scan(array)
    axes = np.array(plain.grid.direction).reshape(3, 3)[:, [2 - n for n in order][::-1]].copy()  # columns: i, j, k
    stored = np.transpose(array, order)
    corner = np.zeros(3)
    for n in flipped:
        axes[:, 2 - n] *= -1
        corner[2 - n] = stored.shape[n] - 1
    stored = np.ascontiguousarray(np.flip(stored, flipped))
    spacing = tuple(plain.grid.spacing[2 - n] for n in order)[::-1]
    origin = np.array(plain.grid.origin) - axes @ (corner * spacing)
    other = Volume(1000 * stored, Grid(stored.shape[::-1], spacing, tuple(origin), tuple(axes.ravel())), "head_T1w")
    assert np.array_equal(axial_stack(other.array, other.grid), axial_stack(plain.array, plain.grid))
    assert np.array_equal(from_axial_stack(axial_stack(stored, other.grid), other.grid), stored)
    detector = models.find_model("zz-detector", [folder])
    seen, alike = (flags.probabilities(each, detector, "T1w", options=CPU) for each in (plain, other))
    assert np.array_equal(np.flip(np.transpose(seen, order), flipped), alike)


def test_slices_are_stacked_from_below_and_faces_look_one_way() -> None:
    """A grid in LPS whose axes rise to the left, the back and upwards: rows are turned, the rest is as stored."""
    array = np.arange(24.0).reshape(2, 3, 4)
    grid = Grid((4, 3, 2), (1.0, 1.0, 1.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    assert np.array_equal(axial_stack(array, grid), array[:, ::-1])
    assert axial(grid) == 0 and axial(Grid((4, 3, 2), (1, 1, 1), (0, 0, 0), (0, 1, 0, 0, 0, 1, 1, 0, 0))) == 2


@pytest.mark.parametrize("contrast", TYPICAL)
def test_tissues_get_the_brightness_they_usually_have(contrast: str) -> None:
    levels = np.array(TYPICAL[contrast]) * 0.6
    assert np.allclose(normalised(levels[None, None], levels, contrast), TYPICAL[contrast], atol=1e-3)
    ramp = normalised(np.linspace(0, 3, 50)[None, None], levels, contrast)[0, 0]
    assert ramp[0] == 0 and (np.diff(ramp) >= 0).all() and ramp[-1] <= 2


def test_the_network_sees_the_other_side_and_where_it_is() -> None:
    image = torch.rand(2, 1, 6, 8)
    made = inputs_of(image, torch.tensor([0.0, 1.0]))
    assert made.shape == (2, 5, 6, 8)
    assert torch.equal(made[:, 1], image[:, 0].flip(2))
    assert made[0, 3, 0, 0] == made[0, 3, 0, -1] == 1 and made[0, 2, 0, 0] == -1
    assert (made[0, 4] == -1).all() and (made[1, 4] == 1).all()


def test_places_are_measured_and_placed_in_the_patient(folder: Path) -> None:
    volume = scan(head(), OBLIQUE)
    likely = np.zeros((20, 120, 100), dtype=np.float32)
    likely[8:11, 60:72, 40:52] = 1
    likely[2:4, 20:28, 30:38] = 1
    likely[15, 100, 90] = 1
    detector = models.find_model("zz-detector", [folder])
    found = flags_of(likely, volume, detector)
    assert [place.number for place in found.places] == [1, 2]
    assert found.places[0].volume > found.places[1].volume > LEAST_MM3
    voxels = found.labels.array == 1
    assert found.places[0].volume == pytest.approx(voxels.sum() * 1.5 * 1.5 * 4.0)
    centre = volume.grid.index_to_world(np.array([[45.5, 65.5, 9.0]]))[0]
    assert np.abs(np.array(found.places[0].centre) - centre).max() < 2.0
    ball = np.cbrt(6 * found.places[0].volume / np.pi)
    assert found.places[0].diameter == pytest.approx(ball)
    report = found.report()
    assert report["count"] == 2 and report["places"][0]["label"] == 1 and report["digest"] == detector.digest
    assert "2 places" in found.words() and "look at the scan" in found.words()
    assert flags_of(np.zeros_like(likely), volume, detector).places == ()


def test_a_detector_runs_on_a_scan_and_answers_on_its_grid(folder: Path) -> None:
    volume = scan(head(shift=2.0))
    detector = models.find_model("zz-detector", [folder])
    likely = flags.probabilities(volume, detector, "T1w", options=CPU)
    assert likely.shape == volume.array.shape and (likely >= 0).all() and (likely <= 1).all()
    again = find_flags(volume, detector, "T1w", options=CPU)
    assert again.labels.grid.same_as(volume.grid)


def test_a_slice_and_its_mirror_image_are_judged_alike(folder: Path) -> None:
    view = in_view(head(shift=2.0), scan(head()).grid, "T1w")
    view = replace(view, slices=view.slices[4:8].copy(), heights=view.heights[4:8])
    view.slices[:, 60:80, 74:90] += 0.3  # on one side
    detector = models.find_model("zz-detector", [folder])
    seen, mirrored = (
        flags._detected(replace(view, slices=slices), detector, "T1w", CPU, flags.log_warning, flags.never)
        for slices in (view.slices, np.ascontiguousarray(view.slices[:, :, ::-1]))
    )
    np.testing.assert_allclose(mirrored[:, :, ::-1], seen, atol=1e-5)
    assert np.abs(seen - seen[:, :, ::-1]).max() > 1e-4


def test_the_shipped_detector_finds_large_lesions_in_a_person_it_has_not_seen(data_folder: Path) -> None:
    """Of 10 and 25 mm, put into a T1w as its acquisition would show them; and leaves nearly all of a brain alone."""
    t1w, t2w = (
        read_volume(data_folder / "val" / "multicontrast" / f"openmslong-04-1_{name}.nii.gz") for name in ("T1w", "T2w")
    )
    detector = models.find_model("lesion-flags")
    assert detector_for("T1w", CPU).card.id == "lesion-flags"
    plain = find_flags(t1w, detector, "T1w", options=CPU).mask
    assert plain[brain_mask(t1w.array, t1w.grid.spacing[::-1])].mean() < 0.02
    found = []
    for _, (lesioned, _, placed) in zip(range(2), lesioned_pairs(t1w, t2w, "T1w", "T2w", [1]), strict=False):
        mask = find_flags(lesioned, detector, "T1w", options=CPU).mask
        for one in placed:
            core = one.covered > CORE
            change = abs(float((lesioned.array - t1w.array)[core].mean())) / np.ptp(
                np.percentile(t1w.array, (0.1, 99.9))
            )
            if one.lesion.diameter > 9 and change >= VISIBLE:
                found.append(mask[core].mean() >= 0.25 > plain[core].mean())
    assert len(found) >= 3 and np.mean(found) >= 0.75


def test_without_a_detector_what_is_unlike_the_other_side_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "list_models", lambda *given, **more: [])
    told: list[str] = []
    detector = detector_for("T1w", CPU, lambda code, message: told.append(code))
    assert detector is ASYMMETRY and not told
    assert detector_for("PDw", CPU, lambda code, message: told.append(code)) is None and told == ["not-flagged"]
    array = head(shift=3.0, angle=np.deg2rad(5))
    clean = find_flags(scan(array), detector, "T1w", options=CPU)
    assert clean.mask.mean() < 0.001
    array[8:12, 45:55, 66:74] = 0.3  # a dark place of about 14 mm on one side
    found = find_flags(scan(array), detector, "T1w", options=CPU)
    assert found.places and found.mask[9:11, 48:52, 69:72].mean() > 0.8, (
        "its core; smoothing and alignment take the rim"
    )
    assert found.mask[:, :, :40].mean() < 0.01
    assert found.report()["model"] == "asymmetry"


def test_uncertainty_is_wide_where_something_is_flagged_and_nowhere_else() -> None:
    deviation = np.array([0.01, 0.5, 0.02], dtype=np.float32)
    made = widened(deviation, np.array([True, True, False]))
    assert made.tolist() == pytest.approx([FLAGGED, 0.5, 0.02])


def test_a_translation_tells_of_what_it_may_have_lost(folder: Path, blob: np.ndarray) -> None:
    told: dict[str, str] = {}
    options = Options(device="cpu", threads=1, model_folders=(str(folder),))
    made = translate(scan(head()), "tiny", target="T2w", samples=2, options=options, warn=told.__setitem__)
    assert made.flags is not None and len(made.flags.places) == 1  # the grain is none
    assert "1 place" in told["flagged"] and "may have lost" in told["flagged"]
    assert made.report["flags"]["places"][0]["volume_mm3"] == pytest.approx(made.flags.places[0].volume, abs=0.1)
    assert made.uncertainty is not None
    span = made.report["robust_range"][1] - made.report["robust_range"][0]
    inside = made.uncertainty.array[made.flags.mask]
    assert (inside >= 0.999 * FLAGGED * span).all()
    outside = made.uncertainty.array[blob == 0]
    assert np.median(outside) < 0.5 * FLAGGED * span


def test_a_job_writes_flags_as_a_label_map_and_records_them(folder: Path, blob: np.ndarray, tmp_path: Path) -> None:
    write_volume(scan(head()), tmp_path / "head_T1w.nii.gz")
    job = Job(
        str(tmp_path / "head_T1w.nii.gz"), str(tmp_path / "out.nii.gz"), "tiny", task="translate", target="FLAIR", samples=2,
        flags=str(tmp_path / "flags.nii.gz"), device="cpu", threads=1, model_folders=(str(folder),),
    )  # fmt: skip
    events: list[dict[str, object]] = []
    result = run_job(job, events.append, lambda: False)
    assert result["outputs"]["flags"] == str(tmp_path / "flags.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "flags.nii.gz"))
    labels = sitk.GetArrayFromImage(image)
    assert image.GetPixelIDValue() == sitk.sitkUInt16 and set(np.unique(labels)) == {0, 1}
    assert labels[9, 70, 30] == 1
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["translation"]["flags"]["places"][0]["label"] == 1
    assert any(event.get("code") == "flagged" for event in events)


def test_flags_that_cannot_be_made_are_refused_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_volume(scan(head()), tmp_path / "head_T1w.nii.gz")
    monkeypatch.setattr(run_module, "detector_for", lambda *given: None)
    monkeypatch.setattr(translation_module, "translate", lambda *given, **more: pytest.fail("translated for nothing"))
    job = Job(
        str(tmp_path / "head_T1w.nii.gz"), str(tmp_path / "out.nii.gz"), str(folder / "tiny.safetensors"), task="translate",
        target="FLAIR", flags=str(tmp_path / "flags.nii.gz"), device="cpu",
    )  # fmt: skip
    with pytest.raises(MRSuperResError, match="no lesion detector"):
        run_job(job, lambda event: None, lambda: False)
    assert not (tmp_path / "out.nii.gz").exists()


def test_the_view_is_fine_enough_for_six_millimetres() -> None:
    assert PIXEL_MM < 6 / 3 and ROWS * PIXEL_MM > 220 and COLUMNS * PIXEL_MM > 175
