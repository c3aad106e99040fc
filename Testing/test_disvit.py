"""Mahapatra and Ge's trainings: their recipes say what a model is, and what they learn."""

from __future__ import annotations

import pytest
import torch

from MRSuperResLib import networks
from MRSuperResLib.training.card import checked_card
from MRSuperResLib.training.recipes import load_recipe


@pytest.mark.parametrize("name", ["inplane-x2", "inplane-x4", "through-x4", "through-x8"])
def test_shipped_recipes_make_a_network_and_its_card(name: str) -> None:
    plan, _ = load_recipe(f"disvit-{name}")
    card = checked_card(plan)[1]
    assert card.id == f"disvit-{name}" and card.plane is not None and card.plane.startswith(name[:2])
    network = networks.build(plan.architecture, plan.network)
    x = torch.rand(1, 1, 8, 11)
    with torch.no_grad():
        assert network(x).shape == (1, 1, 8 * card.factors[0], 11 * card.factors[1])  # type: ignore[index]
