"""Recipes: one TOML file says everything a training does; a copy of it lies beside every checkpoint.

A recipe's [card] becomes the model's card, so a model cannot ship without saying what it is for.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from ..documents import BadDocument, decode
from ..errors import UsageError
from .data import DataSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).resolve().parent / "recipes"


@dataclass(frozen=True)
class Optimisation:
    """Adam. schedule: "constant" as RDST's first stage, or "cosine": `warm_up` steps of linear warm-up, then a cosine to 0.

    The cosine runs over `steps` where given (> 0), else over the minutes of the run. ema: decay of the weights' moving average,
    0 for none. clip: largest gradient norm, 0 for none.
    """

    learning_rate: float = 2e-4
    batch: int = 32
    schedule: Literal["constant", "cosine"] = "constant"
    warm_up: int = 0
    steps: int = 0
    ema: float = 0.999
    clip: float = 0.0


@dataclass(frozen=True)
class Validation:
    """Every `every_minutes`, on held-out volumes that match `scans`: `planes` and `degradations` as `mrsuperres evaluate` has them.

    slices: how many central slices of each scan are scored, to keep it short.
    """

    every_minutes: float = 10.0
    scans: tuple[str, ...] = ("isotropic/*",)
    degradation: str = "bicubic"
    slices: int = 8


@dataclass(frozen=True)
class Recipe:
    """One training. `card` holds the model card's own fields (id, title, version, task, plane, contrasts, ...)."""

    architecture: str
    network: dict[str, Any]
    data: DataSpec
    card: dict[str, Any]
    optimisation: Optimisation = field(default_factory=Optimisation)
    validation: Validation = field(default_factory=Validation)
    loss: dict[str, float] = field(default_factory=lambda: {"l1": 1.0})
    about: str = ""


Kind = TypeVar("Kind", bound=Recipe)


def load_recipe(name_or_path: str | Path, kind: type[Kind] = Recipe) -> tuple[Kind, str]:  # type: ignore[assignment]
    """The recipe of that name (one that ships) or in that file, as a `kind` of recipe, and its text.

    Raises `UsageError`: there is none, or a field of it is wrong, naming which.
    """
    path, text, document = _read(name_or_path)
    try:
        return decode(kind, document), text
    except BadDocument as error:
        raise UsageError(f"recipe {path}: {error}") from error


def loop_of(name_or_path: str | Path) -> str:
    """The module of `training` that trains by a recipe: "guided", "gan" for those with [adversarial], else "loop"."""
    document = _read(name_or_path)[2]
    card = document.get("card")
    if isinstance(card, dict) and card.get("task") == "reference-guided":
        return "guided"
    return "gan" if "adversarial" in document else "loop"


def _read(name_or_path: str | Path) -> tuple[Path, str, dict[str, Any]]:
    path = Path(name_or_path)
    if not path.is_file():
        path = FOLDER / f"{name_or_path}.toml"
    if not path.is_file():
        names = ", ".join(sorted(recipe.stem for recipe in FOLDER.glob("*.toml")))
        raise UsageError(f"no recipe is called '{name_or_path}'; there are {names}, or give a .toml file")
    text = path.read_text(encoding="utf-8")
    try:
        return path, text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"recipe {path}: {error}") from error
