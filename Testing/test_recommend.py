"""A model chosen for me: what suits the scan, why, and exact cubes by models in turn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from MRSuperResLib import cli, models
from MRSuperResLib.errors import UnsuitableVolume
from MRSuperResLib.grid import Grid
from MRSuperResLib.inference import Options
from MRSuperResLib.inference.isotropic import isotropic_grid, to_isotropic
from MRSuperResLib.inference.recommend import recommend, refined_planes
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.jobs.completed import beside
from MRSuperResLib.volume import Volume

OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


def scan(spacing: tuple[float, float, float], size: tuple[int, int, int] = (40, 44, 16), name: str = "T2w") -> Volume:
    """A textured ball in air."""
    grid = Grid(size, spacing, (3.0, -2.0, 5.0), OBLIQUE)
    points = grid.index_to_world(np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).reshape(-1, 3))
    from_middle = points - grid.corners().mean(0)
    radius = np.linalg.norm(from_middle, axis=1) / (0.45 * min(grid.extent))
    values = (radius < 1) * (600 + 150 * np.sin(from_middle @ np.array([0.5, 0.4, 0.3])))
    array = values.reshape(size).transpose(2, 1, 0).astype(np.float32)
    return Volume(np.ascontiguousarray(array), grid, name)


@pytest.mark.parametrize(
    ("spacing", "name", "plane", "model", "factor"),
    [
        ((0.9, 0.9, 4.0), "T2w", "through-plane", None, 4.0),
        ((1.0, 1.0, 3.0), "T1w", "through-plane", None, 3.0),
        ((2.0, 2.0, 2.0), "T1w", "in-plane", None, 2.0),
        ((0.43, 0.43, 5.0), "T2w", "through-plane", None, 8.0),
        ((0.3, 0.3, 3.0), "PDw", "through-plane", "bspline", 8.0),
    ],
)
def test_plane_model_and_factor_follow_the_scan(
    spacing: tuple[float, float, float], name: str, plane: str, model: str | None, factor: float
) -> None:
    found = recommend(scan(spacing, name=name))
    assert found.plane == plane and found.factor == factor
    card = models.find_model(found.model).card
    assert found.model == model if model else card.plane == plane and not card.is_baseline
    assert models.coverage(card, scan(spacing).grid, name, None, None) == []
    assert f"{spacing[2]:g} mm apart" in found.why and ("no network covers" in found.why) == (found.model == "bspline")


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.5, 0.6), (0.9, 0.9, 1.3)])
def test_a_scan_that_is_fine_is_left_as_it_is(spacing: tuple[float, float, float]) -> None:
    found = recommend(scan(spacing, name="T1w"))
    assert found.factor == 1 and "fine as it is" in found.why
    with pytest.raises(UnsuitableVolume, match="fine as it is"):
        found.check()
    assert recommend(scan(spacing, name="T1w"), finer=True).factor >= 2
    for coarse in ((1.0, 1.0, 1.6), (1.25, 1.0, 1.3)):
        recommend(scan(coarse, name="T1w")).check()


def test_the_shell_makes_nothing_of_a_fine_scan_unless_a_size_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sub-01_PDw.nii.gz"
    write_volume(scan((1.0, 1.0, 1.0), (10, 11, 12), name="sub-01_PDw"), path)
    assert cli.main(["run", str(path), "--device", "cpu"]) == 3
    assert "choose a model and a factor yourself" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [path]
    assert cli.main(["run", str(path), "--device", "cpu", "--factor", "2"]) == 0
    assert read_volume(tmp_path / "sub-01_desc-sr_PDw.nii.gz").grid.spacing == pytest.approx((0.5, 0.5, 1.0))


def test_slices_with_gaps_get_a_model_that_knows_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two models alike, the better one is passed over where its card excludes slices so thin for their distance."""
    entry = models.find_model("rdst-e-through-x4")
    weights = models.load_network(entry, for_inference=False).state_dict()
    for name, covered, psnr in (("no-gaps", (0.9, 1.3), 40.0), ("gaps", (0.4, 1.3), 38.0)):
        score = models.Score("a", "through-plane", "through-gaussian, x4", psnr, 0.9, 0.01, {"bspline": (35.0, 0.9)})
        spacing = models.SpacingRange((0.6, 1.3), (2.0, 6.5), covered)
        fields = {**vars(entry.card), "id": name, "spacing": spacing, "metrics": (score,)}
        models.save_model(tmp_path / f"{name}.safetensors", models.ModelCard(**fields), weights)
    monkeypatch.setattr(models.registry, "default_folders", lambda: (tmp_path,))
    thick = scan((1.0, 1.0, 4.0))
    assert recommend(thick).model == "no-gaps"
    assert recommend(thick, thickness=2.0).model == "gaps"
    told = recommend(Volume(thick.array, thick.grid, "T2w", thickness=2.0))
    assert told.model == "gaps" and "2 mm thick" in told.why and "3.0 dB over bspline" in told.why


def test_a_guided_model_is_recommended_where_a_reference_is_at_hand() -> None:
    found = recommend(scan((1.0, 1.0, 4.0)), guided=True)
    assert found.task == "reference-guided" and models.find_model(found.model).card.task == "reference-guided"


def test_both_planes_are_refined_in_turn_for_cubes() -> None:
    found = recommend(scan((2.0, 2.0, 5.0)), to_iso=1.0)
    planes = [models.find_model(name).card.plane for name in (found.first, found.model)]
    assert planes == ["in-plane", "through-plane"] and "and then" in found.why
    alone = recommend(scan((0.8, 0.8, 5.0)), to_iso=1.0)
    assert alone.first == "" and models.find_model(alone.model).card.plane == "through-plane"
    assert refined_planes(scan((1.0, 1.0, 1.05)).grid, 1.0) == ()


@pytest.mark.parametrize("spacing", [(1.8, 1.7, 4.3), (0.7, 0.7, 3.1), (2.0, 2.0, 1.0)])
def test_cubes_are_exact_and_lie_where_the_scan_lies(spacing: tuple[float, float, float]) -> None:
    volume = scan(spacing)
    made = to_isotropic(volume, 1.0, "bspline", "bspline", options=Options(device="cpu"))
    assert made.grid.spacing == (1.0, 1.0, 1.0) and made.grid.same_as(isotropic_grid(volume.grid, 1.0))
    assert np.abs(made.grid.corners() - volume.grid.corners()).max() <= 0.5 * np.sqrt(3)
    fine = scan((1.0, 1.0, 1.0), made.grid.size)
    np.testing.assert_allclose(fine.grid.extent, made.grid.extent)

    def middle(of: Volume) -> np.ndarray:
        bright = np.argwhere(of.array > 300)[:, ::-1]
        return np.asarray(of.grid.index_to_world(bright).mean(0))

    assert np.linalg.norm(middle(made) - middle(volume)) < 0.35
    with pytest.raises(UnsuitableVolume, match="nothing to refine"):
        to_isotropic(made, 1.0, "bspline")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("sub-01/anat/sub-01_ses-2_T2w.nii.gz", "sub-01/anat/sub-01_ses-2_desc-sr_T2w.nii.gz"),
        ("head.nrrd", "head_desc-sr.nrrd"),
        ("my scan.mgz", "my scan_desc-sr.nii.gz"),
        ("ixi_002_T1.hdr", "ixi_002_T1_desc-sr.nii.gz"),
    ],
)
def test_a_result_without_a_name_lies_beside_its_input(path: str, expected: str) -> None:
    assert beside(path, "sr") == str(Path(expected))


def test_two_scans_of_one_name_get_results_of_two_names(tmp_path: Path) -> None:
    for name in ("scan.nii.gz", "scan.mgz", "scan.nrrd"):
        (tmp_path / name).touch()
    (tmp_path / "study").mkdir()
    named = [Path(beside(str(tmp_path / name), "sr")).name for name in ("scan.nii.gz", "scan.mgz", "scan.nrrd")]
    assert named == ["scan_desc-sr.nii.gz", "scan-mgz_desc-sr.nii.gz", "scan_desc-sr.nrrd"]
    series = [Path(beside(str(tmp_path / "study"), "sr", key)).name for key in ("", "3", "1.2.840")]
    assert series == ["study_desc-sr.nii.gz", "study_series-3_desc-sr.nii.gz", "study_series-12840_desc-sr.nii.gz"]


def test_a_scan_alone_is_enough_for_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sub-01_PDw.nii.gz"
    write_volume(scan((1.0, 1.0, 4.0), name="sub-01_PDw"), path)
    assert cli.main(["run", str(path), "--device", "cpu"]) == 0
    told = capsys.readouterr()
    made = read_volume(tmp_path / "sub-01_desc-sr_PDw.nii.gz")
    assert made.grid.spacing == pytest.approx((1.0, 1.0, 1.0)) and "no network covers" in told.err
    record = json.loads((tmp_path / "sub-01_desc-sr_PDw.json").read_text())
    assert record["parameters"]["factor"] == 4.0
    assert cli.main(["run", str(path), "-m", "linear", "--factor", "2", "-o", str(tmp_path / "own.nii.gz")]) == 0


def test_cubes_from_the_shell_name_both_models_in_the_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Networks in turn: T2w of 2 x 2 x 4 mm becomes exactly 1 mm."""
    path = tmp_path / "scan_T2w.nii.gz"
    write_volume(scan((2.0, 2.0, 4.1), (20, 22, 10), "scan_T2w"), path)
    assert cli.main(["run", str(path), "--to-iso", "1", "--device", "cpu", "--threads", "1"]) == 0
    out = tmp_path / "scan_T2w_desc-iso1mm.nii.gz"
    made = read_volume(out)
    assert made.grid.spacing == pytest.approx((1.0, 1.0, 1.0), abs=1e-6) and made.grid.size == (40, 44, 41)
    record = json.loads(out.with_name("scan_T2w_desc-iso1mm.json").read_text())
    planes = [models.find_model(record[key]["id"]).card.plane for key in ("super_resolved_with", "model")]
    assert planes == ["in-plane", "through-plane"]
    assert record["output"]["spacing"] == [1.0, 1.0, 1.0] and record["parameters"]["to_iso"] == 1.0
    assert "and then" in capsys.readouterr().err
    assert cli.main(["run", str(path), "--to-iso", "1", "--factor", "2"]) == 2
    assert cli.main(["run", str(path), "--to-iso", "1", "--consistency-map", str(tmp_path / "map.nii.gz")]) == 2


def test_cubes_are_reached_in_one_pass_where_a_model_can() -> None:
    """Slices of 5 mm to 1 mm are x5: the x8 model of the two that cover them, since x4 would take a second, longer pass."""
    five = scan((1.0, 1.0, 5.0))
    covering = [
        entry.card.factor
        for entry in models.list_models()
        if entry.card.task == "super-resolve" and entry.card.plane == "through-plane"
        and not models.coverage(entry.card, five.grid, "T2w")
    ]  # fmt: skip
    assert {4.0, 8.0} <= set(covering), "as shipped"
    assert models.find_model(recommend(five, to_iso=1.0).model).card.factor == 8
    assert models.find_model(recommend(scan((1.0, 1.0, 4.0)), to_iso=1.0).model).card.factor == 4
    assert models.find_model(recommend(five).model).card.factor == 4, "else the nearest factor, and that is made"
