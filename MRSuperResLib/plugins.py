"""Networks of the user's own: Python files in folders that MRSUPERRES_PLUGINS names, or installed entry points.

A file `NAME.py` with a function `build(**hyperparameters) -> nn.Module` is the architecture NAME; its `REQUIREMENTS`, if it has
them, say what the network needs of its caller, as a card's [requirements] do. A package may offer networks as entry points of
the group "mrsuperres.networks", each a module of that kind. A model file only names its architecture: no model makes Python run
that the user has not put in place himself, and names of our own networks cannot be taken.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

from .errors import ModelError, UsageError

VARIABLE = "MRSUPERRES_PLUGINS"
GROUP = "mrsuperres.networks"
NAME = re.compile(r"[a-z][a-z0-9_]*")


def folders() -> tuple[Path, ...]:
    """The folders that the environment names, separated as in PATH. Raises `UsageError` for one that is not there."""
    named = [Path(one).expanduser() for one in os.environ.get(VARIABLE, "").split(os.pathsep) if one]
    for folder in named:
        if not folder.is_dir():
            raise UsageError(f"{VARIABLE} names {folder}, which is no folder", code="no-plugin-folder")
    return tuple(named)


def names() -> tuple[str, ...]:
    """Names of the user's networks; one of ours is never among them."""
    ours = {path.stem for path in (Path(__file__).parent / "networks").iterdir()}
    return tuple(sorted((set(_files()) | set(_entry_points())) - ours))


def recipes() -> dict[str, Path]:
    """The recipes beside the user's networks, by name."""
    return {path.stem: path for folder in folders() for path in sorted(folder.glob("*.toml"))}


def load(name: str) -> ModuleType:
    """Run the user's network module of that name, which is one of `names()`. Raises `ModelError` if it cannot be run."""
    known = f"mrsuperres_plugin_{name}"
    if known in sys.modules:
        return sys.modules[known]
    path = _files().get(name)
    try:
        if path is None:
            loaded = _entry_points()[name].load()
            assert isinstance(loaded, ModuleType), f"its entry point is a {type(loaded).__name__}, expected a module"
            return loaded
        spec = importlib.util.spec_from_file_location(known, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[known] = module
        spec.loader.exec_module(module)
        return module
    except Exception as error:  # whatever a user's file does wrong
        sys.modules.pop(known, None)
        raise ModelError(
            f"the plug-in '{name}' ({path or 'an entry point'}) cannot be loaded: {type(error).__name__}: {error}",
            code="bad-plugin",
        ) from error


def _files() -> dict[str, Path]:
    return {
        path.stem: path for folder in folders() for path in sorted(folder.glob("*.py")) if NAME.fullmatch(path.stem)
    }


@functools.cache
def _entry_points() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=GROUP)}
