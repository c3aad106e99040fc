"""UNETR, whose transformer gives the third feature loss of Mahapatra and Ge: MONAI's, in 3D as published and in 2D for slices.

Mahapatra, Ge 2022, sections 3.2 and 4.1, appendix B, after Hatamizadeh et al. 2021: a ViT-B/16 of 12 layers of 768 and a
convolutional decoder, 92.58 M parameters for 96x96x96 voxels; pre-trained on segmentation, then fine-tuned to name what an image
shows, by a layer that starts from zeros. No pre-trained UNETR is to be had: ours learns tissues from label maps first.
MONAI comes with the `train` extra.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import MissingRequirement, ModelError
from .cosine import teacher_file

PATCH = 16  # pixels along a side of what becomes one token
HEAD = 64  # features of one attention head: 12 heads for 768
SIZES: dict[str, dict[str, Any]] = {
    "published": {"spatial_dims": 3, "side": 96, "hidden": 768, "classes": 14},  # 92.58 M, appendix D
    "b": {"spatial_dims": 2, "side": 128, "hidden": 768, "classes": 5},
    "s": {"spatial_dims": 2, "side": 128, "hidden": 128, "classes": 5},
}


def unetr(size: str) -> nn.Module:
    """A UNETR of `SIZES` with random weights: (B, 1, side, ...) -> logits (B, classes, side, ...)."""
    if size not in SIZES:
        raise ValueError(f"size is '{size}', expected one of {', '.join(SIZES)}")
    return _unetr(**SIZES[size])


def _unetr(*, spatial_dims: int, side: int, hidden: int, classes: int) -> nn.Module:
    try:
        from monai.networks.nets import UNETR
    except ImportError as error:
        raise MissingRequirement("ViT features need MONAI: pip install 'mrsuperres[train]'", code="no-monai") from error
    network: nn.Module = UNETR(
        in_channels=1, out_channels=classes, img_size=(side,) * spatial_dims, spatial_dims=spatial_dims,
        hidden_size=hidden, mlp_dim=4 * hidden, num_heads=hidden // HEAD,
    )  # fmt: skip
    return network


def patch_features(vit: Any, image: Tensor) -> Tensor:
    """Features of the patches of `image` (B, 1, H, W), multiples of 16 -> (B, H*W/256, hidden), after a 2D `vit`'s last norm.

    Position embeddings are interpolated where an image has another size than the transformer was trained with.
    """
    features = vit.patch_embedding.patch_embeddings(image)  # (B, hidden, h, w)
    height, width = features.shape[-2:]
    positions = vit.patch_embedding.position_embeddings  # (1, side**2, hidden)
    side = round(positions.shape[1] ** 0.5)
    if (height, width) != (side, side):
        grid = positions.transpose(1, 2).unflatten(2, (side, side)).float()
        grid = functional.interpolate(grid, (height, width), mode="bicubic", align_corners=False)
        positions = grid.flatten(2).transpose(1, 2)
    x = features.flatten(2).transpose(1, 2) + positions
    for block in vit.blocks:
        x = block(x)
    answer: Tensor = vit.norm(x)
    return answer


class ViTFeatures(nn.Module):
    """The transformer of a 2D UNETR alone; see `patch_features`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.vit = network.vit

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, H, W), multiples of 16 -> (B, H*W/256, hidden)."""
        return patch_features(self.vit, image)


class NamingUNETR(nn.Module):
    """A 2D UNETR that also says what an image shows, by a zero-initialised layer on the mean of its transformer's features."""

    def __init__(self, network: nn.Module, names: int) -> None:
        super().__init__()
        self.unetr = network
        vit: Any = network.vit
        self.head = nn.Linear(vit.norm.normalized_shape[0], names)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, image: Tensor, naming: bool = False) -> Tensor:
        """(B, 1, side, side) -> logits of the segmentation; if `naming`, (B, 1, H, W) -> logits (B, names)."""
        if not naming:
            return self.unetr(image)  # type: ignore[no-any-return]
        answer: Tensor = self.head(patch_features(self.unetr.vit, image).mean(1))
        return answer


def read_transformer(path: str | Path) -> ViTFeatures:
    """The transformer that a training by the method "pretext" wrote to `path`; see `teacher_file`.

    Raises `ModelError` if it is none.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = {name: value.float() for name, value in load_file(teacher_file(path)).items()}
        _, tokens, hidden = weights["vit.patch_embedding.position_embeddings"].shape
        side = round(tokens**0.5) * PATCH
        with torch.device("meta"):  # the decoder is not needed
            network = _unetr(spatial_dims=2, side=side, hidden=hidden, classes=1)
        features = ViTFeatures(network)
        features.load_state_dict(weights, assign=True)
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path} holds no vision transformer ({reason}); train one by a recipe of the method 'pretext'",
            code="bad-features",
        ) from error
    return features
