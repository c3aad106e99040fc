"""Recipes: one TOML file says everything a training does; a copy of it lies beside every checkpoint.

A recipe names its method (a file in `training/methods`), whose own kind of recipe says which tables there may be. The [card]
becomes the model's card, so a model cannot ship without saying what it is for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .. import plugins
from ..acquisition import PRESETS
from ..documents import BadDocument, decode, expected
from ..errors import UsageError
from .data.single import DataSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).resolve().parent / "recipes"


@dataclass(frozen=True)
class Optimisation:
    """Adam. schedule: "constant" as RDST's first stage; "cosine" to 0; or "halving" after 1/2, 3/4 and 7/8, as RDST's second stage.
    It begins with `warm_up` steps of linear warm-up.

    It runs over `steps` where given (> 0), else over the minutes of the run. ema: decay of the weights' moving average,
    0 for none. clip: largest gradient norm, 0 for none. channels_last: memory format of the networks; left out, the method's own.
    compile: by torch.compile, which takes minutes at the start.
    """

    learning_rate: float = 2e-4
    batch: int = 32
    schedule: Literal["constant", "cosine", "halving"] = "constant"
    warm_up: int = 0
    steps: int = 0
    ema: float = 0.999
    clip: float = 0.0
    channels_last: bool | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        for name, least in {"batch": 1, "warm_up": 0, "steps": 0, "clip": 0, "ema": 0}.items():
            if getattr(self, name) < least:
                raise BadDocument(f"optimisation.{name} is {getattr(self, name):g}, expected at least {least}")
        if self.learning_rate <= 0:
            raise BadDocument(f"optimisation.learning_rate is {self.learning_rate:g}, expected a number above 0")
        if self.ema >= 1:
            raise BadDocument(f"optimisation.ema is {self.ema:g}, expected a number below 1")


@dataclass(frozen=True)
class Validation:
    """Every `every_minutes`, on held-out volumes that match `scans`, acquired by `degradation` as `mrsuperres evaluate` has it.

    slices: how many central slices of each scan are scored, to keep it short.
    """

    every_minutes: float = 10.0
    scans: tuple[str, ...] = ("isotropic/*",)
    degradation: str = "bicubic"
    slices: int = 8

    def __post_init__(self) -> None:
        if self.degradation not in PRESETS:
            raise BadDocument(
                f"validation.degradation is '{self.degradation}', which is unknown; {expected(self.degradation, PRESETS)}"
            )


@dataclass(frozen=True)
class Recipe:
    """One training, as every method has it; a method's own recipe adds tables. Wrong values raise `BadDocument`.

    network: hyper-parameters of `architecture`. loss: weights by name, of the names that the method knows. card: the model card's
    own fields (id, title, version, task, plane, contrasts, ...). published: size, losses and stages are the paper's.
    """

    method: str
    architecture: str = ""
    network: dict[str, Any] = field(default_factory=dict)
    data: DataSpec = field(default_factory=DataSpec)
    card: dict[str, Any] = field(default_factory=dict)
    optimisation: Optimisation = field(default_factory=Optimisation)
    validation: Validation = field(default_factory=Validation)
    loss: dict[str, float] = field(default_factory=dict)
    about: str = ""
    published: bool = False

    def weight(self, loss: str) -> float:
        """Of a loss in the sum; 0 where the recipe does not name it."""
        return self.loss.get(loss, 0.0)


def load_recipe(name_or_path: str | Path) -> tuple[Any, str]:
    """The recipe of that name (one that ships) or in that file, as its method's kind of `Recipe`, and its text.

    Raises `UsageError`: there is none, or a field of it is wrong, naming which.
    """
    from .methods import find_method  # methods know recipes

    path, text, document = _read(name_or_path)
    try:
        if "method" not in document:
            raise BadDocument('method is missing: say how the network is trained, for example method = "supervised"')
        method = find_method(str(document["method"]))
        document.setdefault("loss", {method.losses[0]: 1.0})
        plan = decode(method.recipe, document)
        known(plan.loss, method.losses, "loss")
        if not any(plan.loss.values()):
            raise BadDocument("loss: every weight is 0, so nothing would be learnt")
    except BadDocument as error:
        raise UsageError(f"recipe {path}: {error}") from error
    return plan, text


def known(names: Iterable[str], choices: Iterable[str], what: str) -> None:
    """Raise `BadDocument`, naming the nearest of `choices`, if one of `names` is not among them."""
    among = list(choices)
    for name in names:
        if name not in among:
            raise BadDocument(f"{what}.{name} is not a known {what}; {expected(name, among)}")


def _read(name_or_path: str | Path) -> tuple[Path, str, dict[str, Any]]:
    path = Path(name_or_path)
    if not path.is_file():
        named = plugins.recipes() | {recipe.stem: recipe for recipe in FOLDER.glob("*.toml")}
        path = named.get(str(name_or_path), path)
    if not path.is_file():
        names = sorted(named)
        raise UsageError(
            f"no recipe is called '{name_or_path}'; {expected(str(name_or_path), names)}, or give a .toml file"
        )
    text = path.read_text(encoding="utf-8")
    try:
        return path, text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"recipe {path}: {error}") from error
