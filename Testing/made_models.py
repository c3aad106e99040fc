"""A sound card and random weights of a network small enough for tests."""

from __future__ import annotations

import torch

from MRSuperResLib import networks
from MRSuperResLib.models import ModelCard, SpacingRange

TINY = {"blocks": 1, "factors": [4, 1], "width": 8, "heads": 2, "growth": 4, "window": 4}


def card(name: str = "tiny-through-x4", **changes: object) -> ModelCard:
    """A sound card of a network small enough for tests."""
    fields: dict[str, object] = {
        "id": name,
        "title": "Tiny",
        "version": "1.0",
        "architecture": "rdst",
        "hyperparameters": TINY,
        "task": "super-resolve",
        "plane": "through-plane",
        "factors": (4, 1),
        "contrasts": ("T1w", "T2w"),
        "spacing": SpacingRange((0.5, 1.2), (2.0, 6.0)),
        "licence": "Apache-2.0",
        "intended_use": "Tests. Research use only.",
    }
    return ModelCard(**(fields | changes))  # type: ignore[arg-type]


def weights() -> dict[str, torch.Tensor]:
    """Random weights of that network, always the same."""
    torch.manual_seed(0)
    network = networks.build("rdst", TINY)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return network.state_dict()
