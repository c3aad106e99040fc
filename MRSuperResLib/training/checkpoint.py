"""Checkpoints: everything a training needs to go on exactly where it stopped, in one safetensors file.

The file holds weights, moving average and Adam's moments; its metadata holds the counters, so nothing is ever unpickled. It is no
model package: `mrsuperres run` refuses it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..documents import decode
from ..errors import ModelError, OutputError

LAST = "last.checkpoint"
MOMENTS = ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")


@dataclass
class Progress:
    """Where a training stands; saved in every checkpoint.

    samples: drawn so far by this process. minutes: spent in all runs together. best: the highest validation score.
    """

    step: int = 0
    samples: int = 0
    minutes: float = 0.0
    best: float = -math.inf
    machine: str = ""


class MovingAverage:
    """Exponential moving average of a network's weights; short runs start with a faster one, so it never lags by much.

    Whole numbers, such as a batch normalisation's count of batches, are not averaged: they are the last ones.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {
            name: value.detach().clone().to(torch.float32 if value.is_floating_point() else value.dtype)
            for name, value in network.state_dict().items()
        }

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after step number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        values = network.state_dict()
        averaged = [name for name, value in values.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self.weights[name] for name in averaged], [values[name].float() for name in averaged], 1.0 - decay
        )
        for name in values.keys() - averaged:
            self.weights[name].copy_(values[name])


def save_checkpoint(
    path: Path, network: nn.Module, average: MovingAverage, optimisers: Iterable[Any], progress: Progress
) -> None:
    """Write `path`, under a temporary name first. optimisers: Adams over parameters of `network`, which may hold several."""
    tensors: dict[str, Tensor] = {}
    tensors |= {f"network.{name}": value.contiguous() for name, value in network.state_dict().items()}
    tensors |= {f"average.{name}": value.contiguous() for name, value in average.weights.items()}
    for optimiser, names in _named(network, optimisers):
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {
                f"adam.{names[index]}.{key}": torch.as_tensor(value).contiguous() for key, value in state.items()
            }
    temporary = path.with_name(f".{path.name}.part")
    best = progress.best if math.isfinite(progress.best) else None
    try:
        save_file(tensors, temporary, metadata={"progress": json.dumps(vars(progress) | {"best": best})})
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"the checkpoint {path} cannot be written: {error}; make room, and go on with --resume"
        ) from error


def load_checkpoint(
    path: Path, network: nn.Module, average: MovingAverage, optimisers: Iterable[Any], progress: Progress
) -> None:
    """The reverse of `save_checkpoint`, into the objects given and onto the device where `network` already is.

    Raises `ModelError`: the file is damaged, or its weights are those of another network.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            counters = json.loads(stored.metadata()["progress"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
        found = decode(Progress, {name: value for name, value in counters.items() if value is not None})
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(
            f"{path} is no checkpoint, or a damaged one ({error}): train anew in another folder", code="damaged-model"
        ) from error
    part = {
        prefix: {n[len(prefix) :]: v for n, v in tensors.items() if n.startswith(prefix)}
        for prefix in ("network.", "average.", "adam.")
    }
    for prefix, wanted in (("network.", network.state_dict()), ("average.", average.weights)):
        shapes, there = ({n: tuple(v.shape) for n, v in some.items()} for some in (wanted, part[prefix]))
        differing = sorted(name for name in shapes.keys() | there.keys() if shapes.get(name) != there.get(name))
        if differing:
            raise ModelError(
                f"{path} is of another network than this recipe's: {len(differing)} of its weights differ, the first is "
                f"'{differing[0]}'; resume with the recipe beside it, recipe.toml",
                code="bad-weights",
            )
    vars(progress).update(vars(found))
    network.load_state_dict(part["network."])
    average.weights = {name: part["average."][name].to(value.device) for name, value in average.weights.items()}
    for optimiser, names in _named(network, optimisers):
        state = optimiser.state_dict()
        for index, name in enumerate(names):
            moments = {key: part["adam."][f"{name}.{key}"] for key in MOMENTS if f"{name}.{key}" in part["adam."]}
            if moments:
                state["state"][index] = moments
        optimiser.load_state_dict(state)


def take_fitting(network: nn.Module, weights: Mapping[str, Tensor]) -> int:
    """Load those of `weights` whose names and shapes fit `network`; how many did."""
    target = network.state_dict()
    fitting = {name: value for name, value in weights.items() if name in target and target[name].shape == value.shape}
    network.load_state_dict({**target, **fitting})
    return len(fitting)


def _named(network: nn.Module, optimisers: Iterable[Any]) -> list[tuple[Any, list[str]]]:
    """Each optimiser with the names, in `network`, of its parameters in its own order."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return [
        (one, [names[id(parameter)] for group in one.param_groups for parameter in group["params"]])
        for one in optimisers
    ]
