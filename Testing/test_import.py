"""Importing the library is cheap and stays inside its own world: no torch at import, no Slicer anywhere."""

from __future__ import annotations

import ast
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[1] / "MRSuperResLib"
MODULES = sorted(LIBRARY.rglob("*.py"))
HEAVY = ("torch", "monai", "lightning", "lightning_fabric", "matplotlib")
FORBIDDEN = {"slicer", "qt", "ctk", "vtk", "vtkmodules", "mrml", "PythonQt", "PySide6", "SampleData"}


def run(code: str) -> str:
    """What a fresh interpreter prints for `code`, without the coverage hook, which would be timed too."""
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=LIBRARY.parent, env=_plain_environment(), capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def _plain_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("COV")}


def test_importing_the_library_leaves_slicer_responsive() -> None:
    """Under 0.3 s of a processor (median of five): Slicer imports it at start-up."""
    code = "import time; t = time.process_time(); import MRSuperResLib; print(time.process_time() - t)"
    seconds = statistics.median(float(run(code)) for _ in range(5))
    assert seconds < 0.3, f"import MRSuperResLib takes {seconds:.2f} s"


@pytest.mark.parametrize("module", ["", ".models", ".jobs", ".cli", ".volume"])
def test_what_the_panel_imports_brings_no_torch_into_slicer(module: str) -> None:
    """Slicer's own process loads none of the large packages that the worker needs."""
    code = f"import sys, MRSuperResLib{module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    assert run(code).split() == []


def test_listing_the_commands_is_quick() -> None:
    """`mrsuperres --help` takes under a second of a processor, because it does not load torch."""
    code = """
import runpy, sys, time
sys.argv = ["mrsuperres", "--help"]
try:
    runpy.run_module("MRSuperResLib", run_name="__main__")
except SystemExit:
    print(time.process_time())
"""
    assert statistics.median(float(run(code).split()[-1]) for _ in range(3)) < 1.0


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(LIBRARY).as_posix())
def test_the_library_runs_without_slicer(path: Path) -> None:
    """No module of MRSuperResLib imports slicer, qt, ctk or vtk, at its top or inside a function."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            imported.add(node.module.split(".")[0])
    assert not imported & FORBIDDEN


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(LIBRARY).as_posix())
def test_weights_are_never_unpickled(path: Path) -> None:
    """Models are data: no pickle module, and `torch.load` (training checkpoints only) says weights_only=True."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {"pickle", "joblib", "dill"} & {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "fabric.load", "pickle.load"):
            safe = [k for k in node.keywords if k.arg == "weights_only" and ast.unparse(k.value) == "True"]
            assert safe, f"line {node.lineno}: {ast.unparse(node)} does not say weights_only=True"


def test_packages_import_one_way() -> None:
    """No two packages of the library import each other, neither directly nor in a circle."""
    imports: dict[str, set[str]] = {}
    for path in MODULES:
        parts = path.relative_to(LIBRARY).parts
        own = parts[0] if len(parts) > 1 else path.stem
        for node in _run(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                place = [*parts[: len(parts) - node.level], *(node.module or "").split(".")]
                place = [part for part in place if part]
                imports.setdefault(own, set()).update(place[:1] if place else {alias.name for alias in node.names})
    left = {name: others - {name, "__init__"} for name, others in imports.items()}
    while left:
        free = [name for name, others in left.items() if not others & set(left)]
        assert free, f"these import each other: {', '.join(sorted(left))}"
        for name in free:
            del left[name]


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of `tree` that run: imports for type checkers alone are left out."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from _run(node)
