"""TransMRSR's parts, each left out in turn (table 3 and 4 of the paper): equal short trainings, scored on the same held-out scans.

    python Testing/Benchmarks/transmrsr_ablation.py --data FOLDER --out FOLDER --prior PACKAGE [--recipe transmrsr-s-through-x8]
        [--minutes 5] [--steps N] [--device cuda]

FOLDER holds train/ and val/ (or their packs), as for `mrsuperres train`; PACKAGE is the first stage. Left out are the generative
prior (GP: random weights and no centres), the self-distilled truncation (SDT), the features of several sizes (MREF) and the skip
connection (SC); and the prior is frozen. With --steps every training has the same number of steps, which on a busy machine is the
fairer race; --minutes then only limits it. Trainings of minutes rank parts roughly at best. Not run by CI: it needs data and time.
"""

from __future__ import annotations

import argparse
import csv
import re
from pathlib import Path

from MRSuperResLib.training.fit import fit
from MRSuperResLib.training.recipes import FOLDER

VARIANTS = {
    "TransMRSR": {},
    "without GP": {"network": "centres = 0"},
    "without SDT": {"network": "truncation = 1.0"},
    "without MREF": {"network": "features = false"},
    "without SC": {"network": "skip = false"},
    "frozen GP": {"steering": "prior_rate = 0.0"},
}


def main() -> None:
    """Train and score each variant, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prior", required=True, help="package of the first stage")
    parser.add_argument("--recipe", default="transmrsr-s-through-x8")
    parser.add_argument("--minutes", type=float, default=5.0, help="of each training")
    parser.add_argument("--steps", type=int, default=0, help="of each training, 0 for as many as the minutes allow")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    text = (FOLDER / f"{arguments.recipe}.toml").read_text(encoding="utf-8")
    print(f"{'variant':14}  {'PSNR dB':>8}  steps   (mean of the recipe's held-out scans, middle slices)")
    for name in arguments.only:
        out = arguments.out / name.replace(" ", "-")
        out.mkdir(parents=True, exist_ok=True)
        recipe = out / "variant.toml"
        recipe.write_text(variant(text, name, arguments.steps), encoding="utf-8")
        init = None if name == "without GP" else arguments.prior
        fit(
            recipe, arguments.data, out, minutes=arguments.minutes, device=arguments.device, init=init,
            report=lambda line: None,
        )  # fmt: skip
        psnr, steps = last_score(out / "curves.csv")
        print(f"{name:14}  {psnr:8.2f}  {steps:5d}", flush=True)


def variant(recipe: str, name: str, steps: int = 0) -> str:
    """The recipe's text with a part left out, validated at the end only."""
    for table, line in VARIANTS[name].items():
        key = line.split(" =")[0]
        before, rest = recipe.split(f"[{table}]\n")
        own, *after = rest.split("\n[", 1)  # the same key may stand in another table
        own = re.sub(rf"^{key} = .*\n", "", own, flags=re.MULTILINE)
        recipe = "\n[".join([f"{before}[{table}]\n{line}\n{own}", *after])
    recipe = re.sub(r"^every_minutes = .*$", "every_minutes = 1e9", recipe, flags=re.MULTILINE)
    if steps:
        recipe = recipe.replace("[optimisation]\n", f"[optimisation]\nsteps = {steps}\n")
    return recipe


def last_score(curves: Path) -> tuple[float, int]:
    """The last PSNR (dB) on held-out scans, and the step it was found at."""
    with open(curves, newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["name"] == "held_out_psnr"]
    if not rows:
        raise SystemExit(f"no held-out scan of the recipe is in the data: {curves} has no scores")
    return float(rows[-1]["value"]), int(rows[-1]["step"])


if __name__ == "__main__":
    main()
