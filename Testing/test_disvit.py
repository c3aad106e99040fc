"""Mahapatra and Ge's three trainings: what they learn, that they resume to the last bit, and what their recipes say."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_trainings import CARD, two_contrasts
from safetensors.torch import load_file
from torch import nn

from MRSuperResLib import networks
from MRSuperResLib.errors import ModelError, UsageError
from MRSuperResLib.losses import unetr
from MRSuperResLib.losses.cosine import WEIGHTS, read_autoencoder
from MRSuperResLib.losses.unetr import read_transformer
from MRSuperResLib.models import find_model, load_network
from MRSuperResLib.training import fit as loop
from MRSuperResLib.training.card import checked_card
from MRSuperResLib.training.checkpoint import MovingAverage
from MRSuperResLib.training.fit import fit, make_fabric
from MRSuperResLib.training.method import Context
from MRSuperResLib.training.methods import pretext
from MRSuperResLib.training.methods.disentangled import Disentangled
from MRSuperResLib.training.methods.pretext import NAMES, PretextImages
from MRSuperResLib.training.pack import Pack
from MRSuperResLib.training.recipes import FOLDER, load_recipe

DISENTANGLE = """
method = "disentangle"
factors = [2, 2]
discriminator = 4
[network]
widths = [8, 8, 6, 6]
texture = 8
[optimisation]
learning_rate = 3e-3
batch = 4
steps = 40
[loss]
reconstruction = 1.0
adversarial = 0.01
swap = 0.01
[data]
patch = 16
sources = [{ match = "pairs/*", planes = "axial" }]
[data.degradation]
kinds = { bicubic = 1.0 }
"""
PRETEXT = """
method = "pretext"
[network]
size = "s"
[optimisation]
learning_rate = 1e-3
batch = 4
steps = 26
[pretext]
segmentation = 0.5
[loss]
dice_ce = 1.0
naming = 1.0
[data]
sources = [{ match = "pairs/*" }, { match = "labels/*" }]
"""
DISENTANGLED = f"""
method = "disentangled"
architecture = "srresnet"
[network]
blocks = 1
width = 8
factors = [2, 2]
skip = "zerofill"
head = "shuffle"
[optimisation]
learning_rate = 2e-3
batch = 2
steps = 30
[loss]
l1 = 1.0
adversarial = 0.001
vit = 0.01
structure = 0.01
texture = 0.01
[adversarial]
pretraining = 0.5
width = 4
[features]
autoencoder = "AUTOENCODER"
transformer = "TRANSFORMER"
compared_with = "high"
[data]
patch = 16
sources = [{{ match = "pairs/*", planes = "axial" }}]
[data.degradation]
kinds = {{ bicubic = 1.0 }}
[validation]
scans = ["pairs/*"]
slices = 2
[card]
id = "tiny-disvit"
task = "super-resolve"
factors = [2, 2]
{CARD.replace('"any"', '"in-plane"')}
"""


def quiet(line: str) -> None:
    """Nobody listens."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two contrasts of one head, a label map, the three recipes, and teachers of a few steps in teachers/."""
    folder = two_contrasts(tmp_path_factory.mktemp("study"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(unetr.SIZES, "s", {"spatial_dims": 2, "side": 32, "hidden": 64, "classes": 5})
        for name, text in (("disentangle", DISENTANGLE), ("pretext", PRETEXT)):
            (folder / f"{name}.toml").write_text(text)
            fit(folder / f"{name}.toml", folder, folder / name, minutes=5, device="cpu", report=quiet)
    text = DISENTANGLED.replace("AUTOENCODER", str(folder / "disentangle" / "autoencoder.safetensors"))
    text = text.replace("TRANSFORMER", str(folder / "pretext" / "transformer-s.safetensors"))
    (folder / "disentangled.toml").write_text(text)
    return folder


@pytest.fixture
def small_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size "s" is smaller than it is."""
    monkeypatch.setitem(unetr.SIZES, "s", {"spatial_dims": 2, "side": 32, "hidden": 64, "classes": 5})


def curve(folder: Path, name: str) -> list[float]:
    """The values of a loss or score, in order."""
    with open(folder / "curves.csv", newline="", encoding="utf-8") as stream:
        return [float(row["value"]) for row in csv.DictReader(stream) if row["name"] == name]


def test_an_autoencoder_learns_images_and_its_file_is_a_teacher(study: Path) -> None:
    found = curve(study / "disentangle", "reconstruction")
    assert found[-1] < 0.8 * found[0]
    assert curve(study / "disentangle", "held_out_swap")[-1] > 0
    teacher = read_autoencoder(study / "disentangle" / "autoencoder.safetensors")
    stored = load_file(study / "disentangle" / "last.checkpoint")
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, stored[f"average.{name}"].half().float())


def test_a_transformer_learns_tissues_first_and_then_planes(study: Path) -> None:
    tissues, planes = (curve(study / "pretext", name) for name in ("dice_ce", "naming"))
    assert tissues and planes and tissues[-1] < tissues[0]
    assert planes[-1] < 1.2  # from log 3 = 1.10 by the zero-initialised layer, and not apart
    teacher = read_transformer(study / "pretext" / "transformer-s.safetensors")
    stored = load_file(study / "pretext" / "last.checkpoint")
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(value, stored[f"average.unetr.{name}"].half().float())


def test_planes_are_those_of_the_scan(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head is 20 x 44 x 48 voxels: the crop of a plane shows those two of its sides, mirrored to 32 pixels."""
    monkeypatch.setattr(pretext.ndimage, "gaussian_filter", lambda image, width: image)  # so that mirrors are exact
    plan, _ = load_recipe(study / "pretext.toml")
    images = PretextImages(Pack(study / "train.pack"), plan.data.sources, 32, seed=3)
    seen = set()
    stream = iter(images)
    for _ in range(12):
        image, tissues, scan, plane = next(stream)
        assert image.shape == scan.shape == (1, 32, 32) and tissues.shape == (32, 32)
        rows = scan[0]
        mirrored = torch.allclose(rows[:6], rows[6:12].flip(0), atol=1e-5)  # (32 - 20) / 2 rows of mirror image
        assert mirrored == (NAMES[plane] != "axial")
        seen.add(NAMES[plane])
    assert seen == set(NAMES)


@pytest.mark.usefixtures("small_transformer")
@pytest.mark.parametrize(("recipe", "at"), [("disentangle", 12), ("pretext", 15), ("disentangled", 20)])
def test_resumed_training_is_the_same_to_the_last_bit(study: Path, tmp_path: Path, recipe: str, at: int) -> None:
    """Networks, moving average and every optimiser's state, after a training that was stopped."""
    fit(study / f"{recipe}.toml", study, tmp_path / "whole", minutes=5, device="cpu", report=quiet, validate=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Run, "is_due", lambda self, what, seconds: True)
        patch.setattr(loop.Run, "tell", _interrupting(at))
        patch.setattr(loop, "CURVE_STEPS", 1)
        with pytest.raises(KeyboardInterrupt):
            fit(
                study / f"{recipe}.toml",
                study,
                tmp_path / "parts",
                minutes=5,
                device="cpu",
                report=quiet,
                validate=False,
            )
    said: list[str] = []
    arguments = {"minutes": 5, "device": "cpu", "resume": True, "validate": False}
    fit(study / f"{recipe}.toml", study, tmp_path / "parts", report=said.append, **arguments)  # type: ignore[arg-type]
    assert f"resumed at step {at - 1}" in " ".join(said)
    whole, parts = (load_file(tmp_path / name / "last.checkpoint") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and any(name.startswith("adam.") for name in whole)
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name


def _interrupting(at: int) -> Callable[[loop.Run], None]:
    def tell(run: loop.Run) -> None:
        if run.progress.step == at:
            raise KeyboardInterrupt

    return tell


def test_super_resolution_with_feature_losses_trains_and_ships(study: Path, tmp_path: Path) -> None:
    path = fit(study / "disentangled.toml", study, tmp_path, minutes=5, device="cpu", report=quiet)
    entry = find_model(path)
    assert entry.card.training.steps == 30
    network = load_network(entry)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    for name in ("adversarial", "vit", "structure", "texture", "discriminator"):
        assert curve(tmp_path, name), name
    assert (tmp_path / "pretrained" / "tiny-disvit.safetensors").is_file()


@pytest.mark.parametrize("without", ["adversarial", "vit", "structure", "texture", ("structure", "texture")])
def test_ablations_are_weights(study: Path, tmp_path: Path, without: str | tuple[str, ...]) -> None:
    """A loss without weight has no part in the step, and a teacher that nobody asks is not read."""
    names = (without,) if isinstance(without, str) else without
    plan, _ = load_recipe(study / "disentangled.toml")
    files = plan.features
    if "vit" in names:
        files = replace(files, transformer="")
    if {"structure", "texture"} <= set(names):
        files = replace(files, autoencoder="")
    plan = replace(plan, loss={name: value for name, value in plan.loss.items() if name not in names}, features=files)
    method = Disentangled(plan, Context(make_fabric("cpu"), tmp_path))
    method.set_up()
    method.wrap()
    method.adversarial = True
    losses = method.training_step((torch.rand(2, 1, 16, 16), torch.rand(2, 1, 32, 32)))
    expected = {"l1", "adversarial", "vit", "structure", "texture", "discriminator"} - set(names)
    assert set(losses) == expected - ({"discriminator"} if "adversarial" in names else set())
    assert ("discriminator" in method.networks) == ("adversarial" not in names)


@pytest.mark.parametrize("compared_with", ["low", "high"])
def test_features_are_compared_with_the_image_that_the_recipe_names(
    study: Path, tmp_path: Path, compared_with: str
) -> None:
    """The generator answers interpolation at first: its features are those of "low", and not those of another sharp image."""
    plan, _ = load_recipe(study / "disentangled.toml")
    plan = replace(
        plan,
        network={**plan.network, "skip": "bicubic"},
        features=replace(plan.features, compared_with=compared_with),  # type: ignore[arg-type]
    )
    method = Disentangled(plan, Context(make_fabric("cpu"), tmp_path))
    method.set_up()
    method.wrap()
    low, high = torch.rand(2, 1, 16, 16), torch.zeros(2, 1, 32, 32)
    high[..., 16:] = 1
    losses = method.generator_losses((low, high), True)
    for name in ("vit", "structure", "texture"):
        assert (losses[name].item() < 1e-4) == (compared_with == "low"), name


def test_counts_are_not_averaged() -> None:
    """A count of batches beyond 65504 would be infinite in fp16."""
    network = nn.BatchNorm2d(2)
    average = MovingAverage(network, 0.999)
    network(torch.rand(4, 2, 3, 3) + 1)
    average.update(network, 100)
    assert average.weights["num_batches_tracked"] == 1 and average.weights["num_batches_tracked"].dtype == torch.int64
    assert 0 < average.weights["running_mean"].min() < network.running_mean.min()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "old", "new", "complaint"),
    [
        (
            DISENTANGLE,
            "patch = 16",
            "patch = 12",
            "data.patch is 12: sharp crops have 24 x 24 pixels, expected multiples of 16",
        ),
        (DISENTANGLE, "batch = 4", "batch = 1", "optimisation.batch is 1, expected 2 or more: textures are swapped"),
        (DISENTANGLE, "texture = 8", "textures = 8", "textures"),
        (DISENTANGLE, "[8, 8, 6, 6]", "[8, 8]", "widths are \\[8, 8\\], expected four"),
        (DISENTANGLE, "kinds = { bicubic = 1.0 }", "", "data.degradation is missing"),
        (PRETEXT, '"s"', '"published"', "expected a size alone, one of b, s"),
        (PRETEXT, "segmentation = 0.5", "segmentation = 2.0", "pretext.segmentation is 2.0"),
        (DISENTANGLED, 'autoencoder = "AUTOENCODER"', "", "features.autoencoder is missing, and loss.structure"),
        (DISENTANGLED, 'transformer = "TRANSFORMER"', "", "features.transformer is missing, and loss.vit"),
        (DISENTANGLED, '"high"', '"truth"', "features.compared_with"),
        (DISENTANGLED, "l1 = 1.0", "", "adversarial.pretraining is on L1 alone"),
        (DISENTANGLED, "patch = 16", "patch = 4", "data.patch is 4"),
    ],
)
def test_wrong_recipes_are_refused_before_anything_is_read(
    tmp_path: Path, text: str, old: str, new: str, complaint: str
) -> None:
    assert old in text
    (tmp_path / "wrong.toml").write_text(text.replace(old, new))
    with pytest.raises(UsageError, match=complaint):
        fit(tmp_path / "wrong.toml", tmp_path / "no data", tmp_path / "out", minutes=1, device="cpu")


def test_a_teacher_that_is_not_there_is_named(study: Path, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(DISENTANGLED)
    with pytest.raises(ModelError, match=r"AUTOENCODER holds no swapping autoencoder .* method 'disentangle'"):
        fit(tmp_path / "r.toml", study, tmp_path / "out", minutes=1, device="cpu", report=quiet)


@pytest.mark.usefixtures("small_transformer")
@pytest.mark.parametrize(("match", "what"), [("pairs/*", "label map"), ("labels/*", "scan")])
def test_a_pretext_needs_label_maps_and_scans(study: Path, tmp_path: Path, match: str, what: str) -> None:
    (tmp_path / "r.toml").write_text(
        PRETEXT.replace('[{ match = "pairs/*" }, { match = "labels/*" }]', f'[{{ match = "{match}" }}]')
    )
    with pytest.raises(UsageError, match=f"no {what} in train.pack"):
        fit(tmp_path / "r.toml", study, tmp_path / "out", minutes=1, device="cpu", report=quiet)


@pytest.mark.parametrize(
    "name", ["inplane-x2", "inplane-x4", "through-x4", "through-x8", "inplane-x2-features", "inplane-x4-features"]
)
def test_shipped_recipes_make_a_network_and_its_card(name: str) -> None:
    plan, _ = load_recipe(f"disvit-{name}")
    card = checked_card(plan)[1]
    assert (
        card.id == f"disvit-{name.removesuffix('-features')}"
        and card.plane is not None
        and card.plane.startswith(name[:2])
    )
    network = networks.build(plan.architecture, plan.network)
    x = torch.rand(1, 1, 8, 11)
    with torch.no_grad():
        assert network(x).shape == (1, 1, 8 * card.factors[0], 11 * card.factors[1])  # type: ignore[index]


def test_published_recipes_train_as_the_paper_does() -> None:
    """Section 4.1: losses and their weights, batches, rates, optimisers; eq. 6 for the autoencoder; no loss in the pixels."""
    plan, _ = load_recipe("disvit-inplane-x4-published")
    assert plan.method == "disentangled" and plan.loss == {"adversarial": 1.0, **WEIGHTS}
    assert WEIGHTS == {"vit": 1.0, "structure": 1.0, "texture": 0.9}
    assert plan.optimisation.batch == 256 and plan.adversarial.weight_decay == 0.1 and plan.adversarial.pretraining == 0
    assert plan.features.compared_with == "low"
    assert plan.optimisation.ema == 0 and plan.data == plan.data.without_augmentation(plan.data.sources)
    noise = plan.data.degradation
    assert (noise.noise, noise.noise_probability, noise.rician, noise.bias) == ((0.0, 0.0), 0.0, 0.0, 0.0)
    network = networks.build(plan.architecture, plan.network)
    assert network.skip == "none" and network.head == "published" and network.gains is None
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    plan, _ = load_recipe("disvit-disentangle")
    assert plan.loss == {"reconstruction": 1.0, "adversarial": 0.7, "swap": 0.7} and plan.network == {}
    assert plan.data.patch * plan.factors[0] == 256
    plan, _ = load_recipe("disvit-pretext-b")
    assert (plan.optimisation.batch, plan.optimisation.learning_rate, plan.optimisation.steps) == (6, 1e-4, 20_000)
    assert plan.network == {"size": "b"}


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("disvit-*.toml")))
def test_every_recipe_is_one(name: str) -> None:
    plan, text = load_recipe(name)
    assert plan.about and "method" in text
