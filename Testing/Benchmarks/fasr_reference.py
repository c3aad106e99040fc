"""What a reference is worth: a guided model beside the single-image one, with the right reference, a wrong one, noise, moved ones.

    python Testing/Benchmarks/fasr_reference.py --model fasr-s-inplane-x4 [--single rdst-e-inplane-x4] [--slices 8]
        [--conditions guided noise none wrong moved] [--contrasts T1w T2w FLAIR] [--subjects NAME ...] [--data FOLDER] [--json FILE]

Every held-out scan with several contrasts (val/multicontrast) is coarsened and refined with each of its other contrasts in turn;
what is no true reference stands in for the first of them only. An in-plane model's scan is coarsened within its axial slices, a
through-plane model's from front to back: the scans are sharp within their axial slices alone, so only there is a reference sharper
than what it guides. All numbers are means over scans and references of PSNR (dB) and SSIM inside the head, by the library's own
`evaluation`. Conditions:

    guided   the reference as the engine aligns it (rigid registration by mutual information)
    noise    uniform noise of the reference's range in its place, forced on the network
    none     no valid reference
    wrong    the same contrast of another person, centre on centre, forced on the network; and as `align` would treat it
    moved    the reference moved 0, 1, 2 and 4 mm within its slices: trusted as it is, and registered

Not run by CI: it needs the data, and minutes.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from MRSuperResLib import evaluation
from MRSuperResLib.evaluation import DegradedPair, Row
from MRSuperResLib.inference import Options, super_resolve
from MRSuperResLib.inference.options import Aligned
from MRSuperResLib.inference.registration import align, moved
from MRSuperResLib.io.read import read_volume
from MRSuperResLib.models import ModelEntry, find_model, load_network
from MRSuperResLib.resample import resample
from MRSuperResLib.volume import Volume

MILLIMETRES = (0.0, 1.0, 2.0, 4.0)
CONDITIONS = ("guided", "noise", "none", "wrong", "moved")
CONTRASTS = ("T1w", "T2w", "FLAIR")
NOISE_SEED = 0
FRONT_TO_BACK = "coronal"  # the slices that are thick along this direction


def main() -> None:
    """Score all conditions and print the table."""
    arguments = _arguments()
    folder = arguments.data / "val" / "multicontrast"
    entry, single = find_model(arguments.model), arguments.single
    network = load_network(entry)
    options = Options(device=arguments.device, threads=arguments.threads, precision=arguments.precision)
    plane = entry.card.plane
    people = sorted({path.name.rpartition("_")[0] for path in folder.glob("*.nii.gz")})
    subjects = [person for person in people if not arguments.subjects or person in arguments.subjects]
    rows: dict[str, list[Row]] = {}
    references: list[tuple[Row, str]] = []  # every row again, with the contrast that guided it
    for subject in subjects:
        scans = {
            c: read_volume(folder / f"{subject}_{c}.nii.gz")
            for c in CONTRASTS
            if (folder / f"{subject}_{c}.nii.gz").exists()
        }
        for contrast, truth in scans.items():
            if contrast not in arguments.contrasts:
                continue
            axis = next(n for n in range(3) if truth.grid.axis_name(n) == FRONT_TO_BACK)
            trial = evaluation.degraded_pair(
                truth, plane, entry.card.factor or 1.0, arguments.degradation,
                slices=arguments.slices, slice_axis=axis if plane == "through-plane" else None,
            )  # fmt: skip
            answers = {}
            if arguments.baselines:
                found, answers = evaluation.evaluate(trial, ["bspline", single], options=options)
                for row in found:
                    rows.setdefault(row.model, []).append(row)
                    references.append((row, ""))
            for number, other in enumerate([c for c in scans if c != contrast][: arguments.references]):
                stranger = next((s for s in people if s != subject), None)
                wanted = arguments.conditions if number == 0 else [c for c in arguments.conditions if c == "guided"]
                for name, aligned in conditions(wanted, scans[other], trial, folder, stranger, other):
                    answer = run(trial, entry, network, aligned, options)
                    row = evaluation.score(trial, answer, name)
                    rows.setdefault(name, []).append(row)
                    references.append((row, other))
                    answers[f"{name} ({other})"] = answer
                    print(
                        f"{truth.name} with {other}: {name} {row.metrics['psnr']:.2f} dB, SSIM {row.metrics['ssim']:.4f}",
                        flush=True,
                    )
            if arguments.pictures:
                arguments.pictures.mkdir(parents=True, exist_ok=True)
                chosen = {n: a for n, a in answers.items() if n in ("bspline", single) or n.startswith("guided")}
                evaluation.figure(arguments.pictures / f"{entry.card.id}-{subject}_{contrast}.png", trial, chosen)
    print(table(rows, single))
    if arguments.json:
        found = [asdict(row) | {"reference": other} for row, other in references]
        arguments.json.write_text(json.dumps(found, indent=1))


def conditions(
    wanted: list[str], reference: Volume, trial: DegradedPair, folder: Path, stranger: str | None, contrast: str
) -> Iterator[tuple[str, Aligned]]:
    """(name, what the network gets) for each condition."""
    grid, everywhere = trial.truth.grid, np.ones(trial.truth.grid.shape, dtype=bool)
    quiet = functools.partial(align, volume=trial.low, grid=grid, warn=lambda code, message: None)
    if "guided" in wanted:
        yield "guided", quiet(reference)
    onto = resample(reference, grid, "bspline")
    if "noise" in wanted:
        high = float(np.percentile(onto.array, 99.9))
        noise = np.random.default_rng(NOISE_SEED).random(onto.array.shape, dtype=np.float32) * high
        yield "noise", Aligned(Volume(noise, grid), everywhere)
    if "none" in wanted:
        yield "none", Aligned(onto, ~everywhere)
    if "wrong" in wanted and stranger:
        wrong = read_volume(folder / f"{stranger}_{contrast}.nii.gz")
        shift = np.eye(4)
        shift[:3, 3] = _centre(wrong) - _centre(trial.truth)
        wrong = moved(wrong, shift)
        yield "wrong, forced", Aligned(resample(wrong, grid, "bspline"), everywhere)
        yield "wrong, by align()", quiet(wrong)
    if "moved" in wanted:
        for distance in MILLIMETRES:
            shift = np.eye(4)
            within = np.array([n != trial.axis for n in range(3)]) / np.sqrt(2)
            shift[:3, 3] = grid.axes @ within * distance
            away = moved(reference, shift)
            yield f"moved {distance:g} mm, trusted", Aligned(resample(away, grid, "bspline"), everywhere)
            yield f"moved {distance:g} mm, registered", quiet(away)


def run(trial: DegradedPair, entry: ModelEntry, network: object, aligned: Aligned, options: Options) -> Volume:
    """The guided model's answer on the truth's grid."""
    return super_resolve(
        trial.low, entry, spacing=trial.truth.grid.spacing, plane=trial.plane, reference=aligned, network=network,  # type: ignore[arg-type]
        options=replace(options, slice_axis=trial.axis), warn=lambda code, message: None,
    )  # fmt: skip


def table(rows: dict[str, list[Row]], single: str) -> str:
    """Means by condition, and how much above the single-image model on the same scans."""
    base = {row.scan: row.metrics for row in rows.get(single, [])}
    lines = [f"{'condition':28}  {'PSNR dB':>8}  {'SSIM':>7}  {'over ' + single:>26}  {'least':>6}   n"]
    for name, found in rows.items():
        psnr, ssim = (float(np.mean([row.metrics[m] for row in found])) for m in ("psnr", "ssim"))
        gains = [row.metrics["psnr"] - base[row.scan]["psnr"] for row in found if row.scan in base]
        over = f"{np.mean(gains):+26.2f}  {min(gains):+6.2f}" if gains else " " * 34
        lines.append(f"{name:28}  {psnr:8.2f}  {ssim:7.4f}  {over}  {len(found):2d}")
    return "\n".join(lines)


def _centre(volume: Volume) -> np.ndarray:
    return volume.grid.index_to_world(np.array([[(n - 1) / 2 for n in volume.grid.size]]))[0]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    parser.add_argument("--model", required=True, help="a reference-guided model, id or file")
    parser.add_argument("--single", help="the single-image model to compare with; by default rdst-e of the same factor")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MRSUPERRES_DATA", beside)))
    parser.add_argument("--slices", type=int, default=8, help="middle slices of each scan")
    parser.add_argument("--contrasts", nargs="+", choices=CONTRASTS, default=CONTRASTS, help="of the scans to refine")
    parser.add_argument("--references", type=int, default=2, help="other contrasts used for each scan")
    parser.add_argument("--subjects", nargs="+", help="names of files up to the contrast; by default everybody")
    parser.add_argument("--degradation", help="by default that of `mrsuperres evaluate`")
    parser.add_argument("--conditions", nargs="+", choices=CONDITIONS, default=["guided", "noise", "none"])
    parser.add_argument("--no-baselines", dest="baselines", action="store_false")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--pictures", type=Path, help="a folder for figures; they show scans")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.single is None:
        card = find_model(arguments.model).card
        arguments.single = f"rdst-e-{'inplane' if card.plane == 'in-plane' else 'through'}-x{card.factor:g}"
    return arguments


if __name__ == "__main__":
    main()
