"""Reference-guided super-resolution (FASR-Net): L1 first, then eq. 25 with perceptual and Fourier losses; or around a frozen base.

A resumed run draws the pairs that the interrupted one would have; with `guidance.reuse` it begins with new ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...documents import BadDocument
from ...errors import UsageError
from ...losses.fourier import FourierLoss
from ...losses.perceptual import PerceptualLoss, read_vgg19
from ...losses.tissue import extractor_weights, tissue_features
from ...models import ModelEntry, find_model, load_network
from ...networks.fasr import FASR, TextureExtractor
from ...networks.parts.projection import bicubic
from ..card import with_notes
from ..data.crops import SourceSpec
from ..data.guided import Guided, GuidedPairs, ReferenceSpec, Reservoir
from ..method import Method, Report, Validator, of_kind
from ..pack import Pack
from ..recipes import load_recipe
from ..report import psnr
from .supervised import SuperResolutionRecipe

FEATURES = ("vgg", "tissue")
VALIDATION_PAIRS = 32
VALIDATION_SEED = 20
LEAST_ERROR = 1e-6  # mean squared; below it, 60 dB, there is nothing to gain


@dataclass(frozen=True)
class GuidanceSpec(ReferenceSpec):
    """What happens to references, and how the paper's two stages are cut.

    coarse: the part of the training with L1 alone, before the other losses (10 of 60 epochs in the paper). rest_rate: learning rate
    of all but the texture extractor over that of the extractor (0.1 in the paper). vgg, vgg_digest: a local file of VGG-19's
    ImageNet weights, and its SHA-256, for the extractor and the perceptual loss; "" to start the extractor from what it learned
    when telling tissues apart (`losses.tissue`). features: what the perceptual loss compares, "vgg" or, ours, "tissue" (our
    segmentation network).
    base: id or file of a single-image model to build in, frozen (see `networks.fasr`); "" for none. reuse: how many steps a drawn
    pair serves on average, flipped anew each time; 1 draws every pair afresh. A base's answers cost more than a step does.
    """

    coarse: float = 1.0
    rest_rate: float = 1.0
    vgg: str = ""
    vgg_digest: str = ""
    features: str = "vgg"
    base: str = ""
    reuse: int = 1


@dataclass(frozen=True)
class GuidedRecipe(SuperResolutionRecipe):
    """A `Recipe` with [guidance]."""

    guidance: GuidanceSpec = field(default_factory=GuidanceSpec)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guidance.features not in FEATURES:
            raise BadDocument(f"guidance.features is '{self.guidance.features}', expected 'vgg' or 'tissue'")


class GuidedLoss(nn.Module):
    """Eq. 25 with a weight for each term; perceptual and Fourier join after the coarse stage.

    Ours: "l2", the mean squared error, because what a reference adds is rare and large, at edges, where L1 asks for little of it;
    and "psnr", the mean over images of -PSNR / 10, which is L2 with images that are easy counting as much as hard ones.
    """

    def __init__(self, weights: dict[str, float], extractor: nn.Module | None = None) -> None:
        super().__init__()
        self.weights = weights
        self.fourier = FourierLoss()
        if weights.get("perceptual") and extractor is None:
            raise UsageError(
                "the perceptual loss needs a feature network: give guidance.vgg, a file of VGG-19's weights, or set "
                "guidance.features to 'tissue'"
            )
        self.perceptual = PerceptualLoss(extractor) if weights.get("perceptual") and extractor is not None else None

    def forward(self, answer: Tensor, truth: Tensor, coarse: bool) -> Tensor:
        """Both (B, 1, H, W), float32."""
        difference = answer - truth
        total = self.weights.get("l1", 0.0) * difference.abs().mean()
        if self.weights.get("l2"):
            total = total + self.weights["l2"] * difference.square().mean()
        if self.weights.get("psnr"):
            errors = difference.square().mean((1, 2, 3)).clamp_min(LEAST_ERROR)
            total = total + self.weights["psnr"] * errors.log10().mean()
        if coarse:
            return total
        if self.weights.get("fourier"):
            total = total + self.weights["fourier"] * self.fourier(answer, truth)
        if self.perceptual is not None:
            total = total + self.weights["perceptual"] * self.perceptual(answer, truth)
        return total


class GuidedMethod(Method):
    """FASR-Net, `net(low, reference, valid, start)`; see `networks.fasr`."""

    recipe = GuidedRecipe
    losses = ("l1", "l2", "psnr", "perceptual", "fourier")
    channels_last = True  # a third faster on CPUs

    @classmethod
    def completed(cls, plan: GuidedRecipe) -> GuidedRecipe:
        """`plan` with the base that [guidance] names written out in [network], named in the card's notes, and tiled as it needs."""
        if not plan.guidance.base:
            return plan
        entry = find_model(plan.guidance.base)
        base = {"architecture": entry.card.architecture, "hyperparameters": dict(entry.card.hyperparameters)}
        built_in = f"{entry.card.id} version {entry.card.version} (digest {entry.digest[:12]}) is built in, frozen"
        needs = dict(plan.card.get("requirements", {}))
        needs["multiple_of"] = math.lcm(needs.get("multiple_of", 1), entry.card.requirements.multiple_of)
        card = with_notes({**plan.card, "requirements": needs}, [built_in])
        return replace(plan, network={**plan.network, "base": base}, card=card)

    def prepare(self) -> None:
        """Weights of the texture extractor and of the base, and the losses."""
        guidance = self.plan.guidance
        self.network: FASR = of_kind(self.networks["network"], FASR, self.plan)
        features, self.origin = started(self.network, guidance)
        self.context.notes.append(f"texture extractor from {self.origin}")
        self.loss = GuidedLoss(self.plan.loss, features).to(self.device)
        self._load_base()

    def start_from(self, model: str) -> str:
        """All but the base, which stays the recipe's."""
        said = super().start_from(model)
        self.context.notes[:] = [f"texture extractor from {find_model(model).card.id}"]
        self._load_base()
        return said

    def _load_base(self) -> None:
        if self.plan.guidance.base:
            weights = load_network(find_model(self.plan.guidance.base), for_inference=False).state_dict()
            self.network.base.load_state_dict(weights)  # type: ignore[union-attr]

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam with two rates."""
        groups = parameter_groups(self.network, self.plan.guidance.rest_rate)
        return {"adam": torch.optim.Adam(groups, lr=self.plan.optimisation.learning_rate)}

    def stream(self, pack: Pack, seed: int, start: int) -> Any:
        """low, high, reference, valid."""
        return GuidedPairs(pack, self.plan.data, self.plan.guidance, self.network.factors, seed=seed, start=start)

    def batches(self, batches: Iterable[Any], step: int) -> Iterable[Any]:
        """Each pair several times, with what the base makes of it, where the recipe says so."""
        reuse = self.plan.guidance.reuse
        return Reservoir(batches, self.network, self.fabric, reuse, self.context.seed + step) if reuse > 1 else batches

    def set_rates(self, step: int, done: float) -> None:
        """As [optimisation] says; and whether this step is of the coarse stage."""
        super().set_rates(step, done)
        self.coarse = done < self.plan.guidance.coarse

    def training_step(self, batch: Sequence[Tensor]) -> dict[str, Tensor] | None:
        """One step; none if there was no reference in the whole batch, and so the base alone answered."""
        low, high, reference, valid, *start = batch
        answer = self.parts["network"](low, reference, valid, start or None)
        loss = self.loss(answer.float(), high, self.coarse)
        if not loss.requires_grad:
            if self.fabric.world_size == 1:
                return None
            # Other processes may have had one, and wait for gradients.
            loss = loss + sum((0 * weights).sum() for weights in self.network.parameters() if weights.requires_grad)
        self.update("adam", loss)
        return {"loss": loss, **({"base_l1": (start[0] - high).abs().mean()} if start else {})}

    def validator(self, held_out: Pack) -> Validator | None:
        """PSNR with the right reference, with noise and with none."""
        sources = tuple(source for source in self.plan.data.sources if _has_pairs(held_out, source))
        if not sources:
            self.context.report("no held-out subject has two contrasts: nothing is validated")
            return None
        return GuidedValidator(self.plan, held_out, sources, self.network.factors, self.device, self.context.report)


def started(network: FASR, guidance: GuidanceSpec) -> tuple[nn.Module | None, str]:
    """The network of the perceptual loss, None without one, and what `network`'s texture extractor starts from, in words.

    Raises what `read_vgg19` raises, and `UsageError` if VGG-19 does not fit `network`.
    """
    features: nn.Module | None = tissue_features() if guidance.features == "tissue" else None
    if not guidance.vgg:
        learned = extractor_weights(network.extractor)
        if learned is None:
            return features, "random weights"
        network.extractor.load_state_dict(learned)
        return features, "tissue segmentation of images made from label maps"
    weights = read_vgg19(guidance.vgg, guidance.vgg_digest)
    try:
        network.extractor.load_vgg(weights)
    except ValueError as error:
        raise UsageError(f"guidance.vgg is for the published size: {error}; leave it out for another size") from error
    if features is None:
        features = TextureExtractor()
        features.load_vgg(weights)
    return features, f"VGG-19, SHA-256 {guidance.vgg_digest.lower()}"


def parameter_groups(network: nn.Module, rest_rate: float) -> list[dict[str, object]]:
    """The texture extractor at the recipe's rate and the rest at `rest_rate` of it, in the order of the network's parameters.

    What is frozen is left out; it comes last in the network, so that the optimiser counts as the network does.
    """
    named = [(name, value) for name, value in network.named_parameters() if value.requires_grad]
    extractor = [value for name, value in named if name.startswith("extractor.")]
    rest = [value for name, value in named if not name.startswith("extractor.")]
    if not extractor or not all(a is b for a, (_, b) in zip([*extractor, *rest], named, strict=True)):
        raise UsageError("this recipe's network has no texture extractor in front: a guided network is expected")
    return [{"params": extractor, "ratio": 1.0}, {"params": rest, "ratio": rest_rate}]


class GuidedValidator:
    """PSNR of the averaged network on held-out pairs with the reference as it is, as noise, and without one; all on one set."""

    def __init__(
        self,
        plan: GuidedRecipe,
        held_out: Pack,
        sources: tuple[SourceSpec, ...],
        factors: tuple[int, int],
        device: torch.device,
        report: Report,
    ) -> None:
        self.report = report
        self.starts: dict[str, tuple[Tensor, Tensor]] = {}
        spec = plan.data.without_augmentation(sources)
        stream = GuidedPairs(held_out, spec, plan.guidance, factors, seed=VALIDATION_SEED, clean=True)
        pairs = zip(*islice(stream, VALIDATION_PAIRS), strict=True)
        self.pairs: Guided = tuple(torch.stack(images).to(device) for images in pairs)  # type: ignore[assignment]

    @torch.inference_mode()
    def __call__(self, network: nn.Module, step: int = 0) -> dict[str, float]:
        """psnr, psnr_noise, psnr_alone and psnr_bicubic, dB for a range of 1."""
        assert isinstance(network, FASR)
        low, high, reference, valid = self.pairs
        device = low.device
        noise = torch.rand(reference.shape, generator=torch.Generator().manual_seed(VALIDATION_SEED)).to(device)
        scores = {}
        with torch.autocast(device.type, dtype=torch.bfloat16):
            for name, image in {"psnr": reference, "psnr_noise": noise}.items():
                if name not in self.starts:  # no trained weight changes them
                    self.starts[name] = network.starts(low, image, valid)
                scores[name] = psnr(network(low, image, valid, self.starts[name]).float(), high)
            scores["psnr_alone"] = psnr(
                network(low, reference, torch.zeros_like(valid), (self.starts["psnr"][0], torch.zeros_like(high))), high
            )
        with torch.autocast(device.type, enabled=False):
            scores["psnr_bicubic"] = psnr(bicubic(low, high.shape[-2:]), high)
        self.report(
            "  held out, dB: " + ", ".join(f"{name[5:] or 'guided'} {value:.2f}" for name, value in scores.items())
        )
        return scores


def score_package(entry: ModelEntry, recipe: str | Path, held_out: Pack, report: Report = print) -> dict[str, float]:
    """What `GuidedValidator` finds for a model package trained by `recipe`."""
    plan = GuidedMethod.completed(load_recipe(recipe)[0])
    network = load_network(entry, for_inference=False)
    assert isinstance(network, FASR)
    sources = tuple(source for source in plan.data.sources if _has_pairs(held_out, source))
    return GuidedValidator(plan, held_out, sources, network.factors, torch.device("cpu"), report)(network)


def _has_pairs(pack: Pack, source: SourceSpec) -> bool:
    subjects = [entry.subject for entry in pack.select(source.match) if not entry.labels]
    return len(subjects) > len(set(subjects))


METHOD = GuidedMethod
