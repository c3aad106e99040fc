"""Small things to run on: a model of random weights, a scan, and what a job said; shared by several test files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from MRSuperResLib import jobs, models, networks
from MRSuperResLib.grid import Grid
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.jobs import Job
from MRSuperResLib.models import ModelCard, Requirements
from MRSuperResLib.volume import Volume

REPOSITORY = Path(__file__).resolve().parents[1]
TINY = {"blocks": 1, "factors": [2, 1], "width": 8, "heads": 2, "growth": 4, "window": 4}


def save_tiny(folder: Path, name: str = "tiny-through-x2", **changes: Any) -> Path:
    """A package of random weights, small enough to run in a blink."""
    import torch

    torch.manual_seed(1)
    fields: dict[str, Any] = {
        "id": name,
        "title": "Tiny",
        "version": "1.0",
        "architecture": "rdst",
        "hyperparameters": TINY,
        "task": "super-resolve",
        "plane": "through-plane",
        "factors": (2, 1),
        "contrasts": ("any",),
        "spacing": None,
        "licence": "Apache-2.0",
        "intended_use": "Tests",
        "requirements": Requirements(smallest=4, multiple_of=4),
    } | changes
    path = folder / f"{name}.safetensors"
    network = networks.build("rdst", {**TINY, "skip": "bicubic"} if not changes else TINY)
    models.save_model(
        path, ModelCard(**{**fields, "hyperparameters": {**TINY, "skip": "bicubic"}}), network.state_dict()
    )
    return path


def save_scan(path: Path, size: tuple[int, int, int] = (16, 18, 6), seed: int = 0) -> Path:
    """An oblique scan of 3 mm slices with a bright block in the middle."""
    direction = (0.8, 0.6, 0.0, -0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
    grid = Grid(size=size, spacing=(1.0, 1.0, 3.0), origin=(10.0, -20.0, 5.0), direction=direction)
    array = np.random.default_rng(seed).normal(100, 5, grid.shape).astype(np.float32)
    array[1:-1, 4:-4, 4:-4] += 400
    write_volume(Volume(array, grid), path)
    return path


def run(job: Job, cancel: Any = lambda: False) -> list[dict[str, Any]]:
    """All the events of a job run here, an error being one."""
    events: list[dict[str, Any]] = []
    jobs.execute(job, events.append, cancel)
    return events


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def image(array: np.ndarray, path: Path, spacing: tuple[float, ...] | None = None) -> Path:
    """`array` as SimpleITK writes it."""
    import SimpleITK as sitk

    made = sitk.GetImageFromArray(array, isVector=False)
    made.SetSpacing(spacing or (1.0,) * (made.GetDimension() - 1) + (3.0,))
    sitk.WriteImage(made, str(path))
    return path


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)


def shell(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """The real program in its own process."""
    command = [sys.executable, "-m", "MRSuperResLib", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, **options)
