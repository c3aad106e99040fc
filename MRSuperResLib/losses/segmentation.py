"""RDST's second stage (Zhu et al., section 3.2, eqs. 7 to 12): what a segmentation U-Net sees in two images, compared.

The U-Net has been trained beforehand, here on images made from label maps (`losses.tissue`), and is frozen. The paper's is of
Segmentation-Models-PyTorch: a ResNet encoder, batch normalisation, its first block at half resolution. Ours is MONAI's BasicUNet:
pairs of convolutions with instance normalisation, its first block ("e1") at full resolution.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional

ENCODER = ("e1", "e2", "e3", "e4", "e5")
SEGMENTATION = (*ENCODER, "d", "hrl")
MULTIPLE, LEAST = (
    16,
    32,
)  # of the sides of what MONAI's U-Net takes, whose normalisation needs two pixels at its coarsest
SMOOTH = 1e-5  # so that a tissue that is in neither image counts as equal


class SegmentationLoss(nn.Module):
    """By name: "e1" to "e5", L_E(i) (eq. 8), L1 between the maps of the encoder's block i; "d", L_D (eq. 9), of the decoder's last;
    "hrl", L_HRL (eqs. 10, 11), 1 - Dice of the tissues, the mean over all but the background.

    network: MONAI's BasicUNet, (B, 1, H, W) -> logits (B, classes, H, W). In L_HRL the truth's labels are hard, the answer's are
    probabilities, or nothing could be learnt from them.
    """

    def __init__(self, network: nn.Module, names: Collection[str]) -> None:
        super().__init__()
        unknown = [name for name in names if name not in SEGMENTATION]
        if unknown:
            raise ValueError(f"{unknown[0]} is no segmentation loss, expected some of {', '.join(SEGMENTATION)}")
        self.names = tuple(name for name in SEGMENTATION if name in names)
        self.network = network.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> SegmentationLoss:
        """The U-Net stays in evaluation mode."""
        return super().train(False)

    def forward(self, answer: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Both (B, 1, H, W) -> a scalar for each of the names."""
        found = self.maps(answer)
        with torch.no_grad():
            wanted = self.maps(truth)
        losses = {}
        for name in self.names:
            one, other = found[name].float(), wanted[name].float()
            losses[name] = label_distance(one, other) if name == "hrl" else (one - other).abs().mean()
        return losses

    def maps(self, image: Tensor) -> dict[str, Tensor]:
        """Feature maps by name, computed only as deep as needed; "hrl": the logits."""
        below, beside = (max(LEAST - size, -size % MULTIPLE) for size in image.shape[-2:])
        x = functional.pad(image, (0, beside, 0, below), mode="replicate")
        found: dict[str, Tensor] = {}
        last = max((ENCODER.index(name) for name in self.names if name in ENCODER), default=-1)
        whole = "d" in self.names or "hrl" in self.names
        for number, name in enumerate(ENCODER[: 5 if whole else last + 1]):
            x = found[name] = self.network.get_submodule("conv_0" if number == 0 else f"down_{number}")(x)
        if whole:
            for number in (4, 3, 2, 1):
                x = self.network.get_submodule(f"upcat_{number}")(x, found[ENCODER[number - 1]])
            found["d"] = x
            found["hrl"] = self.network.get_submodule("final_conv")(x)
        return found


def label_distance(answer: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice of soft labels and the truth's hard labels, both from logits (B, classes, H, W); the first class left out."""
    likely = answer.softmax(1)
    labels = functional.one_hot(truth.argmax(1), truth.shape[1]).movedim(-1, 1).to(likely.dtype)
    both = (likely * labels).sum((0, 2, 3))
    each = likely.sum((0, 2, 3)) + labels.sum((0, 2, 3))
    return 1 - ((2 * both + SMOOTH) / (each + SMOOTH))[1:].mean()
