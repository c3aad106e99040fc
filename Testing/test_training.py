"""Training: a run resumes exactly and ends in a model package that beats its start."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_trainings import RECIPE, RECIPES, one_contrast
from safetensors.torch import save_file

from MRSuperResLib import cli, networks
from MRSuperResLib.errors import DeviceError, ModelError, MRSuperResError, OutputError, UsageError
from MRSuperResLib.models import ModelEntry, find_model, load_network
from MRSuperResLib.training import checkpoint
from MRSuperResLib.training import fit as fitting
from MRSuperResLib.training.checkpoint import LAST
from MRSuperResLib.training.data.single import SlicePairs
from MRSuperResLib.training.fit import fit, make_fabric
from MRSuperResLib.training.pack import pack
from MRSuperResLib.training.recipes import load_recipe, tomllib

every_method = pytest.mark.parametrize("kind", RECIPES)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one smooth textured volume and one label map, in train/ and val/."""
    return one_contrast(tmp_path_factory.mktemp("study"))


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


def test_workers_change_nothing_not_even_in_a_resumed_run(study: Path, tmp_path: Path) -> None:
    """Two processes prepare the batches; the run stops after an odd number of them."""
    whole = _train(study, tmp_path / "whole", 5)
    _train(study, tmp_path / "parts", 3, workers=2)
    resumed = _train(study, tmp_path / "parts", 5, workers=2, resume=True)
    for name, value in whole.items():
        assert torch.equal(resumed[name], value), name


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
    spec = load_recipe(study / "tiny.toml")[0].data
    stream = SlicePairs(pack(study / "train", tmp_path / "pairs.pack"), spec, (2, 2), seed=3)
    gains = []
    with torch.no_grad():
        for low, high in (pair for _, pair in zip(range(16), stream, strict=False)):
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


def test_a_full_disk_leaves_the_last_checkpoint(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, out = _written(tmp_path, "supervised"), tmp_path / "out"
    _trained("supervised", recipe, study, out)
    kept = (out / LAST).read_bytes()

    def full(tensors: object, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OutputError, match=r"No space left on device.*--resume"):
        _trained("supervised", recipe, study, out, resume=True)
    assert (out / LAST).read_bytes() == kept and not list(out.glob(".*part"))


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


def test_networks_compute_in_bf16_on_images_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fabric's own plugin turns what goes in to bf16, and steps of 0.4 % would be learned from and not be met again."""

    class Kept(torch.nn.Conv2d):
        def forward(self, x: torch.Tensor, start: tuple[torch.Tensor, ...]) -> torch.Tensor:
            seen.extend((x, *start))
            answer = super().forward(x)
            assert answer.dtype == torch.bfloat16
            return x + answer

    seen: list[torch.Tensor] = []
    monkeypatch.setattr(fitting, "_cpu_has_bf16", lambda: True)
    network = make_fabric("cpu").setup_module(Kept(1, 1, 3, padding=1))
    image = torch.rand(1, 1, 8, 8)
    answer = network(image, (image,))
    assert all(torch.equal(each, image) for each in seen) and len(seen) == 2
    assert answer.dtype == torch.float32


def test_the_train_extra_asks_for_nothing_that_is_never_imported(repository: Path) -> None:
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    code = "\n".join(path.read_text() for path in (repository / "MRSuperResLib").rglob("*.py"))
    imported = set(re.findall(r"^\s*(?:import|from) (\w+)", code, re.MULTILINE))
    named = {"scikit-learn": "sklearn"}
    wanted = [re.split("[<>=]", one)[0] for one in extras["train"]]
    assert {named.get(one, one).replace("-", "_") for one in wanted} <= imported
