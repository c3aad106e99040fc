"""What a model gains, from the scores in its card: mean and worst scan, by degradation."""

from __future__ import annotations

from dataclasses import dataclass

from .card import ModelCard, Score


@dataclass(frozen=True)
class Gain:
    """PSNR (dB, in the head's box) over `baseline` on scans of one degradation: mean, least, and the scan that gains least.

    brain: mean gain inside the brain, None if it was not scored.
    """

    degradation: str
    plane: str
    baseline: str
    scans: int
    mean: float
    least: float
    worst: str
    brain: float | None = None


def compared_with(degradation: str) -> tuple[str, str]:
    """The baselines that gains are told over: what undoes the degradation best without a network, and what users have."""
    return ("zerofill", "bspline") if degradation.startswith("kspace") else ("bspline", "lanczos")


def gains(card: ModelCard) -> list[Gain]:
    """A `Gain` for each plane and degradation in the card, over the first of `compared_with` that was scored beside it."""
    found = []
    for plane, degradation in dict.fromkeys((score.plane, score.degradation) for score in card.metrics):
        scores = [score for score in card.metrics if (score.plane, score.degradation) == (plane, degradation)]
        names = [
            name for name in (*compared_with(degradation), "bspline") if any(name in score.baseline for score in scores)
        ]
        if names:
            found.append(_gain([score for score in scores if names[0] in score.baseline], names[0]))
    return found


def mean_gain(card: ModelCard) -> float:
    """Mean PSNR (dB) over B-spline interpolation on all scans of the card; 0 without any."""
    found = [score.psnr - score.baseline["bspline"][0] for score in card.metrics if "bspline" in score.baseline]
    return sum(found) / len(found) if found else 0.0


def _gain(scores: list[Score], baseline: str) -> Gain:
    over = [score.psnr - score.baseline[baseline][0] for score in scores]
    inside = [
        score.brain_psnr - score.brain_baseline[baseline]
        for score in scores
        if score.brain_psnr is not None and baseline in score.brain_baseline
    ]
    return Gain(
        scores[0].degradation,
        scores[0].plane,
        baseline,
        len(scores),
        sum(over) / len(over),
        min(over),
        scores[over.index(min(over))].scan,
        sum(inside) / len(inside) if inside else None,
    )
