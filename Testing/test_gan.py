"""MTSR-MRI's networks, losses, pairs and adversarial training."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from MRSuperResLib import networks
from MRSuperResLib.errors import MissingRequirement, UsageError
from MRSuperResLib.losses.adversarial import FAKE, REAL, judged, kl_divergence
from MRSuperResLib.losses.perceptual import PerceptualLoss
from MRSuperResLib.models import find_model, load_network
from MRSuperResLib.networks.patchgan import MultiScaleDiscriminator, PatchDiscriminator
from MRSuperResLib.networks.translation import LatentEncoder, Translator, mixed
from MRSuperResLib.training import gan
from MRSuperResLib.training.contrasts import ContrastPairs, DisturbanceSpec
from MRSuperResLib.training.data import AugmentationSpec, DataSpec, DegradationSpec, SourceSpec
from MRSuperResLib.training.pack import Pack, pack
from MRSuperResLib.training.recipes import FOLDER, load_recipe, loop_of
from MRSuperResLib.training.synthesis import LEVELS, TISSUES, synthesise_contrasts, tissue_of

CARD = """
title = "Tiny"
version = "1"
plane = "any"
contrasts = ["T1w", "T2w"]
spacing = { in_plane = [0.5, 5.0], through_plane = [0.5, 5.0] }
licence = "Apache-2.0"
intended_use = "Tests. Research use only."
"""
TRANSLATE = f"""
architecture = "translation"
[network]
widths = [6, 8]
latent = 3
contrasts = ["T1w", "T2w"]
[optimisation]
learning_rate = 4e-3
batch = 4
clip = 0.5
steps = 60
[loss]
l1 = 20.0
gan = 1.0
latent = 0.5
kl = 0.01
anchor = 10.0
spread = 5.0
[adversarial]
pretraining = 0.5
widths = [4, 6]
encoder = [4, 6]
[data]
patch = 32
sources = [{{ match = "pairs/*", planes = "axial" }}]
[card]
id = "tiny-mt"
task = "translate"
target_contrasts = ["T1w", "T2w"]
factors = [1, 1]
requirements = {{ smallest = 8, multiple_of = 4, halo = 8, latent = 3 }}
{CARD}
"""
ENLARGE = f"""
architecture = "rrdb"
[network]
blocks = 1
width = 8
growth = 4
factors = [2, 2]
skip = "bicubic"
[optimisation]
learning_rate = 2e-3
batch = 2
steps = 50
[loss]
l1 = 1.0
gan = 0.01
[adversarial]
pretraining = 0.5
widths = [4, 6]
scales = 1
[data]
patch = 12
sources = [{{ match = "pairs/*", planes = "axial" }}]
[data.degradation]
kinds = {{ bicubic = 1.0 }}
[card]
id = "tiny-sr"
task = "super-resolve"
factors = [2, 2]
{CARD.replace('"any"', '"in-plane"')}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two contrasts of one smooth head, whose T2w is 1 - T1w inside it, and a label map, in train/ and val/."""
    folder = tmp_path_factory.mktemp("study")
    k, j, i = np.meshgrid(*(np.arange(n) for n in (20, 44, 48)), indexing="ij")
    head = ((k - 10) / 9) ** 2 + ((j - 22) / 20) ** 2 + ((i - 24) / 22) ** 2 < 1
    inside = 0.5 + 0.4 * np.sin(k / 3.0 + j / 4.0) * np.cos(i / 3.0)
    labels = head.astype(np.int16) * np.where(inside > 0.6, 2, np.where(inside > 0.4, 3, 4)).astype(np.int16)
    volumes = {"pairs/one_T1w": head * inside, "pairs/one_T2w": head * (1 - inside), "labels/one": labels}
    for part in ("train", "val"):
        for name, array in volumes.items():
            image = sitk.GetImageFromArray(array if name.startswith("labels") else (1000 * array).astype(np.float32))
            path = folder / part / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, str(path))
        pack(folder / part, folder / f"{part}.pack")
    (folder / "translate.toml").write_text(TRANSLATE)
    (folder / "enlarge.toml").write_text(ENLARGE)
    return folder


# Networks


@pytest.mark.parametrize("size", [(32, 32), (37, 50), (9, 64)])
def test_a_translator_takes_any_size_and_keeps_it(size: tuple[int, int]) -> None:
    network = Translator(widths=(4, 6, 8), latent=3).eval()
    assert network(torch.rand(2, 1, *size), torch.zeros(2, 3), 0, 1).shape == (2, 1, *size)


def test_mixing_takes_the_checkerboard_and_leaves_edges_where_they_are() -> None:
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(10.0), indexing="ij")
    board = ((rows + columns) % 2)[None, None]
    torch.testing.assert_close(mixed(board, 0.25)[..., 1:-1, 1:-1], torch.full((1, 1, 10, 8), 0.5))
    ramp = (3 + rows - 2 * columns)[None, None]
    torch.testing.assert_close(mixed(ramp, 0.2)[..., 1:-1, 1:-1], ramp[..., 1:-1, 1:-1])
    torch.manual_seed(0)
    network, x, z = Translator(widths=(4, 6), latent=3).eval(), torch.rand(1, 1, 16, 20), torch.randn(1, 3)
    plain = network(x, z, 0, 1)
    network.mixing = 0.2
    torch.testing.assert_close(network(x, z, 0, 1), mixed(plain, 0.2))


def test_codes_and_contrasts_change_the_answer_and_nothing_else_does() -> None:
    torch.manual_seed(0)
    network = Translator(widths=(4, 6), latent=3).eval()
    x, z = torch.rand(2, 1, 16, 16), torch.randn(2, 3)
    first = network(x, z, 0, 1)
    torch.testing.assert_close(first, network(x, z, torch.tensor([0, 0]), torch.tensor([1, 1])))
    torch.testing.assert_close(
        first[:1], network(x[:1], z[:1], 0, 1)
    )  # an image's neighbours in a batch are nothing to it
    for other in (network(x, -z, 0, 1), network(x, z, 2, 1), network(x, z, 0, 2)):
        assert (other - first).abs().mean() > 1e-3


def test_slices_are_not_normalised_by_themselves() -> None:
    """A slice that is mostly air keeps the intensities of its neighbour: what lies far away does not change a pixel."""
    torch.manual_seed(0)
    network = Translator(widths=(4, 6), latent=3).eval()
    full = torch.rand(1, 1, 96, 96)
    half = full.clone()
    half[..., 64:, :] = 0
    z = torch.zeros(1, 3)
    torch.testing.assert_close(network(full, z, 0, 1)[..., :32, :], network(half, z, 0, 1)[..., :32, :])


def test_a_70_pixel_patchgan_sees_70_pixels() -> None:
    critic = PatchDiscriminator(1, (2, 2, 2, 2)).eval()
    image = torch.rand(1, 1, 128, 128, requires_grad=True)
    scores = critic(image)
    scores[0, 0, scores.shape[-2] // 2, scores.shape[-1] // 2].backward()
    assert image.grad is not None
    rows, columns = torch.nonzero(image.grad[0, 0], as_tuple=True)
    assert (int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1) == (70, 70)


def test_scales_halve_and_classes_shift() -> None:
    critic = MultiScaleDiscriminator(2, (4, 6), scales=2, classes=3).eval()
    image = torch.rand(2, 2, 64, 64)
    first, second = critic(image, torch.tensor([0, 1]))
    assert second.shape[-1] < 0.6 * first.shape[-1]
    assert not torch.allclose(first, critic(image, torch.tensor([2, 1]))[0])


# Losses


def test_least_squares_judgement() -> None:
    scores = [torch.full((2, 1, 3, 3), 1.0), torch.full((2, 1, 2, 2), 0.5)]
    assert judged(scores, REAL).item() == pytest.approx(0.125)  # mean of 0 and 0.25
    assert judged(scores, FAKE).item() == pytest.approx(0.625)  # mean of 1 and 0.25


def test_kl_agrees_with_torch_distributions() -> None:
    mean, log_variance = torch.randn(5, 8), torch.randn(5, 8)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = torch.distributions.Normal(torch.zeros(5, 8), torch.ones(5, 8))
    expected = torch.distributions.kl_divergence(posterior, prior).sum(1).mean()
    torch.testing.assert_close(kl_divergence(mean, log_variance), expected)


# Games: eq. 6 and eq. 7 by hand, with generators and discriminators whose answers are known


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


def _updates(game: gan.Game) -> dict[str, Tensor]:
    """The losses that `play` hands to the two sides' updates, gathered instead of taken."""
    given: dict[str, Tensor] = {}
    game.maker, game.critic = "makers", "critics"
    game._update = lambda side, names, loss: given.__setitem__(side, loss)  # type: ignore[assignment]
    return given


def test_super_resolution_plays_equation_6(study: Path) -> None:
    """The answer is 0.7 and the truth 0.5; scores are 2 x and x - 0.3, features 3 x; L_GAN + 200 L_VGG + 2 L1 (section 2.2.1)."""
    plan, _ = load_recipe(study / "enlarge.toml", gan.AdversarialRecipe)
    plan = replace(plan, loss=load_recipe("mtsr-sr-inplane-x4", gan.AdversarialRecipe)[0].loss)
    tripled = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(tripled.weight, 3.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gan, "feature_loss", lambda plan: PerceptualLoss(tripled))
        game = gan.SuperResolutionGame(plan, gan.loop.make_fabric("cpu"), None)
    generator = Constant(0.7)
    game.parts = {"generator": generator, "critic": lambda image: [2 * image, image - 0.3]}
    given = _updates(game)
    batch = (torch.zeros(2, 1, 4, 4), torch.full((2, 1, 8, 8), 0.5))

    assert set(game.losses(batch, False)) == {"l1"}
    found = {name: float(value) for name, value in game.play(batch, True).items()}
    assert found == pytest.approx(
        {
            "l1": 0.2,
            "features": (3 * 0.2) ** 2,
            "gan": (0.4**2 + 0.6**2) / 2,  # 1.4 and 0.4, both meant to be 1
            "critic": (0.0**2 + 0.8**2) / 2
            + (1.4**2 + 0.4**2) / 2,  # truth 1 and 0.2, meant to be 1; answer meant to be 0
        }
    )
    assert given["makers"].item() == pytest.approx(0.26 + 200 * 0.36 + 2 * 0.2)
    assert given["critics"].item() == pytest.approx(found["critic"])
    given["makers"].backward()
    slope = (2 * 2 * 0.4 - 2 * 0.6) / 2 + 200 * 2 * 9 * 0.2 + 2  # of the three terms at 0.7
    assert generator.value.grad is not None and float(generator.value.grad) == pytest.approx(slope, rel=1e-5)
    assert not given["critics"].requires_grad  # the discriminator's loss does not reach the generator


def _translation(study: Path, **loss: float) -> gan.TranslationGame:
    """A game of stubs with one latent; its weights are mtsr-mt's and `loss`."""
    text = TRANSLATE.replace("latent = 3", "latent = 1")
    (study / "one.toml").write_text(text)
    plan, _ = load_recipe(study / "one.toml", gan.AdversarialRecipe)
    weights = {**load_recipe("mtsr-mt", gan.AdversarialRecipe)[0].loss, **loss}
    game = gan.TranslationGame(replace(plan, loss=weights), gan.loop.make_fabric("cpu"), None)
    game.parts = {"generator": Coded(), "encoder": Reader(), "critic_vae": Difference(1), "critic_lr": Difference(2)}
    return game


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


def test_translation_plays_equation_7(study: Path, known_codes: None) -> None:
    """Two images play cVAE-GAN with z = mean + 2 * drawn = 3 and -0.8, two cLR-GAN with z = 2 and 0.5 (section 2.3.1, figure 3).

    Answers are 0.4, 0.12, 0.5, 0.45; an answer - source is z / 10, a truth - source 0.4.
    """
    game = _translation(study)
    given = _updates(game)
    batch = _batch_of_four()
    assert game.losses(batch, False).keys() == {"l1"} and float(game.losses(batch, False)["l1"]) == pytest.approx(0.4)
    found = {name: float(value) for name, value in game.play(batch, True).items()}
    vae = {"fake": (1.3, -0.08), "real": (1.4, 0.4)}  # scores of the first discriminator, contrasts 1 and 0
    lr = {"fake": (1.4, 0.1), "real": (1.8, 0.8)}

    def squares(scores: tuple[float, float], wanted: float) -> float:
        return sum((score - wanted) ** 2 for score in scores) / 2

    expected = {
        "l1": (0.1 + 0.48) / 2,
        "kl": sum((4 + mean**2 - 1) / 2 - math.log(2) for mean in (1.0, 1.2)) / 2,  # of N(mean, 2) from N(0, 1)
        "gan": squares(vae["fake"], 1) + squares(lr["fake"], 1),
        "latent": (abs(1.0 - 2.0) + abs(0.9 - 0.5)) / 2,
        "critic": sum(squares(side["real"], 1) + squares(side["fake"], 0) for side in (vae, lr)),
    }
    assert found == pytest.approx(expected, rel=1e-5)
    published = (
        2 * 10 * expected["l1"] + 0.5 * expected["latent"] + 0.01 * expected["kl"]
    )  # section 2.3.2; [0, 1]: L1 twice
    assert given["makers"].item() == pytest.approx(2 * expected["gan"] + published, rel=1e-5)  # two scales, averaged
    assert given["critics"].item() == pytest.approx(expected["critic"], rel=1e-5)


def test_anchor_and_spread_are_what_they_say(study: Path, known_codes: None) -> None:
    """Answers to z and -z have the source as their mean, which errs by 0.4; half their difference is 0.2 and 0.05."""
    found = _translation(study, anchor=1.0, spread=1.0).losses(_batch_of_four(), True)
    assert float(found["anchor"]) == pytest.approx(0.4)
    assert float(found["spread"]) == pytest.approx((0.2 + 0.35) / 2)


def test_pix2pix_aims_at_the_truth_with_every_code(study: Path, known_codes: None) -> None:
    game = _translation(study)
    del game.parts["encoder"]
    found = {name: float(value) for name, value in game.losses(_batch_of_four(), True).items()}
    assert found == pytest.approx(
        {"l1": (0.3 + 0.5 + 0.2 + 0.35) / 4, "gan": (0.1**2 + 1.1**2) / 2 + (0.4**2 + 0.9**2) / 2}
    )


@pytest.mark.parametrize("recipe", ["enlarge", "translate"])
def test_a_discriminator_learns_what_is_real_and_leaves_the_generator_alone(study: Path, recipe: str) -> None:
    torch.manual_seed(0)
    plan, _ = load_recipe(study / f"{recipe}.toml", gan.AdversarialRecipe)
    kind = gan.SuperResolutionGame if recipe == "enlarge" else gan.TranslationGame
    game = kind(plan, gan.loop.make_fabric("cpu"), None)
    game.set_up()
    for optimiser in game.optimisers:
        optimiser.param_groups[0]["lr"] = 1e-2
    low, high, contrasts = torch.rand(4, 1, 16, 16), 0.5 + torch.rand(4, 1, 32, 32), torch.tensor([0, 1, 0, 1])
    batch = (low, high) if recipe == "enlarge" else (low, high[..., ::2, ::2], 1 - contrasts, contrasts)
    game.losses(batch, True)
    made = {name: value.clone() for name, value in game.network["generator"].state_dict().items()}
    before = game.criticism().item()
    for _ in range(30):
        game._update(game.critic, game.critics, game.criticism())
    undecided = 0.5 * len(game.critics)  # 0.25 for the truth and 0.25 for the answer, each scored 0.5
    assert game.criticism().item() < 0.8 * min(before, undecided)
    assert all(torch.equal(made[name], value) for name, value in game.network["generator"].state_dict().items())
    if recipe == "enlarge":
        sides = [(game.parts["critic"](game.real), game.parts["critic"](game.fake))]
    else:
        pairs = torch.cat((game.source, game.real), 1), game.judged
        halves = {"critic_vae": slice(2), "critic_lr": slice(2, 4)}
        sides = [[game.parts[name](pair[half], game.b[half]) for pair in pairs] for name, half in halves.items()]
    for real, fake in sides:
        assert all((one.mean() - other.mean()).item() > 0.2 for one, other in zip(real, fake, strict=True))


def test_rates_and_moments_follow_the_two_parts_of_a_training(study: Path) -> None:
    """A cosine to a twentieth on L1 alone; then constant and, over the last half, linearly to 0, with BicycleGAN's betas."""
    plan, _ = load_recipe(study / "enlarge.toml", gan.AdversarialRecipe)
    plan = replace(plan, optimisation=replace(plan.optimisation, learning_rate=4e-3))
    game = gan.SuperResolutionGame(plan, gan.loop.make_fabric("cpu"), None)
    for done, rate, adversarial in (
        (0.0, 4e-3, False),
        (0.25, 4e-3 * (1 + 0.05) / 2, False),
        (0.5, 2e-4, True),
        (0.75, 2e-4, True),
        (0.875, 1e-4, True),
        (1.0, 0.0, True),
    ):
        assert gan.set_rates(game, plan, 0, done) is adversarial
        for optimiser in game.optimisers:
            (group,) = optimiser.param_groups
            assert group["lr"] == pytest.approx(rate) and group["betas"] == (0.5 if adversarial else 0.9, 0.999)
    warming = replace(plan, optimisation=replace(plan.optimisation, warm_up=10))
    gan.set_rates(game, warming, 1, 0.0)
    assert game.optimisers[0].param_groups[0]["lr"] == pytest.approx(2 / 10 * 4e-3)
    published = replace(plan, adversarial=replace(plan.adversarial, pretraining=0.0))
    assert gan.set_rates(game, published, 0, 0.0)  # mtsr-mt plays from the first step


def test_published_recipes_are_the_papers() -> None:
    """Section 2.2.1: 200 and 2; section 2.3.2: 10, which is 20 for images in [0, 1], 0.5 and 0.01, at a rate of 0.0002."""
    first, second = (load_recipe(name, gan.AdversarialRecipe)[0] for name in ("mtsr-sr-inplane-x4", "mtsr-mt"))
    assert first.loss == {"gan": 1.0, "features": 200.0, "l1": 2.0} and first.adversarial.features == "vgg"
    assert first.network == {"blocks": 23, "kept": "odd", "width": 64, "growth": 32, "factors": [4, 4]}
    assert first.data.degradation.kinds == {"second-order": 1.0}
    assert first.adversarial.scales == 1 and first.adversarial.pretraining == 10 / 100
    assert second.loss == {"gan": 2 * 1.0, "l1": 2 * 10.0, "latent": 0.5, "kl": 0.01}  # the mean of two scales
    assert second.adversarial.learning_rate == 0.0002 and second.adversarial.scales == 2 and second.adversarial.encoder
    assert second.network["latent"] == 8 and second.adversarial.pretraining == 0 and second.optimisation.batch == 2


# Pairs


def test_tissues_have_the_levels_of_their_contrast() -> None:
    """CSF is dark in T1w and FLAIR and bright in T2w; white matter is brighter than grey in T1w, darker in the others."""
    assert [TISSUES[t] for t in tissue_of(np.array([0, 2, 41, 3, 4, 24, 507]))] == [
        "background", "white", "white", "grey", "fluid", "fluid", "other",
    ]  # fmt: skip
    labels = np.repeat(np.repeat(np.array([[2, 3], [4, 24]]), 24, 0), 24, 1)
    for name, order in {"T1w": "fgw", "T2w": "wgf", "FLAIR": "fwg"}.items():
        levels = dict(zip("fgw", LEVELS[name], strict=True))
        assert "".join(sorted(levels, key=levels.__getitem__)) == order
    (image,) = synthesise_contrasts(np.where(labels == 24, 4, labels), ["T2w"], np.random.default_rng(1))
    assert image.max() > 0.6 and image.min() < 0.5


def _pairs(study: Path, disturbance: DisturbanceSpec, match: str = "pairs/*") -> ContrastPairs:
    spec = DataSpec(
        (SourceSpec(match, "axial"),),
        DegradationSpec({"bicubic": 1.0}),
        patch=32,
        augmentation=AugmentationSpec(gamma=(1.0, 1.0), zoom_probability=0.0),
    )
    return ContrastPairs(Pack(study / "train.pack"), spec, disturbance, ("T1w", "T2w"), seed=4)


def test_pairs_show_one_place_in_two_contrasts(study: Path) -> None:
    still = DisturbanceSpec(0.0, 0.0, 0.0, (1.0, 1.0), (1.0, 1.0), 0.0, 0.0)
    pairs = _pairs(study, still)
    seen = set()
    for number in range(12):
        source, target, a, b = pairs.pair(np.random.default_rng(number))
        seen.add((a, b))
        inside = (source > 0.15) & (target > 0.15)
        assert np.corrcoef(source[inside], target[inside])[0, 1] < -0.9  # bias fields of the source only bend it
    assert seen == {(0, 1), (1, 0)}


def test_air_is_raised_in_a_third_of_the_sources(study: Path) -> None:
    raised = DisturbanceSpec(0.0, 0.0, 0.0, (1.0, 1.0), (1.0, 1.0), 0.0, 0.0, lift=0.08)
    pairs = _pairs(study, raised)
    air = []
    for number in range(60):
        source, target, _, _ = pairs.pair(np.random.default_rng(number))
        air.append(source[target < 1e-6].min(initial=1.0))
    dark = np.array([level for level in air if level < 1.0])  # crops that show air
    assert dark.max() <= 0.08 and 0.2 < np.mean(dark > 1e-6) < 0.5


def test_a_pair_depends_on_its_number_alone(study: Path) -> None:
    pairs = _pairs(study, DisturbanceSpec())
    first = [torch.cat(pair[:2]) for pair, _ in zip(pairs, range(5), strict=False)]
    pairs.start = 3
    again = next(iter(pairs))
    torch.testing.assert_close(first[3], torch.cat(again[:2]))
    labels = _pairs(study, DisturbanceSpec(), "labels/*").pair(np.random.default_rng(0))
    assert np.isfinite(labels[0]).all() and labels[2] != labels[3]


# Training


def test_translation_trains_and_beats_copying(study: Path, tmp_path: Path) -> None:
    said: list[str] = []
    entry = gan.train(study / "translate.toml", study, tmp_path, minutes=5, device="cpu", report=said.append)
    scores = [line for line in said if "held out" in line][-1]
    values = dict(part.split() for part in scores.split(":")[1].split(","))
    assert float(values["psnr_zero"]) > float(values["psnr_copy"]) + 2 and float(values["spread"]) > 0
    assert (tmp_path / "pretrained" / "tiny-mt.safetensors").is_file()  # the regressor to compare with
    assert isinstance(load_network(find_model(str(entry.path))), Translator) and entry.card.training.steps == 60


@pytest.mark.parametrize(("recipe", "at"), [("translate", 41), ("enlarge", 31)])
def test_resumed_training_is_the_same_to_the_last_bit(study: Path, tmp_path: Path, recipe: str, at: int) -> None:
    """Networks, moving average and both optimisers' state, after a training that was stopped while it played."""
    arguments = {"minutes": 5, "device": "cpu"}
    gan.train(study / f"{recipe}.toml", study, tmp_path / "whole", report=lambda line: None, **arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gan, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(gan.Run, "is_due", lambda self, what, seconds: True)
        with pytest.raises(KeyboardInterrupt):
            gan.train(study / f"{recipe}.toml", study, tmp_path / "parts", report=_interrupting(at), **arguments)
    said: list[str] = []
    gan.train(study / f"{recipe}.toml", study, tmp_path / "parts", resume=True, report=said.append, **arguments)
    assert f"resumed at step {at - 1}" in " ".join(said)
    whole, parts = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
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
    entry = gan.train(study / "enlarge.toml", study, tmp_path, minutes=5, device="cpu", report=said.append)
    assert entry.card.training.steps == 50
    values = dict(part.split() for part in [line for line in said if "held out" in line][-1].split(":")[1].split(","))
    assert float(values["psnr"]) > float(values["psnr_bicubic"])


def test_a_generator_learns_from_its_latent_code_and_the_encoder_does_not(study: Path) -> None:
    """BicycleGAN: the latent loss moves the generator only, else both would hide the code where no one sees it."""
    plan, _ = load_recipe(study / "translate.toml", gan.AdversarialRecipe)
    game = gan.TranslationGame(plan, gan.loop.make_fabric("cpu"), None)
    game.set_up()
    source = torch.rand(2, 1, 32, 32)
    contrast = torch.zeros(2, dtype=torch.long)
    answer = game.network["generator"](source, torch.randn(2, 3), 0, 1)
    game.fabric.backward(game._latent_recovered(answer, contrast, torch.randn(2, 3)))
    assert all(p.grad is None for p in game.network["encoder"].parameters())
    assert game.network["generator"].tail.weight.grad.abs().sum() > 0
    assert all(p.requires_grad for p in game.network["encoder"].parameters())


def test_without_an_encoder_it_is_pix2pix_with_noise(study: Path) -> None:
    plan, _ = load_recipe(study / "translate.toml", gan.AdversarialRecipe)
    spec = gan.AdversarialSpec(widths=(4, 6), encoder=())
    game = gan.TranslationGame(
        gan.AdversarialRecipe(**{**vars(plan), "adversarial": spec}), gan.loop.make_fabric("cpu"), None
    )
    game.set_up()
    batch = next(iter(torch.utils.data.DataLoader(game.pairs(Pack(study / "train.pack"), 0, 0), 4)))
    assert set(game.play(batch, True)) == {"l1", "gan", "anchor", "spread", "critic"}
    assert set(game.network) == {"generator", "critic_vae", "critic_lr"}


def test_without_vgg_the_published_recipe_stops_and_says_why(study: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingRequirement, match="VGG-19"):
        gan.train("mtsr-sr-inplane-x4", study, tmp_path, minutes=1, device="cpu", report=lambda line: None)
    plan, _ = load_recipe(study / "enlarge.toml", gan.AdversarialRecipe)
    wrong = gan.AdversarialRecipe(**{**vars(plan), "adversarial": gan.AdversarialSpec(features="inception")})
    with pytest.raises(UsageError, match="'inception', expected 'tissue' or 'vgg'"):
        gan.feature_loss(wrong)


@pytest.mark.parametrize(
    ("text", "old", "new", "complaint"),
    [
        (TRANSLATE, "batch = 4", "batch = 1", "optimisation.batch is 1, expected 2 or more: one half"),
        (TRANSLATE, "[adversarial]", '[adversarial]\nesrgan = "x.safetensors"', "fit the architecture 'rrdb'"),
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
        gan.train(tmp_path / "wrong.toml", tmp_path / "no data", tmp_path / "out", minutes=1, device="cpu")


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
    card = gan.train(recipe, study, tmp_path / "out", minutes=5, device="cpu", report=said.append).card
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert card.training.notes == f"started from ESRGAN weights, SHA-256 {digest}"
    assert "private" not in card.to_json()
    assert any("weights start from ESRGAN, 1 of its 1 blocks" in line and digest in line for line in said)


def test_every_process_draws_its_own_codes(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []

    def play(game: gan.Game, batch: object, adversarial: bool) -> dict[str, Tensor]:
        drawn.append(float(torch.randn(())))
        return {}

    monkeypatch.setattr(gan.TranslationGame, "play", play)
    monkeypatch.setattr(gan, "validate", lambda *arguments: None)
    (tmp_path / "short.toml").write_text(TRANSLATE.replace("steps = 60", "steps = 3"))
    for rank in (0, 1):
        monkeypatch.setattr(gan.loop.Fabric, "global_rank", property(lambda fabric, rank=rank: rank))
        out = tmp_path / str(rank)
        gan.train(tmp_path / "short.toml", study, out, minutes=5, seed=7, device="cpu", report=lambda line: None)
    alone = [float(torch.randn((), generator=torch.Generator().manual_seed(7 + step))) for step in range(3)]
    assert drawn[:3] == alone and len(set(drawn)) == 6


def test_the_latent_encoder_describes_a_distribution() -> None:
    mean, log_variance = LatentEncoder(widths=(4, 6), latent=5)(torch.rand(3, 1, 40, 56), torch.tensor([0, 1, 2]))
    assert mean.shape == log_variance.shape == (3, 5)


@pytest.mark.parametrize("name", [path.stem for path in FOLDER.glob("mtsr-*.toml")])
def test_shipped_recipes_name_a_network_and_a_loop(name: str) -> None:
    plan, _ = load_recipe(name, gan.AdversarialRecipe)
    assert loop_of(name) == "gan"
    with torch.device("meta"):
        networks.build(plan.architecture, plan.network)
    gan.loop.checked_card(plan)
