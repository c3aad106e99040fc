"""The published networks, one file each; they know tensors and nothing of files, volumes or devices.

A shippable architecture is a module here with a function `build(**hyperparameters) -> nn.Module`; a model card names the
module and the hyper-parameters, and `build` below is all that the rest of the library calls.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ModelError

if TYPE_CHECKING:
    from torch import nn


NO_NETWORKS = ("parts", "projection", "patchgan")  # the last two have moved to parts


def architectures() -> tuple[str, ...]:
    """Names of the modules in this package, the values a card's `architecture` may take."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in NO_NETWORKS))


def build(architecture: str, hyperparameters: Mapping[str, Any]) -> nn.Module:
    """The network `architecture` with `hyperparameters`, freshly initialised, on the CPU.

    Raises `ModelError` when the architecture is unknown or does not take those hyper-parameters.
    """
    if architecture not in architectures():
        raise ModelError(
            f"architecture '{architecture}' is unknown to this version of MRSuperRes (it has {', '.join(architectures())}); "
            "update MRSuperRes or use another model",
            code="unknown-architecture",
        )
    module = importlib.import_module(f"{__name__}.{architecture}")
    if not hasattr(module, "build"):
        raise ModelError(f"'{architecture}' is part of a training, not a network to run", code="unknown-architecture")
    try:
        network: nn.Module = module.build(**hyperparameters)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"architecture '{architecture}' does not accept the card's hyper-parameters: {error}", code="bad-card"
        ) from error
    return network
