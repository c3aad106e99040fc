"""Ways to train, one file each, found by name as networks are: a recipe's `method = "supervised"` is `supervised.py` here.

A file defines a subclass of `training.method.Method`, where the protocol is described, and names it: `METHOD = Supervised`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from ...documents import BadDocument, expected

if TYPE_CHECKING:
    from ..method import Method


def methods() -> tuple[str, ...]:
    """Names of the modules in this package, the values a recipe's `method` may take."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def find_method(name: str) -> type[Method]:
    """The method of that name. Raises `BadDocument`, with the nearest name, if there is none."""
    if name not in methods():
        raise BadDocument(f"method is '{name}', which is unknown; {expected(name, methods())}")
    found: type[Method] = importlib.import_module(f"{__name__}.{name}").METHOD
    return found
