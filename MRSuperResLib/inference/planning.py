"""What a request means before anything is computed: plane, passes, grids and memory. Cheap, and without torch.

A model multiplies the sampling of its axes by whole numbers. A factor it does not have is served by the nearest power
of its own at or above, and each pass is brought to the size needed inside the pass, edges kept: x2.5 from a x4 model is
x4, then resampled with antialiasing; x8 is x4, then x4 again resampled to x2. A network that makes thinner slices is
shown pixels no finer than it was trained on: finer ones are averaged, and what it adds to interpolation is interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from .. import models
from ..errors import DeviceError, ModelError, UnsuitableVolume, UsageError
from ..models import ModelCard, ModelEntry
from ..terms import Plane
from .memory import available_memory, readable_bytes

if TYPE_CHECKING:
    from ..grid import Grid

LARGEST_FACTOR = 16.0  # beyond it nothing of the result would be measured
STRETCH = 1.1  # a request this little above what a pass gives is reached by interpolation, not by another pass
THICK = 1.2  # slice spacing over in-plane spacing from which a model for any plane is used through the plane
ACTIVATIONS = (
    16_000.0  # bytes per input pixel at fp32, for cards that state none; measured: RDST-E x4 14,920, RDST 15,386
)
TRANSLATION_VOLUMES = (
    7  # of the scan's size at the busiest moment, the scan included; measured, whatever the number of samples
)
GUIDE_VOLUMES = 3  # of the last pass's size: the aligned reference, where it is valid, its copy; measured 3.1
LIBRARIES = 600 * 2**20  # bytes of memory that Python, torch and SimpleITK take by themselves
# Input pixels in a batch. On a CPU more is no faster (RDST-E: 254 and 262 us a pixel at 9,216 and 36,864), only less responsive.
PIXELS_AT_ONCE = {"cpu": 2**14, "cuda": 2**19, "mps": 2**16}
LEAST_FILLED = (
    0.25  # of the width of a network's one input size: a view that fills less is left out, if the other fills more
)
PLANES = get_args(Plane)


@dataclass(frozen=True)
class Stage:
    """One pass of the network: from `source` it makes `native` (whole-number factors), which is brought to `result`."""

    source: Grid
    native: Grid
    result: Grid


@dataclass(frozen=True)
class Plan:
    """How a request will be served.

    axes: image axes (of i, j, k) the model refines. stages: none for interpolation; the first one's source is what the network
    is shown of `source`. target: the grid of the answer; it differs from the last stage's only along axes that are not the
    model's. notes: (code, line) to tell the user first.
    """

    card: ModelCard
    source: Grid
    plane: str
    slice_axis: int
    axes: tuple[int, ...]
    stages: tuple[Stage, ...]
    target: Grid
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def views(self) -> tuple[tuple[int, int, int], ...]:
        """The ways slices are cut, each as the array axes of (stack, rows, columns).

        A slab's narrow reformats are left out where the network takes images of one size: they would be mostly empty.
        """
        rows, columns = 2 - self.slice_axis, [2 - axis for axis in (2, 1, 0) if axis != self.slice_axis]
        if self.plane == "in-plane":
            return ((rows, columns[0], columns[1]),)
        both = ((columns[0], rows, columns[1]), (columns[1], rows, columns[0]))
        least = self.card.requirements.input_size * LEAST_FILLED
        return tuple(view for view in both if self.source.shape[view[2]] >= least) or both

    @property
    def averaged(self) -> bool:
        """Whether the network is shown coarser pixels than the scan's."""
        return bool(self.stages) and self.stages[0].source.size != self.source.size

    @property
    def zoom(self) -> tuple[int, int]:
        """The network's factors along rows and columns."""
        assert self.card.factors is not None
        return int(self.card.factors[0]), int(self.card.factors[1])


@dataclass(frozen=True)
class Estimate:
    """What a job will make and need: bytes of host memory and of the device's (0 when the host computes).

    plane and slice_axis: what was chosen where the request left it open.
    """

    grid: Grid
    memory: int
    device_memory: int
    slices: int
    passes: int
    notes: tuple[tuple[str, str], ...] = ()
    plane: str = "in-plane"
    slice_axis: int = 2


def plan(
    grid: Grid,
    card: ModelCard,
    *,
    factor: float | None = None,
    spacing: Sequence[float] | None = None,
    plane: str | None = None,
    slice_axis: int | None = None,
    contrast: str | None = None,
    thickness: float | None = None,
) -> Plan:
    """How `card` serves a volume on `grid`.

    factor: along the model's axes; spacing: mm along i, j, k, instead; neither: the model's own factor. thickness: of
    the slices, mm, if known. Raises
    `UsageError` for a contradictory request, `ModelError` for a model of another plane, `UnsuitableVolume` if the grid
    is too small or already as fine as asked.
    """
    if card.task in ("flag", "error"):
        does = (
            "finds lesions in scans that are translated" if card.task == "flag" else "says where translations are wrong"
        )
        raise ModelError(
            f"'{card.id}' {does}, and super-resolves none: use another model",
            code="wrong-task",
        )
    if card.task == "prior":
        raise ModelError(
            f"'{card.id}' is the first stage of a model: it draws slices and super-resolves none; use a package of the "
            "second stage",
            code="wrong-task",
        )
    axis = slice_axis_for(grid, slice_axis, plane or card.plane)
    where = _plane(card, grid, plane, axis)
    axes = (axis,) if where == "through-plane" else tuple(other for other in (2, 1, 0) if other != axis)
    target = _target(grid, card, axes, factor, spacing)
    if all(target.size[other] <= grid.size[other] for other in (axes if card.factors else range(3))):
        raise UnsuitableVolume(
            f"the scan's spacing is {_mm(grid.spacing)} mm and {_mm(target.spacing)} mm is asked: nothing to refine "
            f"{where}; ask for a smaller spacing or another plane",
            code="already-fine",
        )
    coarser = [other for other in range(3) if target.spacing[other] > models.TOLERANCE * grid.spacing[other]]
    notes = []
    if coarser:
        text = f"the spacing asked for is coarser than the scan's along {_named(coarser)}: detail is lost there"
        notes.append(("coarsened-axis", text))
    if card.factors is None:
        return Plan(card, grid, where, axis, axes, (), target, tuple(notes))
    _check_size(grid, card, where, axis)
    factors = tuple(target.size[other] / grid.size[other] for other in axes)
    shown = models.shown_grid(card, grid, axis, where)
    stages = _stages(shown, card, axes, target)
    unlike = models.coverage(card, shown, contrast, factors, axis, thickness)
    notes += [("outside-training", f"'{card.id}': {why}") for why in unlike]
    finer = [other for other in range(3) if other not in axes and target.size[other] > grid.size[other]]
    if finer:
        notes.append(("interpolated-axis", f"'{card.id}' refines {where} only: axis {_named(finer)} is interpolated"))
    return Plan(card, grid, where, axis, axes, stages, target, tuple(notes))


def estimate(
    grid: Grid,
    model: ModelEntry | ModelCard,
    *,
    factor: float | None = None,
    spacing: Sequence[float] | None = None,
    plane: str | None = None,
    slice_axis: int | None = None,
    contrast: str | None = None,
    device: str = "cpu",
    kept_samples: int = 0,
) -> Estimate:
    """The grid a request would give and the memory it would take, to show before it is run; raises as `plan` does.

    kept_samples: of a translation, beside the mean.
    """
    card = model.card if isinstance(model, ModelEntry) else model
    if card.task == "translate":
        axis = translation_axis(grid, slice_axis)
        pixels = math.prod(grid.size) // grid.size[axis]
        memory = LIBRARIES + translation_bytes(grid, kept_samples) + int(_network_bytes(card, pixels, device))
        why = models.coverage(card, grid, contrast, None, axis)
        notes = tuple(("outside-training", f"'{card.id}': {reason}") for reason in why)
        return Estimate(grid, memory, 0, grid.size[axis], 1, notes, "in-plane", axis)
    made = plan(grid, card, factor=factor, spacing=spacing, plane=plane, slice_axis=slice_axis, contrast=contrast)
    working = max((_network_bytes(card, max(_pixels(made, stage)), device) for stage in made.stages), default=0.0)
    host, on_device = (LIBRARIES + host_bytes(made), int(working)) if device != "cpu" else (LIBRARIES, 0)
    if device == "cpu":
        host += host_bytes(made) + int(working)
    return Estimate(
        made.target, host, on_device, slices(made), max(1, len(made.stages)), made.notes, made.plane, made.slice_axis
    )


def translation_axis(grid: Grid, slice_axis: int | None = None) -> int:
    """The axis (0, 1, 2) across the slices that a translation sees: the acquired ones, or where spacings are alike the axial."""
    if slice_axis is None and max(grid.spacing) <= THICK * min(grid.spacing):
        axial = [axis for axis in range(3) if grid.axis_name(axis) == "axial"]
        return axial[0] if axial else grid.slice_axis
    return slice_axis_for(grid, slice_axis, "in-plane")


def slices(made: Plan) -> int:
    """How many slices the network will see, in all passes and views; 1 for interpolation."""
    return sum(stage.source.shape[view[0]] for stage in made.stages for view in made.views) or 1


def host_bytes(made: Plan) -> int:
    """Bytes of volumes at the busiest moment: input, pass before, sum of views, answer, its copy for the disk, the reference's."""
    voxels = [math.prod(stage.result.size) for stage in made.stages] or [0]
    before = voxels[-2] if len(voxels) > 1 else 0
    guided = made.card.task == "reference-guided"
    guide = GUIDE_VOLUMES * math.prod(made.stages[-1].native.size) if guided else 0
    return 4 * (2 * math.prod(made.source.size) + before + voxels[-1] + 2 * math.prod(made.target.size) + guide)


def translation_bytes(grid: Grid, kept_samples: int) -> int:
    """Bytes of volumes at the busiest moment of a translation on `grid`."""
    return 4 * math.prod(grid.size) * (TRANSLATION_VOLUMES + kept_samples)


def check_memory(made: Plan) -> None:
    """Raise `DeviceError` when the volumes alone would not fit in this machine's memory."""
    needed, there = host_bytes(made), available_memory()
    if there is not None and needed > there:
        raise DeviceError(
            f"a result of {' x '.join(map(str, made.target.size))} voxels needs {readable_bytes(needed)} of memory, "
            f"{readable_bytes(there)} are free: ask for a smaller factor, crop the scan, or use a larger machine",
            code="memory",
        )


def activation_bytes(card: ModelCard) -> float:
    """Bytes of a network's activations per pixel of its input at fp32."""
    return card.requirements.memory or ACTIVATIONS


def _network_bytes(card: ModelCard, pixels: int, device: str) -> float:
    """Bytes for one batch of slices of `pixels` pixels."""
    kind = device.split(":")[0]
    at_once = max(pixels, PIXELS_AT_ONCE.get("cuda" if kind == "auto" else kind, PIXELS_AT_ONCE["cpu"]))
    return activation_bytes(card) * at_once * (1.0 if kind == "cpu" else 0.5)


def _pixels(made: Plan, stage: Stage) -> list[int]:
    return [network_pixels(made.card, stage.source.shape[view[1]], stage.source.shape[view[2]]) for view in made.views]


def network_pixels(card: ModelCard, rows: int, columns: int) -> int:
    """Pixels that the network sees at once of a slice of the scan: after interpolation, one part of it, where its card says so."""
    if card.requirements.input_size:
        return int(card.requirements.input_size**2)
    if card.requirements.interpolated and card.factors is not None:
        return int(rows * card.factors[0]) * int(columns * card.factors[1])
    return rows * columns


def slice_axis_for(grid: Grid, slice_axis: int | None = None, plane: str = "any") -> int:
    """The axis asked for, or what `Grid.slice_axis_for` finds."""
    if slice_axis is None:
        return grid.slice_axis_for(plane)
    if slice_axis not in (0, 1, 2):
        raise UsageError(f"slice axis is {slice_axis}, expected 0, 1 or 2 (i, j or k)")
    return slice_axis


def _plane(card: ModelCard, grid: Grid, plane: str | None, axis: int) -> str:
    if plane is not None and plane not in PLANES:
        raise UsageError(f"plane is '{plane}', expected in-plane or through-plane")
    if plane is not None and card.plane not in (plane, "any"):
        article = "an" if plane == "in-plane" else "a"
        raise ModelError(
            f"'{card.id}' refines {card.plane}, and {plane} is asked: choose {article} {plane} model",
            code="wrong-plane",
        )
    if plane is not None:
        return plane
    if card.plane != "any":
        return card.plane
    within = max(spacing for other, spacing in enumerate(grid.spacing) if other != axis)
    return "through-plane" if grid.spacing[axis] > THICK * within else "in-plane"


def _target(
    grid: Grid, card: ModelCard, axes: tuple[int, ...], factor: float | None, spacing: Sequence[float] | None
) -> Grid:
    if factor is not None and spacing is not None:
        raise UsageError("both a factor and a spacing are given: give one")
    if spacing is not None:
        if len(spacing) != 3 or not all(math.isfinite(value) and value > 0 for value in spacing):
            raise UsageError(f"the spacing asked for is {_mm(spacing)}, expected three positive numbers of mm")
        finest = max(old / new for old, new in zip(grid.spacing, spacing, strict=True))
        if finest > LARGEST_FACTOR:
            raise UsageError(f"the spacing asked for is x{finest:.3g} finer, at most x{LARGEST_FACTOR:g} is served")
        return grid.with_spacing((float(spacing[0]), float(spacing[1]), float(spacing[2])))
    if factor is None:
        if card.factors is None:
            raise UsageError(f"'{card.id}' serves any factor: say which, or a spacing")
        along = dict(zip(axes, card.factors, strict=False))
    else:
        if not 1.0 < factor <= LARGEST_FACTOR:
            raise UsageError(f"the factor asked for is {factor:g}, expected more than 1 and at most {LARGEST_FACTOR:g}")
        along = dict.fromkeys(axes, float(factor))
    return grid.refine((along.get(0, 1.0), along.get(1, 1.0), along.get(2, 1.0)))


def _check_size(grid: Grid, card: ModelCard, where: str, axis: int) -> None:
    if where == "through-plane" and grid.size[axis] < 2:
        raise UnsuitableVolume(
            "the scan has one slice only: through-plane super-resolution needs several; choose an in-plane model",
            code="one-slice",
        )
    least = card.requirements.smallest
    if where == "through-plane" and card.requirements.input_size and grid.size[axis] < least:
        raise UnsuitableVolume(
            f"the scan has {grid.size[axis]} slices, and '{card.id}' needs at least {least}: its images of "
            f"{card.requirements.input_size} pixels would be mostly empty; choose another model",
            code="few-slices",
        )
    thin = [other for other in range(3) if other != axis and grid.size[other] < 2]
    if thin:
        raise UnsuitableVolume(
            f"the scan is {' x '.join(map(str, grid.size))} voxels: axis {'ijk'[thin[0]]} has a single voxel, and "
            f"'{card.id}' needs images; check the slice axis",
            code="one-voxel-axis",
        )


def _stages(grid: Grid, card: ModelCard, axes: tuple[int, ...], target: Grid) -> tuple[Stage, ...]:
    """Passes from `grid` to the size of `target` along `axes`."""
    assert card.factors is not None
    own = dict(zip(axes, card.factors, strict=False))
    if max(own.values()) < 2:
        raise ModelError(f"'{card.id}' does not enlarge any axis of its plane", code="bad-card")
    stages: list[Stage] = []
    source = grid
    while True:
        wanted = {axis: target.size[axis] / source.size[axis] for axis in axes}
        native = source.refine(_triple(own))
        last = all(wanted[axis] <= own[axis] * STRETCH or own[axis] == 1 for axis in axes)
        result = source.refine(_triple(wanted)) if last else native
        stages.append(Stage(source, native, result))
        if last:
            return tuple(stages)
        source = result


def _triple(along: dict[int, float]) -> tuple[float, float, float]:
    return (along.get(0, 1.0), along.get(1, 1.0), along.get(2, 1.0))


def _named(axes: Sequence[int]) -> str:
    return " and ".join("ijk"[axis] for axis in axes)


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in spacing)
