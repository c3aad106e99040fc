"""What a training tells while it runs: a line and rows of `curves.csv` now and then."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .checkpoint import Progress

CURVES = "curves.csv"


class Means:
    """Means of losses over steps, kept on the device, so that a GPU is not waited for at every step."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Take in the losses of one step."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value.detach().float() if name in self.sums else value.detach().float()
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means, and start anew."""
        means = torch.stack(list(self.sums.values())).tolist() if self.sums else []
        found = {name: mean / self.counts[name] for name, mean in zip(self.sums, means, strict=True)}
        self.sums, self.counts = {}, {}
        return found


def add_to_curves(out: Path, progress: Progress, values: Mapping[str, float]) -> None:
    """Append a row to the curves for each value: step, minutes, name, value."""
    path = out / CURVES
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        if new:
            rows.writerow(("step", "minutes", "name", "value"))
        rows.writerows(
            (progress.step, f"{progress.minutes:.3f}", name, f"{value:.6g}") for name, value in values.items()
        )


def cut_curves(out: Path, step: int) -> None:
    """Remove the curves' rows beyond `step`, from which a training goes on and will write them again."""
    path = out / CURVES
    if path.exists():
        with open(path, newline="", encoding="utf-8") as stream:
            head, *rows = csv.reader(stream)
        with open(path, "w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([head, *(row for row in rows if int(row[0]) <= step)])


def psnr(answer: Tensor, truth: Tensor) -> float:
    """Of all their values together, dB, for a range of 1."""
    return float(-10 * torch.log10((answer - truth).square().mean()))
