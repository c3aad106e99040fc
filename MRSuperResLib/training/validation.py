"""Validation of super-resolution by the project's own engine and `evaluate`, on held-out scans, with a picture each time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import MissingRequirement, UnsuitableVolume, UsageError
from ..models import ModelEntry
from .card import checked_card
from .method import Report
from .pack import Pack
from .recipes import Recipe

MOST_SCANS = 8  # that are scored where a recipe's [validation] names none of those there are


class EngineValidator:
    """Scores a network on held-out scans with `evaluate`, and keeps a picture of each time.

    A few slices of each scan are enough to see a trend. The card's scores are found afterwards by `evaluate`, on as many middle
    slices of each scan as it was asked for, which the name of the scan in the card then says.
    """

    def __init__(self, plan: Recipe, held_out: Pack, out: Path, device: torch.device, report: Report) -> None:
        from .. import evaluation

        self.plan, self.out, self.device, self.report = plan, out, device, report
        self.entry = ModelEntry(checked_card(plan)[1], None, "in training")
        self.trials: list[Any] = []
        self.baseline: dict[str, float] = {}
        scans = [entry for entry in held_out.select("|".join(plan.validation.scans)) if not entry.labels]
        for entry in scans or [entry for entry in held_out.entries if not entry.labels][:MOST_SCANS]:
            try:
                trial = evaluation.degraded_pair(
                    held_out.volume(entry),
                    self.entry.card.plane,
                    self.entry.card.factor or 1.0,
                    plan.validation.degradation,
                    slices=plan.validation.slices,
                )
                rows, _ = evaluation.evaluate(trial, ["bspline"])
            except (UnsuitableVolume, UsageError) as error:
                report(f"{entry.name} is not scored: {error}")
                continue
            self.trials.append(trial)
            self.baseline[trial.truth.name] = rows[0].metrics["psnr"]

    def __call__(self, network: nn.Module, step: int) -> dict[str, float]:
        """psnr: mean over the scans, dB; empty without held-out scans."""
        from .. import evaluation
        from ..inference import super_resolve
        from ..inference.options import Options
        from ..resample import resample

        if not self.trials:
            return {}
        options = Options(device=str(self.device), threads=torch.get_num_threads())
        found: dict[str, float] = {}
        for trial in list(self.trials):
            try:
                answer = super_resolve(
                    trial.low, self.entry, spacing=trial.truth.grid.spacing, plane=trial.plane, network=network,
                    options=replace(options, slice_axis=trial.axis), warn=lambda code, message: None,
                )  # fmt: skip
            except UnsuitableVolume as error:
                self.report(f"{trial.truth.name} is not scored: {error}")
                self.trials.remove(trial)
                continue
            found[trial.truth.name] = evaluation.score(trial, answer, self.entry.card.id).metrics["psnr"]
        if not found:
            return {}
        last = self.trials[-1]
        picture = self.out / f"validation-{step:06d}.png"
        spline = resample(last.low, last.truth.grid, "bspline")
        try:
            evaluation.figure(picture, last, {"bspline": spline, self.entry.card.id: answer})
        except MissingRequirement as missing:
            self.report(f"no picture: {missing}")
        gain = [found[name] - self.baseline[name] for name in found]
        self.report(
            f"validation: {_mean(found.values()):.2f} dB, {_mean(gain):+.2f} over bspline (least {min(gain):+.2f}), {picture.name}"
        )
        return {"psnr": _mean(found.values())}


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
