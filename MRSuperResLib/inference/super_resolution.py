"""Super-resolution of a volume: slices through the network, fused, back in the volume's units and place."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import models
from ..errors import ModelError, UsageError
from ..intensity import IntensityScale
from ..models import ModelEntry
from ..models.scores import mean_gain
from . import planning
from .options import Aligned, Cancel, Options, Progress, Warn, log_warning, never, silent, stop_if
from .planning import Plan, Stage
from .preview import upright

if TYPE_CHECKING:
    from torch import nn

    from ..grid import Grid
    from ..volume import Volume
    from .preview import ShowSlice
    from .runner import SliceRunner

STAGE = "super-resolving"


class Clock:
    """Counts the voxels that the network has seen, of `voxels` in all passes, and says how long the rest will take."""

    def __init__(self, stage: str, voxels: int, progress: Progress) -> None:
        self.stage, self.voxels, self.progress = stage, voxels, progress
        self.done = 0
        self.started = time.monotonic()
        progress(stage, 0, voxels, None)

    def tick(self, voxels: int) -> None:
        """`voxels` more are done."""
        self.done += voxels
        elapsed = time.monotonic() - self.started
        left = elapsed / max(self.done, 1) * (self.voxels - self.done)
        self.progress(self.stage, self.done, self.voxels, max(0.0, left))


def super_resolve(
    volume: Volume,
    model: ModelEntry | str,
    *,
    factor: float | None = None,
    spacing: Sequence[float] | None = None,
    plane: str | None = None,
    reference: Volume | Aligned | None = None,
    options: Options | None = None,
    progress: Progress = silent,
    warn: Warn = log_warning,
    cancel: Cancel = never,
    network: nn.Module | None = None,
    preview: ShowSlice | None = None,
) -> Volume:
    """`volume` super-resolved by `model`, in its units, on a grid of the same extent, finer by `factor` or to
    `spacing`.

    factor: along the model's axes; spacing: mm along i, j, k, instead; neither: the model's own factor. plane:
    "in-plane" or "through-plane", None for the model's. reference: for reference-guided models, a sharp volume of the
    same anatomy anywhere in space, or one already aligned on this volume's finest pass. network: run this module,
    moved to the device and in evaluation mode, instead of the model's weights. preview: is shown the middle slice before the
    others are computed; interpolation is too quick for one.

    Raises what `check_volume` and `planning.plan` raise, `ModelError` for a model that cannot be used so,
    `DeviceError`, `Cancelled`.
    """
    from ..volume import check_volume

    options = options or Options()
    entry = models.find_model(model, options.model_folders, warn) if isinstance(model, str) else model
    check_task(entry, reference)
    volume = check_volume(volume, warn)
    made = planning.plan(
        volume.grid,
        entry.card,
        factor=factor,
        spacing=spacing,
        plane=plane,
        slice_axis=options.slice_axis,
        contrast=options.contrast,
        thickness=options.thickness or volume.thickness,
    )
    for code, message in made.notes:
        warn(code, message)
    planning.check_memory(made)
    if options.project:  # before the network runs, because an axis may be coarser, which is refused
        from .. import fidelity  # here, because scipy is slow to import

        thickness = fidelity.slice_thickness(volume, made.slice_axis, options.thickness, options.profile, warn)
        between = (volume.grid, made.target, made.slice_axis, options.profile, thickness)
        acquisition = fidelity.acquisition_between(*between)
    stop_if(cancel)
    if entry.card.is_baseline:
        result = _interpolated(volume, made.target, entry.card.id, progress)
    else:
        if reference is not None and not isinstance(reference, Aligned):
            reference = align_reference(reference, volume, made, options, warn, progress, cancel)
        alone = answering(entry, reference, options) if network is None else entry
        if reference is not None and not reference.valid.any():
            warn("without-reference", _without_reference(entry, alone))
        if alone is not entry:
            return super_resolve(
                volume,
                alone,
                factor=factor,
                spacing=spacing,
                plane=plane,
                options=options,
                progress=progress,
                warn=warn,
                cancel=cancel,
                preview=preview,
            )
        result = _refined(volume, entry, made, reference, options, progress, warn, cancel, network, preview)
    if not options.project:
        return result
    return fidelity.project(
        result,
        volume,
        acquisition,
        slice_axis=made.slice_axis,
        otherwise=fidelity.alternatives(*between),
        noise=fidelity.noise_level(volume, made.slice_axis),
        warn=warn,
    )


def check_task(entry: ModelEntry, reference: object = None) -> None:
    """Raise `ModelError` unless the model super-resolves, with or without a reference as given."""
    task, name = entry.card.task, entry.card.id
    if task == "translate":
        raise ModelError(
            f"'{name}' translates contrasts, it does not super-resolve: use 'translate'", code="wrong-task"
        )
    if task == "reference-guided" and reference is None:
        raise ModelError(f"'{name}' is guided by a reference volume, and none is given: add one", code="no-reference")
    if task == "super-resolve" and reference is not None:
        raise ModelError(
            f"'{name}' does not use a reference: leave it out, or choose a reference-guided model", code="wrong-task"
        )


def answering(entry: ModelEntry, guide: Aligned | None, options: Options) -> ModelEntry:
    """The model that answers: `entry`, unless its reference is valid nowhere and it has no single-image network inside.

    Then it is the single-image model of the same plane and factors whose card shows the largest gain, if there is one.
    """
    if guide is None or guide.valid.any() or entry.card.hyperparameters.get("base"):
        return entry
    card = entry.card
    others = [
        other
        for other in models.list_models(options.model_folders)
        if other.card.task == "super-resolve" and (other.card.plane, other.card.factors) == (card.plane, card.factors)
    ]
    return max(others, key=lambda other: mean_gain(other.card), default=entry)


def _without_reference(entry: ModelEntry, alone: ModelEntry) -> str:
    if alone is not entry:
        return f"no reference is used: the answer is that of '{alone.card.id}', from the scan alone"
    if entry.card.hyperparameters.get("base"):
        return f"no reference is used: the answer is that of the single-image model inside '{entry.card.id}'"
    return f"no reference is used: '{entry.card.id}' answers from the scan alone, less well than a single-image model would"


def _interpolated(volume: Volume, target: Grid, interpolation: str, progress: Progress) -> Volume:
    from ..acquisition import SEPARABLE, interpolate
    from ..resample import resample

    progress(STAGE, 0, 1, None)
    result = (interpolate if interpolation in SEPARABLE else resample)(volume, target, interpolation)
    progress(STAGE, 1, 1, 0.0)
    return result


def _refined(
    volume: Volume,
    entry: ModelEntry,
    made: Plan,
    guide: Aligned | None,
    options: Options,
    progress: Progress,
    warn: Warn,
    cancel: Cancel,
    network: nn.Module | None,
    preview: ShowSlice | None,
) -> Volume:
    from ..acquisition import interpolate
    from ..resample import resample
    from ..volume import Volume
    from .device import require_torch

    require_torch()
    from .runner import SliceRunner

    network = models.kept_network(entry) if network is None else network
    runner = SliceRunner(network, entry.card, made.zoom, options, warn, cancel)
    scale = IntensityScale.of(volume.array)
    shown = interpolate(volume, made.stages[0].source, "bicubic") if made.averaged else volume
    array = np.asarray(scale.to_unit(shown.array), dtype=np.float32)
    clock = Clock(STAGE, sum(_voxels(stage) for stage in made.stages) * len(made.views), progress)
    if preview is not None:
        _show_middle(array, made, runner, _guides(guide, made.stages[0]), scale, preview)
    for stage in made.stages:
        array = _passed(array, stage, made, runner, _guides(guide, stage), clock)
    array = np.asarray(scale.from_unit(array), dtype=np.float32)
    result = Volume(array, made.stages[-1].result, volume.name, volume.metadata)
    if made.averaged:
        return _added(result, shown, volume, made.target)
    return result if result.grid.same_as(made.target) else resample(result, made.target, "bspline")


def _added(result: Volume, shown: Volume, volume: Volume, target: Grid) -> Volume:
    """`volume` interpolated to `target`, with what `result`, made of `shown`, a coarser version of it, adds to interpolation."""
    from ..acquisition import interpolate
    from ..resample import resample
    from ..volume import Volume

    added = Volume(result.array - resample(shown, result.grid, "bspline").array, result.grid)
    array = resample(volume, target, "bspline").array + interpolate(added, target, "bicubic").array
    return Volume(array, target, volume.name, volume.metadata)


def _passed(
    array: np.ndarray, stage: Stage, made: Plan, runner: SliceRunner, guides: Sequence[np.ndarray], clock: Clock
) -> np.ndarray:
    """One pass over `array` (k, j, i): every view's answer, averaged."""
    fused = np.zeros(stage.result.shape, dtype=np.float32)
    share = 1.0 / len(made.views)
    for view in made.views:
        images = np.transpose(array, view)
        answers = np.transpose(fused, view)
        extras = [np.transpose(guide, view) for guide in guides]
        size = (answers.shape[1], answers.shape[2])
        for part, answer in runner.run(images, extras, size):
            answers[part] += share * answer
            clock.tick((part.stop - part.start) * images.shape[1] * images.shape[2])
    return fused


def _show_middle(
    array: np.ndarray,
    made: Plan,
    runner: SliceRunner,
    guides: Sequence[np.ndarray],
    scale: IntensityScale,
    preview: ShowSlice,
) -> None:
    """Compute the middle slice of the first view alone, and show it."""
    stage, view = made.stages[0], made.views[0]
    images = np.transpose(array, view)
    middle = slice(len(images) // 2, len(images) // 2 + 1)
    shape = np.transpose(np.empty(stage.result.shape, dtype=bool), view).shape
    extras = [np.transpose(guide, view)[middle] for guide in guides]
    for _part, answer in runner.run(images[middle], extras, (shape[1], shape[2])):
        preview(upright(np.asarray(scale.from_unit(answer[0])), stage.result, (2 - view[1], 2 - view[2])))


def align_reference(
    reference: Volume,
    volume: Volume,
    made: Plan,
    options: Options,
    warn: Warn = log_warning,
    progress: Progress = silent,
    cancel: Cancel = never,
) -> Aligned:
    """`reference` on the grid where the network of `made` wants it, moved onto `volume` first if `options.register`.

    Raises what `registration.align` and `planning.check_memory` raise.
    """
    from .registration import align

    planning.check_memory(made)
    return align(
        reference,
        volume,
        reference_grid(made),
        target=made.target,
        register=options.register,
        warn=warn,
        progress=progress,
        cancel=cancel,
    )


def reference_grid(made: Plan) -> Grid:
    """Where a reference-guided network wants its reference: the grid of its last pass, before any resampling."""
    if not made.stages:
        raise UsageError(f"'{made.card.id}' takes no reference")
    return made.stages[-1].native


def _guides(guide: Aligned | None, stage: Stage) -> tuple[np.ndarray, ...]:
    """The reference on the networks' scale, and where it is valid (1), on the grid of `stage`; none if unguided."""
    if guide is None:
        return ()
    from ..resample import resample
    from ..volume import Volume

    reference, valid = guide.volume, np.asarray(guide.valid, dtype=np.float32)
    if not reference.grid.same_as(stage.native):
        valid = resample(Volume(valid, reference.grid), stage.native, "nearest").array
        reference = resample(reference, stage.native, "linear")
    seen = reference.array[valid > 0]
    scale = IntensityScale.of(seen if seen.size else reference.array)
    unit = np.asarray(scale.to_unit(reference.array), dtype=np.float32)
    return np.where(valid > 0, unit, np.float32(0.0)), valid


def _voxels(stage: Stage) -> int:
    return int(np.prod(stage.source.size))
