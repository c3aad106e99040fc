"""Batches of translation pairs with lesions: physically possible, reproducible, and of known contrasts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_translators import tiny_translator
from torch import Tensor, nn

from MRSuperResLib import networks
from MRSuperResLib.errors import UsageError
from MRSuperResLib.grid import Grid
from MRSuperResLib.io.write import write_volume
from MRSuperResLib.models import ModelCard, read_entry, save_model
from MRSuperResLib.networks.error_scale import FEATURES
from MRSuperResLib.relaxation import material
from MRSuperResLib.training.data.crops import SourceSpec
from MRSuperResLib.training.data.translation import DisturbanceSpec
from MRSuperResLib.training.fit import fit
from MRSuperResLib.training.methods.flags import detection_losses
from MRSuperResLib.training.methods.translation import weighted
from MRSuperResLib.training.pack import Pack, pack
from MRSuperResLib.training.recipes import FOLDER
from MRSuperResLib.training.streams import errors as error_stream
from MRSuperResLib.training.streams import flags as flag_stream
from MRSuperResLib.training.streams.errors import AnswerShelf, ErrorStream, ErrorStreamSpec, weights
from MRSuperResLib.training.streams.flags import FlagStream, FlagStreamSpec, ViewShelf
from MRSuperResLib.training.streams.lesions import LesionSpec
from MRSuperResLib.training.streams.physics import LabelTissues, PhysicsSpec, blurred, painted
from MRSuperResLib.training.streams.translation import TranslationStream, TranslationStreamSpec
from MRSuperResLib.volume import Volume

CONTRASTS = ("T1w", "T2w", "FLAIR")
STILL = DisturbanceSpec(0.0, 0.0, 0.0, (1.0, 1.0), (1.0, 1.0), 0.0, 0.0)
LEVELS = {"T1w": (0.15, 0.5, 0.7), "T2w": (0.85, 0.45, 0.3), "FLAIR": (0.12, 0.66, 0.54)}
GRID = Grid((72, 72, 16), (1.0, 1.0, 3.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


def anatomy() -> np.ndarray:
    """0 air, 1 fluid, 2 grey, 3 white: rings in every slice, (k, j, i)."""
    rows, columns = np.meshgrid(np.arange(72) - 36, np.arange(72) - 36, indexing="ij")
    radius = np.hypot(rows, columns)
    one = np.select([radius < 6, radius < 18, radius < 27, radius < 30], [1, 3, 2, 1], 0)
    return np.repeat(one[None], 16, axis=0)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    folder = tmp_path_factory.mktemp("data")
    which = anatomy()
    rng = np.random.default_rng(0)
    for name, levels in LEVELS.items():
        values = np.array([0.0, *levels])[which] + 0.005 * rng.standard_normal(which.shape)
        write(folder / "multicontrast" / f"one_{name}.nii.gz", np.maximum(values, 0) * 1000)
    write(
        folder / "labels" / "head-1.nii.gz",
        np.array([0, 24, 3, 2])[which] + 500 * (which == 1) * (np.indices(which.shape)[1] < 14),
    )
    return pack(folder, folder / "train.pack")


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    write_volume(Volume(values.astype(np.float32), GRID, path.name), path)


def stream(
    packed: Pack, spec: TranslationStreamSpec, batch: int = 8, synthetic: float = 0.3, **more: int
) -> TranslationStream:
    sources = (SourceSpec("multicontrast/*", "axial", 1 - synthetic), SourceSpec("labels/*", "all", synthetic))
    sources = tuple(source for source in sources if source.weight)
    return TranslationStream(packed, sources, 64, spec, STILL, CONTRASTS, batch, **more)


def test_a_batch_is_a_function_of_seed_and_number(packed: Pack) -> None:
    spec = TranslationStreamSpec()
    first = stream(packed, spec)
    batches = [batch for batch, _ in zip(first, range(3), strict=False)]
    again = next(iter(stream(packed, spec, start=16)))
    assert all(torch.equal(a, b) for a, b in zip(batches[2], again, strict=True))
    other = next(iter(stream(packed, spec, start=16, seed=1)))
    assert not torch.equal(again[0], other[0])
    source, target, a, b, weight = again
    assert source.shape == target.shape == weight.shape == (8, 1, 64, 64)
    assert (a != b).all() and set(a.tolist()) | set(b.tolist()) <= {0, 1, 2}
    assert torch.isfinite(source).all() and torch.isfinite(target).all() and (source >= 0).all()


def test_real_pairs_without_lesions_are_the_scans(packed: Pack) -> None:
    none = TranslationStreamSpec(spacing=(0.999, 1.001), lesions=LesionSpec(counts=(1.0,)))
    source, _, a, _, weight = stream(packed, none, 12, 0.0).draw(0)
    for n in range(12):
        image = source[n, 0]
        level = LEVELS[CONTRASTS[int(a[n])]]
        top = max(LEVELS[CONTRASTS[int(a[n])]])
        found = image[image > 0.03].median() * top
        assert min(abs(float(found) - value) for value in level) < 0.08
    assert float(weight.min()) == 1.0


def test_lesions_stand_at_one_place_in_source_and_target_and_weigh_more(packed: Pack) -> None:
    some = LesionSpec(counts=(0.0, 1.0), diameter=(12.0, 18.0))
    spec = TranslationStreamSpec(bright_weight=0.0, spacing=(1.0, 1.001), lesions=some)
    source, target, _, _, weight = stream(packed, spec, 16, 0.0).draw(3)
    core = weight > 1 + 0.98 * spec.lesion_weight
    assert (core.sum((1, 2, 3)) > 20).float().mean() > 0.9
    spread = [
        float(image[part].std() / image[part].mean().clamp_min(0.05))
        for image, part in zip(target, core, strict=True)
        if part.sum() > 20
    ]
    assert np.median(spread) < 0.25  # a lesion covers what was there
    assert source.shape == target.shape


def test_children_and_stripped_heads_are_among_the_synthetic_ones() -> None:
    tissues = LabelTissues([np.array([0, 2, 3, 24, 515])])
    assert tissues.codes.tolist() == [0, 2, 3, 24, 515]
    assert tissues.coded(np.array([[3, 515]])).tolist() == [[2, 4]]
    rng, spec = np.random.default_rng(1), PhysicsSpec()
    white, outside = [], []
    for _ in range(300):
        field, made = tissues.person(spec, rng)
        white.append(made[1, 0] / (720 if field == 1.5 else 880))
        outside.append(made[4, 2])
        assert (made[:, 1] <= made[:, 0]).all()
    assert 0.04 < np.mean(np.array(white) > 1.2) < 0.2
    assert 0.3 < np.mean(np.array(outside) == 0) < 0.6


def test_synthetic_slices_have_the_levels_that_the_signal_equations_give() -> None:
    tissues = LabelTissues([np.array([0, 2, 3, 24])])
    spec = PhysicsSpec(immature=0.0, texture=0.0, blur=(0.05, 0.05))
    way, levels = tissues.acquired(CONTRASTS, spec, np.random.default_rng(2))
    assert levels.shape == (4, 3)
    for number, (white, grey, fluid) in enumerate(levels[1:].T):  # tissues in the order their contrast is known for
        ordered = {"T1w": fluid < grey < white, "T2w": white < grey < fluid, "FLAIR": fluid < white < grey}
        assert ordered[CONTRASTS[number]]
        assert white == pytest.approx(float(way.level(CONTRASTS[number], material("white", way.field))), rel=0.35)
    codes = torch.zeros(1, 40, 40, dtype=torch.uint8)
    codes[:, 10:30, 10:30] = 2
    place = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]])
    made = painted(
        codes, torch.from_numpy(levels)[None], torch.ones(1), place, 40, spec, torch.Generator().manual_seed(0)
    )
    assert made.shape == (1, 3, 40, 40)
    assert torch.allclose(made[0, :, 20, 20], torch.from_numpy(levels[2]), rtol=1e-4)


def test_blurring_keeps_the_mean_and_spreads_as_a_gaussian_does() -> None:
    point = torch.zeros(2, 1, 31, 31)
    point[:, :, 15, 15] = 1.0
    made = blurred(point, torch.tensor([0.05, 1.0]))
    assert torch.allclose(made.sum((1, 2, 3)), torch.ones(2), atol=1e-4)
    assert float(made[0, 0, 15, 15]) == pytest.approx(1.0, abs=1e-4)
    rows = torch.arange(31.0) - 15
    assert float((made[1, 0].sum(1) * rows**2).sum()) == pytest.approx(1.0, abs=0.03)


RECIPE = """
method = "translation"
architecture = "translation"
loss = { l1 = 20.0, gan = 1.0, latent = 0.5, kl = 0.01, anchor = 20.0, spread = 20.0 }
network = { widths = [4, 8], latent = 2 }
optimisation = { learning_rate = 1e-3, batch = 4 }
adversarial = { pretraining = 0.3, widths = [4, 8], encoder = [4, 8] }
data = { patch = 32, sources = [
  { match = "multicontrast/*", planes = "axial", weight = 1.0 }, { match = "labels/*", weight = 1.0 } ] }
stream = { lesion_weight = 2.0, lesions = { diameter = [4.0, 20.0] } }
[card]
id = "tiny"
title = "Tiny"
version = "1"
task = "translate"
plane = "any"
factors = [1, 1]
contrasts = ["T1w", "T2w", "FLAIR"]
target_contrasts = ["T1w", "T2w", "FLAIR"]
anatomy = "brain"
spacing = { in_plane = [0.6, 1.5], through_plane = [0.6, 6.0] }
licence = "Apache-2.0"
intended_use = "A test."
requirements = { smallest = 32, multiple_of = 4, halo = 16, latent = 2 }
"""


def test_a_recipe_with_a_stream_trains_on_lesions_to_the_end(packed: Pack, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(RECIPE)
    (tmp_path / "train.pack").symlink_to(packed.path)
    said: list[str] = []
    made = fit(
        tmp_path / "tiny.toml",
        tmp_path,
        tmp_path / "out",
        minutes=0.08,
        device="cpu",
        validate=False,
        report=said.append,
    )
    assert made.is_file()
    assert (tmp_path / "out" / "pretrained").is_dir()  # the adversarial part was reached
    assert int(said[-1].split("step ")[1].split()[0]) >= 2, said


def test_errors_in_lesions_count_as_often_as_they_weigh() -> None:
    error = torch.tensor([[1.0, -3.0]])
    assert float(weighted(error, torch.tensor([[1.0, 1.0]]))) == 2.0
    assert float(weighted(error, torch.tensor([[1.0, 3.0]]))) == 2.5


def test_a_lesion_detector_learns_what_it_is_shown(packed: Pack, tmp_path: Path) -> None:
    text = (FOLDER / "lesion-flags.toml").read_text()
    start, end = text.index("sources = ["), text.index("[validation]")
    sources = 'sources = [{ match = "multicontrast/*", planes = "axial" }, { match = "labels/*", weight = 0.5 }]\n\n'
    text = text[:start] + sources + text[end:]
    (tmp_path / "tiny.toml").write_text(
        text.replace("[16, 32, 64, 96, 128]", "[4, 8]").replace("batch = 24", "batch = 2")
    )
    for part in ("train", "val"):
        (tmp_path / f"{part}.pack").symlink_to(packed.path)
    said: list[str] = []
    made = fit(tmp_path / "tiny.toml", tmp_path, tmp_path / "out", minutes=0.08, device="cpu", report=said.append)
    card = read_entry(made).card
    assert card.task == "flag" and card.id == "lesion-flags"
    assert any("found" in line and "false" in line for line in said)


def test_lesions_are_labelled_where_they_can_be_seen_and_views_are_made_once(
    packed: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = FlagStreamSpec(lesions=LesionSpec((0.0, 1.0), (12.0, 16.0)), reuse=2)
    sources = (SourceSpec("multicontrast/*", "axial", 1.0),)
    inputs, lesion, contrast, weight, _, known = FlagStream(packed, sources, spec, CONTRASTS, 12).draw(0)
    assert known.shape == (12, 1, 1, 1) and not known.any()
    assert inputs.shape == (12, 5, 160, 128) and lesion.shape == weight.shape == (12, 1, 160, 128)
    assert set(contrast.tolist()) <= {0, 1, 2}
    assert set(lesion.unique().tolist()) == {0.0, 1.0} and set(weight[lesion == 0].unique().tolist()) <= {0.0, 1.0}
    assert (lesion.sum((1, 2, 3)) > 30).float().mean() > 0.8
    monkeypatch.setattr(flag_stream, "_brought_to_view", lambda *given: pytest.fail("brought to view again"))
    stream = FlagStream(packed, sources, spec, CONTRASTS, 12)
    again = stream.draw(0)
    assert torch.equal(again[0], inputs) and torch.equal(again[1], lesion)
    mirrored = stream.draw(1)
    assert torch.equal(mirrored[1], lesion) or torch.equal(mirrored[1], lesion.flip(3))
    none = FlagStreamSpec(lesions=LesionSpec((1.0,)))
    nothing = FlagStream(packed, sources, none, CONTRASTS, 8).draw(0)[1]
    assert not nothing.any()


def test_another_scanners_tissues_differ_less_and_keep_their_order() -> None:
    """What is left of a difference is what was asked for; between the levels of two tissues nothing jumps."""
    knots = torch.tensor([[0.0, 0.15, 0.52, 0.72]])
    wanted = torch.tensor([[0.0, 0.2, 0.6, 0.65]])
    ramp = torch.linspace(0, 1.4, 141).view(1, 1, 1, -1)
    made = flag_stream.by_pieces(ramp, knots, wanted).flatten()
    assert torch.allclose(made[[0, 15, 52, 72]], wanted[0], atol=1e-6)
    steps = made.diff()
    assert (steps > 0).all() and torch.allclose(steps[72:], steps[52:72].mean().expand(68), atol=1e-5)
    assert torch.equal(flag_stream.by_pieces(ramp, knots, knots).argsort(), ramp.argsort())


def test_thick_slices_and_more_paintings_are_seen_too(packed: Pack) -> None:
    """Thin slices are averaged, thick ones are not made thinner; each painting of a head is another one."""

    once, twice = brain_shelf(packed, "labels/*"), brain_shelf(packed, "labels/*", paintings=2)
    assert len(twice.scans) == 2 * len(once.scans) == 2 * len(CONTRASTS) * len(packed.select("labels/*"))
    first, second = (int(twice.scans[n, 1]) + 2 for n in (0, len(CONTRASTS)))
    assert not torch.equal(twice.slices[first], twice.slices[second])
    thin, both = (brain_shelf(packed, "multicontrast/*", thick=thick) for thick in (0.0, 9.0))
    assert len(both.scans) == 2 * len(thin.scans) and torch.equal(both.slices[: len(thin.slices)], thin.slices)
    assert all(2 < count < 7 < thin.scans[0, 2] for count in both.scans[len(thin.scans) :, 2])
    stack = np.zeros(GRID.size[::-1], np.float32)
    stack[8] = 3.0
    made = flag_stream._thickened(stack, GRID, 9.0)
    assert made is not None and np.allclose(made[7:10], 1.0) and made.sum() == pytest.approx(stack.sum())
    assert flag_stream._thickened(stack, GRID, 4.0) is None


def brain_shelf(packed: Pack, match: str, **views: Any) -> ViewShelf:
    """`packed` in view, where the brain is among it."""
    sources = (SourceSpec(match, "axial", 1.0),)
    return ViewShelf(packed, sources, CONTRASTS, flag_stream.Views(PhysicsSpec(), **views), torch.device("cpu"))


def test_the_brain_is_where_labels_or_a_flair_say(packed: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ventricles are closed, what labels put outside is not; a FLAIR tells of the scans on its grid, if a brain may be so large."""
    disc = 3.1416 * (30 / 1.4) ** 2  # pixels of the view
    labelled = brain_shelf(packed, "labels/*")
    assert labelled.known.all()
    area = (labelled.brain[3] == 1).sum()
    assert 0.8 * disc < area < 0.98 * disc, "a part of the rim lies outside the brain"
    assert not brain_shelf(packed, "multicontrast/*").known.any(), "0.14 l is no brain"
    monkeypatch.setattr(flag_stream, "BRAIN_ML", (50.0, 150.0))
    monkeypatch.setattr(flag_stream, "VIEWS", -1)  # seen anew
    told = brain_shelf(packed, "multicontrast/*")
    assert told.known.all()
    assert all(0.7 * disc < (each == 1).sum() < 1.03 * disc and each[80, 64] == 1 for each in told.brain)


def test_lesions_lie_in_the_brain_and_belong_to_it(packed: Pack) -> None:
    """Tissue as bright as brain outside of it, muscle say, gets none; where a lesion is, there is brain."""
    spec = FlagStreamSpec(lesions=LesionSpec((0.0, 1.0), (4.0, 8.0)), shift=0.0, turn=0.0)
    stream = FlagStream(packed, (SourceSpec("multicontrast/*", "axial", 1.0),), spec, CONTRASTS, 12)
    stream.shelf.known[:] = 1
    stream.shelf.brain[:, :, :64] = 0  # one side is told to be muscle
    stream.shelf.brain[:, :, 64:] = 1
    _, lesion, _, _, brain, _ = stream.draw(1)
    columns = lesion.sum((1, 2)).cumsum(1) / lesion.sum((1, 2, 3)).clamp_min(1)[:, None]
    middles = (columns < 0.5).sum(1)
    left = brain.sum((1, 2))[:, :64].sum(1) > brain.sum((1, 2))[:, 64:].sum(1)  # mirrored or not
    shown = lesion.sum((1, 2, 3)) > 0
    assert shown.sum() > 6 and bool((torch.where(left, middles < 68, middles > 60) | ~shown).all())
    assert (brain >= lesion).all()


def test_lesions_are_put_into_brain_tissue_and_nowhere_else(packed: Pack) -> None:
    """Not into air, skull or neck; a slice that shows no brain gets none."""
    levels = flag_stream.TYPICAL["T1w"]
    rows, columns = torch.meshgrid(torch.arange(160.0) - 80, torch.arange(128.0) - 64, indexing="ij")
    radius = torch.hypot(rows, columns)
    slices = torch.zeros(2, 1, 160, 128)
    slices[0, 0] = torch.where(radius < 30, levels[2], torch.where(radius < 45, levels[1], 0.0))
    slices[0, 0][(radius > 48) & (radius < 51)] = levels[1]  # scalp, as bright as grey matter, thin
    slices[1, 0][radius < 45] = 2 * levels[2]  # fat
    tissue = flag_stream.brain_tissue(slices, ["T1w", "T1w"])
    assert tissue[0, 0][radius < 36].all() and not tissue[0, 0][radius > 45].any()
    assert not tissue[1].any()
    places = flag_stream.places_in(tissue, 50, torch.Generator().manual_seed(0)).long()
    assert tissue[0, 0][places[0, :, 0], places[0, :, 1]].all()
    spec = FlagStreamSpec(lesions=LesionSpec((0.0, 1.0), (6.0, 10.0)))
    stream = FlagStream(packed, (SourceSpec("multicontrast/*", "axial", 1.0),), spec, CONTRASTS, 8)
    assert stream.draw(0)[1].any()
    stream.shelf.slices = torch.zeros_like(stream.shelf.slices)  # air
    assert not stream.draw(1)[1].any()


def test_parts_of_slices_show_their_lesions_and_fit_together(packed: Pack) -> None:
    spec = FlagStreamSpec(lesions=LesionSpec((0.0, 1.0), (6.0, 10.0)), crop=64, crops=2)
    stream = FlagStream(packed, (SourceSpec("multicontrast/*", "axial", 1.0),), spec, CONTRASTS, 24)
    inputs, lesion, contrast, weight, *_ = stream.draw(0)
    assert (
        inputs.shape == (24, 5, 64, 64) and lesion.shape == weight.shape == (24, 1, 64, 64) and contrast.shape == (24,)
    )
    assert torch.equal(contrast[::2], contrast[1::2])  # two parts of each slice
    assert 0.5 < float((lesion.sum((1, 2, 3)) > 0).float().mean()) < 1
    rows = inputs[:, 2].diff(dim=1)  # the row of a pixel rises by one step everywhere
    assert torch.allclose(rows, torch.full_like(rows, 2 / 159), atol=1e-5)
    assert torch.equal(stream.draw(0)[0], inputs)
    with pytest.raises(UsageError, match="do not fill a batch of 25"):
        FlagStream(packed, (), spec, CONTRASTS, 25)


def test_a_small_lesion_weighs_as_much_as_a_larger_one() -> None:
    lesions = np.zeros((2, 1, 40, 40), np.float32)
    lesions[0, 0, 2:7, 2:7] = 1  # 25 pixels
    lesions[0, 0, 20:30, 20:30] = 1  # 100
    lesions[1, 0, 5:25, 5:25] = 1  # 400
    weights = flag_stream.size_weights(lesions)
    assert weights[0, 0, 2:7, 2:7].sum() == weights[0, 0, 20:30, 20:30].sum() == 100
    assert np.all(weights[1] == 1) and np.all(weights[lesions == 0] == 1)


def test_a_small_lesion_missed_costs_as_a_large_one_does_in_blocks() -> None:
    lesion = torch.zeros(1, 1, 32, 32)
    lesion[..., 0:2, 0:2] = 1
    large = torch.zeros(1, 1, 32, 32)
    large[..., 0:8, 0:8] = 1
    dark, weight = torch.full((1, 1, 32, 32), -4.0), torch.ones(1, 1, 32, 32)
    small_loss, large_loss = (detection_losses(dark, each, weight) for each in (lesion, large))
    assert float(small_loss["block"]) == pytest.approx(float(large_loss["block"]), rel=1e-5)
    assert float(small_loss["pixel"]) < 0.2 * float(large_loss["pixel"])
    right = detection_losses(16 * large - 8, large, weight)
    assert float(right["dice"]) < 0.02 and float(right["pixel"]) < 0.001
    heavy = detection_losses(dark, lesion, torch.where(lesion > 0, 16.0, 1.0))
    assert float(heavy["pixel"]) > 0.9 * float(large_loss["pixel"]) and float(heavy["block"]) > 5 * float(
        small_loss["block"]
    )
    ignored = detection_losses(dark, large, torch.where(large > 0, 0.0, 1.0))
    assert float(ignored["pixel"]) < 0.03 and float(ignored["block"]) < 0.03


# what a translator gets wrong


class Shifting(nn.Module):
    """A translator whose answer is the source, brighter by the first number of z."""

    contrasts = CONTRASTS
    latent = 2

    def forward(self, x: Tensor, z: Tensor, source: Tensor, target: Tensor) -> Tensor:
        return x + 0.1 * z[:, :1, None, None]


def shelf(packed: Pack, kept: Path | None = None, digest: str = "a", **more: object) -> AnswerShelf:
    sources = (SourceSpec("multicontrast/*", "axial", 1.0), SourceSpec("labels/*", "all", 1.0))
    spec = ErrorStreamSpec(**{"crops": 32, "samples": (4,), "plain": 1.0, **more})  # type: ignore[arg-type]
    return AnswerShelf(packed, sources, 64, spec, STILL, Shifting(), digest, kept=kept)


def test_errors_are_those_of_the_mean_and_deviations_those_of_the_samples(packed: Pack) -> None:
    made = shelf(packed)
    assert len(made) == 32 and set(made.origins) == {0, 1}
    found, error, weight, a, b = ErrorStream(made, 500).draw(0)
    assert found.shape == (500, FEATURES) and error.shape == weight.shape == (500,)
    assert (a != b).all() and set(a.tolist()) | set(b.tolist()) <= {0, 1, 2}
    source, mean, deviation, target = made.images.float().split(1, 1)
    pixels = {round(value, 4) for value in (mean - target).abs().flatten().tolist()}
    assert {round(value, 4) for value in error.tolist()} <= pixels
    assert (mean - source).abs().max() < 2e-3, "z and -z: the mean of a pair is the source"
    apart = deviation.amax((1, 2, 3)) - deviation.amin((1, 2, 3))
    assert (deviation.amin((1, 2, 3)) > 1e-3).all() and (apart < 1e-2).all()
    two = shelf(packed, samples=(2,)).images[:, 2].float().mean((1, 2))
    four = made.images[:, 2].float().mean((1, 2))
    assert not torch.equal(two, four)


def test_errors_are_small_where_the_answer_is_right_and_large_where_it_is_not(packed: Pack) -> None:
    """A copied source is right in air alone, and wrong by what the contrasts differ in the rings of the head."""
    _, error, weight, *_ = ErrorStream(shelf(packed, lesions=LesionSpec((1.0,))), 20_000).draw(0)
    inside, outside = error[weight == 1], error[(weight < 1) & (weight > 0)]
    assert inside.mean() > 0.05 and outside.numel() and outside.mean() < 0.3 * inside.mean()


def test_the_head_counts_air_little_and_a_crops_border_not_at_all() -> None:
    source, target = torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64)
    source[..., 20:40, 20:40], target[..., 44, 44] = 0.5, 0.5
    weight = weights(source, target)[0, 0]
    assert weight[30, 30] == weight[44, 44] == weight[40, 30] == 1 and 0 < weight[12, 12] < 1
    assert (weight[:8] == 0).all() and (weight[:, -8:] == 0).all() and weight[8, 8] > 0


def test_answers_are_made_once_and_made_again_for_another_translator(
    packed: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "answers.npz"
    first = shelf(packed, kept)
    with monkeypatch.context() as patch:
        patch.setattr(error_stream, "_answered", lambda *given: pytest.fail("answered again"))
        again = shelf(packed, kept)
    assert torch.equal(first.images, again.images)
    stream, other = ErrorStream(first, 64, seed=3), ErrorStream(again, 64, seed=3, start=128)
    batches = [batch for batch, _ in zip(stream, range(3), strict=False)]
    assert all(torch.equal(one, two) for one, two in zip(batches[2], next(iter(other)), strict=True))
    made: list[bool] = []
    answered = error_stream.answered
    monkeypatch.setattr(error_stream, "answered", lambda *given: made.append(True) or answered(*given))
    shelf(packed, kept, digest="b")
    assert made, "a translator of other weights answers otherwise"


def errors_recipe(folder: Path, translator: Path, **changes: str) -> Path:
    """The recipe that ships, small."""
    text = (FOLDER / "mtsr-mt-s-errors.toml").read_text()
    start, end = text.index("sources = ["), text.index("[validation]")
    sources = 'sources = [{ match = "multicontrast/*", planes = "axial" }, { match = "labels/*", weight = 0.5 }]\n\n'
    text = text[:start] + sources + text[end:]
    small = {
        "[48, 48]": "[6]",
        "batch = 4096": "batch = 512",
        "crops = 778": "crops = 24",
        "patch = 128": "patch = 64",
        'translator = "mtsr-mt-s"': f'translator = "{translator.as_posix()}"',
    }
    for old, new in (small | changes).items():
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "tiny.toml"
    path.write_text(text)
    for part in ("train", "val"):
        if not (folder / f"{part}.pack").exists():
            (folder / f"{part}.pack").symlink_to(PACKED[0])
    return path


PACKED: list[Path] = []


def test_an_error_network_learns_how_far_a_translator_is_from_the_truth(packed: Pack, tmp_path: Path) -> None:
    PACKED[:] = [packed.path]
    translator = tiny_translator(tmp_path)
    assert translator.path is not None
    recipe = errors_recipe(tmp_path, translator.path)
    said: list[str] = []
    made = fit(recipe, tmp_path, tmp_path / "out", minutes=0.05, device="cpu", report=said.append)
    card = read_entry(made).card
    assert (card.task, card.id, card.judges) == ("error", "mtsr-mt-s-errors", "tiny-mt 1.0")
    losses = [float(line.split("laplace")[1].split()[0]) for line in said if "laplace" in line]
    assert len(losses) > 2 and losses[-1] < losses[0] - 0.1, losses
    assert any("likelihood" in line and "coverage" in line for line in said)


def test_what_is_no_translator_or_of_other_contrasts_is_refused(packed: Pack, tmp_path: Path) -> None:
    PACKED[:] = [packed.path]
    translator = tiny_translator(tmp_path)
    assert translator.path is not None
    other = errors_recipe(
        tmp_path, translator.path, **{'["T1w", "T2w", "FLAIR"]\n\n[optim': '["T1w", "T2w"]\n\n[optim'}
    )
    with pytest.raises(UsageError, match="contrasts are T1w, T2w, the translator's are T1w, T2w, FLAIR"):
        fit(other, tmp_path, tmp_path / "a", minutes=0.1, device="cpu")
    network = networks.build("error_scale", {"widths": [4]})
    judge = save_model(tmp_path / "judge.safetensors", _judge(translator.card), network.state_dict())
    assert judge.path is not None
    with pytest.raises(UsageError, match="does not translate"):
        fit(errors_recipe(tmp_path, judge.path), tmp_path, tmp_path / "b", minutes=0.1, device="cpu")


def _judge(card: ModelCard) -> ModelCard:
    return replace(
        card, id="judge", task="error", architecture="error_scale", hyperparameters={"widths": [4]}, judges="x 1"
    )
