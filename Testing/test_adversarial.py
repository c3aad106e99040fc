"""MTSR-MRI's equations 6 and 7 by hand, with generators and discriminators whose answers are known; rates; published recipes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_trainings import TRANSLATE, two_contrasts
from torch import Tensor, nn

from MRSuperResLib.losses.perceptual import PerceptualLoss
from MRSuperResLib.training.fit import make_fabric
from MRSuperResLib.training.method import Context
from MRSuperResLib.training.methods import adversarial as module
from MRSuperResLib.training.methods import find_method
from MRSuperResLib.training.methods.adversarial import Adversarial
from MRSuperResLib.training.methods.translation import Translation
from MRSuperResLib.training.recipes import load_recipe


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two contrasts of one head, and recipes."""
    return two_contrasts(tmp_path_factory.mktemp("study"))


class Constant(nn.Module):
    """A generator that answers `value` in every pixel of an image twice as large."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, low: Tensor) -> Tensor:
        return self.value.expand(len(low), 1, 2 * low.shape[-2], 2 * low.shape[-1])


class Coded(nn.Module):
    """A generator that answers the source + z / 10."""

    def forward(self, source: Tensor, z: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return source + 0.1 * z[..., None, None]


class Reader(nn.Module):
    """An encoder of one latent: the mean is twice the image, the deviation 2."""

    def forward(self, image: Tensor, contrast: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * image.mean((2, 3)), torch.full((len(image), 1), 2 * math.log(2))


class Difference(nn.Module):
    """A discriminator that scores gain * (judged image - source) + index of the contrast."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, pair: Tensor, contrast: Tensor) -> list[Tensor]:
        return [self.gain * (pair[:, 1:] - pair[:, :1]) + contrast[:, None, None, None]]


def _updates(method: Adversarial) -> dict[str, Tensor]:
    """The losses that a step hands to the two sides' updates, gathered instead of taken; steps are adversarial."""
    given: dict[str, Tensor] = {}
    method.update, method.adversarial = given.__setitem__, True  # type: ignore[method-assign]
    return given


def test_super_resolution_learns_by_equation_6(study: Path) -> None:
    """The answer is 0.7 and the truth 0.5; scores are 2 x and x - 0.3, features 3 x; L_GAN + 200 L_VGG + 2 L1 (section 2.2.1)."""
    plan, _ = load_recipe(study / "enlarge.toml")
    plan = replace(plan, loss=load_recipe("mtsr-sr-inplane-x4")[0].loss)
    tripled = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(tripled.weight, 3.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "feature_loss", lambda plan: PerceptualLoss(tripled))
        method = Adversarial(plan, Context(make_fabric("cpu"), study))
    generator = Constant(0.7)
    method.parts = {"generator": generator, "discriminator": lambda image: [2 * image, image - 0.3]}
    given = _updates(method)
    batch = (torch.zeros(2, 1, 4, 4), torch.full((2, 1, 8, 8), 0.5))

    assert set(method.generator_losses(batch, False)) == {"l1"}
    found = {name: value.item() for name, value in method.training_step(batch).items()}
    assert found == pytest.approx(
        {
            "l1": 0.2,
            "features": (3 * 0.2) ** 2,
            "gan": (0.4**2 + 0.6**2) / 2,  # 1.4 and 0.4, both meant to be 1
            "discriminator": (0.0**2 + 0.8**2) / 2
            + (1.4**2 + 0.4**2) / 2,  # truth 1 and 0.2, meant to be 1; answer meant to be 0
        }
    )
    assert given["generator"].item() == pytest.approx(0.26 + 200 * 0.36 + 2 * 0.2)
    assert given["discriminator"].item() == pytest.approx(found["discriminator"])
    given["generator"].backward()
    slope = (2 * 2 * 0.4 - 2 * 0.6) / 2 + 200 * 2 * 9 * 0.2 + 2  # of the three terms at 0.7
    assert generator.value.grad is not None and float(generator.value.grad) == pytest.approx(slope, rel=1e-5)
    assert not given["discriminator"].requires_grad  # the discriminator's loss does not reach the generator


def _translation(study: Path, **loss: float) -> Translation:
    """A method of stubs with one latent; its weights are mtsr-mt's and `loss`."""
    text = TRANSLATE.replace("latent = 3", "latent = 1")
    (study / "one.toml").write_text(text)
    plan, _ = load_recipe(study / "one.toml")
    weights = {**load_recipe("mtsr-mt")[0].loss, **loss}
    method = Translation(replace(plan, loss=weights), Context(make_fabric("cpu"), study))
    method.parts = {
        "generator": Coded(),
        "encoder": Reader(),
        "discriminator_vae": Difference(1),
        "discriminator_lr": Difference(2),
    }
    return method


def _batch_of_four() -> tuple[Tensor, ...]:
    source, real = (
        torch.tensor(levels)[:, None, None, None].expand(4, 1, 8, 8)
        for levels in ([0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8])
    )
    b = torch.tensor([1, 0, 1, 0])
    return source, real, 1 - b, b


@pytest.fixture
def known_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """1, -1, 2 and 0.5 are drawn."""
    monkeypatch.setattr(torch, "randn", lambda *size, **options: torch.tensor([[1.0], [-1.0], [2.0], [0.5]]))


def test_translation_learns_by_equation_7(study: Path, known_codes: None) -> None:
    """Two images play cVAE-GAN with z = mean + 2 * drawn = 3 and -0.8, two cLR-GAN with z = 2 and 0.5 (section 2.3.1, figure 3).

    Answers are 0.4, 0.12, 0.5, 0.45; an answer - source is z / 10, a truth - source 0.4.
    """
    method = _translation(study)
    given = _updates(method)
    batch = _batch_of_four()
    alone = method.generator_losses(batch, False)
    assert alone.keys() == {"l1"} and float(alone["l1"]) == pytest.approx(0.4)
    found = {name: value.item() for name, value in method.training_step(batch).items()}
    vae = {"fake": (1.3, -0.08), "real": (1.4, 0.4)}  # scores of the first discriminator, contrasts 1 and 0
    lr = {"fake": (1.4, 0.1), "real": (1.8, 0.8)}

    def squares(scores: tuple[float, float], wanted: float) -> float:
        return sum((score - wanted) ** 2 for score in scores) / 2

    expected = {
        "l1": (0.1 + 0.48) / 2,
        "kl": sum((4 + mean**2 - 1) / 2 - math.log(2) for mean in (1.0, 1.2)) / 2,  # of N(mean, 2) from N(0, 1)
        "gan": squares(vae["fake"], 1) + squares(lr["fake"], 1),
        "latent": (abs(1.0 - 2.0) + abs(0.9 - 0.5)) / 2,
        "discriminator": sum(squares(side["real"], 1) + squares(side["fake"], 0) for side in (vae, lr)),
    }
    assert found == pytest.approx(expected, rel=1e-5)
    published = (
        2 * 10 * expected["l1"] + 0.5 * expected["latent"] + 0.01 * expected["kl"]
    )  # section 2.3.2; [0, 1]: L1 twice
    assert given["generator"].item() == pytest.approx(2 * expected["gan"] + published, rel=1e-5)  # two scales, averaged
    assert given["discriminator"].item() == pytest.approx(expected["discriminator"], rel=1e-5)


def test_anchor_and_spread_are_what_they_say(study: Path, known_codes: None) -> None:
    """Answers to z and -z have the source as their mean, which errs by 0.4; half their difference is 0.2 and 0.05."""
    found = _translation(study, anchor=1.0, spread=1.0).generator_losses(_batch_of_four(), True)
    assert float(found["anchor"]) == pytest.approx(0.4)
    assert float(found["spread"]) == pytest.approx((0.2 + 0.35) / 2)


def test_pix2pix_aims_at_the_truth_with_every_code(study: Path, known_codes: None) -> None:
    method = _translation(study)
    del method.parts["encoder"]
    found = {name: float(value) for name, value in method.generator_losses(_batch_of_four(), True).items()}
    assert found == pytest.approx(
        {"l1": (0.3 + 0.5 + 0.2 + 0.35) / 4, "gan": (0.1**2 + 1.1**2) / 2 + (0.4**2 + 0.9**2) / 2}
    )


@pytest.mark.parametrize("recipe", ["enlarge", "translate"])
def test_a_discriminator_learns_what_is_real_and_leaves_the_generator_alone(study: Path, recipe: str) -> None:
    torch.manual_seed(0)
    plan, _ = load_recipe(study / f"{recipe}.toml")
    method = find_method(plan.method)(plan, Context(make_fabric("cpu"), study))
    method.set_up()
    method.wrap()
    for optimiser in method.optimisers.values():
        optimiser.param_groups[0]["lr"] = 1e-2
    low, high, contrasts = torch.rand(4, 1, 16, 16), 0.5 + torch.rand(4, 1, 32, 32), torch.tensor([0, 1, 0, 1])
    batch = (low, high) if recipe == "enlarge" else (low, high[..., ::2, ::2], 1 - contrasts, contrasts)
    method.generator_losses(batch, True)
    made = {name: value.clone() for name, value in method.networks["generator"].state_dict().items()}
    before = method.discriminator_loss().item()
    for _ in range(30):
        method.update("discriminator", method.discriminator_loss())
    # 0.25 for the truth and 0.25 for the answer, each scored 0.5
    undecided = 0.5 * sum(name.startswith("discriminator") for name in method.networks)
    assert method.discriminator_loss().item() < 0.8 * min(before, undecided)
    assert all(torch.equal(made[name], value) for name, value in method.networks["generator"].state_dict().items())
    if recipe == "enlarge":
        sides = [(method.parts["discriminator"](method.real), method.parts["discriminator"](method.fake))]
    else:
        pairs = torch.cat((method.source, method.real), 1), method.fake
        halves = {"discriminator_vae": slice(2), "discriminator_lr": slice(2, 4)}
        sides = [[method.parts[name](pair[half], method.b[half]) for pair in pairs] for name, half in halves.items()]
    for real, fake in sides:
        assert all((one.mean() - other.mean()).item() > 0.2 for one, other in zip(real, fake, strict=True))


def test_rates_and_moments_follow_the_two_parts_of_a_training(study: Path) -> None:
    """A cosine to a twentieth on L1 alone; then constant and, over the last half, linearly to 0, with BicycleGAN's betas."""
    plan, _ = load_recipe(study / "enlarge.toml")
    plan = replace(plan, optimisation=replace(plan.optimisation, learning_rate=4e-3))
    method = Adversarial(plan, Context(make_fabric("cpu"), study))
    method.set_up()
    for done, rate, adversarial in (
        (0.0, 4e-3, False),
        (0.25, 4e-3 * (1 + 0.05) / 2, False),
        (0.5, 2e-4, True),
        (0.75, 2e-4, True),
        (0.875, 1e-4, True),
        (1.0, 0.0, True),
    ):
        method.set_rates(0, done)
        assert method.adversarial is adversarial
        for optimiser in method.optimisers.values():
            (group,) = optimiser.param_groups
            assert group["lr"] == pytest.approx(rate) and group["betas"] == (0.5 if adversarial else 0.9, 0.999)
    method.plan = replace(plan, optimisation=replace(plan.optimisation, warm_up=10))
    method.set_rates(1, 0.0)
    assert method.optimisers["generator"].param_groups[0]["lr"] == pytest.approx(2 / 10 * 4e-3)
    method.plan = replace(plan, adversarial=replace(plan.adversarial, pretraining=0.0))
    method.set_rates(0, 0.0)
    assert method.adversarial  # mtsr-mt is adversarial from the first step


def test_published_recipes_are_the_papers() -> None:
    """Section 2.2.1: 200 and 2; section 2.3.2: 10, which is 20 for images in [0, 1], 0.5 and 0.01, at a rate of 0.0002."""
    first, second = (load_recipe(name)[0] for name in ("mtsr-sr-inplane-x4", "mtsr-mt"))
    assert first.loss == {"gan": 1.0, "features": 200.0, "l1": 2.0} and first.adversarial.features == "vgg"
    assert first.network == {"blocks": 23, "kept": "odd", "width": 64, "growth": 32, "factors": [4, 4]}
    assert first.data.degradation.kinds == {"second-order": 1.0}
    assert first.adversarial.scales == 1 and first.adversarial.pretraining == 10 / 100
    assert second.loss == {"gan": 2 * 1.0, "l1": 2 * 10.0, "latent": 0.5, "kl": 0.01}  # the mean of two scales
    assert second.adversarial.learning_rate == 0.0002 and second.adversarial.scales == 2 and second.adversarial.encoder
    assert second.network["latent"] == 8 and second.adversarial.pretraining == 0 and second.optimisation.batch == 2
