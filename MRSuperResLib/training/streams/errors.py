"""Batches of pixels of a translator's answers and of how far they are from the truth, on pairs with and without lesions.

Answers are made once, on crops drawn as for a translation's training, and kept beside the pack; batches are drawn from them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import UsageError
from ...networks.error_scale import features
from ..data.translation import DisturbanceSpec
from .lesions import LesionSpec
from .physics import PhysicsSpec
from .translation import TranslationStream, TranslationStreamSpec

if TYPE_CHECKING:
    from ..data.crops import SourceSpec
    from ..pack import Pack

ANSWERS = 1  # counts up when answers are made otherwise
AT_ONCE = 8  # crops
HEAD = 0.1  # on the networks' scale, in source or target: what is brighter is head
NEAR = 3  # pixels around it belong to it
AIR_WEIGHT = 0.5  # of pixels elsewhere: a reader sees air too
BORDER = 8  # pixels of a crop, where a translator lacks what it would see in a whole slice
PIXELS = 1500  # of a crop: its neighbours tell nothing new
Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # features (N, FEATURES), error, weight, contrasts (N,)


@dataclass(frozen=True)
class ErrorStreamSpec:
    """crops: how many are answered. samples: of an answer; one of these numbers is drawn. Else as `TranslationStreamSpec`."""

    crops: int = 1000
    samples: tuple[int, ...] = (2, 4)
    spacing: tuple[float, float] = (0.65, 1.2)
    plain: float = 0.75
    lesions: LesionSpec = field(default_factory=lambda: LesionSpec((0.6, 0.25, 0.1, 0.05)))
    physics: PhysicsSpec = field(default_factory=PhysicsSpec)


class ErrorStream:
    """Endless batches (features, error, weight, a, b) of `batch` pixels; `start` pixels have been drawn before.

    features: of source, mean and deviation, as `networks.error_scale` has them, (N, FEATURES). error: absolute, of the mean, on the
    networks' scale, (N,). Batch n depends on `seed` and n alone.
    """

    def __init__(
        self,
        shelf: AnswerShelf,
        batch: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
        start: int = 0,
    ) -> None:
        self.batch, self.seed, self.number = batch, seed, start // batch
        self.device = torch.device(device)
        host = np.random.default_rng((seed, PIXELS))
        parts: list[list[Tensor]] = [[], [], []]
        for first in range(0, len(shelf), AT_ONCE):
            images = shelf.images[first : first + AT_ONCE].float()
            source, mean, deviation, target = images.split(1, 1)
            found = (
                features(torch.cat((source, mean, deviation), 1)),
                (mean - target).abs(),
                weights(source, target),
            )
            chosen = torch.from_numpy(host.integers(images[0, 0].numel(), size=(len(images), 1, PIXELS)))
            for part, each in zip(parts, found, strict=True):
                part.append(
                    each.flatten(2).gather(2, chosen.expand(-1, each.shape[1], -1)).permute(0, 2, 1).flatten(0, 1)
                )
        self.features, error, weight = (torch.cat(part) for part in parts)
        self.error, self.weight = error[:, 0], weight[:, 0]
        self.contrasts = shelf.contrasts.repeat_interleave(PIXELS, 0)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.draw(self.number)
            self.number += 1

    def draw(self, number: int) -> Batch:
        """Batch `number`, of random pixels of random crops."""
        host = np.random.default_rng((self.seed, number))
        chosen = torch.from_numpy(host.integers(len(self.error), size=self.batch))
        a, b = self.contrasts[chosen].T
        found = (self.features[chosen], self.error[chosen], self.weight[chosen], a, b)
        return tuple(each.to(self.device) for each in found)  # type: ignore[return-value]


def weights(source: Tensor, target: Tensor) -> Tensor:
    """Of pixels (B, 1, H, W): 1 in the head, little in air, none at a crop's border."""
    head = (torch.maximum(source, target) > HEAD).float()
    weight = functional.max_pool2d(head, NEAR, 1, NEAR // 2).clamp_min(AIR_WEIGHT)
    inside = functional.pad(torch.ones_like(weight[..., BORDER:-BORDER, BORDER:-BORDER]), (BORDER,) * 4)
    return weight * inside


class AnswerShelf:
    """A translator's answers on crops: images (n, 4, p, p), source, mean, deviation and target; contrasts (n, 2); origins (n,).

    origins: which of the sources a crop is from. kept: a file of answers made before, used if it is of the same, else written.
    """

    def __init__(
        self,
        pack: Pack,
        sources: Sequence[SourceSpec],
        patch: int,
        spec: ErrorStreamSpec,
        disturbance: DisturbanceSpec,
        translator: nn.Module,
        digest: str,
        device: torch.device | str = "cpu",
        seed: int = 0,
        kept: Path | None = None,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        text = repr(
            (ANSWERS, pack.source, [(s.match, s.weight) for s in sources], patch, spec, disturbance, digest, seed)
        )
        wanted = hashlib.sha256(text.encode()).hexdigest()
        stored = _stored(kept, wanted)
        if stored is None:
            stored = _answered(pack, sources, patch, spec, disturbance, translator, device, seed, report)
            if kept is not None and os.access(kept.parent, os.W_OK):
                np.savez(kept, key=np.array(wanted), **stored)  # type: ignore[arg-type]
        self.images = torch.from_numpy(stored["images"])
        self.contrasts = torch.from_numpy(stored["contrasts"])
        self.origins = stored["origins"]

    def __len__(self) -> int:
        return len(self.images)


def _stored(path: Path | None, wanted: str) -> dict[str, np.ndarray] | None:
    """The arrays kept in `path`; None if they are of something else."""
    if path is None or not path.is_file():
        return None
    with np.load(path) as file:
        return {name: file[name] for name in file.files if name != "key"} if str(file["key"]) == wanted else None


def _answered(
    pack: Pack,
    sources: Sequence[SourceSpec],
    patch: int,
    spec: ErrorStreamSpec,
    disturbance: DisturbanceSpec,
    translator: nn.Module,
    device: torch.device | str,
    seed: int,
    report: Callable[[str], None],
) -> dict[str, np.ndarray]:
    """The arrays of a shelf; each source has its weight's share of the crops."""
    total = sum(source.weight for source in sources)
    if not total:
        raise UsageError("every source has the weight 0: nothing can be drawn")
    found: list[dict[str, np.ndarray]] = []
    for number, source in enumerate(sources):
        stream = pair_stream(pack, source, patch, spec, disturbance, translator, device, seed + number)
        count = max(1, round(spec.crops * source.weight / total / AT_ONCE))
        for batch in range(count):
            made = answered(stream, batch, translator, spec.samples)
            found.append({**made, "origins": np.full(AT_ONCE, number)})
        report(f"{source.match}: the translator has answered on {count * AT_ONCE} crops")
    return {name: np.concatenate([made[name] for made in found]) for name in found[0]}


def pair_stream(
    pack: Pack,
    source: SourceSpec,
    patch: int,
    spec: ErrorStreamSpec,
    disturbance: DisturbanceSpec,
    translator: nn.Module,
    device: torch.device | str,
    seed: int,
) -> TranslationStream:
    """Pairs of one source, of the translator's contrasts."""
    pairs = TranslationStreamSpec(spec.spacing, 0.0, 0.0, spec.plain, spec.lesions, spec.physics)
    contrasts: tuple[str, ...] = translator.contrasts  # type: ignore[assignment]
    return TranslationStream(pack, [source], patch, pairs, disturbance, contrasts, AT_ONCE, device, seed)


def answered(
    stream: TranslationStream, batch: int, translator: nn.Module, samples: Sequence[int]
) -> dict[str, np.ndarray]:
    """What the translator makes of batch number `batch` of `stream`: the arrays of a shelf, but for origins."""
    x, target, a, b, _ = stream.draw(batch)
    host = np.random.default_rng((stream.seed, batch, 1))
    drawn = int(host.choice(samples))
    codes = torch.from_numpy(host.standard_normal(((drawn + 1) // 2, len(x), int(translator.latent))))  # type: ignore[arg-type]
    answers: list[Tensor] = []
    with torch.inference_mode():
        for z in codes.to(x):  # in pairs that mirror each other, as `inference.sampling` draws them
            answers += [translator(x, z, a, b).float(), translator(x, -z, a, b).float()]
        stack = torch.stack(answers[:drawn])
        images = torch.cat((x, stack.mean(0), stack.std(0), target), 1)
    return {
        "images": images.cpu().numpy().astype(np.float16),
        "contrasts": torch.stack((a, b), 1).cpu().numpy(),
    }
