"""Whether a model's card covers a scan: its contrast, voxel spacings, size and the factor asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..subject import ADULT, age_of, body_part, other_modality
from .card import ModelCard

if TYPE_CHECKING:
    from ..grid import Grid
    from ..volume import Volume

PIXEL = 1.0  # mm, about, of the slices that networks of one input size are trained on
MOST_AVERAGED = 4  # pixels along an axis: finer ones than that are no scanner's
TOLERANCE = 1.02  # of a spacing range's ends: headers print spacings rounded


def coverage(
    card: ModelCard,
    grid: Grid,
    contrast: str | None = None,
    factors: float | Sequence[float] | None = None,
    slice_axis: int | None = None,
    thickness: float | None = None,
) -> list[str]:
    """Plain-language reasons why `card` does not cover a scan on `grid`; empty when it does.

    contrast: of the scan, None if not known. factors: the enlargement asked for, one number or one per axis.
    slice_axis: 0..2, None for the one that the model would take. thickness: of the slices, mm, None if not known.
    """
    reasons = contrast_coverage(card, contrast)
    plane = "in-plane" if card.task == "translate" else card.plane
    axis = grid.slice_axis_for(plane) if slice_axis is None else slice_axis
    grid = shown_grid(card, grid, axis, plane)
    if card.spacing is not None:
        within = [spacing for other, spacing in enumerate(grid.spacing) if other != axis]
        reasons += _beyond("in-plane voxels", (min(within), max(within)), card.spacing.in_plane)
        reasons += _beyond("slices", (grid.spacing[axis],) * 2, card.spacing.through_plane)
        if thickness is not None and card.spacing.thickness is not None and plane != "in-plane":
            reasons += _thickness(thickness / grid.spacing[axis], card.spacing.thickness)
    if factors is not None and card.factor is not None:
        asked = max(factors) if isinstance(factors, Sequence) else factors
        if asked > card.factor * TOLERANCE:
            reasons.append(f"made for x{card.factor:g}, x{asked:g} is asked")
    side = max(grid.extent[other] for other in range(3))
    if card.requirements.input_size and side > card.requirements.input_size * PIXEL * TOLERANCE:
        most = card.requirements.input_size * PIXEL
        reasons.append(
            f"trained on slices of {most:g} mm at most, this scan's have {side:.0f} mm: they are cut into parts"
        )
    smallest = min(size for other, size in enumerate(grid.size) if other != axis)
    if smallest < card.requirements.smallest:
        reasons.append(f"needs at least {card.requirements.smallest} voxels a side, this scan has {smallest}")
    return reasons


def shown_grid(card: ModelCard, grid: Grid, axis: int, plane: str) -> Grid:
    """`grid` as the network is shown it: pixels finer than it was trained on are averaged, for thinner slices along `axis`.

    Scanners interpolate a matrix, by zero-filling, to pixels of half the size; and how fine pixels are matters little across them.
    """
    if plane != "through-plane" or card.spacing is None:
        return grid
    least = card.spacing.in_plane[0] / TOLERANCE
    steps = [1 if other == axis else math.ceil(least / mm) for other, mm in enumerate(grid.spacing)]
    if max(steps) == 1 or max(steps) > MOST_AVERAGED:
        return grid
    shown = [step * mm for step, mm in zip(steps, grid.spacing, strict=True)]
    return grid.with_spacing((shown[0], shown[1], shown[2]))


def contrast_coverage(card: ModelCard, contrast: str | None) -> list[str]:
    """The reasons of `coverage` that a scan's contrast gives, whatever its voxels."""
    if contrast and "any" not in card.contrasts and contrast not in card.contrasts:
        return [f"trained on {_listed(card.contrasts)}, this scan is {contrast}"]
    return []


def subject_coverage(card: ModelCard, volume: Volume) -> list[str]:
    """As `coverage`, of what the scan's file and values say of modality, body part and age; empty for a model for anything."""
    if card.anatomy == "any":
        return []
    reasons = []
    other = other_modality(volume)
    if other:
        reasons.append(f"made for MR images of the {card.anatomy}: {other}")
    part, age = body_part(volume), age_of(volume)
    fits = part == card.anatomy or (card.anatomy == "brain" and part == "head")
    if part is not None and not fits:
        reasons.append(f"made for the {card.anatomy}, this scan is of the {part}")
    if age is not None and card.ages is not None and not card.ages[0] <= age <= card.ages[1]:
        reasons.append(f"trained on people of {card.ages[0]:g} to {card.ages[1]:g} years, this one is {age:.2g}")
    elif age is not None and card.ages is None and age < ADULT:
        reasons.append(
            f"its card tells no age range, and this is a child of {age:.2g} years, whose head is smaller than an adult's"
        )
    return reasons


def reference_coverage(card: ModelCard, contrast: str | None, reference_contrast: str | None) -> list[str]:
    """As `coverage`, of a reference of `reference_contrast` beside a scan of `contrast`; None: not known."""
    reasons = []
    covered = card.reference_contrasts
    if reference_contrast and covered and "any" not in covered and reference_contrast not in covered:
        reasons.append(f"trained with references of {_listed(covered)}, this one is {reference_contrast}")
    if reference_contrast and reference_contrast == contrast:
        reasons.append(
            f"trained with references of another contrast than the scan's: one of {contrast} too adds little but sharpness"
        )
    return reasons


def _thickness(found: float, covered: tuple[float, float]) -> list[str]:
    if covered[0] / TOLERANCE <= found <= covered[1] * TOLERANCE:
        return []
    return [
        f"trained on slices {covered[0]:.0%} to {covered[1]:.0%} as thick as they are apart, these are {found:.0%}: "
        f"{'there are gaps between them' if found < 1 else 'they overlap'}"
    ]


def _beyond(what: str, found: tuple[float, float], covered: tuple[float, float]) -> list[str]:
    if found[0] * TOLERANCE >= covered[0] and found[1] <= covered[1] * TOLERANCE:
        return []
    size = f"{found[0]:.3g}" if found[1] - found[0] < 0.01 * found[1] else f"{found[0]:.3g} x {found[1]:.3g}"
    return [f"trained on {what} of {covered[0]:g} to {covered[1]:g} mm, this scan has {size} mm"]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
