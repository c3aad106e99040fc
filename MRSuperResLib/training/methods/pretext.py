"""The vision transformer of Mahapatra and Ge (section 3.2): a UNETR learns to segment, then its transformer to name what it sees.

The paper's UNETR comes trained for segmentation; ours first learns tissues from images made of label maps. The pretext task is the
paper's, to name what an image shows: organs there, the plane of a brain scan here. What is shipped is a file of the transformer's
weights, fp16, for the method "disentangled".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from ...documents import BadDocument
from ...errors import UsageError
from ...losses.unetr import SIZES, NamingUNETR, unetr
from ..data.crops import ATTEMPTS, FOREGROUND, AugmentationSpec, CropDrawer, SourceSpec, recoloured
from ..data.samples import Samples, as_tensor
from ..method import Method, Validator
from ..pack import Pack
from ..recipes import Recipe
from .tissue import TissueImages, dice

NAMES = ("axial", "coronal", "sagittal")
FLAT = tuple(size for size, shape in SIZES.items() if shape["spatial_dims"] == 2)
HELD_OUT = 48


@dataclass(frozen=True)
class PretextSpec:
    """segmentation: the part of the training before the pretext task. weight_decay: of AdamW."""

    segmentation: float = 0.5
    weight_decay: float = 0.01


@dataclass(frozen=True)
class PretextRecipe(Recipe):
    """A `Recipe` with [pretext], whose [network] has a size only, one of `losses.unetr.SIZES` for slices."""

    pretext: PretextSpec = field(default_factory=PretextSpec)

    def __post_init__(self) -> None:
        if set(self.network) != {"size"} or self.network["size"] not in FLAT:
            raise BadDocument(f"network is {self.network}, expected a size alone, one of {', '.join(FLAT)}")
        if not 0 <= self.pretext.segmentation <= 1:
            raise BadDocument(f"pretext.segmentation is {self.pretext.segmentation}, expected 0 to 1")


class Pretext(Method):
    """One UNETR with a layer that names: dice and cross-entropy of tissues first, then cross-entropy of planes."""

    recipe = PretextRecipe
    losses = ("dice_ce", "naming")
    best = "score"
    ships_a_model = False

    def build_networks(self) -> dict[str, nn.Module]:
        """With random weights."""
        return {"network": NamingUNETR(unetr(self.plan.network["size"]), len(NAMES))}

    def prepare(self) -> None:
        """The loss of the segmentation."""
        from monai.losses import DiceCELoss

        self.loss = DiceCELoss(to_onehot_y=True, softmax=True)
        self.naming = False

    def build_optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """AdamW (section 4.1)."""
        rate, decay = self.plan.optimisation.learning_rate, self.plan.pretext.weight_decay
        return {"adam": torch.optim.AdamW(self.networks.parameters(), lr=rate, weight_decay=decay)}

    def stream(self, pack: Pack, seed: int, start: int) -> Any:
        """Made images with their tissues, scans with their planes."""
        return PretextImages(pack, self.plan.data.sources, SIZES[self.plan.network["size"]]["side"], seed, start)

    def set_rates(self, step: int, done: float) -> None:
        """Which of the two is learnt is a matter of time."""
        super().set_rates(step, done)
        self.naming = done >= self.plan.pretext.segmentation

    def training_step(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """One step on tissues or on planes."""
        image, tissues, scan, plane = batch
        network = self.parts["network"]
        if self.naming:
            losses = {"naming": functional.cross_entropy(network(scan, naming=True).float(), plane)}
        else:
            losses = {"dice_ce": self.loss(network(image).float(), tissues[:, None])}
        self.update("adam", sum(self.plan.weight(name) * loss for name, loss in losses.items()))  # type: ignore[arg-type]
        return losses

    def validator(self, held_out: Pack) -> Validator:
        """dice: mean over tissues; named: the share of planes that is right; score: their mean."""
        side = SIZES[self.plan.network["size"]]["side"]
        sources = tuple(source for source in self.plan.data.sources if held_out.select(source.match))
        images = DataLoader(PretextImages(held_out, sources, side, seed=1), HELD_OUT)
        image, tissues, scan, plane = (part.to(self.device) for part in next(iter(images)))

        def scores(network: nn.Module, step: int) -> dict[str, float]:
            of_tissues = dice(network(image).argmax(1), tissues)
            found = {
                "dice": sum(of_tissues.values()) / len(of_tissues),
                "named": float((network(scan, naming=True).argmax(1) == plane).float().mean()),
            }
            self.context.report(f"  held out: dice {found['dice']:.3f}, planes named {found['named']:.3f}")
            return {**found, "score": sum(found.values()) / 2}

        return scores

    def export(self, folder: Path) -> Path:
        """The averaged transformer's weights in fp16."""
        start = "unetr."
        weights = {name.removeprefix(start): value for name, value in self.average.weights.items()}
        path = folder / f"transformer-{self.plan.network['size']}.safetensors"
        save_file({n: value.half().contiguous().cpu() for n, value in weights.items() if n.startswith("vit.")}, path)
        return path


class PretextImages(Samples):
    """(made image (1, p, p), its tissues (p, p), scan (1, p, p), index of its plane in `NAMES`).

    Raises `UsageError` unless there are label maps and scans.
    """

    def __init__(self, pack: Pack, sources: tuple[SourceSpec, ...], side: int, seed: int = 0, start: int = 0) -> None:
        super().__init__(seed, start)
        self.tissues = TissueImages(pack, sources, side)
        self.drawer, self.side = CropDrawer(pack, sources), side
        entries = [(source, entry) for source, some in self.drawer.choices for entry in some]
        self.scans = [(source, entry) for source, entry in entries if not entry.labels]
        for what, there in (("label map", len(self.scans) < len(entries)), ("scan", bool(self.scans))):
            if not there:
                raise UsageError(
                    f"no {what} in {pack.path.name} matches data.sources: tissues and planes are learnt from both"
                )

    def sample(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """One of each as tensors."""
        image, tissues = self.tissues.sample(rng)
        scan, plane = self.scan(rng)
        return image, tissues, as_tensor(scan), torch.tensor(plane)

    def scan(self, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """A crop (p, p) of a scan in one of its sharp planes, and which."""
        for _ in range(ATTEMPTS):
            source, entry = self.scans[rng.integers(len(self.scans))]
            name = source.planes if source.planes != "all" else str(rng.choice(NAMES))
            stored = self.drawer.crop(entry, name, (self.side, self.side), rng)
            image = self.drawer.pack.unit(entry, stored)
            if image.mean() > FOREGROUND:
                break
        image = recoloured(image[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))], AugmentationSpec(), rng)
        if rng.random() < 0.5:  # coarse ones are to be understood too
            image = ndimage.gaussian_filter(image, rng.uniform(0, 2.0))
        return np.ascontiguousarray(image, dtype=np.float32), NAMES.index(name)


METHOD = Pretext
