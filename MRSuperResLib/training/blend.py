"""Weights between those of two models of one network: what a second stage sharpens, in part.

Along the line from a network trained by L1 to the same network trained further by adversarial and feature losses, error and
sharpness change smoothly, and a model on it is often better than either end (network interpolation: Wang et al., ESRGAN, 2018).
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ..errors import OutputError, UsageError
from ..models import SUFFIX, ModelEntry, load_network, save_model


def blend(first: ModelEntry, second: ModelEntry, share: float, path: str | os.PathLike[str]) -> ModelEntry:
    """Write the model with `share` (0 to 1) of `second`'s weights and the rest of `first`'s to `path`.

    Its card is that of `second` without scores, and says what was blended. Raises `UsageError` for a share out of that range and
    for models of different networks, `OutputError` for a file that is there already or has another ending, `ModelError` and
    `OutputError` as `load_network` and `save_model`.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise OutputError(f"{path.name}: models are written as {SUFFIX}")
    if os.path.lexists(path):
        raise OutputError(f"{path.name} is there already: name another file, or remove it")
    if not 0 <= share <= 1:
        raise UsageError(f"the second model's share is {share:g}, expected 0 to 1")
    for entry in (first, second):
        if entry.path is None:
            raise UsageError(f"'{entry.card.id}' is computed and has no weights to blend")
    for what in ("architecture", "hyperparameters", "task", "plane", "factors", "contrasts"):
        if getattr(first.card, what) != getattr(second.card, what):
            raise UsageError(f"'{first.card.id}' and '{second.card.id}' are not one network: their {what} differ")
    start, end = (load_network(entry, for_inference=False).state_dict() for entry in (first, second))
    weights = {
        name: (1 - share) * value + share * end[name] if value.is_floating_point() else end[name]
        for name, value in start.items()
    }
    before, after = first.card.training, second.card.training
    parts = (
        f"{1 - share:.3g} of the weights of {first.card.id} {first.card.version} ({first.digest[:12]}: {before.steps} steps in "
        f"{before.minutes:g} minutes on {before.machine}) and {share:.3g} of what this training made of them"
    )
    training = replace(after, notes="; ".join(note for note in (parts, after.notes) if note))
    return save_model(path, replace(second.card, training=training, metrics=()), weights)
