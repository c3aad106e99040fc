"""The generative prior of TransMRSR (Huang, Liu, et al. 2023, section 3.3): StyleSwin learns what sharp brain slices look like.

Non-saturating loss, a gradient penalty on real slices (R1) every few steps, two rates of learning, a moving average of the
generator (StyleSwin, section 4.1). At the end 60,000 latents of the averaged generator are gathered around 8 centres by
k-means; the package of the first stage holds them, and `with_prior` trains the second stage from it. A picture of 64 samples is
in the folder of every run, and one for each validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import networks
from ...errors import MissingRequirement, ModelError, UsageError
from ...networks.stylswin import StyleSwin, WaveletDiscriminator
from ..method import Method, Validator, of_kind, scheduled_rate
from ..pack import Pack
from ..recipes import Recipe
from ..streams.slices import SharpSlices
from ..streams.stream import StreamSpec

LATENTS = 60_000  # section 4.3
SAMPLES = 64
AT_ONCE = 16
SAMPLE_SEED = 3  # of the noise behind pictures, so that those of two runs can be compared


@dataclass(frozen=True)
class PriorSpec:
    """How generator and discriminator are trained.

    ratio: of the discriminator's learning rate to the generator's. betas: of both Adams. penalty: weight of R1; every: steps from
    one penalty to the next. latents: how many the centres are found from.
    """

    ratio: float = 4.0
    betas: tuple[float, float] = (0.0, 0.99)
    penalty: float = 10.0
    every: int = 16
    latents: int = LATENTS


@dataclass(frozen=True)
class PriorRecipe(Recipe):
    """A `Recipe` with [prior], whose slices are drawn on the device."""

    data: StreamSpec = field(default_factory=StreamSpec)  # type: ignore[assignment]
    prior: PriorSpec = field(default_factory=PriorSpec)


class Prior(Method):
    """A StyleSwin generator against its wavelet discriminator."""

    recipe = PriorRecipe
    losses = ("gan",)
    exported = "generator"

    def build_networks(self) -> dict[str, nn.Module]:
        """Generator and discriminator, of the same channels."""
        generator = networks.build(self.plan.architecture, self.plan.network)
        self.generator: StyleSwin = of_kind(generator, StyleSwin, self.plan)
        channels = [level.width for level in self.generator.decoder.levels]
        return {"generator": generator, "discriminator": WaveletDiscriminator(channels)}

    def prepare(self) -> None:
        """Fail now if scikit-learn is missing."""
        if len(self.generator.centres):
            k_means()

    def start_from(self, model: str) -> str:
        """An earlier first stage."""
        said = super().start_from(model)
        self.generator.centres.zero_()
        return said

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """One for each side."""
        return {
            name: torch.optim.Adam(network.parameters(), lr=0.0, betas=self.plan.prior.betas)
            for name, network in self.networks.items()
        }

    def set_up(self) -> None:
        """The discriminator's convolutions are faster with channels last."""
        self.networks["discriminator"].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().set_up()

    def stream(self, pack: Pack, seed: int, start: int) -> Any:
        """Sharp slices, of the generator's size."""
        if self.plan.data.matrix != self.generator.size:
            raise UsageError(
                f"recipe: data.matrix is {self.plan.data.matrix}, and the generator draws {self.generator.size} pixels: "
                "make them agree"
            )
        return SharpSlices(pack, self.plan.data, self.plan.optimisation.batch, self.device, seed, start)

    def set_rates(self, step: int, done: float) -> None:
        """As [optimisation] says for the generator, `prior.ratio` times as much for the discriminator; and which step it is."""
        self.step = step
        rate = scheduled_rate(self.plan.optimisation, step, done)
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = rate * (self.plan.prior.ratio if name == "discriminator" else 1.0)

    def training_step(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """One update of the discriminator, now and then one of its penalty, and one of the generator."""
        (real,) = batch  # (B, 1, size, size)
        generator, discriminator = self.parts["generator"], self.parts["discriminator"]
        with torch.no_grad():
            fake = generator(self.noise(len(real)))
        # apart, or the deviation over a group of images would be of real and fake ones together, and fakes all alike not show
        of_real, of_fake = discriminator(real).float(), discriminator(fake.to(real.dtype)).float()
        loss = functional.softplus(-of_real).mean() + functional.softplus(of_fake).mean()
        self.update("discriminator", loss)
        losses = {"discriminator": loss, "real": of_real.mean(), "fake": of_fake.mean()}
        if self.plan.prior.penalty and self.step % self.plan.prior.every == 0:
            losses["penalty"] = self.penalise(real)
        self.networks["discriminator"].requires_grad_(False)
        losses["gan"] = functional.softplus(-discriminator(generator(self.noise(len(real)))).float()).mean()
        self.update("generator", self.plan.weight("gan") * losses["gan"])
        self.networks["discriminator"].requires_grad_(True)
        return {name: loss.detach() for name, loss in losses.items()}

    def penalise(self, real: Tensor) -> Tensor:
        """R1: the squared gradient of the scores of real slices, in fp32. It stands for all the steps from one to the next.

        It needs second derivatives, which neither the compiler nor wrappers for several processes have: the bare network gives
        them, and the processes' gradients are averaged here.
        """
        discriminator = self.networks["discriminator"]
        self.networks.zero_grad(set_to_none=True)
        real = real.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
        penalty = gradient.square().sum((1, 2, 3)).mean()
        (0.5 * self.plan.prior.penalty * self.plan.prior.every * penalty).backward()
        if self.fabric.world_size > 1:
            for parameter in discriminator.parameters():
                if parameter.grad is not None:
                    parameter.grad = self.fabric.all_reduce(parameter.grad, reduce_op="mean")  # type: ignore[assignment]
        self._wrapped["discriminator"].step()  # type: ignore[union-attr]
        return penalty

    def noise(self, count: int) -> Tensor:
        """(count, latent), normally distributed."""
        return torch.randn(count, self.generator.latent, device=self.device)

    def validator(self, held_out: Pack) -> Validator:
        """A picture of samples; a prior has no score that a held-out scan could give."""

        def pictured(network: nn.Module, step: int) -> dict[str, float]:
            picture(of_kind(network, StyleSwin, self.plan), self.context.out / f"samples-{step:06d}.png")
            return {}

        return pictured

    def export(self, folder: Path) -> Path | None:
        """Find the centres, so that the package that is written next holds them, and draw the samples."""
        generator = networks.build(self.plan.architecture, self.plan.network).to(self.device).eval()
        generator.load_state_dict(self.average.weights)
        assert isinstance(generator, StyleSwin)
        picture(generator, folder / "samples.png")
        count = len(generator.centres)
        if count:
            centres = centres_of(generator, count, self.plan.prior.latents, self.context.seed)
            self.average.weights["centres"] = centres.to(self.device)
            self.context.notes.append(f"{count} centres by k-means from {self.plan.prior.latents} latents")
        return None


@torch.no_grad()
def centres_of(generator: StyleSwin, count: int, latents: int, seed: int) -> Tensor:
    """(count, latent): centres of `latents` random latents of `generator` by k-means.

    Raises `MissingRequirement` without scikit-learn, `ModelError` if there are fewer latents than centres.
    """
    cluster = k_means()
    if latents < count:
        raise ModelError(
            f"prior.latents is {latents}, expected at least as many as centres, {count}", code="bad-recipe"
        )
    noise = torch.randn(latents, generator.latent, generator=torch.Generator().manual_seed(seed))
    device = next(generator.parameters()).device
    codes = torch.cat([generator.mapping(part.to(device)).float().cpu() for part in noise.split(4096)])
    found = cluster(count, n_init=4, random_state=seed).fit(codes.numpy())
    return torch.from_numpy(found.cluster_centers_).float()


def k_means() -> type[Any]:
    """scikit-learn's k-means. Raises `MissingRequirement` without it."""
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise MissingRequirement(
            "centres of latents need scikit-learn: pip install 'mrsuperres[train]'", code="no-scikit-learn"
        ) from error
    found: type[Any] = KMeans
    return found


@torch.no_grad()
def picture(generator: StyleSwin, path: Path, samples: int = SAMPLES) -> None:
    """Write `samples` slices of `generator`, eight a row, as an image file."""
    from matplotlib.image import imsave

    noise = torch.randn(samples, generator.latent, generator=torch.Generator().manual_seed(SAMPLE_SEED))
    device = next(generator.parameters()).device
    slices = torch.cat([generator(part.to(device)).float().cpu() for part in noise.split(AT_ONCE)])
    rows = [torch.cat(list(row[:, 0]), 1) for row in slices.split(8)]
    imsave(path, torch.cat(rows).clamp(0, 1).numpy(), cmap="gray", vmin=0.0, vmax=1.0)


METHOD = Prior
