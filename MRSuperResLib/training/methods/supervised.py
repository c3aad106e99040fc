"""Single-image super-resolution by the mean absolute or squared error: RDST's first stage (section 4.3) and the start of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from ...documents import BadDocument
from ..data.single import pair_stream
from ..method import Method, Validator
from ..pack import Pack
from ..recipes import Recipe
from ..validation import EngineValidator


@dataclass(frozen=True)
class SuperResolutionRecipe(Recipe):
    """A `Recipe` whose images are made coarse."""

    def __post_init__(self) -> None:
        if not self.data.degradation.kinds and self.data.device is None:
            raise BadDocument("data.degradation is missing: super-resolution learns from coarsened images")


class Supervised(Method):
    """One network, (B, 1, h, w) -> (B, 1, H, W), and its distance from the truth."""

    recipe = SuperResolutionRecipe
    losses = ("l1", "l2")

    def stream(self, pack: Pack, seed: int, start: int) -> Any:
        """Low and high."""
        factors = self.networks[self.exported].factors
        batch = self.plan.optimisation.batch
        return pair_stream(pack, self.plan.data, factors, batch=batch, device=self.device, seed=seed, start=start)  # type: ignore[arg-type]

    def training_step(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """One step on L1, L2 or both."""
        low, high = batch
        answer = self.parts["network"](low)
        distances = {"l1": functional.l1_loss, "l2": functional.mse_loss}
        losses = {name: distances[name](answer, high) for name, weight in self.plan.loss.items() if weight}
        self.update("adam", sum(self.plan.weight(name) * loss for name, loss in losses.items()))  # type: ignore[arg-type]
        return losses

    def validator(self, held_out: Pack) -> Validator:
        """PSNR of whole scans."""
        return EngineValidator(self.plan, held_out, self.context.out, self.device, self.context.report)


METHOD = Supervised
