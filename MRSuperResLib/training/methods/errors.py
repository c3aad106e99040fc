"""Where a translator errs: an error network learns the scale of its error from its answers beside the truth, at random pixels.

The translator has seen the real people that it was trained on. Their pairs are disturbed as in its own training, and beside them
are pairs that it has not seen: heads made from label maps by signal equations, and lesions, consistently in source and target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UsageError
from ...inference.uncertainty import DEVIATION, name_with_version
from ...models import find_model, load_network
from ...networks.error_scale import ErrorScale
from ...networks.translation import CONTRASTS
from ..data.translation import DisturbanceSpec
from ..method import Method, Validator, of_kind
from ..pack import Pack
from ..recipes import Recipe
from ..streams.errors import AnswerShelf, ErrorStream, ErrorStreamSpec

KEPT = "answers.npz"  # beside the pack: a translator's answers take minutes
HELD_OUT_KEPT = "held-out-answers.npz"
HELD_OUT_CROPS = 64
HELD_OUT_BATCHES = 8
VALIDATION_SEED = 20
INTERVAL = 1.645  # deviations on either side


@dataclass(frozen=True)
class ErrorsRecipe(Recipe):
    """A `Recipe` with [stream] and [disturbance]. translator: whose errors are learnt, id or file."""

    translator: str = ""
    disturbance: DisturbanceSpec = field(default_factory=DisturbanceSpec)
    stream: ErrorStreamSpec = field(default_factory=ErrorStreamSpec)


class Errors(Method):
    """One network, an answer -> logarithm of the mean absolute error, by the likelihood of a Laplace distribution ("laplace").

    "beyond": the mean square of what the network adds to the line in the samples' deviation. Errors differ from person to person,
    and of few people it would learn too much.
    """

    recipe = ErrorsRecipe
    losses = ("laplace", "beyond")
    best = "likelihood"

    @classmethod
    def completed(cls, plan: ErrorsRecipe) -> ErrorsRecipe:
        """With the translator's id and version in the card."""
        card = find_model(plan.translator).card
        if card.task != "translate":
            raise UsageError(f"recipe: '{card.id}' does not translate, so it has no errors of the kind to learn")
        return replace(plan, card={**plan.card, "judges": name_with_version(card)})

    def prepare(self) -> None:
        """The translator, which does not learn."""
        entry = find_model(self.plan.translator)
        self.translator, self.digest = load_network(entry), entry.digest
        network: ErrorScale = of_kind(self.networks["network"], ErrorScale, self.plan)
        known = tuple(str(name) for name in entry.card.hyperparameters.get("contrasts", CONTRASTS))
        if network.contrasts != known:
            raise UsageError(
                f"recipe: network.contrasts are {', '.join(network.contrasts)}, the translator's are {', '.join(known)}"
            )

    def stream(self, pack: Pack, seed: int, start: int) -> Any:
        """Features, errors, weights and contrasts of pixels."""
        shelf = self.shelf(pack, self.plan.stream, 0, KEPT)
        return ErrorStream(shelf, self.plan.optimisation.batch, self.device, seed, start)

    def shelf(self, pack: Pack, spec: ErrorStreamSpec, seed: int, name: str) -> AnswerShelf:
        """The translator's answers on `pack`, kept beside it as `name`."""
        plan = self.plan
        return AnswerShelf(
            pack,
            plan.data.sources,
            plan.data.patch,
            spec,
            plan.disturbance,
            self.translator.to(self.device),
            self.digest,
            self.device,
            seed,
            pack.path.with_name(name),
            self.context.report,
        )

    def training_step(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """One step."""
        found, error, weight, a, b = batch
        line, beyond = self.parts["network"](found, a, b).float().T
        losses = {
            "laplace": laplace_loss(line + beyond, error, weight),
            "beyond": (weight * beyond**2).sum() / weight.sum(),
        }
        self.update("adam", torch.stack([self.plan.weight(name) * value for name, value in losses.items()]).sum())
        return losses

    def validator(self, held_out: Pack) -> Validator | None:
        """On held-out answers: the likelihood, and the part of the head that 90 % intervals hold."""
        if not self.plan.data.sources:
            return None
        spec = replace(self.plan.stream, crops=HELD_OUT_CROPS)
        shelf = self.shelf(held_out, spec, VALIDATION_SEED, HELD_OUT_KEPT)
        stream = ErrorStream(shelf, self.plan.optimisation.batch, self.device, VALIDATION_SEED)
        batches = [stream.draw(number) for number in range(HELD_OUT_BATCHES)]

        def scores(network: nn.Module, step: int) -> dict[str, float]:
            loss = held = counted = 0.0
            for found, error, weight, a, b in batches:
                logarithm = network(found, a, b).float().sum(1)
                loss += float(laplace_loss(logarithm, error, weight)) / len(batches)
                head = weight == 1
                held += float((error <= INTERVAL * DEVIATION * logarithm.exp())[head].sum())
                counted += float(head.sum())
            scored = {"likelihood": -loss, "coverage": held / max(1.0, counted)}
            self.context.report("  held out: " + ", ".join(f"{name} {value:.4f}" for name, value in scored.items()))
            return scored

        return scores


def laplace_loss(logarithm: Tensor, error: Tensor, weight: Tensor) -> Tensor:
    """Negative logarithm of the likelihood of `error`, absolute, where its mean is exp(`logarithm`); without log 2."""
    return (weight * (logarithm + error * torch.exp(-logarithm))).sum() / weight.sum()


METHOD = Errors
