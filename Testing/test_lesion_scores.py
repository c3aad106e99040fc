"""What becomes of lesions in a translation is counted rightly: a lost one is never called shown, and the count can be repeated."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from made_translators import entry

from MRSuperResLib.errors import UnsuitableVolume
from MRSuperResLib.evaluation import lesions
from MRSuperResLib.evaluation.lesions import (
    CORE,
    COVERED,
    DIAMETERS,
    KINDS,
    VISIBLE,
    Case,
    Inserted,
    LesionScore,
    evaluate_lesions,
    lesion_table,
    lesioned_pairs,
    summary,
)
from MRSuperResLib.grid import Grid
from MRSuperResLib.inference import Options
from MRSuperResLib.intensity import IntensityScale
from MRSuperResLib.lesions import REACH
from MRSuperResLib.volume import Volume

CPU = Options(device="cpu", threads=1)
MM = 2.0
LEVELS = {"T1w": (0.15, 0.52, 0.72), "T2w": (0.85, 0.46, 0.32), "FLAIR": (0.12, 0.66, 0.54)}  # fluid, grey, white


def scan(contrast: str) -> Volume:
    """A head of 150 mm, its skull stripped: white in grey matter, two ventricles, a little noise."""
    shape = (48, 76, 68)
    k, j, i = (MM * (axis - (n - 1) / 2) for axis, n in zip(np.indices(shape), shape, strict=True))
    radius = np.sqrt((k / 45) ** 2 + (j / 72) ** 2 + (i / 64) ** 2)
    ventricles = np.minimum(*(np.sqrt((k / 9) ** 2 + (j / 16) ** 2 + ((i - side) / 4) ** 2) for side in (-9, 9))) < 1
    fluid, grey, white = LEVELS[contrast]
    unit = np.select([ventricles, radius < 0.78, radius < 0.97, radius < 1], [fluid, white, grey, fluid], 0.0)
    unit = unit + 0.01 * np.random.default_rng(0).standard_normal(shape) * (radius < 1)
    grid = Grid(shape[::-1], (MM, MM, MM), (-70.0, -80.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    return Volume((800 * unit).astype(np.float32), grid, f"head_{contrast}")


@pytest.fixture(scope="module")
def source() -> Volume:
    return scan("T1w")


@pytest.fixture(scope="module")
def truth() -> Volume:
    return scan("T2w")


@pytest.fixture(scope="module")
def pairs(source: Volume, truth: Volume) -> list[tuple[Volume, Volume, list[Inserted]]]:
    return list(lesioned_pairs(source, truth, "T1w", "T2w", [3]))


def case(source: float = 0.2, target: float = 0.2, answer: float = 0.2, flagged: float = 0.0, **more: Any) -> Case:
    return Case(more.get("kind", "oedema"), more.get("diameter", 10.0), source, target, answer, flagged)


# one lesion


@pytest.mark.parametrize(
    ("target", "answer", "shown"),
    [
        (0.2, 0.2, True),
        (0.2, 0.1, True),
        (0.2, 0.099, False),
        (0.2, 0.6, True),
        (0.2, 0.0, False),
        (0.2, -0.2, False),
        (-0.2, -0.1, True),
        (-0.2, -0.099, False),
        (-0.2, 0.2, False),
        (-0.2, 0.0, False),
    ],
)
def test_a_lesion_is_shown_with_the_right_sign_and_half_its_contrast(target: float, answer: float, shown: bool) -> None:
    assert bool(case(target=target, answer=answer).shown) is shown
    assert bool(case(source=-0.3, target=target, answer=answer).shown) is shown, "the source's sign does not matter"


def test_a_lesion_is_flagged_when_a_quarter_of_its_core_is() -> None:
    assert case(flagged=COVERED).flagged and case(flagged=1.0).flagged
    assert not case(flagged=COVERED - 0.01).flagged and not case(flagged=0.0).flagged


def test_what_cannot_be_seen_in_scan_or_truth_is_not_counted() -> None:
    assert case(-VISIBLE, VISIBLE).possible
    assert not case(source=0.9 * VISIBLE).possible and not case(target=-0.9 * VISIBLE).possible


def test_lost_is_neither_shown_nor_flagged_and_sizes_and_invisible_ones_are_told_apart() -> None:
    cases = [
        case(),  # shown
        case(flagged=0.5),  # both
        case(answer=-0.2, flagged=0.5),  # inverted, and flagged
        case(answer=0.0),  # lost
        case(answer=0.0, diameter=3.0),  # too small for the line
        case(source=0.0, answer=0.0),  # not in the scan
    ]
    assert summary(cases) == "of 4 lesions of 6 mm or more 2 shown, 2 flagged, 1 lost"
    assert summary(cases, 3.0) == "of 5 lesions of 3 mm or more 2 shown, 2 flagged, 2 lost"
    assert summary([case(source=0.0)]) == "no lesion could be counted"
    table = lesion_table([LesionScore("head_T2w", "tiny", "T1w", "T2w", tuple(cases), 0.0123, 1200.0)])
    rows = {line[:34].strip(): line[34:].split() for line in table.splitlines()}
    assert rows["3 mm"] == ["1", "0", "0", "1", "0.0", "%"]
    assert rows["10 mm or more"] == ["4", "2", "2", "1", "75.0", "%"]
    assert "1 more change the scan or the true target" in table
    assert "1.23 % of 1200 ml of brain" in table


# the pairs


def test_every_kind_in_every_size_once_a_seed(pairs: list[tuple[Volume, Volume, list[Inserted]]]) -> None:
    found = sorted((each.lesion.kind, each.lesion.diameter) for _, _, put in pairs for each in put)
    assert len(pairs) == len(KINDS) and found == sorted((kind, mm) for kind in KINDS for mm in DIAMETERS)


def test_the_same_seed_gives_the_same_lesions_and_another_seed_others(
    source: Volume, truth: Volume, pairs: list[tuple[Volume, Volume, list[Inserted]]]
) -> None:
    again = next(iter(lesioned_pairs(source, truth, "T1w", "T2w", [3])))
    for one, other in zip(pairs[0][:2], again[:2], strict=True):
        np.testing.assert_array_equal(one.array, other.array)
    assert [each.centre for each in pairs[0][2]] == [each.centre for each in again[2]]
    other = next(iter(lesioned_pairs(source, truth, "T1w", "T2w", [4])))
    assert [each.centre for each in other[2]] != [each.centre for each in again[2]]


def test_lesions_are_of_one_tissue_in_source_and_target_and_nothing_else_changes(
    source: Volume, truth: Volume, pairs: list[tuple[Volume, Volume, list[Inserted]]]
) -> None:
    """A cyst is dark on T1w and bright on T2w, calcification dark on T2w, as water and lime are; both at the same voxels."""
    changes: dict[tuple[str, float], tuple[float, float]] = {}
    for lesioned, true, put in pairs:
        near = np.zeros(source.array.shape, dtype=bool)
        for each in put:
            away = [MM * (axis - c) for axis, c in zip(np.indices(near.shape), each.centre, strict=True)]
            reach = REACH * each.lesion.radius * max(each.lesion.axes) + 3 + MM
            near |= np.sqrt(sum(one**2 for one in away)) <= np.sqrt(3) * reach  # in the box that an insertion touches
            core = each.covered > CORE
            if core.any():
                moved = [
                    float(np.mean(after.array[core] - before.array[core])) / 800
                    for before, after in ((source, lesioned), (truth, true))
                ]
                changes[each.lesion.kind, each.lesion.diameter] = (moved[0], moved[1])
            assert each.covered[each.centre] > 0.3, "a lesion is where it is said to be"
        for before, after in ((source, lesioned), (truth, true)):
            np.testing.assert_allclose(after.array[~near], before.array[~near], atol=0.5)
            assert np.abs(after.array - before.array).max() > 80
    for mm in (10.0, 25.0):
        cyst, lime = changes["cyst", mm], changes["calcification", mm]
        assert cyst[0] < -0.1 and cyst[1] > 0.15
        assert lime[1] < -0.1


def test_no_two_lesions_of_a_volume_overlap(pairs: list[tuple[Volume, Volume, list[Inserted]]]) -> None:
    for _, _, put in pairs:
        assert sum((each.covered > 0.5).astype(int) for each in put).max() == 1


def test_without_a_brain_there_is_nothing_to_put_lesions_into(source: Volume, truth: Volume) -> None:
    flat = dataclasses.replace(source, array=np.zeros_like(source.array))
    with pytest.raises(UnsuitableVolume, match="no brain"):
        next(iter(lesioned_pairs(flat, truth, "T1w", "T2w", [1])))


# the whole, with answers that are known


class Answering:
    """Stands for a translator: answers with the truth, in which `share` of each lesion's change is left."""

    share = 1.0
    flagged: frozenset[int] = frozenset()  # which lesions of a volume are flagged
    pairs: tuple[tuple[Volume, Volume, list[Inserted]], ...] = ()
    truth: Volume

    def __init__(self, volume: Volume, *given: Any) -> None:
        scale = IntensityScale.of(self.truth.array)
        plain = scale.to_unit(self.truth.array)
        true = next((true for lesioned, true, _ in self.pairs if lesioned is volume), self.truth)
        self.unit = plain + self.share * (scale.to_unit(true.array) - plain)

    def answer(self, z: np.ndarray, clock: object = None, part: slice = slice(None)) -> np.ndarray:
        return np.asarray(self.unit[part], dtype=np.float32)


@dataclasses.dataclass
class Found:
    """What flags are found."""

    mask: np.ndarray


@pytest.fixture
def scored(
    source: Volume,
    truth: Volume,
    pairs: list[tuple[Volume, Volume, list[Inserted]]],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    """`evaluate_lesions` of an answer with a share of each lesion, and of flags on some of them and a corner of the brain."""

    def flags(volume: Volume, *given: Any, **more: Any) -> Found:
        put = next((put for lesioned, _, put in pairs if lesioned is volume), [])
        mask = np.zeros(volume.array.shape, dtype=bool)
        for number in Known.flagged:
            if number < len(put):
                mask |= put[number].covered > CORE
        if not put:
            mask[:24] = True  # the lower half
        return Found(mask)

    class Known(Answering):
        pass

    Known.truth, Known.pairs = truth, tuple(pairs)
    monkeypatch.setattr(lesions, "Translator", Known)
    monkeypatch.setattr(lesions, "find_flags", flags)
    monkeypatch.setattr(lesions, "lesioned_pairs", lambda *given: iter(pairs))

    def run(share: float, flagged: frozenset[int] = frozenset()) -> LesionScore:
        Known.share, Known.flagged = share, flagged
        return evaluate_lesions(source, truth, entry(), options=CPU)

    yield run


@pytest.mark.parametrize(("share", "shown"), [(1.0, True), (0.55, True), (0.45, False), (0.0, False), (-1.0, False)])
def test_an_answer_that_keeps_half_of_a_lesion_shows_it_and_less_or_the_contrary_does_not(
    scored: Any, share: float, shown: bool
) -> None:
    found = scored(share)
    assert (found.source, found.target, found.scan) == ("T1w", "T2w", "head_T2w")
    cases = [each for each in found.cases if each.possible]
    assert len(found.cases) == len(KINDS) * len(DIAMETERS) and len(cases) >= 12
    assert [bool(each.shown) for each in cases] == [shown] * len(cases)
    for each in cases:
        assert each.answer == pytest.approx(share * each.target, abs=2e-3)


def test_a_lesion_that_an_answer_erases_is_safe_only_where_it_is_flagged(scored: Any) -> None:
    found = scored(0.0, frozenset({0, 2}))  # the largest and the second smallest of each volume
    for each in found.cases:
        assert each.flagged == (each.diameter in (DIAMETERS[3], DIAMETERS[1])), each
    possible = [each for each in found.cases if each.possible and each.diameter >= 6]
    flagged = sum(each.diameter in (DIAMETERS[3], DIAMETERS[1]) for each in possible)
    expected = f"of {len(possible)} lesions of 6 mm or more 0 shown, {flagged} flagged, {len(possible) - flagged} lost"
    assert summary(found.cases) == expected and 0 < flagged < len(possible)


def test_false_flags_are_the_part_of_the_healthy_brain_that_is_flagged(scored: Any) -> None:
    found = scored(1.0)
    assert found.false_flags == pytest.approx(0.5, abs=0.03), "the lower half of a symmetric head"
    assert found.brain_ml == pytest.approx(4 / 3 * np.pi * 4.5 * 7.2 * 6.4, rel=0.15)
