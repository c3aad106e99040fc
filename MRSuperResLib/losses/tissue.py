"""Our own feature network: a U-Net that tells tissues apart in any contrast, trained on images made from label maps alone.

It stands in for ImageNet's VGG-19, whose weights are not ours to ship, in perceptual losses and in distances between images.
Results that use it say so; its distance is not LPIPS. MONAI's BasicUNet, which comes with the `train` extra.

"unet-64" has the widths of RDST's segmentation network, not its layers. The paper's has a ResNet encoder of
Segmentation-Models-PyTorch with batch normalisation, whose first block halves the resolution; here it is pairs of convolutions with
instance normalisation, and the first block is at full resolution.

FASR-Net's texture extractor has a shape of its own. Its two sizes learned the same task with a small head on top (`TissueHead`),
which is then taken off: what `extractor_weights` gives is where its training starts without VGG-19.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import MissingRequirement, ModelError
from ..networks.fasr import SIZES, TextureExtractor

WEIGHTS = Path(__file__).with_name("tissue.safetensors")
WIDTHS = {"unet": (16, 32, 64, 128, 128, 16), "unet-64": (64, 128, 256, 512, 1024, 64)}  # the second has RDST's widths
CLASSES = 5  # `training.data.synthesis.TISSUES`
HEAD_WIDTH = 32


def tissue_network(size: str = "unet") -> nn.Module:
    """The network with random weights: (B, 1, H, W), multiples of 16 -> logits (B, 5, H, W) of `training.data.synthesis`."""
    try:
        from monai.networks.nets import BasicUNet
    except ImportError as error:
        raise MissingRequirement(
            "tissue features need MONAI: pip install 'mrsuperres[train]'", code="no-monai"
        ) from error
    network: nn.Module = BasicUNet(
        spatial_dims=2, in_channels=1, out_channels=CLASSES, features=WIDTHS[size], dropout=0.0
    )
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
    return TissueFeatures(trained_tissue_network(path))


def trained_tissue_network(path: str | Path = WEIGHTS) -> nn.Module:
    """The shipped U-Net that tells tissues apart, or the one in `path`, of either size. Raises as `tissue_features`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = {name: value.float() for name, value in load_file(path).items()}
        first = len(next(value for name, value in weights.items() if name.startswith("conv_0")))
        size = next((size for size, widths in WIDTHS.items() if widths[0] == first), "unet")
        network = tissue_network(size)
        network.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError, StopIteration) as error:
        raise ModelError(f"{Path(path).name} holds no tissue network: {error}", code="bad-features") from error
    return network


@torch.inference_mode()
def segmented(network: nn.Module, images: np.ndarray) -> np.ndarray:
    """Tissues of slices (N, H, W) on the unit scale, indices into `training.data.synthesis.TISSUES`, one slice at a time."""
    device = next(network.eval().parameters()).device
    height, width = images.shape[1:]
    padding = (0, -width % 16, 0, -height % 16)
    found = np.empty(images.shape, dtype=np.uint8)
    for number, image in enumerate(images):
        tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None, None].to(device)
        logits = network(functional.pad(tensor, padding, mode="replicate"))
        found[number] = logits.argmax(1)[0, :height, :width].cpu().numpy()
    return found


class TissueHead(nn.Module):
    """A texture extractor that is to tell tissues apart: (B, 1, H, W), multiples of 4 -> logits (B, 5, H, W)."""

    def __init__(self, extractor: TextureExtractor) -> None:
        super().__init__()
        self.extractor = extractor
        widths = [level[0].out_channels for level in extractor.levels]  # type: ignore[index]
        self.merge = nn.Conv2d(sum(widths), HEAD_WIDTH, 1)
        self.tell = nn.Conv2d(HEAD_WIDTH, CLASSES, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Features of all scales at full resolution, mixed, and told apart by their neighbourhoods."""
        return self.tell(functional.relu(self.merge(at_full_resolution(self.extractor(image)))))  # type: ignore[no-any-return]


def at_full_resolution(features: list[Tensor]) -> Tensor:
    """Feature maps of several scales, the first (B, C, H, W) the finest -> (B, all channels, H, W)."""
    size = features[0].shape[-2:]
    return torch.cat([functional.interpolate(feature, size=size, mode="bilinear") for feature in features], 1)


def new_extractor(size: str) -> TextureExtractor:
    """FASR-Net's texture extractor, "published" or "s", with random weights."""
    return TextureExtractor(**{name: value for name, value in SIZES[size].items() if name in ("widths", "channels")})  # type: ignore[arg-type]


def extractor_weights(extractor: TextureExtractor) -> dict[str, Tensor] | None:
    """What an extractor of this shape has learned from tissues, float32; None if it is neither of the two sizes."""
    from safetensors.torch import load_file

    shapes = shapes_of(extractor)
    size = next((size for size in SIZES if shapes_of(new_extractor(size)) == shapes), None)
    return None if size is None else {name: value.float() for name, value in load_file(extractor_file(size)).items()}


def shapes_of(network: nn.Module) -> dict[str, torch.Size]:
    """Of its weights, by name."""
    return {name: value.shape for name, value in network.state_dict().items()}


def extractor_file(size: str) -> Path:
    """Where the weights of a size lie."""
    return WEIGHTS.with_name(f"extractor-{size}.safetensors")
