"""The perceptual loss of FASR-Net (Liu et al., section III-E-2, eq. 23): squared difference of a fixed network's features.

The paper's network is VGG-19 trained on ImageNet. Its weights are not ours to ship: they come from a local file whose digest the
caller states. Any network that turns images into one or several feature maps serves as well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..weights import read_weights

# torchvision's features.N up to relu3_2: channels out and in of its 3x3 convolution
VGG_CHANNELS = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256)}


class PerceptualLoss(nn.Module):
    """Mean squared difference of the last feature map of `extractor`, which is frozen.

    extractor: (B, 1, H, W) -> a feature map or a list of them, of which the last counts: relu3_2 for FASR's texture extractor.
    """

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> PerceptualLoss:
        """The extractor stays in evaluation mode."""
        return super().train(False)

    def forward(self, answer: Tensor, truth: Tensor) -> Tensor:
        """Both (B, 1, H, W) -> a scalar."""
        with torch.no_grad():
            wanted = self._features(truth)
        return nn.functional.mse_loss(self._features(answer).float(), wanted.float())

    def _features(self, image: Tensor) -> Tensor:
        features = self.extractor(image)
        return features if isinstance(features, Tensor) else features[-1]


def read_vgg19(
    path: str | os.PathLike[str], digest: str, channels: Mapping[int, tuple[int, int]] = VGG_CHANNELS
) -> dict[str, Tensor]:
    """VGG-19's weights, named as torchvision names them, from a safetensors file whose SHA-256 (hex) must be `digest`.

    channels: out and in of the convolutions that must be there, by torchvision's number. Raises `MissingRequirement` without the
    file, `ModelError` if it is another one than said or holds no VGG-19.
    """
    path = Path(path)
    what = "VGG-19's ImageNet weights there, as safetensors with torchvision's names"
    weights, _digest = read_weights(path, digest, what, "vgg")
    for number, (out, into) in channels.items():
        for name, shape in ((f"features.{number}.weight", (out, into, 3, 3)), (f"features.{number}.bias", (out,))):
            if name not in weights or weights[name].shape != shape:
                there = "is not in it" if name not in weights else f"has {_sides(weights[name].shape)} values there"
                raise ModelError(f"{path.name} holds no VGG-19: '{name}' of {_sides(shape)} {there}", code="bad-vgg")
    return weights


def _sides(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
