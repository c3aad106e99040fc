"""Lesion detection: where a slice shows what healthy brains do not, learnt from lesions put into real and synthetic slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...networks.lesion_detector import LesionDetector
from ..method import Method, Validator, of_kind
from ..pack import Pack
from ..recipes import Recipe
from ..streams.flags import FlagStream, FlagStreamSpec

COARSE = 8  # pixels: blocks in which a small lesion counts as much as a large one
VALIDATED = 6  # batches
VALIDATION_SEED = 20


@dataclass(frozen=True)
class FlagsRecipe(Recipe):
    """A `Recipe` with [stream]."""

    stream: FlagStreamSpec = field(default_factory=FlagStreamSpec)


class Flags(Method):
    """One network, slice and contrast -> logits, on cross-entropy of pixels ("pixel") and blocks ("block") and on "dice"; and on
    that of the brain, for a network that tells where it is ("brain")."""

    recipe = FlagsRecipe
    losses = ("pixel", "block", "dice", "brain")
    channels_last = True
    best = "balance"

    def prepare(self) -> None:
        """The detector's contrasts."""
        self.contrasts = of_kind(self.networks["network"], LesionDetector, self.plan).contrasts

    def stream(self, pack: Pack, seed: int, start: int) -> Any:
        """Slices, lesions, contrasts and weights."""
        plan = self.plan
        return FlagStream(
            pack, plan.data.sources, plan.stream, self.contrasts, plan.optimisation.batch, self.device, seed, start
        )

    def training_step(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """One step."""
        image, lesion, contrast, weight, brain, known = batch
        logits = self.parts["network"](image, contrast).float()
        found = detection_losses(logits[:, :1], lesion, weight)
        if logits.shape[1] > 1:
            found["brain"] = functional.binary_cross_entropy_with_logits(logits[:, 1:], brain, known)
        self.update("adam", torch.stack([self.plan.weight(name) * value for name, value in found.items()]).sum())
        return found

    def validator(self, held_out: Pack) -> Validator | None:
        """On lesions in held-out scans: pixels found, healthy pixels flagged, and their difference, "balance"; and pixels that are
        rightly told to be brain or not."""
        sources = tuple(source for source in self.plan.data.sources if held_out.select(source.match))
        plan = self.plan
        stream = FlagStream(
            held_out, sources, plan.stream, self.contrasts, plan.optimisation.batch, self.device, VALIDATION_SEED
        )
        batches = [stream.draw(number) for number in range(VALIDATED)]

        def scores(network: nn.Module, step: int) -> dict[str, float]:
            hits = lesions = false = healthy = right = asked = 0.0
            for image, lesion, contrast, weight, brain, known in batches:
                logits = network(image, contrast)
                flagged = (logits[:, :1] > 0).float() * (weight > 0)
                right += float((((logits[:, -1:] > 0) == (brain > 0.5)) * known).sum())
                asked += float(known.expand_as(brain).sum())
                head = (image[:, :1] > 0.1) * (weight > 0)
                hits += float((flagged * lesion).sum())
                lesions += float((lesion * (weight > 0)).sum())
                false += float((flagged * (1 - lesion) * head).sum())
                healthy += float(((1 - lesion) * head).sum())
            found = {"found": hits / max(1.0, lesions), "false": false / max(1.0, healthy)}
            if logits.shape[1] > 1:
                found["brain"] = right / max(1.0, asked)
            self.context.report("  held out: " + ", ".join(f"{name} {value:.4f}" for name, value in found.items()))
            return {**found, "balance": found["found"] - 5 * found["false"]}

        return scores


def detection_losses(logits: Tensor, lesion: Tensor, weight: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of pixels, that of the largest logit in blocks, and 1 - Dice of images that show lesions; all (B, 1, H, W).

    weight: of pixels, 0 where nothing is asked; more than 1 in small lesions, whose blocks count as much more.
    """
    asked = (weight > 0).float()
    pixel = functional.binary_cross_entropy_with_logits(logits, lesion, weight)
    block = functional.binary_cross_entropy_with_logits(
        functional.max_pool2d(logits.masked_fill(weight == 0, -20.0), COARSE),
        functional.max_pool2d(lesion * asked, COARSE),
        functional.max_pool2d(lesion * weight, COARSE).clamp_min(1.0),
    )
    likely, true = logits.sigmoid() * asked, lesion * asked
    overlap = 2 * (likely * true).sum((1, 2, 3)) / (likely + true).sum((1, 2, 3)).add(1.0)
    shows = (true.sum((1, 2, 3)) > 0).float()
    return {"pixel": pixel, "block": block, "dice": ((1 - overlap) * shows).sum() / shows.sum().clamp_min(1.0)}


METHOD = Flags
