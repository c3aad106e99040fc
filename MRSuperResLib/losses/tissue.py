"""Our own feature network: a U-Net that tells tissues apart in any contrast, trained on images made from label maps alone.

It stands in for ImageNet's VGG-19, whose weights are not ours to ship, in perceptual losses and in distances between images.
Results that use it say so; its distance is not LPIPS. MONAI's BasicUNet, which comes with the `train` extra.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from ..errors import MissingRequirement, ModelError

WEIGHTS = Path(__file__).with_name("tissue.safetensors")
WIDTHS = (16, 32, 64, 128, 128, 16)


def tissue_network() -> nn.Module:
    """The network with random weights: (B, 1, H, W), multiples of 16 -> logits (B, 5, H, W) of `training.synthesis.TISSUES`."""
    try:
        from monai.networks.nets import BasicUNet
    except ImportError as error:
        raise MissingRequirement(
            "tissue features need MONAI: pip install 'mrsuperres[train]'", code="no-monai"
        ) from error
    network: nn.Module = BasicUNet(spatial_dims=2, in_channels=1, out_channels=5, features=WIDTHS, dropout=0.0)
    return network


class TissueFeatures(nn.Module):
    """(B, 1, H, W), any size -> features after the first three levels of the encoder, 16, 32 and 64 channels, frozen."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.levels = nn.ModuleList([network.conv_0, network.down_1, network.down_2])  # type: ignore[list-item]
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """At full resolution, a half and a quarter."""
        features = []
        for level in self.levels:
            image = level(image)
            features.append(image)
        return features


def tissue_features(path: str | Path = WEIGHTS) -> TissueFeatures:
    """The shipped feature network, or the one in `path`. Raises `ModelError` if the file is no such network."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    network = tissue_network()
    try:
        network.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"{Path(path).name} holds no tissue network: {error}", code="bad-features") from error
    return TissueFeatures(network)
