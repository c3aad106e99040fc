"""Feature losses of disvit, all and each left out in turn (tables 1 and 2 of the paper), and none: equal trainings from one model.

RDST's second stage likewise: --recipe rdst-e-inplane-x4-features --only "all losses" "L1 alone" (table 6).

    python Testing/Benchmarks/disvit_features.py --data FOLDER --out FOLDER --init MODEL [--recipe disvit-inplane-x4-features]
        [--minutes 5] [--steps N] [--only "L1 alone" ...] [--degradation kspace] [--slices 6]

FOLDER holds train/ and val/ (or their packs), as for `mrsuperres train`. With --steps every training has the same number of steps,
else the same minutes, in which a training with more losses makes fewer of them. Every answer to the held-out scans is scored beside
that of the model all start from: PSNR and SSIM inside the head's box; Dice, the mean over fluid, grey and white matter, of what the
tissue network sees in the answer with what it sees in the truth; sharpness, the gradients' energy over the truth's, 1 at best.
Not run by CI: it needs data and time.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from MRSuperResLib import evaluation
from MRSuperResLib.evaluation.degrade import scored_axis
from MRSuperResLib.evaluation.masks import head_box
from MRSuperResLib.evaluation.metrics import dice
from MRSuperResLib.inference.options import Options
from MRSuperResLib.intensity import IntensityScale
from MRSuperResLib.losses.tissue import trained_tissue_network
from MRSuperResLib.models import ModelEntry, find_model
from MRSuperResLib.training.fit import fit, part_pack
from MRSuperResLib.training.recipes import FOLDER, load_recipe

VARIANTS: dict[str, Sequence[str]] = {
    "all losses": (),
    "without texture": ("texture",),
    "without structure": ("structure",),
    "without ViT": ("vit",),
    "ViT alone": ("structure", "texture"),
    "adversarial alone": ("vit", "structure", "texture"),
    "features alone": ("adversarial",),
    "L1 alone": ("adversarial", "vit", "structure", "texture", "e1", "d", "hrl"),
}
TISSUES = (2, 3, 4)  # fluid, grey and white matter, of what the tissue network tells apart
MULTIPLE = 16  # of the sides of its images


def main() -> None:
    """Train and score each variant, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", required=True, help="id or file of the model that all start from")
    parser.add_argument("--recipe", default="disvit-inplane-x4-features", help="name or file")
    parser.add_argument("--minutes", type=float, default=5.0, help="of each training")
    parser.add_argument("--steps", type=int, default=0, help="of each training, 0 for as many as the minutes allow")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--degradation", default="kspace")
    parser.add_argument("--slices", type=int, default=6, help="of each held-out scan, in its middle")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    named = Path(arguments.recipe)
    text = (named if named.is_file() else FOLDER / f"{named}.toml").read_text(encoding="utf-8")
    scans = load_recipe(arguments.recipe)[0].validation.scans
    start = find_model(arguments.init)
    pairs = held_out(part_pack(arguments.data, arguments.out, "val"), start, scans, arguments)
    print(f"{'':18} {'PSNR, dB':>9} {'SSIM':>7} {'Dice':>7} {'sharpness':>9}  steps", flush=True)
    tell("at the start", start, pairs, arguments)
    for name in arguments.only:
        out = arguments.out / name.replace(" ", "-")
        out.mkdir(exist_ok=True)
        (out / "variant.toml").write_text(variant(text, VARIANTS[name], arguments.steps), encoding="utf-8")
        with open(out / "log.txt", "w", encoding="utf-8") as log:
            path = fit(
                out / "variant.toml", arguments.data, out / "training", minutes=arguments.minutes, device=arguments.device,
                init=arguments.init, validate=False, report=lambda line, log=log: print(line, file=log, flush=True),
            )  # fmt: skip
        tell(name, find_model(path), pairs, arguments)


def variant(recipe: str, without: Sequence[str], steps: int) -> str:
    """The recipe's text with the losses `without` left out."""
    before, losses, after = re.split(r"(\[loss\]\n(?:\w.*\n)*)", recipe, maxsplit=1)
    for name in without:
        losses = re.sub(rf"^{name} = .*\n", "", losses, flags=re.MULTILINE)
    if steps:
        before = re.sub(r"^steps = .*\n", "", before, flags=re.MULTILINE)
        before = before.replace("[optimisation]\n", f"[optimisation]\nsteps = {steps}\n")
    return before + losses + after


def held_out(
    pack: object, model: ModelEntry, scans: Sequence[str], arguments: argparse.Namespace
) -> list[evaluation.DegradedPair]:
    """The held-out scans made coarse for `model`."""
    return [
        evaluation.degraded_pair(
            pack.volume(entry), str(model.card.plane), float(model.card.factor or 1), arguments.degradation, slices=arguments.slices
        )  # type: ignore[attr-defined]
        for entry in pack.entries  # type: ignore[attr-defined]
        if not entry.labels and any(fnmatch(entry.name, pattern) for pattern in scans)
    ]  # fmt: skip


def tell(name: str, model: ModelEntry, pairs: Sequence[evaluation.DegradedPair], arguments: argparse.Namespace) -> None:
    """Score `model` on all pairs, print the means, and keep every scan's scores."""
    rows = []
    for pair in pairs:
        found, answers = evaluation.evaluate(pair, [model], options=Options(device=arguments.device))
        answer = answers[model.card.id].array
        axis = scored_axis(pair)
        seen = tissue_dice(answer, pair.truth.array, axis)
        sharp = gradient_energy(answer, pair.truth.array, axis)
        rows.append((pair.truth.name, found[0].metrics["psnr"], found[0].metrics["ssim"], seen, sharp))
    with open(arguments.out / f"{name.replace(' ', '-')}.csv", "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("scan", "psnr", "ssim", "dice", "sharpness"), *rows])
    means = [float(np.mean(column)) for column in list(zip(*rows, strict=True))[1:]]
    print(
        f"{name:18} {means[0]:9.3f} {means[1]:7.4f} {means[2]:7.4f} {means[3]:9.3f}  {model.card.training.steps}",
        flush=True,
    )


def tissue_dice(answer: np.ndarray, truth: np.ndarray, axis: int) -> float:
    """Dice of what the tissue network sees in `answer` and in `truth`, slices along the array's `axis`, mean over tissues."""
    network = trained_tissue_network().eval()
    scale = IntensityScale.of(truth)
    seen = []
    for image in (answer, truth):
        x = torch.from_numpy(np.moveaxis(scale.to_unit(image), axis, 0).astype(np.float32))[:, None]
        height, width = x.shape[-2:]
        padded = functional.pad(x, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
        with torch.inference_mode():
            seen.append(network(padded)[..., :height, :width].argmax(1).numpy())
    return float(np.mean([dice(seen[0] == tissue, seen[1] == tissue) for tissue in TISSUES]))


def gradient_energy(answer: np.ndarray, truth: np.ndarray, axis: int) -> float:
    """Mean squared gradient within slices, inside the head's box, over the truth's."""
    box = head_box(truth)
    along = [other for other in range(3) if other != axis]
    answered, true = (np.gradient(image[box].astype(np.float64), axis=along) for image in (answer, truth))
    return float(sum((g**2).mean() for g in answered) / sum((g**2).mean() for g in true))


if __name__ == "__main__":
    main()
