"""Where a scan shows something that a translation may have lost: found in the scan itself, so that no answer can hide it.

A lesion detector (a model whose task is "flag") looks at the scan, slice by slice; where none is installed, what is unlike the
other side of the head is flagged (`asymmetry`). Comparing a scan with its translation, by translating back, by regression or by the
samples' spread, was measured to miss half of the lesions that translations lose; what the scan shows does not depend on the
translator.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from .. import models
from ..models import ModelCard, ModelEntry
from ..models.card import INTERPOLATION
from .asymmetry import EXCESS, unlike_mirror
from .options import Cancel, Options, Warn, log_warning, never
from .symmetric_view import View, axial, axial_stack, from_axial_stack, in_view, inputs_of
from .view_checks import scale_above_air

if TYPE_CHECKING:
    from ..volume import Volume

# Of being lesion by a detector, smoothed: what is flagged. 0.3 to 1.8 % of the brains of two people kept aside.
LIKELY = 0.22
UNLIKE = 0.5  # the other side, where there is no detector: what is flagged
SMOOTHING_MM = 0.7  # standard deviation, over the detector's probabilities
LEAST_MM3 = 14.0  # a sphere of 3 mm: smaller places are noise
MOST_PLACES = 200  # that get a number of their own; the rest share the last
TOLD = 3  # places that a warning names
FLAGGED = 0.3  # deviation on the networks' scale that a flagged voxel has at least


@dataclass(frozen=True)
class Place:
    """One flagged place. number: its label. volume: mm^3. centre: mm (LPS), the flagged voxel nearest to the centre of mass.
    diameter: mm, of the sphere of that volume.
    """

    number: int
    volume: float
    centre: tuple[float, float, float]
    diameter: float


@dataclass(frozen=True)
class Flags:
    """What a detector found. labels: a volume of label numbers, 0 where nothing is flagged, 1 for the largest place.

    places: largest first. model: the detector.
    """

    labels: Volume
    places: tuple[Place, ...]
    model: ModelEntry

    @property
    def mask(self) -> np.ndarray:
        """(k, j, i), true where something is flagged."""
        return self.labels.array > 0

    @property
    def volume(self) -> float:
        """Of all places, mm^3."""
        return sum(place.volume for place in self.places)

    def report(self) -> dict[str, Any]:
        """For the records."""
        return {
            "model": self.model.card.id,
            "version": self.model.card.version,
            "digest": self.model.digest,
            "count": len(self.places),
            "volume_mm3": round(self.volume, 1),
            "places": [
                {
                    "label": place.number,
                    "volume_mm3": round(place.volume, 1),
                    "diameter_mm": round(place.diameter, 1),
                    "centre_lps_mm": [round(mm, 1) for mm in place.centre],
                }
                for place in self.places
            ],
        }

    def words(self) -> str:
        """What the user is told."""
        if not self.places:
            return "nothing in the scan was found unlike healthy brain; small or faint lesions may still be missing in the answer"
        largest = ", ".join(
            f"{place.diameter:.0f} mm at ({', '.join(f'{mm:.0f}' for mm in place.centre)})"
            for place in self.places[:TOLD]
        )
        places = f"{len(self.places)} place{'s' if len(self.places) > 1 else ''}"
        more = ", the largest" if len(self.places) > TOLD else ""
        return (
            f"the scan shows {places} unlike healthy brain ({self.volume / 1000:.1f} ml{more}: {largest}; LPS mm): the translation "
            "may have lost or changed what is there, so look at the scan instead"
        )


def detector_for(contrast: str, options: Options, warn: Warn = log_warning) -> ModelEntry | None:
    """What flags scans of `contrast`: the installed lesion detector, of several the last by id, else `ASYMMETRY`.

    None for a contrast that neither knows, and `warn` hears of it.
    """
    entries = [*models.list_models(options.model_folders)]
    able = [entry for entry in entries if entry.card.task == "flag" and contrast in entry.card.contrasts]
    if able:
        return able[-1]
    if contrast in ASYMMETRY.card.contrasts:
        return ASYMMETRY
    warn("not-flagged", f"nothing is known that finds lesions in {contrast}: what the translation loses is not flagged")
    return None


ASYMMETRY = ModelEntry(
    ModelCard(
        id="asymmetry",
        title="Unlike the other side of the head",
        version="1",
        architecture=INTERPOLATION,
        task="flag",
        plane="any",
        factors=None,
        contrasts=tuple(EXCESS),
        spacing=None,
        licence="Apache-2.0",
        intended_use="Flags what one side of a head has and the other has not. It misses more than a lesion detector does.",
    ),
    None,
    "",
)


def find_flags(
    volume: Volume,
    detector: ModelEntry,
    contrast: str,
    *,
    options: Options | None = None,
    warn: Warn = log_warning,
    cancel: Cancel = never,
) -> Flags:
    """What `detector` flags in `volume`, a scan of `contrast`; it looks at axial slices. Raises what `SliceRunner` raises."""
    likely = probabilities(volume, detector, contrast, options=options, warn=warn, cancel=cancel)
    return flags_of(likely, volume, detector, LIKELY if detector.path else UNLIKE)


def probabilities(
    volume: Volume,
    detector: ModelEntry,
    contrast: str,
    *,
    options: Options | None = None,
    warn: Warn = log_warning,
    cancel: Cancel = never,
) -> np.ndarray:
    """Of each voxel to be lesion, (k, j, i); arguments as `find_flags`."""
    unit = np.maximum(scale_above_air(volume, 2 - axial(volume.grid)).to_unit(volume.array), 0, dtype=np.float32)
    view = in_view(unit, volume.grid, contrast)
    if detector.path is None:
        answers = unlike_mirror(view, contrast)
    else:
        answers = _detected(view, detector, contrast, options or Options(), warn, cancel)
    return from_axial_stack(view.back(answers, axial_stack(unit, volume.grid).shape[1:]), volume.grid)


def _detected(
    view: View, detector: ModelEntry, contrast: str, options: Options, warn: Warn, cancel: Cancel
) -> np.ndarray:
    """What the network of `detector` says of each pixel of `view`."""
    import torch
    from torch import nn

    from .runner import SliceRunner

    network = models.kept_network(detector)
    which = detector.card.contrasts.index(contrast)

    class Bound(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
            """The mean of what it says of the slice and of its mirror image: fewer false flags."""
            seen = [self.network(inputs_of(each, height[:, 0, 0, 0]), which).float() for each in (x, x.flip(3))]
            likely = [
                torch.sigmoid(each).prod(1, keepdim=True) for each in seen
            ]  # a lesion, in the brain where it tells that
            mean: torch.Tensor = 0.5 * (likely[0] + likely[1].flip(3))
            return mean

    runner = SliceRunner(Bound(), detector.card, (1, 1), replace(options, batch=1), warn, cancel)
    heights = np.broadcast_to(view.heights[:, None, None], view.slices.shape)
    answers = np.empty_like(view.slices)
    for done, found in runner.run(view.slices, [heights]):
        answers[done] = found
    return answers


def flags_of(likely: np.ndarray, volume: Volume, detector: ModelEntry, threshold: float = LIKELY) -> Flags:
    """The places where `likely` (k, j, i), smoothed a little, is above `threshold`, without the smallest."""
    from ..volume import Volume

    spacing = np.array(volume.grid.spacing[::-1])
    smooth = ndimage.gaussian_filter(likely, SMOOTHING_MM / spacing)
    pieces, count = ndimage.label(smooth > threshold, np.ones((3, 3, 3)))
    voxel = float(np.prod(spacing))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:] * voxel
    kept = [n + 1 for n in np.argsort(-sizes, kind="stable") if sizes[n] >= LEAST_MM3]
    table = np.zeros(count + 1, dtype=np.uint16)
    for number, piece in enumerate(kept, 1):
        table[piece] = min(number, MOST_PLACES)
    labels = table[pieces]
    boxes = ndimage.find_objects(pieces)
    places = []
    for number, piece in enumerate(kept[:MOST_PLACES], 1):
        box = boxes[piece - 1]
        inside = np.argwhere(pieces[box] == piece) + [each.start for each in box]
        nearest = inside[np.argmin(np.sum(np.square((inside - inside.mean(0)) * spacing), axis=1))]
        size = float(sizes[piece - 1])
        centre = tuple(float(mm) for mm in volume.grid.index_to_world(nearest[None, ::-1])[0])
        places.append(Place(number, size, centre, float(np.cbrt(6 * size / np.pi))))  # type: ignore[arg-type]
    made = Volume(labels.astype(np.float32), volume.grid, f"{volume.name} flags")
    return Flags(made, tuple(places), detector)


def widened(deviation: np.ndarray, flagged: np.ndarray) -> np.ndarray:
    """`deviation` on the networks' scale, at least `FLAGGED` where something is flagged."""
    return np.where(flagged, np.maximum(deviation, np.float32(FLAGGED)), deviation)
