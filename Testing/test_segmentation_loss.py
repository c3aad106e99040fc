"""RDST's second stage: eqs. 8 to 11 against other implementations, and a training by them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_trainings import RECIPE, one_contrast
from monai.losses import DiceLoss
from torch import Tensor
from torch.nn import functional

from MRSuperResLib import networks
from MRSuperResLib.errors import ModelError, UsageError
from MRSuperResLib.losses.segmentation import ENCODER, SegmentationLoss, label_distance
from MRSuperResLib.losses.tissue import WIDTHS, tissue_network, trained_tissue_network
from MRSuperResLib.models import find_model
from MRSuperResLib.training.fit import fit
from MRSuperResLib.training.method import scheduled_rate
from MRSuperResLib.training.recipes import Optimisation, load_recipe


def _watched(network: torch.nn.Module, image: Tensor) -> dict[str, Tensor]:
    """What MONAI's own forward pass makes on its way: block by block of the encoder, the decoder's end, the logits."""
    found: dict[str, Tensor] = {}
    parts = {"conv_0": "e1", **{f"down_{n}": f"e{n + 1}" for n in (1, 2, 3, 4)}, "upcat_1": "d", "final_conv": "hrl"}
    hooks = [
        network.get_submodule(part).register_forward_hook(lambda _, __, out, name=name: found.__setitem__(name, out))
        for part, name in parts.items()
    ]
    with torch.no_grad():
        network(image)
    for hook in hooks:
        hook.remove()
    return found


def test_maps_are_those_of_the_u_net_s_own_forward_pass() -> None:
    torch.manual_seed(0)
    network = tissue_network().eval()
    one, other = torch.rand(2, 2, 1, 32, 48)
    losses = SegmentationLoss(network, ["hrl", "d", *ENCODER])(one, other)
    here, there = _watched(network, one), _watched(network, other)
    for name in (*ENCODER, "d"):
        torch.testing.assert_close(losses[name], functional.l1_loss(here[name], there[name]))
    torch.testing.assert_close(losses["hrl"], label_distance(here["hrl"], there["hrl"]))


def test_labels_are_compared_by_dice() -> None:
    """MONAI's Dice loss, over a batch and without the background, says the same."""
    answer, truth = torch.randn(2, 3, 5, 16, 16)
    theirs = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    expected = theirs(answer, truth.argmax(1, keepdim=True))
    torch.testing.assert_close(label_distance(answer, truth), expected, atol=1e-4, rtol=0)
    assert float(label_distance(1e6 * truth, truth)) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("names", [["e1"], ["e3"], ["d"], ["hrl"]])
def test_only_the_answer_learns_from_them(names: list[str]) -> None:
    """Any size will do; the U-Net is frozen, stays in evaluation mode, and the truth gets no gradient."""
    torch.manual_seed(0)
    loss = SegmentationLoss(tissue_network(), names).train()
    answer, truth = (torch.rand(2, 1, 24, 40).requires_grad_() for _ in range(2))
    (found,) = loss(answer, truth).values()
    found.backward()
    assert answer.grad is not None and answer.grad.abs().sum() > 0 and truth.grad is None
    assert all(p.grad is None for p in loss.parameters()) and not loss.network.training
    assert set(loss.maps(truth)) == ({"e1"} if names == ["e1"] else {"e1", "e2", "e3"} if names == ["e3"] else {
        *ENCODER, "d", "hrl"})  # fmt: skip


def test_rates_are_halved_where_the_paper_halves_them() -> None:
    """Section 4.3: 1e-4, halved at 10k, 15k and 17.5k of 20k steps."""
    plan = Optimisation(learning_rate=1e-4, schedule="halving", steps=20_000)
    rates = [scheduled_rate(plan, step, step / 20_000) for step in (0, 9_999, 10_000, 14_999, 15_000, 17_499, 17_500)]
    assert rates == pytest.approx([1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5, 2.5e-5, 1.25e-5])


@pytest.mark.parametrize("size", ["rdst", "rdst-e"])
def test_the_second_stage_is_the_papers(size: str) -> None:
    """alpha 1 and lambda 10 on L_E(1) (section 4.3); the network and the pairs are those of the first stage."""
    name = "rdst-inplane-x4" if size == "rdst" else "rdst-e-inplane-x4-published"
    first, second = load_recipe(name)[0], load_recipe(f"{name}-features")[0]
    assert second.loss == {"l1": 1.0, "e1": 10.0} and second.published
    assert (second.optimisation.batch, second.optimisation.learning_rate) == (32, 1e-4)
    assert (second.optimisation.schedule, second.optimisation.steps) == ("halving", 20_000)
    assert second.network == first.network and second.data == first.data


def test_our_second_stage_goes_on_with_our_first() -> None:
    first, second = load_recipe("rdst-e-inplane-x4")[0], load_recipe("rdst-e-inplane-x4-features")[0]
    assert second.network == first.network and second.data == first.data and not second.published
    assert second.loss == {"l1": 1.0, "e1": 10.0} and second.optimisation.schedule == "halving"


def test_a_second_stage_starts_from_the_first_and_says_what_it_was_taught_by(tmp_path: Path) -> None:
    study = one_contrast(tmp_path / "study")
    said: list[str] = []
    run = {"minutes": 5, "device": "cpu", "validate": False, "report": said.append}
    (tmp_path / "one.toml").write_text(RECIPE.replace("batch = 2", "batch = 2\nsteps = 2"))
    first = fit(tmp_path / "one.toml", study, tmp_path / "one", **run)
    losses = "[loss]\nl1 = 1.0\ne1 = 10.0\nhrl = 1.0\n[data]"
    (tmp_path / "two.toml").write_text((tmp_path / "one.toml").read_text().replace("[data]", losses))
    second = fit(tmp_path / "two.toml", study, tmp_path / "two", init=str(first), **run)
    assert find_model(second).card.training.notes == "segmentation losses by the shipped tissue network"
    assert any("weights start from" in line and "differs" not in line for line in said)
    curves = (tmp_path / "two" / "curves.csv").read_text()
    assert all(f",{name}," in curves for name in ("l1", "e1", "hrl"))
    (tmp_path / "plain.toml").write_text(
        (tmp_path / "one.toml").read_text().replace('skip = "bicubic"', 'skip = "none"')
    )
    fit(tmp_path / "plain.toml", study, tmp_path / "plain", init=str(first), **run)
    assert any("whose network differs in skip" in line for line in said)  # its weights fit, and mean something else
    (tmp_path / "wrong.toml").write_text((tmp_path / "two.toml").read_text().replace("hrl", "hrI"))
    with pytest.raises(UsageError, match=r"loss\.hrI is not a known loss; did you mean hrl"):
        load_recipe(tmp_path / "wrong.toml")


def test_a_u_net_of_either_size_can_teach_and_nothing_else(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with torch.device("meta"):
        assert sum(p.numel() for p in tissue_network("unet-64").parameters()) > 20e6
    save_file({k: v.half() for k, v in tissue_network().state_dict().items()}, tmp_path / "small.safetensors")
    network = trained_tissue_network(tmp_path / "small.safetensors")
    assert network.get_parameter("final_conv.weight").shape[1] == WIDTHS["unet"][-1]
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="holds no tissue network"):
        trained_tissue_network(tmp_path / "other.safetensors")


def test_four_contrasts_are_enlarged_together() -> None:
    """The variant for BraTS: only the first and last convolution differ."""
    one, four = (networks.build("rdst", {"blocks": 1, "channels": channels}) for channels in (1, 4))
    assert four(torch.rand(1, 4, 9, 8)).shape == (1, 4, 36, 32)
    sizes = [sum(p.numel() for p in network.parameters()) for network in (one, four)]
    assert sizes[1] - sizes[0] == 3 * (60 * 9) * 2 + 3
    with torch.no_grad():
        assert four.eval()(torch.rand(1, 4, 40, 40)).shape == (1, 4, 160, 160)
    with pytest.raises(ModelError, match="channels is 4"):
        networks.build("rdst", {"blocks": 1, "channels": 4, "skip": "bicubic"})
