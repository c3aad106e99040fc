"""FASR-Net's parts, each left out in turn (table III of the paper): equal short trainings, scored on the same held-out pairs.

    python Testing/Benchmarks/fasr_ablation.py --data FOLDER --out FOLDER [--recipe fasr-s-inplane-x4] [--init MODEL]
        [--minutes 3] [--steps N]

FOLDER holds train/ and val/ (or their packs), as for `mrsuperres train`. Beside the paper's parts (S-A, M-A, FA: both alignments,
replaced by cross-attention; CHPF) it leaves out what is ours: the hints, and the single-image base. With --steps every training
has the same number of steps, which on a busy machine is the fairer race; --minutes then only limits it.

With --init every variant starts from a trained model of the recipe's size, the part cut out of it, and the training is the time it
gets to do without; cross-attention starts with M-A's place in the fusion. Without --init all start from nothing, and trainings
of minutes rank parts roughly at best. Not run by CI: it needs data and time.
"""

from __future__ import annotations

import argparse
import csv
import re
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from MRSuperResLib import networks
from MRSuperResLib.models import ModelEntry, find_model, load_network, save_model
from MRSuperResLib.networks.fasr import FASR, HINT_CHANNELS
from MRSuperResLib.training.checkpoint import take_fitting
from MRSuperResLib.training.fit import fit, part_pack
from MRSuperResLib.training.methods.guided import score_package
from MRSuperResLib.training.recipes import FOLDER

NETWORK = {
    "all parts": "",
    "without S-A": "single_multi = false",
    "without M-A": "multi_multi = false",
    "without FA": "single_multi = false\nmulti_multi = false",
    "without CHPF": "fusion = false",
    "without hints": "hints = false",
    "without base": "",
}


def main() -> None:
    """Train and score each variant, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="fasr-s-inplane-x4")
    parser.add_argument("--minutes", type=float, default=3.0, help="of each training")
    parser.add_argument("--steps", type=int, default=0, help="of each training, 0 for as many as the minutes allow")
    parser.add_argument("--only", nargs="+", choices=list(NETWORK), default=list(NETWORK))
    parser.add_argument("--init", help="id or file of the trained model to start from, by default from nothing")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    print(f"{'variant':14}  {'guided':>7}  {'noise':>7}  {'none':>7}  steps   (PSNR dB on held-out pairs)")
    for name in arguments.only:
        out = arguments.out / name.replace(" ", "-")
        out.mkdir(parents=True, exist_ok=True)
        recipe = out / "variant.toml"
        recipe.write_text(
            variant((FOLDER / f"{arguments.recipe}.toml").read_text(encoding="utf-8"), name, arguments.steps)
        )
        init = str(without(find_model(arguments.init), name, out / "init.safetensors")) if arguments.init else None
        path = fit(
            recipe, arguments.data, out, minutes=arguments.minutes, device=arguments.device, init=init, validate=False
        )
        entry = find_model(path)
        scores = score_package(entry, recipe, part_pack(arguments.data, out, "val"))
        steps = entry.card.training.steps
        print(
            f"{name:14}  {scores['psnr']:7.2f}  {scores['psnr_noise']:7.2f}  {scores['psnr_alone']:7.2f}  {steps:5d}",
            flush=True,
        )
        with open(out / "scores.csv", "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(scores.items())


def without(model: ModelEntry, name: str, out: Path) -> Path:
    """`model` with the part of variant `name` cut out, as a package in the file `out`."""
    flags = dict.fromkeys(re.findall(r"^(\w+) = false", NETWORK[name], flags=re.MULTILINE), False)
    changed = {**model.card.hyperparameters, **flags}
    if name == "without base":
        del changed["base"]
    whole, cut = load_network(model), networks.build(model.card.architecture, changed)
    assert isinstance(whole, FASR) and isinstance(cut, FASR)
    weights = whole.state_dict()
    for level in range(3):
        merge = f"fusion.merge.{level}.weight"
        weights[merge] = cut_columns(weights[merge], whole, cut, level)
    tail = "decoder.tail.weight"  # sees the hints, last
    weights[tail] = weights[tail][:, : cut.state_dict()[tail].shape[1]]
    take_fitting(cut, weights)
    return save_model(out, replace(model.card, hyperparameters=changed), cut.state_dict()).path or out


def cut_columns(weight: Tensor, whole: FASR, cut: FASR, level: int) -> Tensor:
    """A merging convolution's weight (out, in, 1, 1) without the inputs that `cut` does not have."""
    width = weight.shape[0]
    own = 1 if whole.modulate == "input" else 0  # the image's own features come first
    place = {key: own + number for number, key in enumerate(whole.alignments)}
    kept = [place[key] for key in whole.alignments if key in cut.alignments] or [place["multi_multi"]]
    columns = [*range(width * own), *(n for one in kept for n in range(one * width, (one + 1) * width))]
    if level == 0 and cut.hints:
        columns += range(weight.shape[1] - HINT_CHANNELS, weight.shape[1])
    return weight[:, torch.tensor(columns)]


def variant(recipe: str, name: str, steps: int) -> str:
    """The recipe's text with a part left out, without validation on the way."""
    chosen = NETWORK[name]
    for key in re.findall(r"^(\w+) =", chosen, flags=re.MULTILINE):
        recipe = re.sub(rf"^{key} = .*\n", "", recipe, flags=re.MULTILINE)
    recipe = recipe.replace("[network]\n", f"[network]\n{chosen}\n")
    recipe = re.sub(r"^every_minutes = .*$", "every_minutes = 1e9", recipe, flags=re.MULTILINE)
    if steps:
        recipe = recipe.replace("[optimisation]\n", f"[optimisation]\nsteps = {steps}\n")
    if name == "without base":
        recipe = re.sub(r'^base = ".*"\n', "", recipe, flags=re.MULTILINE)
    return recipe


if __name__ == "__main__":
    main()
