"""The swapping autoencoder of Mahapatra and Ge (section 3.3, eq. 3 to 6): structure and texture of an image, told apart.

Coarse and sharp images are learnt alike, the coarse ones interpolated to the size of the sharp ones. What is shipped is a file of
fp16 weights for the method "disentangled".

Where this is not the paper: eq. 5 swaps textures of images of the same dataset; here each image gets the texture of the one before
it, whatever its contrast. The B sharp images of a batch lie before its B coarse ones, so that only 2 of the 2B swaps are between
a sharp and a coarse image, and those are not of one pair. Eqs. 3 and 4 are applied to every image, where appendix A has them for
the first of two. The discriminator's real images are the sharp and the interpolated ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from ...documents import BadDocument
from ...losses.adversarial import FAKE, REAL, logistic_loss
from ...networks.parts.projection import bicubic
from ...networks.srresnet import Discriminator
from ...networks.swap_autoencoder import MULTIPLE, SwapAutoencoder
from ..data.single import SlicePairs, pair_stream
from ..method import Method, Validator
from ..pack import Pack
from ..report import psnr
from .supervised import SuperResolutionRecipe

BETAS = (0.5, 0.999)  # the paper is silent
HELD_OUT = 24
HELD_OUT_SEED = 20


@dataclass(frozen=True)
class DisentangleRecipe(SuperResolutionRecipe):
    """A `Recipe` whose [network] may have widths and texture. factors: of the coarse images. discriminator: its first width."""

    factors: tuple[int, int] = (4, 4)
    discriminator: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            with torch.device("meta"):
                SwapAutoencoder(**self.network)
        except (TypeError, ValueError) as error:
            raise BadDocument(f"network: {error}") from error
        patch = (self.data.patch,) * 2 if self.data.device is None else self.data.device.patch
        sides = [pixels * factor for pixels, factor in zip(patch, self.factors, strict=True)]
        if any(side % MULTIPLE for side in sides):
            raise BadDocument(
                f"data.patch is {patch[0]}: sharp crops have {sides[0]} x {sides[1]} pixels, expected multiples "
                f"of {MULTIPLE}"
            )
        if self.optimisation.batch < 2:
            raise BadDocument(
                f"optimisation.batch is {self.optimisation.batch}, expected 2 or more: textures are swapped within it"
            )


class Disentangle(Method):
    """An autoencoder against a discriminator."""

    recipe = DisentangleRecipe
    losses = ("reconstruction", "adversarial", "swap")
    exported = "autoencoder"
    channels_last = True
    ships_a_model = False

    def build_networks(self) -> dict[str, nn.Module]:
        """Both sides."""
        return {
            "autoencoder": SwapAutoencoder(**self.plan.network),
            "discriminator": Discriminator(self.plan.discriminator),
        }

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """One a side."""
        rate = self.plan.optimisation.learning_rate
        return {
            name: torch.optim.Adam(network.parameters(), lr=rate, betas=BETAS)
            for name, network in self.networks.items()
        }

    def stream(self, pack: Pack, seed: int, start: int) -> Any:
        """Low and high."""
        plan, batch = self.plan, self.plan.optimisation.batch
        return pair_stream(pack, plan.data, plan.factors, batch=batch, device=self.device, seed=seed, start=start)

    def training_step(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """One step of either side."""
        low, high = batch
        real = torch.cat((high, bicubic(low, high.shape[-2:])))  # sharp and coarse, (2B, 1, H, W)
        again, mixed = (image.float() for image in self.parts["autoencoder"](real))
        discriminator = self.parts["discriminator"]
        losses = {
            "reconstruction": functional.l1_loss(again, real),  # eq. 3
            "adversarial": logistic_loss(discriminator(again), REAL),  # eq. 4
            "swap": logistic_loss(discriminator(mixed), REAL),  # eq. 5
        }
        total = torch.stack([self.plan.weight(name) * loss for name, loss in losses.items()]).sum()  # eq. 6
        self.update("autoencoder", total)
        fakes = [logistic_loss(discriminator(image.detach()), FAKE) for image in (again, mixed)]
        losses["discriminator"] = logistic_loss(discriminator(real), REAL) + torch.stack(fakes).mean()
        self.update("discriminator", losses["discriminator"])
        return losses

    def validator(self, held_out: Pack) -> Validator:
        """psnr: of sharp images through their codes, dB; swap: how much another image's texture changes them."""
        sources = tuple(source for source in self.plan.data.sources if held_out.select(source.match))
        spec = self.plan.data.without_augmentation(sources)
        pairs = islice(SlicePairs(held_out, spec, self.plan.factors, seed=HELD_OUT_SEED), HELD_OUT)
        image = torch.stack([high for _, high in pairs]).to(self.device)

        def scores(network: nn.Module, step: int) -> dict[str, float]:
            again, mixed = (answer.float() for answer in network(image))
            found = {"psnr": psnr(again, image), "swap": float((mixed - again).abs().mean())}
            self.context.report(
                f"  held out: images through their codes {found['psnr']:.2f} dB, a swap of textures changes {found['swap']:.4f}"
            )
            return found

        return scores

    def export(self, folder: Path) -> Path:
        """The averaged weights in fp16."""
        path = folder / "autoencoder.safetensors"
        save_file({name: value.half().contiguous().cpu() for name, value in self.average.weights.items()}, path)
        return path


METHOD = Disentangle
