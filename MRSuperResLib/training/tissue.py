"""Trains the networks of `losses.tissue`: `python -m MRSuperResLib.training.tissue --data DIR --out FILE --minutes N`.

With `--network published` or `s` it is FASR-Net's texture extractor of that size, and the file holds it without its head.

Every image is made from a label map, in one of the usual contrasts or one drawn at random, then blurred, noised and bent, so that
the network looks at shapes and borders and not only at how bright a tissue is.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from scipy import ndimage
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ..acquisition import add_rician_noise
from ..losses.tissue import TissueHead, new_extractor, tissue_network
from ..networks.fasr import SIZES
from . import loop
from .data import ATTEMPTS, CropDrawer, SourceSpec
from .pack import Pack
from .synthesis import LEVELS, TISSUES, deformed, synthesise, synthesise_contrasts, tissue_of

PATCH, BATCH, RATE = 128, 8, 1e-3
IN_HEAD = 0.3  # least part of a crop that is not air
KNOWN = 0.7  # of the images, how many have the levels of a usual contrast
HELD_OUT = 48
UNET = "unet"
LABELS = (SourceSpec("labels/*"),)


class TissueImages(IterableDataset[tuple[Tensor, Tensor]]):
    """An endless stream of (image (1, p, p) float32, indices into `TISSUES` (p, p)); number n depends on `seed` and n alone."""

    def __init__(self, pack: Pack, seed: int = 0) -> None:
        super().__init__()
        self.drawer, self.seed = CropDrawer(pack, LABELS), seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        number = 0
        while True:
            image, tissues = self.draw(np.random.default_rng((self.seed, number)))
            yield torch.from_numpy(image)[None], torch.from_numpy(tissues.astype(np.int64))
            number += 1

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One image and its tissues, (p, p) each."""
        entries = self.drawer.choices[0][1]
        for _ in range(ATTEMPTS):
            labels = self.drawer.crop(entries[rng.integers(len(entries))], "all", (PATCH, PATCH), rng)
            if np.mean(labels > 0) > IN_HEAD:
                break
        labels = deformed(labels, rng)
        known = [str(rng.choice(list(LEVELS)))] if rng.random() < KNOWN else None
        (image,) = (
            synthesise_contrasts(labels, known, rng, deform=False) if known else synthesise(labels, rng, deform=False)
        )
        if rng.random() < 0.5:
            image = ndimage.gaussian_filter(image, rng.uniform(0, 1.2, 2))
        if rng.random() < 0.5:
            image = add_rician_noise(image, rng.uniform(0, 0.08), rng)
        return np.asarray(image, dtype=np.float32), tissue_of(labels)


def train(data: Path, out: Path, minutes: float, device: str = "auto", size: str = UNET) -> dict[str, float]:
    """Train for `minutes` and write fp16 weights to `out`; Dice of each tissue on held-out label maps.

    size: "unet" for the tissue network, or one of `fasr.SIZES` for the texture extractor.
    """
    from monai.losses import DiceCELoss

    fabric = loop.make_fabric(device)
    fabric.seed_everything(0)
    network = tissue_network() if size == UNET else TissueHead(new_extractor(size))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model, optimiser = fabric.setup(network, torch.optim.Adam(network.parameters(), lr=RATE))
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    started = time.monotonic()
    batches = DataLoader(TissueImages(loop.training_pack(data, out.parent)), BATCH)
    for step, (image, tissues) in enumerate(batches, start=1):
        done = (time.monotonic() - started) / 60 / minutes
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = RATE * 0.5 * (1 + np.cos(np.pi * done))
        logits = model(image.to(fabric.device)).float()
        loss = loss_of(logits, tissues[:, None].to(fabric.device))
        optimiser.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimiser.step()
        if step % 50 == 0:
            print(f"step {step}  {done * minutes:.1f} min  loss {float(loss.detach()):.4f}", flush=True)
    kept = network.extractor if isinstance(network, TissueHead) else network
    save_file({name: value.half().contiguous().cpu() for name, value in kept.state_dict().items()}, out)
    return dice(network.cpu().eval(), loop.training_pack(data, out.parent, "val"))


@torch.inference_mode()
def dice(network: torch.nn.Module, held_out: Pack) -> dict[str, float]:
    """2 |A and B| / (|A| + |B|) of each tissue, over `HELD_OUT` images together."""
    images, tissues = next(iter(DataLoader(TissueImages(held_out, seed=1), HELD_OUT)))
    found = network(images).argmax(1)
    return {
        name: float(2 * ((found == n) & (tissues == n)).sum() / ((found == n).sum() + (tissues == n).sum()))
        for n, name in enumerate(TISSUES)
    }


def main() -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--network", choices=(UNET, *SIZES), default=UNET)
    options = parser.parse_args()
    found = train(options.data, options.out, options.minutes, options.device, options.network)
    for name, value in found.items():
        print(f"Dice {name}: {value:.3f}")


if __name__ == "__main__":
    main()
