"""RDST against the numbers its paper prints, and against a plain reading of its attention."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from einops import rearrange
from torch.utils.flop_counter import FlopCounterMode

from MRSuperResLib import networks
from MRSuperResLib.errors import ModelError
from MRSuperResLib.networks.parts.swin import WindowAttention, shift_mask
from MRSuperResLib.networks.rdst import RDST, CollapsedUpsampler, upsampling_steps


@pytest.mark.parametrize(("blocks", "parameters", "multiply_adds"), [(8, 4.40e6, 6.17e9), (4, 2.35e6, 3.53e9)])
def test_published_size_and_cost(blocks: int, parameters: float, multiply_adds: float) -> None:
    """Table 1 at 40x32x1 -> 160x128; attention products (q k and its product with v) are not counted, as the paper's tool did."""
    network = RDST(blocks=blocks)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(parameters, rel=0.03)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert network(torch.zeros(1, 1, 40, 32)).shape == (1, 1, 160, 128)
    counts = counter.get_flop_counts()["Global"]
    linear = sum(
        count for operation, count in counts.items() if "addmm" in str(operation) or "convolution" in str(operation)
    )
    assert linear / 2 == pytest.approx(multiply_adds, rel=0.03)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("batch", [1, 2])
def test_attention_equals_a_plain_softmax(batch: int, shifted: bool, training: bool) -> None:
    torch.manual_seed(0)
    attention = WindowAttention(15, heads=3, window=4).train(training)
    torch.nn.init.normal_(attention.position_bias)
    torch.nn.init.normal_(attention.qkv.bias)
    x = torch.randn(batch, 6, 16, 15)
    mask = shift_mask(8, 12, 4) if shifted else None
    q, k, v = attention.qkv(x).chunk(3, dim=-1)
    out = []
    for head in range(3):
        part = slice(5 * head, 5 * head + 5)
        logits = q[..., part] @ k[..., part].transpose(-1, -2) / 5**0.5 + attention.bias()[head]
        if mask is not None:
            logits = logits + mask
        out.append(torch.softmax(logits, -1) @ v[..., part])
    with torch.set_grad_enabled(training):
        answer = attention(x, mask)
    torch.testing.assert_close(answer, attention.out(torch.cat(out, -1)), atol=1e-5, rtol=1e-5)


def test_position_bias_is_one_value_per_relative_position() -> None:
    attention = WindowAttention(6, heads=1, window=3)
    attention.position_bias.data = torch.arange(25.0)[:, None]
    bias = attention.bias()[0].reshape(3, 3, 3, 3)
    for a in np.ndindex(3, 3):
        for b in np.ndindex(3, 3):
            assert bias[a + b] == (a[0] - b[0] + 2) * 5 + (a[1] - b[1] + 2)


def test_pixels_that_the_roll_brought_together_do_not_see_each_other() -> None:
    window, size = 4, 12
    mask = rearrange(shift_mask(size, size, window), "(r c) a b -> r c a b", r=3)
    assert (mask[0, 0] == 0).all()  # an inner window is whole
    rows = (torch.arange(size) + window // 2) % size  # where each rolled row came from
    for a in range(window):
        for b in range(window):
            neighbours = abs(int(rows[8 + a]) - int(rows[8 + b])) < window
            assert (mask[2, 0, a * window, b * window] == 0) == neighbours


@pytest.mark.parametrize(
    ("factors", "shape"), [((4, 4), (9, 13)), ((4, 1), (5, 17)), ((2, 2), (8, 8)), ((3, 2), (1, 1)), ((6, 1), (3, 30))]
)
def test_any_size_and_any_factor_per_axis(factors: tuple[int, int], shape: tuple[int, int]) -> None:
    network = RDST(blocks=1, factors=factors, width=12, growth=6, skip="bicubic").eval()
    answer = network(torch.rand(1, 1, *shape))
    assert answer.shape == (1, 1, shape[0] * factors[0], shape[1] * factors[1])


def test_untrained_network_with_skip_is_bicubic_interpolation_on_the_same_edges() -> None:
    network = RDST(blocks=1, factors=(4, 1), width=12, growth=6, skip="bicubic").eval()
    ramp = torch.arange(16.0)[:, None].expand(16, 8)[None, None]
    answer = network(ramp)[0, 0, :, 4]
    torch.testing.assert_close(answer[12:-12], (torch.arange(64) / 4 - 0.375)[12:-12], atol=1e-4, rtol=0)


def test_upsampling_goes_by_prime_stages() -> None:
    assert upsampling_steps((4, 4)) == ((2, 2), (2, 2))
    assert upsampling_steps((4, 1)) == ((2, 1), (2, 1))
    assert upsampling_steps((6, 3)) == ((2, 3), (3, 1))
    with pytest.raises(ValueError, match="0"):
        upsampling_steps((0, 1))


FACTORS = [(4, 4), (4, 1), (1, 4), (3, 2), (6, 1), (2, 2), (1, 1)]


@pytest.mark.parametrize("factors", FACTORS)
def test_one_convolution_gives_what_the_upsampling_layers_give(factors: tuple[int, int]) -> None:
    """To the edges, where the layers pad with zeros in between, and down to the smallest image it takes."""
    torch.manual_seed(0)
    network = lively(RDST(blocks=1, factors=factors, width=12, growth=6))
    collapsed = CollapsedUpsampler(network.upsampler, network.tail, factors)
    for shape in (collapsed.smallest, (11, 14)):
        features = torch.randn(2, 12, *shape)
        with torch.no_grad():
            expected = network.tail(network.upsampler(features))
            torch.testing.assert_close(collapsed(features), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [(16, 24), (13, 9), (2, 3), (72, 64)])
def test_inference_gives_what_training_sees(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = lively(RDST(blocks=1, width=15, heads=3, growth=6))
    x = torch.rand(2, 1, *shape)
    expected = network.train()(x)
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(x), expected.detach(), atol=1e-5, rtol=1e-5)


def test_inference_follows_the_weights() -> None:
    """Whether they are trained on, loaded, or belong to a copy."""
    torch.manual_seed(0)
    network = lively(RDST(blocks=1, factors=(2, 2), width=12, growth=6)).eval()
    x = torch.rand(1, 1, 16, 16)
    with torch.inference_mode():
        before = network(x)
        assert network._collapsed is not None and network._collapsed.is_of(network.upsampler, network.tail)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.tail.weight.mul_(2.0)
        other.tail.bias.mul_(2.0)
        torch.testing.assert_close(other(x), 2.0 * before)
        network.load_state_dict(other.state_dict())
        torch.testing.assert_close(network(x), 2.0 * before)
        network.load_state_dict({**other.state_dict(), "tail.weight": torch.zeros(1, 12, 3, 3)}, assign=True)
        torch.testing.assert_close(network(x), network.tail.bias.expand(1, 1, 32, 32))


def test_inference_of_weights_made_in_inference_mode_follows_them_too() -> None:
    """PyTorch does not count the changes of such weights."""
    with torch.inference_mode():
        network = lively(RDST(blocks=1, factors=(2, 2), width=12, growth=6)).eval()
        before = network(torch.zeros(1, 1, 16, 16))
        for parameter in network.tail.parameters():
            parameter.mul_(2.0)
        torch.testing.assert_close(network(torch.zeros(1, 1, 16, 16)), 2.0 * before)


def lively(network: RDST) -> RDST:
    """The network with all its biases at work; they start at zero."""
    for name, parameter in network.named_parameters():
        if "bias" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return network


def test_masks_are_cached_per_size_and_bounded() -> None:
    network = RDST(blocks=1, width=12, growth=6)
    first = network.mask(16, 8, torch.device("cpu"))
    assert network.mask(16, 8, torch.device("cpu")) is first
    for rows in range(1, 20):
        network.mask(8 * rows, 16, torch.device("cpu"))
    assert len(network._masks) <= 8


def test_unknown_architecture_or_hyperparameter_is_said() -> None:
    with pytest.raises(ModelError, match="nonesuch"):
        networks.build("nonesuch", {})
    with pytest.raises(ModelError, match="hyper-parameters"):
        networks.build("rdst", {"bloks": 4})
    assert networks.build("rdst", {"blocks": 1, "factors": [2, 2]})(torch.rand(1, 1, 8, 8)).shape == (1, 1, 16, 16)
