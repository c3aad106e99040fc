"""Translation of a volume to another contrast: several plausible answers, their mean and how much they differ.

One latent vector z serves all the slices of one answer, so that the slices of a volume belong together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .. import models
from ..contrasts import CONTRASTS as CONTRASTS
from ..contrasts import guess_contrast as guess_contrast
from ..contrasts import same_contrast
from ..contrasts import spelt as spelt
from ..errors import DeviceError, ModelError, UnsuitableVolume, UsageError
from ..intensity import IntensityScale
from ..models import ModelCard, ModelEntry
from . import planning
from .memory import available_memory, readable_bytes
from .options import Cancel, Options, Progress, Translation, Warn, log_warning, never, silent, stop_if
from .super_resolution import Clock

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..volume import Grid, Volume

STAGE = "translating"
DEFAULT_SAMPLES = 8
MOST_SAMPLES = 100  # the mean of so many is settled to a tenth of their spread; more is time for nothing
LEAST_CONTRAST = 1e-3  # of a scan's largest value: a robust range below that is no image
LEAST_BRIGHT = 0.005  # of the voxels brighter than a tenth of the range
MOST_ROUGH = 0.8  # mean squared step over twice the variance: 1 for white noise, 0.5 at most across real heads
FAR = 32  # a step of the 32nd part of an image is far enough for interpolated noise to look white
ALIKE = 0.75  # of the middle's brightness: a border as bright as that is no air around a head
TISSUE = 0.3  # of the robust range: what is brighter is tissue
LEAST_STRUCTURE = 0.015  # standard deviation without the noise, on the unit scale: real heads have 0.04 at least
REVERSED = 0.5  # of the robust range: air brighter than that, and than the middle, is no MR magnitude image


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
) -> Translation:
    """`volume` as it would look in the contrast `target`: the voxel-wise mean of `samples` plausible answers.

    uncertainty: their standard deviation (of the population they are drawn from: N - 1), times the card's
    `uncertainty_scale`; None for a single sample. Sample n depends on `seed` and n alone, neither on how many are drawn
    nor on `options.batch` (slices are answered one by one). keep_samples: return the samples too; otherwise any number
    of them takes the memory of two. network: run this module instead of the model's weights.

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
    clock = Clock(STAGE, made.samples * translator.slices, made.samples * volume.array.size, progress)
    spread, kept = Spread(), []
    for z in latents(entry.card, made.samples, seed):
        sample = translator.answer(z, clock)
        spread.add(sample)
        if keep_samples:
            kept.append(translator.volume_of(sample))
    scale = _uncertainty_scale(entry, made, warn)
    return Translation(
        translator.volume_of(spread.mean),
        translator.volume_of(spread.deviation() * scale, difference=True) if made.samples > 1 else None,
        tuple(kept),
        {
            "source": made.source,
            "target": made.target,
            "samples": made.samples,
            "intensities": "the target contrast's robust range, mapped onto the input's",
            "robust_range": [translator.scale.low, translator.scale.high],
            "uncertainty_scale": entry.card.requirements.uncertainty_scale,
        },
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
        network = models.load_network(entry) if network is None else network
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
        chosen = [slice(None)] * 3
        chosen[self.axis] = part
        array = np.maximum(self.scale.to_unit(self.volume.array[tuple(chosen)]), 0, dtype=np.float32)
        result = np.empty_like(array)
        images, answers = np.moveaxis(array, self.axis, 0), np.moveaxis(result, self.axis, 0)
        for which, found in self.runner.run(images):
            answers[which] = found
            if clock is not None:
                clock.tick(which.stop - which.start, found.size)
        return result

    def volume_of(self, unit: np.ndarray, difference: bool = False) -> Volume:
        """`unit`, on the unit scale, as a volume in the source's units; difference: without the offset."""
        from ..volume import Volume

        values = unit * (self.scale.high - self.scale.low) if difference else self.scale.from_unit(unit)
        return Volume(np.asarray(values, dtype=np.float32), self.volume.grid, self.volume.name, self.volume.metadata)


class Spread:
    """Mean and standard deviation of arrays that come one by one (Welford 1962): as much memory for 100 as for 2."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = np.zeros(0, dtype=np.float32)
        self._squares = np.zeros(0, dtype=np.float32)

    def add(self, values: np.ndarray) -> None:
        """One more array, of the shape of those before."""
        self.count += 1
        if self.count == 1:
            self.mean, self._squares = values.astype(np.float32), np.zeros(values.shape, dtype=np.float32)
            return
        before = values - self.mean
        self.mean += before / np.float32(self.count)
        self._squares += before * (values - self.mean)

    def deviation(self) -> np.ndarray:
        """Standard deviation with N - 1, so that it does not depend on how many were drawn; 0 for one array."""
        return np.asarray(np.sqrt(self._squares / np.float32(max(1, self.count - 1))), dtype=np.float32)


def latents(card: ModelCard, count: int, seed: int) -> Iterable[np.ndarray]:
    """`count` draws of z ~ N(0, I), (latent,) each; the n-th depends on `seed` (0 or more) and n alone.

    They come in pairs, z and -z (antithetic sampling, Hammersley and Morton 1956): the mean of few answers is then nearer to the
    mean of all, the more so where training held the mean of such pairs near the truth.
    """
    if seed < 0:
        raise UsageError(f"seed is {seed}, expected 0 or more")
    for number in range(count):
        pair, second = divmod(number, 2)
        z = np.random.default_rng((seed, pair)).standard_normal(card.requirements.latent).astype(np.float32)
        yield -z if second else z


def check_view(volume: Volume, slice_axis: int, warn: Warn = log_warning) -> None:
    """Raise `UnsuitableVolume` (code "no-head") when there is nothing to translate.

    Warns of intensities that may be "reversed", and of a "doubtful-view": no air around, or one even brightness.
    """
    scale = IntensityScale.of(volume.array)
    largest = float(np.max(np.abs(volume.array)))
    if scale.high - scale.low < LEAST_CONTRAST * largest:
        raise _no_head(volume, f"its values are all between {scale.low:.6g} and {scale.high:.6g}")
    unit = np.moveaxis(scale.to_unit(volume.array), 2 - slice_axis, 0)  # (slices, rows, columns)
    if float(np.mean(unit > 0.1)) < LEAST_BRIGHT:
        raise _no_head(volume, f"only {100 * float(np.mean(unit > 0.1)):.2g} % of its voxels are bright")
    inside = np.clip(unit, 0.0, 1.0)
    everywhere = np.ones(inside.shape, dtype=bool)
    border, middle = _border_and_middle(inside)
    no_air = _no_air(border, middle)
    far = max(1, min(inside.shape[1:]) // FAR)
    if _roughness(inside, everywhere) > MOST_ROUGH or (no_air and _roughness(inside, everywhere, far) > MOST_ROUGH):
        raise _no_head(volume, "it shows noise only")
    tissue = inside > TISSUE
    if border > max(REVERSED, middle):
        warn(
            "reversed",
            "the scan's border is brighter than its middle: if its intensities are reversed, as in a negative, the "
            "translation will be wrong",
        )
    elif no_air:
        warn(
            "doubtful-view", "no air surrounds what the scan shows: if it is not a head, its translation means nothing"
        )
    elif float(np.var(inside[tissue])) * (1 - _roughness(inside, tissue)) < LEAST_STRUCTURE**2:
        warn(
            "doubtful-view",
            "what the scan shows is evenly bright, as in a phantom: if it is not a head, its translation means nothing",
        )


def scale_above_air(volume: Volume, slice_axis: int) -> IntensityScale:
    """The scale of a scan, with the air around the head as its dark end where there is air.

    The darkest voxels of a scan that was interpolated lie below its air, beside bright edges. The networks know no such scans.
    """
    scale = IntensityScale.of(volume.array)
    unit = np.moveaxis(scale.to_unit(volume.array), 2 - slice_axis, 0)
    air, middle = _border_and_middle(np.clip(unit, 0.0, 1.0))
    return scale if _no_air(air, middle) else replace(scale, low=scale.low + air * (scale.high - scale.low))


def _no_air(border: float, middle: float) -> bool:
    """Whether slices with these medians of their borders and middles have no air around what they show."""
    return border > max(0.1, ALIKE * middle)


def _roughness(stack: np.ndarray, where: np.ndarray, lag: int = 1) -> float:
    """Mean squared difference in slices, `lag` pixels apart, over twice the variance: the part of it that is noise.

    where: the voxels that count. 1 where nothing varies.
    """
    variance = float(np.var(stack[where]))
    steps = []
    for axis in (1, 2):
        ends = [np.moveaxis(each, axis, 0) for each in (stack, where)]
        both = ends[1][lag:] & ends[1][:-lag]
        if both.any():
            steps.append(float(np.mean(np.square(ends[0][lag:] - ends[0][:-lag])[both])))
    return float(np.mean(steps)) / (2 * variance) if steps and variance else 1.0


def _border_and_middle(stack: np.ndarray) -> tuple[float, float]:
    """The median of the outermost pixels of the slices, and that of the middle half of their rows and columns."""
    rows, columns = stack.shape[1:]
    frame = np.concatenate([stack[:, [0, -1]].ravel(), stack[:, :, [0, -1]].ravel()])
    middle = stack[:, rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    return float(np.median(frame)), float(np.median(middle))


def _no_head(volume: Volume, why: str) -> UnsuitableVolume:
    return UnsuitableVolume(
        f"no head is in view of {volume.name or 'the scan'}: {why}; is it the right volume?", code="no-head"
    )


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


def sample_count(card: ModelCard, samples: int | None) -> int:
    """How many answers `card` draws when `samples` are asked for; None: DEFAULT_SAMPLES, or 1 if it has one answer.

    Raises `UsageError` for a number that cannot be served.
    """
    if samples is not None and not 1 <= samples <= MOST_SAMPLES:
        raise UsageError(f"{samples} samples are asked for, expected 1 to {MOST_SAMPLES}", code="samples")
    if card.requirements.latent:
        return DEFAULT_SAMPLES if samples is None else samples
    if samples is not None and samples > 1:
        raise UsageError(f"'{card.id}' gives one answer only: ask for 1 sample, not {samples}", code="one-answer")
    return 1


def _uncertainty_scale(entry: ModelEntry, made: TranslationPlan, warn: Warn) -> float:
    scale = entry.card.requirements.uncertainty_scale
    if scale is None and made.samples > 1:
        warn("uncalibrated", f"'{entry.card.id}' is not calibrated: its uncertainty is the samples' plain deviation")
    return 1.0 if scale is None else scale


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
