"""The swapping autoencoder of Mahapatra and Ge: an image as its structure, a map, and its texture, a vector.

Mahapatra, Ge: "MR image super resolution by combining feature disentanglement CNNs and vision transformers", MIDL 2022, figure 1
(b), sections 3.3 and 4.1, appendix A; after Park et al.: "Swapping autoencoder for deep image manipulation", 2020. Four blocks of a
3x3 convolution, 64, 64, 32 and 32 features, each followed by max pooling; an image of 256x256 has a structure code of 64x64 and a
texture code of 256 values; the decoder mirrors the encoder.

Where the paper is silent: the structure code is one channel and leaves after the second pooling, where an image of 256x256 has
become 64x64; the texture code is a dense layer on the mean of the last features, so that it knows no place. In the mirrored decoder
each code enters where its twin left. Losses 3 to 6 are in `training.methods.disentangle`, the discriminator is `srresnet`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

MULTIPLE = 16  # both sides of an image are multiples of this: four poolings


class Codes(NamedTuple):
    """structure: (B, 1, H/4, W/4). texture: (B, 256)."""

    structure: Tensor
    texture: Tensor


class Encoder(nn.Module):
    """(B, 1, H, W) -> `Codes`; H and W multiples of 16."""

    def __init__(self, widths: Sequence[int], texture: int) -> None:
        super().__init__()
        before = (1, *widths)
        self.blocks = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(before, widths, strict=False))
        self.structure = nn.Conv2d(widths[1], 1, 1)
        self.texture = nn.Linear(widths[-1], texture)

    def forward(self, image: Tensor) -> Codes:
        """Structure after the second pooling, texture after the fourth."""
        features = image
        for number, block in enumerate(self.blocks):
            features = functional.max_pool2d(functional.relu(block(features)), 2)
            if number == 1:
                structure = self.structure(features)
        return Codes(structure, self.texture(features.mean((-2, -1))))


class Decoder(nn.Module):
    """`Codes` -> (B, 1, H, W): the encoder mirrored, nearest-neighbour doubling in the place of pooling."""

    def __init__(self, widths: Sequence[int], texture: int) -> None:
        super().__init__()
        mirrored = tuple(reversed(widths))
        self.texture = nn.Linear(texture, mirrored[0])
        inputs = [mirrored[0], *mirrored[:-1]]
        inputs[2] += 1  # the structure code, beside the features
        self.blocks = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(inputs, mirrored, strict=True))
        self.image = nn.Conv2d(mirrored[-1], 1, 3, padding=1)

    def forward(self, codes: Codes) -> Tensor:
        """Texture enters at 1/16 of the image's size, structure at 1/4."""
        height, width = (n // 4 for n in codes.structure.shape[-2:])
        features = functional.relu(self.texture(codes.texture))[..., None, None].expand(-1, -1, height, width)
        for number, block in enumerate(self.blocks):
            if number == 2:
                features = torch.cat((features, codes.structure), 1)
            features = functional.interpolate(functional.relu(block(features)), scale_factor=2.0)
        answer: Tensor = self.image(features)
        return answer


class SwapAutoencoder(nn.Module):
    """(B, 1, H, W) on the networks' intensity scale, H and W multiples of 16 -> each image again, and each with another's texture.

    widths: of the four blocks. texture: length of the texture code.
    """

    def __init__(self, widths: Sequence[int] = (64, 64, 32, 32), texture: int = 256) -> None:
        super().__init__()
        if len(widths) != 4:
            raise ValueError(f"widths are {list(widths)}, expected four")
        self.encoder = Encoder(widths, texture)
        self.decoder = Decoder(widths, texture)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """G(z_s, z_t) of every image, for eqs. 3 and 4, and G(z_s^1, z_t^2) of neighbours in the batch (`swapped`), for eq. 5."""
        codes = self.encoder(image)
        return self.decoder(codes), self.decoder(swapped(codes))


def swapped(codes: Codes) -> Codes:
    """Each image's structure with the texture of the one before it in the batch: z_s of image 1, z_t of image 2.

    Eq. 5 swaps images of the same dataset. That is not kept: the one before may have another contrast or come from another scan.
    """
    return Codes(codes.structure, codes.texture.roll(1, 0))


def build(**hyperparameters: Any) -> SwapAutoencoder:
    """The autoencoder from a recipe's hyper-parameters."""
    return SwapAutoencoder(**hyperparameters)
