"""Translation of a volume: several answers, each a coherent volume, their mean and spread, and what is said of bad input."""

from __future__ import annotations

import dataclasses
import tracemalloc
from typing import Any

import numpy as np
import pytest
from made_translators import CPU, OBLIQUE, Known, card, entry, head, run, tiny_translator

from MRSuperResLib.contrasts import guess_contrast
from MRSuperResLib.errors import Cancelled, DeviceError, ModelError, UsageError
from MRSuperResLib.grid import Grid
from MRSuperResLib.inference import Options, estimate, plan_translation, planning
from MRSuperResLib.inference.sampling import MOST_SAMPLES
from MRSuperResLib.models import ModelCard, ModelEntry, Requirements
from MRSuperResLib.volume import Volume


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelEntry:
    """A package of `tiny_translator`."""
    return tiny_translator(tmp_path_factory.mktemp("models"))


# the answers


def test_the_answer_is_the_mean_of_the_samples_and_the_map_their_spread(tiny: ModelEntry) -> None:
    """Against numpy's own mean and standard deviation of the samples, calibration included."""
    calibrated = dataclasses.replace(tiny.card.requirements, uncertainty_scale=2.5)
    model = dataclasses.replace(tiny, card=dataclasses.replace(tiny.card, requirements=calibrated))
    found = run(model=model, samples=7, seed=3, keep_samples=True)
    drawn = np.stack([sample.array for sample in found.samples]).astype(np.float64)
    assert len(drawn) == 7 and found.uncertainty is not None
    assert drawn.std(axis=0).max() > 1.0, "z moves the answer"
    np.testing.assert_allclose(found.mean.array, drawn.mean(axis=0), rtol=1e-5, atol=1e-3)
    flagged = found.flags.mask if found.flags else np.zeros(drawn.shape[1:], bool)  # wider there
    assert not flagged.all()
    wide = 2.5 * drawn.std(axis=0, ddof=1)
    np.testing.assert_allclose(found.uncertainty.array[~flagged], wide[~flagged], rtol=1e-3, atol=1e-2)
    assert found.report["samples"] == 7 and found.report["uncertainty_scale"] == 2.5


def test_the_same_seed_gives_the_same_bits_and_the_first_samples_agree_whatever_their_number(tiny: ModelEntry) -> None:
    first = run(model=tiny, samples=2, seed=5, keep_samples=True)
    for how in (CPU, dataclasses.replace(CPU, batch=4), dataclasses.replace(CPU, batch=3)):
        again = run(model=tiny, samples=4, seed=5, keep_samples=True, options=how)
        for one, other in zip(first.samples, again.samples, strict=False):
            np.testing.assert_array_equal(one.array, other.array)
    alone = run(model=tiny, samples=1, seed=5)
    np.testing.assert_array_equal(alone.mean.array, first.samples[0].array)
    assert alone.uncertainty is None and alone.samples == ()
    other = run(model=tiny, samples=1, seed=6)
    assert np.abs(other.mean.array - alone.mean.array).max() > 1.0


def test_all_slices_of_a_sample_share_one_z() -> None:
    """Otherwise neighbouring slices would look like different scans: here each sample is brighter by one number."""
    made = head()
    found = run(made, samples=5, keep_samples=True)
    shifts = np.stack([sample.array - made.array for sample in found.samples])
    assert np.ptp(shifts, axis=(1, 2, 3)).max() < 1e-2
    assert len({round(float(shift.mean()), 2) for shift in shifts}) == 5


@pytest.mark.parametrize(("axis", "shape"), [(0, (1, 1, 6, 26)), (1, (1, 1, 6, 22)), (2, (1, 1, 26, 22))])
def test_the_network_sees_whole_slices_across_the_axis_and_the_grid_and_units_stay(
    axis: int, shape: tuple[int, ...]
) -> None:
    made, network = head(), Known()
    plain = entry(requirements=Requirements(smallest=1, halo=2))
    found = run(made, plain, network=network, options=dataclasses.replace(CPU, slice_axis=axis))
    assert {seen for seen, _, _ in network.seen} == {shape}
    assert found.mean.grid.same_as(made.grid) and found.mean.name == "scan"
    assert found.mean.array.dtype == np.float32 and found.mean.array.flags.c_contiguous
    np.testing.assert_allclose(found.mean.array, made.array, atol=1e-2)
    assert found.uncertainty is None, "a model without a latent vector has one answer"


def test_the_network_is_told_from_what_to_what() -> None:
    network = Known()
    run(network=network, samples=1, target="FLAIR", options=dataclasses.replace(CPU, contrast="T2w"))
    assert {(source, target) for _, source, target in network.seen} == {(1, 2)}


def test_the_result_takes_the_robust_range_of_the_input_and_says_so() -> None:
    """Also of a scan whose air is far from 0, as CT-like offsets are."""
    made = head()
    shifted = Volume(made.array * 3 - 2000, made.grid)
    found = run(shifted, samples=2)
    low, high = np.percentile(shifted.array, (0.1, 99.9))
    assert found.report["robust_range"] == pytest.approx([low, high])
    plain = run(made, samples=2)
    np.testing.assert_allclose(found.mean.array, plain.mean.array * 3 - 2000, atol=0.1)
    assert found.uncertainty is not None and plain.uncertainty is not None
    np.testing.assert_allclose(found.uncertainty.array, plain.uncertainty.array * 3, rtol=1e-3, atol=0.1)
    assert found.uncertainty.array.min() >= 0


def test_many_samples_take_the_memory_of_two() -> None:
    made = head((64, 64, 20))

    def peak(samples: int) -> int:
        run(made, samples=2)
        tracemalloc.start()
        run(made, samples=samples)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(60) < 1.1 * peak(2)


def test_samples_that_would_not_fit_in_memory_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, network = head(), Known()
    monkeypatch.setattr("MRSuperResLib.inference.translation.available_memory", lambda: 20 * made.array.nbytes)
    assert len(run(made, samples=10, keep_samples=True).samples) == 10
    assert run(made, samples=20).samples == ()
    with pytest.raises(DeviceError, match="ask for fewer samples") as refused:
        run(made, samples=20, keep_samples=True, network=network)
    assert refused.value.code == "memory" and network.seen == []


def test_progress_counts_the_voxels_of_all_samples_and_cancelling_stops_between_them() -> None:
    told: list[tuple[str, int, int]] = []
    run(samples=3, progress=lambda stage, done, total, left: told.append((stage, done, total)))
    voxels = told[0][2]
    assert told[0] == ("translating", 0, voxels) and told[-1] == ("translating", voxels, voxels)
    assert voxels % (3 * 6) == 0 and len(told) > 3
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)

    network = Known()
    with pytest.raises(Cancelled):
        run(samples=3, network=network, cancel=lambda: len(network.seen) >= 7)
    assert len(network.seen) == 7


def test_two_slices_are_enough() -> None:
    found = run(head((22, 26, 2)), samples=2)
    assert found.mean.grid.size == (22, 26, 2)


def test_an_uncalibrated_map_is_called_so_and_a_batch_that_is_not_used_too() -> None:
    told: list[str] = []
    run(samples=2, warn=lambda code, message: told.append(code))
    assert [code for code in told if not code.endswith("flagged")] == ["uncalibrated"]
    told.clear()
    run(samples=1, options=dataclasses.replace(CPU, batch=4), warn=lambda code, message: told.append(code))
    assert [code for code in told if not code.endswith("flagged")] == ["batch"]


@pytest.mark.parametrize(
    ("spacing", "direction", "axis"),
    [
        ((1.0, 1.0, 4.0), OBLIQUE, 2),
        ((4.0, 1.0, 1.0), OBLIQUE, 0),
        ((1.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0), 1),  # isotropic, stored in sagittal slices
        ((4.0, 4.0, 3.0), OBLIQUE, 2),  # a coarse matrix: the acquired slices have square pixels
    ],
)
def test_slices_are_the_acquired_ones_or_the_axial_ones_of_an_isotropic_scan(
    spacing: tuple[float, float, float], direction: tuple[float, ...], axis: int
) -> None:
    grid = Grid((20, 20, 20), spacing, direction=direction)
    assert planning.translation_axis(grid) == axis
    assert plan_translation(grid, card(), target="T2w", contrast="T1w").slice_axis == axis
    assert estimate(grid, card()).slice_axis == axis
    assert plan_translation(grid, card(), target="T2w", contrast="T1w", slice_axis=0).slice_axis == 0


# bad requests


@pytest.mark.parametrize(
    ("wanted", "code", "complaint"),
    [
        ({"samples": 0}, "samples", "0 samples are asked for, expected 1 to 100"),
        ({"samples": -3}, "samples", "-3 samples"),
        ({"samples": 10_000}, "samples", f"10000 samples are asked for, expected 1 to {MOST_SAMPLES}"),
        ({"target": "PDw"}, "unknown-target", "makes T1w, T2w, FLAIR, not 'PDw'"),
        ({"target": "T1w"}, "same-contrast", "is T1w already.*translated to T2w, FLAIR"),
        ({"target": "t1"}, "same-contrast", "is T1w already"),
        ({"target": None}, "no-target", "makes T2w, FLAIR: say which contrast"),
        ({"seed": -1}, "usage", "seed is -1, expected 0 or more"),
        ({"options": Options(device="cpu")}, "no-contrast", "say which contrast the scan is"),
        (
            {"options": Options(device="cpu", contrast="bogus")},
            "unknown-contrast",
            "translates T1w, FLAIR, not 'bogus'",
        ),
    ],
)
def test_a_request_that_cannot_be_served_is_one_clear_line(wanted: dict[str, Any], code: str, complaint: str) -> None:
    network = Known()
    with pytest.raises(UsageError, match=complaint) as refused:
        run(network=network, **wanted)
    assert refused.value.code == code and refused.value.exit_code == 2 and "\n" not in refused.value.message
    assert network.seen == []


def test_several_samples_of_a_model_with_one_answer_are_refused() -> None:
    with pytest.raises(UsageError, match="one answer only: ask for 1 sample, not 4") as refused:
        run(model=entry(requirements=Requirements()), network=Known(), samples=4)
    assert refused.value.code == "one-answer"


def test_a_model_that_super_resolves_or_lacks_the_contrast_is_refused() -> None:
    with pytest.raises(ModelError, match="does not translate") as refused:
        run(model=entry(task="super-resolve"))
    assert refused.value.code == "wrong-task"
    with pytest.raises(ModelError, match="no output for PDw") as refused:
        run(model=entry(target_contrasts=("PDw",)), network=Known(), target="PDw")
    assert refused.value.code == "bad-card"


def test_the_contrast_is_taken_from_the_name_from_what_is_left_or_with_a_warning() -> None:
    told: list[tuple[str, str]] = []

    def planned(model: ModelCard, **wanted: Any) -> tuple[str, str, list[str]]:
        made = plan_translation(head().grid, model, **wanted)
        told.extend(made.notes)
        return made.source, made.target, [code for code, _ in made.notes]

    assert planned(card(), target="t2", contrast="t1W") == ("T1w", "T2w", [])
    assert planned(card(), target="T2w", name="sub-07_FLAIR") == ("FLAIR", "T2w", ["contrast-guessed"])
    two = card(contrasts=("T1w", "T2w"), target_contrasts=("T1w", "T2w"))
    assert planned(two, contrast="T2w") == ("T2w", "T1w", []), "the only other contrast is the target"
    assert planned(two, target="T1w") == ("T2w", "T1w", ["contrast-guessed"])
    assert planned(two, target="T1w", contrast="PDw") == ("T2w", "T1w", ["outside-training"])
    assert "the scan is PDw: it is translated as if it were T2w" in told[-1][1]
    assert planned(card(contrasts=("any",)), target="T1w") == ("any", "T1w", [])


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("sub-01_ses-1_T1w", "T1w"),
        ("t2_tse_tra", "T2w"),
        ("Ax T2 FLAIR", "FLAIR"),
        ("Ax T1 FLAIR", "T1w"),
        ("sub-01_space-T1w_FLAIR", "FLAIR"),
        ("sub-01_space-T1w_T2w", "T2w"),
        ("AX T2* GRE", None),
        ("sag T2*", None),
        ("t2_star", None),
        ("T1 map", None),
        ("DTI_T2", None),
        ("pd_T2w", None),
        ("DOE^JANE", None),
        ("", None),
        ("PDw", "PDw"),
        ("cat12", None),
    ],
)
def test_a_contrast_is_guessed_from_whole_words_only(name: str, contrast: str | None) -> None:
    assert guess_contrast(name) == contrast
