"""A user's own training goes as README prints it: any folder, a card of the user's, models that run, a network from a folder."""

from __future__ import annotations

import re
import shlex
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from made_trainings import ENLARGE, GUIDED, RECIPE, TRANSLATE, one_contrast, two_contrasts

from MRSuperResLib import cli, networks, plugins
from MRSuperResLib.errors import ModelError, UsageError
from MRSuperResLib.models import find_model, load_network
from MRSuperResLib.training.checkpoint import LAST
from MRSuperResLib.training.data.crops import PairDrawer, applicable
from MRSuperResLib.training.fit import BEST, fit
from MRSuperResLib.training.own import is_published, parsed_sources
from MRSuperResLib.training.pack import Pack
from MRSuperResLib.training.recipes import FOLDER, load_recipe

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
SECTION = README[README.index("## Train your own") : README.index("## Data and licences")]
COMMANDS = [line.strip() for line in SECTION.splitlines() if line.startswith("    mrsuperres ")]
PLUG_IN = [command for command in COMMANDS if "tiny" in command]
TWO_STAGES = [command for command in COMMANDS if "transmrsr" in command]
OWN = [command for command in COMMANDS if command not in PLUG_IN + TWO_STAGES]


@pytest.fixture
def ordinary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder as README's commands expect it: my-data/ with BIDS names, scan.nii.gz."""
    made = one_contrast(tmp_path / "made")
    for part in ("train", "val"):
        folder = tmp_path / "my-data" / part / "sub-01" / "anat"
        folder.mkdir(parents=True)
        shutil.copy(made / part / "isotropic" / "phantom_T1w.nii.gz", folder / "sub-01_T1w.nii.gz")
    scan = sitk.ReadImage(str(made / "val" / "isotropic" / "phantom_T1w.nii.gz"))[:, :, ::4]
    sitk.WriteImage(scan, str(tmp_path / "scan.nii.gz"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _small(recipe: str, folder: Path, changes: dict[str, str]) -> None:
    """The shipped recipe, with a smaller network, as a file of its name in `folder`."""
    text = (FOLDER / f"{recipe}.toml").read_text()
    for key, value in changes.items():
        text, count = re.subn(rf"\b{key} = (\[.*\]|[^\s,}}]+)", f"{key} = {value}", text, count=1)
        assert count == 1, key
    (folder / f"{recipe}.toml").write_text(text)


def _run(commands: list[str], small: tuple[str, ...] = ()) -> None:
    """README's commands, of seconds, by the recipes' small files in place of the recipes of that name."""
    for command in commands:
        words = shlex.split(command.replace("--minutes 60", "--minutes 0.01"))[1:]
        words = [f"{word}.toml" if word in small else word for word in words]
        assert cli.main([*words, *(["--device", "cpu"] if words[0] != "data" else [])]) == 0, command


def test_the_commands_of_a_users_own_training(ordinary: Path) -> None:
    """The shipped recipe with a smaller network, on a folder with none of our names."""
    recipe = "rdst-e-through-x4"
    small = {"blocks": "1\nwidth = 12\ngrowth = 6", "batch": "2", "matrix": "64", "patch": "[8, 16]", "at_once": "1"}
    _small(recipe, ordinary, small)
    _run(OWN, (recipe,))
    card = find_model(ordinary / "runs/mine/mine.safetensors").card
    assert card.id == "mine" and card.contrasts == ("T1w",) and card.training.recipe == recipe
    (source,) = card.sources
    assert (source.name, source.licence) == ("Scanner A, 2024", "ours")
    assert card.spacing is not None and card.spacing.through_plane[0] < 4.0 < card.spacing.through_plane[1]
    assert card.paper is None and "network after Zhu" in card.training.notes
    finer = sitk.ReadImage(str(ordinary / "finer.nii.gz"))
    assert finer.GetSize()[2] == 4 * sitk.ReadImage(str(ordinary / "scan.nii.gz")).GetSize()[2]


def test_the_commands_of_a_training_in_two_stages(ordinary: Path) -> None:
    """The second stage starts from the package of the first, which has the id that the user gave it."""
    network = {"channels": "[8, 8, 8, 8]\nhead_width = 4\nwindow = 4", "latent": "6", "centres": "3"}
    data = {"batch": "4", "matrix": "32", "at_once": "1", "shift": "2"}
    _small("transmrsr-s-prior", ordinary, {**network, **data, "ema": "0.9\n[prior]\nlatents = 64"})
    changes = {**network, **data, "patch": "[4, 32]", "input_size": "32", "halo": "4"}
    _small("transmrsr-s-through-x8", ordinary, changes)
    _run(TWO_STAGES, ("transmrsr-s-prior", "transmrsr-s-through-x8"))
    card = find_model(ordinary / "runs/x8/my-x8.safetensors").card
    assert card.factors == (8, 1) and card.paper is None and "my-prior" in card.training.notes


def test_a_network_of_the_users_own(ordinary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two files that README prints, written to a folder, and its commands; without the folder the model does not run."""
    folder = ordinary / "my-networks"
    folder.mkdir()
    for kind, name in (("python", "tinysr.py"), ("toml", "tinysr-inplane-x2.toml")):
        (block,) = re.findall(rf"```{kind}\n(.*?)```", SECTION, re.DOTALL)
        (folder / name).write_text(block)
    assert len((folder / "tinysr.py").read_text().splitlines()) <= 20
    monkeypatch.setenv(plugins.VARIABLE, "my-networks")
    _run(PLUG_IN)
    path = ordinary / "runs/tiny/tinysr-inplane-x2.safetensors"
    card = find_model(path).card
    assert card.requirements.halo == 2 and card.requirements.smallest == 4  # what the file says
    assert "tinysr" in networks.architectures()
    monkeypatch.delenv(plugins.VARIABLE)
    with pytest.raises(ModelError, match=rf"'tinysr' is unknown.*{plugins.VARIABLE}"):
        load_network(find_model(path))


def test_a_plug_in_takes_no_name_of_ours_and_its_mistakes_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path))
    (tmp_path / "rdst.py").write_text("raise SystemExit")
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "Not-A-Name.py").write_text("")
    assert plugins.names() == ("broken",)
    with pytest.raises(ModelError, match="ZeroDivisionError"):
        networks.build("broken", {})
    for name in ("../rdst", "os", "no such"):
        with pytest.raises(ModelError, match="is unknown"):
            networks.build(name, {})
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="nowhere, which is no folder"):
        networks.build("broken", {})


def test_what_a_training_leaves_is_a_model_or_clearly_none(ordinary: Path, tmp_path: Path) -> None:
    """Without an id of its own the model is not called like ours; best is a model, the checkpoint says that it is none."""
    (tmp_path / "tiny.toml").write_text(RECIPE.replace("batch = 2", "batch = 2\nsteps = 2"))
    said: list[str] = []
    out = tmp_path / "out"
    path = fit(tmp_path / "tiny.toml", ordinary / "my-data", out, minutes=5, device="cpu", report=said.append)
    assert path == out / "tiny-own.safetensors" and any("all 1 are one source" in line for line in said)
    assert find_model(path).card.sources[0].name.startswith("data of the user's own: 1 volume (T1w 1)")
    assert find_model(out / BEST).card.id == "tiny-own"
    assert np.isfinite(load_network(find_model(out / BEST)).state_dict()["tail.weight"].numpy()).all()
    with pytest.raises(ModelError, match="is the checkpoint of a training"):
        find_model(out / LAST)


def test_a_training_that_goes_on_keeps_its_id_and_sources(ordinary: Path, tmp_path: Path) -> None:
    run = {"minutes": 5, "device": "cpu", "validate": False, "report": lambda line: None}
    for steps, options in ((1, {"id": "mine", "sources": ["Scanner A; ours"]}), (2, {"resume": True})):
        (tmp_path / "tiny.toml").write_text(RECIPE.replace("batch = 2", f"batch = 2\nsteps = {steps}"))
        path = fit(tmp_path / "tiny.toml", ordinary / "my-data", tmp_path / "out", **run, **options)
    card = find_model(path).card
    assert (path.name, card.training.steps) == ("mine.safetensors", 2)
    assert [(source.name, source.licence) for source in card.sources] == [("Scanner A", "ours")]


def test_sources_are_text_or_a_file(tmp_path: Path) -> None:
    listed = tmp_path / "ours.toml"
    listed.write_text('sources = [{ name = "IXI", licence = "CC BY-SA 3.0", use = "truth" }]')
    found = parsed_sources(["Scanner A", "OASIS; see oasis-brains.org; truth", str(listed)])
    assert [(source.name, source.licence, source.use) for source in found] == [
        ("Scanner A", "not stated", "training"),
        ("OASIS", "see oasis-brains.org", "truth"),
        ("IXI", "CC BY-SA 3.0", "truth"),
    ]
    listed.write_text("source = []")
    with pytest.raises(UsageError, match="no list of sources"):
        parsed_sources([str(listed)])


@pytest.mark.parametrize(
    ("recipe", "published"),
    [("rdst-inplane-x4", True), ("rdst-e-inplane-x4", False), ("mtsr-mt", True), ("mtsr-mt-s", False)],
)
def test_a_gain_is_the_papers_only_where_the_training_is(recipe: str, published: bool) -> None:
    assert is_published(load_recipe(recipe)[0]) is published


@pytest.mark.parametrize("recipe", [TRANSLATE, ENLARGE], ids=["translation", "adversarial"])
def test_adversarial_methods_train_and_validate_on_an_ordinary_folder(tmp_path: Path, recipe: str) -> None:
    """Other people are held out than are trained on, and neither is in a folder that the recipe names."""
    made = two_contrasts(tmp_path / "made")
    for part, person in (("train", "sub-01"), ("val", "sub-02")):
        (tmp_path / "data" / part / person).mkdir(parents=True)
        for contrast in ("T1w", "T2w"):
            scan = made / part / "pairs" / f"one_{contrast}.nii.gz"
            shutil.copy(scan, tmp_path / "data" / part / person / f"{person}_{contrast}.nii.gz")
    (tmp_path / "tiny.toml").write_text(re.sub("steps = .*", "steps = 2", recipe))
    said: list[str] = []
    path = fit(tmp_path / "tiny.toml", tmp_path / "data", tmp_path / "out", minutes=5, device="cpu", report=said.append)
    assert path.stem.endswith("-own") and any(line.startswith("  held out: psnr") for line in said)


def test_an_installed_package_may_offer_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an entry point, each a module with `build`; what is none is said."""
    made = types.ModuleType("elsewhere")
    made.build = lambda **hyperparameters: torch.nn.Conv2d(1, 1, 1)  # type: ignore[attr-defined]

    class Point:
        def __init__(self, found: object) -> None:
            self.load = lambda: found

    monkeypatch.setattr(plugins, "_entry_points", lambda: {"elsewhere": Point(made), "nothing": Point(3)})
    assert {"elsewhere", "nothing"} <= set(networks.architectures())
    assert isinstance(networks.build("elsewhere", {}), torch.nn.Conv2d) and networks.requirements("elsewhere") == {}
    with pytest.raises(ModelError, match="its entry point is a int, expected a module"):
        networks.build("nothing", {})


def test_guided_training_on_ixi_s_names_pairs_each_person_with_themselves(tmp_path: Path) -> None:
    """Two people, T1w and T2w each, in one folder: none of the pairs that are drawn mixes them."""
    made = two_contrasts(tmp_path / "made")
    people = {"train": (("IXI002-Guys-0828", 1), ("IXI012-HH-1211", -1)), "val": (("IXI013-HH-1212", 1),)}
    for part in ("train", "val"):
        (tmp_path / "ixi" / part).mkdir(parents=True)
        for person, scale in people[part]:
            for contrast in ("T1", "T2"):
                scan = sitk.ReadImage(str(made / part / "pairs" / f"one_{contrast}w.nii.gz"))
                flipped = sitk.Flip(scan, (scale < 0, False, False), True)
                flipped.CopyInformation(scan)
                sitk.WriteImage(flipped, str(tmp_path / "ixi" / part / f"{person}-{contrast}.nii.gz"))
    (tmp_path / "guided.toml").write_text(
        GUIDED.replace('{ match = "labels/*", weight = 0.5 }', '{ match = "multicontrast/*" }').replace(
            "batch = 2", "batch = 2\nsteps = 2"
        )
    )
    said: list[str] = []
    path = fit(
        tmp_path / "guided.toml", tmp_path / "ixi", tmp_path / "out", minutes=5, device="cpu", report=said.append
    )
    assert "4 volumes (T1w 2, T2w 2), 0 label maps" in said and "with several contrasts: 2 subjects" in said
    card = find_model(path).card
    assert card.contrasts == card.reference_contrasts == ("T1w", "T2w") and card.id == "tiny-own"
    assert any("held out, dB: guided" in line for line in said)
    packed = Pack(tmp_path / "out" / "train.pack")
    (source,) = applicable(packed, load_recipe(tmp_path / "guided.toml")[0].data.sources, said.append)
    groups = PairDrawer(packed, (source,)).groups[0]
    assert [{entry.subject for entry in group} for group in groups] == [{"IXI002-Guys-0828"}, {"IXI012-HH-1211"}]
