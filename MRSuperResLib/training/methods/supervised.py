"""Single-image super-resolution by distances in the pixels and between segmentations: RDST's two stages (sections 3.2 and 4.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional

from ...documents import BadDocument
from ...losses.segmentation import SEGMENTATION, SegmentationLoss
from ...losses.tissue import trained_tissue_network
from ...weights import read_weights
from ..data.single import pair_stream
from ..method import Method, Validator
from ..pack import Pack
from ..recipes import Recipe
from ..validation import EngineValidator

PIXELS = {"l1": functional.l1_loss, "l2": functional.mse_loss}


@dataclass(frozen=True)
class SuperResolutionRecipe(Recipe):
    """A `Recipe` whose images are made coarse."""

    def __post_init__(self) -> None:
        if not self.data.degradation.kinds and self.data.device is None:
            raise BadDocument("data.degradation is missing: super-resolution learns from coarsened images")


@dataclass(frozen=True)
class SegmentationSpec:
    """The U-Net of the segmentation losses: a file that the method "tissue" made, and its SHA-256; "" for the one that ships."""

    weights: str = ""
    digest: str = ""


@dataclass(frozen=True)
class SupervisedRecipe(SuperResolutionRecipe):
    """And with segmentation losses perhaps [segmentation]."""

    segmentation: SegmentationSpec = field(default_factory=SegmentationSpec)


class Supervised(Method):
    """One network, (B, 1, h, w) -> (B, 1, H, W), and its distance from the truth: in the pixels, and for a segmentation U-Net.

    [loss]: l1 and l2; e1 to e5, d and hrl as `losses.segmentation` has them. RDST's second stage is l1 = 1 (alpha) and e1 or hrl
    = 10 (lambda), started with --init from its first.
    """

    recipe = SupervisedRecipe
    losses = ("l1", "l2", *SEGMENTATION)

    def prepare(self) -> None:
        """The U-Net, where the recipe needs it."""
        names = [name for name in SEGMENTATION if self.plan.weight(name)]
        self.segmentation: SegmentationLoss | None = None
        if names:
            file, digest = self.plan.segmentation.weights, self.plan.segmentation.digest
            if file:
                read_weights(Path(file), digest, "the weights that the method 'tissue' made there", "segmentation")
            network = trained_tissue_network(file) if file else trained_tissue_network()
            self.segmentation = SegmentationLoss(network, names).to(self.device)
            self.context.notes.append(
                f"segmentation losses by {f'SHA-256 {digest}' if file else 'the shipped tissue network'}"
            )

    def stream(self, pack: Pack, seed: int, start: int) -> Any:
        """Low and high."""
        factors = self.networks[self.exported].factors
        batch = self.plan.optimisation.batch
        return pair_stream(pack, self.plan.data, factors, batch=batch, device=self.device, seed=seed, start=start)  # type: ignore[arg-type]

    def training_step(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """One step on the sum of the recipe's losses."""
        low, high = batch
        answer = self.parts["network"](low)
        losses = {name: distance(answer, high) for name, distance in PIXELS.items() if self.plan.weight(name)}
        if self.segmentation is not None:
            with self.fabric.autocast():
                losses |= self.segmentation(answer, high)
        self.update("adam", sum(self.plan.weight(name) * loss for name, loss in losses.items()))  # type: ignore[arg-type]
        return losses

    def validator(self, held_out: Pack) -> Validator:
        """PSNR of whole scans."""
        return EngineValidator(self.plan, held_out, self.context.out, self.device, self.context.report)


METHOD = Supervised
