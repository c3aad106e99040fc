"""RRDB: ESRGAN's generator as published and thinned, and weights from anywhere that ESRGAN's weights come from."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from MRSuperResLib import networks
from MRSuperResLib.errors import ModelError
from MRSuperResLib.networks.rrdb import RRDBNet, build, enlarged, few_channels, load_esrgan

WIDTH, GROWTH, BLOCKS = 6, 3, 5
LAYOUTS = ("first", "later", "basicsr", "basicsr parallel")
# (outer layers in the order conv_first, conv_body, two upsamplings, conv_hr, conv_last), the blocks, what follows a dense conv
NAMES = {
    "first": (f"model.0 model.1.sub.{BLOCKS} model.3 model.6 model.8 model.10", "model.1.sub.{}.RDB{}.conv{}.0"),
    "later": ("conv_first trunk_conv upconv1 upconv2 HRconv conv_last", "RRDB_trunk.{}.RDB{}.conv{}"),
    "basicsr": ("conv_first conv_body conv_up1 conv_up2 conv_hr conv_last", "body.{}.rdb{}.conv{}"),
    "basicsr parallel": (
        "module.conv_first module.conv_body module.conv_up1 module.conv_up2 module.conv_hr module.conv_last",
        "module.body.{}.rdb{}.conv{}",
    ),
}


def esrgan_weights(layout: str) -> dict[str, Tensor]:
    """Random weights of a small ESRGAN generator with three channels, the same ones in every layout."""
    random = torch.Generator().manual_seed(1)
    weights = {}

    def convolution(name: str, inputs: int, outputs: int) -> None:
        weights[f"{name}.weight"] = 0.3 * torch.randn(outputs, inputs, 3, 3, generator=random)
        weights[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=random)

    outer, dense = NAMES[layout]
    for number, name in enumerate(outer.split()):
        convolution(name, 3 if number == 0 else WIDTH, 3 if number == 5 else WIDTH)
    for block in range(BLOCKS):
        for rdb in (1, 2, 3):
            for conv in (1, 2, 3, 4, 5):
                inputs = WIDTH + (conv - 1) * GROWTH
                convolution(dense.format(block, rdb, conv), inputs, WIDTH if conv == 5 else GROWTH)
    return weights


def esrgan_answer(weights: dict[str, Tensor], layout: str, x: Tensor, kept: tuple[int, ...]) -> Tensor:
    """ESRGAN's generator as its paper draws it (figures 3 and 4), straight from named weights, with only the blocks `kept`."""

    def convolution(name: str, values: Tensor, active: bool = True) -> Tensor:
        answer = functional.conv2d(values, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)
        return torch.where(answer > 0, answer, 0.2 * answer) if active else answer

    outer, dense = NAMES[layout]
    first, trunk, up1, up2, hr, last = outer.split()
    shallow = deep = convolution(first, x, active=False)
    for block in kept:
        start = deep
        for rdb in (1, 2, 3):
            seen = [deep]
            for conv in (1, 2, 3, 4):
                seen.append(convolution(dense.format(block - 1, rdb, conv), torch.cat(seen, 1)))
            deep = deep + 0.2 * convolution(dense.format(block - 1, rdb, 5), torch.cat(seen, 1), active=False)
        deep = start + 0.2 * deep
    features = shallow + convolution(trunk, deep, active=False)
    for name in (up1, up2):
        features = convolution(name, features.repeat_interleave(2, -1).repeat_interleave(2, -2))
    return convolution(last, convolution(hr, features), active=False)


def small(**hyperparameters: object) -> RRDBNet:
    """A network of the size of `esrgan_weights`."""
    return build(**{"blocks": BLOCKS, "width": WIDTH, "growth": GROWTH, **hyperparameters}).eval()


def test_published_size() -> None:
    """16,697,987 parameters is what is publicly known of the 23 blocks with three channels."""

    def parameters(**hyperparameters: object) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in build(**hyperparameters).parameters())

    assert parameters(channels=3) == 16_697_987
    # A dense block: 3x3 kernels over 64, 96, 128, 160 inputs to 32, and over 192 to 64, with biases; an RRDB has three.
    rrdb = 3 * (9 * 32 * (64 + 96 + 128 + 160) + 4 * 32 + 9 * 192 * 64 + 64)
    # One channel instead of three saves two 3x3 kernels to 64 features at either end, and two biases at the last.
    assert parameters(kept="odd") == 16_697_987 - 11 * rrdb - 2 * (2 * 9 * 64) - 2


def test_cost() -> None:
    """64x64 -> 256x256, every kernel once per pixel: as published, less what a transposed convolution saves; all and 12 blocks."""
    low, middle, high = 64**2, 128**2, 256**2
    rrdb = 3 * 9 * (32 * (64 + 96 + 128 + 160) + 192 * 64)
    trunk = 9 * 64 * 64
    saved = trunk * (middle + high) - 4 * 4 * 64 * 64 * (low + middle)  # 4x4 taps once per coarse pixel
    for kept, blocks in (("all", 23), ("odd", 12)):
        published = low * (9 * 64 + blocks * rrdb + trunk) + trunk * (middle + high + high) + high * 9 * 64
        with torch.device("meta"):
            network = build(kept=kept)
        with FlopCounterMode(display=False) as counter:
            assert network(torch.zeros(1, 1, 64, 64, device="meta")).shape == (1, 1, 256, 256)
        assert counter.get_total_flops() == 2 * (published - saved)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_faster_convolutions_are_the_plain_ones(layout: torch.memory_format) -> None:
    """Their answers and gradients: nearest neighbour then a 3x3 convolution, and a 3x3 convolution to few channels."""
    torch.manual_seed(0)
    wide = torch.nn.Conv2d(5, 4, 3, padding=1).double().to(memory_format=layout)
    narrow = torch.nn.Conv2d(5, 2, 3, padding=1, bias=False).double().to(memory_format=layout)
    x = torch.randn(2, 5, 6, 7).double().to(memory_format=layout)

    def answers(fast: bool) -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        found = []
        for rows, columns in ((2, 2), (2, 1), (3, 3)):
            fine = leaf.repeat_interleave(rows, -2).repeat_interleave(columns, -1)
            found.append(enlarged(leaf, (rows, columns), wide) if fast else wide(fine))
        found.append(few_channels(leaf, narrow) if fast else narrow(leaf))
        wide.weight.grad = wide.bias.grad = narrow.weight.grad = None
        sum((part**2).sum() for part in found).backward()
        return [*found, leaf.grad, wide.weight.grad, wide.bias.grad, narrow.weight.grad]

    for fast, plain in zip(answers(True), answers(False), strict=True):
        torch.testing.assert_close(fast, plain)


def test_every_even_block_is_removed() -> None:
    assert build(kept="odd", width=4, growth=2).kept == (1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23)
    assert networks.build("rrdb", {"blocks": 4, "kept": [2, 3], "width": 4, "growth": 2}).kept == (2, 3)
    for wrong in ("even", [0, 1], [3, 2], [2, 2], [24], []):
        with pytest.raises(ModelError, match="kept is"):
            networks.build("rrdb", {"kept": wrong, "width": 4, "growth": 2})
    with pytest.raises(ModelError, match="factors are"):
        networks.build("rrdb", {"factors": [1, 1], "width": 4, "growth": 2})
    with pytest.raises(ModelError, match="skip is 'linear'"):
        networks.build("rrdb", {"skip": "linear", "width": 4, "growth": 2})


def test_any_size_and_any_factor_per_axis() -> None:
    x = torch.rand(2, 1, 5, 7)
    for factors, shape in (((4, 4), (20, 28)), ((2, 2), (10, 14)), ((4, 1), (20, 7))):
        network = small(factors=factors, skip="bicubic", feedback=0.5)
        assert network(x).shape == (2, 1, *shape) and network.factors == factors
    assert small()(torch.rand(1, 1, 1, 1)).shape == (1, 1, 4, 4)


@pytest.mark.parametrize("factors", [(4, 4), (4, 1), (1, 4), (3, 3)])
@pytest.mark.parametrize("rows", [5, 40, 67, 130])
def test_inference_by_bands_gives_the_same_as_at_once(factors: tuple[int, int], rows: int) -> None:
    torch.manual_seed(0)
    network, x = small(blocks=1, factors=factors).double(), torch.rand(2, 1, rows, 6).double()
    with torch.no_grad():
        by_bands = network(x)
    torch.testing.assert_close(by_bands, network(x))
    assert by_bands.shape == (2, 1, rows * factors[0], 6 * factors[1])


def test_untrained_network_with_skip_is_bicubic_interpolation_on_the_same_edges() -> None:
    ramp = torch.arange(16.0)[:, None].expand(16, 12)[None, None]
    answer = small(skip="bicubic", feedback=0.5)(ramp)[0, 0, :, 24]
    torch.testing.assert_close(answer[16:-16], (torch.arange(64) / 4 - 0.375)[16:-16], atol=1e-4, rtol=0)


def test_feedback_brings_the_answer_closer_to_what_was_measured() -> None:
    torch.manual_seed(0)
    network, x = small(skip="bicubic"), torch.rand(1, 1, 12, 12)
    torch.nn.init.normal_(network.conv_last.weight, std=0.05)

    def error() -> float:
        coarse = functional.interpolate(network(x), size=(12, 12), mode="bicubic", antialias=True)
        return float((coarse - x).detach().abs().mean())

    without = error()
    network.feedback = 0.5
    assert error() < 0.8 * without


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kept", ["all", "odd", [2, 5]])
def test_esrgan_weights_give_esrgans_answer(layout: str, kept: str | list[int]) -> None:
    network, weights, x = small(kept=kept, channels=3).double(), esrgan_weights(layout), torch.rand(1, 3, 6, 5).double()
    load_esrgan(network, weights)
    precise = {name: weight.double() for name, weight in weights.items()}
    torch.testing.assert_close(network(x), esrgan_answer(precise, layout, x, network.kept))


def test_one_channel_gives_the_mean_of_the_three_that_a_repeated_grey_image_gets() -> None:
    network, weights = small(kept="odd").double(), esrgan_weights("later")
    x = torch.rand(2, 1, 6, 5, dtype=torch.float64)
    said = load_esrgan(network, weights)
    precise = {name: weight.double() for name, weight in weights.items()}
    expected = esrgan_answer(precise, "later", x.expand(2, 3, 6, 5), (1, 3, 5)).mean(1, keepdim=True)
    torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-5)
    assert (
        said
        == f"{len(network.state_dict())} of {len(network.state_dict())} weights start from ESRGAN, 3 of its 5 blocks"
    )


def test_with_skip_esrgan_starts_as_interpolation() -> None:
    network, x = small(skip="bicubic"), torch.rand(1, 1, 8, 8)
    before = network(x)
    load_esrgan(network, esrgan_weights("basicsr"))
    torch.testing.assert_close(network(x), before, atol=0, rtol=0)
    torch.testing.assert_close(network.conv_hr.weight, esrgan_weights("basicsr")["conv_hr.weight"], atol=0, rtol=0)


def test_weights_that_do_not_fit_are_said_and_nothing_is_taken() -> None:
    weights = esrgan_weights("later")
    for network, reason in (
        (small(blocks=7), "no 'body.6"),
        (small(growth=4), "has the shape"),
        (small(factors=(8, 8)), "no 'upsampling.2"),
    ):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        with pytest.raises(ModelError, match=reason):
            load_esrgan(network, weights)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(ModelError, match="no block"):
        load_esrgan(small(), {"features.0.weight": torch.zeros(1)})


def test_a_thinned_network_starts_from_the_whole_ones_weights_by_name() -> None:
    whole, thinned = small(), small(kept="odd")
    target = thinned.state_dict()
    assert {name: value.shape for name, value in whole.state_dict().items() if name in target} == {
        name: value.shape for name, value in target.items()
    }


@pytest.fixture(scope="module")
def blocks() -> ModuleType:
    """The benchmark of table 3 as a module."""
    path = Path(__file__).resolve().parent / "Benchmarks" / "mtsr_blocks.py"
    spec = importlib.util.spec_from_file_location("mtsr_blocks", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for the module of their fields
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_has_table_3s_variants_and_measures_each(blocks: ModuleType) -> None:
    assert [len(variant.kept) for variant in blocks.VARIANTS] == [23, 21, 15, 12, 12, 12]
    assert blocks.VARIANTS[-1].kept == build(kept="odd", width=4, growth=2).kept
    rows = blocks.measure(blocks.VARIANTS, size=8, repeats=1, clock="cpu", width=4, growth=2)
    # One block of width 4 and growth 2: 3x3 kernels from 4, 6, 8 and 10 channels to 2, from 12 to 4, three times.
    kernels = 3 * 9 * (2 * (4 + 6 + 8 + 10) + 12 * 4)
    for row, fewer in zip(rows, (0, 2, 8, 11, 11, 11), strict=True):
        assert row.parameters == rows[0].parameters - fewer * (kernels + 3 * (4 * 2 + 4))
        assert row.multiply_adds == rows[0].multiply_adds - fewer * kernels * 64
        assert 0 < row.seconds < 60
    text = blocks.table(rows)
    assert len(text.splitlines()) == 8 and "36.64" in text and "11.287" in text


@pytest.mark.parametrize(("share", "status"), [(0.54, 0), (0.56, 1)])
def test_the_benchmark_fails_if_twelve_blocks_are_slow(
    blocks: ModuleType, share: float, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [blocks.Row(variant, 1, 1, 1.0) for variant in blocks.VARIANTS[:-1]]
    rows.append(blocks.Row(blocks.VARIANTS[-1], 1, 1, share))
    monkeypatch.setattr(blocks, "measure", lambda *args, **options: rows)
    threads = str(torch.get_num_threads())
    monkeypatch.setattr(sys, "argv", ["mtsr_blocks", "--threads", threads, "--json", str(tmp_path / "rows.json")])
    assert blocks.main() == status
    assert f'"seconds": {share}' in (tmp_path / "rows.json").read_text()
