"""Odd volumes, jobs, models and command lines from a seed, judged by independent readers (--odd-seed, --odd-count)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def test_odd_inputs_are_read_as_others_read_them_or_refused_in_one_line(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """In a process of its own, which an abort or a hang ends, and its last line names."""
    seed, count = request.config.getoption("--odd-seed"), request.config.getoption("--odd-count")
    environment = {**os.environ, "PYTHONPATH": str(HERE), "MRSUPERRES_MODELS": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(HERE / "odd_inputs.py"), str(seed), str(count)],
        capture_output=True, text=True, errors="replace", env=environment, cwd=HERE.parent,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(lines) == 2 * count, f"seed {seed}: {lines[-1:]}, {done.stderr[-2000:]}"
    found = [line for line in lines if "number" in line]
    wrong = [line for line in found if line["wrong"]]
    again = "python Testing/odd_inputs.py {seed} 1 {number}"
    assert not wrong, "\n".join(
        f"{again.format(seed=seed, **line)}: {line['words']}: {line['wrong']}" for line in wrong[:20]
    )
    outcomes = Counter(line["outcome"] for line in found)
    assert min(outcomes[outcome] for outcome in ("read", "told", "refused")) >= count // 100, outcomes
    assert not list(tmp_path.iterdir()), "nothing is left in the folder for temporary files"
    print(seed, count, dict(outcomes))
