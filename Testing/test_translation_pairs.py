"""Training pairs for translation: one place in two contrasts, the source disturbed as scans are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_trainings import two_contrasts

from MRSuperResLib.training.data.coarsen import DegradationSpec
from MRSuperResLib.training.data.crops import AugmentationSpec, SourceSpec
from MRSuperResLib.training.data.single import DataSpec
from MRSuperResLib.training.data.synthesis import LEVELS, TISSUES, synthesise_contrasts, tissue_of
from MRSuperResLib.training.data.translation import ContrastPairs, DisturbanceSpec
from MRSuperResLib.training.pack import Pack


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two contrasts of one head, and recipes."""
    return two_contrasts(tmp_path_factory.mktemp("study"))


def test_tissues_have_the_levels_of_their_contrast() -> None:
    """CSF is dark in T1w and FLAIR and bright in T2w; white matter is brighter than grey in T1w, darker in the others."""
    assert [TISSUES[t] for t in tissue_of(np.array([0, 2, 41, 3, 4, 24, 507]))] == [
        "background", "white", "white", "grey", "fluid", "fluid", "other",
    ]  # fmt: skip
    labels = np.repeat(np.repeat(np.array([[2, 3], [4, 24]]), 24, 0), 24, 1)
    for name, order in {"T1w": "fgw", "T2w": "wgf", "FLAIR": "fwg"}.items():
        levels = dict(zip("fgw", LEVELS[name], strict=True))
        assert "".join(sorted(levels, key=levels.__getitem__)) == order
    (image,) = synthesise_contrasts(np.where(labels == 24, 4, labels), ["T2w"], np.random.default_rng(1))
    assert image.max() > 0.6 and image.min() < 0.5


def _pairs(study: Path, disturbance: DisturbanceSpec, match: str = "pairs/*") -> ContrastPairs:
    spec = DataSpec(
        (SourceSpec(match, "axial"),),
        DegradationSpec({"bicubic": 1.0}),
        patch=32,
        augmentation=AugmentationSpec(gamma=(1.0, 1.0), zoom_probability=0.0),
    )
    return ContrastPairs(Pack(study / "train.pack"), spec, disturbance, ("T1w", "T2w"), seed=4)


def test_pairs_show_one_place_in_two_contrasts(study: Path) -> None:
    still = DisturbanceSpec(0.0, 0.0, 0.0, (1.0, 1.0), (1.0, 1.0), 0.0, 0.0)
    pairs = _pairs(study, still)
    seen = set()
    for number in range(12):
        source, target, a, b = pairs.pair(np.random.default_rng(number))
        seen.add((a, b))
        inside = (source > 0.15) & (target > 0.15)
        assert np.corrcoef(source[inside], target[inside])[0, 1] < -0.9  # bias fields of the source only bend it
    assert seen == {(0, 1), (1, 0)}


def test_air_is_raised_in_a_third_of_the_sources(study: Path) -> None:
    raised = DisturbanceSpec(0.0, 0.0, 0.0, (1.0, 1.0), (1.0, 1.0), 0.0, 0.0, lift=0.08)
    pairs = _pairs(study, raised)
    air = []
    for number in range(60):
        source, target, _, _ = pairs.pair(np.random.default_rng(number))
        air.append(source[target < 1e-6].min(initial=1.0))
    dark = np.array([level for level in air if level < 1.0])  # crops that show air
    assert dark.max() <= 0.08 and 0.2 < np.mean(dark > 1e-6) < 0.5


def test_a_pair_depends_on_its_number_alone(study: Path) -> None:
    pairs = _pairs(study, DisturbanceSpec())
    first = [torch.cat(pair[:2]) for pair, _ in zip(pairs, range(5), strict=False)]
    pairs.start = 3
    again = next(iter(pairs))
    torch.testing.assert_close(first[3], torch.cat(again[:2]))
    labels = _pairs(study, DisturbanceSpec(), "labels/*").pair(np.random.default_rng(0))
    assert np.isfinite(labels[0]).all() and labels[2] != labels[3]
