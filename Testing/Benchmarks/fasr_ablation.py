"""FASR-Net's parts, each left out in turn (table III of the paper): equal short trainings, scored on the same held-out pairs.

    python Testing/Benchmarks/fasr_ablation.py --data FOLDER --out FOLDER [--recipe fasr-s-inplane-x4] [--minutes 3] [--steps N]

FOLDER holds train/ and val/ (or their packs), as for `mrsuperres train`. Beside the paper's parts (S-A, M-A, FA: both alignments,
replaced by cross-attention; CHPF) it leaves out what is ours: the hints, and the single-image base. With --steps every training
has the same number of steps, which on a busy machine is the fairer race; --minutes then only limits it.

Not run by CI: it needs data and time. Trainings this short rank parts roughly at best.
"""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path

from MRSuperResLib.training import guided
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
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    lines = [f"{'variant':14}  {'guided':>7}  {'noise':>7}  {'none':>7}  steps   (PSNR dB on held-out pairs)"]
    for name in arguments.only:
        out = arguments.out / name.replace(" ", "-")
        out.mkdir(parents=True, exist_ok=True)
        recipe = out / "variant.toml"
        recipe.write_text(
            variant((FOLDER / f"{arguments.recipe}.toml").read_text(encoding="utf-8"), name, arguments.steps)
        )
        entry = guided.train(recipe, arguments.data, out, minutes=arguments.minutes, device=arguments.device)
        scores = guided.score_package(entry, recipe, arguments.data, out)
        steps = entry.card.training.steps
        lines.append(
            f"{name:14}  {scores['psnr']:7.2f}  {scores['psnr_noise']:7.2f}  {scores['psnr_alone']:7.2f}  {steps:5d}"
        )
        with open(out / "scores.csv", "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(scores.items())
    print("\n".join(lines))


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
