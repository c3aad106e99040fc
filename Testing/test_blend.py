"""A model between two of one network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from made_models import card, weights

from MRSuperResLib import cli
from MRSuperResLib.models import Score, Training, find_model, load_network, read_entry, save_model


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A model, and the same trained on."""
    score = Score("a", "through-plane", "gaussian", 30.0, 0.9, 0.01, {"bspline": (29.0, 0.8)})
    stages = (
        ("1", 1.0, Training("first", 10, 2.0, "this")),
        ("2", 3.0, Training("second", 5, 1.0, "this", notes="sharp")),
    )
    for version, factor, training in stages:
        made = card(version=version, training=training, metrics=(score,))
        save_model(tmp_path / f"{version}.safetensors", made, {name: factor * w for name, w in weights().items()})
    return tmp_path / "1.safetensors", tmp_path / "2.safetensors"


def test_weights_lie_on_the_line_and_the_card_says_where(two: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "between.safetensors"
    assert cli.main(["blend", *map(str, two), "--share", "0.25", "-o", str(path)]) == 0
    made = read_entry(path)
    first, found = (load_network(read_entry(one), for_inference=False).state_dict() for one in (two[0], path))
    for name, weight in first.items():
        expected = 1.5 * weight if weight.is_floating_point() else weight
        torch.testing.assert_close(found[name], expected, rtol=2e-3, atol=1e-6)
    assert made.card.metrics == () and made.card.version == "2" and made.card.training.recipe == "second"
    assert made.card.training.notes.startswith("0.75 of the weights of tiny-through-x4 1 (")
    assert made.card.training.notes.endswith("; sharp") and "10 steps in 2 minutes" in made.card.training.notes


@pytest.mark.parametrize(("share", "same"), [("0", 0), ("1", 1)])
def test_the_ends_are_the_models_themselves(two: tuple[Path, Path], tmp_path: Path, share: str, same: int) -> None:
    path = tmp_path / "end.safetensors"
    assert cli.main(["blend", *map(str, two), "--share", share, "-o", str(path)]) == 0
    end, found = (load_network(read_entry(one), for_inference=False).state_dict() for one in (two[same], path))
    assert all(torch.equal(found[name], weight) for name, weight in end.items())


@pytest.mark.parametrize(
    ("share", "second", "output", "code", "words"),
    [
        ("1.5", None, "a.safetensors", 2, "share is 1.5"),
        ("nan", None, "a.safetensors", 2, "share is nan"),
        ("0.5", "bspline", "a.safetensors", 2, "no weights"),
        ("0.5", "disvit-through-x4", "a.safetensors", 2, "architecture"),
        ("0.5", None, "a.pt", 5, "written as .safetensors"),
        ("0.5", None, "1.safetensors", 5, "there already"),
    ],
)
def test_what_cannot_be_blended_is_refused_in_one_line(
    two: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    share: str,
    second: str | None,
    output: str,
    code: int,
    words: str,
) -> None:
    before = two[0].read_bytes()
    given = ["blend", str(two[0]), second or str(two[1]), "--share", share, "-o", str(tmp_path / output)]
    assert cli.main(given) == code
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and words in told[0]
    assert two[0].read_bytes() == before and find_model(str(two[0])).card.version == "1"


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_that_leads_nowhere_is_not_written_over(two: tuple[Path, Path], tmp_path: Path) -> None:
    link = tmp_path / "link.safetensors"
    link.symlink_to(tmp_path / "nowhere.safetensors")
    assert cli.main(["blend", *map(str, two), "--share", "0.5", "-o", str(link)]) == 5
    assert link.is_symlink() and not link.exists()
