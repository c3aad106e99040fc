"""Training: pairs line up, packs keep their volumes, a run resumes exactly and ends in a model package that beats its start."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import save_file

from MRSuperResLib import cli, networks
from MRSuperResLib.acquisition import SecondOrder
from MRSuperResLib.errors import DeviceError, ModelError, MRSuperResError, OutputError, UsageError
from MRSuperResLib.models import ModelEntry, find_model, load_network
from MRSuperResLib.training import checkpoint
from MRSuperResLib.training.card import checked_card
from MRSuperResLib.training.data.coarsen import DegradationSpec
from MRSuperResLib.training.data.crops import AugmentationSpec, SourceSpec, recoloured
from MRSuperResLib.training.data.single import DataSpec, SlicePairs
from MRSuperResLib.training.data.synthesis import synthesise
from MRSuperResLib.training.fit import LAST, fit, make_fabric, part_pack
from MRSuperResLib.training.pack import Pack, pack
from MRSuperResLib.training.recipes import FOLDER, load_recipe, tomllib

RECIPE = """
method = "supervised"
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
ADVERSARIAL = f"""{RECIPE.replace("supervised", "adversarial")}
[loss]
l1 = 1.0
gan = 0.01
[adversarial]
widths = [4, 6]
scales = 1
"""
GUIDED = f"""{RECIPE}
reference_contrasts = ["T2w"]
[guidance]
missing = 0.7
"""
for _old, _new in {
    '"supervised"': '"guided"',
    '"rdst"': '"fasr"',
    "blocks = 1\nwidth = 12\ngrowth = 6": 'size = "s"\nwidths = [4, 4, 4]\nstages = 1\nembedding = 4',
    '{ match = "isotropic/*" }, ': "",
    '"super-resolve"': '"reference-guided"',
}.items():
    GUIDED = GUIDED.replace(_old, _new)
RECIPES = {"supervised": RECIPE, "adversarial": ADVERSARIAL, "guided": GUIDED}
every_method = pytest.mark.parametrize("kind", RECIPES)


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
    assert checked_card(plan)[1].id == recipe


@pytest.mark.parametrize(
    ("recipe", "parameters"), [("rdst-inplane-x4", 4.40e6), ("rdst-e-inplane-x4-published", 2.35e6)]
)
def test_published_recipes_train_as_the_paper_does(recipe: str, parameters: float) -> None:
    """Table 1 for the size; section 4.3 for batch, rate and steps of the first stage; section 4.1 and eq. 13 for the pairs."""
    plan, _ = load_recipe(recipe)
    network = networks.build(plan.architecture, plan.network)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(parameters, rel=0.03)
    assert network.factors == (4, 4) and network.skip == "none" and network.feedback == 0
    chosen = plan.optimisation
    assert (chosen.batch, chosen.learning_rate, chosen.schedule, chosen.steps) == (32, 2e-4, "constant", 100_000)
    assert chosen.warm_up == 0 and chosen.clip == 0 and plan.loss == {"l1": 1.0}
    way = plan.data.degradation
    assert plan.data.patch == 24 and set(way.kinds) == {"bicubic"}
    assert way.noise_probability == 1 and way.noise[0] > 0 and way.rician == 0 and way.bias == 0


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
    path = fit(recipe, study, out, minutes=5, device="cpu", validate=False, report=lines.append, **options)
    return load_network(find_model(path), torch.device("cpu")).state_dict()


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
    checkpoint.save_checkpoint(
        tmp_path / "c", saved, checkpoint.MovingAverage(saved, 0.9), [optimiser], checkpoint.Progress(step=1)
    )
    network = torch.nn.Linear(2, 2, device="meta")
    optimiser, average = torch.optim.Adam(network.parameters()), checkpoint.MovingAverage(network, 0.9)
    with pytest.warns(UserWarning, match="meta"):  # of the weights themselves, which it drops
        checkpoint.load_checkpoint(tmp_path / "c", network, average, [optimiser], checkpoint.Progress())
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
    assert rows[0] == "step,minutes,name,value" and any(",l1," in row for row in rows)


def test_start_from_another_model_takes_what_fits(study: Path, tmp_path: Path) -> None:
    _train(study, tmp_path / "run", 2)
    other = networks.build("rdst", {"blocks": 1, "width": 12, "growth": 6, "factors": [4, 1], "skip": "bicubic"})
    said = checkpoint.take_fitting(other, load_network(find_model(tmp_path / "run" / "tiny.safetensors")).state_dict())
    assert said == len(other.state_dict()) - 4  # all but two upsampling stages


def test_validation_scores_with_the_projects_own_evaluate_and_draws(study: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "often.toml"
    recipe.write_text(
        RECIPE.replace("batch = 2", "batch = 2\nsteps = 4").replace("every_minutes = 1000", "every_minutes = 0")
    )
    lines: list[str] = []
    fit(recipe, study, tmp_path / "run", minutes=5, device="cpu", report=lines.append)
    assert sum("over bspline" in line for line in lines) == 4
    assert (
        len(list((tmp_path / "run").glob("validation-*.png"))) == 4
        and find_model(tmp_path / "run" / "best.safetensors").card.id == "tiny"
    )
    assert ",held_out_psnr," in (tmp_path / "run" / "curves.csv").read_text()


def test_missing_data_checkpoint_and_device_are_said(study: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train\.pack"):
        fit(study / "tiny.toml", tmp_path, tmp_path / "out", minutes=0.01, device="cpu")
    with pytest.raises(UsageError, match="nothing to resume"):
        fit(study / "tiny.toml", study, tmp_path / "out", minutes=0.01, device="cpu", resume=True)
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="CUDA"):
            make_fabric("cuda")


def _written(folder: Path, kind: str, **changes: str) -> Path:
    """The tiny recipe of a loop in a file, of one step, with the pieces of text in `changes` replaced."""
    text = RECIPES[kind].replace("batch = 2", "batch = 2\nsteps = 1")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / f"{kind}.toml"
    path.write_text(text)
    return path


def _trained(kind: str, recipe: Path, study: Path, out: Path, **options: object) -> ModelEntry:
    settings = {"minutes": 5, "device": "cpu", "report": lambda line: None, "validate": False, **options}
    return find_model(fit(recipe, study, out, **settings))


@every_method
def test_mistakes_are_one_line_and_leave_nothing_behind(study: Path, tmp_path: Path, kind: str) -> None:
    recipe, out = _written(tmp_path, kind), tmp_path / "out"
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="cannot be made"):
            _trained(kind, recipe, study, place)
    wrong: list[tuple[dict[str, object], str]] = [
        ({"minutes": 0}, "minutes is 0, expected"),
        ({"minutes": -1.0}, "minutes is -1, expected"),
        ({"minutes": float("nan")}, "minutes is nan, expected"),
        ({"minutes": float("inf")}, "minutes is inf, expected"),
        ({"resume": True}, "nothing to resume"),
    ]
    for options, complaint in wrong:
        with pytest.raises(UsageError, match=complaint):
            _trained(kind, recipe, study, out, **options)
    for device, complaint in (("tpu", "'tpu', expected auto"), ("cuda:99", "cuda:99"), ("cuda:x", "cuda:x")):
        with pytest.raises(MRSuperResError, match=complaint):
            _trained(kind, recipe, study, tmp_path / "elsewhere", device=device)
    other = _written(tmp_path, kind, **{"\nfactors = [2, 2]\nskip": "\nfactors = [4, 4]\nskip"})
    with pytest.raises(UsageError, match=re.escape("[network].factors is [4, 4], [card].factors is [2, 2]")):
        _trained(kind, other, study, out)
    assert not out.exists() and (tmp_path / "file").read_text() == "mine"


def test_the_command_line_says_a_mistake_without_a_traceback(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["train", str(study / "tiny.toml"), "--data", str(study), "--out", str(tmp_path / "out")]
    for wrong in (["--minutes", "nan"], ["--minutes", "1", "--device", "tpu"]):
        assert cli.main([*common, *wrong]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1


@every_method
def test_a_training_is_neither_overwritten_nor_mixed_with_another(study: Path, tmp_path: Path, kind: str) -> None:
    recipe, out = _written(tmp_path, kind), tmp_path / "out"
    _trained(kind, recipe, study, out)
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UsageError, match="use --resume to go on with it, or another folder"):
        _trained(kind, recipe, study, out)
    smaller = {"widths = [4, 4, 4]": "widths = [4, 4, 8]"} if kind == "guided" else {"growth = 6": "growth = 4"}
    with pytest.raises(ModelError, match="another network than this recipe's") as caught:
        _trained(kind, _written(tmp_path, kind, **smaller), study, out, resume=True)
    assert len(caught.value.message) < 400 and "\n" not in caught.value.message
    assert {path.name: path.read_bytes() for path in out.iterdir()} == kept


def test_a_damaged_checkpoint_is_said(study: Path, tmp_path: Path) -> None:
    recipe, out = _written(tmp_path, "supervised"), tmp_path / "out"
    _trained("supervised", recipe, study, out)
    whole = (out / LAST).read_bytes()
    save_file({"network.a": torch.zeros(1)}, tmp_path / "foreign")
    save_file({"network.a": torch.zeros(1)}, tmp_path / "counters", metadata={"progress": '{"step": "many"}'})
    for damaged in (whole[:-100], whole[:50], b"", *((tmp_path / n).read_bytes() for n in ("foreign", "counters"))):
        (out / LAST).write_bytes(damaged)
        with pytest.raises(ModelError, match=r"last\.checkpoint is no checkpoint, or a damaged one"):
            _trained("supervised", recipe, study, out, resume=True)


def test_a_pack_is_made_anew_when_its_volumes_have_changed(study: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(study / "train", data / "train")
    said: list[str] = []
    first = part_pack(data, tmp_path, report=said.append)
    assert not said
    made = first.path.stat()
    assert part_pack(data, tmp_path, report=said.append).entries == first.entries
    assert "used again" in said[-1] and first.path.stat().st_mtime_ns == made.st_mtime_ns
    shutil.copy(study / "train" / "isotropic" / "phantom_T1w.nii.gz", data / "train" / "isotropic" / "other_T1w.nii.gz")
    assert len(part_pack(data, tmp_path, report=said.append).entries) == 3 and "made anew" in said[-1]
    os.utime(data / "train" / "isotropic" / "other_T1w.nii.gz", (1, 1))
    part_pack(data, tmp_path, report=said.append)
    assert "made anew" in said[-1]
    shutil.rmtree(data / "train")
    with pytest.raises(UsageError, match=r"neither train\.pack nor"):
        part_pack(data, tmp_path, report=said.append)


# Fabric starts this script once more, for its second process, whose clock runs fast: by that it would stop at once.
TWO_PROCESSES = """
import sys, time, types
from pathlib import Path
from lightning_fabric import Fabric
from MRSuperResLib.models import find_model
from MRSuperResLib.training import fit as loop

study, out = Path(sys.argv[1]), Path(sys.argv[2])
fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
fabric.launch()
loop.make_fabric, loop.AGREEMENT_STEPS = lambda device: fabric, 2
if fabric.global_rank == 1:
    loop.time = types.SimpleNamespace(monotonic=lambda: 1e4 * time.monotonic())
finish = loop.Run.finish

def finished(run):
    weights = sum(float(value.double().abs().sum()) for value in run.method.networks.state_dict().values())
    (out / f"{run.recipe}-{fabric.global_rank}").write_text(f"{run.progress.step} {weights}")
    return finish(run)

loop.Run.finish = finished
for name in ("supervised", "adversarial", "guided"):
    path = loop.fit(out / f"{name}.toml", study, out / name, minutes=5)
    assert find_model(path).card.training.steps == 4
"""


def test_two_processes_train_one_network_and_stop_together(study: Path, tmp_path: Path, repository: Path) -> None:
    """One packs, validates, writes and tells; the guided ones now and then draw batches without a reference."""
    if sys.platform == "win32" or not torch.distributed.is_gloo_available():
        pytest.skip("gloo, by which processes without GPUs talk to each other, is not to be had here")
    try:
        with socket.create_server(("127.0.0.1", 0)):
            pass
    except OSError as error:
        pytest.skip(f"processes may not talk to each other here: {error}")
    steps = {"steps = 1": "steps = 4"}
    for kind in ("supervised", "adversarial"):
        _written(tmp_path, kind, **steps)
    base = f'[guidance]\nbase = "{(tmp_path / "supervised" / "tiny.safetensors").as_posix()}"'
    _written(tmp_path, "guided", **steps, **{"[guidance]": base})
    (tmp_path / "both.py").write_text(TWO_PROCESSES)
    run = subprocess.run(
        [sys.executable, tmp_path / "both.py", study, tmp_path],
        capture_output=True,
        text=True,
        timeout=600,
        env={
            **os.environ,
            "PYTHONPATH": str(repository),
            "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        },
    )
    assert run.returncode == 0, run.stderr[-3000:]
    for kind in RECIPES:
        ends = [(tmp_path / f"{kind}-{rank}").read_text() for rank in (0, 1)]
        assert ends[0] == ends[1] and ends[0].startswith("4 ")
        assert len(list((tmp_path / kind).glob("tiny*.safetensors"))) == 1
        assert not list((tmp_path / kind).glob(".*")), "something was left half written"
        rows = (tmp_path / kind / "curves.csv").read_text().splitlines()
        assert len(rows) == len(set(rows)), "each process wrote its own rows"
    assert run.stdout.count("stopped at step 4") == 3


def test_the_train_extra_asks_for_nothing_that_is_never_imported(repository: Path) -> None:
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    code = "\n".join(path.read_text() for path in (repository / "MRSuperResLib").rglob("*.py"))
    imported = set(re.findall(r"^\s*(?:import|from) (\w+)", code, re.MULTILINE))
    assert {re.split("[<>=]", one)[0].replace("-", "_") for one in extras["train"]} <= imported
