"""What every way to train has in common: `Method`, which `fit` drives, and what `fit` tells it, `Context`.

A method is one file in `training/methods`. It says which networks there are, what they learn from and what one step does; `fit`
owns the clock, checkpoints and exact resume, the moving average, curves, validation, several processes and the model package.
The smallest one, a network that minimises the squared error:

    class Squared(Method):
        losses = ("l2",)  # the names in a recipe's [loss]; the first has weight 1 where there is no [loss]

        def stream(self, pack, seed, start):
            return pair_stream(pack, self.plan.data, self.networks["network"].factors, batch=self.plan.optimisation.batch,
                               device=self.device, seed=seed, start=start)

        def training_step(self, batch):
            low, high = batch  # (B, 1, h, w), (B, 1, H, W), on the device
            loss = functional.mse_loss(self.parts["network"](low), high)
            self.update("adam", self.plan.weight("l2") * loss)
            return {"l2": loss}

        def validator(self, held_out):
            return EngineValidator(self.plan, held_out, self.context.out, self.device, self.context.report)

    METHOD = Squared

More than one network and one optimiser (a GAN; see `methods/adversarial.py`): return them from `build_networks` and
`build_optimisers`, call `update` for each side in `training_step`, and name the network that is averaged and shipped in `exported`.
A frozen teacher: load it in `prepare`, `self.teacher = self.freeze(load_network(find_model(ID)))`; it is in no checkpoint.
A stage that starts from another package: `start_from`, which `--init` calls. Tables of its own in a recipe: a subclass of
`Recipe` in `recipe`. Rates of its own: `set_rates`. Something else than a model package at the end: `export`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from .. import networks
from ..errors import ModelError, UsageError
from ..models import find_model, load_network
from .checkpoint import MovingAverage, take_fitting
from .pack import Pack
from .recipes import Optimisation, Recipe

HALVINGS = (0.5, 0.75, 0.875)  # RDST, section 4.3: 10k, 15k and 17.5k of 20k steps

Report = Callable[[str], None]
Validator = Callable[
    [nn.Module, int], dict[str, float]
]  # (averaged network in evaluation mode, step) -> scores by name


@dataclass
class Context:
    """What a method is told of the training it is part of.

    out: the training's folder. resumed: whether a checkpoint will be loaded. notes: go into the card's notes on the training.
    keep: writes what would be shipped now into the folder `out`/NAME.
    """

    fabric: Fabric
    out: Path
    report: Report = print
    seed: int = 0
    resumed: bool = False
    notes: list[str] = field(default_factory=list)
    keep: Callable[[str], None] = lambda name: None


class Method:
    """How networks are trained; see the module's text. `fit` calls its methods in the order in which they stand here.

    recipe: the kind of recipe. losses: the names that [loss] may have; the first, with weight 1, where a recipe has no [loss].
    exported: the network that is averaged, validated and shipped. channels_last: the networks' memory format unless a recipe says
    another. best: the validation's score that is to be high. ships_a_model: whether there is a [card] and a package is made.
    """

    recipe: ClassVar[type[Recipe]] = Recipe
    losses: ClassVar[tuple[str, ...]] = ("l1",)
    exported: ClassVar[str] = "network"
    channels_last: ClassVar[bool] = False
    best: ClassVar[str] = "psnr"
    ships_a_model: ClassVar[bool] = True

    @classmethod
    def completed(cls, plan: Any) -> Any:
        """`plan` with what it takes from elsewhere, such as another model's hyper-parameters, written out."""
        return plan

    def __init__(self, plan: Any, context: Context) -> None:
        self.plan, self.context, self.fabric = plan, context, context.fabric
        self.device: torch.device = context.fabric.device
        self.networks = nn.ModuleDict(self.build_networks())
        self.parts: dict[
            str, Any
        ] = {}  # `networks` as Fabric wraps them: autocast, several processes, perhaps compiled
        self.prepare()

    def build_networks(self) -> dict[str, nn.Module]:
        """Every network that learns, on the CPU; the recipe's architecture unless a method has more."""
        return {self.exported: networks.build(self.plan.architecture, self.plan.network)}

    def prepare(self) -> None:
        """Load first weights, teachers and losses; `networks` are there, still on the CPU."""

    def start_from(self, model: str) -> str:
        """Take over weights of `model`, an id or file given as --init, and say in words which."""
        entry = find_model(model)
        weights = load_network(entry, for_inference=False).state_dict()
        network = self.networks[self.exported]
        fitting = take_fitting(network, weights)
        if not fitting:
            raise ModelError(
                f"no weight of '{model}' fits this recipe's network; start without --init", code="bad-init"
            )
        there, here = entry.card.hyperparameters, self.plan.network
        differing = sorted(name for name in {*there, *here} if there.get(name) != here.get(name))
        beside = f", whose network differs in {', '.join(differing)}" if differing else ""
        return f"{fitting} of {len(network.state_dict())} weights start from '{model}'{beside}"

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """By name, over parameters of `networks`, which are on the device by now."""
        learning = [p for p in self.networks.parameters() if p.requires_grad]
        fused = True if self.device.type == "cuda" else None
        return {"adam": torch.optim.Adam(learning, lr=self.plan.optimisation.learning_rate, fused=fused)}

    def set_up(self) -> None:
        """Move networks to the device, make the optimisers. Called by `fit`, before a checkpoint is loaded."""
        last = self.plan.optimisation.channels_last
        last = self.channels_last if last is None else last
        self.networks.to(self.device, memory_format=torch.channels_last if last else torch.preserve_format)  # type: ignore[call-overload]
        self.optimisers = self.build_optimisers()
        self.average = MovingAverage(self.networks[self.exported], self.plan.optimisation.ema)

    def wrap(self) -> None:
        """Hand networks and optimisers to Fabric, once weights are loaded. Called by `fit`."""
        compiles = self.plan.optimisation.compile
        for name, network in self.networks.items():
            self.parts[name] = self.fabric.setup_module(torch.compile(network) if compiles else network)  # type: ignore[arg-type]
        self._wrapped: dict[str, Any] = {
            name: self.fabric.setup_optimizers(one) for name, one in self.optimisers.items()
        }

    def stream(self, pack: Pack, seed: int, start: int) -> Any:
        """An endless source of training data, a function of `seed` and position: `start` samples have been drawn before.

        An `IterableDataset` of samples, of which `fit` makes batches, or any other iterable of batches of tensors.
        """
        raise NotImplementedError

    def batches(self, batches: Iterable[Any], step: int) -> Iterable[Any]:
        """What is trained on, made of `batches`. If it has an attribute `drawn`, that says how many samples it has drawn."""
        return batches

    def validator(self, held_out: Pack) -> Validator | None:
        """What scores the averaged network, in the first process only; None to validate nothing."""
        return None

    def set_rates(self, step: int, done: float) -> None:
        """Set the learning rates for this step; `done` is the part of the training behind us, 0 to 1."""
        rate = scheduled_rate(self.plan.optimisation, step, done)
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("ratio", 1.0)

    def training_step(self, batch: Sequence[Tensor]) -> dict[str, Tensor] | None:
        """Learn from one batch, on the device: `update` once or more. Losses by name, for the curves; None if nothing was learnt.

        What is random in it may use torch's generators: `fit` seeds them by step and process.
        """
        raise NotImplementedError

    def update(self, optimiser: str, loss: Tensor) -> None:
        """One step of an optimiser down the gradient of `loss`, clipped as the recipe says."""
        self.networks.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if self.plan.optimisation.clip:
            groups = self.optimisers[optimiser].param_groups
            learning = [p for group in groups for p in group["params"] if p.grad is not None]
            nn.utils.clip_grad_norm_(learning, self.plan.optimisation.clip)
        self._wrapped[optimiser].step()

    def export(self, folder: Path) -> Path | None:
        """Write what is shipped and return its path; None for the model package that `fit` makes."""
        return None

    def freeze(self, network: nn.Module) -> nn.Module:
        """`network` on the device, in evaluation mode, without gradients of its weights."""
        return network.to(self.device).eval().requires_grad_(False)


def scheduled_rate(plan: Optimisation, step: int, done: float) -> float:
    """The learning rate of [optimisation] for this step; `done` is the part of the training behind us."""
    rate = plan.learning_rate
    if plan.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    if plan.schedule == "halving":
        rate *= 0.5 ** sum(done >= part for part in HALVINGS)
    if step < plan.warm_up:
        rate *= (step + 1) / plan.warm_up
    return rate


def of_kind(network: nn.Module, kind: type[Any], plan: Recipe) -> Any:
    """`network`, if it is a `kind`. Raises `UsageError` naming the method and the recipe's architecture."""
    if not isinstance(network, kind):
        raise UsageError(
            f"the method '{plan.method}' trains a {kind.__name__}, not the architecture '{plan.architecture}'"
        )
    return network
