"""Back-projection: offsets go, what agrees with the measurement stays, and RDST uses it as told."""

from __future__ import annotations

import pytest
import torch

from MRSuperResLib.networks.parts.projection import back_projected, bicubic
from MRSuperResLib.networks.rdst import build


@pytest.mark.parametrize("factors", [(4, 4), (3, 1)])
def test_an_offset_of_the_answer_is_taken_back_by_the_share(factors: tuple[int, int]) -> None:
    high = torch.rand(2, 1, 12 * factors[0], 12 * factors[1])
    low = bicubic(high, (12, 12))
    torch.testing.assert_close(back_projected(high + 0.2, low, 0.75), high + 0.05)
    torch.testing.assert_close(back_projected(high, low, 0.75), high)  # what agrees already stays as it is


def test_one_step_brings_the_answer_nearer_to_the_measurement() -> None:
    torch.manual_seed(0)
    low, answer = torch.rand(1, 1, 16, 16), torch.rand(1, 1, 64, 64)
    error = [(bicubic(image, (16, 16)) - low).abs().mean() for image in (answer, back_projected(answer, low, 0.5))]
    assert error[1] < 0.8 * error[0]


def test_interpolation_keeps_ramps_and_edges_where_they_are() -> None:
    """A half-pixel shift would show: fine pixel centres lie at (i + 0.5) / 4 - 0.5 of the coarse ones."""
    ramp = torch.arange(24.0).expand(1, 1, 24, 24)
    fine = bicubic(ramp, (96, 96))[0, 0, 48]
    expected = (torch.arange(96.0) + 0.5) / 4 - 0.5
    torch.testing.assert_close(fine[12:-12], expected[12:-12], atol=1e-4, rtol=0)
    torch.testing.assert_close(
        bicubic(fine.expand(1, 1, 96, 96), (24, 24))[0, 0, 12, 4:-4], ramp[0, 0, 0, 4:-4], atol=1e-3, rtol=0
    )


def test_rdst_adds_the_share_it_was_built_with() -> None:
    torch.manual_seed(0)
    plain, fed = (build(blocks=1, factors=(2, 2), feedback=share).eval() for share in (0.0, 0.5))
    fed.load_state_dict(plain.state_dict())
    x = torch.rand(2, 1, 16, 24)
    with torch.inference_mode():
        torch.testing.assert_close(fed(x), back_projected(plain(x), x, 0.5))
