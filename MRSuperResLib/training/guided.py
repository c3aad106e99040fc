"""Training of reference-guided networks: two contrasts of one subject, references moved, missing or wrong, and the loop.

Everything that single-image training has already comes from `loop`: checkpoints, resume, moving average, export. A recipe has one
section more, [guidance].
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from scipy import ndimage
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from .. import networks
from ..acquisition import bias_field
from ..documents import BadDocument
from ..errors import UsageError
from ..losses.fourier import FourierLoss
from ..losses.perceptual import PerceptualLoss, read_vgg19
from ..losses.tissue import extractor_weights, tissue_features
from ..models import ModelEntry, find_model, load_network
from ..networks.fasr import FASR, TextureExtractor
from ..networks.projection import bicubic
from . import loop
from .data import ATTEMPTS, FOREGROUND, MARGIN, AugmentationSpec, DataSpec, SourceSpec, degrade, recoloured, trim
from .data import CropDrawer as SingleDrawer
from .loop import CHECKPOINT_SECONDS, CURVE_STEPS, MovingAverage, Report, Run
from .pack import Entry, Pack
from .recipes import Recipe, load_recipe
from .synthesis import LEVELS, synthesise, synthesise_contrasts

LOSSES = ("l1", "l2", "psnr", "perceptual", "fourier")
FEATURES = ("vgg", "tissue")
AIR_SHARE = 0.2  # of the crops that are mostly air, how many are kept: noise in air is to go, too
NAMED = 0.5  # of the pairs made from label maps, how many are two usual contrasts, PDw among them, not two random ones
VALIDATION_PAIRS = 32
VALIDATION_SEED = 20
LEAST_ERROR = 1e-6  # mean squared; below it, 60 dB, there is nothing to gain
CAPACITY = 128  # pairs of a `Reservoir`
RESERVOIR_SEED = 5

Guided = tuple[Tensor, Tensor, Tensor, Tensor]  # low (1, p, p); high, reference, valid (1, p*fh, p*fw)


@dataclass(frozen=True)
class GuidanceSpec:
    """What happens to references in training, as probabilities, and how the paper's two stages are cut.

    misaligned: moved by up to `shift` mm along rows and columns, small moves more often than large, and up to `rotation` degrees.
    missing: none at all (valid is 0). partial: cut off along a line. wrong: of another place or person, or noise. noise: largest
    standard deviation added, on the networks' scale. gain: the reference is multiplied by 1 - gain to 1 + gain, as another scaling
    of its intensities would.
    coarse: the part of the training with L1 alone, before the other losses (10 of 60 epochs in the paper). rest_rate: learning rate
    of all but the texture extractor over that of the extractor (0.1 in the paper). vgg, vgg_digest: a local file of VGG-19's
    ImageNet weights, and its SHA-256, for the extractor and the perceptual loss; "" to start the extractor from what it learned
    when telling tissues apart (`losses.tissue`). features: what the perceptual loss compares, "vgg" or, ours, "tissue" (our
    segmentation network).
    base: id or file of a single-image model to build in, frozen (see `networks.fasr`); "" for none. reuse: how many steps a drawn
    pair serves on average, flipped anew each time; 1 draws every pair afresh. A base's answers cost more than a step does.
    """

    misaligned: float = 0.5
    shift: float = 3.0
    rotation: float = 3.0
    missing: float = 0.12
    partial: float = 0.05
    wrong: float = 0.1
    noise: float = 0.02
    gain: float = 0.0
    coarse: float = 1.0
    rest_rate: float = 1.0
    vgg: str = ""
    vgg_digest: str = ""
    features: str = "vgg"
    base: str = ""
    reuse: int = 1


@dataclass(frozen=True)
class GuidedRecipe(Recipe):
    """A `Recipe` with [guidance]."""

    guidance: GuidanceSpec = field(default_factory=GuidanceSpec)

    def __post_init__(self) -> None:
        unknown = [name for name in self.loss if name not in LOSSES]
        if unknown:
            raise BadDocument(f"loss.{unknown[0]} is not a known loss; expected {', '.join(LOSSES)}")
        if self.guidance.features not in FEATURES:
            raise BadDocument(f"guidance.features is '{self.guidance.features}', expected 'vgg' or 'tissue'")


class PairDrawer(SingleDrawer):
    """Draws two registered sharp crops of one subject in two contrasts: real ones, or synthesised from one label map."""

    def __init__(self, pack: Pack, sources: tuple[SourceSpec, ...]) -> None:
        super().__init__(pack, sources)
        self.groups: list[list[tuple[Entry, ...]]] = []
        for source, entries in self.choices:
            subjects: dict[str, list[Entry]] = {}
            for entry in entries:
                subjects.setdefault(entry.subject, []).append(entry)
            groups = [tuple(group) for group in subjects.values() if group[0].labels or len(group) > 1]
            for group in groups:
                if any(not entry.grid.same_as(group[0].grid) for entry in group):
                    raise UsageError(
                        f"the contrasts of {group[0].subject} lie on different grids: resample them to one"
                    )
            if not groups:
                raise UsageError(f"'{source.match}' matches no subject with two contrasts: nothing to guide with")
            self.groups.append(groups)

    def draw_pair(
        self, shape: tuple[int, int], rng: np.random.Generator, augmentation: AugmentationSpec, *, transpose: bool
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """(target, reference, pixel size in mm): augmented crops of `shape`, float32 on the networks' scale."""
        choice = int(rng.choice(len(self.choices), p=self.probabilities))
        source, groups = self.choices[choice][0], self.groups[choice]
        zoom = rng.uniform(*augmentation.zoom) if rng.random() < augmentation.zoom_probability else 1.0
        wanted = tuple(int(np.ceil(n * zoom)) for n in shape)
        for _ in range(ATTEMPTS):
            group = groups[rng.integers(len(groups))]
            images = self._registered(group, source.planes, wanted, rng)
            if images[0].mean() > FOREGROUND or rng.random() < AIR_SHARE:
                break
        if zoom != 1.0:
            ratio = (shape[0] / wanted[0], shape[1] / wanted[1])
            images = [ndimage.zoom(image, ratio, order=3, mode="reflect", grid_mode=True) for image in images]
        if augmentation.flip:
            up, left, turn = rng.choice((-1, 1)), rng.choice((-1, 1)), transpose and rng.random() < 0.5
            images = [image[::up, ::left].T if turn else image[::up, ::left] for image in images]
        spacing = sorted(group[0].grid.spacing)[0] * zoom
        target, reference = (recoloured(image, augmentation, rng) for image in images)
        return target, reference, spacing

    def _registered(
        self, group: tuple[Entry, ...], planes: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> list[np.ndarray]:
        seed = int(rng.integers(2**31))
        if group[0].labels:
            stored = self.crop(group[0], planes, shape, np.random.default_rng(seed))
            if rng.random() < NAMED:
                return synthesise_contrasts(stored, list(rng.choice(list(LEVELS), 2, replace=False)), rng)
            return list(synthesise(stored, rng, contrasts=2))
        chosen = rng.choice(len(group), 2, replace=False)
        return [
            self.pack.unit(group[n], self.crop(group[n], planes, shape, np.random.default_rng(seed))) for n in chosen
        ]  # the same seed, so the same place


class GuidedPairs(IterableDataset[Guided]):
    """An endless stream of (low, high, reference, valid); pair n depends on `seed` and n alone, as in `SlicePairs`.

    clean: references are never moved, missing, wrong or noisy: for validation.
    """

    def __init__(
        self,
        pack: Pack,
        spec: DataSpec,
        guidance: GuidanceSpec,
        factors: tuple[int, int],
        seed: int = 0,
        start: int = 0,
        *,
        clean: bool = False,
    ) -> None:
        super().__init__()
        self.spec, self.guidance, self.factors, self.seed, self.start = spec, guidance, factors, seed, start
        self.clean = clean
        self.transpose = factors[0] == factors[1]  # whether rows and columns may be exchanged
        self.drawer = PairDrawer(pack, spec.sources)

    def __iter__(self) -> Iterator[Guided]:
        worker = torch.utils.data.get_worker_info()
        number, stride = (self.start, 1) if worker is None else (self.start + worker.id, worker.num_workers)
        while True:
            images = self.pair(np.random.default_rng((self.seed, number)))
            yield tuple(torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))[None] for image in images)  # type: ignore[misc]
            number += stride

    def pair(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(low (p, p), high, reference, valid (p*fh, p*fw))."""
        side = self.spec.patch + 2 * MARGIN
        shape = (side * self.factors[0], side * self.factors[1])
        high, reference, spacing = self.drawer.draw_pair(shape, rng, self.spec.augmentation, transpose=self.transpose)
        if self.spec.degradation.bias and rng.random() < 0.5:
            high = high * bias_field(high.shape, rng.uniform(0, self.spec.degradation.bias), rng)
        low = degrade(high, self.factors, self.spec.degradation, rng)
        valid = np.ones(shape, dtype=np.float32)
        if not self.clean:
            reference, valid = self._disturbed(reference, valid, spacing, rng)
        return trim(low, (1, 1)), *(trim(image, self.factors) for image in (high, reference * valid, valid))  # type: ignore[return-value]

    def _disturbed(
        self, reference: np.ndarray, valid: np.ndarray, spacing: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """The reference as registration and mistakes may leave it."""
        plan = self.guidance
        if plan.gain:
            reference = reference * np.float32(rng.uniform(1 - plan.gain, 1 + plan.gain))
        if rng.random() < plan.wrong:
            reference = self._wrong(reference.shape, rng)
        elif rng.random() < plan.misaligned:
            amount = rng.random()  # small moves more often
            shift = rng.uniform(-1, 1, 2) * plan.shift * amount / spacing
            reference = moved(reference, shift, np.deg2rad(rng.uniform(-1, 1) * plan.rotation * amount))
        if plan.noise:
            reference = reference + rng.uniform(0, plan.noise) * rng.standard_normal(reference.shape, dtype=np.float32)
        if rng.random() < plan.missing:
            valid = np.zeros_like(valid)
        elif rng.random() < plan.partial:
            valid = half_plane(valid.shape, rng)
        return reference, valid

    def _wrong(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        if rng.random() < 0.25:
            return (rng.uniform(0, 0.7) + rng.uniform(0.05, 0.3) * rng.standard_normal(shape)).astype(np.float32)
        return self.drawer.draw_pair(shape, rng, self.spec.augmentation, transpose=self.transpose)[1]  # type: ignore[arg-type]


def moved(image: np.ndarray, shift: np.ndarray, angle: float) -> np.ndarray:
    """`image` (H, W) rotated by `angle` (radians) about its centre and shifted by `shift` pixels; cubic, borders continued."""
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - matrix @ (centre + shift)
    return np.asarray(ndimage.affine_transform(image, matrix, offset, order=3, mode="nearest"), dtype=np.float32)


def half_plane(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """1 on one side of a random line through the middle half of `shape` (H, W), 0 on the other."""
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    angle = rng.uniform(0, 2 * np.pi)
    return (np.cos(angle) * rows + np.sin(angle) * columns > rng.uniform(-0.5, 0.5)).astype(np.float32)


class Reservoir:
    """Batches of pairs with what the network's base makes of them (`FASR.starts`), each pair used in several steps.

    Until `CAPACITY` pairs are there every step draws a fresh batch, later every `reuse`-th does and replaces others at random. A
    batch is flipped as a whole, and transposed where the factors allow. drawn: pairs taken from `stream` so far.
    """

    def __init__(
        self, stream: Iterable[Sequence[Tensor]], network: FASR, fabric: Fabric, reuse: int, seed: int
    ) -> None:
        self.stream, self.network, self.fabric, self.reuse = stream, network, fabric, reuse
        self.drawn = 0
        self.rng = np.random.default_rng((seed, RESERVOIR_SEED))

    def __iter__(self) -> Iterator[list[Tensor]]:
        """low, high, reference, valid, I_LR up, I_Ref down-up: each (batch, 1, rows, columns)."""
        kept: list[tuple[Tensor, ...]] = []
        for batch in self.stream:
            fresh = [image.to(self.fabric.device, non_blocking=True) for image in batch]
            low, _, reference, valid = fresh
            with torch.no_grad(), self.fabric.autocast():
                fresh += self.network.starts(low, reference, valid)
            count = len(low)
            self.drawn += count
            if len(kept) >= CAPACITY:
                for place in sorted(self.rng.choice(len(kept), count, replace=False), reverse=True):
                    kept.pop(place)
            kept += zip(*(image.unbind() for image in fresh), strict=True)
            for _ in range(self.reuse if len(kept) >= CAPACITY else 1):
                chosen = [kept[place] for place in self.rng.choice(len(kept), count, replace=False)]
                yield self._turned([torch.stack(images) for images in zip(*chosen, strict=True)])

    def _turned(self, images: list[Tensor]) -> list[Tensor]:
        axes = [axis for axis in (-2, -1) if self.rng.random() < 0.5]
        images = [image.flip(axes) for image in images] if axes else images
        if self.network.factors[0] == self.network.factors[1] and self.rng.random() < 0.5:
            images = [image.transpose(-2, -1).contiguous() for image in images]
        return images


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
    """Train a reference-guided network; arguments and result as `loop.train`.

    A resumed run draws the pairs that the interrupted one would have; with `guidance.reuse` it begins with new ones.
    """
    plan, text = load_recipe(recipe, GuidedRecipe)
    guidance = plan.guidance
    plan = with_base(plan)
    run = Run(recipe, plan, text, data, out, minutes=minutes, resume=resume, device=device, seed=seed, report=report)
    fabric, progress = run.fabric, run.progress
    network = networks.build(plan.architecture, plan.network)
    if not isinstance(network, FASR):
        raise UsageError(f"the recipe has [guidance] and the architecture '{plan.architecture}', expected 'fasr'")
    feature_network, origin = started(network, guidance)
    if init:
        run.report(loop.initialise(network, init))
        origin = find_model(init).card.id
    run.card_fields = loop.with_note(run.card_fields, f"texture extractor from {origin}")
    if guidance.base:
        network.base.load_state_dict(load_network(find_model(guidance.base), for_inference=False).state_dict())  # type: ignore[union-attr]
    network.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on CPUs
    losses = GuidedLoss(plan.loss, feature_network).to(fabric.device)
    optimiser = torch.optim.Adam(parameter_groups(network, guidance.rest_rate), lr=plan.optimisation.learning_rate)
    average = MovingAverage(network, plan.optimisation.ema)
    run.track(network, average, optimiser)
    model, optimiser = fabric.setup(network, optimiser)
    pairs = GuidedPairs(
        run.pack(), plan.data, guidance, network.factors, seed=seed + fabric.global_rank, start=progress.samples
    )
    batches = run.batches(pairs, workers)
    validator = GuidedValidator(plan, run.data, run.out, network.factors, report) if run.is_first else None
    total, counted = torch.zeros(2, device=fabric.device), 0
    source = (
        Reservoir(batches, network, fabric, guidance.reuse, seed + progress.step) if guidance.reuse > 1 else batches
    )
    before = progress.samples
    run.start()
    for batch in source:
        done = run.done()
        if done >= 1:
            break
        loop.set_rate(optimiser, plan, progress.step, done)
        for group in optimiser.param_groups:
            group["lr"] *= group["ratio"]
        low, high, reference, valid, *start = (image.to(fabric.device, non_blocking=True) for image in batch)
        answer = model(low, reference, valid, start or None)
        loss = losses(answer.float(), high, done < guidance.coarse)
        optimiser.zero_grad(set_to_none=True)
        if not loss.requires_grad:  # no reference in the whole batch: the base alone answered
            if fabric.world_size == 1:
                continue
            # Other processes may have had one, and wait for gradients.
            loss = loss + sum((0 * weights).sum() for weights in network.parameters() if weights.requires_grad)
        fabric.backward(loss)
        if plan.optimisation.clip:
            fabric.clip_gradients(model, optimiser, max_norm=plan.optimisation.clip)
        optimiser.step()
        progress.step += 1
        progress.samples = before + source.drawn if isinstance(source, Reservoir) else progress.samples + len(low)
        average.update(network, progress.step)
        first = (start[0] - high).abs().mean() if start else torch.zeros_like(loss)
        total, counted = total + torch.stack((loss.detach(), first)), counted + 1
        if progress.step % CURVE_STEPS == 0 or progress.step == 1:
            mean, of_base = (total / counted).tolist()
            beside = f", the base's L1 {of_base:.5f}" if start else ""
            run.tell(f"loss {mean:.5f}{beside}", loss=mean, rate=optimiser.param_groups[0]["lr"])
            total, counted = torch.zeros(2, device=fabric.device), 0
        if validator and run.is_due("check", 60 * plan.validation.every_minutes):
            scores = validator.score(network, average)
            run.add_to_curves(**scores)
            run.keep_if_best(scores.get("psnr", -math.inf))
        if run.is_due("save", CHECKPOINT_SECONDS):
            run.save()
    return run.finish()


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


def with_base(plan: GuidedRecipe) -> GuidedRecipe:
    """`plan` with the base that [guidance] names written out in [network], named in the card's notes, and tiled as it needs."""
    if not plan.guidance.base:
        return plan
    entry = find_model(plan.guidance.base)
    base = {"architecture": entry.card.architecture, "hyperparameters": dict(entry.card.hyperparameters)}
    built_in = f"{entry.card.id} version {entry.card.version} (digest {entry.digest[:12]}) is built in, frozen"
    needs = dict(plan.card.get("requirements", {}))
    needs["multiple_of"] = math.lcm(needs.get("multiple_of", 1), entry.card.requirements.multiple_of)
    card = loop.with_note({**plan.card, "requirements": needs}, built_in)
    return replace(plan, network={**plan.network, "base": base}, card=card)


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

    def __init__(self, plan: GuidedRecipe, data: Path, out: Path, factors: tuple[int, int], report: Report) -> None:
        self.report = report
        network = networks.build(plan.architecture, plan.network).eval()
        assert isinstance(network, FASR)
        self.network = network
        self.pairs: Guided | None = None
        self.starts: dict[str, tuple[Tensor, Tensor]] = {}
        packed = loop.held_out(data, out, report)
        if packed is None:
            return
        sources = tuple(source for source in plan.data.sources if _has_pairs(packed, source))
        if not sources:
            report(f"{data}/val has no subject with two contrasts: nothing is validated")
            return
        spec = replace(
            plan.data, sources=sources, augmentation=AugmentationSpec(False, (1.0, 1.0), 0.0, (1.0, 1.0), 0.0)
        )
        stream = GuidedPairs(packed, spec, plan.guidance, factors, seed=VALIDATION_SEED, clean=True)
        self.pairs = tuple(torch.stack(images) for images in zip(*islice(stream, VALIDATION_PAIRS), strict=True))  # type: ignore[assignment]

    @torch.inference_mode()
    def score(self, network: nn.Module, average: MovingAverage) -> dict[str, float]:
        """psnr, psnr_noise, psnr_alone and psnr_bicubic, dB for a range of 1; empty without held-out data."""
        if self.pairs is None:
            return {}
        self.network.load_state_dict(average.weights)
        device = next(network.parameters()).device
        low, high, reference, valid = (images.to(device) for images in self.pairs)
        model = self.network.to(device)
        noise = torch.rand(reference.shape, generator=torch.Generator().manual_seed(VALIDATION_SEED)).to(device)
        scores = {}
        with torch.autocast(device.type, dtype=torch.bfloat16):
            for name, image in {"psnr": reference, "psnr_noise": noise}.items():
                if name not in self.starts:  # no trained weight changes them
                    self.starts[name] = model.starts(low, image, valid)
                scores[name] = loop.psnr(model(low, image, valid, self.starts[name]).float(), high)
            scores["psnr_alone"] = loop.psnr(
                model(low, reference, torch.zeros_like(valid), (self.starts["psnr"][0], torch.zeros_like(high))), high
            )
        with torch.autocast(device.type, enabled=False):
            scores["psnr_bicubic"] = loop.psnr(bicubic(low, high.shape[-2:]), high)
        self.report(
            "  held out, dB: " + ", ".join(f"{name[5:] or 'guided'} {value:.2f}" for name, value in scores.items())
        )
        return scores


def score_package(
    entry: ModelEntry, recipe: str | Path, data: str | Path, out: str | Path, report: Report = print
) -> dict[str, float]:
    """What `GuidedValidator` finds for a model package trained by `recipe`; `out`: where a pack of `data`/val may be made."""
    plan = with_base(load_recipe(recipe, GuidedRecipe)[0])
    network = load_network(entry)
    assert isinstance(network, FASR)
    validator = GuidedValidator(plan, Path(data), Path(out), network.factors, report)
    return validator.score(network, MovingAverage(network, 0.0))


def _has_pairs(pack: Pack, source: SourceSpec) -> bool:
    subjects = [entry.subject for entry in pack.select(source.match) if not entry.labels]
    return len(subjects) > len(set(subjects))
