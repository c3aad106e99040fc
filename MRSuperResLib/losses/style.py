"""Content and style losses of TransMRSR (Huang, Liu, et al. 2023, sections 3.5.2 and 3.5.3, equations 13 and 14).

Both compare the features of a frozen network: content their values, style the correlations of their channels, which hold texture
but not place; equation 14 is printed without the sum over layers that equation 13 has, and is summed here. The paper's network is
VGG-19, read after its 2nd, 4th, 7th and 10th convolutions; its weights are not ours to ship.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

# torchvision's features.N of the first ten convolutions: channels out and in
CONVOLUTIONS = {
    0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256), 16: (256, 256),
    19: (512, 256), 21: (512, 512),
}  # fmt: skip
READ_AFTER = (2, 4, 7, 10)  # convolutions, counted from 1
POOLED_BEFORE = (5, 10, 19)  # 2x2 maxima come before these
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class VGG19Features(nn.Module):
    """(B, 1, H, W) -> VGG-19's features after its 2nd, 4th, 7th and 10th convolution and their rectifiers, frozen.

    weights: named as torchvision names them; see `perceptual.read_vgg19`.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict()
        for number, (outputs, inputs) in CONVOLUTIONS.items():
            layer = nn.Conv2d(inputs, outputs, 3, padding=1)
            layer.load_state_dict({name: weights[f"features.{number}.{name}"] for name in ("weight", "bias")})
            self.convolutions[str(number)] = layer
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION)[:, None, None])
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Four feature maps, at full size, a half, a quarter and an eighth."""
        x = (image - self.mean) / self.deviation  # (B, 3, H, W)
        features = []
        for count, (number, convolution) in enumerate(self.convolutions.items(), start=1):
            if int(number) in POOLED_BEFORE:
                x = functional.max_pool2d(x, 2)
            x = functional.relu(convolution(x))
            if count in READ_AFTER:
                features.append(x)
        return features


class ContentAndStyle(nn.Module):
    """Eqs. 13 and 14 with a frozen `extractor`: (B, 1, H, W) -> a list of feature maps."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> ContentAndStyle:
        """The extractor stays in evaluation mode."""
        return super().train(False)

    def forward(self, answer: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Two scalars: the squared differences of features and of their Gram matrices, means over values, summed over maps."""
        with torch.no_grad():
            wanted = [feature.float() for feature in self.extractor(truth)]
        found = [feature.float() for feature in self.extractor(answer)]
        pairs = list(zip(found, wanted, strict=True))
        content = torch.stack([functional.mse_loss(a, b) for a, b in pairs]).sum()
        style = torch.stack([functional.mse_loss(gram(a), gram(b)) for a, b in pairs]).sum()
        return content, style


def gram(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, C): products of channels, summed over pixels, divided by C*H*W as Johnson et al. 2016 do.

    The paper's equation states no divisor; without one the loss would grow with the square of the image's area.
    """
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat[0].numel()
