"""The Fourier loss of FASR-Net (Liu et al., section III-E-3, eq. 24): every frequency counts, the high ones included."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FourierLoss(nn.Module):
    """Mean absolute difference of the two-dimensional spectra of (B, C, H, W) images, a complex modulus at each frequency.

    The transform is unitary, so that the loss does not depend on the patch's size and an error's energy is that of the images.
    """

    def forward(self, answer: Tensor, truth: Tensor) -> Tensor:
        """A scalar, in the images' units."""
        with torch.autocast(answer.device.type, enabled=False):  # there is no FFT in bf16
            spectrum = torch.fft.rfft2(answer.float() - truth.float(), norm="ortho")
            modulus = (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt()  # smooth where they agree
            # A real image's spectrum is symmetric: the columns left out count again.
            double = torch.full((modulus.shape[-1],), 2.0, device=modulus.device)
            double[0] = 1.0
            if answer.shape[-1] % 2 == 0:
                double[-1] = 1.0
            return (modulus * double).sum() / answer.numel()
