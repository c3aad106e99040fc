"""The demo: a real MR volume made coarse, super-resolved, and compared with what it was.

A 1 mm volume is turned into 4 mm slices by the project's own acquisition model. Plain interpolation and a shipped model
bring it back, and each answer is scored against the volume it came from. Everything runs through the same jobs as the
panel and the command line, so what the demo writes is what a user would get.

The volume is the ICBM 152 T1-weighted average (2009a, symmetric, 1 mm) as the Python package nilearn carries it:
Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill University.
An average of 152 heads is smoother than one scan, which helps every method; the gain on single scans stands in the models'
cards. Another volume is used with `--input`.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import models
from .errors import MissingRequirement, OutputError, UnsuitableVolume, UsageError
from .evaluation import metrics
from .evaluation.degrade import front_to_back
from .evaluation.figures import through_plane_figure
from .jobs import Job, run_job
from .jobs.progress import LinesOfProgress, duration
from .models import ModelEntry
from .provenance import digest_of, read_record
from .staging import Staging

if TYPE_CHECKING:
    from .volume import Volume

FACTOR = 4
DEGRADATION = "through-gaussian"
SAMPLE = ("datasets", "data", "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")  # inside the package nilearn
BLOCK_MM = 48.0  # front to back; a thicker block takes longer and looks the same
MARGIN_MM = 6.0  # around the head
FINEST_RATIO = 1.2  # a truth whose slices are thicker than this many in-plane voxels is no truth through the plane
COMPARED = "bspline"  # the interpolation shown beside the model
BESIDE = ("linear", COMPARED, "lanczos")
BOXES = "Left: in the box around the head, where the sharp edge of a stripped skull flatters. brain: 4 mm and more inside it."
PREFERRED = "disvit-through-x4"


@dataclass(frozen=True)
class Answer:
    """One model's result: where it was written, how it scored, how long it took."""

    model: str
    path: Path
    error_map: Path
    metrics: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Demo:
    """All that the demo made."""

    truth: Path
    acquired: Path
    answers: tuple[Answer, ...]
    figure: Path | None


def run(
    folder: str | os.PathLike[str] = "demo-output",
    *,
    source: str | os.PathLike[str] | None = None,
    model: str | None = None,
    model_folders: Sequence[str] = (),
    block_mm: float | None = BLOCK_MM,
    device: str = "auto",
    threads: int | None = None,
    say: Callable[[str], None] = print,
) -> Demo:
    """Make the coarse volume, super-resolve it, score it, draw it; everything goes into `folder`.

    source: a volume of about isotropic voxels to use instead of nilearn's. model: a through-plane model's id or file, by
    default the shipped one for x4. block_mm: thickness of the block of the head that is used, front to back, None for all.
    Raises `MissingRequirement` without nilearn's file or without a model, `UsageError` for a model of another kind, otherwise
    what a job raises.
    """
    from .acquisition import acquire
    from .io.read import read_volume

    started = time.monotonic()
    entry = choose_model(model, model_folders)
    factor = int(entry.card.factor or FACTOR)
    path = sample_volume() if source is None else Path(source)
    place = _folder(folder)

    fine = read_volume(path, warn=lambda code, message: say(f"  note: {message}"))
    axis = fine.grid.slice_axis
    _check(fine, axis)
    fine = head_block(fine, axis, factor, block_mm)
    truth, acquired = place / "truth.nii.gz", place / "acquired.nii.gz"
    _write(fine, truth)
    factors = tuple(factor if other == axis else 1 for other in range(3))
    coarse = acquire(fine, (factors[0], factors[1], factors[2]), DEGRADATION)
    _write(coarse, acquired)
    say(f"truth     {_described(fine)}  {truth}")
    say(f"acquired  {_described(coarse)}  {acquired}  ({coarse.grid.spacing[axis]:.3g} mm slices, Gaussian profile)")

    job = Job(
        input=str(acquired), output="", model="", plane="through-plane", factor=float(factor), truth=str(truth),
        slice_axis=axis, device=device, threads=threads, model_folders=tuple(model_folders),
    )  # fmt: skip
    names = [name for name in BESIDE if name != entry.card.id]
    names.append(model if model is not None else entry.card.id)
    answers = tuple(_answer(job, name, place, say) for name in names)
    say("")
    say(table(answers))
    drawn = _draw(place / "demo.png", fine, coarse, answers, axis, say)
    say(f"\n{time.monotonic() - started:.0f} s. The same by hand:")
    say(
        f"  mrsuperres run {acquired} -o result.nii.gz --model {answers[-1].model} --truth {truth} --error-map error.nii.gz"
    )
    return Demo(truth, acquired, answers, drawn)


def _write(volume: Volume, path: Path) -> None:
    """Write `volume` for the demo; what is there already may be replaced if it is the same, or a result beside was made of it.

    Raises `OutputError` for anything else: somebody's scan of that name.
    """
    from .io.write import write_volume

    with Staging() as files:
        new = files.path(path)
        write_volume(volume, new)
        if os.path.lexists(path):
            records = [read_record(sidecar) or {} for sidecar in path.parent.glob("*.json")]
            known = {one.get("sha256") for record in records for one in record.get("inputs", {}).values()}
            if digest_of(path) not in {*known, digest_of(new)}:
                text = f"{path} is there already and is not the demo's: choose another folder (--output)"
                raise OutputError(text, code="not-ours")
        files.commit()


def sample_volume() -> Path:
    """The MNI template inside the installed package nilearn, which is looked at but not imported."""
    spec = importlib.util.find_spec("nilearn")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, *SAMPLE)
        if path.is_file():
            return path
    raise MissingRequirement(
        "the demo's MR volume comes with the Python package nilearn, which is not here: install it (pip install --no-deps "
        "nilearn) or give a volume of your own with --input",
        code="no-demo-volume",
    )


def choose_model(name: str | None = None, folders: Sequence[str] = ()) -> ModelEntry:
    """The model called `name`, which must refine through the plane alone, or the shipped one that suits the demo."""
    if name is not None:
        entry = models.find_model(name, folders)
        card = entry.card
        if card.task != "super-resolve" or card.plane not in ("through-plane", "any"):
            raise UsageError(
                f"the demo needs a model that super-resolves through the plane, '{card.id}' is another (task {card.task}, plane "
                f"{card.plane}): see 'mrsuperres models', or name none"
            )
        return entry
    fitting = [
        entry
        for entry in models.list_models(folders)
        if entry.path is not None
        and entry.card.task == "super-resolve"
        and entry.card.plane == "through-plane"
        and entry.card.factor == FACTOR
    ]
    if not fitting:
        raise MissingRequirement(
            f"no through-plane x{FACTOR} model is installed: see 'mrsuperres models', or name one with --model",
            code="no-demo-model",
        )
    return min(fitting, key=lambda entry: (entry.card.id != PREFERRED, entry.card.id))


def head_block(volume: Volume, axis: int, factor: int, block_mm: float | None) -> Volume:
    """The part of `volume` around the head, `block_mm` thick front to back; whole thick slices along `axis`."""
    grid = volume.grid
    box = metrics.head_box(volume.array)[::-1]  # i, j, k
    margin = [math.ceil(MARGIN_MM / mm) for mm in grid.spacing]
    low = [max(0, (along.start or 0) - extra) for along, extra in zip(box, margin, strict=True)]
    high = [
        min(size, (size if along.stop is None else along.stop) + extra)
        for along, extra, size in zip(box, margin, grid.size, strict=True)
    ]
    depth = front_to_back(grid, axis)
    if block_mm is not None:
        length = min(high[depth] - low[depth], max(1, round(block_mm / grid.spacing[depth])))
        low[depth] += (high[depth] - low[depth] - length) // 2
        high[depth] = low[depth] + length
    high[axis] -= (high[axis] - low[axis]) % factor
    return volume.crop((low[0], low[1], low[2]), (high[0] - low[0], high[1] - low[1], high[2] - low[2]))


def table(answers: Sequence[Answer]) -> str:
    """The scores as text: dB and the gain over `COMPARED`, in the head's box and inside the brain without its rim."""
    reference = next((answer for answer in answers if answer.model == COMPARED), answers[0])
    width = max(len(answer.model) for answer in answers)
    lines = [f"{'':{width}}  PSNR (dB)   gain  brain (dB)   gain     SSIM     NMSE   seconds"]
    for answer in answers:
        psnr, ssim, nmse = (answer.metrics[name] for name in ("psnr", "ssim", "nmse"))
        gain = psnr - reference.metrics["psnr"]
        lines.append(
            f"{answer.model:{width}}  {psnr:9.2f}  {gain:+5.2f}  {_in_brain(answer, reference)}  {ssim:7.4f}  {nmse:7.5f}"
            f"  {answer.seconds:8.1f}"
        )
    lines += ["", BOXES]
    return "\n".join(lines)


def _in_brain(answer: Answer, reference: Answer) -> str:
    """PSNR inside the brain and its gain; dashes if no brain was found."""
    inside, beside = (each.metrics.get("psnr_brain") for each in (answer, reference))
    return f"{'-':>10}  {'-':>5}" if inside is None or beside is None else f"{inside:10.2f}  {inside - beside:+5.2f}"


def _answer(job: Job, model: str, place: Path, say: Callable[[str], None]) -> Answer:
    """Run `job` with `model` as the command line would."""
    entry = models.find_model(model, job.model_folders)
    name = entry.card.id
    paths = place / f"{name}.nii.gz", place / f"{name}_error.nii.gz"
    progress = Progress(name, say)
    started = time.monotonic()
    result = run_job(replace(job, model=model, output=str(paths[0]), error_map=str(paths[1])), progress, lambda: False)
    progress.finish()
    return Answer(name, *paths, result["metrics"], time.monotonic() - started)


class Progress:
    """Shows a job's events: a line that counts on a terminal, elsewhere a line now and then; warnings everywhere."""

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        self.name, self.say = name, say
        self.live = say is print and sys.stdout.isatty()
        self.lines = LinesOfProgress(lambda line: say(f"  {name}, {line}"))
        self.shown = False

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "warning":
            self.finish()
            self.say(f"  note: {event['message']}")
        if event["event"] == "progress" and not self.live:
            self.lines(event["stage"], event["done"], event["total"], event["seconds_left"])
        elif event["event"] == "progress" and event["stage"] == "super-resolving":
            left = "" if event["seconds_left"] is None else f", {duration(event['seconds_left'])} left"
            print(f"\r{self.name}: {event['done'] / max(event['total'], 1):.0%}{left}    ", end="", flush=True)
            self.shown = True

    def finish(self) -> None:
        """Clear the counting line."""
        if self.shown:
            print("\r" + " " * 72 + "\r", end="", flush=True)
            self.shown = False


def _draw(
    path: Path, truth: Volume, coarse: Volume, answers: Sequence[Answer], axis: int, say: Callable[[str], None]
) -> Path | None:
    """The picture, or a line that says why there is none."""
    from .io.read import read_volume

    shown = (COMPARED, answers[-1].model)
    try:
        pairs = [
            (answer.model, answer.metrics["psnr"], read_volume(answer.path))
            for answer in answers
            if answer.model in shown
        ]
        through_plane_figure(path, truth, coarse, pairs, axis)
    except MissingRequirement as missing:
        say(f"\nno picture: {missing.message}")
        return None
    say(f"\npicture   {path}")
    return path


def _check(volume: Volume, axis: int) -> None:
    within = max(mm for other, mm in enumerate(volume.grid.spacing) if other != axis)
    if volume.grid.spacing[axis] > FINEST_RATIO * within:
        raise UnsuitableVolume(
            f"the demo needs a volume of about cubic voxels to compare with, this one has {_described(volume)}; "
            "to super-resolve it, use 'mrsuperres run'",
            code="no-truth",
        )


def _described(volume: Volume) -> str:
    size = " x ".join(str(n) for n in volume.grid.size)
    return f"{size} voxels of {' x '.join(f'{mm:.3g}' for mm in volume.grid.spacing)} mm"


def _folder(folder: str | os.PathLike[str]) -> Path:
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{place} cannot be made: {error.strerror}", code="no-folder") from error
    return place
