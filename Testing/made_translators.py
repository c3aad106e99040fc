"""Translators for tests: a network whose answer is known, and a tiny one with random weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from MRSuperResLib import models, networks
from MRSuperResLib.grid import Grid
from MRSuperResLib.inference import Options, Translation, translate
from MRSuperResLib.models import ModelCard, ModelEntry, Requirements
from MRSuperResLib.volume import Volume

REPOSITORY = Path(__file__).resolve().parents[1]
CONTRASTS = ("T1w", "T2w", "FLAIR")
TINY = {"widths": [8, 12], "latent": 8, "contrasts": list(CONTRASTS)}
CPU = Options(device="cpu", contrast="T1w")
OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


class Known(nn.Module):
    """A network whose answer is known: the slice, brighter by a tenth of the first number of z."""

    contrasts = CONTRASTS

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[tuple[int, ...], int, int]] = []

    def forward(self, x: Tensor, z: Tensor, source: int, target: int) -> Tensor:
        assert z.shape[0] == x.shape[0]
        self.seen.append((tuple(x.shape), int(source), int(target)))
        return x + 0.1 * z[:, :1, None, None] if z.shape[1] else x


def card(**changes: Any) -> ModelCard:
    fields: dict[str, Any] = {
        "id": "tiny-mt",
        "title": "Tiny translator",
        "version": "1.0",
        "architecture": "translation",
        "hyperparameters": TINY,
        "task": "translate",
        "plane": "in-plane",
        "factors": (1, 1),
        "contrasts": CONTRASTS,
        "target_contrasts": CONTRASTS,
        "spacing": None,
        "licence": "Apache-2.0",
        "intended_use": "Tests. Research use only.",
        "requirements": Requirements(smallest=1, multiple_of=8, halo=16, latent=8),
    } | changes
    return ModelCard(**fields)


def entry(**changes: Any) -> ModelEntry:
    return ModelEntry(card(**changes), None, "0" * 64)


def tiny_translator(folder: Path) -> ModelEntry:
    """The real network, small, of random weights that let z matter."""
    torch.manual_seed(3)
    network = networks.build("translation", TINY)
    for name, parameter in network.named_parameters():
        if "shift" in name:
            nn.init.normal_(parameter, std=0.5)
    return models.save_model(folder / "tiny-mt.safetensors", card(), network.state_dict())


def head(
    size: tuple[int, int, int] = (22, 26, 6),
    spacing: tuple[float, float, float] = (1.0, 1.0, 3.0),
    direction: tuple[float, ...] = OBLIQUE,
    name: str = "scan",
) -> Volume:
    """A textured ellipsoid in dark air."""
    grid = Grid(size, spacing, (10.0, -20.0, 5.0), direction)
    places = np.meshgrid(*(np.linspace(-1, 1, n) for n in grid.shape), indexing="ij")
    inside = sum((p / extent) ** 2 for p, extent in zip(places, (1.3, 0.8, 0.8), strict=True)) < 1
    k, j, i = np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")
    array = inside * (500 + 150 * np.sin(k / 1.9) + 100 * np.cos(j / 2.5) * np.sin(i / 2.9)) + 10
    return Volume(array.astype(np.float32), grid, name)


def run(volume: Volume | None = None, model: ModelEntry | None = None, **wanted: Any) -> Translation:
    """A translation of `head()` to T2w by `Known`, unless something else is said."""
    wanted = {"target": "T2w", "options": CPU, "network": None if model else Known()} | wanted
    wanted.setdefault("warn", lambda code, message: None)
    return translate(volume or head(), model or entry(), **wanted)


def of(array: np.ndarray) -> Volume:
    return dataclasses.replace(head(), array=array.astype(np.float32))
