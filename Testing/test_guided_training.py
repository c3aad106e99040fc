"""Guided training: pairs line up, references are disturbed as said, a run resumes exactly and ends in a package that loads."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import save_file

from MRSuperResLib import networks
from MRSuperResLib.errors import UsageError
from MRSuperResLib.losses.tissue import TissueFeatures
from MRSuperResLib.models import ModelCard, ModelEntry, Requirements, find_model, load_network, save_model
from MRSuperResLib.networks import fasr
from MRSuperResLib.training import fit as loop
from MRSuperResLib.training.card import checked_card
from MRSuperResLib.training.checkpoint import LAST, MovingAverage
from MRSuperResLib.training.data import crops
from MRSuperResLib.training.data import guided as data
from MRSuperResLib.training.data.crops import PairDrawer, SourceSpec, moved
from MRSuperResLib.training.data.guided import GuidedPairs, half_plane
from MRSuperResLib.training.fit import fit, make_fabric
from MRSuperResLib.training.method import Context
from MRSuperResLib.training.methods import guided
from MRSuperResLib.training.methods.guided import GuidanceSpec, GuidedMethod
from MRSuperResLib.training.pack import Pack, pack
from MRSuperResLib.training.recipes import FOLDER, load_recipe

RECIPE = """
method = "guided"
architecture = "fasr"
[network]
size = "s"
widths = [4, 4, 4]
stages = 1
embedding = 4
factors = [2, 2]
[optimisation]
learning_rate = 1e-3
batch = 2
[loss]
l1 = 1.0
fourier = 0.1
[guidance]
coarse = 0.0
rest_rate = 0.5
[data]
patch = 8
sources = [{ match = "multicontrast/*" }, { match = "labels/*", weight = 0.3 }]
[data.degradation]
kinds = { bicubic = 1.0 }
[validation]
every_minutes = 1000
[card]
id = "tiny-guided"
title = "Tiny"
version = "1"
task = "reference-guided"
plane = "in-plane"
factors = [2, 2]
contrasts = ["T1w"]
reference_contrasts = ["T2w"]
spacing = { in_plane = [0.5, 5.0], through_plane = [0.5, 5.0] }
licence = "Apache-2.0"
intended_use = "Tests. Research use only."
"""
CLEAN = {"misaligned": 0.0, "missing": 0.0, "partial": 0.0, "wrong": 0.0, "noise": 0.0}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and val/ with one head in two contrasts, and a label map."""
    folder = tmp_path_factory.mktemp("guided")
    k, j, i = np.meshgrid(*(np.arange(n) for n in (40, 44, 48)), indexing="ij")
    head = ((k - 20) / 18) ** 2 + ((j - 22) / 20) ** 2 + ((i - 24) / 22) ** 2 < 1
    tissue = np.sin(k / 3.0) * np.cos(j / 2.5) + 0.4 * np.sin(i / 2.0)
    images = {
        "multicontrast/a_T1w": head * (600 + 300 * tissue),
        "multicontrast/a_T2w": head * (700 - 250 * tissue),
        "labels/b": head.astype(np.int16) * (1 + (tissue > 0)).astype(np.int16),
    }
    for part in ("train", "val"):
        for name, array in images.items():
            path = folder / part / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(sitk.GetImageFromArray(array if "labels" in name else array.astype(np.float32)), str(path))
    (folder / "tiny.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def packed(study: Path) -> Pack:
    return pack(study / "train", study / "train.pack")


def pairs(study: Path, packed: Pack, factors: tuple[int, int] = (2, 2), **changes: float) -> GuidedPairs:
    plan, _ = load_recipe(study / "tiny.toml")
    return GuidedPairs(packed, plan.data, GuidanceSpec(**{**CLEAN, **changes}), factors, seed=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("factors", [(2, 2), (4, 1)])
def test_a_reference_shows_the_same_place_as_its_truth(study: Path, packed: Pack, factors: tuple[int, int]) -> None:
    """Edges of the two contrasts coincide, and no longer do when the reference is shifted by three pixels."""
    here, there = [], []
    for low, high, reference, valid in islice(pairs(study, packed, factors), 16):
        assert low.shape == (1, 8, 8) and high.shape == reference.shape == valid.shape == (
            1,
            8 * factors[0],
            8 * factors[1],
        )
        assert valid.all()
        edges = [np.hypot(*np.gradient(image[0].numpy())) for image in (high, reference)]
        if min(edge.std() for edge in edges) > 0:
            here.append(np.corrcoef(edges[0].ravel(), edges[1].ravel())[0, 1])
            there.append(np.corrcoef(edges[0].ravel(), np.roll(edges[1], 3, 1).ravel())[0, 1])
    assert np.mean(here) > 0.5 and np.mean(here) > np.mean(there) + 0.3


def test_half_the_pairs_from_labels_are_two_usual_contrasts(
    study: Path, packed: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PDw among them, which no scan to train on has; the rest are two contrasts nobody has seen."""
    named, made = [], crops.synthesise_contrasts
    monkeypatch.setattr(
        crops,
        "synthesise_contrasts",
        lambda labels, names, rng: named.append(tuple(names)) or made(labels, names, rng),
    )
    plan, _ = load_recipe(study / "tiny.toml")
    spec = replace(plan.data, sources=(SourceSpec("labels/*"),))
    stream = GuidedPairs(packed, spec, GuidanceSpec(**CLEAN), (2, 2), seed=3)  # type: ignore[arg-type]
    for _, high, reference, _ in islice(stream, 60):
        assert not torch.equal(high, reference)
    assert 15 < len(named) and all(one != other for one, other in named)
    assert {one for one, _ in named} == {other for _, other in named} == {"T1w", "T2w", "FLAIR", "PDw"}


def test_a_wrong_reference_has_the_shape_of_the_right_one_through_the_plane(study: Path, packed: Pack) -> None:
    for low, high, reference, valid in islice(pairs(study, packed, (4, 1), wrong=1.0), 24):
        assert low.shape == (1, 8, 8) and high.shape == reference.shape == valid.shape == (1, 32, 8)


def test_references_go_missing_wrong_and_astray_as_often_as_said(study: Path, packed: Pack) -> None:
    missing = [float(valid.mean()) for *_, valid in islice(pairs(study, packed, missing=0.5), 60)]
    assert 15 < sum(value == 0 for value in missing) < 45 and set(missing) == {0.0, 1.0}
    for (_, high, reference, valid), (_, same, other, _) in zip(
        islice(pairs(study, packed, missing=1.0, wrong=1.0), 4), islice(pairs(study, packed), 4), strict=True
    ):
        assert not valid.any() and not reference.any(), "where there is no reference its values are 0"
        assert torch.equal(high, same) and other.any(), "the disturbance leaves the truth alone"
    cut = half_plane((32, 32), np.random.default_rng(0))
    assert set(np.unique(cut)) == {0.0, 1.0} and 0.1 < cut.mean() < 0.9


def test_a_moved_reference_moves_by_the_millimetres_asked() -> None:
    rows, columns = np.meshgrid(np.arange(40.0), np.arange(40.0), indexing="ij")
    spot = np.exp(-((rows - 18) ** 2 + (columns - 22) ** 2) / 8).astype(np.float32)
    there = moved(spot, np.array([3.0, -2.0]), 0.0)
    assert np.unravel_index(there.argmax(), there.shape) == (21, 20)
    turned = moved(spot, np.zeros(2), np.pi / 2)
    assert np.unravel_index(turned.argmax(), turned.shape) in {(17, 18), (22, 21)}
    assert turned.sum() == pytest.approx(spot.sum(), rel=1e-3)


def test_a_stream_goes_on_where_it_stopped(study: Path, packed: Pack) -> None:
    plan, _ = load_recipe(study / "tiny.toml")
    whole = list(islice(GuidedPairs(packed, plan.data, plan.guidance, (2, 2), seed=1), 5))
    rest = list(islice(GuidedPairs(packed, plan.data, plan.guidance, (2, 2), seed=1, start=3), 2))
    for one, other in zip(whole[3:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_training_ends_in_a_package_and_goes_on_from_its_checkpoint(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps, then two more, are the four steps of one run: weights, moments and data all resume."""
    limit = [4]
    monkeypatch.setattr(loop.Run, "done", lambda run: 1.0 if run.progress.step >= limit[0] else 0.5)
    said: list[str] = []
    run = {"minutes": 1.0, "device": "cpu", "report": said.append, "validate": False}
    entry = find_model(fit(study / "tiny.toml", study, tmp_path / "once", **run))  # type: ignore[arg-type]
    limit[0] = 2
    fit(study / "tiny.toml", study, tmp_path / "twice", **run)  # type: ignore[arg-type]
    limit[0] = 4
    again = find_model(fit(study / "tiny.toml", study, tmp_path / "twice", resume=True, **run))  # type: ignore[arg-type]
    assert entry.card.task == "reference-guided" and entry.card.training.steps == 4
    assert entry.card.training.notes == "texture extractor from random weights"
    one, other = (load_network(find_model(str(e.path))) for e in (entry, again))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    start = networks.build("fasr", entry.card.hyperparameters)
    answer = one(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 16, 16))
    assert answer.shape == (1, 1, 16, 16) and start.factors == (2, 2)
    assert (tmp_path / "once" / "curves.csv").read_text().startswith("step,minutes,name,value\n1,")


def test_every_method_has_its_networks_on_the_device_before_it_resumes(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`load_checkpoint` puts moments where the weights are: on a GPU they must be there by then. The meta device stands in."""
    there: list[set[str]] = []

    class Elsewhere(loop.Fabric):  # type: ignore[misc]
        device = torch.device("meta")

    def load(path: Path, network: torch.nn.Module, average: MovingAverage, *rest: object) -> None:
        there.append({value.device.type for value in (*network.state_dict().values(), *average.weights.values())})
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "make_fabric", lambda device: Elsewhere(accelerator="cpu", devices=1))
    monkeypatch.setattr(loop, "load_checkpoint", load)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LAST).touch()
    for recipe in ("rdst-e-inplane-x4", study / "tiny.toml", "mtsr-mt-s"):
        with pytest.raises(KeyboardInterrupt):
            fit(recipe, tmp_path, tmp_path / "out", minutes=1.0, resume=True, report=lambda line: None)
    assert there == [{"meta"}] * 3


def with_single_image_model(study: Path, tmp_path: Path) -> tuple[Path, ModelEntry]:
    """The tiny recipe around a single-image model in a file, whose pairs serve three steps each."""
    inner = {"blocks": 1, "width": 8, "heads": 2, "growth": 4, "window": 4, "skip": "bicubic", "factors": [2, 2]}
    torch.manual_seed(5)
    base = networks.build("rdst", inner)
    torch.nn.init.normal_(base.tail.weight, std=0.02)  # type: ignore[union-attr, arg-type]
    card = ModelCard(
        id="tiny-single", title="Tiny", version="7", architecture="rdst", task="super-resolve", plane="in-plane", factors=(2, 2),
        contrasts=("any",), spacing=None, licence="Apache-2.0", intended_use="Tests", hyperparameters=inner,
    )  # fmt: skip
    entry = save_model(tmp_path / "single.safetensors", card, base.state_dict())
    recipe = tmp_path / "based.toml"
    recipe.write_text(
        RECIPE.replace("[guidance]", f'[guidance]\nbase = "{entry.path}"\nreuse = 3\ngain = 0.2').replace(
            "stages = 1", "stages = 1\nhints = true"
        )
    )
    return recipe, entry


def test_training_around_a_single_image_model_keeps_it_and_packs_it(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.Run, "done", lambda run: 1.0 if run.progress.step >= 8 else 0.5)
    monkeypatch.setattr(data, "CAPACITY", 4)
    recipe, single = with_single_image_model(study, tmp_path)
    said: list[str] = []
    entry = find_model(fit(recipe, study, tmp_path / "run", minutes=1.0, device="cpu", report=said.append))
    assert "tiny-single version 7" in entry.card.training.notes and single.digest[:12] in entry.card.training.notes
    weights, base = load_network(entry).state_dict(), load_network(single).state_dict()
    assert all(torch.equal(weights[f"base.{name}"], value) for name, value in base.items())
    assert weights["decoder.tail.weight"].any(), "nothing was learnt"
    assert any("base_l1" in line for line in said)
    fit(recipe, study, tmp_path / "run", minutes=1.0, device="cpu", resume=True, report=said.append)


def test_a_training_that_never_sees_a_reference_ends(study: Path, tmp_path: Path) -> None:
    """The base alone answers, so there is nothing to learn; the minutes pass all the same."""
    recipe, _ = with_single_image_model(study, tmp_path)
    recipe.write_text(recipe.read_text().replace("coarse = 0.0", "coarse = 0.0\nmissing = 1.0"))
    entry = find_model(fit(recipe, study, tmp_path / "run", minutes=0.01, device="cpu", report=lambda line: None))
    assert entry.card.training.steps == 0


def vgg_file(folder: Path) -> tuple[Path, str]:
    """A file with VGG-19's first convolutions, random, and its SHA-256."""
    layers = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256)}
    weights = {f"features.{n}.weight": torch.randn(out, into, 3, 3) for n, (out, into) in layers.items()}
    weights |= {f"features.{n}.bias": torch.randn(out) for n, (out, _) in layers.items()}
    save_file(weights, folder / "vgg.safetensors")
    return folder / "vgg.safetensors", hashlib.sha256((folder / "vgg.safetensors").read_bytes()).hexdigest()


def test_vgg_starts_the_published_extractor_and_fits_no_other(study: Path, tmp_path: Path) -> None:
    path, digest = vgg_file(tmp_path)
    network = networks.build("fasr", {"stages": 1, "blocks": 1})
    assert isinstance(network, fasr.FASR)
    features, started = guided.started(network, GuidanceSpec(vgg=str(path), vgg_digest=digest.upper()))
    assert started == f"VGG-19, SHA-256 {digest}" and features is not None
    for one, other in zip(network.extractor.parameters(), features.parameters(), strict=True):
        assert torch.equal(one, other)
    recipe = tmp_path / "small.toml"
    recipe.write_text(RECIPE.replace("[guidance]", f'[guidance]\nvgg = "{path.as_posix()}"\nvgg_digest = "{digest}"'))
    with pytest.raises(UsageError, match="published size: conv1_1"):
        fit(recipe, study, tmp_path / "run", minutes=1.0, device="cpu", report=lambda line: None)


def test_our_tissue_network_stands_in_for_vgg_where_a_recipe_says_so(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.Run, "done", lambda run: 1.0 if run.progress.step >= 1 else 0.5)
    recipe, seen = tmp_path / "tissue.toml", []
    recipe.write_text(
        RECIPE.replace("fourier = 0.1", "perceptual = 1.0").replace("coarse", 'features = "tissue"\ncoarse')
    )

    class Watched(guided.GuidedLoss):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            seen.append(self.perceptual)

    monkeypatch.setattr(guided, "GuidedLoss", Watched)
    fit(recipe, study, tmp_path / "run", minutes=1.0, device="cpu", report=lambda line: None)
    assert isinstance(seen[0].extractor, TissueFeatures)


def test_tiles_fit_the_single_image_model_inside(study: Path, tmp_path: Path) -> None:
    """The recipe's tokens ask for 6, the single-image model's windows for 4."""
    recipe, single = with_single_image_model(study, tmp_path)
    save_model(
        single.path or "",
        replace(single.card, requirements=Requirements(multiple_of=4)),
        load_network(single).state_dict(),
    )
    recipe.write_text(recipe.read_text().replace("[card]", "[card]\nrequirements = { multiple_of = 6 }"))
    plan = GuidedMethod.completed(load_recipe(recipe)[0])
    assert checked_card(plan)[1].requirements.multiple_of == 12


def test_a_reservoir_shows_each_pair_several_times_and_replaces_them(
    study: Path, packed: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 pairs drawn, 2 a batch, 4 kept: the first two batches fill it, every later one serves three steps; all six images fit."""
    monkeypatch.setattr(data, "CAPACITY", 4)
    recipe, _ = with_single_image_model(study, tmp_path)
    plan = GuidedMethod.completed(load_recipe(recipe)[0])
    network = networks.build("fasr", plan.network)
    assert isinstance(network, fasr.FASR)
    stream = torch.utils.data.DataLoader(pairs(study, packed), batch_size=2)
    reservoir = data.Reservoir(islice(stream, 6), network, make_fabric("cpu"), reuse=3, seed=0)
    batches = list(reservoir)
    assert reservoir.drawn == 12 and len(batches) == 1 + 5 * 3
    kinds = {round(float(pair.sum()), 3) for batch in batches for pair in batch[1]}
    assert 4 < len(kinds) <= 12  # a flip does not change the sum
    for low, high, reference, valid, up, down_up in batches:
        assert low.shape == (2, 1, 8, 8) and all(
            i.shape == (2, 1, 16, 16) for i in (high, reference, valid, up, down_up)
        )
        assert (up - high).abs().mean() < (up - high.flip(-1)).abs().mean()  # turned together


def test_the_losses_that_are_ours_are_what_they_say() -> None:
    truth = torch.rand(2, 1, 16, 16)
    answer = truth + torch.tensor([0.1, 0.01])[:, None, None, None]
    assert float(guided.GuidedLoss({"l2": 2.0})(answer, truth, True)) == pytest.approx(0.01 + 0.0001, rel=1e-4)
    assert float(guided.GuidedLoss({"psnr": 1.0})(answer, truth, True)) == pytest.approx(-(20 + 40) / 2 / 10, rel=1e-4)
    same = truth.clone().requires_grad_()
    guided.GuidedLoss({"psnr": 1.0})(same, truth, True).backward()
    assert same.grad is not None and torch.isfinite(same.grad).all()


def test_validation_scores_the_reference_noise_and_none(study: Path, tmp_path: Path) -> None:
    """An untrained network gives bicubic whatever the reference: four equal scores."""
    plan, _ = load_recipe(study / "tiny.toml")
    said: list[str] = []
    method = GuidedMethod(plan, Context(make_fabric("cpu"), tmp_path, said.append))
    validator = method.validator(pack(study / "val", tmp_path / "val.pack"))
    assert validator is not None
    scores = validator(networks.build("fasr", plan.network).eval(), 0)
    assert set(scores) == {"psnr", "psnr_noise", "psnr_alone", "psnr_bicubic"}
    assert max(scores.values()) - min(scores.values()) < 1e-3 and "noise" in said[-1]


def test_the_extractor_and_the_rest_learn_at_their_own_rates() -> None:
    network = networks.build("fasr", {"size": "s", "widths": [4, 4, 4], "stages": 1})
    extractor, rest = guided.parameter_groups(network, 0.1)
    assert extractor["ratio"] == 1.0 and rest["ratio"] == 0.1
    sizes = [len(group["params"]) for group in (extractor, rest)]  # type: ignore[arg-type]
    assert sizes[0] == 12 and sum(sizes) == len(list(network.parameters()))
    with pytest.raises(UsageError, match="texture extractor"):
        guided.parameter_groups(networks.build("rdst", {"blocks": 1}), 0.1)


def test_wrong_recipes_are_named(study: Path, tmp_path: Path) -> None:
    for old, new, complaint in (
        ("fourier = 0.1", "fuorier = 1.0", "loss.fuorier is not a known loss; did you mean fourier"),
        ("coarse = 0.0", "course = 0.0", "guidance.course"),
        ("fourier = 0.1", "perceptual = 1.0", "feature network"),
        ("coarse = 0.0", 'features = "sound"', "guidance.features is 'sound', expected 'vgg' or 'tissue'"),
        (
            '"fasr"\n[network]\nsize = "s"\nwidths = [4, 4, 4]\nstages = 1\nembedding = 4',
            '"rdst"\n[network]',
            "trains a FASR, not the architecture 'rdst'",
        ),
    ):
        path = tmp_path / "wrong.toml"
        path.write_text(RECIPE.replace(old, new))
        with pytest.raises(UsageError, match=complaint):
            fit(path, study, tmp_path / "run", minutes=0.01, device="cpu", report=lambda line: None)
    with pytest.raises(UsageError, match="fasr-s-inplane-x4"):
        load_recipe("fasr-x9")


def test_a_subject_without_a_second_contrast_cannot_guide(study: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    source = study / "train" / "multicontrast" / "a_T1w.nii.gz"
    (tmp_path / "one" / "a_T1w.nii.gz").write_bytes(source.read_bytes())
    alone = pack(tmp_path / "one", tmp_path / "one.pack")
    with pytest.raises(UsageError, match="two contrasts"):
        PairDrawer(alone, (SourceSpec("*"),))


@pytest.mark.parametrize("recipe", sorted(path.stem for path in FOLDER.glob("fasr*.toml")))
def test_shipped_recipes_make_a_card_and_a_network(recipe: str) -> None:
    plan, _ = load_recipe(recipe)
    _, card = checked_card(plan)
    assert card.id == recipe and card.task == "reference-guided" and card.reference_contrasts
    network = networks.build(plan.architecture, plan.network)
    assert isinstance(network, fasr.FASR)
    assert network.factors == tuple(int(f) for f in card.factors or ()) and plan.about
    multiple = checked_card(GuidedMethod.completed(plan))[1].requirements.multiple_of
    assert (
        multiple == card.requirements.multiple_of
    )  # the recipe says what tiles need, the single-image model's windows included
    # No tile cuts M-A's coarsest token; slices that are not to be cut are padded by the network itself, as the base is not.
    whole = not card.requirements.tiling
    assert whole or all(multiple * factor % (4 * network.patch) == 0 for factor in network.factors)
