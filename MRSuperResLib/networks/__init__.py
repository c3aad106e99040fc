"""The published networks, one file each; they know tensors and nothing of files, volumes or devices.

A shippable architecture is a module here with a function `build(**hyperparameters) -> nn.Module`; a model card names the
module and the hyper-parameters, and `build` below is all that the rest of the library calls.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import plugins
from ..errors import ModelError

if TYPE_CHECKING:
    from torch import nn


NO_NETWORKS = {"parts"}


def architectures() -> tuple[str, ...]:
    """Names of the networks in this package and of the user's plug-ins: the values a card's `architecture` may take."""
    return tuple(sorted(_ours() | set(plugins.names())))


def requirements(architecture: str) -> dict[str, Any]:
    """What the network's module says that it needs of its caller, as a card's [requirements]; nothing if it says nothing."""
    return dict(getattr(_module(architecture), "REQUIREMENTS", {}))


def build(architecture: str, hyperparameters: Mapping[str, Any]) -> nn.Module:
    """The network `architecture` with `hyperparameters`, freshly initialised, on the CPU.

    Raises `ModelError` when the architecture is unknown or does not take those hyper-parameters.
    """
    module = _module(architecture)
    try:
        network: nn.Module = module.build(**hyperparameters)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"architecture '{architecture}' does not accept the card's hyper-parameters: {error}{_hint(module, error)}",
            code="bad-card",
        ) from error
    return network


def _hint(module: Any, error: Exception) -> str:
    """The hyper-parameter that was meant by one that the network does not know, in words."""
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown is None:
        return ""
    ours = [
        one for one in vars(module).values() if isinstance(one, type) and one.__module__.startswith(module.__name__)
    ]
    makers = [module.build, *(one for one in ours if "__init__" in vars(one))]
    known = {name for maker in makers for name in inspect.signature(maker).parameters}
    near = difflib.get_close_matches(unknown[1], sorted(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _ours() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__)} - NO_NETWORKS


def _module(architecture: str) -> Any:
    """The module of `architecture`: one of this package, else one of the user's plug-ins."""
    if architecture in _ours():
        module = importlib.import_module(f"{__name__}.{architecture}")
    elif architecture in plugins.names():
        module = plugins.load(architecture)
    else:
        raise ModelError(
            f"architecture '{architecture}' is unknown to this version of MRSuperRes (it has {', '.join(architectures())}); "
            f"update MRSuperRes, use another model or, if the network is a plug-in, name its folder in {plugins.VARIABLE}",
            code="unknown-architecture",
        )
    if not hasattr(module, "build"):
        raise ModelError(f"'{architecture}' is part of a training, not a network to run", code="unknown-architecture")
    return module
