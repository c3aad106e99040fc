"""The benchmark measures what it says; SwinIR itself is only there with `make bench`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parent / "Benchmarks" / "bench.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("bench", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "parameters"), [("rdst-e", 2.35e6), ("disvit", 1.23e6), ("disvit-bf16", 1.23e6), ("bspline", 0)]
)
def test_a_contestant_is_measured_in_its_own_process(name: str, parameters: float) -> None:
    """RDST-E has the paper's 2.35 M parameters within 3 %, disvit 33 convolutions of 64 x 64 x 9 weights and little more."""
    command = [
        sys.executable,
        str(SCRIPT),
        "--measure",
        name,
        "--slices",
        "2",
        "--size",
        "16",
        "--batch",
        "2",
        "--threads",
        "1",
    ]
    printed = subprocess.run(command, cwd=SCRIPT.parents[2], capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    assert found["parameters"] == pytest.approx(parameters, rel=0.03)
    assert found["slices_per_second"] > 0 and found["peak_mb"] > 0


def test_ratios_are_to_swinir(bench: ModuleType) -> None:
    runs = {"swinir": [(2.0, 300.0), (1.0, 310.0), (4.0, 290.0)], "rdst-e": [(8.0, 155.0), (7.0, 150.0), (9.0, 150.0)]}
    results = {
        name: bench.summarise([{"parameters": 1_000_000, "slices_per_second": s, "peak_mb": m} for s, m in values])
        for name, values in runs.items()
    }
    assert results["swinir"]["slices_per_second"] == 2.0 and results["swinir"]["peak_mb"] == 310.0
    text = bench.table("cpu", results, argparse.Namespace(slices=16, size=48, batch=4, threads=2, rounds=3))
    line = next(row for row in text.splitlines() if row.startswith("rdst-e"))
    assert "4.00x" in line and "0.50x" in line
    assert "48x48 -> 192x192" in text
