"""What a job makes: the volumes, their scores, and the names of the files they are written to."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import provenance
from ..errors import OutputError, UsageError
from ..intensity import IntensityScale
from ..models import ModelEntry
from ..staging import Staging
from .chosen import kept_samples
from .existing import check_existing
from .job import FORMATS, Job

if TYPE_CHECKING:
    from ..volume import Volume


@dataclass
class JobOutputs:
    """What a job has made so far."""

    job: Job
    result: Volume
    consistency: Volume | None = None
    uncertainty: Volume | None = None
    flags: Volume | None = None  # label numbers
    samples: tuple[Volume, ...] = ()
    error: Volume | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    registration: Mapping[str, Any] | None = None
    translation: Mapping[str, Any] | None = None

    def score(self, truth: Volume, warn: Callable[[str, str], None]) -> None:
        """Metrics and error map against `truth`, first brought onto the result's grid if it lies on another.

        A translation, whose intensities have no unit, is first put on the truth's: robust range onto robust range.
        """
        from ..evaluation import metrics
        from ..resample import resample
        from ..volume import Volume

        if not truth.grid.same_as(self.result.grid):
            warn("truth-resampled", "the ground truth lies on another grid than the result: it was resampled (linear)")
            truth = resample(truth, self.result.grid, "linear")
        array = self.result.array
        if self.translation is not None:
            unit = IntensityScale(*self.translation["robust_range"]).to_unit(array)
            array = np.asarray(IntensityScale.of(truth.array).from_unit(unit), dtype=np.float32)
        scores = metrics.summary(array, truth.array, spacing=truth.grid.spacing[::-1])
        self.metrics = {name: value if math.isfinite(value) else None for name, value in scores.items()}
        difference = np.abs(array - truth.array)
        self.error = Volume(difference, self.result.grid, f"{self.result.name} error")

    def write(self, places: Mapping[str, Path], fields: Mapping[str, str]) -> None:
        """Every volume to its temporary place."""
        from ..io.write import write_volume

        write_volume(self.result, places["output"], fields=fields)
        for name, volume in (
            ("error_map", self.error),
            ("consistency_map", self.consistency),
            ("uncertainty_map", self.uncertainty),
        ):
            if name in places and volume is not None:
                write_volume(volume, places[name], fields=fields)
        if "flags" in places and self.flags is not None:
            write_volume(self.flags, places["flags"], fields=fields, dtype=np.uint16)
        for number, sample in enumerate(self.samples):
            write_volume(sample, places[f"sample {number}"], fields=fields)


def places_of(job: Job, files: Staging, entry: ModelEntry) -> dict[str, Path]:
    """A temporary name for every file the job will make; wrong formats, folders and clashes are refused here."""
    finals = finals_of(job, entry)
    if job.samples_folder:
        samples = [Path(path).name for name, path in finals.items() if name.startswith("sample ")]
        _check_samples_folder(files.folder(job.samples_folder), samples)
    for name, path in finals.items():
        if name == "sidecar":
            continue
        if os.path.isdir(path) or path.endswith(("/", os.sep)):
            raise UsageError(f"{path} is a folder: name a file in it, {os.path.join(path, 'result.nii.gz')} for one")
        if not path.lower().endswith(FORMATS):
            raise UsageError(f"{path}: results are written as {', '.join(FORMATS)}, not as '{Path(path).suffix}'")
    check_existing(job, finals)
    return {name: files.path(path) for name, path in finals.items()}


def _check_samples_folder(folder: Path, names: Sequence[str]) -> None:
    """Raise `OutputError` if samples of another job would stay in `folder` beside those called `names`."""
    start = names[0].rpartition("01")[0]
    there = folder.iterdir() if folder.is_dir() else ()
    left = sorted(path.name for path in there if path.name.startswith(start) and path.name not in names)
    if left:
        raise OutputError(
            f"{folder} holds samples that this job would not overwrite, {left[0]} for one: remove them, or choose another "
            "folder",
            code="samples-there",
        )


def finals_of(job: Job, entry: ModelEntry) -> dict[str, str]:
    """Where every result will be, by its name."""
    return _finals(job, kept_samples(job, entry))


def folders_of(job: Job, entry: ModelEntry) -> list[Path]:
    """The folders of those files, and the one in which a folder of samples is made."""
    paths = list(finals_of(job, entry).values()) + ([job.samples_folder] if job.samples_folder else [])
    return sorted({Path(os.path.abspath(os.path.expanduser(path))).parent for path in paths})


def _finals(job: Job, samples: int) -> dict[str, str]:
    maps = ("error_map", "consistency_map", "uncertainty_map", "flags")
    finals = {"output": job.output, "sidecar": str(provenance.sidecar_path(job.output))}
    finals |= {name: getattr(job, name) for name in maps if getattr(job, name)}
    if job.samples_folder:
        suffix = next((ending for ending in FORMATS if job.output.lower().endswith(ending)), "")
        stem = Path(job.output).name[: len(Path(job.output).name) - len(suffix)]
        for number in range(samples):
            finals[f"sample {number}"] = str(Path(job.samples_folder) / f"{stem}_sample-{number + 1:02d}{suffix}")
    return finals


def outputs_of(job: Job, samples: int) -> dict[str, Any]:
    finals = _finals(job, samples)
    names = ("output", "error_map", "consistency_map", "uncertainty_map", "flags", "sidecar")
    drawn = [path for name, path in finals.items() if name.startswith("sample ")]
    return {**{name: finals.get(name) for name in names}, "samples": drawn}


def write_text(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"{path.name} cannot be written: {error.strerror}") from error
