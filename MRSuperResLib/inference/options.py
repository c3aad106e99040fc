"""What every kind of inference takes besides its volumes, and the callbacks by which it speaks and is stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled
from ..terms import Precision, Profile

if TYPE_CHECKING:
    import numpy as np

    from ..volume import Volume
    from .flags import Flags

Progress = Callable[
    [str, int, int, "float | None"], None
]  # (stage, voxels or steps done, of how many, seconds left if known)
Warn = Callable[[str, str], None]  # (stable code, one line for people)
Cancel = Callable[[], bool]  # true once the user wants to stop


@dataclass(frozen=True)
class Options:
    """How to run, not what to make.

    device: "auto", "cpu", "cuda", "cuda:n" or "mps". tile, batch: the most rows and columns, and slices, at once; None
    to let memory decide. threads: of the CPU, None for torch's choice. slice_axis: 0..2 (i, j, k), None for the axis of
    the coarsest spacing. contrast: of the input, None if not known. register: align a reference before using it.
    project: make the result reproduce the acquired voxels. profile, thickness (mm): the acquisition assumed for that,
    see `fidelity.acquisition_between`.
    """

    device: str = "auto"
    precision: Precision = "auto"
    tile: int | None = None
    batch: int | None = None
    threads: int | None = None
    slice_axis: int | None = None
    contrast: str | None = None
    register: bool = True
    project: bool = False
    profile: Profile = "gaussian"
    thickness: float | None = None
    model_folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Aligned:
    """A reference brought onto another grid: `volume` there, `valid` (k, j, i) true where the reference has data.

    report: what the alignment did, for the records: cost before and after, the rigid transform, the similarity found.
    """

    volume: Volume
    valid: np.ndarray
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Translation:
    """A translated volume: the answer, its voxel-wise uncertainty in the same units, and the samples behind both.

    flags: where the scan shows what the answer may have lost; None where no detector could look. report: for the records:
    contrasts, samples, what the intensities mean, and the flags.
    """

    mean: Volume
    uncertainty: Volume | None = None
    samples: tuple[Volume, ...] = ()
    flags: Flags | None = None
    report: Mapping[str, Any] = field(default_factory=dict)


def silent(stage: str, done: int, total: int, seconds_left: float | None) -> None:
    """A `Progress` that tells nobody."""


def log_warning(code: str, message: str) -> None:
    """A `Warn` that goes to Python's logging, under "MRSuperRes"."""
    logging.getLogger("MRSuperRes").warning("%s (%s)", message, code)


def never() -> bool:
    """A `Cancel` nobody pulls."""
    return False


def stop_if(cancel: Cancel) -> None:
    """Raise `Cancelled` once `cancel` says so."""
    if cancel():
        raise Cancelled("cancelled; nothing was written")
