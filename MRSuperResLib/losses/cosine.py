"""Feature losses of Mahapatra and Ge (section 3.3, eq. 7 to 9): 1 - cosine similarity of structure, texture and ViT features.

Two small teachers lie beside this module: "autoencoder.safetensors" (disvit-disentangle-s, 990 steps) and
"transformer-s.safetensors" (disvit-pretext-s, 3975 steps), trained for 16 and 24 minutes on a busy CPU core, on the data that the
cards of the models name. On held-out crops the one gives images back with 20.4 dB, and the other names 81 % of planes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import ModelError
from ..networks.swap_autoencoder import MULTIPLE, SwapAutoencoder

WEIGHTS = {"vit": 1.0, "structure": 1.0, "texture": 0.9}  # lambda_1 to lambda_3 of eq. 9, section 4.1


class CosineLosses(nn.Module):
    """The losses by name, "structure" and "texture" with an `autoencoder`, "vit" with a `transformer`; both are frozen.

    transformer: (B, 1, H, W) -> features (B, ...). Images may have any size from 16; their last rows and columns beyond a multiple
    of 16 are not looked at.
    """

    def __init__(self, autoencoder: SwapAutoencoder | None = None, transformer: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = None if autoencoder is None else autoencoder.encoder
        self.transformer = transformer
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> CosineLosses:
        """The networks stay in evaluation mode."""
        return super().train(False)

    def forward(self, answer: Tensor, other: Tensor) -> dict[str, Tensor]:
        """`answer` and what it is compared with, both (B, 1, H, W) -> scalars; gradients reach `answer` only."""
        with torch.no_grad():
            wanted = self.features(other)
        return {name: cosine_loss(found, wanted[name]) for name, found in self.features(answer).items()}

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """By the names of the losses, (B, ...) each."""
        image = image[..., : image.shape[-2] // MULTIPLE * MULTIPLE, : image.shape[-1] // MULTIPLE * MULTIPLE]
        found: dict[str, Tensor] = {}
        if self.encoder is not None:
            found |= self.encoder(image)._asdict()
        if self.transformer is not None:
            found["vit"] = self.transformer(image)
        return found


def cosine_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """1 - <found, wanted> of everything in an image, (B, ...) each, mean over the batch; float32."""
    return (1 - functional.cosine_similarity(found.float().flatten(1), wanted.float().flatten(1))).mean()


def teacher_file(path: str | Path) -> Path:
    """The file `path`, or the one of that name that ships, beside this module."""
    shipped = Path(__file__).parent / path
    return shipped if not Path(path).is_file() and shipped.is_file() else Path(path)


def read_autoencoder(path: str | Path) -> SwapAutoencoder:
    """The autoencoder that a training by the method "disentangle" wrote to `path`; see `teacher_file`.

    Raises `ModelError` if it is none.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = {name: value.float() for name, value in load_file(teacher_file(path)).items()}
        widths = [weights[f"encoder.blocks.{number}.weight"].shape[0] for number in range(4)]
        network = SwapAutoencoder(widths, weights["encoder.texture.bias"].shape[0])
        network.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{path} holds no swapping autoencoder ({reason}); train one by a recipe of the method 'disentangle'",
            code="bad-features",
        ) from error
    return network
