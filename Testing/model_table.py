"""The rows of README's table of models, from the models' own cards: `python Testing/model_table.py` prints them."""

from __future__ import annotations

from pathlib import Path

from MRSuperResLib import models
from MRSuperResLib.models import ModelCard, Score

FOLDER = Path(__file__).resolve().parents[1] / "Resources" / "Models"
BASELINES = {"kspace": "zerofill"}  # what a degradation's scores are compared with; the others with B-spline


def gains(card: ModelCard) -> dict[str, list[float]]:
    """PSNR over the baseline, dB, of each held-out scan, by degradation."""
    found: dict[str, list[float]] = {}
    for score in card.metrics:
        kind = kind_of(score)
        found.setdefault(kind, []).append(score.psnr - score.baseline[BASELINES.get(kind, "bspline")][0])
    return found


def kind_of(score: Score) -> str:
    """The degradation without its particulars: "kspace" of "kspace, 6 middle slices", "box" of "through-box"."""
    return score.degradation.split(",")[0].removeprefix("through-")


def cells(card: ModelCard) -> str:
    """The row's cells that hold scores: gains under k-space truncation, under others, SSIM, scans."""
    if card.task in ("translate", "error", "flag"):
        return "see below |  |  | 2 people"
    found = gains(card)
    kspace = said(found.pop("kspace")) if "kspace" in found else ""
    others = ", ".join(f"{said(values)} {kind}" for kind, values in found.items())
    blurred = [score for score in card.metrics if kind_of(score) != "kspace"]
    before = sum(score.baseline["bspline"][1] for score in blurred) / len(blurred)
    after = sum(score.ssim for score in blurred) / len(blurred)
    scans = len({score.scan.split(" with ")[0] for score in card.metrics})
    return f"{kspace} | {others} | {before:.3f} to {after:.3f} | {scans}"


def said(values: list[float]) -> str:
    """Mean and worst."""
    return f"{sum(values) / len(values):+.2f} ({min(values):+.2f})"


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.safetensors")):
        card = models.read_entry(path).card
        print(
            f"| `{card.id}` | {card.title} | {cells(card)} | {card.training.minutes:g} min, {card.training.machine} |"
        )
