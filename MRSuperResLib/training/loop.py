"""The training loop of single-image networks: Lightning Fabric, Adam, L1, moving average of weights, exact resume.

A checkpoint is a safetensors file (weights, moving average, Adam's moments) whose metadata holds the counters, so nothing is
ever unpickled. The stream of pairs is a function of seed and position: a resumed run draws what the interrupted one would have.
"""

from __future__ import annotations

import csv
import datetime
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from .. import evaluation, networks
from ..documents import BadDocument, decode
from ..errors import ModelError, OutputError, UsageError
from ..inference import super_resolve
from ..inference.device import choose_device
from ..inference.options import Options
from ..models import ModelCard, ModelEntry, find_model, load_network, save_model
from ..volume import resample
from .data import SlicePairs
from .pack import Pack, fingerprint, pack
from .recipes import Recipe, load_recipe

Report = Callable[[str], None]
LAST = "last.safetensors"
BEST = "best.safetensors"
CURVES = "curves.csv"
CHECKPOINT_SECONDS = 120.0
CURVE_STEPS = 25
AGREEMENT_STEPS = 10  # after which several processes look at the first one's clock again; a look makes GPUs wait


@dataclass
class Progress:
    """Where a training stands; saved in every checkpoint. samples: pairs drawn so far; minutes: spent in all runs together."""

    step: int = 0
    samples: int = 0
    minutes: float = 0.0
    best: float = -math.inf
    machine: str = ""


class MovingAverage:
    """Exponential moving average of a network's weights; short runs start with a faster one, so it never lags by much."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone().float() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after step number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            self.weights[name].lerp_(value.float(), 1.0 - decay)


class Run:
    """One training under way, as every loop has it: its folder, its clock, its checkpoints and what it tells.

    Several processes, one a GPU, train one network, each on pairs of its own. The first one's clock is everyone's, and it alone
    writes and tells. What can be wrong is complained of at once.
    """

    def __init__(
        self,
        recipe: str | Path,
        plan: Recipe,
        text: str,
        data: str | Path,
        out: str | Path,
        *,
        minutes: float,
        resume: bool,
        device: str,
        seed: int,
        report: Report,
    ) -> None:
        """`plan` and `text`: what `recipe` says; the other arguments are those of `train`."""
        if not 0 < minutes < math.inf:
            raise UsageError(f"minutes is {minutes:g}, expected a number above 0")
        self.recipe, self.plan, self.text = recipe, plan, text
        self.data, self.out = Path(data), Path(out)
        self.minutes, self.resumes = minutes, resume
        self.card_fields, self.card = checked_card(plan)
        make_folder(self.out, resume)
        self.fabric = make_fabric(device)
        self.fabric.seed_everything(seed)
        self.is_first = self.fabric.is_global_zero
        self.report: Report = report if self.is_first else lambda line: None
        self.progress = Progress(machine=machine_name(self.fabric))

    def track(self, network: nn.Module, average: MovingAverage, optimisers: Any) -> None:
        """What checkpoints hold, which is loaded from the last one if this run resumes; before Fabric sets it up."""
        self.network, self.average, self.optimisers = network, average, optimisers
        if self.resumes:
            load_checkpoint(self.out / LAST, network, average, optimisers, self.progress)
            self.report(f"resumed at step {self.progress.step}, {self.progress.minutes:.1f} minutes")

    def pack(self) -> Pack:
        """The packed training volumes; one process packs them, the others find it done."""
        with self.fabric.rank_zero_first():
            packed = training_pack(self.data, self.out, report=self.report)
        return packed

    def batches(self, pairs: IterableDataset[Any], workers: int) -> DataLoader[Any]:
        """Of the recipe's size."""
        return DataLoader(
            pairs,
            batch_size=self.plan.optimisation.batch,
            num_workers=workers,
            pin_memory=self.fabric.device.type == "cuda",
            prefetch_factor=4 if workers else None,
        )

    def start(self) -> None:
        """Everything is ready: keep the recipe and set the clock going."""
        if self.is_first:
            try:
                (self.out / "recipe.toml").write_text(self.text, encoding="utf-8")
            except OSError as error:
                raise OutputError(f"cannot write into {self.out}: {error.strerror}; choose another folder") from error
        self.budget = self.progress.minutes + self.minutes
        self._offset, self._started = self.progress.minutes, time.monotonic()
        self._last: dict[str, float] = {}

    def done(self) -> float:
        """The part of the training behind us, for all processes the same, so that they stop at the same step."""
        if self.fabric.world_size == 1 or self.progress.step % AGREEMENT_STEPS == 0:
            self.progress.minutes = self.fabric.broadcast(self._offset + (time.monotonic() - self._started) / 60)
        return _fraction(self.plan, self.progress, self.budget)

    def is_due(self, what: str, seconds: float) -> bool:
        """Whether `seconds` have passed since `what` was last due, or since the start; for the first process only."""
        if not self.is_first or time.monotonic() - self._last.get(what, self._started) < seconds:
            return False
        self._last[what] = time.monotonic()
        return True

    def tell(self, words: str, **values: float) -> None:
        """A line on the step just taken, and its values for the curves."""
        self.add_to_curves(**values)
        self.report(f"step {self.progress.step:6d}  {self.progress.minutes:6.1f} min  {words}")

    def add_to_curves(self, **values: float) -> None:
        """One row for each value, at this step."""
        if self.is_first:
            curve(self.out, self.progress, **values)

    def save(self, name: str = LAST) -> None:
        """Write a checkpoint."""
        save_checkpoint(self.out / name, self.network, self.average, self.optimisers, self.progress)

    def keep_if_best(self, score: float) -> None:
        """Write the best checkpoint if no earlier `score` is as high."""
        if score > self.progress.best:
            self.progress.best = score
            self.save(BEST)

    def finish(self) -> ModelEntry:
        """The last checkpoint, and the model package."""
        entry: Any = None
        if self.is_first:
            self.save()
            self.report(f"stopped at step {self.progress.step} after {self.progress.minutes:.1f} minutes")
            entry = export(self.out, self.plan, self.card_fields, self.average, self.progress, str(self.recipe))
        return self.fabric.broadcast(entry)


def train(
    recipe: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    minutes: float,
    resume: bool = False,
    device: str = "auto",
    init: str | None = None,
    seed: int = 0,
    workers: int = 0,
    report: Report = print,
) -> ModelEntry:
    """Train by `recipe` for `minutes` of wall time and write the model package `out`/<id>.safetensors.

    data: a folder with train/ and val/ (volumes, or the packs train.pack and val.pack). out: checkpoints, curves, pictures.
    resume: go on from `out`'s last checkpoint, `minutes` more. init: a model (id or file) whose fitting weights to start from.
    device: "auto", "cpu", "cuda" (all GPUs) or "cuda:n". The package holds the moving average of the weights; its scores come
    from `mrsuperres evaluate` (see `publish`).
    """
    plan, text = load_recipe(recipe, Recipe)
    run = Run(recipe, plan, text, data, out, minutes=minutes, resume=resume, device=device, seed=seed, report=report)
    fabric, progress = run.fabric, run.progress
    network = networks.build(plan.architecture, plan.network).to(fabric.device)
    if init:
        run.report(initialise(network, init))
    optimiser = torch.optim.Adam(network.parameters(), lr=plan.optimisation.learning_rate)
    average = MovingAverage(network, plan.optimisation.ema)
    run.track(network, average, optimiser)
    model, optimiser = fabric.setup(network, optimiser)
    zoom = (int(plan.card["factors"][0]), int(plan.card["factors"][1]))
    pairs = SlicePairs(run.pack(), plan.data, zoom, seed=seed + fabric.global_rank, start=progress.samples)
    validator = Validator(plan, run.card, run.data, run.out, report) if run.is_first else None
    total, counted = torch.zeros((), device=fabric.device), 0
    run.start()
    for low, high in run.batches(pairs, workers):
        done = run.done()
        if done >= 1:
            break
        set_rate(optimiser, plan, progress.step, done)
        low, high = low.to(fabric.device, non_blocking=True), high.to(fabric.device, non_blocking=True)
        loss = functional.l1_loss(model(low), high)
        optimiser.zero_grad(set_to_none=True)
        fabric.backward(loss)
        if plan.optimisation.clip:
            fabric.clip_gradients(model, optimiser, max_norm=plan.optimisation.clip)
        optimiser.step()
        progress.step += 1
        progress.samples += len(low)
        total, counted = total + loss.detach(), counted + 1
        average.update(network, progress.step)
        if progress.step % CURVE_STEPS == 0 or progress.step == 1:
            mean = float(total / counted)
            run.tell(f"L1 {mean:.5f}", loss=mean, rate=optimiser.param_groups[0]["lr"])
            total, counted = torch.zeros((), device=fabric.device), 0
        if validator and run.is_due("check", 60 * plan.validation.every_minutes):
            score = validator.score(network, average, progress)
            run.add_to_curves(psnr=score)
            run.keep_if_best(score)
        if run.is_due("save", CHECKPOINT_SECONDS):
            run.save()
    return run.finish()


def make_folder(out: Path, resume: bool) -> None:
    """Make the folder `out`, unless it holds a training that this one would overwrite, or lacks the one to resume."""
    holds_one = (out / LAST).is_file()
    if resume and not holds_one:
        raise UsageError(f"nothing to resume: {out / LAST} does not exist")
    if holds_one and not resume:
        raise UsageError(f"{out} holds a training already: use --resume to go on with it, or another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {out} cannot be made: {error.strerror}; choose another") from error


def set_rate(optimiser: Any, plan: Recipe, step: int, done: float) -> None:
    """The learning rate for this step; `done` is the fraction of the training behind us."""
    rate = plan.optimisation.learning_rate
    if plan.optimisation.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    if step < plan.optimisation.warm_up:
        rate *= (step + 1) / plan.optimisation.warm_up
    for group in optimiser.param_groups:
        group["lr"] = rate


def _fraction(plan: Recipe, progress: Progress, budget: float) -> float:
    """How much of the training is done: by minutes, or by steps where the recipe counts them and they run out first."""
    by_time = progress.minutes / budget if budget > 0 else 1.0
    if plan.optimisation.steps:
        by_steps = progress.step / plan.optimisation.steps
        return 1.0 if by_time >= 1 else by_steps
    return by_time


def make_fabric(device: str) -> Fabric:
    """Fabric on `device`, in bf16 where the hardware has it."""
    chosen = choose_device(device)
    if chosen.type == "cpu":
        return Fabric(accelerator="cpu", devices=1, precision="bf16-mixed" if _cpu_has_bf16() else "32-true")
    devices = "auto" if chosen.index is None else [chosen.index]
    fabric = Fabric(accelerator=chosen.type, devices=devices, precision="bf16-mixed")
    fabric.launch()
    return fabric


def _cpu_has_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and torch.backends.cpu.get_cpu_capability().startswith(
        "AVX512"
    )


def machine_name(fabric: Fabric) -> str:
    """The hardware a training ran on, for the card."""
    if fabric.device.type == "cuda":
        return f"{fabric.world_size} x {torch.cuda.get_device_name()}"
    return f"{torch.get_num_threads()} CPU thread(s), {platform.machine()}"


def initialise(network: nn.Module, model: str) -> str:
    """Start `network` from those weights of `model` whose names and shapes fit; says how many did."""
    fitting = take_fitting(network, load_network(find_model(model), for_inference=False).state_dict())
    if not fitting:
        raise ModelError(f"no weight of '{model}' fits this recipe's network; start without --init", code="bad-init")
    return f"{fitting} of {len(network.state_dict())} weights start from '{model}'"


def take_fitting(network: nn.Module, weights: Mapping[str, Tensor]) -> int:
    """Give `network` those of `weights` whose names and shapes fit; how many did."""
    target = network.state_dict()
    fitting = {name: value for name, value in weights.items() if name in target and target[name].shape == value.shape}
    network.load_state_dict({**target, **fitting})
    return len(fitting)


def training_pack(data: Path, out: Path, part: str = "train", report: Report = print) -> Pack:
    """`data`/<part>.pack, or one made in `out` from the volumes in `data`/<part>, once for as long as they do not change."""
    if (data / f"{part}.pack").is_file():
        return Pack(data / f"{part}.pack")
    if not (data / part).is_dir():
        raise UsageError(f"{data} has neither {part}.pack nor a folder {part}; see 'mrsuperres data pack --help'")
    made = out / f"{part}.pack"
    if made.is_file():
        packed = Pack(made)
        if packed.source == fingerprint(data / part):
            report(f"{made} is used again: {data / part} is as it was")
            return packed
        report(f"{made} is made anew: {data / part} has changed")
    return pack(data / part, made)


def held_out(data: Path, out: Path, report: Report) -> Pack | None:
    """The packed validation volumes; None, and `report` hears of it, if there are none."""
    if (data / "val").is_dir() or (data / "val.pack").is_file():
        return training_pack(data, out, "val", report)
    report(f"{data} has no val: nothing is validated")
    return None


def psnr(answer: Tensor, truth: Tensor) -> float:
    """Of all their values together, dB, for a range of 1."""
    return float(-10 * torch.log10((answer - truth).square().mean()))


def save_checkpoint(
    path: Path, network: nn.Module, average: MovingAverage, optimisers: Any, progress: Progress
) -> None:
    """Everything needed to go on, in one safetensors file, written under a temporary name first.

    optimisers: one or several Adams over parameters of `network`.
    """
    tensors: dict[str, Tensor] = {}
    tensors |= {f"network.{name}": value.contiguous() for name, value in network.state_dict().items()}
    tensors |= {f"average.{name}": value.contiguous() for name, value in average.weights.items()}
    for optimiser, names in _named(network, optimisers):
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {
                f"adam.{names[index]}.{key}": torch.as_tensor(value).contiguous() for key, value in state.items()
            }
    temporary = path.with_name(f".{path.name}.part")
    save_file(tensors, temporary, metadata={"progress": json.dumps(vars(progress) | {"best": _finite(progress.best)})})
    os.replace(temporary, path)


def load_checkpoint(
    path: Path, network: nn.Module, average: MovingAverage, optimisers: Any, progress: Progress
) -> None:
    """The reverse of `save_checkpoint`, into the objects given and onto the device where `network` already is.

    Raises `ModelError`: the file is damaged, or its weights are those of another network.
    """
    try:
        with safe_open(path, framework="pt") as stored:
            counters = json.loads(stored.metadata()["progress"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
        found = decode(Progress, {name: value for name, value in counters.items() if value is not None})
    except (OSError, SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(
            f"{path} is no checkpoint, or a damaged one ({error}): train anew in another folder", code="damaged-model"
        ) from error
    part = {
        prefix: {n[len(prefix) :]: v for n, v in tensors.items() if n.startswith(prefix)}
        for prefix in ("network.", "average.", "adam.")
    }
    for prefix, wanted in (("network.", network.state_dict()), ("average.", average.weights)):
        shapes, there = ({n: tuple(v.shape) for n, v in some.items()} for some in (wanted, part[prefix]))
        differing = sorted(name for name in shapes.keys() | there.keys() if shapes.get(name) != there.get(name))
        if differing:
            raise ModelError(
                f"{path} is of another network than this recipe's: {len(differing)} of its weights differ, the first is "
                f"'{differing[0]}'; resume with the recipe beside it, recipe.toml",
                code="bad-weights",
            )
    vars(progress).update(vars(found))
    network.load_state_dict(part["network."])
    average.weights = {name: value.to(average.weights[name].device) for name, value in part["average."].items()}
    for optimiser, names in _named(network, optimisers):
        state = optimiser.state_dict()
        for index, name in enumerate(names):
            moments = {key: part["adam."].get(f"{name}.{key}") for key in ("step", "exp_avg", "exp_avg_sq")}
            if moments["step"] is not None:
                state["state"][index] = moments
        optimiser.load_state_dict(state)


def _named(network: nn.Module, optimisers: Any) -> list[tuple[Any, list[str]]]:
    """Each optimiser with the names, in `network`, of its parameters in its own order."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    several = optimisers if isinstance(optimisers, (list, tuple)) else [optimisers]
    return [
        (one, [names[id(parameter)] for group in one.param_groups for parameter in group["params"]]) for one in several
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def curve(out: Path, progress: Progress, **values: float) -> None:
    """Append one row to the curves: step, minutes, name, value."""
    path = out / CURVES
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        if new:
            rows.writerow(("step", "minutes", "name", "value"))
        rows.writerows(
            (progress.step, f"{progress.minutes:.3f}", name, f"{value:.6g}") for name, value in values.items()
        )


def checked_card(plan: Recipe) -> tuple[dict[str, Any], ModelCard]:
    """The card's fields from the recipe, proven to make a card that fits the network: better now than after the last step."""
    fields = {**plan.card, "architecture": plan.architecture, "hyperparameters": plan.network}
    try:
        card = decode(ModelCard, fields)
    except (BadDocument, ModelError) as error:
        raise UsageError(f"recipe [card]: {error}") from error
    with torch.device("meta"):
        network = networks.build(plan.architecture, plan.network)
    factors: tuple[int, int] | None = getattr(network, "factors", None)
    if factors is not None and tuple(factors) != card.factors:
        raise UsageError(
            f"recipe: [network].factors is {list(factors)}, [card].factors is {plan.card['factors']}: make them agree"
        )
    return fields, card


def with_note(card: dict[str, Any], note: str) -> dict[str, Any]:
    """The fields of a card with `note` added to those on its training."""
    training = dict(card.get("training", {}))
    training["notes"] = "; ".join(part for part in (training.get("notes", ""), note) if part)
    return {**card, "training": training}


def export(
    out: Path, plan: Recipe, fields: dict[str, Any], average: MovingAverage, progress: Progress, recipe: str
) -> ModelEntry:
    """The model package with the averaged weights and the card."""
    training = {
        "recipe": Path(recipe).stem,
        "steps": progress.step,
        "minutes": round(progress.minutes, 1),
        "machine": progress.machine,
        "date": datetime.date.today().isoformat(),
        **fields.get("training", {}),
    }
    card = decode(ModelCard, {**fields, "training": training})
    return save_model(
        out / f"{card.id}.safetensors", card, {name: value.cpu() for name, value in average.weights.items()}
    )


class Validator:
    """Scores the averaged network on held-out scans with the project's own `evaluate`, and keeps a picture of each time.

    A few slices of each scan are enough to see a trend. The card's scores are found afterwards by `evaluate`, on as many middle
    slices of each scan as it was asked for, which the name of the scan in the card then says.
    """

    def __init__(self, plan: Recipe, card: ModelCard, data: Path, out: Path, report: Report) -> None:
        self.plan, self.out, self.report = plan, out, report
        self.entry = ModelEntry(card, None, "in training")
        self.trials: list[evaluation.Trial] = []
        self.baseline: dict[str, float] = {}
        packed = held_out(data, out, report)
        if packed is None:
            return
        for entry in packed.entries:
            if not entry.labels and any(fnmatch(entry.name, pattern) for pattern in plan.validation.scans):
                trial = evaluation.make_trial(
                    packed.volume(entry),
                    card.plane,
                    card.factor or 1.0,
                    plan.validation.degradation,
                    slices=plan.validation.slices,
                )
                rows, _ = evaluation.evaluate(trial, ["bspline"])
                self.trials.append(trial)
                self.baseline[trial.truth.name] = rows[0].metrics["psnr"]

    def score(self, network: nn.Module, average: MovingAverage, progress: Progress) -> float:
        """Mean PSNR (dB) over the scans; -inf without held-out data. The network is left as it was."""
        if not self.trials:
            return -math.inf
        averaged = networks.build(self.plan.architecture, self.plan.network)
        averaged.load_state_dict({name: value.cpu() for name, value in average.weights.items()})
        device = next(network.parameters()).device
        options = Options(device=str(device), threads=torch.get_num_threads())
        found: dict[str, float] = {}
        for trial in self.trials:
            answer = super_resolve(
                trial.low, self.entry, spacing=trial.truth.grid.spacing, plane=trial.plane, network=averaged,
                options=replace(options, slice_axis=trial.axis), warn=lambda code, message: None,
            )  # fmt: skip
            found[trial.truth.name] = evaluation.score(trial, answer, self.entry.card.id).metrics["psnr"]
        last = self.trials[-1]
        picture = self.out / f"validation-{progress.step:06d}.png"
        spline = resample(last.low, last.truth.grid, "bspline")
        evaluation.figure(picture, last, {"bspline": spline, self.entry.card.id: answer})
        gain = [found[name] - self.baseline[name] for name in found]
        self.report(
            f"validation: {_mean(found.values()):.2f} dB, {_mean(gain):+.2f} over bspline (least {min(gain):+.2f}), {picture.name}"
        )
        return _mean(found.values())


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
