"""Super-resolution of volumes: where the result lies, in which units, at which factors; and what is said before it is run."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from MRSuperResLib import models
from MRSuperResLib.acquisition import bicubic_interpolation, zero_filled
from MRSuperResLib.errors import BadVolume, Cancelled, DeviceError, ModelError, UnsuitableVolume, UsageError
from MRSuperResLib.grid import Grid
from MRSuperResLib.inference import Aligned, Options, estimate, plan, planning, super_resolve
from MRSuperResLib.models import ModelCard, ModelEntry, Requirements, SpacingRange
from MRSuperResLib.volume import Volume

CPU = Options(device="cpu")
OBLIQUE = (0.9659258, -0.2588190, 0.0, 0.2588190, 0.9659258, 0.0, 0.0, 0.0, 1.0)
SAGITTAL = (0.0, 0.0, -1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


class Bicubic(nn.Module):
    """A network whose answer is known: interpolation, edge to edge."""

    def __init__(self, factors: tuple[int, int]) -> None:
        super().__init__()
        self.factors = factors
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape))
        size = (x.shape[-2] * self.factors[0], x.shape[-1] * self.factors[1])
        return nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)


def entry(factors: tuple[float, float] = (4, 1), plane: str = "through-plane", **changes: object) -> ModelEntry:
    """A card for `Bicubic`."""
    fields: dict[str, object] = {
        "id": "known",
        "title": "",
        "version": "1",
        "architecture": "rdst",
        "task": "super-resolve",
        "plane": plane,
        "factors": factors,
        "contrasts": ("any",),
        "spacing": None,
        "licence": "",
        "intended_use": "",
        "requirements": Requirements(smallest=1, halo=2),
    }
    return ModelEntry(ModelCard(**(fields | changes)), None, "0" * 64)  # type: ignore[arg-type]


def grid(
    size: tuple[int, int, int] = (20, 24, 10),
    spacing: tuple[float, float, float] = (1.0, 1.0, 4.0),
    direction: tuple[float, ...] = OBLIQUE,
) -> Grid:
    return Grid(size=size, spacing=spacing, origin=(5.0, -20.0, 30.0), direction=direction)  # type: ignore[arg-type]


def ramp(on: Grid, gradient: tuple[float, float, float] = (3.0, -2.0, 1.5)) -> np.ndarray:
    """An intensity linear in patient space, so that any misplacement shows."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in on.shape), indexing="ij")
    points = on.index_to_world(np.stack((i, j, k), axis=-1).reshape(-1, 3).astype(float))
    return (1000.0 + points @ np.asarray(gradient)).reshape(on.shape).astype(np.float32)


def volume(on: Grid | None = None) -> Volume:
    on = on or grid()
    return Volume(ramp(on), on, "ramp")


def run(made: Volume, factors: tuple[int, int], plane: str, **wanted: object) -> Volume:
    return super_resolve(made, entry(factors, plane), network=Bicubic(factors), options=CPU, **wanted)  # type: ignore[arg-type]


# where the result lies


@settings(deadline=None, max_examples=20)
@given(
    factor=st.sampled_from([1.5, 2.0, 2.5, 3.0, 4.0, 4.4, 5.0, 6.7, 8.0]),
    direction=st.sampled_from([OBLIQUE, SAGITTAL, (-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)]),
    axis=st.sampled_from([0, 1, 2]),
)
def test_any_factor_through_the_plane_keeps_every_structure_in_its_place(
    factor: float, direction: tuple[float, ...], axis: int
) -> None:
    """A x4 network serves 1.5 to 8 on any slice axis and orientation, left-handed too: the extent is kept and a ramp stays."""
    spacing, size = [1.0, 1.0, 1.0], [11, 12, 13]
    spacing[axis], size[axis] = 4.0, 16
    on = grid(tuple(size), tuple(spacing), direction)  # type: ignore[arg-type]
    result = run(volume(on), (4, 1), "through-plane", factor=factor)
    expected = on.refine(tuple(factor if other == axis else 1.0 for other in range(3)))  # type: ignore[arg-type]
    assert result.grid.same_as(expected)
    assert result.array.dtype == np.float32 and result.array.flags.c_contiguous
    inner = [slice(None)] * 3
    rim = math.ceil(2 * factor)
    inner[2 - axis] = slice(rim, -rim)
    error = np.abs(result.array - ramp(expected))[tuple(inner)]
    assert (
        error.max() < 0.01 * 4.0 * 3.0 * 4
    )  # a hundredth of what two slices differ by, times the four of a half-pixel


@pytest.mark.parametrize("factor", [1.5, 2.0, 3.0, 4.0, 5.0])
@pytest.mark.parametrize("direction", [OBLIQUE, SAGITTAL])
def test_any_factor_in_the_plane_keeps_every_structure_in_its_place(
    factor: float, direction: tuple[float, ...]
) -> None:
    on = grid((20, 24, 3), (1.0, 1.0, 4.0), direction)
    result = run(volume(on), (2, 2), "in-plane", factor=factor)
    expected = on.refine((factor, factor, 1.0))
    assert result.grid.same_as(expected)
    rim = math.ceil(2 * factor)
    error = np.abs(result.array - ramp(expected))[:, rim:-rim, rim:-rim]
    assert error.max() < 0.1


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.0, 1.3), (1.5, 1.5, 1.0)])
def test_a_spacing_is_met_exactly_and_axes_the_model_does_not_refine_are_interpolated(
    spacing: tuple[float, float, float],
) -> None:
    told: list[str] = []
    made = volume()
    result = run(made, (4, 1), "through-plane", spacing=spacing, warn=lambda code, message: told.append(code))
    assert result.grid.same_as(made.grid.with_spacing(spacing))
    inner = (slice(8, -8), slice(4, -4), slice(4, -4))
    assert np.abs(result.array - ramp(result.grid))[inner].max() < 0.5
    assert ("interpolated-axis" in told) == (spacing[0] < 1.0)


FROM_FINE = SpacingRange(in_plane=(0.6, 1.3), through_plane=(2.0, 9.0))


@pytest.mark.parametrize("direction", [OBLIQUE, SAGITTAL])
@pytest.mark.parametrize(("pixel", "shown"), [(0.59, 1), (0.45, 2), (0.25, 3)])
def test_pixels_finer_than_in_the_training_are_averaged_for_the_network_alone(
    pixel: float, shown: int, direction: tuple[float, ...]
) -> None:
    """As scanners interpolate: 512 x 512 of 0.45 mm. The answer has the scan's own pixels, and all that is in them."""
    on = grid((36, 42, 10), (pixel, pixel, 5.0), direction)
    scan = volume(on)
    stripes = np.zeros_like(scan.array)
    stripes[:, :, ::2] = 3.0  # the finest detail there is
    network, told = Bicubic((4, 1)), []
    known = entry(spacing=FROM_FINE)
    result = super_resolve(
        Volume(scan.array + stripes, on), known, network=network, options=CPU, warn=lambda *what: told.append(what)
    )
    sizes = {shape[3] for shape in network.seen}
    assert sizes == {36 // shown, 42 // shown} and told == []
    assert result.grid.same_as(on.refine((1, 1, 4)))
    inner = (slice(8, -8), slice(6, -6), slice(6, -6))
    kept = (result.array - ramp(result.grid))[inner]
    assert np.abs(kept - np.repeat(stripes[:, :, :], 4, axis=0)[inner]).max() < (0.5 if shown > 1 else 0.05)
    made = plan(on, known.card)
    assert made.averaged == (shown > 1) and made.stages[0].source.extent == pytest.approx(on.extent)
    assert plan(grid((36, 42, 10), (3.0, 3.0, 5.0)), known.card).notes[0][0] == "outside-training"


def test_what_a_network_adds_is_added_to_fine_pixels() -> None:
    class More(Bicubic):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 0.1

    on = grid((36, 42, 10), (0.45, 0.45, 5.0))
    answers = [
        super_resolve(volume(on), entry(spacing=FROM_FINE), network=network((4, 1)), options=CPU).array
        for network in (Bicubic, More)
    ]
    more = answers[1] - answers[0]
    assert more.std() < 0.01 * more.mean() and more.mean() > 1


def test_the_models_own_factor_is_the_default() -> None:
    assert run(volume(), (4, 1), "through-plane").grid.size == (20, 24, 40)
    assert run(volume(), (2, 2), "in-plane").grid.size == (40, 48, 10)


@pytest.mark.parametrize("name", ["linear", "bspline", "lanczos"])  # a ramp bends in the others, by their definition
@pytest.mark.parametrize("plane", ["in-plane", "through-plane"])
def test_interpolation_is_a_model_like_the_others(name: str, plane: str) -> None:
    on, gradient = grid(), (3.0, 2.0, 1.5)  # the ramp rises along i, j and k: shifts of several axes do not cancel out
    result = super_resolve(Volume(ramp(on, gradient), on), name, factor=2.5, plane=plane)
    factors = (2.5, 2.5, 1.0) if plane == "in-plane" else (1.0, 1.0, 2.5)
    assert result.grid.same_as(on.refine(factors))
    inner = tuple(slice(8, -8) if factor > 1 else slice(2, -2) for factor in reversed(factors))
    tolerance = 0.2 if name == "lanczos" else 0.02  # a windowed sinc ripples; half a voxel off is 0.9 at the least
    assert np.abs(result.array - ramp(result.grid, gradient))[inner].max() < tolerance


def test_both_reformats_that_contain_the_slice_axis_are_used() -> None:
    """Coronal and sagittal views of an axial scan, the slice axis as rows."""
    network = Bicubic((4, 1))
    super_resolve(volume(grid((20, 24, 10))), entry(), network=network, options=CPU)
    assert {shape[2:] for shape in network.seen} == {(10, 20), (10, 24)}


def test_the_slice_axis_can_be_chosen() -> None:
    result = super_resolve(
        volume(), entry(), network=Bicubic((4, 1)), options=Options(device="cpu", slice_axis=0), warn=lambda *w: None
    )
    assert result.grid.size == (80, 24, 10)


@pytest.mark.parametrize(("factor", "passes"), [(1.5, 1), (4.0, 1), (4.3, 1), (4.5, 2), (8.0, 2), (16.0, 2)])
def test_a_factor_beyond_the_models_is_served_by_running_it_again(factor: float, passes: int) -> None:
    made = plan(grid(), entry().card, factor=factor)
    assert len(made.stages) == passes
    assert made.stages[-1].native.size[2] >= made.target.size[2] / planning.STRETCH


# intensities


def test_intensities_come_back_in_the_scanners_units_beyond_the_robust_range_too() -> None:
    """A few very bright and very dark voxels are neither clipped nor rescaled."""
    made = volume()
    array = made.array.copy()
    array[4:6, 5:8, 5:8], array[4:6, 15:18, 5:8] = 30000.0, -500.0
    result = super_resolve(Volume(array, made.grid), entry(), network=Bicubic((4, 1)), options=CPU)
    assert result.array[19, 6, 6] == pytest.approx(30000.0, rel=0.01)
    assert result.array.max() > 25000 and result.array.min() < -400


def test_a_volume_that_is_mostly_one_value_keeps_it() -> None:
    """Skull-stripped scans are mostly background: its percentiles coincide when little is left of the head."""
    array = np.full((10, 24, 20), 7.0, np.float32)
    array[5, 12, 10] = 900.0
    result = super_resolve(Volume(array, grid()), entry(), network=Bicubic((4, 1)), options=CPU)
    np.testing.assert_allclose(result.array[:8], 7.0, atol=1e-4)
    assert result.array.max() > 500


def test_voxels_that_are_not_numbers_are_replaced_and_said() -> None:
    made, told = volume(), []
    made.array[3, 4, 5] = np.nan
    result = super_resolve(made, entry(), network=Bicubic((4, 1)), options=CPU, warn=lambda code, _: told.append(code))
    assert np.isfinite(result.array).all() and told == ["nan-replaced"]


# what is refused


def test_a_model_of_another_plane_or_task_is_refused() -> None:
    with pytest.raises(ModelError, match="choose an in-plane model") as refused:
        super_resolve(volume(), entry(), plane="in-plane")
    assert refused.value.code == "wrong-plane"
    with pytest.raises(ModelError, match="translates contrasts"):
        super_resolve(volume(), entry((1, 1), "in-plane", task="translate", target_contrasts=("T2w",)))
    with pytest.raises(ModelError, match="none is given"):
        super_resolve(volume(), entry(task="reference-guided"))
    with pytest.raises(ModelError, match="does not use a reference"):
        run(volume(), (4, 1), "through-plane", reference=volume())


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ({"factor": 2.0, "spacing": (1.0, 1.0, 1.0)}, "give one"),
        ({"factor": 1.0}, "more than 1"),
        ({"factor": 0.5}, "more than 1"),
        ({"factor": 17.0}, "at most 16"),
        ({"factor": math.nan}, "more than 1"),
        ({"spacing": (1.0, -1.0, 1.0)}, "positive"),
        ({"spacing": (1.0, 1.0)}, "three"),
        ({"spacing": (1.0, 1.0, 0.1)}, "at most x16"),
        ({"plane": "sideways"}, "in-plane or through-plane"),
        ({"slice_axis": 3}, "expected 0, 1 or 2"),
    ],
)
def test_a_contradictory_request_is_refused(wanted: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        plan(grid(), entry().card, **wanted)  # type: ignore[arg-type]


def test_interpolation_needs_a_factor_or_a_spacing() -> None:
    with pytest.raises(UsageError, match="say which"):
        plan(grid(), models.find_model("linear").card)


def test_a_scan_already_as_fine_as_asked_is_refused() -> None:
    with pytest.raises(UnsuitableVolume, match="nothing to refine"):
        plan(grid(), entry().card, spacing=(1.0, 1.0, 4.0))
    with pytest.raises(UnsuitableVolume, match="nothing to refine"):
        plan(grid(), models.find_model("linear").card, spacing=(2.0, 2.0, 4.0))


@pytest.mark.parametrize("model", ["known", "linear"])
def test_an_axis_made_coarser_is_told(model: str) -> None:
    card = models.find_model(model).card if model in models.BASELINES else entry().card
    notes = plan(grid(), card, spacing=(2.0, 2.0, 1.0)).notes
    assert [code for code, _ in notes] == ["coarsened-axis"] and "along i and j" in notes[0][1]
    assert plan(grid(), card, spacing=(1.01, 1.0, 1.0)).notes == (), "headers print spacings rounded"


def test_projection_on_a_coarser_axis_is_refused_before_the_network_runs() -> None:
    network = Bicubic((4, 1))
    with pytest.raises(UsageError, match="coarser than the scan along i"):
        super_resolve(
            volume(), entry(), spacing=(2.0, 1.0, 1.0), network=network, options=Options(device="cpu", project=True)
        )
    assert not network.seen


def test_one_slice_is_refused() -> None:
    single = grid((20, 24, 1))
    with pytest.raises(UnsuitableVolume, match="one slice only"):
        plan(single, entry().card, slice_axis=2)
    with pytest.raises(BadVolume, match="single slice"):
        super_resolve(Volume(ramp(single), single), entry((2, 2), "in-plane"), network=Bicubic((2, 2)), options=CPU)


def test_an_axis_of_one_voxel_is_refused() -> None:
    with pytest.raises(UnsuitableVolume, match="single voxel"):
        plan(grid((1, 24, 10)), entry().card, slice_axis=2)


def test_a_result_larger_than_memory_is_refused_before_it_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "available_memory", lambda: 2**30)
    with pytest.raises(DeviceError, match=r"2000 x 2000 x 8000 voxels needs .* GiB of memory, 1.0 GiB are free"):
        planning.check_memory(plan(grid((2000, 2000, 2000)), entry().card))
    monkeypatch.setattr(planning, "available_memory", lambda: 1000)
    with pytest.raises(DeviceError, match="crop the scan"):
        super_resolve(volume(), "linear", factor=2.0)


def test_what_the_card_does_not_cover_is_said_before() -> None:
    told: list[tuple[str, str]] = []
    covered = entry(contrasts=("T1w",), spacing=SpacingRange((0.5, 1.5), (1.0, 2.0)))
    super_resolve(
        volume(), covered, network=Bicubic((4, 1)), options=Options(device="cpu", contrast="T2w"),
        warn=lambda *warning: told.append(warning),
    )  # fmt: skip
    assert [code for code, _ in told] == ["outside-training"] * 2
    assert "this scan is T2w" in told[0][1] and "this scan has 4 mm" in told[1][1]


# progress and cancelling


def test_progress_counts_every_voxel_and_tells_the_time_left() -> None:
    told: list[tuple[str, int, int, float | None]] = []
    super_resolve(
        volume(), entry(), network=Bicubic((4, 1)), options=Options(device="cpu", batch=4),
        progress=lambda *step: told.append(step),
    )  # fmt: skip
    assert {stage for stage, *_ in told} == {"super-resolving"}
    voxels = 2 * volume().array.size  # in two views
    assert told[0][1:] == (0, voxels, None) and told[-1][1:3] == (voxels, voxels) and told[-1][3] == 0
    assert [done for _, done, *_ in told] == sorted(done for _, done, *_ in told)
    assert all(left is not None and left >= 0 for *_, left in told[1:])


def test_cancelling_ends_the_work() -> None:
    network = Bicubic((4, 1))
    with pytest.raises(Cancelled):
        super_resolve(
            volume(),
            entry(),
            network=network,
            options=Options(device="cpu", batch=2),
            cancel=lambda: len(network.seen) > 2,
        )
    assert len(network.seen) == 3


# estimates


def test_an_estimate_tells_grid_memory_and_passes_without_running() -> None:
    told = estimate(grid((256, 256, 30)), entry(), factor=8.0)
    assert told.grid.size == (256, 256, 240)
    assert told.passes == 2 and told.slices == 2 * 512
    voxels = 4 * 256 * 256 * 240
    assert 3 * voxels < told.memory < 3 * voxels + 4 * 2**30
    assert estimate(grid(), models.find_model("linear"), factor=2.0).memory < 2**30
    on_gpu = estimate(grid((256, 256, 30)), entry(), device="cuda")
    assert on_gpu.device_memory > 0 and on_gpu.memory < told.memory


def test_an_estimate_counts_the_reference() -> None:
    """At the size of the last pass, x4, although x3 is asked: itself, where it is valid, and its copy for the network."""
    alone, guided = (
        estimate(grid((256, 256, 30)), entry(task=task, reference_contrasts=("T1w",)), factor=3.0).memory
        for task in ("super-resolve", "reference-guided")
    )
    assert guided - alone == 3 * 4 * 256 * 256 * 120


def test_an_estimate_tells_what_the_card_does_not_cover() -> None:
    assert "outside-training" in [code for code, _ in estimate(grid(), entry(contrasts=("T1w",)), contrast="T2w").notes]


def test_translation_keeps_the_grid() -> None:
    card = entry((1, 1), "in-plane", task="translate", target_contrasts=("T2w",)).card
    assert estimate(grid(), card).grid == grid()


# reference


class Guided(nn.Module):
    """Answers with the reference where there is one, else with the input: (x, reference, valid) -> reference's size."""

    def forward(self, x: Tensor, reference: Tensor, valid: Tensor) -> Tensor:
        low = nn.functional.interpolate(x, size=reference.shape[-2:], mode="bilinear", align_corners=False)
        return torch.where(valid > 0, reference, low)


def test_a_reference_reaches_the_network_in_register_with_its_slices() -> None:
    """Through the plane, in both reformats; where it has no data the network is told."""
    made = volume()
    fine = made.grid.refine((1.0, 1.0, 4.0))
    bright = ramp(fine)
    valid = np.ones(fine.shape, dtype=bool)
    valid[:, :, :5] = False
    result = super_resolve(
        made, entry(task="reference-guided", reference_contrasts=("T1w",)), network=Guided(), options=CPU,
        reference=Aligned(Volume(bright, fine), valid),
    )  # fmt: skip
    error = np.abs(result.array - ramp(fine))
    assert error[8:-8, :, 5:].max() < 0.1 * np.ptp(bright)  # two intensity scales meet here
    assert np.corrcoef(result.array[8:-8, :, 7:].ravel(), bright[8:-8, :, 7:].ravel())[0, 1] > 0.9999
    assert error[8:-8, :, :5].max() < 1.0


def test_a_reference_on_another_grid_than_a_pass_is_brought_there() -> None:
    """A request between factors: the pass is x4, the aligned reference lies on it, the result on x3."""
    made = volume()
    fine = made.grid.refine((1.0, 1.0, 3.0))
    result = super_resolve(
        made, entry(task="reference-guided", reference_contrasts=("T1w",)), factor=3.0, network=Guided(), options=CPU,
        reference=Aligned(Volume(ramp(fine), fine), np.ones(fine.shape, dtype=bool)),
    )  # fmt: skip
    assert result.grid.same_as(fine)
    assert np.abs(result.array - ramp(fine))[8:-8].max() < 5.0


def test_missing_torch_is_said_in_words_a_clinician_can_act_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from MRSuperResLib.errors import MissingRequirement
    from MRSuperResLib.inference import device

    monkeypatch.setitem(sys.modules, "torch", None)
    check: Callable[[], None] = device.require_torch
    with pytest.raises(MissingRequirement, match="install the PyTorch extension"):
        check()


def test_zero_filling_and_the_papers_bicubic_are_models_too() -> None:
    """On the whole grid asked for, and equal to what the baselines say they are, slice by slice."""
    scan = volume(grid((18, 20, 9)))
    for name, make in (("zerofill", zero_filled), ("bicubic", bicubic_interpolation)):
        result = super_resolve(scan, name, factor=2, plane="in-plane")
        assert result.grid.same_as(scan.grid.refine((2, 2, 1)))
        rows, columns = make(20, 40).matrix, make(18, 36).matrix
        expected = np.stack([rows @ image @ columns.T for image in scan.array.astype(float)])
        np.testing.assert_allclose(result.array, expected, atol=1e-4 * float(np.abs(expected).max()))
    coarser = super_resolve(scan, "zerofill", spacing=(2 * scan.grid.spacing[0], *np.divide(scan.grid.spacing[1:], 2)))
    assert coarser.grid.size == (9, 40, 18)


def test_the_reference_is_scaled_by_its_valid_voxels_alone() -> None:
    """What lies outside the reference's own field of view, however bright, changes nothing of what the network is shown."""
    from MRSuperResLib.inference.super_resolution import _guides

    on = grid()
    stage = plan(on, entry(task="reference-guided", reference_contrasts=("T1w",)).card).stages[-1]
    rng = np.random.default_rng(4)
    values = rng.uniform(100, 900, stage.native.shape).astype(np.float32)
    valid = np.zeros(values.shape, dtype=bool)
    valid[:, 4:-4, 4:-4] = True
    shown = []
    for outside in (0.0, 1e5):
        reference = Volume(np.where(valid, values, np.float32(outside)), stage.native)
        unit, where = _guides(Aligned(reference, valid), stage)
        assert np.array_equal(where > 0, valid) and not unit[~valid].any()
        shown.append(unit)
    np.testing.assert_array_equal(shown[0], shown[1])
    assert np.percentile(shown[0][valid], 1) == pytest.approx(0.01, abs=0.02)
    assert np.percentile(shown[0][valid], 99) == pytest.approx(0.99, abs=0.02)
