"""What a model's card does not cover about a scan is said in plain words."""

from __future__ import annotations

import pytest
from made_models import card

from MRSuperResLib import models
from MRSuperResLib.errors import ModelError
from MRSuperResLib.grid import Grid
from MRSuperResLib.inference import planning
from MRSuperResLib.models import ModelCard, SpacingRange


def scan(size: tuple[int, int, int] = (200, 220, 30), spacing: tuple[float, float, float] = (0.8, 0.8, 4.0)) -> Grid:
    """Of thick slices, unless said otherwise."""
    return Grid(size, spacing)


@pytest.mark.parametrize(
    ("grid", "contrast", "factors", "expected"),
    [
        (scan(), "T1w", 4.0, None),
        (scan(), None, None, None),
        (scan(), "FLAIR", 4.0, "trained on T1w and T2w, this scan is FLAIR"),
        (scan(spacing=(0.8, 0.8, 8.0)), "T1w", 4.0, "slices of 2 to 6 mm, this scan has 8 mm"),
        (scan(spacing=(1.3, 1.4, 4.0)), "T1w", 4.0, "in-plane voxels of 0.5 to 1.2 mm, this scan has 1.3 x 1.4 mm"),
        (scan(spacing=(0.3, 0.4, 4.0)), "T1w", 4.0, None),  # shown to the network averaged
        (scan(spacing=(0.01, 0.4, 4.0)), "T1w", 4.0, "0.01 x 0.4 mm"),  # no scanner's: not averaged to one pixel
        (scan(), "T1w", (8.0,), "made for x4, x8 is asked"),
        (scan(size=(5, 220, 30)), "T1w", 4.0, "at least 8 voxels"),
    ],
)
def test_what_a_model_was_not_trained_for_is_said_in_plain_words(
    grid: Grid, contrast: str | None, factors: object, expected: str | None
) -> None:
    reasons = models.coverage(card(), grid, contrast, factors)  # type: ignore[arg-type]
    if expected is None:
        assert reasons == []
    else:
        assert len(reasons) == 1 and expected in reasons[0]


def test_an_in_plane_model_is_offered_for_a_coarse_matrix_of_thin_slices() -> None:
    """Whoever asks without a slice axis, as the panel does, hears what a run would: 4 x 4 mm pixels, not 4 x 1 mm ones."""
    inplane = card("tiny-inplane", plane="in-plane", factors=(2, 2), spacing=SpacingRange((2.3, 5.0), (0.6, 6.0)))
    for grid in (scan((40, 48, 20), (4.0, 4.0, 1.0)), scan((20, 48, 40), (1.0, 4.0, 4.0))):
        assert models.coverage(inplane, grid, "T1w") == []
        assert planning.plan(grid, inplane, contrast="T1w").notes == ()
    reasons = models.coverage(inplane, scan((40, 48, 20), (8.0, 8.0, 1.0)), "T1w")
    assert len(reasons) == 1 and "in-plane voxels of 2.3 to 5 mm, this scan has 8 mm" in reasons[0]


def test_slices_with_larger_gaps_than_the_training_had_are_told() -> None:
    trained = card(spacing=SpacingRange((0.5, 1.2), (2.0, 6.0), (0.5, 1.3)))
    grid = Grid((60, 60, 20), (1.0, 1.0, 5.0))
    for thickness, told in ((None, None), (5.0, None), (2.6, None), (2.0, "there are gaps"), (8.0, "overlap")):
        reasons = models.coverage(trained, grid, "T1w", None, None, thickness)
        assert (reasons == []) if told is None else (len(reasons) == 1 and told in reasons[0])
    assert models.coverage(card(), grid, "T1w", None, None, 2.0) == [], "a card that does not say is not asked"
    assert ModelCard.from_json(trained.to_json()) == trained
    with pytest.raises(ModelError, match="spacing range"):
        card(spacing=SpacingRange((0.5, 1.2), (2.0, 6.0), (1.3, 0.5)))
