"""Which model suits a scan, when nobody has chosen one: plane, network and factor, and why, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import models
from ..contrasts import guess_contrast, telling_name
from ..errors import UnsuitableVolume
from ..models import ModelEntry
from ..models.scores import gains, mean_gain
from .planning import STRETCH

if TYPE_CHECKING:
    from ..grid import Grid
    from ..volume import Volume

THICK = 1.5  # slices that many times as far apart as pixels are worth making thinner
FALLBACK = "bspline"
FINE = 1.2  # mm: pixels smaller than that, of slices that are not thick, are what networks make of coarser ones
MOST = 8.0  # the largest factor that interpolation is recommended for
FINER = 1.1  # a spacing this much above the one wanted is refined; less is only resampled


@dataclass(frozen=True)
class Recommendation:
    """What is recommended for a scan. plane: "in-plane" or "through-plane". why: one sentence.

    factor: along the model's axes; 1 for a scan that is fine as it is. first: a model for the plane to go before, where both are
    needed; "" for none.
    """

    task: str
    model: str
    plane: str
    factor: float
    why: str
    first: str = ""

    def check(self) -> None:
        """Raise `UnsuitableVolume` for a scan that is fine as it is."""
        if self.factor <= 1:
            raise UnsuitableVolume(self.why, code="fine-already")


def recommend(
    volume: Volume,
    *,
    contrast: str | None = None,
    thickness: float | None = None,
    to_iso: float | None = None,
    guided: bool = False,
    finer: bool = False,
    model_folders: Sequence[str] = (),
) -> Recommendation:
    """Task, model and factor for `volume`, from its spacing, thickness, contrast, orientation and the models' cards.

    contrast: by default what its name tells. thickness: of the slices, mm; by default what its file tells. to_iso: the spacing (mm)
    wanted along every axis, for which in-plane and through-plane models may be needed in turn. guided: a reference is at hand.
    finer: a factor, spacing or plane is asked for, so that a scan that is fine as it is gets a model too. Where no network covers
    the scan, interpolation is recommended.
    """
    contrast = contrast or guess_contrast(telling_name(volume.name, volume.metadata))
    thickness = thickness or volume.thickness
    entries = [entry for entry in models.list_models(model_folders) if not entry.card.is_baseline]
    task = "reference-guided" if guided else "super-resolve"
    scan = _Scan(volume, contrast, thickness, [entry for entry in entries if entry.card.task == task])
    if to_iso is not None:
        return _isotropic(scan, to_iso, task)
    if scan.is_fine and not guided and not finer:
        return Recommendation(
            task,
            FALLBACK,
            "in-plane",
            1.0,
            f"{scan.described()}: the scan is fine as it is. For still smaller voxels choose a model and a factor yourself",
        )
    for plane in scan.planes():
        wanted = scan.wanted(plane)
        fitting = scan.fitting(plane, wanted)
        if fitting:
            best = fitting[0].card
            own = best.factor or 1.0
            factor = own if wanted > 0.9 * own else round(wanted, 2)
            return Recommendation(
                task, best.id, plane, factor, f"{scan.described()}: {_praise(best, plane, factor, contrast)}"
            )
    plane = scan.planes()[0]
    factor = min(MOST, max(2.0, float(round(scan.wanted(plane)))))
    why = f"{scan.described()}: no network covers {'this scan' if contrast is None else f'this {contrast} scan'}"
    return Recommendation(
        "super-resolve", FALLBACK, plane, factor, f"{why}, so it is interpolated (B-spline, x{factor:g})"
    )


def refined_planes(grid: Grid, mm: float) -> tuple[str, ...]:
    """The planes that have to be refined for a spacing of `mm` along every axis, in the order in which to do it."""
    axis = grid.slice_axis
    within = max(spacing for other, spacing in enumerate(grid.spacing) if other != axis)
    return ("in-plane",) * (within > FINER * mm) + ("through-plane",) * (grid.spacing[axis] > FINER * mm)


@dataclass(frozen=True)
class _Scan:
    """What matters about a scan, and the networks there are for its task."""

    volume: Volume
    contrast: str | None
    thickness: float | None
    entries: Sequence[ModelEntry]

    @property
    def grid(self) -> Grid:
        return self.volume.grid

    @property
    def ratio(self) -> float:
        """Spacing of slices over that of pixels."""
        return self.grid.spacing[self.grid.slice_axis] / self.pixel

    @property
    def pixel(self) -> float:
        """Spacing (mm) in the plane, the larger of both."""
        return max(spacing for other, spacing in enumerate(self.grid.spacing) if other != self.grid.slice_axis)

    @property
    def is_fine(self) -> bool:
        """Whether neither slices nor pixels are coarse."""
        return self.ratio < THICK and self.pixel < FINE

    def planes(self) -> tuple[str, str]:
        """Where the scan is coarse, first."""
        return ("through-plane", "in-plane") if self.ratio >= THICK else ("in-plane", "through-plane")

    def wanted(self, plane: str) -> float:
        """The factor that would make voxels cubes, at least 2 in a plane whose pixels are as small as slices are thin."""
        if plane == "through-plane":
            return max(self.ratio, 2.0)
        axis = self.grid.slice_axis_for("in-plane")
        within = max(spacing for other, spacing in enumerate(self.grid.spacing) if other != axis)
        return max(2.0, within / self.grid.spacing[axis])

    def fitting(self, plane: str, wanted: float, grid: Grid | None = None, reaching: bool = False) -> list[ModelEntry]:
        """The networks for `plane` that cover the scan (on `grid`), the best first: nearest factor, then largest gain.

        reaching: those that reach the factor wanted in one pass come first; a second pass takes several times as long.
        """
        grid = grid or self.grid
        axis = grid.slice_axis_for(plane)
        found = [
            entry
            for entry in self.entries
            if entry.card.plane == plane
            and not models.coverage(entry.card, grid, self.contrast, None, axis, self.thickness)
            and not models.subject_coverage(entry.card, self.volume)
        ]

        def place(entry: ModelEntry) -> tuple[bool, float, float]:
            own = entry.card.factor or 1.0
            return reaching and wanted > STRETCH * own, abs(own - wanted), -mean_gain(entry.card)

        return sorted(found, key=place)

    def described(self) -> str:
        """Slices and pixels in words."""
        spacing = self.grid.spacing[self.grid.slice_axis]
        thick = "" if self.thickness is None else f", {self.thickness:.3g} mm thick"
        name = self.grid.axis_name(self.grid.slice_axis)
        return f"The {name} slices are {spacing:.3g} mm apart{thick}, pixels {self.pixel:.3g} mm"


def _praise(card: models.ModelCard, plane: str, factor: float, contrast: str | None) -> str:
    """What the model does and gains."""
    told = [gain for gain in gains(card) if gain.plane == plane]
    gain = f" and gains {told[0].mean:.1f} dB over {told[0].baseline} on its card's scans" if told else ""
    what = "such scans" if contrast is None else f"such {contrast} scans"
    does = "slices thinner" if plane == "through-plane" else "pixels smaller"
    return f"'{card.id}' makes {does} x{factor:g}, covers {what}{gain}"


def _isotropic(scan: _Scan, mm: float, task: str) -> Recommendation:
    """A model for each plane that has to be refined for cubes of `mm`."""
    axis, planes = scan.grid.slice_axis, refined_planes(scan.grid, mm)
    chosen: dict[str, str] = {}
    factor, spacing = 1.0, list(scan.grid.spacing)
    for plane in planes:
        spacing = [old if n == axis else max(mm, old) for n, old in enumerate(spacing)]  # finer pixels are averaged
        grid = scan.grid.with_spacing((spacing[0], spacing[1], spacing[2]))
        axes = [n for n in range(3) if (n == axis) == (plane == "through-plane")]
        factor = max(spacing[n] / mm for n in axes)
        fitting = scan.fitting(plane, factor, grid, reaching=True)
        chosen[plane] = fitting[0].card.id if fitting else FALLBACK
        spacing = [min(mm, old) if n in axes else old for n, old in enumerate(spacing)]
    if not planes:
        return Recommendation(task, FALLBACK, "in-plane", 1.0, f"{scan.described()}: nothing to refine to {mm:g} mm")
    steps = " and then ".join(f"{plane} with '{model}'" for plane, model in chosen.items())
    why = f"{scan.described()}: refined to {mm:g} mm {steps}"
    return Recommendation(
        task, chosen[planes[-1]], planes[-1], factor, why, chosen[planes[0]] if len(planes) > 1 else ""
    )
