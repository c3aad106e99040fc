"""Networks of one input size, and networks that take interpolated slices: padded, cut and blended without a trace."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from MRSuperResLib import cli, models
from MRSuperResLib.errors import DeviceError, ModelError, UnsuitableVolume, UsageError
from MRSuperResLib.grid import Grid
from MRSuperResLib.inference import Options, estimate, plan, super_resolve, translate
from MRSuperResLib.inference.runner import SliceRunner
from MRSuperResLib.inference.tiles import even_tiles
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.models import ModelCard, ModelEntry, Requirements
from MRSuperResLib.networks.parts.projection import bicubic
from MRSuperResLib.networks.stylswin import StyleSwin
from MRSuperResLib.networks.transmrsr import TransMRSR
from MRSuperResLib.volume import Volume

SIDE, HALO = 64, 4
OBLIQUE = (0.9659258, -0.2588190, 0.0, 0.2588190, 0.9659258, 0.0, 0.0, 0.0, 1.0)
SMALL = {"channels": (16, 8), "latent": 4, "head_width": 4, "centres": 2}


class OfOneSize(nn.Module):
    """`function` of images of `SIDE` pixels, and no others."""

    def __init__(self, function: nn.Module | None = None) -> None:
        super().__init__()
        self.function = function or nn.Identity()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-2:] == (SIDE, SIDE)
        self.seen.append(x)
        return self.function(x)


def entry(factors: tuple[int, int] = (8, 1), **changes: object) -> ModelEntry:
    needs = {"smallest": 4, "halo": HALO, "interpolated": True, "input_size": SIDE} | changes
    card = ModelCard(
        id="one-size", title="", version="1", architecture="transmrsr", task="super-resolve", plane="through-plane",
        factors=factors, contrasts=("any",), spacing=None, licence="", intended_use="",
        requirements=Requirements(**needs),  # type: ignore[arg-type]
    )  # fmt: skip
    return ModelEntry(card, None, "0" * 64)


def answered(
    network: nn.Module, images: np.ndarray, factors: tuple[int, int] = (1, 1), **changes: object
) -> np.ndarray:
    runner = SliceRunner(network, entry(factors, **changes).card, factors, Options(device="cpu"))
    return np.concatenate([answer for _, answer in runner.run(images)])


def volume(size: tuple[int, int, int], spacing: tuple[float, float, float] = (1.0, 1.0, 5.0)) -> Volume:
    """Linear in patient space, so that any misplacement shows."""
    on = Grid(size=size, spacing=spacing, origin=(5.0, -20.0, 30.0), direction=OBLIQUE)
    k, j, i = np.meshgrid(*(np.arange(n) for n in on.shape), indexing="ij")
    points = on.index_to_world(np.stack((i, j, k), axis=-1).reshape(-1, 3).astype(float))
    return Volume((1000.0 + points @ np.array((3.0, -2.0, 1.5))).reshape(on.shape).astype(np.float32), on, "ramp")


@settings(deadline=None, max_examples=200)
@given(
    side=st.integers(16, 80),
    more=st.integers(0, 400),
    share=st.floats(0.0, 0.25),
    zoom=st.integers(1, 3),
    multiple=st.sampled_from([1, 2, 8]),
)
def test_parts_of_one_size_share_every_pixel_and_ignore_what_is_near_a_cut(
    side: int, more: int, share: float, zoom: int, multiple: int
) -> None:
    side, more = side // multiple * multiple, more // multiple * multiple
    size, halo = side + more, int(share * side * 0.5)
    if side - multiple <= max(side // 4, 2 * halo + 8):
        return
    tiles = even_tiles(size, side, halo, zoom, multiple)
    assert not any(start % multiple for start in tiles.starts)
    total = np.zeros(size * zoom)
    assert tiles.length == side and tiles.starts[0] == 0 and tiles.starts[-1] == size - side
    for start, weights in zip(tiles.starts, tiles.weights.numpy(), strict=True):
        total[start * zoom : (start + side) * zoom] += weights
        if start > 0:
            assert not weights[: halo * zoom].any()
        if start + side < size:
            assert not weights[len(weights) - halo * zoom :].any()
    np.testing.assert_allclose(total, 1.0, atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 30), (64, 64), (64, 65), (40, 200), (150, 100)])
def test_any_slice_comes_back_from_a_network_of_one_size(shape: tuple[int, int]) -> None:
    images = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    np.testing.assert_allclose(answered(OfOneSize(), images), images, atol=1e-6)


def test_parts_agree_with_a_network_that_could_see_the_whole_slice() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1)).eval()
    images = np.random.default_rng(0).random((1, 130, 90), dtype=np.float32)
    with torch.inference_mode():
        whole = layers(torch.from_numpy(images)[:, None])[:, 0].numpy()
    np.testing.assert_allclose(answered(OfOneSize(layers), images), whole, atol=1e-5)


def test_parts_that_differ_everywhere_are_blended_without_a_step() -> None:
    class Brightened(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x.mean((-2, -1), keepdim=True)

    images = np.tile(np.linspace(0, 1, 200, dtype=np.float32), (1, 64, 1))
    answer = answered(OfOneSize(Brightened()), images)
    steps = np.diff(answer[0, 32])
    spread = answer[0, 32] - images[0, 32]
    assert spread.max() - spread.min() > 0.3  # the parts do differ, by a third of the range and more
    assert np.abs(steps).max() < 0.05  # and yet no neighbours differ by more than a cross-fade over the overlap asks


def test_a_small_slice_lies_in_the_middle_of_air_that_begins_beyond_the_halo() -> None:
    network = OfOneSize()
    answered(network, np.ones((1, 20, 30), dtype=np.float32))
    expected = torch.zeros(SIDE, SIDE)
    expected[22 - HALO : 42 + HALO, 17 - HALO : 47 + HALO] = 1.0
    assert torch.equal(network.seen[0][0, 0], expected)


@pytest.mark.parametrize("slices", [3, 4, 5, 8, 9, 11])
def test_interpolated_slices_lie_where_they_lay_in_training_whatever_their_number(slices: int) -> None:
    """Eight rows for each slice, the first of them a multiple of eight: a network that knows places met no others."""
    network = OfOneSize()
    images = np.random.default_rng(0).random((1, slices, 30), dtype=np.float32)
    answered(network, images, (8, 1))
    spread = bicubic(torch.from_numpy(images)[:, None], (8 * slices, 30))[0, 0]
    for part, seen in enumerate(network.seen):
        rows = seen[0, 0, :, 17:47]
        found = [
            (row, start)
            for row in range(0, SIDE, 8)
            for start in range(0, 8 * slices, 8)
            if torch.allclose(rows[row : row + 8], spread[start : start + 8], atol=1e-6)
        ]
        assert len(found) >= min(slices, SIDE // 8), f"part {part}"
    assert len(network.seen) == (1 if slices <= SIDE // 8 else 2)


def test_a_network_may_take_the_interpolated_slice() -> None:
    images = np.random.default_rng(0).random((3, 8, 30), dtype=np.float32)
    expected = bicubic(torch.from_numpy(images)[:, None], (64, 30))[:, 0].numpy()
    np.testing.assert_allclose(answered(OfOneSize(), images, (8, 1)), expected, atol=1e-6)
    free = answered(nn.Identity(), images, (8, 1), input_size=0)
    np.testing.assert_allclose(free, expected, atol=1e-6)


@pytest.mark.parametrize("size", [(20, 24, 8), (90, 70, 12)])
@pytest.mark.parametrize("factor", [8.0, 6.5])
def test_every_structure_stays_in_its_place(size: tuple[int, int, int], factor: float) -> None:
    low = volume(size)
    answer = super_resolve(low, entry(), network=OfOneSize(), factor=factor, options=Options(device="cpu"))
    assert answer.grid.extent == pytest.approx(low.grid.extent)
    k, j, i = np.meshgrid(*(np.arange(n) for n in answer.grid.shape), indexing="ij")
    points = answer.grid.index_to_world(np.stack((i, j, k), axis=-1).reshape(-1, 3).astype(float))
    truth = (1000.0 + points @ np.array((3.0, -2.0, 1.5))).reshape(answer.grid.shape)
    inner = (slice(12, -12), slice(2, -2), slice(2, -2))  # interpolation ends flat beyond the outermost slices
    np.testing.assert_allclose(answer.array[inner], truth[inner], atol=0.2)


def test_a_slab_is_seen_where_its_slices_are_wide() -> None:
    """A quarter of 64 pixels at least, unless neither reformat has them."""
    made = plan(volume((6, 40, 8)).grid, entry().card)
    assert made.views == ((2, 0, 1),)
    assert len(plan(volume((20, 40, 8)).grid, entry().card).views) == 2
    assert len(plan(volume((6, 8, 8)).grid, entry().card).views) == 2
    assert len(plan(volume((6, 40, 8)).grid, entry(input_size=0).card).views) == 2


def test_too_few_slices_are_refused() -> None:
    with pytest.raises(UnsuitableVolume, match="the scan has 5 slices, and 'one-size' needs at least 8"):
        plan(volume((20, 24, 5)).grid, entry(smallest=8).card)


def test_slices_larger_than_those_of_the_training_are_said() -> None:
    card = entry(halo=16).card
    assert plan(volume((60, 60, 12)).grid, card).notes == ()
    notes = dict(plan(volume((70, 60, 12)).grid, card).notes)
    assert "slices of 64 mm at most, this scan's have 70 mm: they are cut into parts" in notes["outside-training"]


def test_an_estimate_counts_what_the_network_sees() -> None:
    low = volume((20, 24, 8)).grid
    small = estimate(low, entry(memory=1e6, input_size=0, interpolated=False))
    large = estimate(low, entry(memory=1e6, input_size=256))
    assert large.memory - small.memory == 1e6 * (256**2 - 2**14)  # a CPU computes 2**14 pixels at once, or one image


def test_a_tile_of_another_size_is_not_used_and_it_is_said() -> None:
    told: list[str] = []
    SliceRunner(OfOneSize(), entry().card, (1, 1), Options(device="cpu", tile=32), lambda code, text: told.append(text))
    assert told == ["'one-size' takes parts of 64 pixels: the tile of 32 is not used"]


def test_a_device_too_small_for_one_image_is_said() -> None:
    class Greedy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(DeviceError, match="takes images of 64 pixels, neither more nor fewer"):
        answered(Greedy(), np.zeros((1, 64, 64), dtype=np.float32))


def test_a_card_cannot_ask_for_a_halo_that_leaves_nothing_of_a_part() -> None:
    with pytest.raises(ModelError, match="halo is 20, expected at most a quarter of input_size, 64"):
        entry(halo=20)


@pytest.fixture
def prior(tmp_path: object) -> ModelEntry:
    """A package of the first stage."""
    card = ModelCard(
        id="some-prior", title="", version="1", architecture="stylswin", task="prior", plane="any", factors=None,
        contrasts=("any",), spacing=None, licence="", intended_use="", hyperparameters=dict(SMALL),
    )  # fmt: skip
    return models.save_model(f"{tmp_path}/some-prior.safetensors", card, StyleSwin(**SMALL).state_dict())  # type: ignore[arg-type]


def test_a_prior_is_listed_and_does_not_super_resolve(prior: ModelEntry, capsys: pytest.CaptureFixture[str]) -> None:
    assert prior.path is not None
    with pytest.raises(ModelError, match="is the first stage of a model: it draws slices and super-resolves none"):
        super_resolve(volume((20, 24, 8)), prior)
    with pytest.raises(ModelError, match="does not translate"):
        translate(volume((20, 24, 8)), prior)
    with pytest.raises(ModelError, match="first stage"):
        plan(volume((20, 24, 8)).grid, prior.card)
    assert cli.main(["models", "--models", str(prior.path.parent)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("some-prior"))
    assert row.split()[1:4] == ["prior", "any", "-"]
    assert cli.main(["models", "show", str(prior.path)]) == 0
    assert "first stage of another model" in capsys.readouterr().out


def test_only_interpolation_and_priors_lack_factors(prior: ModelEntry) -> None:
    fields = json.loads(prior.card.to_json())
    assert ModelCard.from_json(fields) == prior.card
    with pytest.raises(ModelError, match="factors are missing"):
        ModelCard.from_json(fields | {"task": "super-resolve"})
    with pytest.raises(UsageError):
        plan(volume((20, 24, 8)).grid, models.find_model("bspline").card)


def test_the_shell_refuses_a_prior_and_too_few_slices_in_a_line_each(
    prior: ModelEntry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_volume(volume((20, 24, 5)), tmp_path / "few.nii.gz")
    run = ["run", str(tmp_path / "few.nii.gz"), "-o", str(tmp_path / "answer.nii.gz"), "--device", "cpu", "--model"]
    assert cli.main([*run, str(prior.path)]) == ModelError.exit_code
    assert "only draws slices, as the first stage of another model" in capsys.readouterr().err.splitlines()[-1]
    card = replace(entry(smallest=8, halo=2, input_size=8).card, hyperparameters=dict(SMALL))
    made = models.save_model(tmp_path / "made.safetensors", card, TransMRSR(**SMALL).state_dict())  # type: ignore[arg-type]
    assert cli.main([*run, str(made.path)]) == UnsuitableVolume.exit_code
    assert "the scan has 5 slices, and 'one-size' needs at least 8" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "answer.nii.gz").exists()
