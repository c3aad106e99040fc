"""Task, model and factor for a scan that nobody has chosen any for."""

from dataclasses import dataclass

from MRSuperResLib.models import scores

from . import scene
from .words import _

THICK = 1.5  # slices that many times thicker than pixels are worth making thinner


@dataclass(frozen=True)
class Recommendation:
    """What is recommended for a scan, and why, in a sentence. factor: how many times finer."""

    task: str
    model: str
    factor: float
    why: str


def ranked(entries, wanted=None):
    """`entries` with the best first: networks by the factor nearest to `wanted`, then by what they gained; baselines last."""

    def place(entry):
        card = entry.card
        distance = abs((card.factor or 1.0) - wanted) if wanted and not card.is_baseline else 0.0
        return card.is_baseline, distance, -scores.mean_gain(card)

    return sorted(entries, key=place)


def recommend(logic, node, contrast):
    """The `Recommendation` for a volume node, None if nothing suits. contrast: "" if not known."""
    grid = scene.gridOf(node)
    axis = grid.slice_axis
    pixel = max(length for other, length in enumerate(grid.spacing) if other != axis)
    ratio = grid.spacing[axis] / pixel
    sizes = {"slice": grid.spacing[axis], "pixel": pixel}
    planes = {
        "through-plane": (ratio, _("Slices of {slice:.3g} mm are thicker than pixels of {pixel:.3g} mm.")),
        "in-plane": (1.0 / ratio if ratio < 1 else 2.0, _("Slices are about as thin as pixels are wide.")),
    }
    order = ("through-plane", "in-plane") if ratio >= THICK else ("in-plane", "through-plane")
    for task in order:
        wanted, why = planes[task]
        networks = [entry for entry in logic.suitable(node, task, contrast)[0] if not entry.card.is_baseline]
        if networks:
            best = ranked(networks, wanted)[0].card
            return Recommendation(task, best.id, float(best.factor), why.format(**sizes))
    why = _("No network was made for this scan: interpolation, for comparison.")
    plain = ranked(logic.suitable(node, order[0], contrast)[0])
    if not plain:
        return None
    model = next((entry.card.id for entry in plain if entry.card.id == "bspline"), plain[0].card.id)
    factor = min(8.0, max(2.0, float(round(planes[order[0]][0]))))
    return Recommendation(order[0], model, factor, why)
