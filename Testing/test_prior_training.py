"""Both stages of TransMRSR's training: the prior and its centres, then super-resolution steered through it."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from torch.nn import functional

from MRSuperResLib import models, networks
from MRSuperResLib.errors import MissingRequirement, ModelError, UsageError
from MRSuperResLib.losses.style import CONVOLUTIONS, ContentAndStyle, VGG19Features, gram
from MRSuperResLib.networks.stylswin import StyleSwin, WaveletDiscriminator
from MRSuperResLib.networks.transmrsr import TransMRSR
from MRSuperResLib.training.card import checked_card
from MRSuperResLib.training.data.crops import SourceSpec
from MRSuperResLib.training.fit import fit
from MRSuperResLib.training.method import Context
from MRSuperResLib.training.methods import prior as prior_method
from MRSuperResLib.training.methods.prior import centres_of
from MRSuperResLib.training.pack import Pack
from MRSuperResLib.training.recipes import load_recipe
from MRSuperResLib.training.streams.slices import SharpSlices
from MRSuperResLib.training.streams.stream import StreamAugmentation, StreamSpec
from Testing.made_trainings import CARD, two_contrasts

NETWORK = """
channels = [8, 8, 8, 8]
latent = 6
head_width = 4
window = 4
"""
DATA = """
matrix = 32
patch = [8, 32]
shift = 2
sources = [{ match = "pairs/*" }]
"""
PRIOR = f"""
method = "prior"
architecture = "stylswin"
[network]
centres = 3
{NETWORK}
[optimisation]
learning_rate = 1e-3
batch = 4
[prior]
every = 3
latents = 64
[data]
{DATA}
[card]
id = "tiny-prior"
task = "prior"
{CARD}
"""
STEERED = f"""
method = "with_prior"
architecture = "transmrsr"
[network]
centres = 3
factors = [4, 1]
{NETWORK}
[optimisation]
learning_rate = 2e-3
batch = 4
[loss]
l1 = 1.0
content = 0.5
style = 0.5
[steering]
features = "tissue"
[data]
{DATA}
[validation]
every_minutes = 1e9
scans = ["pairs/*_T1w"]
degradation = "through-gaussian"
slices = 2
[card]
id = "tiny-transmrsr"
task = "super-resolve"
factors = [4, 1]
requirements = {{ smallest = 4, halo = 4, interpolated = true, input_size = 32 }}
{CARD.replace('"any"', '"through-plane"')}
"""


def recipe(folder: Path, name: str, text: str, *changes: tuple[str, str], steps: int = 6) -> Path:
    for old, new in (("[optimisation]", f"[optimisation]\nsteps = {steps}"), *changes):
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def train(path: Path, data: Path, out: Path, **options: object) -> Path:
    return fit(path, data, out, **({"minutes": 5.0, "device": "cpu", "report": lambda line: None} | options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_contrasts(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def package(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first stage."""
    folder = tmp_path_factory.mktemp("prior")
    return train(recipe(folder, "prior", PRIOR), data, folder / "out")


def test_the_first_stage_ships_a_generator_its_centres_and_a_picture(package: Path) -> None:
    from matplotlib.image import imread

    entry = models.read_entry(package)
    assert entry.card.task == "prior"
    assert "3 centres by k-means from 64 latents" in entry.card.training.notes
    generator = models.load_network(entry)
    assert isinstance(generator, StyleSwin)
    assert len(torch.unique(generator.centres, dim=0)) == 3
    assert imread(package.parent / "samples.png").shape[:2] == (8 * 32, 8 * 32)
    assert imread(package.parent / "samples-000006.png").shape[:2] == (8 * 32, 8 * 32)


def test_centres_are_the_means_of_the_latents_nearest_to_them() -> None:
    torch.manual_seed(0)
    generator = StyleSwin(channels=(8, 8), latent=4, head_width=4)
    centres = centres_of(generator, 3, 500, seed=5)
    noise = torch.randn(500, 4, generator=torch.Generator().manual_seed(5))
    latents = generator.mapping(noise)
    nearest = torch.cdist(latents, centres).argmin(1)
    means = torch.stack([latents[nearest == n].mean(0) for n in range(3)])
    torch.testing.assert_close(means, centres, atol=1e-3, rtol=1e-2)
    with pytest.raises(ModelError, match=r"prior\.latents is 2, expected at least as many as centres, 3"):
        centres_of(generator, 3, 2, seed=5)


def test_without_scikit_learn_it_says_before_the_first_step_what_to_install(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(MissingRequirement, match=r"pip install 'mrsuperres\[train\]'"):
        train(recipe(tmp_path, "prior", PRIOR), data, tmp_path / "out")
    assert not (tmp_path / "out" / "curves.csv").exists()


@pytest.mark.parametrize(("name", "text"), [("prior", PRIOR), ("steered", STEERED)])
def test_a_resumed_training_ends_where_an_uninterrupted_one_does(
    name: str, text: str, data: Path, package: Path, tmp_path: Path
) -> None:
    init = {"init": str(package)} if name == "steered" else {}
    options = {"validate": False, "seed": 7}
    whole = train(recipe(tmp_path, "whole", text, steps=6), data, tmp_path / "whole", **options, **init)
    train(recipe(tmp_path, "half", text, steps=3), data, tmp_path / "parts", **options, **init)
    parts = train(recipe(tmp_path, "rest", text, steps=6), data, tmp_path / "parts", resume=True, **options)
    one, other = load_file(whole), load_file(parts)
    assert one.keys() == other.keys()
    for key in one:
        assert torch.equal(one[key], other[key]), key


def test_one_step_of_the_game_moves_each_side_by_its_own_loss(data: Path, tmp_path: Path) -> None:
    plan, _ = load_recipe(recipe(tmp_path, "prior", PRIOR))
    method = prior_method.Prior(plan, Context(Fabric(accelerator="cpu", devices=1), tmp_path))
    method.set_up()
    method.wrap()
    before = {name: value.clone() for name, value in method.networks.state_dict().items()}
    method.set_rates(0, 0.0)
    real = torch.rand(4, 1, 32, 32)
    losses = method.training_step((real,))
    assert losses.keys() == {"discriminator", "real", "fake", "penalty", "gan"}
    softplus = functional.softplus
    assert float(losses["discriminator"]) == pytest.approx(
        float(softplus(-losses["real"]) + softplus(losses["fake"])), rel=0.2
    )
    moved = [name for name, value in method.networks.state_dict().items() if not torch.equal(value, before[name])]
    assert any(name.startswith("generator.mapping") for name in moved)
    assert any(name.startswith("discriminator.blocks") for name in moved)
    method.set_rates(1, 0.0)
    assert "penalty" not in method.training_step((real,))  # lazily: every third step here
    rates = {name: one.param_groups[0]["lr"] for name, one in method.optimisers.items()}
    assert rates["discriminator"] == pytest.approx(4 * rates["generator"])


def test_fakes_that_are_all_alike_show_to_the_discriminator(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deviation over a group, the last channel of what its last convolution takes, is of reals alone or of fakes alone."""
    plan, _ = load_recipe(recipe(tmp_path, "prior", PRIOR))
    method = prior_method.Prior(plan, Context(Fabric(accelerator="cpu", devices=1), tmp_path))
    method.set_up()
    method.wrap()
    method.set_rates(1, 0.0)  # a step without a penalty
    monkeypatch.setattr(method, "noise", lambda count: torch.ones(count, method.generator.latent))
    seen: list[torch.Tensor] = []
    critic = method.networks["discriminator"]
    assert isinstance(critic, WaveletDiscriminator)
    critic.last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][:, -1].detach().clone()))
    method.training_step((torch.rand(4, 1, 32, 32),))
    of_reals, of_fakes, of_the_generators = seen
    assert of_fakes.max() < 1e-3 and of_the_generators.max() < 1e-3  # 0, but for the epsilon under the root
    assert of_reals.min() > 0.01


def test_the_penalty_is_the_squared_gradient_of_the_scores(data: Path, tmp_path: Path) -> None:
    plan, _ = load_recipe(recipe(tmp_path, "prior", PRIOR))
    method = prior_method.Prior(plan, Context(Fabric(accelerator="cpu", devices=1), tmp_path))
    method.set_up()
    method.wrap()
    method.set_rates(0, 0.0)
    critic, real = method.networks["discriminator"].double(), torch.rand(4, 1, 32, 32, dtype=torch.float64)
    direction = torch.randn_like(real)
    step = 1e-4  # the deviation of groups is computed in fp32
    with torch.no_grad():
        numeric = (critic(real + step * direction) - critic(real - step * direction)).sum() / (2 * step)
    real.requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(real).sum(), real)
    assert float((gradient * direction).sum()) == pytest.approx(float(numeric), rel=1e-2)
    penalty = method.penalise(real)
    assert float(penalty.detach()) == pytest.approx(float(gradient.square().sum((1, 2, 3)).mean()), rel=1e-6)


def test_sharp_slices_are_a_function_of_seed_and_position(data: Path) -> None:
    spec = StreamSpec(sources=(SourceSpec("pairs/*"),), matrix=32, shift=2)
    pack = Pack(data / "train.pack")
    stream = iter(SharpSlices(pack, spec, 3, seed=1))
    first, second = (next(stream)[0] for _ in range(2))
    assert first.shape == (3, 1, 32, 32)
    assert not torch.equal(first, second)
    (resumed,) = next(iter(SharpSlices(pack, spec, 3, seed=1, start=3)))
    assert torch.equal(resumed, second)
    together = replace(spec, at_once=2)
    stream = iter(SharpSlices(pack, together, 3, seed=1))
    batches = [next(stream)[0] for _ in range(4)]
    (resumed,) = next(iter(SharpSlices(pack, together, 3, seed=1, start=9)))
    assert torch.equal(resumed, batches[3])
    assert not torch.equal(batches[1], batches[3])


def test_the_second_stage_starts_from_the_first_and_lowers_its_loss(data: Path, package: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    made = train(
        recipe(tmp_path, "steered", STEERED, steps=60), data, tmp_path / "out", init=str(package), report=lines.append
    )
    entry = models.read_entry(made)
    assert "started from 'tiny-prior' version 1" in entry.card.training.notes
    network = models.load_network(entry)
    assert isinstance(network, TransMRSR)
    torch.testing.assert_close(network.centres, models.load_network(models.read_entry(package)).centres)
    rows = [row.split(",") for row in (tmp_path / "out" / "curves.csv").read_text().splitlines()[1:]]
    losses = [float(row[3]) for row in rows if row[2] == "l1"]
    assert losses[-1] < 0.9 * losses[0]
    assert any("over bspline" in line for line in lines)  # the engine ran it: padded, interpolated, cut


def test_the_prior_can_stay_as_it_was(data: Path, package: Path, tmp_path: Path) -> None:
    frozen = recipe(tmp_path, "frozen", STEERED, ('features = "tissue"', 'features = "tissue"\nprior_rate = 0.0'))
    made = load_file(train(frozen, data, tmp_path / "frozen", init=str(package), validate=False))
    moving = load_file(
        train(recipe(tmp_path, "moving", STEERED), data, tmp_path / "moving", init=str(package), validate=False)
    )
    first = load_file(package)
    decoder = [name for name in first if name.startswith("decoder.")]
    assert all(torch.equal(made[name], first[name]) for name in decoder)
    assert not all(torch.equal(moving[name], first[name]) for name in decoder)


def test_a_second_stage_may_be_gone_on_with(data: Path, package: Path, tmp_path: Path) -> None:
    one = train(recipe(tmp_path, "one", STEERED), data, tmp_path / "one", init=str(package), validate=False)
    halved = (("factors = [4, 1]", "factors = [2, 1]"), ("patch = [8, 32]", "patch = [16, 32]"))
    two = recipe(tmp_path, "two", STEERED, *halved, steps=1)
    lines: list[str] = []
    train(two, data, tmp_path / "two", init=str(one), validate=False, report=lines.append)
    count = len(load_file(one))
    assert f"{count} of {count} weights start from '{one}'" in lines


def changed(package: Path, folder: Path, weights: dict[str, torch.Tensor] | None = None, **fields: object) -> Path:
    """`package` with other weights or fields of its card."""

    entry = models.read_entry(package)
    card = replace(entry.card, id="changed", **fields)  # type: ignore[arg-type]
    path = folder / "changed.safetensors"
    models.save_model(path, card, load_file(package) | (weights or {}))
    return path


def test_slices_of_another_size_than_the_networks_are_refused(data: Path, package: Path, tmp_path: Path) -> None:
    short = recipe(tmp_path, "short", STEERED, ("patch = [8, 32]", "patch = [4, 32]"))
    with pytest.raises(UsageError, match="makes slices of 16 x 32 pixels; the network takes 32 x 32"):
        train(short, data, tmp_path / "steered", init=str(package), validate=False)
    large = recipe(tmp_path, "large", PRIOR, ("matrix = 32", "matrix = 64"))
    with pytest.raises(UsageError, match=r"data\.matrix is 64, and the generator draws 32 pixels"):
        train(large, data, tmp_path / "prior", validate=False)


def test_without_a_prior_nothing_is_steered(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="this recipe steers a prior: give its package with --init"):
        train(recipe(tmp_path, "steered", STEERED), data, tmp_path / "out")


def test_the_ablation_without_a_prior_needs_none(data: Path, tmp_path: Path) -> None:
    """Table 3, without GP: random weights and no truncation."""
    alone = recipe(tmp_path, "alone", STEERED, ("centres = 3", "centres = 0"), steps=1)
    made = train(alone, data, tmp_path / "out", validate=False)
    assert len(models.load_network(models.read_entry(made)).centres) == 0  # type: ignore[arg-type]


def test_a_package_without_centres_is_refused(data: Path, package: Path, tmp_path: Path) -> None:
    empty = changed(package, tmp_path, {"centres": torch.zeros(3, 6)})
    with pytest.raises(ModelError, match="'changed' holds no centres of its latents: finish its training"):
        train(recipe(tmp_path, "steered", STEERED), data, tmp_path / "out", init=str(empty))


def test_a_package_of_another_size_is_refused(data: Path, package: Path, tmp_path: Path) -> None:
    other = recipe(tmp_path, "steered", STEERED, ("channels = [8, 8, 8, 8]", "channels = [8, 8, 16, 8]"))
    with pytest.raises(ModelError, match=r"'tiny-prior' is of another size: 'decoder\.levels"):
        train(other, data, tmp_path / "out", init=str(package))


def test_a_package_of_another_kind_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is of the architecture 'rdst', not a first stage"):
        train(recipe(tmp_path, "steered", STEERED), data, tmp_path / "out", init="rdst-e-through-x4")
    with pytest.raises(ModelError, match="no weight of"):
        train(recipe(tmp_path, "prior", PRIOR), data, tmp_path / "prior", init="rdst-e-through-x4")


def test_vgg_without_its_file_is_refused(data: Path, package: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"steering\.vgg is missing"):
        load_recipe(recipe(tmp_path, "steered", STEERED, ('features = "tissue"', 'features = "vgg"')))
    lost = recipe(tmp_path, "lost", STEERED, ('features = "tissue"', 'vgg = "no-such-file"'))
    with pytest.raises(MissingRequirement, match="no-such-file does not exist"):
        train(lost, data, tmp_path / "out", init=str(package))


@pytest.mark.parametrize("name", ["transmrsr-prior", "transmrsr-through-x8"])
def test_recipes_of_the_published_size_augment_as_the_paper_does(name: str) -> None:
    """Section 4.3: flips and transposition, nothing else; coarse slices are downsampled, without noise or motion."""
    plan, _ = load_recipe(name)
    assert plan.data.augmentation == StreamAugmentation(True, (1.0, 1.0), 0.0, StreamAugmentation.zoom, 0.0, 0.0)
    if name == "transmrsr-through-x8":
        scanner, optimisation = plan.data.scanner, plan.optimisation
        assert (scanner.noise, scanner.noise_probability, scanner.band_limited) == ((0.0, 0.0), 0.0, 0.0)
        assert (scanner.slices.motion_probability, scanner.slices.steps_probability) == (0.0, 0.0)
        assert (optimisation.batch, optimisation.ema, plan.steering.betas) == (6, 0.0, (0.5, 0.999))
        assert plan.loss == {"l1": 1.0, "content": 0.5, "style": 0.5}


def test_content_and_style_compare_what_the_equations_say(tmp_path: Path) -> None:
    """Eqs. 13 and 14 after the 2nd, 4th, 7th and 10th convolution, with made-up weights, against a plain reading."""
    torch.manual_seed(0)
    weights = {}
    for number, (out, into) in CONVOLUTIONS.items():
        weights[f"features.{number}.weight"] = torch.randn(out, into, 3, 3) / (3 * into) ** 0.5
        weights[f"features.{number}.bias"] = torch.randn(out) * 0.1
    save_file(weights, tmp_path / "vgg.safetensors")
    features = VGG19Features(weights)
    image = torch.rand(2, 1, 16, 16)
    x = (image.repeat(1, 3, 1, 1) - features.mean) / features.deviation
    plain, pools = [], {2: False, 5: True, 10: True, 19: True}
    for count, number in enumerate(CONVOLUTIONS, 1):
        if pools.get(number):
            x = functional.max_pool2d(x, 2)
        x = torch.relu(
            functional.conv2d(x, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"], padding=1)
        )
        if count in (2, 4, 7, 10):
            plain.append(x)
    found = features(image)
    assert [tuple(f.shape[1:]) for f in found] == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other)
    truth = torch.rand(2, 1, 16, 16)
    content, style = ContentAndStyle(features)(image, truth)
    wanted = features(truth)
    expected = sum(float((a - b).square().mean()) for a, b in zip(plain, wanted, strict=True))
    assert float(content) == pytest.approx(expected, rel=1e-4)
    products = [[torch.einsum("bchw,bdhw->bcd", f, f) / f[0].numel() for f in maps] for maps in (plain, wanted)]
    expected = sum(float((a - b).square().mean()) for a, b in zip(*products, strict=True))
    assert float(style) == pytest.approx(expected, rel=1e-4)
    assert gram(plain[0]).shape == (2, 64, 64)


def test_style_ignores_where_textures_are() -> None:
    class Raw(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
            return [torch.cat((image, image.square()), 1)]

    image = torch.rand(1, 1, 8, 8)
    mixed = image.flatten()[torch.from_numpy(np.random.default_rng(0).permutation(64))].view_as(image)
    content, style = ContentAndStyle(Raw())(image, mixed)
    assert float(content) > 0.01
    assert float(style) < 1e-10


@pytest.mark.parametrize("name", ["prior", "s-prior", "through-x8", "s-through-x4", "s-through-x8"])
def test_shipped_recipes_make_a_network_and_its_card(name: str) -> None:
    plan, _ = load_recipe(f"transmrsr-{name}")
    _, card = checked_card(plan)
    assert card.id == f"transmrsr-{name}"
    with torch.device("meta"):
        network = networks.build(plan.architecture, plan.network)
    assert network.size == 256
    assert len(network.centres) == 8  # type: ignore[arg-type]
    published = not name.startswith("s-")
    assert [level.width for level in network.decoder.levels] == (  # type: ignore[union-attr]
        [512, 512, 512, 512, 256, 128, 64] if published else [64, 64, 64, 64, 64, 32, 16]
    )
    if card.task == "super-resolve":
        assert card.requirements.input_size == 256 and card.requirements.interpolated
        assert plan.data.patch == (256 // int(card.factor or 0), 256)
        assert plan.loss == {"l1": 1.0, "content": 0.5 if published else 0.05, "style": 0.5}  # eq. 15; ours counts less


def test_both_stages_of_a_size_have_the_same_decoder() -> None:
    for size in ("", "s-"):
        prior, steered = (load_recipe(f"transmrsr-{size}{stage}")[0].network for stage in ("prior", "through-x8"))
        assert {name: value for name, value in steered.items() if name != "factors"} == prior


def test_the_compiler_takes_both_stages_as_one_graph() -> None:
    """No graph break, so that a compiled training runs whole on a GPU."""
    size = {"channels": (8, 8), "latent": 6, "head_width": 4, "window": 4}
    slices = torch.rand(2, 1, 8, 8)
    given = {StyleSwin: torch.randn(2, 6), TransMRSR: slices, WaveletDiscriminator: slices}
    for kind, x in given.items():
        network = kind(size["channels"]) if kind is WaveletDiscriminator else kind(**size)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        compiled = torch.compile(network, backend="eager", fullgraph=True)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), network(x))


@pytest.mark.parametrize(
    ("name", "table", "expected"),
    [
        ("TransMRSR", "network", {"centres": 8}),
        ("without GP", "network", {"centres": 0}),
        ("without SDT", "network", {"truncation": 1.0}),
        ("without MREF", "network", {"features": False}),
        ("without SC", "network", {"skip": False}),
        ("frozen GP", "steering", {"prior_rate": 0.0}),
    ],
)
def test_ablations_leave_out_one_part_each(name: str, table: str, expected: dict[str, object], tmp_path: Path) -> None:
    """Tables 3 and 4, as Testing/Benchmarks/transmrsr_ablation.py makes them."""
    script = Path(__file__).parent / "Benchmarks" / "transmrsr_ablation.py"
    spec = importlib.util.spec_from_file_location("transmrsr_ablation", script)
    assert spec is not None and spec.loader is not None
    ablation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ablation)
    whole, text = load_recipe("transmrsr-s-through-x8")
    path = tmp_path / "variant.toml"
    path.write_text(ablation.variant(text, name, steps=9))
    plan, _ = load_recipe(path)
    changed = plan.network if table == "network" else vars(plan.steering)
    assert {key: changed[key] for key in expected} == expected
    assert plan.optimisation == replace(whole.optimisation, steps=9)
    assert plan.data == whole.data
    networks.build(plan.architecture, plan.network)
