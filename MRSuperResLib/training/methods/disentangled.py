"""Super-resolution of Mahapatra and Ge (section 3.3, eq. 7 to 9): an adversarial loss, and features that are to stay the same.

Structure and texture come from the autoencoder that the method "disentangle" trains, ViT features from the transformer of
"pretext"; a loss whose weight is 0 or not there is left out, with its teacher, which gives the ablations of tables 1 and 2. As
published, features of the answer are compared with those of the coarse image, and no loss compares pixels. Ours: L1 first and
beside, and features compared with those of the sharp image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from ...documents import BadDocument
from ...losses.adversarial import REAL, logistic_loss
from ...losses.cosine import CosineLosses, read_autoencoder
from ...losses.unetr import read_transformer
from ...networks.parts.projection import bicubic
from ...networks.srresnet import Discriminator
from ...networks.swap_autoencoder import MULTIPLE
from ..method import Validator
from ..pack import Pack
from ..validation import EngineValidator
from .adversarial import Adversarial
from .supervised import SuperResolutionRecipe

BETAS = (0.9, 0.999)  # section 4.1


@dataclass(frozen=True)
class DisentangledStage:
    """pretraining: the part of the training on L1 alone. learning_rate: after it, constant, then falling linearly to 0.

    width: of the discriminator's first features. weight_decay: of Adam.
    """

    pretraining: float = 0.5
    learning_rate: float = 1e-4
    width: int = 64
    weight_decay: float = 0.0


@dataclass(frozen=True)
class FeatureSpec:
    """autoencoder, transformer: files that the methods "disentangle" and "pretext" have written.

    compared_with: "low", the interpolated input as published, or "high", the sharp image.
    """

    autoencoder: str = ""
    transformer: str = ""
    compared_with: Literal["low", "high"] = "low"


@dataclass(frozen=True)
class DisentangledRecipe(SuperResolutionRecipe):
    """A `Recipe` with [adversarial] and [features]."""

    adversarial: DisentangledStage = field(default_factory=DisentangledStage)
    features: FeatureSpec = field(default_factory=FeatureSpec)

    def __post_init__(self) -> None:
        super().__post_init__()
        for losses, teacher, method in (
            (("structure", "texture"), "autoencoder", "disentangle"),
            (("vit",), "transformer", "pretext"),
        ):
            wanted = [name for name in losses if self.weight(name)]
            if wanted and not getattr(self.features, teacher):
                raise BadDocument(
                    f"features.{teacher} is missing, and loss.{wanted[0]} is {self.weight(wanted[0]):g}: name the file that a "
                    f"training by the method '{method}' wrote, or set the loss to 0"
                )
        patch = (self.data.patch,) * 2 if self.data.device is None else self.data.device.patch
        if any(n * factor < MULTIPLE for n, factor in zip(patch, self.network.get("factors", (4, 4)), strict=False)):
            raise BadDocument(f"data.patch is {patch[0]}: sharp crops need {MULTIPLE} pixels at least")
        if self.adversarial.pretraining and not self.weight("l1"):
            raise BadDocument("adversarial.pretraining is on L1 alone, and loss.l1 is 0")


class Disentangled(Adversarial):
    """A generator, its discriminator, and the two frozen teachers."""

    recipe = DisentangledRecipe
    losses = ("l1", "adversarial", "vit", "structure", "texture")
    criterion = staticmethod(logistic_loss)  # eq. 21

    def build_others(self) -> dict[str, nn.Module]:
        """SRGAN's discriminator (figure 6 b), if the adversarial loss has a weight."""
        return {"discriminator": Discriminator(self.plan.adversarial.width)} if self.plan.weight("adversarial") else {}

    def prepare(self) -> None:
        """Load the teachers whose losses have a weight."""
        self.begin_pretraining()
        weight, files = self.plan.weight, self.plan.features
        wants_codes = weight("structure") or weight("texture")
        self.teachers = CosineLosses(
            read_autoencoder(files.autoencoder) if wants_codes else None,
            read_transformer(files.transformer) if weight("vit") else None,
        ).to(self.device)

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam; `set_rates` gives the rates."""
        decay = self.plan.adversarial.weight_decay
        return {
            name: torch.optim.Adam(network.parameters(), lr=0.0, betas=BETAS, weight_decay=decay)
            for name, network in self.networks.items()
        }

    def set_rates(self, step: int, done: float) -> None:
        """As in other adversarial trainings; the moments' decays stay the paper's."""
        super().set_rates(step, done)
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["betas"] = BETAS

    @property
    def has_discriminator(self) -> bool:
        """Only for a loss with a weight."""
        return bool(self.plan.weight("adversarial"))

    def generator_losses(self, batch: Sequence[Tensor], adversarial: bool) -> dict[str, Tensor]:
        """L1 and, when `adversarial`, the terms of eq. 9 that have a weight."""
        low, self.real = batch
        answer = self.parts["generator"](low).float()
        self.fake = answer.detach()
        found = {"l1": (answer - self.real).abs().mean()}
        if not adversarial:
            return found
        if self.plan.weight("adversarial"):
            found["adversarial"] = self.criterion(self.parts["discriminator"](answer), REAL)
        compared = self.real if self.plan.features.compared_with == "high" else bicubic(low, answer.shape[-2:])
        with self.fabric.autocast():
            found |= {name: loss for name, loss in self.teachers(answer, compared).items() if self.plan.weight(name)}
        return found

    def validator(self, held_out: Pack) -> Validator:
        """PSNR of whole scans."""
        return EngineValidator(self.plan, held_out, self.context.out, self.device, self.context.report)


METHOD = Disentangled
