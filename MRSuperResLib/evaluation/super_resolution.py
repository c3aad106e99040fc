"""Degrade sharp scans, run models beside the baselines, score against the truth: one procedure for papers, cards and CI."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UnsuitableVolume, UsageError
from ..io.formats import volume_name
from ..models import BASELINES, ModelEntry, Score, find_model
from ..volume import Volume
from . import metrics
from .degrade import DegradedPair, scored_axis

if TYPE_CHECKING:
    from ..inference.options import Options, Progress

Report = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One model on one scan. metrics: as `metrics.summary` names them; seconds: of the run alone.

    scan: the name of the truth, by which rows are compared: several scans need different ones (`scan_names`).
    """

    scan: str
    model: str
    plane: str
    factor: float
    degradation: str
    metrics: dict[str, float]
    seconds: float

    @property
    def case(self) -> tuple[str, str, float, str]:
        """What was asked of every model alike: scan, plane, factor and degradation."""
        return (self.scan, self.plane, self.factor, self.degradation)


def scan_names(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """A name for each scan, all different: its file's; where several are alike, its folder's before it, or a number after."""
    files = [Path(os.path.abspath(path)) for path in paths]
    names = [volume_name(file) for file in files]
    found: list[str] = []
    for file, name in zip(files, names, strict=True):
        own = f"{file.parent.name}_{name}" if names.count(name) > 1 else name
        numbered = (f"{own}-{number}" for number in itertools.count(2))
        found.append(next(free for free in itertools.chain([own], numbered) if free not in found))
    return found


def evaluate(
    pair: DegradedPair,
    models: Iterable[str | ModelEntry],
    *,
    reference: Volume | None = None,
    options: Options | None = None,
    report: Report | None = None,
    progress: Progress | None = None,
) -> tuple[list[Row], dict[str, Volume]]:
    """Each model's answer to `pair`, scored inside the head, whole and per slice; the rows, and the answers by model."""
    from ..inference import super_resolve
    from ..inference.options import Options, silent

    run = replace(options or Options(), slice_axis=pair.axis)
    entries = [find_model(model, run.model_folders) if isinstance(model, str) else model for model in models]
    rows, answers = [], {}
    for entry in entries:
        started = time.monotonic()
        answer = super_resolve(
            pair.low,
            entry,
            spacing=pair.truth.grid.spacing,
            plane=pair.plane,
            reference=reference if entry.card.task == "reference-guided" else None,
            options=run,
            progress=progress or silent,
            warn=lambda code, message: None if report is None else report(f"  {message} ({code})"),
        )
        rows.append(score(pair, answer, entry.card.id, time.monotonic() - started))
        answers[entry.card.id] = answer
        if report:
            found = rows[-1].metrics
            report(
                f"{rows[-1].scan}  {entry.card.id}: {found['psnr']:.2f} dB, SSIM {found['ssim']:.4f}, {rows[-1].seconds:.0f} s"
            )
    return rows, answers


def score(pair: DegradedPair, answer: Volume, model: str, seconds: float = 0.0) -> Row:
    """`answer`, on the truth's grid, scored against it."""
    if not answer.grid.same_as(pair.truth.grid):
        raise UnsuitableVolume(f"the answer of '{model}' lies on another grid than the truth")
    found = metrics.summary(
        answer.array, pair.truth.array, axis=scored_axis(pair), spacing=pair.truth.grid.spacing[::-1]
    )
    return Row(pair.truth.name, model, pair.plane, pair.factor, pair.degradation, found, seconds)


def with_baselines(models: Sequence[str | ModelEntry]) -> list[str | ModelEntry]:
    """The baselines, then the models that are none."""
    return [*BASELINES, *(model for model in models if model not in BASELINES)]


def publish(rows: Sequence[Row], model: str | ModelEntry, out: str | Path) -> ModelEntry:
    """Write `model` to the file `out` with its scores in `rows`, beside the baselines', printed in its card.

    Scores of other degradations that its card has already are kept: the weights are the same.
    """
    from ..models import load_network, save_model

    entry = find_model(model) if isinstance(model, str) else model
    scores = tuple(_score(row, rows) for row in rows if row.model == entry.card.id)
    if not scores:
        raise UsageError(f"'{entry.card.id}' was not scored: nothing to print in its card")
    scored = {(score.plane, score.degradation) for score in scores}
    kept = tuple(score for score in entry.card.metrics if (score.plane, score.degradation) not in scored)
    weights = load_network(entry, for_inference=False).state_dict()
    return save_model(out, replace(entry.card, metrics=kept + scores), weights)


def _score(row: Row, rows: Sequence[Row]) -> Score:
    """A line of the card."""
    beside = [other for other in rows if other.case == row.case and other.model in BASELINES]
    in_brain = {other.model: round(other.metrics["psnr_brain"], 3) for other in beside if "psnr_brain" in other.metrics}
    return Score(
        scan=row.scan,
        plane=row.plane,
        degradation=f"{row.degradation}, x{row.factor:g}",
        psnr=round(row.metrics["psnr"], 3),
        ssim=round(row.metrics["ssim"], 5),
        nmse=round(row.metrics["nmse"], 6),
        baseline={other.model: (round(other.metrics["psnr"], 3), round(other.metrics["ssim"], 5)) for other in beside},
        brain_psnr=round(row.metrics["psnr_brain"], 3) if "psnr_brain" in row.metrics else None,
        brain_baseline=in_brain,
    )
