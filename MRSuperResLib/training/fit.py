"""`fit`: one training by a recipe, whatever its method. Lightning Fabric, budget, checkpoints, exact resume, curves, validation.

The stream of samples is a function of seed and position, and torch's generators are seeded at every step, so a resumed run ends
where an uninterrupted one does, to the last bit. Several processes, one a GPU, train one network, each on samples of its own; the
first one's clock is everyone's, and it alone writes and tells.
"""

from __future__ import annotations

import copy
import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from ..errors import ModelError, OutputError, UsageError
from ..inference.device import choose_device
from ..models import Source
from .card import checked, checked_card, with_notes, write_package
from .checkpoint import LAST, Progress, load_checkpoint, save_checkpoint
from .data.crops import applicable
from .data.samples import Samples
from .method import Context, Method, Report, Validator
from .methods import find_method
from .own import own_card, parsed_sources
from .pack import Pack, fingerprint, pack
from .recipes import Recipe, load_recipe
from .report import Means, add_to_curves, cut_curves

BEST = "best.safetensors"
OWN = "own.json"  # id and sources of a user's own model, for a training that goes on
CHECKPOINT_MINUTES = 2.0
CURVE_STEPS = 25
AGREEMENT_STEPS = 10  # after which several processes look at the first one's clock again; a look makes GPUs wait
RANK_STRIDE = 1_000_003  # between the seeds of two processes; more than the steps of a training


def fit(
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
    validate: bool = True,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    id: str | None = None,
    sources: Sequence[str] = (),
    report: Report = print,
) -> Path:
    """Train by `recipe` for `minutes` of wall time; the path of what it ships: the model package `out`/<id>.safetensors.

    data: a folder with train/ and val/ (volumes, or the packs train.pack and val.pack). out: checkpoints, curves, pictures, and
    best.safetensors, the package that scored highest in validation. resume: go on from `out`'s last checkpoint, `minutes` more.
    device: "auto", "cpu", "cuda" (all GPUs) or "cuda:n". init: a model (id or file) to start from, as the method has it.
    workers: processes that draw samples; how many changes nothing. id, sources: of a model trained on data of the user's own, its
    name and what it was trained on, each "NAME; LICENCE; USE" or a TOML file that lists them; its card then describes those data.
    The package holds the moving average of the weights; its scores come from `mrsuperres evaluate`.
    """
    plan, text = load_recipe(recipe)
    listed = parsed_sources(sources)
    kind = find_method(plan.method)
    run = Run(kind.completed(plan), kind, Path(recipe).stem, Path(out), minutes=minutes, resume=resume, report=report)
    run.start_fabric(device, seed)
    method = kind(run.plan, run.context)
    if init:
        run.report(method.start_from(init))
    run.take_up(method)
    training = training_pack(Path(data), run.out, run.fabric, report=run.report)
    run.describe(training, id, listed)
    source = method.stream(training, seed + run.fabric.global_rank, run.progress.samples)
    if isinstance(source, IterableDataset):
        source = loader(source, run.plan.optimisation.batch, workers, run.fabric.device)
    batches = method.batches(source, run.progress.step)
    before = run.progress.samples
    if validate and run.is_first:
        run.validator = make_validator(method, Path(data), run)
    run.begin(text)
    for batch in batches:
        done = run.done()
        if done >= 1:
            break
        method.set_rates(run.progress.step, done)
        torch.manual_seed(seed + run.progress.step + RANK_STRIDE * run.fabric.global_rank)
        batch = [part.to(run.fabric.device, non_blocking=True) for part in batch]
        losses = method.training_step(batch)
        drawn = getattr(batches, "drawn", None)
        run.progress.samples = run.progress.samples + len(batch[0]) if drawn is None else before + drawn
        if losses is not None:
            run.after_step(losses, 60 * checkpoint_minutes)
    return run.finish()


class Run:
    """One training under way: its folder, clock, checkpoints and what it tells. What can be wrong is complained of at once."""

    def __init__(
        self,
        plan: Recipe,
        kind: type[Method],
        recipe: str,
        out: Path,
        *,
        minutes: float,
        resume: bool,
        report: Report,
    ) -> None:
        if not 0 < minutes < math.inf:
            raise UsageError(f"minutes is {minutes:g}, expected a number above 0")
        self.plan, self.recipe, self.out, self.minutes, self.resumes = plan, recipe, out, minutes, resume
        self.fields: dict[str, Any] = {}
        self.name = recipe
        if kind.ships_a_model:
            self.fields, card = checked_card(plan)
            self.name = card.id
        make_folder(out, resume)
        self.report = report
        self.validator: Validator | None = None
        self.means = Means()
        self.progress = Progress()

    def start_fabric(self, device: str, seed: int) -> None:
        """Choose the device and seed everything."""
        self.fabric = make_fabric(device)
        self.fabric.seed_everything(seed)
        self.is_first = self.fabric.is_global_zero
        if not self.is_first:
            self.report = lambda line: None
        self.progress.machine = machine_name(self.fabric)
        self.context = Context(self.fabric, self.out, self.report, seed, self.resumes, keep=self.keep)

    def take_up(self, method: Method) -> None:
        """Make `method` ready to train, from the last checkpoint if this run resumes."""
        self.method = method
        method.set_up()
        self.tracked = (method.networks, method.average, list(method.optimisers.values()), self.progress)
        if self.resumes:
            load_checkpoint(self.out / LAST, *self.tracked)
            if self.is_first:
                cut_curves(self.out, self.progress.step)
            self.report(f"resumed at step {self.progress.step}, {self.progress.minutes:.1f} minutes")
        method.wrap()

    def describe(self, packed: Pack, id: str | None, sources: Sequence[Source]) -> None:
        """Choose the recipe's sources that there are, and make the card one of the user's data if they are not the recipe's."""
        self.asked = self.plan.data.sources
        found = applicable(packed, self.asked, self.report)
        own = bool(id or sources) or not set(found) <= set(self.asked)
        kept = self.out / OWN
        if self.resumes and not id and not sources and kept.is_file():
            chosen = json.loads(kept.read_text(encoding="utf-8"))
            own, id, sources = True, chosen["id"], [Source(**one) for one in chosen["sources"]]
        self.method.plan = self.plan = replace(self.plan, data=replace(self.plan.data, sources=found))
        if own and self.fields:
            self.fields = own_card(self.fields, self.plan, packed, id, sources)
            self.name = checked(self.fields).id
            if self.is_first:
                chosen = {"id": self.name, "sources": self.fields["sources"]}
                kept.write_text(json.dumps(chosen, indent=1), encoding="utf-8")
            self.report(f"the model will be called {self.name}")

    def begin(self, text: str) -> None:
        """Everything is ready: keep the recipe, `text`, and set the clock going."""
        if self.is_first:
            try:
                (self.out / "recipe.toml").write_text(text, encoding="utf-8")
            except OSError as error:
                raise OutputError(f"cannot write into {self.out}: {error.strerror}; choose another folder") from error
        self.budget = self.progress.minutes + self.minutes
        self._offset, self._started = self.progress.minutes, time.monotonic()
        self._last: dict[str, float] = {}
        self._validated = -1

    def done(self) -> float:
        """The part of the training behind us, for all processes the same, so that they stop at the same step.

        By minutes, or by steps where the recipe counts them and they run out first.
        """
        if self.fabric.world_size == 1 or self.progress.step % AGREEMENT_STEPS == 0:
            self.progress.minutes = self.fabric.broadcast(self._offset + (time.monotonic() - self._started) / 60)
        by_time, steps = self.progress.minutes / self.budget, self.plan.optimisation.steps
        if not steps:
            return by_time
        return 1.0 if by_time >= 1 else self.progress.step / steps

    def is_due(self, what: str, seconds: float) -> bool:
        """Whether `seconds` have passed since `what` was last due, or since the start; for the first process only."""
        if not self.is_first or time.monotonic() - self._last.get(what, self._started) < seconds:
            return False
        self._last[what] = time.monotonic()
        return True

    def after_step(self, losses: Mapping[str, torch.Tensor], checkpoint_seconds: float) -> None:
        """Count the step, average the weights; tell, validate and save when it is time."""
        progress, method = self.progress, self.method
        progress.step += 1
        method.average.update(method.networks[method.exported], progress.step)
        self.means.add(losses)
        if progress.step % CURVE_STEPS == 0 or progress.step == 1:
            self.tell()
        if self.validator and self.is_due("validation", 60 * self.plan.validation.every_minutes):
            self.validate()
        if self.is_due("checkpoint", checkpoint_seconds):
            save_checkpoint(self.out / LAST, *self.tracked)

    def tell(self) -> None:
        """A line with the losses since the last one, and their rows for the curves."""
        means = self.means.take()
        wrong = [name for name, value in means.items() if not math.isfinite(value)]
        if wrong:
            raise ModelError(
                f"the loss '{wrong[0]}' is {means[wrong[0]]} at step {self.progress.step}: the training diverged; lower the "
                "recipe's learning_rate or clip its gradients",
                code="bad-weights",
            )
        rates = [group["lr"] for one in self.method.optimisers.values() for group in one.param_groups]
        if self.is_first:
            add_to_curves(self.out, self.progress, {**means, "rate": rates[0]})
        words = "  ".join(f"{name} {value:.5f}" for name, value in means.items())
        self.report(f"step {self.progress.step:6d}  {self.progress.minutes:6.1f} min  {words}")

    @torch.no_grad()
    def validate(self) -> None:
        """Score the averaged network, and write its package if it is the best so far."""
        assert self.validator is not None
        self._validated = self.progress.step
        scores = self.validator(averaged(self.method), self.progress.step)
        if not scores:
            return
        add_to_curves(self.out, self.progress, {f"held_out_{name}": value for name, value in scores.items()})
        score = scores[self.method.best]
        if score > self.progress.best:
            self.progress.best = score
            if self.fields:
                self.write_package(self.out / BEST)

    def keep(self, name: str) -> None:
        """Write what would be shipped now into the folder `out`/`name`."""
        if self.is_first:
            (self.out / name).mkdir(exist_ok=True)
            self.ship(self.out / name)

    def ship(self, folder: Path) -> Path:
        """Write what the method ships into `folder`."""
        shipped = self.method.export(folder)
        return shipped or self.write_package(folder / f"{self.name}.safetensors")

    def write_package(self, path: Path) -> Path:
        """The model package as it is now."""
        write_package(
            path, with_notes(self.fields, self.context.notes), self.method.average, self.progress, self.recipe
        )
        return path

    def finish(self) -> Path:
        """A last validation, the last checkpoint, and what is shipped."""
        path: Any = None
        if self.is_first:
            if self.validator and self._validated != self.progress.step:
                self.validate()
            save_checkpoint(self.out / LAST, *self.tracked)
            self.report(f"stopped at step {self.progress.step} after {self.progress.minutes:.1f} minutes")
            path = self.ship(self.out)
        found: Path = self.fabric.broadcast(path)
        return found


def averaged(method: Method) -> nn.Module:
    """A copy of the exported network with the averaged weights, in evaluation mode, on the training's device."""
    network: nn.Module = copy.deepcopy(method.networks[method.exported])
    network.load_state_dict(method.average.weights)
    network.zero_grad(set_to_none=True)
    return network.eval()


def make_validator(method: Method, data: Path, run: Run) -> Validator | None:
    """The method's validator on those of the recipe's sources that are held out; None, and it is said, if nothing fits."""
    if not (data / "val").is_dir() and not (data / "val.pack").is_file():
        run.report(f"{data} has no val: nothing is validated")
        return None
    packed = part_pack(data, run.out, "val", run.report)
    held_out = applicable(packed, run.asked, lambda line: None)
    method.plan = replace(run.plan, data=replace(run.plan.data, sources=held_out))
    try:
        return method.validator(packed)
    except UsageError as error:
        run.report(f"nothing is validated: {error}")
        return None
    finally:
        method.plan = run.plan


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


class Autocast(MixedPrecision):
    """bf16 where autocast chooses it. What goes into a network is left as it is: as bf16 an image has steps of 0.4 %, and a skip
    connection would carry them into the answer, which it does not do when the trained network is used."""

    def __init__(self, device: str) -> None:
        super().__init__("bf16-mixed", device)

    def convert_input(self, data: Any) -> Any:
        """`data`."""
        return data


def make_fabric(device: str) -> Fabric:
    """Fabric on `device`, in bf16 where the hardware has it."""
    chosen = choose_device(device)
    if chosen.type == "cpu":
        return Fabric(accelerator="cpu", devices=1, plugins=Autocast("cpu") if _cpu_has_bf16() else None)
    devices = "auto" if chosen.index is None else [chosen.index]
    fabric = Fabric(accelerator=chosen.type, devices=devices, plugins=Autocast(chosen.type))
    fabric.launch()
    torch.backends.cudnn.benchmark = True  # crops of a training all have one size
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


def loader(samples: IterableDataset[Any], batch: int, workers: int, device: torch.device) -> DataLoader[Any]:
    """Batches of `samples`."""
    if isinstance(samples, Samples):
        samples.batch = batch
    return DataLoader(
        samples,
        batch_size=batch,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if workers else None,
    )


def training_pack(data: Path, out: Path, fabric: Fabric, report: Report = print) -> Pack:
    """The packed training volumes; the first process packs them, the others find it done."""
    with fabric.rank_zero_first():
        return part_pack(data, out, "train", report)


def part_pack(data: Path, out: Path, part: str = "train", report: Report = print) -> Pack:
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
    return pack(data / part, made, report)
