"""Translation with a latent code, as MTSR-MRI does it (eq. 7 and figure 3): cVAE-GAN and cLR-GAN against a discriminator each.

Pre-training is L1 of the answer to z = 0, so that its end is a plain U-Net regressor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ...documents import BadDocument
from ...losses.adversarial import FAKE, REAL, kl_divergence, lsgan_loss
from ...networks.parts.patchgan import MultiScaleDiscriminator
from ...networks.translation import CONTRASTS, LATENT, LatentEncoder, Translator
from ..data.translation import ContrastPairs, DisturbanceSpec
from ..method import Validator, of_kind
from ..pack import Pack
from ..recipes import Recipe
from ..report import psnr
from ..streams.translation import TranslationStream, TranslationStreamSpec
from .adversarial import VALIDATION_PAIRS, VALIDATION_SEED, Adversarial, AdversarialStage

VALIDATION_SAMPLES = 4


@dataclass(frozen=True)
class TranslationSpec(AdversarialStage):
    """And the widths of q(z|B); none of them for Pix2Pix with a drawn z, which is what table 2 compares with."""

    encoder: tuple[int, ...] = (32, 64, 96, 128)


@dataclass(frozen=True)
class TranslationRecipe(Recipe):
    """A `Recipe` with [adversarial] and [disturbance]; with [stream], pairs have lesions and are drawn on the device."""

    adversarial: TranslationSpec = field(default_factory=TranslationSpec)
    disturbance: DisturbanceSpec = field(default_factory=DisturbanceSpec)
    stream: TranslationStreamSpec | None = None

    def __post_init__(self) -> None:
        if self.optimisation.batch < 2:
            raise BadDocument(
                f"optimisation.batch is {self.optimisation.batch}, expected 2 or more: one half of a batch trains cVAE-GAN, "
                "the other cLR-GAN"
            )


class Translation(Adversarial):
    """cVAE-GAN (B -> z -> B') and cLR-GAN (z -> B' -> z').

    The first half of a batch trains the one, the second half the other, in one pass of the generator. Images here span [0, 1], in
    BicycleGAN [-1, 1]: its lambda of 10 for L1 is 20 here. Discriminators see the source beside the image they judge, and are told
    the contrast.

    Ours, off by default: "anchor", L1 of the mean of the answers to z and -z, which keeps the mean of samples near the truth while
    they spread around it; and "spread", which asks that those two differ as much as their mean errs, so that the deviation of
    samples says where not to trust them.
    """

    recipe = TranslationRecipe
    losses = ("l1", "gan", "latent", "kl", "anchor", "spread")

    def build_others(self) -> dict[str, nn.Module]:
        """The encoder q(z|B) and one two-scale discriminator a branch."""
        contrasts = self.plan.network.get("contrasts", CONTRASTS)
        latent = self.plan.network.get("latent", LATENT)
        spec = self.plan.adversarial
        encoder = (
            {"encoder": LatentEncoder(widths=spec.encoder, latent=latent, contrasts=contrasts)} if spec.encoder else {}
        )
        return {
            **encoder,
            **{
                f"discriminator_{branch}": MultiScaleDiscriminator(2, spec.widths, spec.scales, len(contrasts))
                for branch in ("vae", "lr")
            },
        }

    def prepare(self) -> None:
        """The generator's contrasts and length of z."""
        self.begin_pretraining()
        generator: Translator = of_kind(self.networks["generator"], Translator, self.plan)
        self.contrasts, self.latent = generator.contrasts, generator.latent

    def stream(self, pack: Pack, seed: int, start: int) -> Any:
        """Source, target and their contrasts, and with [stream] the weight of each pixel."""
        plan = self.plan
        if plan.stream is None:
            return ContrastPairs(pack, plan.data, plan.disturbance, self.contrasts, seed=seed, start=start)
        return TranslationStream(
            pack,
            plan.data.sources,
            plan.data.patch,
            plan.stream,
            plan.disturbance,
            self.contrasts,
            plan.optimisation.batch,
            self.device,
            seed,
            start,
        )

    def generator_losses(self, batch: Sequence[Tensor], adversarial: bool) -> dict[str, Tensor]:
        """L1 at z = 0 or, when `adversarial`, the terms of eq. 7."""
        source, self.real, a, b = batch[:4]
        weight = batch[4] if len(batch) > 4 else torch.ones_like(self.real)
        generator = self.parts["generator"]
        nothing = source.new_zeros(len(source), self.latent)
        if not adversarial:
            return {"l1": weighted(generator(source, nothing, a, b).float() - self.real, weight)}
        half, found = len(source) // 2, {}
        z = drawn = torch.randn(len(source), self.latent, device=source.device)
        if "encoder" in self.parts:
            mean, log_variance = self.parts["encoder"](self.real[:half], b[:half])
            z = torch.cat((mean + (0.5 * log_variance).exp() * drawn[:half], drawn[half:]))
            found["kl"] = kl_divergence(mean, log_variance)
        answer = generator(source, z, a, b).float()
        self.fake = torch.cat((source, answer), 1)  # (B, 2, H, W)
        self.half, self.source, self.b = half, source, b
        aimed = slice(half) if "encoder" in self.parts else slice(None)  # only an encoded z is told what to aim at
        found |= {
            "l1": weighted(answer[aimed] - self.real[aimed], weight[aimed]),
            "gan": lsgan_loss(self.parts["discriminator_vae"](self.fake[:half], b[:half]), REAL)
            + lsgan_loss(self.parts["discriminator_lr"](self.fake[half:], b[half:]), REAL),
        }
        if self.plan.weight("latent") and "encoder" in self.parts:
            found["latent"] = self.latent_loss(answer[half:], b[half:], drawn[half:])
        if self.plan.weight("anchor"):
            mirrored = generator(source[half:], -drawn[half:], a[half:], b[half:]).float()
            error = 0.5 * (answer[half:] + mirrored) - self.real[half:]
            found["anchor"] = weighted(error, weight[half:])
            apart = 0.5 * (answer[half:] - mirrored).abs()
            found["spread"] = weighted(apart - error.abs().detach(), weight[half:])
        return found

    def latent_loss(self, answer: Tensor, contrast: Tensor, drawn: Tensor) -> Tensor:
        """L1 between z and what the encoder reads from G(A, z); only the generator learns from it (BicycleGAN, appendix)."""
        encoder = self.parts["encoder"]
        frozen = [p.requires_grad_(False) for p in encoder.parameters() if p.requires_grad]
        mean, _ = encoder(answer, contrast)
        for parameter in frozen:
            parameter.requires_grad_(True)
        return (mean - drawn).abs().mean()

    def discriminator_loss(self) -> Tensor:
        """Each branch's discriminator on its half of the batch that `generator_losses` has just seen."""
        real, fake = torch.cat((self.source, self.real), 1), self.fake.detach()
        parts = {"discriminator_vae": slice(None, self.half), "discriminator_lr": slice(self.half, None)}
        return torch.stack(
            [
                lsgan_loss(self.parts[name](real[part], self.b[part]), REAL)
                + lsgan_loss(self.parts[name](fake[part], self.b[part]), FAKE)
                for name, part in parts.items()
            ]
        ).sum()

    def validator(self, held_out: Pack) -> Validator | None:
        """PSNR (dB for a range of 1) of z = 0 and of the mean of samples, and the samples' spread."""
        matching = [source for source in self.plan.data.sources if held_out.select(source.match)]
        sources = tuple([source for source in matching if source.planes == "axial"] or matching)
        still = DisturbanceSpec(0.0, 0.0, 0.0, (1.0, 1.0), (1.0, 1.0), 0.0, 0.0)
        spec = self.plan.data.without_augmentation(sources)
        pairs = ContrastPairs(held_out, spec, still, self.contrasts, seed=VALIDATION_SEED)
        source, target, a, b = (part.to(self.device) for part in next(iter(DataLoader(pairs, VALIDATION_PAIRS))))
        generator = torch.Generator().manual_seed(VALIDATION_SEED)
        codes = torch.randn(VALIDATION_SAMPLES, self.latent, generator=generator).to(self.device)

        def scores(network: nn.Module, step: int) -> dict[str, float]:
            zero = network(source, source.new_zeros(len(source), self.latent), a, b).float()
            samples = torch.stack([network(source, z.expand(len(source), -1), a, b).float() for z in codes])
            found = {
                "psnr": psnr(samples.mean(0), target),
                "psnr_zero": psnr(zero, target),
                "psnr_copy": psnr(source, target),
                "spread": float(samples.std(0).mean()),
            }
            return self.reported(found)

        return scores


def weighted(error: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute error with that weight of each pixel."""
    return (weight * error.abs()).sum() / weight.sum()


METHOD = Translation
