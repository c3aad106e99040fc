"""`evaluate`: the degraded scan covers the truth exactly, and scores tell a better answer from a worse one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from MRSuperResLib import evaluation, networks
from MRSuperResLib.errors import MissingRequirement, OutputError, UnsuitableVolume, UsageError
from MRSuperResLib.evaluation import metrics
from MRSuperResLib.grid import Grid
from MRSuperResLib.models import ModelCard, load_network, read_entry, save_model, scores
from MRSuperResLib.resample import resample
from MRSuperResLib.volume import Volume


@pytest.fixture(scope="module")
def truth() -> Volume:
    """A textured ball in air, 1 mm, oblique."""
    grid = Grid((37, 34, 31), (1.0, 1.0, 1.0), (5.0, 6.0, 7.0), (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0))
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    ball = ((k - 15) / 13) ** 2 + ((j - 17) / 14) ** 2 + ((i - 18) / 15) ** 2 < 1
    array = ball * (500 + 200 * np.sin(k / 2.2) + 150 * np.cos(j / 2.5) * np.sin(i / 2.9))
    return Volume(array.astype(np.float32), grid, "ball")


@pytest.mark.parametrize(
    ("plane", "factor", "low"),
    [("in-plane", 4, (9, 8, 31)), ("through-plane", 4, (37, 34, 7)), ("through-plane", 1.5, (37, 34, 20))],
)
def test_the_coarse_scan_covers_the_truth_edge_to_edge(
    truth: Volume, plane: str, factor: float, low: tuple[int, int, int]
) -> None:
    pair = evaluation.degraded_pair(truth, plane, factor)
    assert pair.low.grid.size == low and pair.axis == 2
    np.testing.assert_allclose(pair.low.grid.corners(), pair.truth.grid.corners(), atol=1e-4)
    ratio = np.array(pair.low.grid.spacing) / pair.truth.grid.spacing
    expected = [factor, factor, 1] if plane == "in-plane" else [1, 1, factor]
    np.testing.assert_allclose(ratio, expected, rtol=1e-6)
    first = pair.truth.grid.world_to_index(truth.grid.index_to_world(np.zeros((1, 3))))[0]
    np.testing.assert_allclose(first, np.rint(first), atol=1e-4)  # trimmed by whole voxels


def test_few_slices_are_taken_from_the_middle_of_the_head(truth: Volume) -> None:
    pair = evaluation.degraded_pair(truth, "in-plane", 2, slices=5)
    assert pair.truth.grid.size[2] == 5
    centre = truth.grid.world_to_index(pair.truth.grid.corners().mean(0)[None])[0]
    assert abs(centre[2] - 15) < 1.5


def test_spline_beats_linear_and_the_table_tells(truth: Volume, tmp_path: Path) -> None:
    pair = evaluation.degraded_pair(truth, "through-plane", 2)
    said: list[str] = []
    rows, answers = evaluation.evaluate(pair, ["linear", "bspline", "lanczos"], report=said.append)
    scores = {row.model: row.metrics["psnr"] for row in rows}
    assert scores["bspline"] > scores["linear"] > 10 and len(said) == 3
    assert list(evaluation.gains(rows, "linear", "bspline").values()) == [
        pytest.approx(scores["linear"] - scores["bspline"])
    ]
    text = evaluation.table(rows)
    assert "bspline" in text and f"{scores['bspline']:.2f}" in text and "mean over 1 scans" in text
    assert json.loads(evaluation.to_json(rows))[1]["metrics"]["psnr"] == pytest.approx(scores["bspline"])
    evaluation.figure(tmp_path / "figure.png", pair, answers)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OutputError):
        evaluation.figure(tmp_path / "missing" / "figure.png", pair, answers)


def test_scans_of_one_file_name_keep_their_own_scores(truth: Volume, tmp_path: Path) -> None:
    paths = [tmp_path / place / "T1w.nii.gz" for place in ("a", "b", "b")] + [tmp_path / "c" / "T2w.nrrd"]
    names = evaluation.scan_names(paths)
    assert names == ["a_T1w", "b_T1w", "b_T1w-2", "T2w"]
    rows = []
    for number, name in enumerate(names):
        scan = Volume(truth.array ** (1 + 0.2 * number), truth.grid, name)
        rows += evaluation.evaluate(evaluation.degraded_pair(scan, "through-plane", 2), ["linear", "bspline"])[0]
    gains = evaluation.gains(rows, "linear", "bspline")
    expected = [rows[2 * n].metrics["psnr"] - rows[2 * n + 1].metrics["psnr"] for n in range(4)]
    assert list(gains.values()) == expected and list(gains) == names
    assert "mean over 4 scans" in evaluation.table(rows)


def test_names_made_different_never_meet_another_scans(tmp_path: Path) -> None:
    paths = ["x/T1w.nii", "x/T1w.nrrd", "x/x_T1w-2.nii", "x_T1w.nii", "scan.nii.gz"]
    names = evaluation.scan_names(paths)
    assert len(set(names)) == 5 and names[-1] == "scan"


def test_a_figure_that_cannot_be_drawn_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation.check_figure(tmp_path / "gain.png")
    for path in (tmp_path / "missing" / "gain.png", tmp_path / "gain.docx", tmp_path / "gain", tmp_path):
        with pytest.raises(OutputError):
            evaluation.check_figure(path)
    monkeypatch.setattr(evaluation.figures.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingRequirement, match="matplotlib"):
        evaluation.check_figure(tmp_path / "gain.png")
    assert list(tmp_path.iterdir()) == []


def test_a_figure_that_fails_leaves_the_old_one_and_nothing_else(
    truth: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    def full(self: Figure, place: Path, **_: object) -> None:
        Path(place).write_bytes(b"half a pict")
        raise OSError(28, "No space left on device")

    pair = evaluation.degraded_pair(truth, "through-plane", 2)
    (tmp_path / "gain.png").write_bytes(b"the old one, by MRSuperRes")
    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OutputError, match="No space left"):
        evaluation.figure(tmp_path / "gain.png", pair, {"answer": pair.truth})
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"the old one, by MRSuperRes"]


def test_published_cards_print_the_scores_beside_the_baselines(truth: Volume, tmp_path: Path) -> None:
    network = networks.build("rdst", {"blocks": 1, "width": 12, "growth": 6, "factors": [2, 1], "skip": "bicubic"})
    card = ModelCard.from_json(
        {
            "id": "tiny", "title": "Tiny", "version": "1", "architecture": "rdst", "task": "super-resolve", "licence": "Apache-2.0",
            "hyperparameters": {"blocks": 1, "width": 12, "growth": 6, "factors": [2, 1], "skip": "bicubic"},
            "plane": "through-plane", "factors": [2, 1], "contrasts": ["any"], "spacing": None, "intended_use": "Tests.",
        }
    )  # fmt: skip
    entry = save_model(tmp_path / "tiny.safetensors", card, network.state_dict())
    pair = evaluation.degraded_pair(truth, "through-plane", 2, slices=6)
    rows, _ = evaluation.evaluate(pair, ["bspline", entry])
    published = evaluation.publish(rows, entry, tmp_path / "scored.safetensors")
    (score,) = read_entry(tmp_path / "scored.safetensors").card.metrics
    assert (
        score.psnr == pytest.approx(rows[1].metrics["psnr"], abs=1e-3)
        and score.degradation == "through-gaussian, 6 middle slices, x2"
    )
    assert score.baseline["bspline"][0] == pytest.approx(rows[0].metrics["psnr"], abs=1e-3)
    for name, value in load_network(published).state_dict().items():
        assert np.array_equal(value, load_network(entry).state_dict()[name])
    with pytest.raises(UsageError, match="not scored"):
        evaluation.publish(rows[:1], entry, tmp_path / "nothing.safetensors")


def test_the_truth_itself_scores_perfectly_and_a_shift_costs(truth: Volume) -> None:
    pair = evaluation.degraded_pair(truth, "in-plane", 2)
    assert evaluation.score(pair, pair.truth, "truth").metrics["psnr"] == metrics.HIGHEST_PSNR
    shifted = Volume(np.roll(pair.truth.array, 1, axis=2), pair.truth.grid)
    assert evaluation.score(pair, shifted, "shifted").metrics["psnr"] < 30
    with pytest.raises(UnsuitableVolume, match="another grid"):
        evaluation.score(pair, pair.low, "low")


def test_nonsense_is_refused(truth: Volume) -> None:
    with pytest.raises(UsageError, match="diagonal"):
        evaluation.degraded_pair(truth, "diagonal", 2)
    with pytest.raises(UsageError, match="more than 1"):
        evaluation.degraded_pair(truth, "in-plane", 1)
    for factor in (float("nan"), float("inf"), -2.0):
        with pytest.raises(UsageError, match="more than 1"):
            evaluation.degraded_pair(truth, "through-plane", factor)
    for wrong in ({"seed": -1}, {"slices": 0}, {"slices": -3}, {"slices": 1}, {"slice_axis": 3}, {"slice_axis": -1}):
        with pytest.raises(UsageError, match="expected"):
            evaluation.degraded_pair(truth, "in-plane", 2, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UnsuitableVolume, match="too few"):
        evaluation.degraded_pair(truth, "through-plane", 20)
    assert evaluation.table([]) == "nothing was scored"
    assert evaluation.with_baselines(["rdst-e", "linear"]) == [
        "linear",
        "bspline",
        "lanczos",
        "bicubic",
        "zerofill",
        "rdst-e",
    ]


def test_degradations_are_told_apart_and_the_worst_scan_is_named(truth: Volume) -> None:
    """Under a k-space crop gains are told over zero-filling, and both degradations have their own means."""
    other = Volume(truth.array**1.3, truth.grid, "other")
    rows = []
    for scan in (truth, other):
        for way in ("kspace", "bicubic"):
            pair = evaluation.degraded_pair(scan, "in-plane", 2, way)
            rows += evaluation.evaluate(pair, ["zerofill", "bspline"])[0]
            better = pair.truth.array + 0.5 * (resample(pair.low, pair.truth.grid, "bspline").array - pair.truth.array)
            rows.append(evaluation.score(pair, Volume(better, pair.truth.grid), "half"))
    text = evaluation.table(rows)
    for way, baseline in (("kspace", "zerofill"), ("bicubic", "bspline")):
        own = [row for row in rows if row.degradation == way]
        found = evaluation.gains(own, "half", baseline)
        worst = min(found, key=lambda scan: found[scan])
        assert list(found) == ["ball", "other"] and f"in-plane, {way}, x2" in text
        told = f"{np.mean(list(found.values())):+.2f} dB over {baseline}"
        inside = np.mean(list(evaluation.gains(own, "half", baseline, "psnr_brain").values()))
        assert f"{told}, brain {inside:+.2f} (worst scan {worst}: {found[worst]:+.2f})" in text
    assert "over zerofill" not in text[text.index("in-plane, bicubic") :]


def test_slices_thinner_than_their_distance_are_sharper(truth: Volume) -> None:
    """2 mm slices 4 mm apart leave gaps: each holds the mean of less tissue, so it differs more from its neighbours."""
    thick, thin = (evaluation.degraded_pair(truth, "through-plane", 4, "through-box", thickness=t) for t in (4, 2))
    assert (thick.low.thickness, thin.low.thickness) == (4.0, 2.0)
    assert thin.degradation == "through-box, 2 mm thick" and thin.low.grid.same_as(thick.low.grid)
    np.testing.assert_allclose(thin.low.array[0], thin.truth.array[1:3].mean(0), atol=1e-3)
    np.testing.assert_allclose(thick.low.array[0], thick.truth.array[0:4].mean(0), atol=1e-3)
    with pytest.raises(UsageError, match="in-plane"):
        evaluation.degraded_pair(truth, "in-plane", 2, thickness=2.0)


def test_scores_of_another_degradation_stay_in_the_card(truth: Volume, tmp_path: Path) -> None:
    hyper = {"blocks": 1, "width": 12, "growth": 6, "factors": [2, 2], "skip": "bicubic"}
    card = ModelCard.from_json(
        {
            "id": "tiny", "title": "Tiny", "version": "1", "architecture": "rdst", "task": "super-resolve", "licence": "Apache-2.0",
            "hyperparameters": hyper, "plane": "in-plane", "factors": [2, 2], "contrasts": ["any"], "spacing": None,
            "intended_use": "Tests.",
        }
    )  # fmt: skip
    entry = save_model(tmp_path / "tiny.safetensors", card, networks.build("rdst", hyper).state_dict())
    for way in ("kspace", "bicubic", "kspace"):
        pair = evaluation.degraded_pair(truth, "in-plane", 2, way, slices=4)
        rows, _ = evaluation.evaluate(pair, ["bspline", "zerofill", entry])
        entry = evaluation.publish(rows, entry, tmp_path / "tiny.safetensors")
    names = [score.degradation for score in entry.card.metrics]
    assert names == ["bicubic, 4 middle slices, x2", "kspace, 4 middle slices, x2"]
    last = scores.gains(entry.card)[-1]
    assert (last.baseline, last.worst, last.scans) == ("zerofill", "ball", 1)
    by_model = {row.model: row.metrics for row in rows}
    assert last.mean == last.least == pytest.approx(by_model["tiny"]["psnr"] - by_model["zerofill"]["psnr"], abs=2e-3)
    assert last.brain == pytest.approx(by_model["tiny"]["psnr_brain"] - by_model["zerofill"]["psnr_brain"], abs=2e-3)
