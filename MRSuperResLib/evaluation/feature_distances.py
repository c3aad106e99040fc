"""How differently two images look to a network: LPIPS from a local weights file, and the same idea on features of our own.

Only LPIPS' own formula with LPIPS' own weights is called LPIPS. Its VGG-16 was trained on ImageNet, its linear weights on human
judgements; neither is ours to ship.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ModelError
from ..weights import read_weights

Extractor = Callable[[Tensor], "Tensor | Sequence[Tensor]"]

SLICES_AT_ONCE = 4
EPSILON = 1e-10  # LPIPS' own, of its channel normalisation
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # of VGG-16, as torchvision numbers its features
POOLED = (5, 10, 17, 24)  # those whose input is halved first
TAPS = (2, 7, 14, 21, 28)  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
CHANNELS = (64, 128, 256, 512, 512)
SHIFT, SCALE = (
    (-0.030, -0.088, -0.188),
    (0.458, 0.448, 0.450),
)  # LPIPS' ScalingLayer, for red, green and blue in [-1, 1]


@torch.inference_mode()
def feature_distance(extractor: Extractor, a: np.ndarray, b: np.ndarray, device: torch.device | str = "cpu") -> float:
    """Mean distance of the slices of `a` and `b` (N, H, W), on the unit scale, in the features of `extractor`.

    extractor: (B, 1, H, W) -> a feature map (B, C, h, w) or several. The features of a place are brought to length 1; the
    distance is their squared difference summed over channels (0 to 4), averaged over places, feature maps and slices:
    LPIPS' formula without its learned weights, and so not LPIPS.
    """
    total = 0.0
    for x, y in _batches(a, b, device):
        maps = list(zip(_maps(extractor(x)), _maps(extractor(y)), strict=True))
        each = [torch.square(_normalised(one) - _normalised(other)).sum(1).mean((1, 2)) for one, other in maps]
        total += float(torch.stack(each).mean(0).sum())
    return total / len(a)


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity (Zhang et al. 2018, version 0.1, VGG-16), for single-channel images.

    weights: as `read_lpips` reads them. Images are on the unit scale, clipped to [0, 1] and given to all three colours.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.convolutions = nn.ParameterList()
        for number in CONVOLUTIONS:
            kernel, bias = (weights[f"features.{number}.{part}"].float() for part in ("weight", "bias"))
            self.convolutions.append(nn.ParameterList([nn.Parameter(kernel, False), nn.Parameter(bias, False)]))
        self.linear = nn.ParameterList(
            nn.Parameter(weights[f"lin{n}.model.1.weight"].float(), False) for n in range(len(TAPS))
        )
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B, 1, H, W) twice, at least 16 x 16 -> (B,), 0 for equal images."""
        terms = [
            functional.conv2d(torch.square(_normalised(one) - _normalised(other)), weight).mean((1, 2, 3))
            for one, other, weight in zip(self._features(x), self._features(y), self.linear, strict=True)
        ]
        return torch.stack(terms).sum(0)

    @torch.inference_mode()
    def distance(self, a: np.ndarray, b: np.ndarray) -> float:
        """Mean LPIPS of the slices of `a` and `b` (N, H, W), on the unit scale."""
        return sum(float(self(x, y).sum()) for x, y in _batches(a, b, self.shift.device)) / len(a)

    def _features(self, image: Tensor) -> list[Tensor]:
        features = (2 * image.clamp(0, 1) - 1 - self.shift) / self.scale  # (B, 3, H, W)
        found = []
        for number, (kernel, bias) in zip(CONVOLUTIONS, self.convolutions, strict=True):
            if number in POOLED:
                features = functional.max_pool2d(features, 2)
            features = functional.relu(functional.conv2d(features, kernel, bias, padding=1))
            if number in TAPS:
                found.append(features)
        return found


def read_lpips(path: str | os.PathLike[str], digest: str) -> dict[str, Tensor]:
    """LPIPS' weights from a safetensors file whose SHA-256 (hex) must be `digest`.

    They are VGG-16's as torchvision names them ("features.0.weight", ...) and LPIPS' own ("lin0.model.1.weight", ...).
    Raises `MissingRequirement` without the file, `ModelError` if it is another one than said or lacks a weight.
    """
    path = Path(path)
    what = "LPIPS' weights there (VGG-16's and its linear ones), as safetensors"
    weights, _digest = read_weights(path, digest, what, "lpips")
    wanted = {f"lin{n}.model.1.weight": (1, channels, 1, 1) for n, channels in enumerate(CHANNELS)}
    wanted |= {"features.0.weight": (64, 3, 3, 3), "features.28.weight": (512, 512, 3, 3)}
    wanted_names = [*wanted, *(f"features.{n}.{part}" for n in CONVOLUTIONS for part in ("weight", "bias"))]
    for name in wanted_names:
        if name not in weights or (name in wanted and tuple(weights[name].shape) != wanted[name]):
            raise ModelError(
                f"{path.name} holds no LPIPS with VGG-16: '{name}' is missing or misshapen", code="bad-lpips"
            )
    return weights


def _batches(a: np.ndarray, b: np.ndarray, device: torch.device | str) -> list[tuple[Tensor, Tensor]]:
    """Pairs of (B, 1, H, W), a few slices each."""
    both = [torch.from_numpy(np.ascontiguousarray(stack, dtype=np.float32))[:, None] for stack in (a, b)]
    parts = [stack.split(SLICES_AT_ONCE) for stack in both]
    return [(x.to(device), y.to(device)) for x, y in zip(*parts, strict=True)]


def _maps(features: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [features] if isinstance(features, Tensor) else features


def _normalised(features: Tensor) -> Tensor:
    """(B, C, h, w) with the C numbers of a place brought to length 1."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + EPSILON)
