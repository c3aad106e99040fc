"""Scores of translations: a better one scores better, and each number against its definition or an independent implementation."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_translators import TINY, card, head
from scipy import stats
from skimage.exposure import match_histograms
from torch import Tensor, nn

from MRSuperResLib import cli, models, networks
from MRSuperResLib.errors import UnsuitableVolume, UsageError
from MRSuperResLib.evaluation import metrics, translation
from MRSuperResLib.evaluation.calibration import Voxels, calibrate
from MRSuperResLib.evaluation.tables import COLUMNS, translation_json, translation_table
from MRSuperResLib.evaluation.translation import (
    COHERENCE_SMOOTHING,
    Evaluation,
    coherence,
    evaluate,
    histogram_matched,
    publish,
)
from MRSuperResLib.inference import Options
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.models import ModelEntry, Requirements
from MRSuperResLib.volume import Volume

CPU = Options(device="cpu")


class Negative(nn.Module):
    """Turns the head dark to bright, right but for an error that z explains: sure in the left half, unsure in the right."""

    contrasts = ("T1w", "T2w", "FLAIR")

    def __init__(self, unsure: float = 0.05) -> None:
        super().__init__()
        self.unsure = unsure

    def forward(self, x: Tensor, z: Tensor, source: int, target: int) -> Tensor:
        answer = torch.where(x > 0.1, (1.4 - x).clamp(max=1), x)
        if not z.shape[1]:
            return answer
        places = torch.linspace(-1, 1, x.shape[-1]).view(1, 1, 1, -1)
        pattern = torch.sin(3 * z[:, :1, None, None] + 40 * places + 11 * x)
        answer = answer + self.unsure * (places > 0) * pattern * (x > 0.1)
        return answer.clamp(max=1)


def pair(name: str = "a", seed: int = 0) -> tuple[Volume, Volume]:
    """A T1w and the T2w that `Negative` aims at, in other units and with noise that is stronger in the right half."""
    source = head((40, 36, 8), name=f"{name}_T1w")
    low, high = np.percentile(source.array, (0.1, 99.9))
    unit = (source.array - low) / (high - low)
    truth = np.where(unit > 0.1, np.minimum(1.4 - unit, 1), unit)
    noise = np.random.default_rng(seed).standard_normal(unit.shape)
    truth = truth + noise * np.where(np.linspace(-1, 1, 40) > 0, 0.05, 0.005) * (unit > 0.1)
    truth = np.minimum(truth, 1)  # often reached, so that 1 is the robust end of the truth's own scale
    return source, dataclasses.replace(source, array=(900 * truth - 50).astype(np.float32), name=f"{name}_T2w")


def entry(name: str = "sampled", latent: int = 8) -> ModelEntry:
    return ModelEntry(card(id=name, requirements=Requirements(smallest=1, halo=8, latent=latent)), None, "0" * 64)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are `Negative`, not random weights."""
    monkeypatch.setattr(models, "kept_network", lambda entry: Negative())


@pytest.fixture(scope="module")
def scored() -> Evaluation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "kept_network", lambda entry: Negative())
        return evaluate(*pair(), entry(), regressor=entry("plain", 0), samples=12, options=CPU)


# what is scored


def test_a_right_translation_beats_copying_and_matching_and_a_plain_regressor_is_shown_beside(
    scored: Evaluation,
) -> None:
    found = {row.answer: row.metrics for row in scored.rows}
    assert list(found) == ["mean", "one sample", "z = 0", "input", "matched input", "regressor"]
    assert found["mean"]["psnr"] > found["matched input"]["psnr"] + 3 > found["input"]["psnr"] + 3
    assert found["mean"]["psnr"] > found["one sample"]["psnr"], "a mean of samples is nearer the truth than one of them"
    assert found["mean"]["nmse"] < found["input"]["nmse"] and found["mean"]["ssim"] > found["input"]["ssim"]
    assert (scored.scan, scored.source, scored.target) == ("a_T2w", "T1w", "T2w"), "read from the names"
    assert scored.slices == 8 and scored.samples == 12


def test_scores_do_not_depend_on_the_units_of_either_scan(known: None, scored: Evaluation) -> None:
    source, truth = pair()
    source = dataclasses.replace(source, array=7 * source.array + 300)
    truth = dataclasses.replace(truth, array=truth.array / 20 - 4)
    again = evaluate(source, truth, entry(), samples=12, options=CPU)
    for one, other in zip(again.rows, scored.rows, strict=False):
        assert one.metrics["psnr"] == pytest.approx(other.metrics["psnr"], abs=0.01), one.answer


def test_the_box_of_the_head_is_scored_on_the_truths_unit_scale(scored: Evaluation) -> None:
    """The copy's PSNR from its definition: both on their own 0.1 to 99.9 percentiles."""
    source, truth = pair()
    ours, real = (
        (v.array - np.percentile(v.array, 0.1)) / np.ptp(np.percentile(v.array, (0.1, 99.9))) for v in (source, truth)
    )
    box = metrics.head_box(real)
    expected = -10 * np.log10(np.mean((ours[box] - real[box]) ** 2))
    row, matched = scored.row("input"), scored.row("matched input")
    assert row is not None and row.metrics["psnr"] == pytest.approx(expected, abs=0.01)
    expected = -10 * np.log10(np.mean((match_histograms(ours[box], real[box]) - real[box]) ** 2))
    assert matched is not None and matched.metrics["psnr"] == pytest.approx(expected, abs=0.01)


def test_a_few_slices_in_the_middle_are_answered_as_in_the_whole_volume(known: None) -> None:
    source, truth = pair()
    found = evaluate(source, truth, entry("plain", 0), slices=4, options=CPU)
    assert found.slices == 4 and found.samples == 1 and found.calibration is None
    low, high = np.percentile(truth.array, (0.1, 99.9))
    real = ((truth.array - low) / (high - low))[2:6]
    expected = metrics.summary(_negative(source)[2:6], real, axis=0)
    assert found.rows[0].metrics["psnr"] == pytest.approx(expected["psnr"], abs=0.01)
    with pytest.raises(UsageError, match="at least 2"):
        evaluate(source, truth, entry(), slices=1, options=CPU)


def _negative(source: Volume) -> np.ndarray:
    low, high = np.percentile(source.array, (0.1, 99.9))
    unit = (source.array - low) / (high - low)
    return np.where(unit > 0.1, np.minimum(1.4 - unit, 1), unit).astype(np.float32)


def test_a_truth_on_another_grid_is_resampled_and_said_and_one_elsewhere_refused(known: None) -> None:
    source, truth = pair()
    plain = evaluate(source, truth, entry("plain", 0), options=CPU)
    larger = Volume(np.pad(truth.array, 3, mode="edge"), truth.grid.crop((-3, -3, -3), (46, 42, 14)), truth.name)
    said: list[str] = []
    found = evaluate(source, larger, entry("plain", 0), options=CPU, report=said.append)
    assert any("resampled" in line for line in said)
    assert found.rows[0].metrics["psnr"] == pytest.approx(plain.rows[0].metrics["psnr"], abs=0.3)
    far = dataclasses.replace(truth, grid=dataclasses.replace(truth.grid, origin=(900.0, 0.0, 0.0)))
    with pytest.raises(UnsuitableVolume, match="does not lie where") as refused:
        evaluate(source, far, entry(), options=CPU)
    assert refused.value.code == "truth-elsewhere"


# each number


def test_histogram_matching_is_skimages() -> None:
    rng = np.random.default_rng(0)
    values, truth = rng.gamma(2, 10, (7, 20, 20)).astype(np.float32), rng.normal(5, 2, (7, 20, 20)).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = 0  # air: many equal values
    np.testing.assert_allclose(histogram_matched(values, truth), match_histograms(values, truth), atol=1e-4)
    box = (slice(1, 5), slice(3, 17), slice(2, 20))
    np.testing.assert_allclose(
        histogram_matched(values, truth, box)[box], match_histograms(values[box], truth[box]), atol=1e-4
    )


def test_coherence_is_one_for_the_truth_and_counts_how_much_more_slices_differ() -> None:
    truth = pair()[1].array
    assert coherence(truth, truth) == 1.0
    assert coherence(2 * truth + 5, truth) == pytest.approx(2.0, rel=1e-4)
    flicker = truth + 300 * (np.arange(len(truth)) % 2)[:, None, None]
    assert coherence(flicker.astype(np.float32), truth) > 1.5
    still = np.broadcast_to(truth[4], truth.shape)
    assert coherence(still, truth) == 0.0


def test_smoothed_coherence_is_blind_to_noise_and_not_to_slices_that_flicker() -> None:
    """A denoised answer is not taken for one that is too smooth across slices, nor flicker for noise."""
    rng = np.random.default_rng(0)
    places = np.linspace(-1, 1, 64)
    inside = (places[:, None] ** 2 + places**2 < 0.8)[None]
    clean = inside * (500 + 150 * np.sin(np.arange(12) / 2)[:, None, None])
    truth = clean + rng.normal(0, 50, clean.shape)
    assert coherence(clean, truth) < 0.5
    assert coherence(clean, truth, COHERENCE_SMOOTHING) == pytest.approx(1.0, abs=0.15)
    flicker = clean + 40 * inside * (np.arange(12) % 2)[:, None, None]
    assert coherence(flicker, truth) < 0.8, "lost in the truth's noise"
    assert coherence(flicker, truth, COHERENCE_SMOOTHING) > coherence(clean, truth, COHERENCE_SMOOTHING) + 0.2


def test_both_coherences_of_each_answer_are_in_its_row(known: None) -> None:
    source, truth = pair()
    found = evaluate(source, truth, entry("plain", 0), options=CPU).row("input")
    ours, real = (
        (v.array - np.percentile(v.array, 0.1)) / np.ptp(np.percentile(v.array, (0.1, 99.9))) for v in (source, truth)
    )
    assert found is not None and found.coherence == pytest.approx(coherence(ours, real), rel=1e-4)
    assert found.coherence_smooth == pytest.approx(coherence(ours, real, 2.0), rel=1e-4)
    assert found.coherence_smooth != found.coherence


def test_the_calibration_recovers_a_known_factor_and_its_curve_is_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    deviation = rng.uniform(0.01, 0.1, 40_000)
    error = np.abs(rng.normal(0, 3 * deviation))

    def voxels(deviation: np.ndarray, error: np.ndarray) -> Voxels:
        return Voxels(deviation, error, np.ones(deviation.size, bool))

    made = calibrate([voxels(deviation[:10_000], error[:10_000]), voxels(deviation[10_000:], error[10_000:])])
    assert made.scale == pytest.approx(3.0, rel=0.02)
    said, was = np.asarray(made.curve).T
    np.testing.assert_allclose(said, was, rtol=0.06)
    assert np.all(np.diff(said) > 0) and made.gap < 0.03
    assert made.spearman == pytest.approx(stats.spearmanr(deviation, error).statistic)
    assert calibrate([voxels(deviation, rng.permutation(error))]).spearman == pytest.approx(0, abs=0.02)
    assert calibrate([voxels(deviation, rng.permutation(error))]).gap > 0.2
    with pytest.raises(UnsuitableVolume, match="do not differ"):
        calibrate([voxels(0 * deviation, error)])


def test_a_map_that_knows_where_it_errs_correlates_and_is_calibrated_inside_the_head(scored: Evaluation) -> None:
    assert scored.calibration is not None
    assert scored.calibration.spearman > 0.3
    head = scored.voxels.head
    deviation, error = scored.voxels.deviation[head], scored.voxels.error[head]
    assert error.size < pair()[0].array.size * 0.6, "air, where everything is right, is not counted"
    assert np.mean((scored.calibration.scale * deviation) ** 2) == pytest.approx(np.mean(error**2), rel=1e-3)


def test_the_maps_rank_correlation_is_told_in_the_head_and_in_its_box_with_the_air(scored: Evaluation) -> None:
    """Air is sure and right: in the whole box, which a reader looks at, the map ranks better than in the head alone."""
    found, voxels = scored.calibration, scored.voxels
    assert found is not None and voxels.head.size == pair()[1].array[metrics.head_box(pair()[1].array)].size
    for told, where in ((found.spearman, voxels.head), (found.spearman_box, slice(None))):
        assert told == pytest.approx(stats.spearmanr(voxels.deviation[where], voxels.error[where]).statistic, abs=1e-6)
    assert found.spearman_box > found.spearman + 0.05
    rng = np.random.default_rng(0)
    other = Voxels(*rng.uniform(0.01, 0.1, (2, 3_000)), rng.random(3_000) < 0.5)
    pooled = calibrate([voxels, other])
    both = [np.concatenate(each) for each in zip(vars(voxels).values(), vars(other).values(), strict=True)]
    assert pooled.spearman_box == pytest.approx(stats.spearmanr(both[0], both[1]).statistic, abs=1e-6)
    inside = [values[both[2]] for values in both]
    assert pooled.spearman == pytest.approx(stats.spearmanr(inside[0], inside[1]).statistic, abs=1e-6)
    assert pooled.scale == pytest.approx(np.sqrt(np.mean(inside[1] ** 2) / np.mean(inside[0] ** 2)), rel=1e-4)


def test_diversity_is_the_mean_of_four_consecutive_pairs_of_five_samples(known: None) -> None:
    """Appendix C: whatever N is asked for; realism is the mean distance to the truth."""
    seen: list[tuple[int, int]] = []
    stacks: dict[bytes, int] = {}

    def number(stack: np.ndarray) -> int:
        return stacks.setdefault(stack.tobytes(), len(stacks))

    def apart(a: np.ndarray, b: np.ndarray) -> float:
        seen.append((number(a), number(b)))
        return float(len(seen))

    found = evaluate(*pair(), entry(), samples=2, distances={"told": apart}, options=CPU)
    truth = seen[0][1]
    samples = [one for one, _ in seen[:5]]
    assert [other for _, other in seen[:5]] == [truth] * 5 and len(set(samples)) == 5
    assert seen[5:] == list(pairwise(samples)) and len(seen) == 9
    assert found.realism["told"] == pytest.approx(3.0) and found.diversity["told"] == pytest.approx(7.5)
    assert found.diversity["L1"] > 0 and found.samples == 2


# tables, cards, the command


def test_the_table_and_the_json_tell_every_answer_and_the_pooled_calibration(known: None, scored: Evaluation) -> None:
    second = evaluate(*pair("b", 1), entry(), regressor=entry("plain", 0), samples=12, options=CPU)
    text, _, explained = translation_table([scored, second]).partition("\nanswer: ")
    assert "mean over 2 scans" in text and text.count("matched input") == 4 and "T1w to T2w" in text
    gains = [found.rows[0].metrics["psnr"] - found.rows[3].metrics["psnr"] for found in (scored, second)]
    assert f"{np.mean(gains):+.2f} dB over the input (least {min(gains):+.2f})" in text
    document = json.loads(translation_json([scored, second]))
    assert [case["scan"] for case in document["evaluations"]] == ["a_T2w", "b_T2w"]
    assert "voxels" not in document["evaluations"][0]
    assert document["evaluations"][0]["rows"][0]["coherence_smooth"] == scored.rows[0].coherence_smooth
    pooled = document["calibration"]["sampled"]
    voxels = [found.voxels for found in (scored, second)]
    error, deviation = (np.concatenate([getattr(v, name)[v.head] for v in voxels]) for name in ("error", "deviation"))
    assert pooled["scale"] == pytest.approx(np.sqrt(np.mean(error**2) / np.mean(deviation**2)), rel=1e-4)
    ranks = f"Spearman {pooled['spearman']:.3f} in the head, {pooled['spearman_box']:.3f} in its box, scale "
    assert f"  uncertainty: {ranks}{pooled['scale']:.3f}, gap {100 * pooled['gap']:.0f} %" in text
    lines = text.splitlines()
    assert lines[0].split()[-2:] == ["coherence", "smoothed"]
    row = scored.rows[0]
    assert lines[1].split()[-2:] == [f"{row.coherence:.3f}", f"{row.coherence_smooth:.3f}"]
    named = [column.split()[-1] for column in COLUMNS if column not in ("scan", "model", "direction", "answer")]
    assert [name for name in named if name not in explained] == [], (
        "every column of scores is explained below the table"
    )
    assert translation_table([]) == "nothing was scored"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The real network of random weights."""
    torch.manual_seed(3)
    network = networks.build("translation", TINY)
    for name, parameter in network.named_parameters():
        if "shift" in name:
            nn.init.normal_(parameter, std=0.5)
    path = tmp_path / "tiny-mt.safetensors"
    models.save_model(path, card(), network.state_dict())
    return path


def test_a_published_card_holds_the_scores_and_the_calibration_that_the_map_then_uses(
    tiny: Path, tmp_path: Path
) -> None:
    entry = models.read_entry(tiny)
    found = evaluate(*pair(), entry, samples=3, options=CPU)
    assert found.calibration is not None
    made = publish([found], entry, tmp_path / "published.safetensors")
    assert made.card.requirements.uncertainty_scale == pytest.approx(found.calibration.scale, abs=1e-4)
    score = made.card.metrics[0]
    assert (score.scan, score.degradation) == ("a_T2w", "T1w to T2w") and set(score.baseline) == {
        "input",
        "matched input",
    }
    assert score.psnr == pytest.approx(found.rows[0].metrics["psnr"], abs=1e-3)
    models.verify(made)
    single = evaluate(*pair(), made, samples=1, options=CPU)
    again = publish([single], made, tmp_path / "again.safetensors")
    assert again.card.requirements == made.card.requirements, "one sample tells nothing of the uncertainty"
    with pytest.raises(UsageError, match="was not scored"):
        publish([], entry, tmp_path / "none.safetensors")


def test_the_command_scores_pairs_and_publishes(tiny: Path, tmp_path: Path, capsys: Any) -> None:
    paths = []
    for volume in (*pair("a"), *pair("b", 1)):
        paths.append(str(tmp_path / f"{volume.name}.nii.gz"))
        write_volume(volume, paths[-1])
    command = ["evaluate-translation", *paths, "-m", str(tiny), "--samples", "2", "--slices", "4", "--device", "cpu"]
    assert (
        cli.main(
            [*command, "--from", "T1w", "--to", "T2w", "--regressor", str(tiny), "--publish", str(tmp_path / "out")]
        )
        == 0
    )
    text = capsys.readouterr().out
    assert "mean over 2 scans" in text and "dB over the regressor" in text and "Spearman" in text
    assert "tissue features: realism" in text
    published = models.read_entry(tmp_path / "out" / "tiny-mt.safetensors")
    assert published.card.requirements.uncertainty_scale is not None and len(published.card.metrics) == 2

    assert cli.main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [case["slices"] for case in document["evaluations"]] == [4, 4] and "tiny-mt" in document["calibration"]

    assert cli.main(["evaluate-translation", *paths[:3], "-m", str(tiny)]) == 2
    assert "give pairs" in capsys.readouterr().err
    assert cli.main([*command, "--lpips", str(tmp_path / "none"), "--lpips-digest", "0"]) == 7
    assert cli.main([*command, "--seed", "-1"]) == 2
    assert "seed is -1" in capsys.readouterr().err


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """A pair in files."""
    for volume in pair():
        write_volume(volume, tmp_path / f"{volume.name}.nii.gz")
    return [str(tmp_path / f"a_{contrast}.nii.gz") for contrast in ("T1w", "T2w")]


def test_what_was_scored_is_printed_even_if_the_next_scan_fails_and_nothing_is_published(
    tiny: Path, paths: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "missing_T1w.nii.gz")
    command = ["evaluate-translation", *paths, missing, paths[1], "-m", str(tiny), "--samples", "2", "--device", "cpu"]
    assert cli.main([*command, "--slices", "4", "--publish", str(tmp_path / "new" / "models")]) == 3
    output, errors = capsys.readouterr()
    assert "mean over 1 scans" in output and "missing_T1w.nii.gz does not exist" in errors.splitlines()[-1]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("models_given", "complaint"),
    [
        (["-m", "{tiny},nothing"], "no model is called 'nothing'"),
        (["-m", "{tiny},linear"], "'linear' does not translate"),
        (["-m", "{tiny}", "--regressor", "linear"], "'linear' does not translate"),
    ],
)
def test_a_model_that_cannot_be_scored_is_told_before_the_scoring(
    models_given: list[str],
    complaint: str,
    tiny: Path,
    paths: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(translation, "evaluate", lambda *given, **more: pytest.fail("scored for nothing"))
    assert cli.main(["evaluate-translation", *paths, *(text.format(tiny=tiny) for text in models_given)]) == 4
    assert complaint in capsys.readouterr().err


def test_a_folder_that_cannot_be_published_to_is_told_before_the_scoring(
    tiny: Path, paths: list[str], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translation, "evaluate", lambda *given, **more: pytest.fail("scored for nothing"))
    (tmp_path / "file").write_text("")
    command = ["evaluate-translation", *paths, "-m", str(tiny), "--publish", str(tmp_path / "file" / "models")]
    assert cli.main(command) == 5
    assert "cannot be made" in capsys.readouterr().err


def test_the_module_loads_no_torch() -> None:
    code = "import sys, MRSuperResLib.evaluation.translation; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1]
    )
    assert done.stdout.strip() == "False", done.stderr


def test_a_real_pair_scores_its_copies_as_by_hand(data_folder: Path, known: None) -> None:
    """Held-out T1w and T2w through the whole procedure; the baselines once more by percentiles and scikit-image."""
    folder = data_folder / "val" / "multicontrast"
    volumes = [read_volume(folder / f"openmslong-04-1_{name}.nii.gz") for name in ("T1w", "T2w")]
    found = evaluate(*volumes, entry("plain", 0), slices=4, options=CPU)
    ends = [np.percentile(volume.array, (0.1, 99.9)) for volume in volumes]
    inside = [n for n in range(volumes[1].grid.size[2]) if (volumes[1].array[n] > ends[1] @ (0.9, 0.1)).any()]
    first = (inside[0] + inside[-1] + 1 - 4) // 2
    copied, real = (
        ((v.array - low) / (high - low))[first : first + 4] for v, (low, high) in zip(volumes, ends, strict=True)
    )
    box = metrics.head_box(real)
    for name, answer in (("input", copied[box]), ("matched input", match_histograms(copied[box], real[box]))):
        row = found.row(name)
        assert row is not None
        assert row.metrics["psnr"] == pytest.approx(metrics.psnr(answer, real[box], metrics.data_range(real)), abs=0.01)
