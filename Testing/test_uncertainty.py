"""The uncertainty map: what an error network knows of its own translator, else the samples' spread, and the record says which."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_translators import CONTRASTS, CPU, card, head, run, tiny_translator
from test_translation_scores import Negative, entry, pair
from torch import Tensor, nn

from MRSuperResLib import models, networks
from MRSuperResLib.errors import ModelError
from MRSuperResLib.evaluation.calibration import INTERVAL
from MRSuperResLib.evaluation.tables import translation_json, translation_table
from MRSuperResLib.evaluation.translation import evaluate, publish
from MRSuperResLib.inference import Options, planning
from MRSuperResLib.inference import flags as flagging
from MRSuperResLib.inference.flags import FLAGGED
from MRSuperResLib.inference.uncertainty import DEVIATION, error_network_for, name_with_version, uncertainty_of
from MRSuperResLib.models import ModelCard, ModelEntry, Requirements
from MRSuperResLib.networks.error_scale import ErrorScale

SMALL = {"widths": [6], "contrasts": list(CONTRASTS)}


def error_card(judges: str, **changes: Any) -> ModelCard:
    needs = Requirements(smallest=8, multiple_of=4, halo=8)
    fields = {"id": "tiny-errors", "task": "error", "architecture": "error_scale", "hyperparameters": SMALL}
    return card(**{**fields, "requirements": needs, "judges": judges, **changes})


def constant(scale: float) -> dict[str, Tensor]:
    """Weights of a network that says `scale` everywhere."""
    network = ErrorScale(**SMALL)
    for last in (network.beyond[-1], network.line):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    network.line.bias.data[-1] = float(np.log(scale))
    return network.state_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A translator and the network that knows its errors: 0.05 in the mean, everywhere."""
    place = tmp_path_factory.mktemp("models")
    made = tiny_translator(place)
    models.save_model(place / "tiny-errors.safetensors", error_card(name_with_version(made.card)), constant(0.05))
    return place


@pytest.fixture
def options(folder: Path) -> Options:
    return dataclasses.replace(CPU, model_folders=(str(folder),))


def span(found: Any) -> float:
    low, high = found.report["robust_range"]
    return float(high - low)


# which of the two


def test_the_map_is_the_error_networks_where_one_knows_the_translator(folder: Path, options: Options) -> None:
    found = run(model=models.read_entry(folder / "tiny-mt.safetensors"), samples=4, options=options)
    assert found.uncertainty is not None
    flagged = np.zeros(found.mean.array.shape, bool) if found.flags is None else found.flags.mask
    np.testing.assert_allclose(found.uncertainty.array[~flagged], DEVIATION * 0.05 * span(found), rtol=5e-3)
    said = found.report["uncertainty"]
    assert (said["made_by"], said["model"], said["version"]) == ("error network", "tiny-errors", "1.0")
    assert said["digest"] == models.read_entry(folder / "tiny-errors.safetensors").digest


def test_without_one_the_map_is_the_spread_and_the_record_says_so(folder: Path) -> None:
    found = run(model=models.read_entry(folder / "tiny-mt.safetensors"), samples=4, keep_samples=True)
    drawn = np.stack([sample.array for sample in found.samples])
    assert found.report["uncertainty"] == {"made_by": "spread of the samples", "scale": None}
    assert found.uncertainty is not None
    flagged = np.zeros(drawn.shape[1:], bool) if found.flags is None else found.flags.mask
    np.testing.assert_allclose(found.uncertainty.array[~flagged], drawn.std(0, ddof=1)[~flagged], rtol=1e-3, atol=1e-2)


def test_a_network_that_knows_another_version_is_not_used_and_that_is_said(tmp_path: Path) -> None:
    made = tiny_translator(tmp_path)
    models.save_model(tmp_path / "old.safetensors", error_card("tiny-mt 0.9"), constant(0.05))
    models.save_model(tmp_path / "foreign.safetensors", error_card("other 1.0", id="foreign"), constant(0.05))
    said: list[tuple[str, str]] = []
    options = dataclasses.replace(CPU, model_folders=(str(tmp_path),))
    found = run(model=made, samples=2, options=options, warn=lambda code, text: said.append((code, text)))
    assert found.report["uncertainty"]["made_by"] == "spread of the samples"
    (text,) = [text for code, text in said if code == "other-version"]
    assert "tiny-mt 0.9" in text and "tiny-mt 1.0" in text
    knowing = error_network_for(entry("other", 8), options)
    assert knowing is not None and knowing.card.id == "foreign", "each translator has its own"
    assert error_network_for(entry("third", 8), options) is None


def test_a_module_given_instead_of_the_weights_has_errors_that_nobody_knows(folder: Path, options: Options) -> None:
    class Other(nn.Module):
        contrasts = CONTRASTS

        def forward(self, x: Tensor, z: Tensor, source: int, target: int) -> Tensor:
            return x + 0.1 * z[:, :1, None, None]

    found = run(model=models.read_entry(folder / "tiny-mt.safetensors"), samples=2, options=options, network=Other())
    assert found.report["uncertainty"]["made_by"] == "spread of the samples"


def test_one_sample_has_no_map(folder: Path, options: Options) -> None:
    found = run(model=models.read_entry(folder / "tiny-mt.safetensors"), samples=1, options=options)
    assert found.uncertainty is None and found.report["uncertainty"] is None


def test_the_map_stays_wide_where_something_is_flagged(
    folder: Path, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    likely = np.zeros(head().array.shape, np.float32)
    likely[2:5, 9:17, 8:15] = 1
    monkeypatch.setattr(flagging, "probabilities", lambda *given, **more: likely)
    found = run(model=models.read_entry(folder / "tiny-mt.safetensors"), samples=2, options=options)
    assert found.flags is not None and found.flags.mask.any() and found.uncertainty is not None
    inside, outside = (found.uncertainty.array[where] / span(found) for where in (found.flags.mask, ~found.flags.mask))
    np.testing.assert_allclose(inside, FLAGGED, rtol=1e-4)
    assert outside.max() < 0.1 < FLAGGED


# what it sees and says


class Telling(nn.Module):
    """Answers with the logarithm of one of its channels, and notes the contrasts."""

    contrasts = CONTRASTS

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel, self.seen = channel, set()

    def forward(self, x: Tensor, source: int, target: int) -> Tensor:
        self.seen.add((source, target))
        return x[:, self.channel : self.channel + 1].log()


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_network_sees_source_mean_and_deviation_slice_by_slice(
    channel: int, axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Telling(channel)
    monkeypatch.setattr(models, "kept_network", lambda entry: network)
    images = np.random.default_rng(0).uniform(0.01, 1, (3, 9, 10, 11)).astype(np.float32)
    needs = Requirements(smallest=8, multiple_of=4, halo=8, uncertainty_scale=1.5)
    knowing = ModelEntry(error_card("tiny-mt 1.0", requirements=needs), Path("unused"), "0" * 64)
    found = uncertainty_of(*images, entry(), knowing, ("T2w", "FLAIR"), axis, options=CPU)
    np.testing.assert_allclose(found.deviation, 1.5 * DEVIATION * images[channel], rtol=1e-4)
    assert network.seen == {(1, 2)} and found.scale == 1.5


def test_nine_of_ten_laplace_errors_lie_in_the_interval_that_the_map_states() -> None:
    """The map is a standard deviation that is read with the 1.645 of a normal distribution."""
    errors = np.abs(np.random.default_rng(0).laplace(0, 0.07, 400_000))
    assert np.mean(errors <= INTERVAL * DEVIATION * errors.mean()) == pytest.approx(0.9, abs=0.005)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(DEVIATION * 0.07, rel=0.01)


@pytest.mark.parametrize("size", [(16, 16), (21, 34)])
def test_the_network_answers_for_any_size_and_tells_directions_apart(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = ErrorScale(**SMALL).eval()
    x = torch.rand(2, 3, *size)
    answer = network(x, 0, 1)
    assert answer.shape == (2, 1, *size)
    torch.testing.assert_close(answer, network(x, torch.tensor([0, 0]), torch.tensor([1, 1])))
    torch.testing.assert_close(answer[1:], network(x[1:], 0, 1))
    assert not torch.equal(answer, network(x, 1, 0))
    assert torch.isfinite(network(torch.zeros(1, 3, *size), 0, 1)).all(), "air, where samples do not differ"


def test_what_is_trained_on_is_highest_likelihood_at_the_mean_absolute_error() -> None:
    from MRSuperResLib.training.methods.errors import laplace_loss

    error = torch.tensor([0.02, 0.1, 0.3, 9.0]).view(1, 1, 1, 4)
    weight = torch.tensor([1.0, 2.0, 1.0, 0.0]).view(1, 1, 1, 4)
    best = float(np.log((0.02 + 2 * 0.1 + 0.3) / 4))

    def loss(at: float) -> float:
        return float(laplace_loss(torch.full_like(error, at), error, weight))

    assert loss(best) < min(loss(best - 0.05), loss(best + 0.05))
    assert loss(best) == pytest.approx(best + 1, abs=1e-5)


# cards and commands


def test_a_card_of_errors_says_whose_and_no_other_card_does() -> None:
    assert ModelCard.from_json(error_card("tiny-mt 1.0").to_json()).judges == "tiny-mt 1.0"
    for change in ({"judges": ""}, {"task": "translate"}):
        with pytest.raises(ModelError, match="judges"):
            dataclasses.replace(error_card("tiny-mt 1.0"), **change)


def test_an_error_network_is_no_model_to_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from MRSuperResLib import cli

    with pytest.raises(ModelError, match="where translations are wrong"):
        planning.plan(head().grid, error_card("tiny-mt 1.0"))
    path = str(folder / "tiny-errors.safetensors")
    assert cli.main(["models", "show", path]) == 0
    assert "translations by tiny-mt 1.0 may be from the truth" in capsys.readouterr().out
    assert cli.main(["translate", "none_T1w.nii.gz", "-o", "out_T2w.nii.gz", "-m", path, "--to", "T2w"]) != 0


# scores


@pytest.fixture
def knowing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[float, float], Options]:
    """Options with an error network of `Negative` that says one scale left and another right of the middle."""

    def make(left: float, right: float) -> Options:
        class Halves(nn.Module):
            contrasts = CONTRASTS

            def forward(self, x: Tensor, source: int, target: int) -> Tensor:
                places = torch.linspace(-1, 1, x.shape[-1]).view(1, 1, 1, -1).expand(len(x), 1, x.shape[-2], -1)
                return torch.where(places > 0, right, left).log()

        named = {"tiny-errors": Halves()}
        monkeypatch.setattr(models, "kept_network", lambda entry: named.get(entry.card.id, Negative()))
        models.save_model(tmp_path / "tiny-errors.safetensors", error_card("sampled 1.0"), constant(0.1))
        return Options(device="cpu", model_folders=(str(tmp_path),))

    return make


def test_the_map_that_users_see_is_scored_and_the_spread_beside_it(knowing: Callable[[float, float], Options]) -> None:
    found = evaluate(*pair(), entry(), samples=8, options=knowing(0.0041, 0.041), target="T2w")
    plain = evaluate(*pair(), entry(), samples=8, options=Options(device="cpu"), target="T2w")
    assert found.mapped_by == "tiny-errors" and found.calibration is not None and plain.calibration is not None
    assert np.unique(found.voxels.deviation.round(4)).tolist() == pytest.approx([0.0058, 0.058])
    head, said, was = found.voxels.head, found.voxels.deviation, found.voxels.error
    assert found.calibration.coverage == pytest.approx(np.mean(was[head] <= INTERVAL * said[head])), "scaled by nothing"
    assert found.calibration.sharpness == pytest.approx(2 * INTERVAL * np.mean(said[head]))
    reversed_ = evaluate(*pair(), entry(), samples=8, options=knowing(0.041, 0.0041), target="T2w")
    assert reversed_.calibration is not None and reversed_.calibration.spearman < 0 < found.calibration.spearman
    text = translation_table([found])
    assert "uncertainty by tiny-errors: Spearman" in text
    assert f"the samples' spread instead: Spearman {plain.calibration.spearman:.3f} in the head" in text
    assert "spread instead" not in translation_table([plain])
    document = json.loads(translation_json([found]))
    assert document["evaluations"][0]["mapped_by"] == "tiny-errors" and "spread" not in document["evaluations"][0]
    assert document["calibration"]["sampled"]["coverage"] == pytest.approx(found.calibration.coverage)


def test_a_published_translator_keeps_the_calibration_of_its_spread(
    knowing: Callable[[float, float], Options], tmp_path: Path
) -> None:
    """The card's scale is for those who have no error network."""
    made = tiny_translator(tmp_path)
    options = knowing(0.0041, 0.041)
    sampled = ModelEntry(dataclasses.replace(made.card, id="sampled", version="1.0"), made.path, made.digest)
    plain = evaluate(*pair(), sampled, samples=4, options=Options(device="cpu"), target="T2w")
    found = evaluate(*pair(), sampled, samples=4, options=options, target="T2w")
    assert found.mapped_by and plain.calibration is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            models, "load_network", lambda *given, **more: networks.build("translation", made.card.hyperparameters)
        )
        published = publish([found], sampled, tmp_path / "published.safetensors")
    assert published.card.requirements.uncertainty_scale == pytest.approx(plain.calibration.scale, abs=1e-3)


def test_the_error_network_that_ships_belongs_to_the_translator_that_ships() -> None:
    """Another version of the translator errs elsewhere: train its error network anew, or nobody gets its map."""
    translator = models.find_model("mtsr-mt-s")
    network = error_network_for(translator, Options())
    assert network is not None and network.path is not None
    models.verify(network)
    assert network.path.stat().st_size < 2 * 2**20 and network.card.sources
    assert set(network.card.contrasts) == set(translator.card.contrasts)
    rng = np.random.default_rng(0)
    source, mean = (np.pad(rng.uniform(0.3, 0.7, (1, 64, 64)), ((0, 0), (32, 32), (32, 32))) for _ in range(2))
    sure, unsure = (
        uncertainty_of(
            source.astype(np.float32), mean.astype(np.float32), np.full(mean.shape, spread, np.float32),
            translator, network, ("T1w", "T2w"), 0, options=CPU,
        ).deviation
        for spread in (0.02, 0.2)
    )  # fmt: skip
    assert (unsure > sure).mean() > 0.9, "where samples differ more, the map is wider"
    assert 0.001 < sure[0, 64, 64] < 1 and sure.shape == source.shape
