"""Which models come first for a scan: the one that the library recommends, and the order of the list."""

from MRSuperResLib.inference import recommend as library
from MRSuperResLib.models import scores

from . import scene


def recommend(node, contrast="", finer=False):
    """Task, plane, model, factor and why, in a sentence, for a volume node: the library's `Recommendation`.

    contrast: "" if not known. finer: a factor or spacing is asked for. The shell recommends the same for the same scan.
    """
    return library.recommend(scene.glanceOf(node), contrast=contrast or None, finer=finer)


def ranked(entries):
    """`entries` with the best first: networks by what they gained, baselines last."""
    return sorted(entries, key=lambda entry: (entry.card.is_baseline, -scores.mean_gain(entry.card)))
