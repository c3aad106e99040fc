"""StyleSwin and TransMRSR against the sizes their papers print, their equations, and plain readings of both."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from MRSuperResLib import networks
from MRSuperResLib.errors import ModelError
from MRSuperResLib.networks import stylswin
from MRSuperResLib.networks.parts.swin import attend, shift_mask
from MRSuperResLib.networks.stylswin import DoubleAttention, StyleSwin, WaveletDiscriminator
from MRSuperResLib.networks.transmrsr import ScaleAndShift, TransMRSR

PUBLISHED = dict(zip((4, 8, 16, 32, 64, 128, 256), (512, 512, 512, 512, 256, 128, 64), strict=True))  # section 4.3
SMALL = {"channels": (16, 16, 8, 8), "latent": 12, "head_width": 4}  # 4 to 32 pixels
LATENT, WINDOW = 512, 8


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def convolution(inputs: int, outputs: int, side: int = 3) -> int:
    return side**2 * inputs * outputs + outputs


def transformer(width: int, size: int, norms: int) -> int:
    """One layer: q, k, v and out, positions of a window for each head (32 channels wide), a perceptron of ratio 4, two norms."""
    window = min(WINDOW, size)
    heads = max(2, width // 32)
    attention = linear(width, 3 * width) + linear(width, width) + (2 * window - 1) ** 2 * heads
    return attention + linear(width, 4 * width) + linear(4 * width, width) + 2 * norms


def decoder_size() -> int:
    style = sum(2 * transformer(width, size, linear(LATENT, 2 * width)) for size, width in PUBLISHED.items())
    steps = itertools.pairwise(PUBLISHED.values())
    return 4 * 4 * 512 + style + sum(2 * before + linear(before, width) for before, width in steps)


def encoder_size() -> int:
    total, widths = 0, list(PUBLISHED.items())[::-1]
    for (size, width), (_, after) in itertools.pairwise(widths):
        total += 2 * transformer(width, size, 2 * width) + convolution(width, width)
        total += 2 * 4 * width + linear(4 * width, after)
    return total


def test_published_generator_has_the_parameters_of_its_layers() -> None:
    images = sum(linear(width, 1) for width in PUBLISHED.values())
    expected = 8 * linear(LATENT, LATENT) + decoder_size() + images
    assert sum(p.numel() for p in StyleSwin().parameters()) == expected


def test_published_network_has_the_parameters_and_multiply_adds_of_its_layers() -> None:
    """Counted by hand from section 4.3; products of attention (q k and its product with v) are not counted, as for RDST."""
    network = TransMRSR().eval()
    residual = 4 * 2 * convolution(64, 64)
    modulation = sum(convolution(width, width) for width in PUBLISHED.values())
    latents = 7 * linear(4 * 4 * 512, LATENT)
    expected = decoder_size() + encoder_size() + residual + modulation + latents
    expected += convolution(1, 64) + convolution(64, 1)
    assert sum(p.numel() for p in network.parameters()) == expected

    pixels = {size: size**2 for size in PUBLISHED}
    products = 0
    for size, width in PUBLISHED.items():
        products += (
            pixels[size] * (2 * 12 * width**2 + 9 * width**2) + 2 * 2 * 2 * LATENT * width
        )  # decoder, CWSS, styles
    for (size, width), (_, after) in itertools.pairwise(list(PUBLISHED.items())[::-1]):
        products += pixels[size] * (2 * 12 * width**2 + 9 * width**2 + width * after)  # encoder; merging sees a quarter
    for (before, width), after in zip(itertools.pairwise(PUBLISHED.values()), itertools.count(1)):
        products += pixels[2 ** (after + 1)] * before * width  # the linear layer before each enlargement
    products += pixels[256] * 9 * (8 * 64**2 + 2 * 64) + 7 * 16 * 512 * LATENT
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert network(torch.zeros(1, 1, 256, 256)).shape == (1, 1, 256, 256)
    counts = counter.get_flop_counts()["Global"]
    counted = sum(n for operation, n in counts.items() if "addmm" in str(operation) or "convolution" in str(operation))
    assert counted / 2 == pytest.approx(products, rel=1e-6)


def test_sizes_of_the_encoder_mirror_those_of_the_decoder() -> None:
    network = TransMRSR(**SMALL)
    assert [tuple(f.shape[1:]) for f in network.encoded(torch.rand(2, 1, 32, 32))] == [
        (8, 32, 32), (8, 16, 16), (16, 8, 8), (16, 4, 4),
    ]  # fmt: skip
    assert [tuple(level.enlarged(torch.rand(1, max(2, side // 2), max(2, side // 2), before)).shape[1:])
            for level, before, side in zip(network.decoder.levels[1:], (16, 16, 8), (8, 16, 32), strict=True)] == [
        (8, 8, 16), (16, 16, 8), (32, 32, 8),
    ]  # fmt: skip


@pytest.mark.parametrize(("size", "training"), [(4, False), (8, True), (16, False), (16, True)])
def test_half_the_heads_see_windows_and_half_see_shifted_windows(size: int, training: bool) -> None:
    torch.manual_seed(0)
    window, heads, channels = 8, 4, 3
    attention = DoubleAttention(heads * channels, heads, window, size)
    nn.init.normal_(attention.position_bias)
    nn.init.normal_(attention.qkv.bias)
    x = torch.randn(2, size, size, heads * channels)
    with torch.set_grad_enabled(training):
        answer = attention(x)
    torch.testing.assert_close(answer, plainly(attention, x), atol=1e-5, rtol=1e-4)


def plainly(attention: DoubleAttention, x: Tensor) -> Tensor:
    """The same attention, window by window and head by head."""
    size, window, heads = x.shape[1], attention.window, attention.heads
    channels = x.shape[-1] // heads
    bias = attention.position_bias[attention.position_index]
    out = []
    for half, features in enumerate(attention.qkv(x).chunk(2, -1)):
        shift = window // 2 if half and size > window else 0
        mask = shift_mask(size, size, window) if shift else torch.zeros((size // window) ** 2, window**2, window**2)
        features = features.roll((-shift, -shift), (1, 2))
        q, k, v = features.chunk(3, -1)
        result = torch.zeros_like(v)
        for row in range(size // window):
            for column in range(size // window):
                rows = slice(row * window, (row + 1) * window)
                columns = slice(column * window, (column + 1) * window)
                for head in range(heads // 2):
                    part = slice(head * channels, (head + 1) * channels)
                    a, b, c = (t[:, rows, columns, part].flatten(1, 2) for t in (q, k, v))
                    logits = a @ b.transpose(1, 2) / math.sqrt(channels) + bias[..., half * heads // 2 + head]
                    logits = logits + mask[row * (size // window) + column]
                    answer = torch.softmax(logits, -1) @ c
                    result[:, rows, columns, part] = answer.view(-1, window, window, channels)
        out.append(result.roll((shift, shift), (1, 2)))
    return attention.out(torch.cat(out, -1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_fused_kernel_of_a_gpu_gives_the_gradients_of_a_plain_softmax() -> None:
    torch.manual_seed(0)
    plain = [torch.randn(*shape, requires_grad=True) for shape in [(2, 6, 64, 8)] * 3 + [(1, 6, 64, 64)]]
    fused = [tensor.detach().cuda().requires_grad_(True) for tensor in plain]
    weights = torch.randn(2, 6, 64, 8)
    for tensors in (plain, fused):
        (attend(*tensors, 8**-0.5) * weights.to(tensors[0].device)).sum().backward()
    for one, other in zip(plain, fused, strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(other.grad.cpu(), one.grad, atol=1e-4, rtol=1e-3)


def test_a_latent_is_drawn_towards_the_nearest_centre_by_a_tenth() -> None:
    """Eq. 5 with phi 0.9."""
    network = TransMRSR(**{**SMALL, "latent": 2}, centres=3)
    network.centres.copy_(torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]))
    latents = torch.tensor([[[1.0, 1.0], [8.0, 1.0]], [[-1.0, 9.0], [0.0, 4.0]]])
    wanted = torch.tensor([[[0.9, 0.9], [8.2, 0.9]], [[-0.9, 9.1], [0.0, 3.6]]])
    torch.testing.assert_close(network.truncated(latents), wanted)


def test_without_truncation_or_centres_a_latent_stays() -> None:
    latents = torch.randn(2, 4, 12)
    assert TransMRSR(**SMALL, truncation=1.0).truncated(latents) is latents
    assert TransMRSR(**SMALL, centres=0).truncated(latents) is latents


def test_scale_and_shift_change_the_second_half_of_the_channels_only() -> None:
    """Eq. 9."""
    torch.manual_seed(0)
    layer = ScaleAndShift(6)
    decoded, encoded = torch.randn(2, 8, 8, 6), torch.randn(2, 6, 8, 8)
    torch.testing.assert_close(layer(decoded, encoded), decoded)  # before training: the prior as it was
    nn.init.normal_(layer.convolution.weight)
    answer = layer(decoded, encoded)
    alpha, beta = layer.convolution(encoded).permute(0, 2, 3, 1).chunk(2, -1)
    torch.testing.assert_close(answer[..., :3], decoded[..., :3])
    torch.testing.assert_close(answer[..., 3:], alpha * decoded[..., 3:] + beta)


def test_the_first_answer_is_the_interpolated_image() -> None:
    """Eq. 11, before any training."""
    image = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(TransMRSR(**SMALL)(image), image)


def trained(network: TransMRSR) -> TransMRSR:
    """Weights as if it had been trained: no layer is zero."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval()


def test_ablations_leave_out_what_they_name() -> None:
    """Table 3."""
    image = torch.rand(1, 1, 32, 32)
    whole = trained(TransMRSR(**SMALL))
    blind = trained(TransMRSR(**SMALL, features=False))
    assert not any(name.startswith("modulation") for name in blind.state_dict())
    with torch.no_grad():
        # Without features of several sizes only the latents (and the skip) carry the scan into the decoder.
        latents = blind.read_latents(torch.rand(1, 16, 4, 4))
        one, other = (blind.decoded(latents, blind.encoded(torch.rand(1, 1, 32, 32))) for _ in range(2))
        assert torch.equal(one, other)
        one, other = (whole.decoded(latents, whole.encoded(torch.rand(1, 1, 32, 32))) for _ in range(2))
        assert not torch.equal(one, other)
        # Without the skip neither the image nor its shallow features reach the reconstruction.
        whole.skip, whole.decoded = False, lambda latents, encoded: torch.zeros(1, 32, 32, 8)  # type: ignore[method-assign]
        assert torch.equal(whole(image), whole(torch.rand(1, 1, 32, 32)))
        whole.skip = True
        assert not torch.equal(whole(image), whole(torch.rand(1, 1, 32, 32)))


@pytest.mark.parametrize("options", [{}, {"features": False}, {"skip": False}, {"centres": 0}])
def test_every_weight_learns(options: dict) -> None:
    network = trained(TransMRSR(**SMALL, **options)).train()
    network(torch.rand(2, 1, 32, 32)).square().mean().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_every_weight_of_the_gan_learns() -> None:
    torch.manual_seed(0)
    generator, critic = StyleSwin(**SMALL), WaveletDiscriminator(SMALL["channels"])
    for parameter in [*generator.parameters(), *critic.parameters()]:
        nn.init.normal_(parameter, std=0.2)
    critic(generator(torch.randn(4, 12))).sum().backward()
    for network in (generator, critic):
        still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert still == []


def test_the_prior_is_the_decoder_weight_by_weight() -> None:
    prior, network = StyleSwin(**SMALL).state_dict(), TransMRSR(**SMALL).state_dict()
    shared = {name for name in prior if name.startswith("decoder.") or name == "centres"}
    assert shared == {name for name in network if name.startswith("decoder.") or name == "centres"}
    assert all(prior[name].shape == network[name].shape for name in shared)


def test_the_generator_draws_slices_that_differ() -> None:
    generator = StyleSwin(**SMALL)
    slices = generator(torch.randn(3, 12))
    assert slices.shape == (3, 1, 32, 32)
    assert (slices[0] - slices[1]).abs().max() > 1e-4


def test_wavelet_bands_keep_the_energy_and_tell_directions_apart() -> None:
    image = torch.randn(2, 1, 8, 6)
    torch.testing.assert_close(stylswin.haar_bands(image).square().sum(), image.square().sum())
    columns = torch.tensor([1.0, -1.0]).repeat(4).expand(1, 1, 6, 8)
    assert [float(band.abs().max()) for band in stylswin.haar_bands(columns)[0]] == [0.0, 2.0, 0.0, 0.0]


def test_the_discriminator_sees_that_a_batch_is_too_alike() -> None:
    torch.manual_seed(0)
    critic = WaveletDiscriminator(SMALL["channels"])
    image = torch.rand(4, 1, 32, 32)
    assert critic(image).shape == (4,)
    alike = critic(image[:1].repeat(4, 1, 1, 1))
    alone = critic(image[:1])
    torch.testing.assert_close(alike, alone.expand(4), atol=1e-5, rtol=1e-4)
    assert (critic(image)[0] - alone[0]).abs() > 1e-4


def test_no_two_pixels_share_a_position() -> None:
    positions = stylswin.sinusoidal_positions(32, 16).flatten(0, 1)
    assert torch.cdist(positions, positions).fill_diagonal_(1.0).min() > 1e-2
    with pytest.raises(ValueError, match="multiple of 4"):
        stylswin.sinusoidal_positions(8, 6)


def test_wrong_sizes_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="expected 32 x 32"):
        TransMRSR(**SMALL)(torch.rand(1, 1, 32, 30))
    with pytest.raises(ModelError, match=r"truncation is 1\.5"):
        networks.build("transmrsr", {**SMALL, "truncation": 1.5})
    with pytest.raises(ModelError, match="cannot be shared"):
        networks.build("stylswin", {"channels": [16, 20], "head_width": 3})
    with pytest.raises(ModelError, match="unknown"):
        networks.build("parts", {})


def test_built_from_a_card_it_is_the_same_network() -> None:
    network = networks.build("transmrsr", {**SMALL, "channels": list(SMALL["channels"]), "factors": [4, 1]})
    assert network.factors == (4, 1)
    assert network.size == 32
