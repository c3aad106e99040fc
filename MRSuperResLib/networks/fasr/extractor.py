"""The texture extractor (section III-B, eqs. 4-6): VGG-19 up to relu3_2, or as much of it with fewer channels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

# torchvision's features.N: the convolution's name in the paper of VGG
VGG_LAYERS = {0: "1_1", 2: "1_2", 5: "2_1", 7: "2_2", 10: "3_1", 12: "3_2"}
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TextureExtractor(nn.Module):
    """VGG-19 up to relu3_2 (figure 3): (B, 1, H, W) -> features at 4x, 2x and 1x after relu1_2, relu2_2 and relu3_2.

    channels: 3 as VGG has it (the grey image is repeated and normalised as ImageNet was), or 1.
    """

    def __init__(self, widths: tuple[int, int, int] = (64, 128, 256), channels: int = 3) -> None:
        super().__init__()
        self.channels = channels
        before = (channels, widths[0], widths[1])
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.Conv2d(b, b, 3, padding=1), nn.ReLU())
            for a, b in zip(before, widths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 1, H, W), H and W multiples of 4 -> [(B, c4, H, W), (B, c2, H/2, W/2), (B, c1, H/4, W/4)]."""
        if self.channels == 3:
            mean, deviation = (x.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_DEVIATION))
            x = (x - mean) / deviation  # (B, 3, H, W)
        features = []
        for level, layers in enumerate(self.levels):
            x = layers(functional.max_pool2d(x, 2) if level else x)
            features.append(x)
        return features

    @torch.no_grad()
    def load_vgg(self, weights: Mapping[str, Tensor]) -> None:
        """Take VGG-19's convolutions out of `weights`, named as torchvision names them ("features.0.weight", ...)."""
        for number, name in VGG_LAYERS.items():
            level, which = (int(part) - 1 for part in name.split("_"))
            layer = self.levels[level][2 * which]  # type: ignore[index]
            for kind in ("weight", "bias"):
                own, given = getattr(layer, kind), weights[f"features.{number}.{kind}"]
                if own.shape != given.shape:
                    raise ValueError(f"conv{name} has the shape {tuple(own.shape)}, VGG-19's {tuple(given.shape)}")
                own.copy_(given)
