"""Model packages: what a user drops into a folder is listed, and what was damaged or tampered with is refused with a reason."""

from __future__ import annotations

import hashlib
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from made_models import TINY, card, weights
from safetensors.torch import save_file

from MRSuperResLib import models, networks
from MRSuperResLib.errors import MissingRequirement, ModelError, OutputError, UsageError
from MRSuperResLib.models import ModelCard, Requirements, SpacingRange
from MRSuperResLib.weights import read_weights


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A sound package in an otherwise empty folder."""
    path = tmp_path / "tiny-through-x4.safetensors"
    models.save_model(path, card(), weights())
    return path


@pytest.fixture(autouse=True)
def _no_models_of_this_machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the shipped models nor the user's."""
    monkeypatch.setenv("MRSUPERRES_MODELS", str(tmp_path_factory.mktemp("empty")))
    monkeypatch.setattr(models.registry, "default_folders", lambda: (models.user_folder(),))


def rewrite(path: Path, change: Callable[[dict], None]) -> None:
    """Change the header of a safetensors file, data untouched."""
    blob = path.read_bytes()
    length = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + blob[8 + length :])


def test_a_saved_model_answers_as_before_it_was_saved(package: Path) -> None:
    """fp16 weights cost less than a thousandth of the range."""
    before = networks.build("rdst", TINY)
    before.load_state_dict(weights())
    image = torch.rand(1, 1, 9, 11)
    after = models.load_network(models.read_entry(package))
    with torch.inference_mode():
        difference = (after(image) - before.eval()(image)).abs().max()
    assert after(image).shape == (1, 1, 36, 11)
    assert difference < 1e-3


def test_batch_normalisation_is_folded_when_a_model_is_loaded_to_be_used(tmp_path: Path) -> None:
    """And is there when its weights are: training goes on from them."""
    small = {"blocks": 1, "factors": [4, 1], "width": 4}
    network = networks.build("srresnet", small)
    tiny = card("folded", architecture="srresnet", hyperparameters=small)
    entry = models.save_model(tmp_path / "folded.safetensors", tiny, network.state_dict())
    kept, used = models.load_network(entry, for_inference=False), models.load_network(entry)
    assert kept.state_dict().keys() == network.state_dict().keys()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in used.modules())
    image = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(used(image), kept(image), atol=1e-5, rtol=0)


def test_a_model_dropped_into_a_folder_appears_in_the_list_beside_the_baselines(package: Path) -> None:
    entries = {entry.card.id: entry for entry in models.list_models([package.parent])}
    assert list(entries)[:3] == ["linear", "bspline", "lanczos"]
    assert entries["tiny-through-x4"].card == card()
    assert entries["tiny-through-x4"].path == package


def test_models_are_looked_for_beside_the_library_inside_it_and_in_the_users_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("MRSUPERRES_MODELS", str(tmp_path))
    library = Path(models.__file__).parents[1]
    assert models.default_folders() == (
        library.parent / "Resources" / "Models",
        library / "Resources" / "Models",
        tmp_path,
    )


def test_the_users_own_folder_is_searched(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MRSUPERRES_MODELS", str(package.parent))
    assert models.find_model("tiny-through-x4").path == package


def test_the_card_comes_back_equal_from_json() -> None:
    full = card(
        sources=(models.Source("scans", "CC-BY", "truth"),),
        training=models.Training("rdst-e", 1000, 20.0, "1 x CPU", "2025-01-01", ""),
        metrics=(models.Score("a", "axial", "through-gaussian", 30.0, 0.9, 0.01, {"bspline": (28.0, 0.85)}),),
        paper=models.Paper("RDST", "Zhu", 2023, "arXiv", "+3.4 dB"),
        requirements=Requirements(uncertainty_scale=1.5),
    )
    assert ModelCard.from_json(full.to_json()) == full


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"id": "Has Spaces"}, "lower-case"),
        ({"factors": (2.5, 1)}, "whole numbers"),
        ({"factors": None}, "factors are missing"),
        ({"contrasts": ()}, "contrasts are missing"),
        ({"task": "translate"}, "target_contrasts"),
        ({"spacing": SpacingRange((2.0, 1.0), (1.0, 2.0))}, "spacing range"),
        ({"requirements": Requirements(smallest=0)}, "requirements"),
        ({"schema": 0}, "schema"),
    ],
)
def test_an_impossible_card_is_refused(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        card(**change)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"colour": "red"}, "colour is not a known field"),
        ({"task": "paint"}, 'task is "paint", expected one of'),
        ({"factors": [4]}, "factors has 1 values, expected 2"),
        ({"factors": "x4"}, 'factors is "x4", expected a list'),
        ({"title": 3}, "title is 3, expected text"),
        ({"hyperparameters": []}, "hyperparameters is \\[\\], expected an object"),
        ({"requirements": {"halo": 1.5}}, "requirements.halo is 1.5, expected a whole number"),
        ({"requirements": {"tiling": 1}}, "requirements.tiling is 1, expected true or false"),
        ({"schema": 99}, "update MRSuperRes"),
    ],
)
def test_a_card_with_a_wrong_field_is_refused_by_its_name(change: dict[str, object], complaint: str) -> None:
    document = json.loads(card().to_json()) | change
    with pytest.raises(ModelError, match=complaint):
        ModelCard.from_json(document)


@pytest.mark.parametrize("text", ["{", "[]", '"card"', '{"id": NaN}', "{}"])
def test_a_card_that_is_no_card_is_refused(text: str) -> None:
    with pytest.raises(ModelError):
        ModelCard.from_json(text)


def test_a_changed_weight_is_noticed(package: Path) -> None:
    blob = bytearray(package.read_bytes())
    blob[-5] ^= 1
    package.write_bytes(blob)
    entry = models.read_entry(package)
    with pytest.raises(ModelError, match="not as it was published"):
        models.verify(entry)
    with pytest.raises(ModelError, match="not as it was published"):
        models.load_network(entry)


def test_a_changed_card_is_noticed(package: Path) -> None:
    """Somebody widens what a model claims to cover."""

    def widen(header: dict) -> None:
        stated = json.loads(header["__metadata__"]["card"])
        stated["contrasts"] = ["any"]
        header["__metadata__"]["card"] = json.dumps(stated)

    rewrite(package, widen)
    entry = models.read_entry(package)
    assert entry.card.contrasts == ("any",)
    with pytest.raises(ModelError, match="not as it was published"):
        models.verify(entry)


def test_a_file_exchanged_after_listing_is_noticed(package: Path) -> None:
    entry = models.read_entry(package)
    models.save_model(package, card(title="Other"), weights())
    with pytest.raises(ModelError, match="changed after it was listed"):
        models.load_network(entry)


def test_a_gap_between_tensors_is_refused(package: Path) -> None:
    """Bytes that belong to no tensor escape what looks at tensors: nothing may be hidden there, however the sizes add up."""
    blob = package.read_bytes()
    length = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8 : 8 + length])
    spans = sorted((header[name]["data_offsets"], name) for name in header if name != "__metadata__")
    cut = spans[1][0][0]
    for (begin, end), name in spans[1:]:
        header[name]["data_offsets"] = [begin + 8, end + 8]
    text = json.dumps(header).encode()
    data = blob[8 + length :]
    package.write_bytes(struct.pack("<Q", len(text)) + text + data[:cut] + bytes(8) + data[cut:])
    with pytest.raises(ModelError, match="overlap or leave gaps") as caught:
        models.read_entry(package)
    assert caught.value.code == "damaged-model"


def drop_card(header: dict) -> None:
    del header["__metadata__"]["card"]


def drop_digest(header: dict) -> None:
    del header["__metadata__"]["digest"]


def overlap(header: dict) -> None:
    first, second = [name for name in header if name != "__metadata__"][:2]
    header[second]["data_offsets"] = header[first]["data_offsets"]


def wrong_shape(header: dict) -> None:
    name = next(name for name in header if name != "__metadata__")
    header[name]["shape"] = [1, *header[name]["shape"], 7]


def baseline_name(header: dict) -> None:
    header["__metadata__"]["card"] = card(architecture="interpolation").to_json()


def bad_json_card(header: dict) -> None:
    header["__metadata__"]["card"] = "{"


@pytest.mark.parametrize(
    ("change", "code", "complaint"),
    [
        (drop_card, "foreign-model", "made by another program"),
        (drop_digest, "tampered-model", "no digest"),
        (overlap, "damaged-model", "damaged"),
        (wrong_shape, "damaged-model", "bytes its shape needs"),
        (baseline_name, "bad-card", "cannot have the architecture"),
        (bad_json_card, "bad-card", "not valid JSON"),
    ],
)
def test_a_header_that_lies_is_refused(
    package: Path, change: Callable[[dict], None], code: str, complaint: str
) -> None:
    rewrite(package, change)
    with pytest.raises(ModelError, match=complaint) as refused:
        models.read_entry(package)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a safetensors file"),
        (b"\x01\x02", "not a safetensors file"),
        (struct.pack("<Q", 2**60) + b"{}", "not a safetensors file"),
        (struct.pack("<Q", 2) + b"[]", "damaged"),
        (struct.pack("<Q", 4) + b"nope", "damaged"),
        (b"\x80\x04pickle" * 10, "not a safetensors file"),
    ],
)
def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "odd.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=complaint):
        models.read_entry(path)


def test_a_half_downloaded_model_is_refused_by_name_and_left_out_of_the_list(package: Path) -> None:
    package.write_bytes(package.read_bytes()[:-100])
    told: list[str] = []
    listed = models.list_models([package.parent], lambda code, message: told.append(f"{code}: {message}"))
    assert [entry.card.id for entry in listed] == list(models.BASELINES)
    assert len(told) == 1 and "truncated" in told[0] and told[0].startswith("damaged-model")
    with pytest.raises(ModelError, match="truncated"):
        models.find_model("tiny-through-x4", [package.parent])


def test_bytes_after_the_weights_are_refused(package: Path) -> None:
    package.write_bytes(package.read_bytes() + b"payload")
    with pytest.raises(ModelError, match="longer than its header says"):
        models.read_entry(package)


def test_a_model_that_takes_a_baselines_name_is_ignored(tmp_path: Path) -> None:
    models.save_model(tmp_path / "x.safetensors", card("linear"), weights())
    told: list[str] = []
    listed = models.list_models([tmp_path], lambda code, message: told.append(message))
    assert [entry.path for entry in listed] == [None] * len(models.BASELINES)
    assert "name of a baseline" in told[0]


def test_of_two_models_with_one_name_the_newer_version_is_used_and_said(tmp_path: Path) -> None:
    old = models.save_model(tmp_path / "a.safetensors", card(version="1.9"), weights())
    new = models.save_model(tmp_path / "b.safetensors", card(version="1.10"), weights())
    assert old.digest != new.digest
    told: list[tuple[str, str]] = []
    assert models.find_model("tiny-through-x4", [tmp_path], lambda *warning: told.append(warning)) == new
    assert told[0][0] == "duplicate-model" and "a.safetensors" in told[0][1]


def test_a_copy_of_a_model_is_no_duplicate(package: Path) -> None:
    (package.parent / "copy.safetensors").write_bytes(package.read_bytes())
    told: list[str] = []
    listed = models.list_models([package.parent], lambda code, message: told.append(message))
    assert len(listed) == len(models.BASELINES) + 1 and not told


def test_a_misspelt_model_is_answered_with_close_names(package: Path) -> None:
    with pytest.raises(ModelError, match="did you mean tiny-through-x4"):
        models.find_model("tiny-trough-x4", [package.parent])
    with pytest.raises(ModelError, match="there are linear, bspline"):
        models.find_model("zzzz")
    with pytest.raises(ModelError, match="no model file at"):
        models.find_model("nowhere/else.safetensors")


def test_a_folder_that_is_named_must_be_there_and_a_default_one_need_not(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MRSUPERRES_MODELS", str(tmp_path / "none"))
    assert len(models.list_models([package.parent])) == len(models.BASELINES) + 1
    for wrong in (tmp_path / "nope", package):
        with pytest.raises(UsageError, match=f"no folder {wrong}"):
            models.list_models([package.parent, wrong])


def test_a_model_file_can_be_named_directly(package: Path) -> None:
    assert models.find_model(package).card.id == "tiny-through-x4"


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    wrong = {name: tensor for name, tensor in weights().items() if not name.startswith("head")}
    entry = models.save_model(tmp_path / "x.safetensors", card(), wrong)
    with pytest.raises(ModelError, match="do not fit"):
        models.load_network(entry)


@pytest.mark.parametrize("name", ["no_such_network", "os"])
def test_an_unknown_architecture_is_refused_not_imported(tmp_path: Path, name: str) -> None:
    entry = models.save_model(tmp_path / "x.safetensors", card(architecture=name), weights())
    with pytest.raises(ModelError, match="unknown to this version"):
        models.load_network(entry)


def test_unknown_hyperparameters_are_refused(tmp_path: Path) -> None:
    entry = models.save_model(tmp_path / "x.safetensors", card(hyperparameters={"depth": 3}), weights())
    with pytest.raises(ModelError, match="does not accept"):
        models.load_network(entry)


def test_diverged_weights_are_not_shipped(tmp_path: Path) -> None:
    bad = weights()
    bad["head.bias"] = bad["head.bias"] + 1e6  # beyond fp16
    with pytest.raises(ModelError, match="not finite"):
        models.save_model(tmp_path / "x.safetensors", card(), bad)
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        models.save_model(tmp_path / "missing" / "x.safetensors", card(), weights())
    (tmp_path / "taken.safetensors").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        models.save_model(tmp_path / "taken.safetensors", card(), weights())
    assert [path.name for path in tmp_path.iterdir()] == ["taken.safetensors"]


def test_baselines_have_no_network_and_nothing_to_verify() -> None:
    linear = models.find_model("linear")
    models.verify(linear)
    with pytest.raises(ModelError, match="no network"):
        models.load_network(linear)


def test_a_published_file_stays_valid_when_cards_gain_fields(tmp_path: Path) -> None:
    """The digest is of the card's text: a file whose card lacks a field that has a default today is as published.

    The file is made here by hand, its digest computed as documented: card text, tensor header, tensor bytes.
    """
    from safetensors.torch import save

    stated = json.loads(card().to_json())
    del stated["anatomy"]
    text = json.dumps(stated)
    plain = save(weights())
    length = struct.unpack("<Q", plain[:8])[0]
    header = json.dumps(json.loads(plain[8 : 8 + length]), sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode() + header.encode() + plain[8 + length :]).hexdigest()
    path = tmp_path / "old.safetensors"
    path.write_bytes(save(weights(), metadata={"card": text, "digest": digest}))
    entry = models.read_entry(path)
    models.verify(entry)
    assert entry.card == card()


def test_convolutional_networks_are_laid_out_channels_last_and_transformers_are_not(tmp_path: Path) -> None:
    """Where it pays: 10 to 20 % for convolutions, a loss for RDST, whose weights are mostly linear layers."""
    assert models.package._convolutional(torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3), torch.nn.Conv2d(8, 8, 1)))
    assert not models.package._convolutional(networks.build("rdst", {"blocks": 4, "factors": [4, 1]}))
    assert not models.package._convolutional(torch.nn.Linear(3, 3))


def test_listing_models_loads_no_torch(package: Path) -> None:
    """The panel lists models inside Slicer's own process."""
    code = (
        "import sys; from MRSuperResLib import models;"
        f"assert models.find_model('tiny-through-x4', [{str(package.parent)!r}]).card.factor == 4;"
        "print('torch' in sys.modules, 'safetensors' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_a_weights_file_is_read_with_its_digest(tmp_path: Path) -> None:
    theirs, path = {"conv.weight": torch.rand(3, 2), "conv.bias": torch.rand(3)}, tmp_path / "theirs.safetensors"
    save_file(theirs, path)
    held, digest = read_weights(path, None, "them there", "theirs")
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert held.keys() == theirs.keys() and all(torch.equal(held[name], theirs[name]) for name in theirs)
    assert read_weights(path, digest.upper(), "them there", "theirs")[1] == digest
    with pytest.raises(ModelError, match="expected 00ff"):
        read_weights(path, "00ff", "them there", "theirs")


class Trap:
    """Runs something on its unpickling, as a malicious file would."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def test_a_bad_file_is_said_and_runs_nothing(tmp_path: Path) -> None:
    with pytest.raises(MissingRequirement, match="does not exist: put them there"):
        read_weights(tmp_path / "nonesuch.safetensors", None, "them there", "theirs")
    (tmp_path / "noise.safetensors").write_bytes(b"\x07" * 64)
    torch.save({"weights": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    for name in ("noise.safetensors", "trap.pth"):
        with pytest.raises(ModelError, match=f"{name} is no safetensors file.*convert"):
            read_weights(tmp_path / name, None, "them there", "theirs")
    assert not (tmp_path / "sprung").exists()
