"""The card of a model in training: checked before the first step, completed after the last."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .. import networks
from ..documents import BadDocument, decode
from ..errors import ModelError, UsageError
from ..models import ModelCard, ModelEntry, save_model
from .checkpoint import MovingAverage, Progress
from .recipes import Recipe


def checked_card(plan: Recipe) -> tuple[dict[str, Any], ModelCard]:
    """The card's fields from the recipe, and the card they make, checked against the network before the first step."""
    # TOML has no word for nothing: a card without factors is a prior's.
    fields = {"factors": None, **plan.card, "architecture": plan.architecture, "hyperparameters": plan.network}
    fields["requirements"] = {**networks.requirements(plan.architecture), **plan.card.get("requirements", {})}
    card = checked(fields)
    with torch.device("meta"):
        network = networks.build(plan.architecture, plan.network)
    factors: tuple[int, int] | None = getattr(network, "factors", None)
    if factors is not None and tuple(factors) != card.factors:
        raise UsageError(
            f"recipe: [network].factors is {list(factors)}, [card].factors is {plan.card['factors']}: make them agree"
        )
    return fields, card


def checked(fields: dict[str, Any]) -> ModelCard:
    """The card that `fields` make. Raises `UsageError` naming the first that is wrong."""
    try:
        return decode(ModelCard, fields)
    except (BadDocument, ModelError) as error:
        raise UsageError(f"recipe [card]: {error}") from error


def with_notes(card: dict[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    """The fields of a card with `notes` added to those on its training."""
    training = dict(card.get("training", {}))
    training["notes"] = "; ".join(part for part in (training.get("notes", ""), *notes) if part)
    return {**card, "training": training}


def write_package(
    path: Path, fields: dict[str, Any], average: MovingAverage, progress: Progress, recipe: str
) -> ModelEntry:
    """The model package of the averaged weights: the card has `fields` and says how the training went."""
    training = {
        "recipe": recipe,
        "steps": progress.step,
        "minutes": round(progress.minutes, 1),
        "machine": progress.machine,
        "date": datetime.date.today().isoformat(),
        **fields.get("training", {}),
    }
    card = decode(ModelCard, {**fields, "training": training})
    return save_model(path, card, {name: value.cpu() for name, value in average.weights.items()})
