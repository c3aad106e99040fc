"""Adversarial training, as MTSR-MRI does it: of super-resolution (eq. 6) and of translation with a latent code (eq. 7).

Both begin without a discriminator, on L1 alone, and then play against patch discriminators. Checkpoints, exact resume, moving
average and export come from `loop`; the moving average and the model package hold the generator only. A recipe has one section
more, [adversarial]; one for translation has [disturbance] too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .. import networks
from ..documents import BadDocument
from ..errors import UsageError
from ..losses.adversarial import FAKE, REAL, judged, kl_divergence
from ..losses.perceptual import PerceptualLoss, read_vgg19
from ..models import ModelEntry, read_weights
from ..networks.patchgan import MultiScaleDiscriminator
from ..networks.rrdb import load_esrgan
from ..networks.translation import CONTRASTS, LATENT, LatentEncoder, Translator
from . import loop
from .contrasts import ContrastPairs, DisturbanceSpec
from .data import AugmentationSpec, DataSpec, DegradationSpec, SlicePairs
from .loop import CHECKPOINT_SECONDS, CURVE_STEPS, MovingAverage, Report, Run
from .pack import Pack
from .recipes import Recipe, load_recipe

BETAS = (0.5, 0.999)  # BicycleGAN's Adam
PRETRAINING_BETAS = (0.9, 0.999)
LOSSES = ("l1", "gan", "features", "latent", "kl", "anchor", "spread")
VALIDATION_PAIRS = 24
VALIDATION_SEED = 20
VALIDATION_SAMPLES = 4
PRETRAINED = (
    "pretrained"  # folder of the package as it was after L1 alone: for translation, the regressor to compare with
)
LAST_RATE = 0.05  # of the pre-training's cosine, relative to its first
RANK_STRIDE = 1_000_003  # between the seeds of two processes; more than the steps of a training


@dataclass(frozen=True)
class AdversarialSpec:
    """How the two sides play.

    pretraining: the part of the training on L1 alone. learning_rate: after it, of both sides, constant and then falling
    linearly over the last half. widths, scales: of the discriminators. encoder: widths of q(z|B), none of them for Pix2Pix with a
    drawn z, which is what table 2 compares with. features: what L_VGG compares,
    "tissue" (our segmentation network) or "vgg" (`vgg` is a local file of VGG-19's ImageNet weights, `vgg_digest` its SHA-256).
    esrgan, esrgan_digest: a local file of ESRGAN's weights to start an "rrdb" generator from, likewise; "" for random ones.
    """

    pretraining: float = 0.5
    learning_rate: float = 2e-4
    widths: tuple[int, ...] = (32, 64, 96, 128)
    scales: int = 2
    encoder: tuple[int, ...] = (32, 64, 96, 128)
    features: str = "tissue"
    vgg: str = ""
    vgg_digest: str = ""
    esrgan: str = ""
    esrgan_digest: str = ""


@dataclass(frozen=True)
class AdversarialData(DataSpec):
    """A `DataSpec` that may do without [data.degradation]: translation coarsens nothing."""

    degradation: DegradationSpec = field(default_factory=lambda: DegradationSpec({}))


@dataclass(frozen=True)
class AdversarialRecipe(Recipe):
    """A `Recipe` with [adversarial] and, for translation, [disturbance]."""

    data: AdversarialData
    adversarial: AdversarialSpec = field(default_factory=AdversarialSpec)
    disturbance: DisturbanceSpec = field(default_factory=DisturbanceSpec)

    def __post_init__(self) -> None:
        unknown = [name for name in self.loss if name not in LOSSES]
        if unknown:
            raise BadDocument(f"loss.{unknown[0]} is not a known loss; expected {', '.join(LOSSES)}")
        translates = self.card.get("task") == "translate"
        if translates and self.optimisation.batch < 2:
            raise BadDocument(
                f"optimisation.batch is {self.optimisation.batch}, expected 2 or more: one half of a batch plays cVAE-GAN, "
                "the other cLR-GAN"
            )
        if not translates and not self.data.degradation.kinds:
            raise BadDocument("data.degradation is missing: super-resolution learns from coarsened images")
        if self.adversarial.esrgan and self.architecture != "rrdb":
            raise BadDocument(
                f"adversarial.esrgan is given, and ESRGAN's weights fit the architecture 'rrdb', not '{self.architecture}'"
            )

    def weight(self, loss: str) -> float:
        """Of a loss in the sum; 0 where the recipe does not name it."""
        return self.loss.get(loss, 0.0)


class Game:
    """A generator, what it plays against, and how one batch is played. `network` holds them all, for checkpoints."""

    def __init__(self, plan: AdversarialRecipe, fabric: Fabric) -> None:
        self.plan, self.fabric = plan, fabric
        generator = networks.build(plan.architecture, plan.network)
        self.network = nn.ModuleDict({"generator": generator, **self.others()})
        self.network.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on CPUs
        critics = [name for name in self.network if name.startswith("critic")]
        makers = [name for name in self.network if name not in critics]
        self.optimisers = [
            torch.optim.Adam([p for name in names for p in self.network[name].parameters()], lr=0.0, betas=BETAS)
            for names in (makers, critics)
        ]
        self.makers, self.critics = makers, critics

    def others(self) -> dict[str, nn.Module]:
        """What trains beside the generator; discriminators' names begin with "critic"."""
        raise NotImplementedError

    def set_up(self) -> None:
        """Hand modules and optimisers to Fabric, once weights are loaded."""
        self.parts = {name: self.fabric.setup_module(module) for name, module in self.network.items()}
        self.maker, self.critic = (self.fabric.setup_optimizers(one) for one in self.optimisers)

    def pairs(self, pack: Pack, seed: int, start: int) -> Any:
        """The endless stream of training pairs."""
        raise NotImplementedError

    def play(self, batch: Sequence[Tensor], adversarial: bool) -> dict[str, Tensor]:
        """One update of the generator's side and, when `adversarial`, one of the discriminators'; the losses."""
        wanted = self.losses(batch, adversarial)
        total = torch.stack([self.plan.weight(name) * value for name, value in wanted.items()]).sum()
        self._update(self.maker, self.makers, total)
        if adversarial:
            wanted["critic"] = self.criticism()
            self._update(self.critic, self.critics, wanted["critic"])
        return {name: value.detach() for name, value in wanted.items()}

    def _update(self, optimiser: Any, names: list[str], loss: Tensor) -> None:
        self.network.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if self.plan.optimisation.clip:
            parameters = [p for name in names for p in self.network[name].parameters() if p.grad is not None]
            nn.utils.clip_grad_norm_(parameters, self.plan.optimisation.clip)
        optimiser.step()

    def losses(self, batch: Sequence[Tensor], adversarial: bool) -> dict[str, Tensor]:
        """Of the generator's side, by the names of the recipe's [loss]."""
        raise NotImplementedError

    def criticism(self) -> Tensor:
        """The discriminators' loss on the batch that `losses` has just seen."""
        raise NotImplementedError

    def score(self, generator: nn.Module) -> dict[str, float]:
        """Of `generator` on held-out pairs; "psnr" decides which weights are best. Empty without held-out data."""
        raise NotImplementedError


class SuperResolutionGame(Game):
    """Eq. 6: L_GAN + lambda_1 L_VGG + lambda_2 L_1 against one patch discriminator."""

    def __init__(self, plan: AdversarialRecipe, fabric: Fabric, held_out: Pack | None) -> None:
        super().__init__(plan, fabric)
        self.factors = self.network["generator"].factors
        self.features = feature_loss(plan).to(fabric.device) if plan.weight("features") else None
        self.held_out: tuple[Tensor, Tensor] | None = None
        if held_out is not None:
            sources = tuple(source for source in plan.data.sources if held_out.select(source.match))
            spec = replace(
                plan.data, sources=sources, augmentation=AugmentationSpec(False, (1.0, 1.0), 0.0, (1.0, 1.0), 0.0)
            )
            stream = SlicePairs(held_out, spec, self.factors, seed=VALIDATION_SEED)  # type: ignore[arg-type]
            self.held_out = tuple(torch.stack(images) for images in zip(*islice(stream, VALIDATION_PAIRS), strict=True))  # type: ignore[assignment]

    def others(self) -> dict[str, nn.Module]:
        """One discriminator (section 2.2)."""
        return {"critic": MultiScaleDiscriminator(1, self.plan.adversarial.widths, self.plan.adversarial.scales)}

    def pairs(self, pack: Pack, seed: int, start: int) -> Any:
        """Low and high."""
        return SlicePairs(pack, self.plan.data, self.factors, seed=seed, start=start)  # type: ignore[arg-type]

    def losses(self, batch: Sequence[Tensor], adversarial: bool) -> dict[str, Tensor]:
        """L1, and the other two when `adversarial`."""
        low, self.real = batch
        answer = self.parts["generator"](low).float()
        self.fake = answer.detach()
        found = {"l1": (answer - self.real).abs().mean()}
        if adversarial:
            found["gan"] = judged(self.parts["critic"](answer), REAL)
            if self.features is not None:
                found["features"] = self.features(answer, self.real)
        return found

    def criticism(self) -> Tensor:
        """Real is real, fake is fake."""
        critic = self.parts["critic"]
        return judged(critic(self.real), REAL) + judged(critic(self.fake), FAKE)

    def score(self, generator: nn.Module) -> dict[str, float]:
        """PSNR, dB for a range of 1, beside bicubic interpolation's."""
        if self.held_out is None:
            return {}
        low, high = self.held_out
        from ..networks.projection import bicubic

        return {
            "psnr": loop.psnr(generator(low).float(), high),
            "psnr_bicubic": loop.psnr(bicubic(low, high.shape[-2:]), high),
        }


class TranslationGame(Game):
    """Eq. 7 and figure 3: cVAE-GAN (B -> z -> B') and cLR-GAN (z -> B' -> z'), a discriminator for each.

    The first half of a batch plays the one, the second half the other, in one pass of the generator. Images here span [0, 1], in
    BicycleGAN [-1, 1]: its lambda of 10 for L1 is 20 here. Discriminators see the source beside the image they judge, and are told
    the contrast. Pre-training is L1 of the answer to z = 0, so that its end is a plain U-Net regressor.

    Ours, off by default: "anchor", L1 of the mean of the answers to z and -z, which keeps the mean of samples near the truth while
    they spread around it; and "spread", which asks that those two differ as much as their mean errs, so that the deviation of
    samples says where not to trust them.
    """

    def __init__(self, plan: AdversarialRecipe, fabric: Fabric, held_out: Pack | None) -> None:
        super().__init__(plan, fabric)
        generator = self.network["generator"]
        assert isinstance(generator, Translator)
        self.contrasts, self.latent = generator.contrasts, generator.latent
        self.held_out: tuple[Tensor, ...] | None = None
        if held_out is not None:
            sources = tuple(
                source for source in plan.data.sources if source.planes == "axial" and held_out.select(source.match)
            )
            still = DisturbanceSpec(0.0, 0.0, 0.0, (1.0, 1.0), (1.0, 1.0), 0.0, 0.0)
            spec = replace(
                plan.data, sources=sources, augmentation=AugmentationSpec(False, (1.0, 1.0), 0.0, (1.0, 1.0), 0.0)
            )
            stream = DataLoader(
                ContrastPairs(held_out, spec, still, self.contrasts, seed=VALIDATION_SEED), VALIDATION_PAIRS
            )
            self.held_out = tuple(next(iter(stream)))

    def others(self) -> dict[str, nn.Module]:
        """The encoder q(z|B) and one two-scale discriminator a branch."""
        contrasts = self.plan.network.get("contrasts", CONTRASTS)
        latent = self.plan.network.get("latent", LATENT)
        widths = self.plan.adversarial.encoder
        encoder = {"encoder": LatentEncoder(widths=widths, latent=latent, contrasts=contrasts)} if widths else {}
        return {
            **encoder,
            **{
                f"critic_{branch}": MultiScaleDiscriminator(
                    2, self.plan.adversarial.widths, self.plan.adversarial.scales, len(contrasts)
                )
                for branch in ("vae", "lr")
            },
        }

    def pairs(self, pack: Pack, seed: int, start: int) -> Any:
        """Source, target and their contrasts."""
        return ContrastPairs(pack, self.plan.data, self.plan.disturbance, self.contrasts, seed=seed, start=start)

    def losses(self, batch: Sequence[Tensor], adversarial: bool) -> dict[str, Tensor]:
        """L1 at z = 0 and, when `adversarial`, the terms of eq. 7."""
        source, self.real, a, b = batch
        generator = self.parts["generator"]
        nothing = source.new_zeros(len(source), self.latent)
        if not adversarial:
            return {"l1": (generator(source, nothing, a, b).float() - self.real).abs().mean()}
        half, found = len(source) // 2, {}
        z = drawn = torch.randn(len(source), self.latent, device=source.device)
        if "encoder" in self.parts:
            mean, log_variance = self.parts["encoder"](self.real[:half], b[:half])
            z = torch.cat((mean + (0.5 * log_variance).exp() * drawn[:half], drawn[half:]))
            found["kl"] = kl_divergence(mean, log_variance)
        answer = generator(source, z, a, b).float()
        self.judged = torch.cat((source, answer), 1)  # (B, 2, H, W)
        self.half, self.source, self.b = half, source, b
        aimed = slice(half) if "encoder" in self.parts else slice(None)  # only an encoded z is told what to aim at
        found |= {
            "l1": (answer[aimed] - self.real[aimed]).abs().mean(),
            "gan": judged(self.parts["critic_vae"](self.judged[:half], b[:half]), REAL)
            + judged(self.parts["critic_lr"](self.judged[half:], b[half:]), REAL),
        }
        if self.plan.weight("latent") and "encoder" in self.parts:
            found["latent"] = self._latent_recovered(answer[half:], b[half:], drawn[half:])
        if self.plan.weight("anchor"):
            mirrored = generator(source[half:], -drawn[half:], a[half:], b[half:]).float()
            error = 0.5 * (answer[half:] + mirrored) - self.real[half:]
            found["anchor"] = error.abs().mean()
            found["spread"] = (0.5 * (answer[half:] - mirrored).abs() - error.abs().detach()).abs().mean()
        return found

    def _latent_recovered(self, answer: Tensor, contrast: Tensor, drawn: Tensor) -> Tensor:
        """L1 between z and what the encoder reads from G(A, z); only the generator learns from it (BicycleGAN, appendix)."""
        encoder = self.parts["encoder"]
        frozen = [p.requires_grad_(False) for p in encoder.parameters() if p.requires_grad]
        mean, _ = encoder(answer, contrast)
        for parameter in frozen:
            parameter.requires_grad_(True)
        return (mean - drawn).abs().mean()

    def criticism(self) -> Tensor:
        """Each branch's discriminator on its half of the batch."""
        real, fake = torch.cat((self.source, self.real), 1), self.judged.detach()
        parts = {"critic_vae": slice(None, self.half), "critic_lr": slice(self.half, None)}
        return torch.stack(
            [
                judged(self.parts[name](real[part], self.b[part]), REAL)
                + judged(self.parts[name](fake[part], self.b[part]), FAKE)
                for name, part in parts.items()
            ]
        ).sum()

    def score(self, generator: nn.Module) -> dict[str, float]:
        """PSNR (dB for a range of 1) of z = 0 and of the mean of samples, and the samples' spread."""
        if self.held_out is None:
            return {}
        source, target, a, b = self.held_out
        torch_generator = torch.Generator().manual_seed(VALIDATION_SEED)
        codes = torch.randn(VALIDATION_SAMPLES, self.latent, generator=torch_generator)
        zero = generator(source, source.new_zeros(len(source), self.latent), a, b).float()
        samples = torch.stack([generator(source, z.expand(len(source), -1), a, b).float() for z in codes])
        return {
            "psnr": loop.psnr(samples.mean(0), target),
            "psnr_zero": loop.psnr(zero, target),
            "psnr_copy": loop.psnr(source, target),
            "spread": float(samples.std(0).mean()),
        }


def feature_loss(plan: AdversarialRecipe) -> PerceptualLoss:
    """What the recipe compares features with; `MissingRequirement` if its weights are not here."""
    if plan.adversarial.features == "vgg":
        from ..networks.fasr import TextureExtractor

        extractor = TextureExtractor()
        extractor.load_vgg(read_vgg19(plan.adversarial.vgg, plan.adversarial.vgg_digest))
        return PerceptualLoss(extractor)
    if plan.adversarial.features == "tissue":
        from ..losses.tissue import tissue_features

        return PerceptualLoss(tissue_features())
    raise UsageError(f"adversarial.features is '{plan.adversarial.features}', expected 'tissue' or 'vgg'")


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
    """Train a generator against discriminators; arguments and result as `loop.train`."""
    plan, text = load_recipe(recipe, AdversarialRecipe)
    run = Run(recipe, plan, text, data, out, minutes=minutes, resume=resume, device=device, seed=seed, report=report)
    fabric, progress = run.fabric, run.progress
    game_of = TranslationGame if run.card.task == "translate" else SuperResolutionGame
    game: Game = game_of(plan, fabric, loop.held_out(run.data, run.out, report) if run.is_first else None)
    generator = game.network["generator"]
    if plan.adversarial.esrgan:
        path, wanted = Path(plan.adversarial.esrgan), plan.adversarial.esrgan_digest or None
        weights, digest = read_weights(path, wanted, "ESRGAN's weights there, as safetensors", "esrgan")
        run.report(f"{load_esrgan(generator, weights)}, SHA-256 {digest}")  # type: ignore[arg-type]
        run.card_fields = loop.with_note(run.card_fields, f"started from ESRGAN weights, SHA-256 {digest}")
    if init:
        run.report(loop.initialise(generator, init))
    average = MovingAverage(generator, plan.optimisation.ema)
    run.track(game.network, average, game.optimisers)
    game.set_up()
    batches = run.batches(game.pairs(run.pack(), seed + fabric.global_rank, progress.samples), workers)
    told: dict[str, list[float]] = {}
    playing = progress.minutes > 0 and (run.out / PRETRAINED).is_dir()
    run.start()
    for batch in batches:
        done = run.done()
        if done >= 1:
            break
        adversarial = set_rates(game, plan, progress.step, done)
        if adversarial and not playing and run.is_first and plan.adversarial.pretraining > 0:
            (run.out / PRETRAINED).mkdir(exist_ok=True)
            loop.export(run.out / PRETRAINED, plan, run.card_fields, average, progress, str(recipe))
        playing = adversarial
        batch = [part.to(fabric.device, non_blocking=True) for part in batch]
        # Latent codes too are a function of the step, for an exact resume, and each process draws its own.
        torch.manual_seed(seed + progress.step + RANK_STRIDE * fabric.global_rank)
        found = game.play(batch, adversarial)
        progress.step += 1
        progress.samples += len(batch[0])
        average.update(generator, progress.step)
        for name, value in found.items():
            told.setdefault(name, []).append(float(value))
        if progress.step % CURVE_STEPS == 0:
            means = {name: sum(values) / len(values) for name, values in told.items()}
            told = {}
            run.tell("  ".join(f"{name} {value:.4f}" for name, value in means.items()), **means)
        if run.is_due("check", 60 * plan.validation.every_minutes):
            validate(game, run)
        if run.is_due("save", CHECKPOINT_SECONDS):
            run.save()
    if run.is_first:
        validate(game, run)
    return run.finish()


def set_rates(game: Game, plan: AdversarialRecipe, step: int, done: float) -> bool:
    """The learning rates for this step, and whether it is an adversarial one; `done` is the part of the training behind us."""
    share = plan.adversarial.pretraining
    adversarial = done >= share
    if adversarial:
        behind = (done - share) / max(1e-9, 1 - share)
        rate = plan.adversarial.learning_rate * min(1.0, 2 * (1 - behind))
    else:
        behind = done / share
        rate = plan.optimisation.learning_rate * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * behind)))
        if step < plan.optimisation.warm_up:
            rate *= (step + 1) / plan.optimisation.warm_up
    for optimiser in game.optimisers:
        for group in optimiser.param_groups:
            group["lr"], group["betas"] = rate, BETAS if adversarial else PRETRAINING_BETAS
    return adversarial


@torch.inference_mode()
def validate(game: Game, run: Run) -> None:
    """Score the averaged generator, tell, and keep it if it is the best so far."""
    generator = networks.build(game.plan.architecture, game.plan.network).eval()
    generator.load_state_dict({name: value.cpu() for name, value in run.average.weights.items()})
    scores = game.score(generator)
    if not scores:
        return
    run.add_to_curves(**{f"held_out_{name}": value for name, value in scores.items()})
    run.report("  held out: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))
    run.keep_if_best(scores["psnr"])
