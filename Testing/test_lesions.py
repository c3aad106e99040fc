"""Lesions put into scans: physically possible in every contrast, of the size asked for, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from MRSuperResLib.lesions import KINDS, REACH, Layer, Lesion, deep_inside, draw_lesion, inserted
from MRSuperResLib.relaxation import (
    CSF_T1,
    FIELDS,
    TISSUES,
    Acquired,
    PulseSequence,
    acquired_as,
    draw_sequence,
    material,
    signal,
    tissue_levels,
)

TYPICAL = {"T1w": (0.15, 0.52, 0.72), "T2w": (0.85, 0.46, 0.32), "FLAIR": (0.12, 0.66, 0.54)}


def tissues(field: float) -> np.ndarray:
    return np.stack([material(name, field) for name in TISSUES])


def plain_way() -> Acquired:
    """Conventional sequences at 1.5 T, white matter at 0.7, 0.3 and 0.55."""
    made = {}
    for name, sequence, white in (
        ("T1w", PulseSequence("spin-echo", 500, 12), 0.7),
        ("T2w", PulseSequence("spin-echo", 4000, 100), 0.3),
        ("FLAIR", PulseSequence("inversion", 9000, 120, 2500), 0.55),
    ):
        made[name] = (sequence, white / float(signal(sequence, material("white", 1.5))))
    return Acquired(1.5, made)


def plain_lesion(diameter: float, **changes: object) -> Lesion:
    layer = Layer(1.0, (1500.0, 150.0, 0.9, 0.003), 1.0)
    return Lesion(
        **{"kind": "oedema", "diameter": diameter, "layers": (layer,), "roughness": 0.0, "soft": 0.3, **changes}
    )  # type: ignore[arg-type]


def brain(shape: tuple[int, ...] = (60, 60, 60)) -> dict[str, np.ndarray]:
    """White matter everywhere, as `plain_way` shows it, with the same little noise."""
    noise = 0.01 * np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return {
        name: level + noise
        for name, level in (("T1w", np.float32(0.7)), ("T2w", np.float32(0.3)), ("FLAIR", np.float32(0.55)))
    }


def test_signals_follow_the_bloch_equations() -> None:
    water = np.array([1000.0, 100.0, 0.8, 0.0])
    assert signal(PulseSequence("spin-echo", 1000, 100), water) == pytest.approx(0.8 * (1 - np.exp(-1)) * np.exp(-1))
    inverted = PulseSequence("inversion", 5000, 0, 1000 * np.log(2 / (1 + np.exp(-5))))
    assert signal(inverted, water) == pytest.approx(0, abs=1e-6)
    ernst = np.degrees(np.arccos(np.exp(-0.02)))  # the flip angle of the largest signal at TR of 20 ms
    best = signal(PulseSequence("spoiled", 20, 0, flip=float(ernst)), water)
    assert all(best > signal(PulseSequence("spoiled", 20, 0, flip=float(ernst) + off), water) for off in (-2, 2))
    with pytest.raises(ValueError, match="kind"):
        signal(PulseSequence("spiral", 1, 1), water)


@pytest.mark.parametrize("field", FIELDS)
def test_healthy_tissues_have_the_order_that_gives_the_contrasts_their_names(field: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        fluid, grey, white = signal(draw_sequence("T1w", field, rng), tissues(field))
        assert fluid < grey < white
        fluid, grey, white = signal(draw_sequence("T2w", field, rng), tissues(field))
        assert fluid > grey > white
        fluid, grey, white = signal(draw_sequence("FLAIR", field, rng), tissues(field))
        assert fluid < 0.4 * white < grey


def test_flair_nulls_fluid() -> None:
    rng = np.random.default_rng(2)
    darkest = min(float(signal(draw_sequence("FLAIR", 1.5, rng), np.array([CSF_T1, 1800, 1, 0]))) for _ in range(30))
    assert darkest < 0.02


SIGNS = {  # against white matter, as radiology textbooks teach: T1w, T2w, FLAIR; None: either
    "oedema": (-1, 1, 1),
    "demyelination": (-1, 1, 1),
    "cyst": (-1, 1, -1),
    "early subacute haemorrhage": (1, -1, None),
    "haemosiderin": (None, -1, -1),
    "calcification": (-1, -1, -1),
    "fat": (1, 1, 1),
}


@pytest.mark.parametrize("kind", SIGNS)
def test_lesions_are_bright_and_dark_where_radiology_says(kind: str) -> None:
    rng, way = np.random.default_rng(3), plain_way()
    white = [float(way.level(name, material("white", 1.5))) for name in TYPICAL]
    for _ in range(20):
        core = draw_lesion(rng, kind=kind).layers[-1]
        levels = [float(way.level(name, np.array(core.material))) for name in TYPICAL]
        for level, healthy, sign in zip(levels, white, SIGNS[kind], strict=True):
            if sign is not None:
                assert sign * (level - healthy) > 0, (kind, core, levels, white)


def test_every_kind_is_drawn_with_possible_times_and_sizes() -> None:
    rng = np.random.default_rng(4)
    drawn = [draw_lesion(rng, (3, 60)) for _ in range(600)]
    assert {lesion.kind for lesion in drawn} == set(KINDS)
    assert all(3 <= lesion.diameter <= 60 for lesion in drawn)
    layers = [layer for lesion in drawn for layer in lesion.layers]
    assert all(0 < layer.material[1] < layer.material[0] and 0 < layer.material[2] <= 1 for layer in layers)
    assert all(np.prod(lesion.axes) == pytest.approx(1) for lesion in drawn)
    assert any(lesion.push > 0.1 for lesion in drawn)


def test_ways_of_acquisition_explain_the_levels_they_were_drawn_for() -> None:
    rng = np.random.default_rng(5)
    ways = acquired_as(TYPICAL, rng, kept=60)
    for name, wanted in TYPICAL.items():
        levels = np.mean([way.level(name, tissues(way.field)) for way in ways], axis=0)
        assert np.abs(levels - wanted).max() < 0.1, (name, levels)
    assert len({way.sequences["T1w"][0] for way in ways}) > 10  # several, not one


def test_tissue_levels_are_found_in_a_scan_that_lies_lower_on_the_scale() -> None:
    rng = np.random.default_rng(6)
    which = rng.choice(3, (30, 40, 40), p=(0.15, 0.45, 0.4))
    true = {"T1w": (0.1, 0.3, 0.45), "T2w": (0.7, 0.4, 0.28), "FLAIR": (0.1, 0.6, 0.5)}
    images = {name: np.array(levels)[which] + 0.02 * rng.standard_normal(which.shape) for name, levels in true.items()}
    found = tissue_levels(images, TYPICAL)
    assert all(np.abs(found[name] - true[name]).max() < 0.03 for name in true), found


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.8)])
def test_a_lesion_has_the_size_that_was_asked_for(spacing: tuple[float, float, float]) -> None:
    shape = tuple(int(60 / mm) for mm in spacing)
    centre = [(n - 1) / 2 for n in shape]
    images, covered = inserted(brain(shape), plain_lesion(20.0, axes=(1.25, 1.0, 0.8)), centre, spacing, plain_way())
    volume = float(covered.sum()) * float(np.prod(spacing))
    assert volume == pytest.approx(np.pi / 6 * 20**3, rel=0.05)
    core = covered > 0.99
    way = plain_way()
    for name, image in images.items():
        level = float(way.level(name, np.array(plain_lesion(20.0).layers[0].material)))
        assert float(image[core].mean()) == pytest.approx(level, rel=0.04), name


def test_what_lies_out_of_reach_is_not_touched_and_all_contrasts_change_together() -> None:
    before = {
        name: np.full((60, 60, 60), level, np.float32) for name, level in (("T1w", 0.7), ("T2w", 0.3), ("FLAIR", 0.55))
    }
    after, covered = inserted(
        before, draw_lesion(np.random.default_rng(7), (12, 12), "tumour"), (30, 30, 30), (1, 1, 1), plain_way()
    )
    where = np.indices(covered.shape) - 30
    far = np.sqrt(np.square(where).sum(0)) > 6 * REACH * 2.0 + 3
    changed = {name: np.abs(after[name] - before[name]) > 0.03 for name in before}
    for name in before:
        assert np.array_equal(after[name][far], before[name][far])
        assert changed[name].any()
        assert covered[changed[name]].min() > 0.02  # nothing changes but the lesion


def test_a_lesion_with_mass_effect_pushes_its_surroundings_outwards() -> None:
    images = brain()
    for image in images.values():
        image[:, 39:41, :] += 0.2  # a sheet, 10 mm from the centre
    after, _ = inserted(images, plain_lesion(14.0, push=0.35), (30, 30, 30), (1, 1, 1), plain_way())
    sheet = after["T1w"][30, 38:50, 30]
    assert 38 + int(sheet.argmax()) >= 41


def test_the_depth_of_a_place_is_measured_in_mm() -> None:
    head = np.zeros((5, 40, 80), bool)
    head[:, 5:35, 10:70] = True
    deep = deep_inside(head, (5.0, 2.0, 1.0), 12.0)
    assert deep.any(axis=(0, 2)).sum() == 30 - 2 * 5  # 12 mm are 6 rows of 2 mm, the first at the border
    assert deep.any(axis=(0, 1)).sum() == 60 - 2 * 11


def test_torch_paints_what_numpy_paints() -> None:
    torch = pytest.importorskip("torch")
    from MRSuperResLib.training.streams.lesions import insert_lesions, lesion_batch

    way, names = plain_way(), ["T1w", "FLAIR"]
    lesion = plain_lesion(18.0, axes=(1.0, 1.2, 1 / 1.2), turns=(0.5, 0.0, 0.0), push=0.2, soft=1.5)
    images = {name: brain((64, 64))[name] for name in names}
    expected, covered = inserted(images, lesion, (30, 33), (0.8, 0.8), way)
    stack = torch.from_numpy(np.stack([images[name] for name in names]))[None]
    batch = lesion_batch([[lesion]], [way], [names])
    answer, mask = insert_lesions(stack, batch, torch.tensor([0.8]), torch.tensor([[[30.0, 33.0]]]))
    assert np.abs(mask[0, 0].numpy() - covered).max() < 2e-3
    for number, name in enumerate(names):
        assert np.abs(answer[0, number].numpy() - expected[name])[covered < 0.01].max() < 0.02
        core = covered > 0.99
        assert answer[0, number].numpy()[core].mean() == pytest.approx(expected[name][core].mean(), rel=0.05)


def test_lesions_are_placed_in_the_head_and_never_in_air() -> None:
    torch = pytest.importorskip("torch")
    from MRSuperResLib.training.streams.lesions import LesionSpec, draw_lesions, insert_lesions, random_places

    images = torch.zeros(6, 2, 96, 96)
    images[:, :, 20:70, 30:80] = 0.5
    places = random_places(images, 200, torch.Generator().manual_seed(0))
    assert ((places >= torch.tensor([20.0, 30.0])) & (places < torch.tensor([70.0, 80.0]))).all()
    rng = np.random.default_rng(8)
    spec = LesionSpec(counts=(0.0, 0.5, 0.5), diameter=(6.0, 20.0))
    batch = draw_lesions([plain_way()] * 6, [["T1w", "T2w"]] * 6, spec, rng)
    answer, mask = insert_lesions(images, batch, torch.ones(6), generator=torch.Generator().manual_seed(1))
    assert (mask.amax((1, 2, 3)) > 0.8).all() and torch.isfinite(answer).all() and (answer >= 0).all()
