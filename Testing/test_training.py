"""Training: pairs line up, packs keep their volumes, a run resumes exactly and ends in a model package that beats its start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MRSuperResLib import networks
from MRSuperResLib.acquisition import SecondOrder
from MRSuperResLib.errors import UsageError
from MRSuperResLib.models import find_model, load_network
from MRSuperResLib.training import loop
from MRSuperResLib.training.data import AugmentationSpec, DataSpec, DegradationSpec, SlicePairs, SourceSpec, recoloured
from MRSuperResLib.training.pack import Pack, pack
from MRSuperResLib.training.recipes import FOLDER, load_recipe
from MRSuperResLib.training.synthesis import synthesise

RECIPE = """
architecture = "rdst"
[network]
blocks = 1
width = 12
growth = 6
factors = [2, 2]
skip = "bicubic"
[optimisation]
learning_rate = 2e-3
batch = 2
[data]
patch = 8
sources = [{ match = "isotropic/*" }, { match = "labels/*", weight = 0.5 }]
[data.degradation]
kinds = { gaussian = 1.0, kspace = 1.0 }
[validation]
every_minutes = 1000
scans = ["isotropic/*"]
[card]
id = "tiny"
title = "Tiny"
version = "1"
task = "super-resolve"
plane = "in-plane"
factors = [2, 2]
contrasts = ["T1w"]
spacing = { in_plane = [0.5, 5.0], through_plane = [0.5, 5.0] }
licence = "Apache-2.0"
intended_use = "Tests. Research use only."
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one smooth textured volume and one label map, in train/ and val/."""
    folder = tmp_path_factory.mktemp("study")
    k, j, i = np.meshgrid(*(np.arange(n) for n in (40, 44, 48)), indexing="ij")
    head = ((k - 20) / 18) ** 2 + ((j - 22) / 20) ** 2 + ((i - 24) / 22) ** 2 < 1
    image = head * (600 + 300 * np.sin(k / 3.0) * np.cos(j / 2.5) + 100 * np.sin(i / 2.0))
    labels = head.astype(np.int16) * (1 + (np.sin(k / 4.0) * np.cos(j / 3.0) * np.cos(i / 3.5) > 0))
    for part in ("train", "val"):
        for name, array in (("isotropic/phantom_T1w", image.astype(np.float32)), ("labels/phantom", labels)):
            written = sitk.GetImageFromArray(array)
            written.SetSpacing((1.0, 1.0, 1.0))
            path = folder / part / f"{name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(written, str(path))
    (folder / "tiny.toml").write_text(RECIPE)
    return folder


def test_a_pack_gives_back_its_volumes(study: Path, tmp_path: Path) -> None:
    packed = pack(study / "train", tmp_path / "train.pack")
    names = [entry.name for entry in Pack(packed.path).entries]
    assert names == ["isotropic/phantom_T1w", "labels/phantom"]
    image, labels = packed.entries
    truth = sitk.ReadImage(str(study / "train" / "isotropic" / "phantom_T1w.nii.gz"))
    array = sitk.GetArrayFromImage(truth)
    volume = packed.volume(image)
    np.testing.assert_allclose(volume.array, array, atol=np.ptp(array) / 65535)
    assert volume.grid.size == truth.GetSize() and image.contrast == "T1w" and image.subject == "isotropic/phantom"
    np.testing.assert_allclose(np.array(volume.grid.direction), truth.GetDirection())
    assert set(np.unique(packed.stored(labels))) == {0, 1, 2}
    unit = packed.unit(image, packed.stored(image))
    assert np.percentile(unit, 99.9) == pytest.approx(1.0, abs=1e-3)


def test_what_is_no_pack_is_refused(study: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.pack"
    foreign.write_bytes(b'\x10\0\0\0\0\0\0\0{"format": "zip"}x')
    with pytest.raises(UsageError, match="not a packed data file"):
        Pack(foreign)
    with pytest.raises(UsageError, match="no volume"):
        pack(tmp_path, tmp_path / "x.pack")
    assert not list(tmp_path.glob(".*part"))


def _pairs(study: Path, factors: tuple[int, int] = (2, 2), start: int = 0, **changes: object) -> SlicePairs:
    packed = pack(study / "train", study / "pairs.pack")
    spec = DataSpec(
        (SourceSpec("isotropic/*"),), DegradationSpec({"gaussian": 1.0}, noise_probability=0.0, bias=0.0), patch=8
    )
    return SlicePairs(packed, spec, factors, seed=3, start=start)


@pytest.mark.parametrize("factors", [(2, 2), (4, 1), (3, 2)])
def test_low_and_high_show_the_same_place(study: Path, factors: tuple[int, int]) -> None:
    """The mean of each coarse pixel's fine pixels follows the coarse pixel; one coarse pixel's shift would not."""
    errors = {0: [], 1: []}
    for low, high in (pair for _, pair in zip(range(12), _pairs(study, factors), strict=False)):
        assert low.shape == (1, 8, 8) and high.shape == (1, 8 * factors[0], 8 * factors[1])
        means = high[0].reshape(8, factors[0], 8, factors[1]).mean((1, 3))
        errors[0].append(float((low[0] - means).abs().mean()))
        errors[1].append(float((low[0, 1:] - means[:-1]).abs().mean()))
    assert np.mean(errors[0]) < 0.03 and np.mean(errors[0]) < 0.5 * np.mean(errors[1])


@pytest.mark.parametrize("factor", [2, 4])
def test_second_order_pairs_show_the_same_place(study: Path, factor: int) -> None:
    packed = pack(study / "train", study / "pairs.pack")
    quiet = SecondOrder(noises=("gaussian",), noise=(0.0, 0.0), width=(0.1, 0.6))
    way = DegradationSpec({"second-order": 1.0}, bias=0.0, second_order=quiet)
    errors: dict[int, list[float]] = {0: [], 1: []}
    stream = SlicePairs(packed, DataSpec((SourceSpec("isotropic/*"),), way, patch=8), (factor, factor), seed=3)
    for low, high in (pair for _, pair in zip(range(12), stream, strict=False)):
        assert low.shape == (1, 8, 8) and low.dtype == high.dtype == torch.float32
        means = high[0].reshape(8, factor, 8, factor).mean((1, 3))
        errors[0].append(float((low[0] - means).abs().mean()))
        errors[1].append(float((low[0, 1:] - means[:-1]).abs().mean()))
    assert np.mean(errors[0]) < 0.5 * np.mean(errors[1])


def test_a_recipe_sets_the_second_order_degradation(tmp_path: Path) -> None:
    recipe = tmp_path / "second.toml"
    chosen = 'kinds = { box = 1.0, second-order = 2.0 }\nsecond_order = { blurs = ["isotropic"], noise = [0.0, 0.01] }'
    recipe.write_text(RECIPE.replace("kinds = { gaussian = 1.0, kspace = 1.0 }", chosen))
    way = load_recipe(recipe)[0].data.degradation
    assert way.kinds["second-order"] == 2.0
    assert way.second_order == SecondOrder(blurs=("isotropic",), noise=(0.0, 0.01))
    recipe.write_text(recipe.read_text().replace("isotropic", "motion"))
    with pytest.raises(UsageError, match="motion"):
        load_recipe(recipe)


def test_second_order_is_refused_where_one_axis_is_coarsened(study: Path) -> None:
    packed = pack(study / "train", study / "pairs.pack")
    spec = DataSpec((SourceSpec("isotropic/*"),), DegradationSpec({"second-order": 1.0}), patch=8)
    with pytest.raises(UsageError, match="halves both axes"):
        next(iter(SlicePairs(packed, spec, (4, 1))))


def test_the_stream_is_a_function_of_seed_and_position(study: Path) -> None:
    first = [pair for _, pair in zip(range(4), _pairs(study), strict=False)]
    later = [pair for _, pair in zip(range(2), _pairs(study, start=2), strict=False)]
    for (a, b), (c, d) in zip(first[2:], later, strict=True):
        assert torch.equal(a, c) and torch.equal(b, d)
    assert not torch.equal(first[0][0], first[1][0])


def test_a_pattern_without_volumes_and_an_unknown_plane_are_said(study: Path) -> None:
    packed = pack(study / "train", study / "none.pack")
    with pytest.raises(UsageError, match="nothing/"):
        SlicePairs(packed, DataSpec((SourceSpec("nothing/*"),), DegradationSpec({"box": 1.0})), (2, 2))
    with pytest.raises(UsageError, match="slanted"):
        SourceSpec("*", planes="slanted")


def test_recoloured_keeps_air_dark() -> None:
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    for seed in range(20):
        again = recoloured(image, AugmentationSpec(curve_probability=1.0), np.random.default_rng(seed))
        assert again[0, 0] == 0 and again.min() >= 0 and again.max() <= 1.0001


def test_synthesised_contrasts_share_their_anatomy() -> None:
    labels = np.zeros((64, 64), np.int16)
    labels[16:48, 16:48] = 1
    labels[26:38, 26:38] = 2
    one, two = synthesise(labels, np.random.default_rng(4), contrasts=2)
    edges = [np.hypot(*np.gradient(image)) for image in (one, two)]
    assert np.corrcoef(edges[0].ravel(), edges[1].ravel())[0, 1] > 0.5
    assert np.abs(one - two).mean() > 0.01 and one.min() >= 0


@pytest.mark.parametrize("recipe", sorted(path.stem for path in FOLDER.glob("rdst*.toml")))
def test_shipped_recipes_are_sound(recipe: str) -> None:
    plan, _ = load_recipe(recipe)
    network = networks.build(plan.architecture, plan.network)
    assert tuple(plan.card["factors"]) == tuple(network.factors)
    assert loop.checked_card(plan)[1].id == recipe


def test_a_wrong_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recipe is called"):
        load_recipe("nonesuch")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(RECIPE.replace("learning_rate", "learning_rat"))
    with pytest.raises(UsageError, match="learning_rat"):
        load_recipe(wrong)
    wrong.write_text("not toml [")
    with pytest.raises(UsageError, match=r"wrong\.toml"):
        load_recipe(wrong)


def _train(study: Path, out: Path, steps: int, **options: object) -> dict[str, torch.Tensor]:
    recipe = out.parent / f"steps{steps}.toml"
    recipe.write_text(RECIPE.replace("batch = 2", f"batch = 2\nsteps = {steps}"))
    lines: list[str] = []
    entry = loop.train(recipe, study, out, minutes=5, device="cpu", report=lines.append, **options)
    return load_network(entry, torch.device("cpu")).state_dict()


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(study: Path, tmp_path: Path) -> None:
    whole = _train(study, tmp_path / "whole", 6)
    _train(study, tmp_path / "parts", 3)
    resumed = _train(study, tmp_path / "parts", 6, resume=True)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, atol=0, rtol=0)


def test_a_checkpoint_is_loaded_onto_the_networks_device(tmp_path: Path) -> None:
    """A GPU's Adam cannot step with moments that stayed in the computer's memory; the meta device stands in for the GPU here."""
    saved = torch.nn.Linear(2, 2)
    optimiser = torch.optim.Adam(saved.parameters())
    saved(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    loop.save_checkpoint(tmp_path / "c", saved, loop.MovingAverage(saved, 0.9), optimiser, loop.Progress(step=1))
    network = torch.nn.Linear(2, 2, device="meta")
    optimiser, average = torch.optim.Adam(network.parameters()), loop.MovingAverage(network, 0.9)
    with pytest.warns(UserWarning, match="meta"):  # of the weights themselves, which it drops
        loop.load_checkpoint(tmp_path / "c", network, average, optimiser, loop.Progress())
    moments = [state[key] for state in optimiser.state.values() for key in ("exp_avg", "exp_avg_sq")]
    assert len(moments) == 4 and len(average.weights) == 2
    assert {value.device.type for value in (*moments, *average.weights.values())} == {"meta"}


def test_training_lowers_the_loss_and_ships_a_loadable_model(study: Path, tmp_path: Path) -> None:
    _train(study, tmp_path / "run", 60)
    entry = find_model(tmp_path / "run" / "tiny.safetensors")
    assert entry.card.training.steps == 60 and entry.card.training.recipe == "steps60"
    network = load_network(entry, torch.device("cpu")).eval()
    gains = []
    with torch.no_grad():
        for low, high in (pair for _, pair in zip(range(16), _pairs(study), strict=False)):
            start = networks.build("rdst", {**entry.card.hyperparameters})(
                low[None]
            )  # the zero residual: plain bicubic
            gains.append(float((start - high).abs().mean() - (network(low[None]) - high).abs().mean()))
    assert np.mean(gains) > 0
    rows = (tmp_path / "run" / "curves.csv").read_text().splitlines()
    assert rows[0] == "step,minutes,name,value" and any(",loss," in row for row in rows)


def test_start_from_another_model_takes_what_fits(study: Path, tmp_path: Path) -> None:
    _train(study, tmp_path / "run", 2)
    other = networks.build("rdst", {"blocks": 1, "width": 12, "growth": 6, "factors": [4, 1], "skip": "bicubic"})
    said = loop.initialise(other, str(tmp_path / "run" / "tiny.safetensors"))
    assert said.startswith(
        f"{len(other.state_dict()) - 4} of {len(other.state_dict())}"
    )  # all but two upsampling stages


def test_validation_scores_with_the_projects_own_evaluate_and_draws(study: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "often.toml"
    recipe.write_text(
        RECIPE.replace("batch = 2", "batch = 2\nsteps = 4").replace("every_minutes = 1000", "every_minutes = 0")
    )
    lines: list[str] = []
    loop.train(recipe, study, tmp_path / "run", minutes=5, device="cpu", report=lines.append)
    assert sum("over bspline" in line for line in lines) == 4
    assert (
        len(list((tmp_path / "run").glob("validation-*.png"))) == 4
        and (tmp_path / "run" / "best.safetensors").is_file()
    )
    assert ",psnr," in (tmp_path / "run" / "curves.csv").read_text()


def test_missing_data_checkpoint_and_device_are_said(study: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train\.pack"):
        loop.train(study / "tiny.toml", tmp_path, tmp_path / "out", minutes=0.01, device="cpu")
    with pytest.raises(UsageError, match="nothing to resume"):
        loop.train(study / "tiny.toml", study, tmp_path / "out", minutes=0.01, device="cpu", resume=True)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="CUDA"):
            loop.make_fabric("cuda")
