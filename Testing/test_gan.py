"""MTSR-MRI's networks, losses, pairs and adversarial training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MRSuperResLib import networks
from MRSuperResLib.errors import MissingRequirement, UsageError
from MRSuperResLib.losses.adversarial import FAKE, REAL, judged, kl_divergence
from MRSuperResLib.models import find_model, load_network
from MRSuperResLib.networks.patchgan import MultiScaleDiscriminator, PatchDiscriminator
from MRSuperResLib.networks.translation import LatentEncoder, Translator
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
schedule = "cosine"
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
[data.degradation]
kinds = {{ bicubic = 1.0 }}
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


def test_a_pair_depends_on_its_number_alone(study: Path) -> None:
    pairs = _pairs(study, DisturbanceSpec())
    first = [torch.cat(pair[:2]) for pair, _ in zip(pairs, range(5), strict=False)]
    pairs.start = 3
    again = next(iter(pairs))
    torch.testing.assert_close(first[3], torch.cat(again[:2]))
    labels = _pairs(study, DisturbanceSpec(), "labels/*").pair(np.random.default_rng(0))
    assert np.isfinite(labels[0]).all() and labels[2] != labels[3]


# Training


def test_translation_trains_beats_copying_and_resumes_exactly(study: Path, tmp_path: Path) -> None:
    said: list[str] = []
    recipe = study / "translate.toml"
    entry = gan.train(recipe, study, tmp_path / "whole", minutes=5, device="cpu", report=said.append)
    scores = [line for line in said if "held out" in line][-1]
    values = dict(part.split() for part in scores.split(":")[1].split(","))
    assert float(values["psnr_zero"]) > float(values["psnr_copy"]) + 2 and float(values["spread"]) > 0
    assert (tmp_path / "whole" / "pretrained" / "tiny-mt.safetensors").is_file()  # the regressor to compare with
    network = load_network(find_model(str(entry.path)))
    assert isinstance(network, Translator) and entry.card.training.steps == 60

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gan, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(gan.Clock, "is_due", lambda self, what, seconds: True)
        with pytest.raises(KeyboardInterrupt):
            gan.train(recipe, study, tmp_path / "parts", minutes=5, device="cpu", report=_interrupting(at=41))
    resumed = gan.train(recipe, study, tmp_path / "parts", minutes=5, device="cpu", resume=True, report=said.append)
    assert "resumed at step 40" in " ".join(said)
    for name, value in load_network(find_model(str(resumed.path))).state_dict().items():
        torch.testing.assert_close(value, network.state_dict()[name], rtol=0, atol=2e-3)


def _interrupting(at: int) -> Callable[[str], None]:
    """A report that stops the training when it hears of a validation for the `at`th time, before that step is saved."""
    heard: list[str] = []

    def report(line: str) -> None:
        heard.append(line)
        if sum("held out" in line for line in heard) == at:
            raise KeyboardInterrupt

    return report


def test_super_resolution_plays_against_its_discriminator(study: Path, tmp_path: Path) -> None:
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
