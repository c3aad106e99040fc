"""Adversarial super-resolution, as MTSR-MRI does it (eq. 6): L1 alone first, then a least-squares patch discriminator as well."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ... import networks
from ...documents import BadDocument
from ...losses.adversarial import FAKE, REAL, lsgan_loss
from ...losses.perceptual import PerceptualLoss, read_vgg19
from ...networks.parts.patchgan import MultiScaleDiscriminator
from ...networks.parts.projection import bicubic
from ...networks.rrdb import load_esrgan
from ...weights import read_weights
from ..data.single import SlicePairs, pair_stream
from ..method import Method, Validator
from ..pack import Pack
from ..recipes import Recipe
from ..report import psnr
from .supervised import SuperResolutionRecipe

BETAS = (0.5, 0.999)  # BicycleGAN's Adam
PRETRAINING_BETAS = (0.9, 0.999)
VALIDATION_PAIRS = 24
VALIDATION_SEED = 20
# Folder of the package as it was after L1 alone: for translation, the regressor to compare with
PRETRAINED = "pretrained"
LAST_RATE = 0.05  # of the pre-training's cosine, relative to its first


@dataclass(frozen=True)
class AdversarialStage:
    """How generator and discriminators are trained against each other.

    pretraining: the part of the training on L1 alone. learning_rate: after it, of both sides, constant and then falling
    linearly over the last half. widths, scales: of the discriminators.
    """

    pretraining: float = 0.5
    learning_rate: float = 2e-4
    widths: tuple[int, ...] = (32, 64, 96, 128)
    scales: int = 2


@dataclass(frozen=True)
class AdversarialSpec(AdversarialStage):
    """And, for super-resolution, what features are compared and where the generator starts.

    features: what L_VGG compares, "tissue" (our segmentation network) or "vgg" (`vgg` is a local file of VGG-19's ImageNet
    weights, `vgg_digest` its SHA-256). esrgan, esrgan_digest: a local file of ESRGAN's weights to start an "rrdb" generator from,
    likewise; "" for random ones.
    """

    features: Literal["tissue", "vgg"] = "tissue"
    vgg: str = ""
    vgg_digest: str = ""
    esrgan: str = ""
    esrgan_digest: str = ""


@dataclass(frozen=True)
class AdversarialRecipe(SuperResolutionRecipe):
    """A `Recipe` with [adversarial]."""

    adversarial: AdversarialSpec = field(default_factory=AdversarialSpec)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adversarial.esrgan and self.architecture != "rrdb":
            raise BadDocument(
                f"adversarial.esrgan is given, and ESRGAN's weights fit the architecture 'rrdb', not '{self.architecture}'"
            )


class Adversarial(Method):
    """A generator against discriminators, whose names begin with "discriminator"; in super-resolution it is one (section 2.2)."""

    recipe: ClassVar[type[Recipe]] = AdversarialRecipe
    losses: ClassVar[tuple[str, ...]] = ("l1", "gan", "features")
    exported = "generator"
    channels_last = True  # a third faster on CPUs
    criterion: ClassVar[Callable[..., Tensor]] = staticmethod(lsgan_loss)  # of an answer, and what it should be

    def build_networks(self) -> dict[str, nn.Module]:
        """The generator first."""
        return {"generator": networks.build(self.plan.architecture, self.plan.network), **self.build_others()}

    def build_others(self) -> dict[str, nn.Module]:
        """What trains beside the generator."""
        spec = self.plan.adversarial
        return {"discriminator": MultiScaleDiscriminator(1, spec.widths, spec.scales)}

    def prepare(self) -> None:
        """The feature loss, and ESRGAN's weights."""
        self.begin_pretraining()
        spec = self.plan.adversarial
        self.features: Any = feature_loss(spec).to(self.device) if self.plan.weight("features") else None
        if spec.esrgan:
            path, wanted = Path(spec.esrgan), spec.esrgan_digest or None
            weights, digest = read_weights(path, wanted, "ESRGAN's weights there, as safetensors", "esrgan")
            self.context.report(f"{load_esrgan(self.networks['generator'], weights)}, SHA-256 {digest}")  # type: ignore[arg-type]
            self.context.notes.append(f"started from ESRGAN weights, SHA-256 {digest}")

    def begin_pretraining(self) -> None:
        """No step has been adversarial yet, as far as this run knows."""
        self.adversarial = False
        self.kept = self.context.resumed and (self.context.out / PRETRAINED).is_dir()

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """One of the discriminators, one of all others; `set_rates` gives them their rates."""
        sides: dict[str, list[nn.Parameter]] = {"generator": [], "discriminator": []}
        for name, network in self.networks.items():
            sides["discriminator" if name.startswith("discriminator") else "generator"] += network.parameters()
        return {name: torch.optim.Adam(parameters, lr=0.0, betas=BETAS) for name, parameters in sides.items()}

    def stream(self, pack: Pack, seed: int, start: int) -> Any:
        """Low and high."""
        factors, batch = self.networks["generator"].factors, self.plan.optimisation.batch
        return pair_stream(pack, self.plan.data, factors, batch=batch, device=self.device, seed=seed, start=start)  # type: ignore[arg-type]

    def set_rates(self, step: int, done: float) -> None:
        """A cosine while L1 is alone; then constant and, over the last half, linearly to 0."""
        plan, share = self.plan, self.plan.adversarial.pretraining
        self.adversarial = done >= share
        if self.adversarial:
            if not self.kept and share > 0:
                self.context.keep(PRETRAINED)
            self.kept = True
            behind = (done - share) / max(1e-9, 1 - share)
            rate = plan.adversarial.learning_rate * min(1.0, 2 * (1 - behind))
        else:
            behind = done / share
            rate = plan.optimisation.learning_rate * (
                LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * behind))
            )
            if step < plan.optimisation.warm_up:
                rate *= (step + 1) / plan.optimisation.warm_up
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"], group["betas"] = rate, BETAS if self.adversarial else PRETRAINING_BETAS

    def training_step(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """One step of the generator's side and, in the adversarial part, one of the discriminators' if there are any."""
        losses = self.generator_losses(batch, self.adversarial)
        total = torch.stack([self.plan.weight(name) * value for name, value in losses.items()]).sum()
        self.update("generator", total)
        if self.adversarial and self.has_discriminator:
            losses["discriminator"] = self.discriminator_loss()
            self.update("discriminator", losses["discriminator"])
        return losses

    def generator_losses(self, batch: Sequence[Tensor], adversarial: bool) -> dict[str, Tensor]:
        """By the names of the recipe's [loss]: L1, and the other two when `adversarial`."""
        low, self.real = batch
        answer = self.parts["generator"](low).float()
        self.fake = answer.detach()
        found = {"l1": (answer - self.real).abs().mean()}
        if adversarial:
            found["gan"] = lsgan_loss(self.parts["discriminator"](answer), REAL)
            if self.features is not None:
                found["features"] = self.features(answer, self.real)
        return found

    @property
    def has_discriminator(self) -> bool:
        """Whether the adversarial part has one to train; not where its loss has no weight."""
        return True

    def discriminator_loss(self) -> Tensor:
        """On the batch that `generator_losses` has just seen: real is real, fake is fake."""
        discriminator = self.parts["discriminator"]
        return self.criterion(discriminator(self.real), REAL) + self.criterion(discriminator(self.fake), FAKE)

    def validator(self, held_out: Pack) -> Validator | None:
        """PSNR of crops, dB for a range of 1, beside bicubic interpolation's."""
        sources = tuple(source for source in self.plan.data.sources if held_out.select(source.match))
        spec = self.plan.data.without_augmentation(sources)
        stream = SlicePairs(held_out, spec, self.networks["generator"].factors, seed=VALIDATION_SEED)  # type: ignore[arg-type]
        pairs = zip(*islice(stream, VALIDATION_PAIRS), strict=True)
        low, high = (torch.stack(images).to(self.device) for images in pairs)

        def scores(network: nn.Module, step: int) -> dict[str, float]:
            found = {
                "psnr": psnr(network(low).float(), high),
                "psnr_bicubic": psnr(bicubic(low, high.shape[-2:]), high),
            }
            return self.reported(found)

        return scores

    def reported(self, scores: dict[str, float]) -> dict[str, float]:
        """Report `scores` and give them back."""
        self.context.report("  held out: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
        return scores


def feature_loss(spec: AdversarialSpec) -> PerceptualLoss:
    """What the recipe compares features with; `MissingRequirement` if its weights are not here."""
    if spec.features == "vgg":
        from ...networks.fasr import TextureExtractor

        extractor = TextureExtractor()
        extractor.load_vgg(read_vgg19(spec.vgg, spec.vgg_digest))
        return PerceptualLoss(extractor)
    from ...losses.tissue import tissue_features

    return PerceptualLoss(tissue_features())


METHOD = Adversarial
