"""Translation of a volume to another contrast: several plausible answers, their mean and how much they differ.

One latent vector z serves all the slices of one answer, so that the slices of a volume belong together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .. import models
from ..contrasts import CONTRASTS, guess_contrast, same_contrast, spelt
from ..errors import DeviceError, ModelError, UsageError
from ..models import ModelCard, ModelEntry
from . import planning
from .flags import detector_for, find_flags, widened
from .memory import available_memory, readable_bytes
from .options import Cancel, Options, Progress, Translation, Warn, log_warning, never, silent, stop_if
from .preview import upright
from .sampling import Spread, latents, sample_count
from .super_resolution import Clock
from .uncertainty import error_network_for, uncertainty_of
from .view_checks import check_view, scale_above_air

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..grid import Grid
    from ..volume import Volume
    from .flags import Flags
    from .preview import ShowSlice
    from .uncertainty import Uncertainty

STAGE = "translating"


@dataclass(frozen=True)
class TranslationPlan:
    """How a request will be served. slice_axis: of i, j, k. notes: (code, line) to tell the user first."""

    source: str
    target: str
    samples: int
    slice_axis: int
    notes: tuple[tuple[str, str], ...] = ()


def plan_translation(
    grid: Grid,
    card: ModelCard,
    *,
    target: str | None = None,
    contrast: str | None = None,
    samples: int | None = None,
    slice_axis: int | None = None,
    name: str = "",
) -> TranslationPlan:
    """How `card` serves a scan on `grid`. Cheap, and without torch.

    target: contrast to make, None if the card leaves one only. contrast: of the scan; None to read it from `name`, the
    scan's, or to take what the card leaves. samples: 1 to MOST_SAMPLES, None for DEFAULT_SAMPLES, or 1 where the model
    has one answer. Raises `UsageError` for a target that is unknown or what the scan is already, for an unknown
    contrast and for numbers of samples that cannot be served; `ModelError` for a model of another task.
    """
    check_task(card)
    notes: list[tuple[str, str]] = []
    given = contrast if contrast is not None else guess_contrast(name)
    if contrast is None and given is not None:
        notes.append(("contrast-guessed", f"the scan's name says {given}: it is translated as such"))
    wanted = _target(card, target, given)
    source = _source(card, given, wanted, notes)
    axis = planning.translation_axis(grid, slice_axis)
    notes += [("outside-training", f"'{card.id}': {why}") for why in models.coverage(card, grid, None, None, axis)]
    return TranslationPlan(source, wanted, sample_count(card, samples), axis, tuple(notes))


def check_task(card: ModelCard) -> None:
    """Raise `ModelError` unless the model translates."""
    if card.task != "translate":
        raise ModelError(f"'{card.id}' does not translate: use 'mrsuperres run'", code="wrong-task")


def translate(
    volume: Volume,
    model: ModelEntry | str,
    *,
    target: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    keep_samples: bool = False,
    options: Options | None = None,
    progress: Progress = silent,
    warn: Warn = log_warning,
    cancel: Cancel = never,
    network: nn.Module | None = None,
    preview: ShowSlice | None = None,
) -> Translation:
    """`volume` as it would look in the contrast `target`: the voxel-wise mean of `samples` plausible answers.

    A translation is no scan: what the scan does not show is invented, and what it shows may be lost. flags: the places that a
    lesion detector finds in the scan, told as a warning too; None where none is installed. uncertainty: a standard deviation of
    the error, as the translator's error network has it, where one is installed; else the samples' standard deviation (of the
    population they are drawn from: N - 1) times the card's `uncertainty_scale`; wide where something is flagged, and None for a
    single sample. Sample n depends on `seed` and n alone, neither on how many are drawn
    nor on `options.batch` (slices are answered one by one). keep_samples: return the samples too; otherwise any number
    of them takes the memory of two. network: run this module instead of the model's weights, of whose errors
    nothing is known. preview: is shown the middle slice
    of the first sample before the others are computed.

    Translated intensities have no unit of their own: the network's scale, where 0 and 1 are the robust range (0.1 and
    99.9 percentiles) of the target contrast, is mapped onto the robust range of `volume`. `report` of the answer says
    which. Raises what `check_volume`, `plan_translation` and `check_view` raise, `ModelError`, `DeviceError`,
    `Cancelled`.
    """
    from ..volume import check_volume

    options = options or Options()
    entry = models.find_model(model, options.model_folders, warn) if isinstance(model, str) else model
    volume = check_volume(volume, warn)
    made = plan_translation(
        volume.grid,
        entry.card,
        target=target,
        contrast=options.contrast,
        samples=samples,
        slice_axis=options.slice_axis,
        name=volume.name,
    )
    for code, message in made.notes:
        warn(code, message)
    check_view(volume, made.slice_axis, warn)
    check_memory(volume.grid, made.samples if keep_samples else 0)
    stop_if(cancel)
    translator = Translator(volume, entry, made, options, warn, cancel, network)
    clock = Clock(STAGE, made.samples * volume.array.size, progress)
    if preview is not None:
        translator.show_middle(next(iter(latents(entry.card, made.samples, seed))), preview)
    spread, kept = Spread(), []
    for z in latents(entry.card, made.samples, seed):
        sample = translator.answer(z, clock)
        spread.add(sample)
        if keep_samples:
            kept.append(translator.volume_of(sample))
    uncertain = _uncertainty(translator, spread, entry, made, options, network, warn, cancel)
    flags = _flags(volume, made, options, warn, cancel)
    uncertainty = None
    if uncertain is not None:
        deviation = uncertain.deviation if flags is None else widened(uncertain.deviation, flags.mask)
        uncertainty = translator.volume_of(deviation, difference=True)
    return Translation(
        translator.volume_of(spread.mean),
        uncertainty,
        tuple(kept),
        flags,
        {
            "source": made.source,
            "target": made.target,
            "samples": made.samples,
            "intensities": "the target contrast's robust range, mapped onto the input's",
            "robust_range": [translator.scale.low, translator.scale.high],
            "uncertainty_scale": None if uncertain is None else uncertain.scale,
            "uncertainty": None if uncertain is None else uncertain.report(),
            "flags": None if flags is None else flags.report(),
        },
    )


def _flags(volume: Volume, made: TranslationPlan, options: Options, warn: Warn, cancel: Cancel) -> Flags | None:
    """What the scan shows that the answer may have lost, told to `warn`; None without a detector for its contrast."""
    detector = detector_for(made.source, options, warn)
    if detector is None:
        return None
    flags = find_flags(volume, detector, made.source, options=options, warn=warn, cancel=cancel)
    if flags.places:
        warn("flagged", flags.words())
    return flags


def _uncertainty(
    translator: Translator,
    spread: Spread,
    entry: ModelEntry,
    made: TranslationPlan,
    options: Options,
    network: nn.Module | None,
    warn: Warn,
    cancel: Cancel,
) -> Uncertainty | None:
    """Of the mean of the samples; None for one sample."""
    if made.samples < 2:
        return None
    knowing = error_network_for(entry, options, warn) if network is None else None
    return uncertainty_of(
        translator.unit(),
        spread.mean,
        spread.deviation(),
        entry,
        knowing,
        (made.source, made.target),
        translator.axis,
        options=options,
        warn=warn,
        cancel=cancel,
    )


class Translator:
    """A network made ready to translate one volume: `answer` gives what it makes of a latent vector.

    scale: between the volume's units and the network's unit scale, in which answers are.
    """

    def __init__(
        self,
        volume: Volume,
        entry: ModelEntry,
        made: TranslationPlan,
        options: Options | None = None,
        warn: Warn = log_warning,
        cancel: Cancel = never,
        network: nn.Module | None = None,
    ) -> None:
        from .device import require_torch

        require_torch()
        from .runner import SliceRunner

        self.volume, self.axis = volume, 2 - made.slice_axis
        self.scale = scale_above_air(volume, made.slice_axis)
        network = models.kept_network(entry) if network is None else network
        self.bound = _bound(network, entry.card, made)
        options = options or Options()
        if options.batch not in (None, 1):
            warn(
                "batch",
                f"slices are translated one by one, for the same bits always: the batch of {options.batch} is not used",
            )
        # The last bits of a slice depend on the slices beside it, and on a CPU several at once are no faster.
        self.runner = SliceRunner(self.bound, entry.card, (1, 1), replace(options, batch=1), warn, cancel)

    @property
    def slices(self) -> int:
        """How many slices an answer has."""
        return self.volume.array.shape[self.axis]

    def answer(self, z: np.ndarray, clock: Clock | None = None, part: slice = slice(None)) -> np.ndarray:
        """The answer to `z` (latent,), on the unit scale, (k, j, i); only the slices `part` of it if given."""
        import torch

        self.bound.z = torch.from_numpy(np.asarray(z, dtype=np.float32))[None].to(self.runner.device)
        array = self.unit(part)
        result = np.empty_like(array)
        images, answers = np.moveaxis(array, self.axis, 0), np.moveaxis(result, self.axis, 0)
        for which, found in self.runner.run(images):
            answers[which] = found
            if clock is not None:
                clock.tick(found.size)
        return result

    def unit(self, part: slice = slice(None)) -> np.ndarray:
        """What the network is given: the volume, or the slices `part` of it, on the unit scale, (k, j, i)."""
        chosen = [slice(None)] * 3
        chosen[self.axis] = part
        return np.maximum(self.scale.to_unit(self.volume.array[tuple(chosen)]), 0, dtype=np.float32)

    def show_middle(self, z: np.ndarray, preview: ShowSlice) -> None:
        """Compute the middle slice of the answer to `z` alone, and show it."""
        middle = self.slices // 2
        image = np.take(self.answer(z, part=slice(middle, middle + 1)), 0, axis=self.axis)
        rows, columns = (axis for axis in range(3) if axis != self.axis)
        preview(upright(image, self.volume.grid, (2 - rows, 2 - columns)))

    def volume_of(self, unit: np.ndarray, difference: bool = False) -> Volume:
        """`unit`, on the unit scale, as a volume in the source's units; difference: without the offset."""
        from ..volume import Volume

        values = unit * (self.scale.high - self.scale.low) if difference else self.scale.from_unit(unit)
        return Volume(np.asarray(values, dtype=np.float32), self.volume.grid, self.volume.name, self.volume.metadata)


def _target(card: ModelCard, target: str | None, contrast: str | None) -> str:
    """The contrast to make, spelt as the card does."""
    offered = card.target_contrasts
    left = [name for name in offered if not same_contrast(name, contrast)]
    if target is None:
        if len(left) == 1:
            return left[0]
        choices = ", ".join(left or offered)
        raise UsageError(f"'{card.id}' makes {choices}: say which contrast to translate to", code="no-target")
    found = spelt(target, offered)
    if found not in offered:
        raise UsageError(f"'{card.id}' makes {', '.join(offered)}, not '{target}'", code="unknown-target")
    if same_contrast(found, contrast):
        other = f"; it can be translated to {', '.join(left)}" if left else ""
        raise UsageError(f"the scan is {found} already, nothing to translate{other}", code="same-contrast")
    return found


def _source(card: ModelCard, contrast: str | None, target: str, notes: list[tuple[str, str]]) -> str:
    """Which of the card's contrasts the scan is translated as."""
    known = [name for name in card.contrasts if name != target]
    found = next((name for name in known if same_contrast(name, contrast)), None)
    if found is not None:
        return found
    if not known or "any" in known:
        return contrast or "any"
    if contrast is not None:
        others = ", ".join(known)
        if not any(same_contrast(name, contrast) for name in CONTRASTS):
            raise UsageError(f"'{card.id}' translates {others}, not '{contrast}'", code="unknown-contrast")
        why = f"'{card.id}' translates {others}, the scan is {contrast}: it is translated as if it were {known[0]}"
        notes.append(("outside-training", why))
        return known[0]
    if len(known) > 1:
        raise UsageError(
            f"'{card.id}' translates {', '.join(known)}: say which contrast the scan is", code="no-contrast"
        )
    notes.append(("contrast-guessed", f"the scan's contrast is not known: it is translated as {known[0]}"))
    return known[0]


def check_memory(grid: Grid, kept_samples: int) -> None:
    """Raise `DeviceError` when the volumes alone would not fit in this machine's memory."""
    needed, there = planning.translation_bytes(grid, kept_samples), available_memory()
    if there is not None and needed > there:
        raise DeviceError(
            f"the volumes need {readable_bytes(needed)} of memory, {readable_bytes(there)} are free: ask for fewer "
            "samples, crop the scan, or use a larger machine",
            code="memory",
        )


def _bound(network: nn.Module, card: ModelCard, made: TranslationPlan) -> nn.Module:
    """`network` (x, z, source, target) as a module of x alone; its `z` (1, latent) can be set."""
    from torch import nn

    contrasts = tuple(getattr(network, "contrasts", ()))
    if made.target not in contrasts:
        raise ModelError(f"'{card.id}' has no output for {made.target}, which its card offers", code="bad-card")
    source = contrasts.index(made.source) if made.source in contrasts else 0
    target = contrasts.index(made.target)

    class Bound(nn.Module):
        z: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = self.network(x, self.z.expand(len(x), -1), source, target)
            return answer

    return Bound()
