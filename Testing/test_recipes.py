"""Recipes: those that ship are sound and the papers', and a wrong one is refused with the nearest known name."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_trainings import RECIPE

from MRSuperResLib import networks
from MRSuperResLib.acquisition import SecondOrder
from MRSuperResLib.errors import UsageError
from MRSuperResLib.training.card import checked_card
from MRSuperResLib.training.recipes import FOLDER, load_recipe


@pytest.mark.parametrize("recipe", sorted(path.stem for path in FOLDER.glob("rdst*.toml")))
def test_shipped_recipes_are_sound(recipe: str) -> None:
    plan, _ = load_recipe(recipe)
    network = networks.build(plan.architecture, plan.network)
    assert tuple(plan.card["factors"]) == tuple(network.factors)
    assert checked_card(plan)[1].id == recipe


@pytest.mark.parametrize(
    ("recipe", "parameters"), [("rdst-inplane-x4", 4.40e6), ("rdst-e-inplane-x4-published", 2.35e6)]
)
def test_published_recipes_train_as_the_paper_does(recipe: str, parameters: float) -> None:
    """Table 1 for the size; section 4.3 for batch, rate and steps of the first stage; section 4.1 and eq. 13 for the pairs."""
    plan, _ = load_recipe(recipe)
    network = networks.build(plan.architecture, plan.network)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(parameters, rel=0.03)
    assert network.factors == (4, 4) and network.skip == "none" and network.feedback == 0
    chosen = plan.optimisation
    assert (chosen.batch, chosen.learning_rate, chosen.schedule, chosen.steps) == (32, 2e-4, "constant", 100_000)
    assert chosen.warm_up == 0 and chosen.clip == 0 and plan.loss == {"l1": 1.0}
    way = plan.data.degradation
    assert plan.data.patch == 24 and set(way.kinds) == {"bicubic"}
    assert way.noise_probability == 1 and way.noise[0] > 0 and way.rician == 0 and way.bias == 0


def test_a_wrong_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recipe is called"):
        load_recipe("nonesuch")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(RECIPE.replace("learning_rate", "learning_rat"))
    with pytest.raises(UsageError, match="learning_rat"):
        load_recipe(wrong)
    wrong.write_text("not toml [")
    with pytest.raises(UsageError, match=r"wrong\.toml"):
        load_recipe(wrong)


def test_a_recipe_sets_the_second_order_degradation(tmp_path: Path) -> None:
    recipe = tmp_path / "second.toml"
    chosen = 'kinds = { box = 1.0, second-order = 2.0 }\nsecond_order = { blurs = ["isotropic"], noise = [0.0, 0.01] }'
    recipe.write_text(RECIPE.replace("kinds = { gaussian = 1.0, kspace = 1.0 }", chosen))
    way = load_recipe(recipe)[0].data.degradation
    assert way.kinds["second-order"] == 2.0
    assert way.second_order == SecondOrder(blurs=("isotropic",), noise=(0.0, 0.01))
    recipe.write_text(recipe.read_text().replace("isotropic", "motion"))
    with pytest.raises(UsageError, match="motion"):
        load_recipe(recipe)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            'method = "supervised"',
            'method = "supervise"',
            "method is 'supervise', which is unknown; did you mean supervised?",
        ),
        ('method = "supervised"\n', "", "method is missing"),
        ("[data]", "[loss]\nl12 = 1.0\n[data]", "loss.l12 is not a known loss; did you mean l"),
        ("[data]", "[loss]\nl1 = 0\n[data]", "every weight is 0"),
        ("[data]", "[loss]\nl1 = true\n[data]", "loss.l1 is true, expected a number"),
        ("patch = 8", "pach = 8", "data.pach is not a known field; did you mean patch?"),
        (
            "learning_rate",
            "learning_rat",
            "optimisation.learning_rat is not a known field; did you mean learning_rate?",
        ),
        ('schedule = "constant"', 'schedule = "cosin"', "did you mean cosine?"),
        ("gaussian = 1.0", "gausian = 1.0", "kinds.gausian is not a known kind; did you mean gaussian?"),
        (
            'scans = ["isotropic/*"]',
            'degradation = "kspce"',
            "'kspce', which is unknown; did you mean kspace",
        ),
        ("batch = 2", "batch = 0", "optimisation.batch is 0, expected at least 1"),
        ("learning_rate = 2e-3", "learning_rate = -1", "optimisation.learning_rate is -1, expected a number above 0"),
        ("batch = 2", "batch = 2\nema = 1.0", "optimisation.ema is 1, expected a number below 1"),
        ("[validation]", "[guidance]\nwrong = 0.1\n[validation]", "guidance is not a known field"),
    ],
)
def test_what_no_method_knows_is_refused_with_the_nearest_name(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    text = RECIPE.replace("batch = 2", 'batch = 2\nschedule = "constant"')
    assert old in text
    (tmp_path / "wrong.toml").write_text(text.replace(old, new))
    with pytest.raises(UsageError) as caught:
        load_recipe(tmp_path / "wrong.toml")
    assert complaint in str(caught.value) and "wrong.toml" in str(caught.value)
