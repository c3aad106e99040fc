"""Adversarial trainings from recipe to package: they learn, resume to the last bit, refuse wrong recipes and say what they used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_trainings import ENLARGE, TRANSLATE, two_contrasts
from safetensors.torch import load_file, save_file
from torch import Tensor

from MRSuperResLib import networks
from MRSuperResLib.errors import MissingRequirement, UsageError
from MRSuperResLib.models import find_model, load_network
from MRSuperResLib.networks.translation import Translator
from MRSuperResLib.training import fit as loop
from MRSuperResLib.training.card import checked_card
from MRSuperResLib.training.fit import fit, make_fabric
from MRSuperResLib.training.method import Context
from MRSuperResLib.training.methods import find_method
from MRSuperResLib.training.methods.translation import Translation, TranslationSpec
from MRSuperResLib.training.pack import Pack
from MRSuperResLib.training.recipes import FOLDER, load_recipe

RDST = ENLARGE.replace('"rrdb"', '"rdst"')


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two contrasts of one head, and recipes."""
    return two_contrasts(tmp_path_factory.mktemp("study"))


def test_translation_trains_and_beats_copying(study: Path, tmp_path: Path) -> None:
    said: list[str] = []
    path = fit(study / "translate.toml", study, tmp_path, minutes=5, device="cpu", report=said.append)
    entry = find_model(path)
    scores = [line for line in said if "held out" in line][-1]
    values = dict(part.split() for part in scores.split(":")[1].split(","))
    assert float(values["psnr_zero"]) > float(values["psnr_copy"]) + 2 and float(values["spread"]) > 0
    assert (tmp_path / "pretrained" / "tiny-mt.safetensors").is_file()  # the regressor to compare with
    assert isinstance(load_network(entry), Translator) and entry.card.training.steps == 60


@pytest.mark.parametrize(("recipe", "at"), [("translate", 41), ("enlarge", 31)])
def test_resumed_training_is_the_same_to_the_last_bit(study: Path, tmp_path: Path, recipe: str, at: int) -> None:
    """Networks, moving average and both optimisers' state, after a training that was stopped while it played."""
    arguments = {"minutes": 5, "device": "cpu"}
    fit(study / f"{recipe}.toml", study, tmp_path / "whole", report=lambda line: None, **arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Run, "is_due", lambda self, what, seconds: True)
        with pytest.raises(KeyboardInterrupt):
            fit(study / f"{recipe}.toml", study, tmp_path / "parts", report=_interrupting(at), **arguments)
    said: list[str] = []
    fit(study / f"{recipe}.toml", study, tmp_path / "parts", resume=True, report=said.append, **arguments)
    assert f"resumed at step {at - 1}" in " ".join(said)
    whole, parts = (load_file(tmp_path / name / "last.checkpoint") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name


def _interrupting(at: int) -> Callable[[str], None]:
    """A report that stops the training when it hears of a validation for the `at`th time, before that step is saved."""
    heard: list[str] = []

    def report(line: str) -> None:
        heard.append(line)
        if sum("held out" in line for line in heard) == at:
            raise KeyboardInterrupt

    return report


def test_super_resolution_trains_and_beats_interpolation(study: Path, tmp_path: Path) -> None:
    said: list[str] = []
    path = fit(study / "enlarge.toml", study, tmp_path, minutes=5, device="cpu", report=said.append)
    assert find_model(path).card.training.steps == 50
    values = dict(part.split() for part in [line for line in said if "held out" in line][-1].split(":")[1].split(","))
    assert float(values["psnr"]) > float(values["psnr_bicubic"])


def test_a_generator_learns_from_its_latent_code_and_the_encoder_does_not(study: Path) -> None:
    """BicycleGAN: the latent loss moves the generator only, else both would hide the code where no one sees it."""
    plan, _ = load_recipe(study / "translate.toml")
    method = Translation(plan, Context(make_fabric("cpu"), study))
    method.set_up()
    method.wrap()
    source = torch.rand(2, 1, 32, 32)
    contrast = torch.zeros(2, dtype=torch.long)
    answer = method.networks["generator"](source, torch.randn(2, 3), 0, 1)
    method.fabric.backward(method.latent_loss(answer, contrast, torch.randn(2, 3)))
    assert all(p.grad is None for p in method.networks["encoder"].parameters())
    assert method.networks["generator"].tail.weight.grad.abs().sum() > 0
    assert all(p.requires_grad for p in method.networks["encoder"].parameters())


def test_without_an_encoder_it_is_pix2pix_with_noise(study: Path) -> None:
    plan, _ = load_recipe(study / "translate.toml")
    plan = replace(plan, adversarial=TranslationSpec(widths=(4, 6), encoder=()))
    method = Translation(plan, Context(make_fabric("cpu"), study))
    method.set_up()
    method.wrap()
    method.adversarial = True
    batch = next(iter(torch.utils.data.DataLoader(method.stream(Pack(study / "train.pack"), 0, 0), 4)))
    assert set(method.training_step(batch)) == {"l1", "gan", "anchor", "spread", "discriminator"}
    assert set(method.networks) == {"generator", "discriminator_vae", "discriminator_lr"}


def test_without_vgg_the_published_recipe_stops_and_says_why(study: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingRequirement, match="VGG-19"):
        fit("mtsr-sr-inplane-x4", study, tmp_path, minutes=1, device="cpu", report=lambda line: None)


@pytest.mark.parametrize(
    ("text", "old", "new", "complaint"),
    [
        (TRANSLATE, "batch = 4", "batch = 1", "optimisation.batch is 1, expected 2 or more: one half"),
        (
            TRANSLATE,
            "[adversarial]",
            '[adversarial]\nesrgan = "x.safetensors"',
            "adversarial.esrgan is not a known field",
        ),
        (RDST, "[adversarial]", '[adversarial]\nesrgan = "x.safetensors"', "fit the architecture 'rrdb'"),
        (
            ENLARGE,
            "[adversarial]",
            '[adversarial]\nfeatures = "inception"',
            'adversarial.features is "inception", expected',
        ),
        (ENLARGE, "[data.degradation]\nkinds = { bicubic = 1.0 }", "", "data.degradation is missing"),
        (ENLARGE, "gan = 0.01", "style = 1.0", "loss.style"),
    ],
)
def test_wrong_recipes_are_refused_before_anything_is_read(
    tmp_path: Path, text: str, old: str, new: str, complaint: str
) -> None:
    assert old in text
    (tmp_path / "wrong.toml").write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=complaint):
        fit(tmp_path / "wrong.toml", tmp_path / "no data", tmp_path / "out", minutes=1, device="cpu")


def test_a_card_says_that_training_started_from_esrgan(study: Path, tmp_path: Path) -> None:
    """The digest of the weights is in the card, the name of the user's file is not."""
    whole = networks.build("rrdb", {"blocks": 1, "width": 8, "growth": 4, "channels": 3})
    names = {"body.1.": "body.0.", "upsampling.0": "conv_up1", "upsampling.1": "conv_up2"}  # ours and BasicSR's
    weights = {}
    for name, value in whole.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        weights[name] = value
    path = tmp_path / "private.safetensors"
    save_file(weights, path)
    recipe = tmp_path / "from-esrgan.toml"
    recipe.write_text(
        ENLARGE.replace("[adversarial]", f'[adversarial]\nesrgan = "{path}"').replace("steps = 50", "steps = 1")
    )
    said: list[str] = []
    card = find_model(fit(recipe, study, tmp_path / "out", minutes=5, device="cpu", report=said.append)).card
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert card.training.notes == f"started from ESRGAN weights, SHA-256 {digest}"
    assert "private" not in card.to_json()
    assert any("weights start from ESRGAN, 1 of its 1 blocks" in line and digest in line for line in said)


def test_every_process_draws_its_own_codes(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []

    def step(method: Translation, batch: object) -> dict[str, Tensor]:
        drawn.append(float(torch.randn(())))
        return {}

    monkeypatch.setattr(Translation, "training_step", step)
    (tmp_path / "short.toml").write_text(TRANSLATE.replace("steps = 60", "steps = 3"))
    for rank in (0, 1):
        monkeypatch.setattr(loop.Fabric, "global_rank", property(lambda fabric, rank=rank: rank))
        out = tmp_path / str(rank)
        fit(
            tmp_path / "short.toml",
            study,
            out,
            minutes=5,
            seed=7,
            device="cpu",
            validate=False,
            report=lambda line: None,
        )
    alone = [float(torch.randn((), generator=torch.Generator().manual_seed(7 + step))) for step in range(3)]
    assert drawn[:3] == alone and len(set(drawn)) == 6


@pytest.mark.parametrize("name", [path.stem for path in FOLDER.glob("mtsr-*.toml")])
def test_shipped_recipes_name_a_network_and_a_method(name: str) -> None:
    plan, _ = load_recipe(name)
    expected = "errors" if name.endswith("-errors") else "translation" if "-mt" in name else "adversarial"
    assert plan.method == expected
    with torch.device("meta"):
        networks.build(plan.architecture, plan.network)
    checked_card(find_method(plan.method).completed(plan))
