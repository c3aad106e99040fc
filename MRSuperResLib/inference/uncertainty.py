"""How far a translation may be from the truth, voxel by voxel: what an error network says, else the spread of the samples.

An error network (a model whose task is "error") has learnt from one translator's answers where they are wrong, also where all
samples agree. It belongs to that translator and version, as its card says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import models
from ..models import ModelCard, ModelEntry
from .options import Cancel, Options, Warn, log_warning, never

if TYPE_CHECKING:
    import torch

# Of a Laplace distribution, whose scale is the mean absolute error. 1.645 of it on either side hold 90.2 %, as they hold 90 % of a
# normal one, so that the map is read in the same way whatever it was made by.
DEVIATION = math.sqrt(2.0)


@dataclass(frozen=True)
class Uncertainty:
    """A standard deviation of the error on the networks' scale, (k, j, i). scale: what it was multiplied by after it was made.

    model: the error network; None where it is the samples' spread.
    """

    deviation: np.ndarray
    scale: float | None
    model: ModelEntry | None

    def report(self) -> dict[str, Any]:
        """For the records."""
        if self.model is None:
            return {"made_by": "spread of the samples", "scale": self.scale}
        card = self.model.card
        found = {"model": card.id, "version": card.version, "digest": self.model.digest}
        return {"made_by": "error network", **found, "scale": self.scale}


def name_with_version(card: ModelCard) -> str:
    """How the card of an error network names the translator that it belongs to."""
    return f"{card.id} {card.version}"


def error_network_for(translator: ModelEntry, options: Options, warn: Warn = log_warning) -> ModelEntry | None:
    """The installed error network of that translator, of several the last by id; None if there is none.

    `warn` hears of one that belongs to another version of the translator.
    """
    networks = [entry for entry in models.list_models(options.model_folders) if entry.card.task == "error"]
    able = [entry for entry in networks if entry.card.judges == name_with_version(translator.card)]
    if able:
        return able[-1]
    other = next((entry for entry in networks if entry.card.judges.split(" ")[0] == translator.card.id), None)
    if other is not None:
        warn(
            "other-version",
            f"'{other.card.id}' knows the errors of {other.card.judges}, not of {name_with_version(translator.card)}: "
            "the uncertainty is the samples' spread",
        )
    return None


def uncertainty_of(
    source: np.ndarray,
    mean: np.ndarray,
    deviation: np.ndarray,
    translator: ModelEntry,
    network: ModelEntry | None,
    contrasts: tuple[str, str],
    axis: int,
    *,
    options: Options | None = None,
    warn: Warn = log_warning,
    cancel: Cancel = never,
) -> Uncertainty:
    """What `network` says of an answer, or without one the samples' `deviation` times the translator's `uncertainty_scale`.

    source, mean, deviation: on the networks' scale, one shape, slices along array `axis`. contrasts: of source and target.
    `warn` hears where neither is calibrated.
    """
    if network is None:
        scale = translator.card.requirements.uncertainty_scale
        if scale is None:
            warn(
                "uncalibrated",
                f"'{translator.card.id}' is not calibrated: its uncertainty is the samples' plain deviation",
            )
        return Uncertainty(deviation * np.float32(1.0 if scale is None else scale), scale, None)
    scale = network.card.requirements.uncertainty_scale
    stacks = [np.moveaxis(each, axis, 0) for each in (source, mean, deviation)]
    result = np.empty(mean.shape, dtype=np.float32)
    answers = np.moveaxis(result, axis, 0)
    for which, found in _runner(network, contrasts, options or Options(), warn, cancel).run(stacks[0], stacks[1:]):
        answers[which] = found
    result *= np.float32(DEVIATION * (1.0 if scale is None else scale))
    return Uncertainty(result, scale, network)


def _runner(entry: ModelEntry, contrasts: tuple[str, str], options: Options, warn: Warn, cancel: Cancel) -> Any:
    """A `SliceRunner` of the error network: source, mean and deviation -> mean absolute error."""
    import torch
    from torch import nn

    from .runner import SliceRunner

    network = models.kept_network(entry)
    known = tuple(getattr(network, "contrasts", ()))
    source, target = (known.index(name) if name in known else 0 for name in contrasts)

    class Bound(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
            logarithm: torch.Tensor = self.network(torch.cat((x, mean, deviation), 1), source, target)
            return logarithm.float().exp()

    return SliceRunner(Bound(), entry.card, (1, 1), replace(options, batch=1), warn, cancel)
