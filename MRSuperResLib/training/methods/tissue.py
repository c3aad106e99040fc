"""Tissue segmentation from label maps: our feature network (`losses.tissue`), and FASR-Net's texture extractor without ImageNet.

Every image is made from a label map, in one of the usual contrasts or one drawn at random, then blurred, noised and bent, so that
the network looks at shapes and borders and not only at how bright a tissue is. What is shipped is a file of fp16 weights for
`losses/`, no model to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from scipy import ndimage
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ...acquisition import add_rician_noise
from ...documents import BadDocument
from ...losses.tissue import WIDTHS, TissueHead, new_extractor, tissue_network
from ...networks.fasr import SIZES
from ..data.crops import ATTEMPTS, CropDrawer, SourceSpec
from ..data.samples import Samples, as_tensor
from ..data.synthesis import LEVELS, TISSUES, deformed, synthesise, synthesise_contrasts, tissue_of
from ..method import Method, Validator
from ..pack import Pack
from ..recipes import Recipe

IN_HEAD = 0.3  # least part of a crop that is not air
KNOWN = 0.7  # of the images, how many have the levels of a usual contrast
HELD_OUT = 48


@dataclass(frozen=True)
class TissueRecipe(Recipe):
    """A `Recipe` whose [network] has a size only: "unet" or "unet-64" for the tissue network, or one of FASR-Net's extractor."""

    def __post_init__(self) -> None:
        sizes = (*WIDTHS, *SIZES)
        if set(self.network) != {"size"} or self.network["size"] not in sizes:
            raise BadDocument(f"network is {self.network}, expected a size alone, one of {', '.join(sizes)}")


class Tissue(Method):
    """One network, (B, 1, p, p) -> logits (B, 5, p, p) of `TISSUES`, on Dice and cross-entropy."""

    recipe = TissueRecipe
    losses = ("dice_ce",)
    channels_last = True
    best = "dice_mean"
    ships_a_model = False

    def build_networks(self) -> dict[str, nn.Module]:
        """The tissue network, or an extractor with a head that tells tissues apart."""
        size = self.plan.network["size"]
        return {"network": tissue_network(size) if size in WIDTHS else TissueHead(new_extractor(size))}

    def prepare(self) -> None:
        """The loss."""
        from monai.losses import DiceCELoss

        self.loss = DiceCELoss(to_onehot_y=True, softmax=True)

    def stream(self, pack: Pack, seed: int, start: int) -> Any:
        """Images and tissues."""
        return TissueImages(pack, self.plan.data.sources, self.plan.data.patch, seed, start)

    def training_step(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """One step."""
        image, tissues = batch
        loss = self.loss(self.parts["network"](image).float(), tissues[:, None])
        self.update("adam", self.plan.weight("dice_ce") * loss)
        return {"dice_ce": loss}

    def validator(self, held_out: Pack) -> Validator:
        """Dice of each tissue, over `HELD_OUT` images together, and its mean."""
        images = TissueImages(held_out, self.plan.data.sources, self.plan.data.patch, seed=1)
        image, tissues = (part.to(self.device) for part in next(iter(DataLoader(images, HELD_OUT))))

        def scores(network: nn.Module, step: int) -> dict[str, float]:
            found = dice(network(image).argmax(1), tissues)
            found["dice_mean"] = sum(found.values()) / len(found)
            self.context.report("  held out: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()))
            return found

        return scores

    def export(self, folder: Path) -> Path:
        """The averaged weights in fp16, an extractor's without its head."""
        weights = self.average.weights
        if self.plan.network["size"] not in WIDTHS:
            start = "extractor."
            weights = {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}
        path = folder / f"tissue-{self.plan.network['size']}.safetensors"
        save_file({name: value.half().contiguous().cpu() for name, value in weights.items()}, path)
        return path


class TissueImages(Samples):
    """(image (1, p, p) float32, indices into `TISSUES` (p, p))."""

    def __init__(self, pack: Pack, sources: tuple[SourceSpec, ...], patch: int, seed: int = 0, start: int = 0) -> None:
        super().__init__(seed, start)
        self.drawer, self.patch = CropDrawer(pack, sources), patch

    def sample(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """One image and its tissues as tensors."""
        image, tissues = self.draw(rng)
        return as_tensor(image), torch.from_numpy(tissues.astype(np.int64))

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One image and its tissues, (p, p) each."""
        entries = [entry for _, some in self.drawer.choices for entry in some if entry.labels]
        for _ in range(ATTEMPTS):
            labels = self.drawer.crop(entries[rng.integers(len(entries))], "all", (self.patch, self.patch), rng)
            if np.mean(labels > 0) > IN_HEAD:
                break
        labels = deformed(labels, rng)
        known = [str(rng.choice(list(LEVELS)))] if rng.random() < KNOWN else None
        (image,) = (
            synthesise_contrasts(labels, known, rng, deform=False) if known else synthesise(labels, rng, deform=False)
        )
        if rng.random() < 0.5:
            image = ndimage.gaussian_filter(image, rng.uniform(0, 1.2, 2))
        if rng.random() < 0.5:
            image = add_rician_noise(image, rng.uniform(0, 0.08), rng)
        return np.asarray(image, dtype=np.float32), tissue_of(labels)


def dice(found: Tensor, tissues: Tensor) -> dict[str, float]:
    """2 |A and B| / (|A| + |B|) of each tissue, over all images together; indices into `TISSUES`, same shapes."""
    return {
        name: float(2 * ((found == n) & (tissues == n)).sum() / ((found == n).sum() + (tissues == n).sum()))
        for n, name in enumerate(TISSUES)
    }


METHOD = Tissue
