"""The second stage of TransMRSR (Huang, Liu, et al. 2023, section 3.5): super-resolution steered through a generative prior.

L1 + 0.5 content + 0.5 style (eq. 15), from the package of the first stage, which `--init` names: its decoder and its centres. The
images are interpolated first, bicubically, as the engine does. A package of a second stage may be gone on with, for another factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...documents import BadDocument
from ...errors import ModelError, UsageError
from ...losses.perceptual import read_vgg19
from ...losses.style import CONVOLUTIONS, ContentAndStyle, VGG19Features
from ...losses.tissue import tissue_features
from ...models import find_model, load_network
from ...networks.parts.projection import bicubic
from ...networks.stylswin import StyleSwin
from ...networks.transmrsr import TransMRSR
from ..checkpoint import take_fitting
from ..method import Method, Validator, of_kind
from ..pack import Pack
from ..recipes import Recipe
from ..streams.stream import DeviceStream, StreamSpec
from ..validation import EngineValidator


@dataclass(frozen=True)
class SteeringSpec:
    """How the prior is steered.

    prior_rate: learning rate of the decoder over that of the rest, 0 to leave it as it was (table 4). betas: Adam's. features:
    what content and style are compared by, "vgg" or, ours, "tissue" (our segmentation network). vgg, vgg_digest: a local file of
    VGG-19's ImageNet weights, and its SHA-256.
    """

    prior_rate: float = 1.0
    betas: tuple[float, float] = (0.5, 0.999)
    features: Literal["vgg", "tissue"] = "vgg"
    vgg: str = ""
    vgg_digest: str = ""


@dataclass(frozen=True)
class SteeringRecipe(Recipe):
    """A `Recipe` with [steering], whose slices are drawn and made coarse on the device."""

    data: StreamSpec = field(default_factory=StreamSpec)  # type: ignore[assignment]
    steering: SteeringSpec = field(default_factory=SteeringSpec)

    def __post_init__(self) -> None:
        if (
            self.steering.features == "vgg"
            and not self.steering.vgg
            and (self.weight("content") or self.weight("style"))
        ):
            raise BadDocument(
                "steering.vgg is missing: give a file of VGG-19's weights, or set steering.features to 'tissue'"
            )


class WithPrior(Method):
    """TransMRSR, and its distance from the truth in values, features and textures."""

    recipe = SteeringRecipe
    losses = ("l1", "content", "style")

    def prepare(self) -> None:
        """The feature network."""
        self.network: TransMRSR = of_kind(self.networks["network"], TransMRSR, self.plan)
        self.started = False
        needed = self.plan.weight("content") or self.plan.weight("style")
        self.features = ContentAndStyle(feature_network(self.plan.steering)).to(self.device) if needed else None

    def start_from(self, model: str) -> str:
        """The decoder and the centres of a first stage, or all of a second.

        Raises `ModelError`: the package is of another kind, has no centres, or is of another size.
        """
        entry = find_model(model)
        there = load_network(entry, for_inference=False)
        if not isinstance(there, (StyleSwin, TransMRSR)):
            raise ModelError(
                f"'{entry.card.id}' is of the architecture '{entry.card.architecture}', not a first stage ('stylswin'): "
                "make one with a recipe of the method 'prior'",
                code="bad-init",
            )
        weights = {name: value for name, value in there.state_dict().items() if self._wanted(name)}
        if len(self.network.centres) and not (len(there.centres) and bool(there.centres.any())):
            raise ModelError(
                f"'{entry.card.id}' holds no centres of its latents: finish its training, or set network.centres to 0",
                code="bad-init",
            )
        wanted = {name: value.shape for name, value in self.network.state_dict().items()}
        unlike = [name for name in weights if name in wanted and weights[name].shape != wanted[name]]
        if unlike:
            name = unlike[0]
            raise ModelError(
                f"'{entry.card.id}' is of another size: '{name}' has {_sides(weights[name])} values, this recipe's network "
                f"{_sides(self.network.state_dict()[name])}; make [network] the same in both",
                code="bad-init",
            )
        fitting = take_fitting(self.network, weights)
        self.started = True
        self.context.notes.append(
            f"started from '{entry.card.id}' version {entry.card.version} (digest {entry.digest[:12]})"
        )
        return f"{fitting} of {len(wanted)} weights start from '{model}'"

    def _wanted(self, name: str) -> bool:
        """Whether a weight of that name is taken over: without centres there is no truncation, and none of theirs."""
        return name != "centres" or len(self.network.centres) > 0

    def set_up(self) -> None:
        """Refuse to start without --init."""
        if len(self.network.centres) and not self.started and not self.context.resumed:
            raise UsageError(
                "this recipe steers a prior: give its package with --init, or set network.centres to 0 to train without one"
            )
        super().set_up()

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam with two rates; the decoder is frozen at a rate of 0."""
        steering = self.plan.steering
        self.network.decoder.requires_grad_(steering.prior_rate > 0)
        decoder = [p for p in self.network.decoder.parameters() if p.requires_grad]
        others = {id(p) for p in self.network.decoder.parameters()}
        rest = [p for p in self.network.parameters() if id(p) not in others]
        groups: list[dict[str, Any]] = [{"params": rest, "ratio": 1.0}]
        if decoder:
            groups.append({"params": decoder, "ratio": steering.prior_rate})
        return {"adam": torch.optim.Adam(groups, lr=self.plan.optimisation.learning_rate, betas=steering.betas)}

    def stream(self, pack: Pack, seed: int, start: int) -> Any:
        """Low and high, whole slices of the network's size."""
        patch, size = self.plan.data.patch, self.network.size
        high = tuple(side * factor for side, factor in zip(patch, self.network.factors, strict=True))
        if high != (size, size):
            raise UsageError(
                f"recipe: data.patch is {list(patch)}, which makes slices of {high[0]} x {high[1]} pixels; the network takes "
                f"{size} x {size}"
            )
        batch = self.plan.optimisation.batch
        return DeviceStream(pack, self.plan.data, self.network.factors, batch, self.device, seed, start)

    def training_step(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """Eq. 15."""
        low, high = batch
        answer = self.parts["network"](bicubic(low, high.shape[-2:])).float()
        losses = {"l1": functional.l1_loss(answer, high)}
        if self.features is not None:
            losses["content"], losses["style"] = self.features(answer, high)
        self.update("adam", torch.stack([self.plan.weight(name) * loss for name, loss in losses.items()]).sum())
        return {name: loss.detach() for name, loss in losses.items()}

    def validator(self, held_out: Pack) -> Validator:
        """PSNR of whole scans."""
        return EngineValidator(self.plan, held_out, self.context.out, self.device, self.context.report)


def feature_network(steering: SteeringSpec) -> nn.Module:
    """What content and style are compared by; `MissingRequirement` if its weights are not here."""
    if steering.features == "tissue":
        return tissue_features()
    return VGG19Features(read_vgg19(steering.vgg, steering.vgg_digest, CONVOLUTIONS))


def _sides(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "1"


METHOD = WithPrior
