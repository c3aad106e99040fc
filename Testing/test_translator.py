"""MTSR-MRI's translator, latent encoder, discriminators and losses, on tensors alone."""

from __future__ import annotations

import pytest
import torch

from MRSuperResLib.losses.adversarial import FAKE, REAL, kl_divergence, lsgan_loss
from MRSuperResLib.networks.parts.patchgan import MultiScaleDiscriminator, PatchDiscriminator
from MRSuperResLib.networks.translation import LatentEncoder, Translator, mixed


@pytest.mark.parametrize("size", [(32, 32), (37, 50), (9, 64)])
def test_a_translator_takes_any_size_and_keeps_it(size: tuple[int, int]) -> None:
    network = Translator(widths=(4, 6, 8), latent=3).eval()
    assert network(torch.rand(2, 1, *size), torch.zeros(2, 3), 0, 1).shape == (2, 1, *size)


def test_mixing_takes_the_checkerboard_and_leaves_edges_where_they_are() -> None:
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(10.0), indexing="ij")
    board = ((rows + columns) % 2)[None, None]
    torch.testing.assert_close(mixed(board, 0.25)[..., 1:-1, 1:-1], torch.full((1, 1, 10, 8), 0.5))
    ramp = (3 + rows - 2 * columns)[None, None]
    torch.testing.assert_close(mixed(ramp, 0.2)[..., 1:-1, 1:-1], ramp[..., 1:-1, 1:-1])
    torch.manual_seed(0)
    network, x, z = Translator(widths=(4, 6), latent=3).eval(), torch.rand(1, 1, 16, 20), torch.randn(1, 3)
    plain = network(x, z, 0, 1)
    network.mixing = 0.2
    torch.testing.assert_close(network(x, z, 0, 1), mixed(plain, 0.2))


def test_codes_and_contrasts_change_the_answer_and_nothing_else_does() -> None:
    torch.manual_seed(0)
    network = Translator(widths=(4, 6), latent=3).eval()
    x, z = torch.rand(2, 1, 16, 16), torch.randn(2, 3)
    first = network(x, z, 0, 1)
    torch.testing.assert_close(first, network(x, z, torch.tensor([0, 0]), torch.tensor([1, 1])))
    torch.testing.assert_close(
        first[:1], network(x[:1], z[:1], 0, 1)
    )  # an image's neighbours in a batch are nothing to it
    for other in (network(x, -z, 0, 1), network(x, z, 2, 1), network(x, z, 0, 2)):
        assert (other - first).abs().mean() > 1e-3


def test_slices_are_not_normalised_by_themselves() -> None:
    """A slice that is mostly air keeps the intensities of its neighbour: what lies far away does not change a pixel."""
    torch.manual_seed(0)
    network = Translator(widths=(4, 6), latent=3).eval()
    full = torch.rand(1, 1, 96, 96)
    half = full.clone()
    half[..., 64:, :] = 0
    z = torch.zeros(1, 3)
    torch.testing.assert_close(network(full, z, 0, 1)[..., :32, :], network(half, z, 0, 1)[..., :32, :])


def test_a_70_pixel_patchgan_sees_70_pixels() -> None:
    critic = PatchDiscriminator(1, (2, 2, 2, 2)).eval()
    image = torch.rand(1, 1, 128, 128, requires_grad=True)
    scores = critic(image)
    scores[0, 0, scores.shape[-2] // 2, scores.shape[-1] // 2].backward()
    assert image.grad is not None
    rows, columns = torch.nonzero(image.grad[0, 0], as_tuple=True)
    assert (int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1) == (70, 70)


def test_scales_halve_and_classes_shift() -> None:
    critic = MultiScaleDiscriminator(2, (4, 6), scales=2, classes=3).eval()
    image = torch.rand(2, 2, 64, 64)
    first, second = critic(image, torch.tensor([0, 1]))
    assert second.shape[-1] < 0.6 * first.shape[-1]
    assert not torch.allclose(first, critic(image, torch.tensor([2, 1]))[0])


def test_the_latent_encoder_describes_a_distribution() -> None:
    mean, log_variance = LatentEncoder(widths=(4, 6), latent=5)(torch.rand(3, 1, 40, 56), torch.tensor([0, 1, 2]))
    assert mean.shape == log_variance.shape == (3, 5)


def test_least_squares_judgement() -> None:
    scores = [torch.full((2, 1, 3, 3), 1.0), torch.full((2, 1, 2, 2), 0.5)]
    assert lsgan_loss(scores, REAL).item() == pytest.approx(0.125)  # mean of 0 and 0.25
    assert lsgan_loss(scores, FAKE).item() == pytest.approx(0.625)  # mean of 1 and 0.25


def test_kl_agrees_with_torch_distributions() -> None:
    mean, log_variance = torch.randn(5, 8), torch.randn(5, 8)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = torch.distributions.Normal(torch.zeros(5, 8), torch.ones(5, 8))
    expected = torch.distributions.kl_divergence(posterior, prior).sum(1).mean()
    torch.testing.assert_close(kl_divergence(mean, log_variance), expected)
