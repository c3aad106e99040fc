"""README is true: what it tells a newcomer to type exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from model_table import cells, gains, kind_of

from MRSuperResLib import cli, models

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
CODE = [line[4:].split("  #")[0].strip() for line in README.splitlines() if line.startswith("    ")]
COMMANDS = [line for line in CODE if line.startswith("mrsuperres ")]
BEHIND = {("rdst-e-inplane-x2", "openmslong-04-1_T1w", "kspace")}  # README says so


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_line_is_understood(command: str) -> None:
    """Options and sub-commands exist; nothing is run."""
    cli.parser().parse_args(shlex.split(command)[1:])


@pytest.mark.parametrize("target", [line.split()[1] for line in CODE if line.startswith("make ")])
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_shipped_model_is_described_and_every_described_one_is_shipped() -> None:
    shipped = {models.read_entry(path).card.id for path in (REPOSITORY / "Resources" / "Models").glob("*.safetensors")}
    if not shipped:
        pytest.skip("no model is shipped yet")
    table = {row.split("|")[1].strip(" `") for row in README.splitlines() if row.startswith("| `")}
    assert table == shipped
    used = set(re.findall(r'(?:--model |model=")([a-z0-9.-]+)(?![a-z0-9.-]*/)', README))  # a path is no id
    assert used <= shipped


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "Resources" / "Models").glob("*.safetensors")), ids=lambda path: path.stem
)
def test_the_scores_of_the_table_are_those_of_the_cards(path: Path) -> None:
    card = models.read_entry(path).card
    (row,) = (row for row in README.splitlines() if row.startswith(f"| `{card.id}` |"))
    assert f"| {cells(card)} |" in row
    if card.task == "translate":
        return
    assert all(sum(values) / len(values) > 0 for values in gains(card).values())
    behind = {
        (card.id, score.scan, kind_of(score)) for score in card.metrics if score.psnr <= score.baseline["bspline"][0]
    }
    assert behind <= BEHIND, "a scan on which a shipped model is behind B-spline, which README does not name"


def test_every_linked_file_exists() -> None:
    linked = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert linked and all((REPOSITORY / target).exists() for target in linked)
