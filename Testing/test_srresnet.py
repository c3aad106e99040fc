"""SRResNet: figure 6 as published, band-limited interpolation, what was measured is kept, and the same answers when folded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.fft import dct, idct
from torch import Tensor, nn
from torch.nn import functional

from MRSuperResLib import networks
from MRSuperResLib.errors import ModelError
from MRSuperResLib.networks.parts.skip import measured, zero_filled
from MRSuperResLib.networks.srresnet import Discriminator, SRResNet, build, upsampling_steps

OURS: dict[str, Any] = {"normalisation": "none", "skip": "zerofill", "head": "shuffle", "consistency": "soft"}


def small(**hyperparameters: Any) -> SRResNet:
    """A network small enough for tests, its residual not zero."""
    torch.manual_seed(0)
    network = build(**{"blocks": 2, "width": 8, **hyperparameters})
    nn.init.normal_(network.last.weight, std=0.1)
    return network.eval()


def with_statistics(network: SRResNet) -> SRResNet:
    """Batch normalisations as after a training: every weight and running statistic its own."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5), (module.bias, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3), (module.running_var, 0.2, 2.0),
            ):  # fmt: skip
                nn.init.uniform_(tensor, low, high)  # type: ignore[arg-type]
    return network


def cosine_padded(values: np.ndarray, factor: int, axis: int) -> np.ndarray:
    """Zero-filled interpolation by SciPy's transforms, for mirror continuation."""
    n = values.shape[axis]
    coefficients = dct(values, type=2, axis=axis, norm="ortho")
    padding = [(0, 0)] * values.ndim
    padding[axis] = (0, n * (factor - 1))
    return np.sqrt(factor) * idct(np.pad(coefficients, padding), type=2, axis=axis, norm="ortho")


@pytest.mark.parametrize("factors", [(2, 2), (4, 4), (4, 1), (8, 1), (1, 2)])
def test_published_size(factors: tuple[int, int]) -> None:
    """Figure 6 (a), counted by hand: 3x3 kernels with biases, 64 features, two convolutions and two norms a block, 16 blocks."""
    trunk, norm = 9 * 64 * 64 + 64, 2 * 64
    stages = sum(
        9 * 64 * 64 * rows * columns + 64 * rows * columns for rows, columns in upsampling_steps(factors)
    )  # a convolution to `rows * columns` times the features
    with torch.device("meta"):
        network = networks.build("srresnet", {"factors": list(factors)})
        image = network(torch.zeros(2, 1, 12, 20))
    expected = (9 * 64 + 64) + 16 * 2 * (trunk + norm) + (trunk + norm) + stages + (9 * 64 + 1)
    assert sum(p.numel() for p in network.parameters()) == expected
    assert image.shape == (2, 1, 12 * factors[0], 20 * factors[1])


def test_one_stage_for_each_factor_of_two() -> None:
    assert upsampling_steps((4, 4)) == ((2, 2), (2, 2))
    assert upsampling_steps((8, 1)) == ((2, 1), (2, 1), (2, 1))
    assert upsampling_steps((2, 8)) == ((2, 2), (1, 2), (1, 2))


def test_figure_6() -> None:
    """The answer is that of the figure, written out from the named weights."""
    network = with_statistics(small(factors=(2, 4)))
    weights = network.state_dict()

    def convolution(name: str, x: Tensor) -> Tensor:
        return functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    def convolution_and_norm(name: str, x: Tensor) -> Tensor:
        x = convolution(f"{name}.0", x)
        mean, variance, scale, shift = (
            weights[f"{name}.1.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    x = torch.rand(2, 1, 7, 9)
    shallow = deep = convolution("first", x).clamp(min=0)
    for block in (0, 1):
        inner = convolution_and_norm(f"blocks.{block}.first", deep).clamp(min=0)
        deep = deep + convolution_and_norm(f"blocks.{block}.second", inner)
    features = shallow + convolution_and_norm("fusion", deep)
    features = functional.pixel_shuffle(convolution("upsampling.0.convolution", features), 2).clamp(min=0)
    wide = convolution("upsampling.1.convolution", features)  # along columns only
    features = torch.stack((wide[:, ::2], wide[:, 1::2]), -1).flatten(-2).clamp(min=0)
    with torch.no_grad():
        torch.testing.assert_close(network(x), convolution("last", features))


@pytest.mark.parametrize(
    "hyperparameters", [{}, {"skip": "bicubic", "head": "shuffle"}, {**OURS, "normalisation": "batch"}]
)
def test_folding_keeps_the_answers(hyperparameters: dict[str, Any]) -> None:
    network = with_statistics(small(factors=(2, 2), **hyperparameters))
    x = torch.rand(2, 1, 16, 12)
    with torch.no_grad():
        before = network(x)
        folded = network.for_inference()
        torch.testing.assert_close(folded(x), before, atol=1e-5, rtol=0)
        torch.testing.assert_close(folded.for_inference()(x), before, atol=1e-5, rtol=0)  # again is no harm
    assert before.std() > 0.05  # an answer of zeros would agree too
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


def test_a_network_in_training_is_not_folded() -> None:
    with pytest.raises(ValueError, match="eval"):
        small().train().for_inference()


@pytest.mark.parametrize(("shape", "factors"), [((12, 9), (2, 4)), ((5, 8), (8, 1)), ((7, 7), (2, 2))])
def test_zero_filling_is_a_padded_cosine_transform(shape: tuple[int, int], factors: tuple[int, int]) -> None:
    x = torch.rand(2, 1, *shape)
    expected = cosine_padded(cosine_padded(x.double().numpy(), factors[0], 2), factors[1], 3)
    fine = zero_filled(x, factors)
    np.testing.assert_allclose(fine.numpy(), expected, atol=2e-6)
    torch.testing.assert_close(measured(fine, factors), x, atol=2e-6, rtol=0)  # U+ U = 1


def test_zero_filling_keeps_positions_and_constants() -> None:
    """A cosine along the rows, sampled at coarse centres, is found at fine ones; so is a constant."""
    coarse, fine = ((torch.arange(n) + 0.5) / n for n in (16, 64))
    for wave in (0, 3, 15):
        x = torch.cos(torch.pi * wave * coarse)[:, None].expand(1, 1, 16, 4)
        expected = torch.cos(torch.pi * wave * fine)[:, None].expand(1, 1, 64, 4)
        torch.testing.assert_close(zero_filled(x, (4, 1)), expected, atol=1e-5, rtol=0)


def test_soft_consistency_scales_the_residual_inside_and_outside_the_band() -> None:
    """U x + g_out (R - P R) + g_in P R, with P by SciPy: the low quarter of the cosine spectrum along rows and columns."""
    network = small(factors=(4, 2), **OURS)
    x = torch.rand(2, 1, 8, 10)
    with torch.no_grad():
        plain = small(factors=(4, 2), **{**OURS, "consistency": "none"})
        plain.load_state_dict(network.state_dict(), strict=False)
        residual = (plain(x) - zero_filled(x, (4, 2))).double().numpy()
        answer = network(x)
    spectrum = dct(dct(residual, type=2, axis=2, norm="ortho"), type=2, axis=3, norm="ortho")
    gains = np.full((32, 20), 0.8)
    gains[:8, :10] = 0.3  # the values that a training starts from
    kept = idct(idct(gains * spectrum, type=2, axis=2, norm="ortho"), type=2, axis=3, norm="ortho")
    np.testing.assert_allclose(answer.numpy(), zero_filled(x, (4, 2)).numpy() + kept, atol=2e-5)
    assert np.abs(residual).mean() > 0.01


def test_gains_are_learned_for_each_image() -> None:
    network = small(factors=(2, 2), **OURS)
    assert network.gains is not None
    x = torch.rand(2, 1, 8, 8, requires_grad=True)
    network(x).square().mean().backward()
    assert network.gains.linear.weight.grad is not None and (network.gains.linear.weight.grad != 0).any(1).all()
    nn.init.normal_(network.gains.linear.weight)
    gains = network.gains(torch.rand(2, 8, 6, 6))
    assert gains.shape == (2, 2) and (gains > 0).all() and (gains < 1).all() and not torch.equal(gains[0], gains[1])


def test_no_gain_leaves_zero_filling() -> None:
    network = small(factors=(2, 2), **OURS)
    assert network.gains is not None
    nn.init.constant_(network.gains.linear.bias, -200.0)
    x = torch.rand(1, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(network(x), zero_filled(x, (2, 2)))


@pytest.mark.parametrize("skip", ["bicubic", "zerofill"])
def test_training_starts_from_interpolation(skip: str) -> None:
    x = torch.rand(1, 1, 9, 11)
    answer = build(factors=(2, 2), blocks=1, width=4, skip=skip, head="shuffle")(x)
    if skip == "zerofill":
        torch.testing.assert_close(answer, zero_filled(x, (2, 2)))
    else:
        expected = functional.interpolate(x, scale_factor=2, mode="bicubic", antialias=True)
        torch.testing.assert_close(answer, expected)


def test_interpolation_is_exact_under_autocast() -> None:
    """A finer image of bfloat16 values would have steps of 0.4 %."""
    network = build(factors=(2, 2), blocks=1, width=4, **OURS).eval()
    x = torch.rand(1, 1, 16, 16)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        answer = network(x)
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, zero_filled(x, (2, 2)))
    build(factors=(2, 2), blocks=1, width=4, **OURS)(
        x
    ).mean().backward()  # matrices made in inference mode serve training


def test_a_deep_network_without_batch_normalisation_keeps_its_features_in_range() -> None:
    torch.manual_seed(0)
    network = build(blocks=32, width=16, normalisation="none")
    with torch.no_grad():
        shallow = network.first(torch.rand(1, 1, 16, 16)).relu()
        assert 0.5 < network.blocks(shallow).std() / shallow.std() < 2


def test_one_graph_for_the_compiler() -> None:
    """No graph break: a compiled training runs whole on the GPU."""
    network = small(factors=(4, 4), **OURS)
    x = torch.rand(1, 1, 8, 8)
    explained = torch._dynamo.explain(network)(x)
    assert explained.graph_break_count == 0
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), network(x))


@pytest.mark.parametrize(
    ("hyperparameters", "names"),
    [
        ({"factors": [3, 3]}, "factors"),
        ({"factors": [1, 1]}, "factors"),
        ({"factors": [2]}, "factors"),
        ({"skip": "linear"}, "skip"),
        ({"head": "fast"}, "head"),
        ({"normalisation": "layer"}, "normalisation"),
        ({"consistency": "hard"}, "consistency"),
        ({"consistency": "soft"}, "zerofill"),
        ({"blocks": 0}, "blocks"),
        ({"depth": 3}, "depth"),
    ],
)
def test_a_card_that_asks_for_what_cannot_be_is_told_so(hyperparameters: dict[str, Any], names: str) -> None:
    with pytest.raises(ModelError, match=names):
        networks.build("srresnet", hyperparameters)


def test_discriminator_of_figure_6() -> None:
    """SRGAN's: eight convolutions of 64 to 512 features, norms behind seven of them, dense layers of 1024 and 1."""
    widths = (64, 64, 128, 128, 256, 256, 512, 512)
    kernels = sum(9 * before * after for before, after in zip((1, *widths), widths, strict=False))
    expected = kernels + 64 + 2 * sum(widths[1:]) + (512 * 1024 + 1024) + (1024 + 1)
    with torch.device("meta"):
        network = Discriminator()
        sizes = []
        for layer in network.features:
            layer.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-1]))
        score = network(torch.zeros(3, 1, 64, 64))
    assert sum(p.numel() for p in network.parameters()) == expected
    assert score.shape == (3, 1)
    assert sizes[0] == 64 and sizes[-1] == 4  # four strides of 2
