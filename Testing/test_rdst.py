"""RDST against the numbers its paper prints, and against a plain reading of its attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from einops import rearrange
from torch.utils.flop_counter import FlopCounterMode

from MRSuperResLib import networks
from MRSuperResLib.errors import ModelError
from MRSuperResLib.networks.rdst import RDST, WindowAttention, shift_mask, upsampling_steps


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
def test_attention_equals_a_plain_softmax(shifted: bool, training: bool) -> None:
    torch.manual_seed(0)
    attention = WindowAttention(12, heads=3, window=4)
    torch.nn.init.normal_(attention.position_bias)
    x = torch.randn(2, 6, 16, 12)
    mask = shift_mask(8, 12, 4) if shifted else None
    q, k, v = attention.qkv(x).chunk(3, dim=-1)
    out = []
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        logits = q[..., part] @ k[..., part].transpose(-1, -2) / 2.0 + attention.bias()[head]
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
