"""Scores as text and as JSON, of super-resolution and of translation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from ..models import BASELINES
from ..models.scores import compared_with
from ..terms import TRANSLATION_SCORES
from .calibration import Voxels
from .lesions import LesionScore
from .super_resolution import Row
from .translation import COPY, MATCHED, MEAN, REGRESSOR, Evaluation, calibrations, pooled_calibration
from .translation import Row as TranslationRow

WORST = "Gains are means over the scans; the worst scan is the one with the least gain in the box."
COLUMNS = {  # of the table, and how many characters wide; the first four are text
    "scan": 24,
    "model": 16,
    "direction": 14,
    "answer": 14,
    "PSNR dB": 8,
    "SSIM": 7,
    "NMSE": 8,
    "PSNR/slice": 10,
    "fit dB": 7,
    "fit SSIM": 8,
    "coherence": 9,
    "smoothed": 8,
}
_NOTHING = Voxels(np.zeros(0), np.zeros(0), np.zeros(0, bool))


def table(rows: Sequence[Row]) -> str:
    """Scores as text: a line for each scan and model, then by degradation each model's mean and gain over the baselines."""
    if not rows:
        return "nothing was scored"
    width = max(len(row.model) for row in rows)
    scan_width = max(len("mean over 00 scans"), *(len(row.scan) for row in rows))
    cases = dict.fromkeys((row.plane, row.factor, row.degradation) for row in rows)
    lines = [
        f"{'scan':{scan_width}}  {'model':{width}}  {'PSNR dB':>15}  {'SSIM':>15}  {'NMSE':>8}  {'brain dB':>8}"
        f"  {'PSNR/slice':>10}  {'s':>6}"
    ]
    for case in cases:
        own = [row for row in rows if (row.plane, row.factor, row.degradation) == case]
        if len(cases) > 1:
            lines += ["", f"{case[0]}, {case[2]}, x{case[1]:g}"]
        lines += [_row(row, scan_width, width) for row in own]
        lines.append("")
        lines += _means(own, scan_width, width)
    lines += ["", f"PSNR, SSIM, NMSE: in the head's box. brain: 4 mm and more inside the brain. {WORST}"]
    return "\n".join(lines)


def gains(rows: Sequence[Row], model: str, baseline: str, metric: str = "psnr") -> dict[str, float]:
    """PSNR of `model` above that of `baseline` by scan, dB; of one degradation. metric: "psnr" or "psnr_brain"."""
    base = {row.scan: row.metrics for row in rows if row.model == baseline}
    return {
        row.scan: row.metrics[metric] - base[row.scan][metric]
        for row in rows
        if row.model == model and row.scan in base and metric in row.metrics and metric in base[row.scan]
    }


def _row(row: Row, scan_width: int, width: int) -> str:
    m = row.metrics
    return (
        f"{row.scan:{scan_width}}  {row.model:{width}}  {m['psnr']:15.2f}  {m['ssim']:15.4f}  {m['nmse']:8.5f}"
        f"  {_number(m.get('psnr_brain'))}  {m['psnr_slices']:10.2f}  {row.seconds:6.1f}"
    )


def _number(value: float | None) -> str:
    return f"{'-':>8}" if value is None else f"{value:8.2f}"


def _means(rows: Sequence[Row], scan_width: int, width: int) -> list[str]:
    """Each model's mean, standard deviation and gains over the scans of one degradation."""
    scans = len({row.scan for row in rows})
    lines = []
    for model in dict.fromkeys(row.model for row in rows):
        own = [row.metrics for row in rows if row.model == model]
        mean, deviation = (
            {name: float(f([m[name] for m in own if name in m])) for name in own[0]} for f in (np.mean, np.std)
        )
        lines.append(
            f"{f'mean over {scans} scans':{scan_width}}  {model:{width}}  {mean['psnr']:7.2f} +- {deviation['psnr']:4.2f}"
            f"  {mean['ssim']:7.4f}+-{deviation['ssim']:.4f}  {mean['nmse']:8.5f}  {_number(mean.get('psnr_brain'))}"
            f"  {mean['psnr_slices']:10.2f}{_gains(rows, model)}"
        )
    return lines


def to_json(rows: Sequence[Row]) -> str:
    """The rows as a JSON list."""
    return json.dumps([asdict(row) for row in rows], indent=1)


def translation_table(evaluations: Sequence[Evaluation]) -> str:
    """The scores as text: each answer on each scan, means by direction, margins, calibration, realism and diversity."""
    if not evaluations:
        return "nothing was scored"
    lines = [_line(tuple(COLUMNS))]
    for found in evaluations:
        lines += [_line(_cells(found.scan, found, row.answer, [row])) for row in found.rows]
    for group in _groups(evaluations):
        first = group[0]
        lines.append("")
        for answer in [row.answer for row in first.rows]:
            rows = [row for row in (found.row(answer) for found in group) if row is not None]
            lines.append(_line(_cells(f"mean over {len(group)} scans", first, answer, rows)))
        lines += _conclusions(group)
    return "\n".join([*lines, "", TRANSLATION_SCORES])


def translation_json(evaluations: Sequence[Evaluation], lesions: Sequence[LesionScore] = ()) -> str:
    """The evaluations, voxel arrays left out, the calibration of each model over all of them, and what became of `lesions`."""
    cases = [
        {
            name: value
            for name, value in asdict(replace(found, voxels=_NOTHING, spread=None)).items()
            if name not in ("voxels", "spread")
        }
        for found in evaluations
    ]
    pooled = {model: asdict(made) for model, made in calibrations(evaluations).items()}
    put_in = [
        {
            **asdict(score),
            "cases": [
                {**asdict(case), "possible": case.possible, "shown": bool(case.shown), "flagged": case.flagged}
                for case in score.cases
            ],
        }
        for score in lesions
    ]
    return json.dumps(
        {"evaluations": cases, "calibration": pooled, **({"lesions": put_in} if put_in else {})}, indent=1
    )


def _gains(rows: Sequence[Row], model: str) -> str:
    """Mean gains in the head's box and in the brain, and the scan that gains least."""
    if model in BASELINES:
        return ""
    parts = []
    for baseline in compared_with(rows[0].degradation):
        found, inside = gains(rows, model, baseline), gains(rows, model, baseline, "psnr_brain")
        if found:
            worst = min(found, key=lambda scan: found[scan])
            brain = f", brain {np.mean(list(inside.values())):+.2f}" if inside else ""
            parts.append(
                f"{np.mean(list(found.values())):+.2f} dB over {baseline}{brain} (worst scan {worst}: {found[worst]:+.2f})"
            )
    return "   " + "; ".join(parts) if parts else ""


def _groups(evaluations: Sequence[Evaluation]) -> list[list[Evaluation]]:
    """By model and direction."""
    groups: dict[tuple[str, str, str], list[Evaluation]] = {}
    for found in evaluations:
        groups.setdefault((found.model, found.source, found.target), []).append(found)
    return list(groups.values())


def _line(cells: Sequence[str]) -> str:
    widths = enumerate(zip(cells, COLUMNS.values(), strict=True))
    return "  ".join(f"{cell:{'<' if n < 4 else '>'}{width}}" for n, (cell, width) in widths).rstrip()


def _cells(scan: str, found: Evaluation, answer: str, rows: Sequence[TranslationRow]) -> tuple[str, ...]:
    def mean(name: str) -> float:
        return float(np.mean([row.metrics[name] for row in rows]))

    return (
        scan,
        found.model,
        f"{found.source} to {found.target}",
        f"mean of {found.samples}" if answer == MEAN and found.samples > 1 else answer,
        f"{mean('psnr'):.2f}",
        f"{mean('ssim'):.4f}",
        f"{mean('nmse'):.5f}",
        f"{mean('psnr_slices'):.2f}",
        f"{mean('psnr_fit'):.2f}",
        f"{mean('ssim_fit'):.4f}",
        f"{float(np.mean([row.coherence for row in rows])):.3f}",
        f"{float(np.mean([row.coherence_smooth for row in rows])):.3f}",
    )


def _conclusions(group: Sequence[Evaluation]) -> list[str]:
    """What the scores of one model and direction say."""
    lines = []
    for baseline in (COPY, MATCHED, REGRESSOR):
        pairs = [(found.rows[0].metrics, row.metrics) for found in group if (row := found.row(baseline))]
        if pairs:
            plain, fit = ([ours[name] - theirs[name] for ours, theirs in pairs] for name in ("psnr", "psnr_fit"))
            lines.append(
                f"  {np.mean(plain):+.2f} dB over the {baseline} (least {min(plain):+.2f}); in the head after a linear fit "
                f"{np.mean(fit):+.2f} (least {min(fit):+.2f})"
            )
    if group[0].calibration is not None:
        lines += _uncertainty_lines(group)
    if group[0].dice:
        means = {name: np.mean([found.dice[name] for found in group]) for name in group[0].dice}
        lines.append("  Dice of tissues: " + ", ".join(f"{name} {value:.3f}" for name, value in means.items()))
    for name in group[0].realism:
        realism = np.mean([found.realism[name] for found in group])
        line = f"  {name}: realism {realism:.4f}"
        if name in group[0].diversity:
            line += f", diversity {np.mean([found.diversity[name] for found in group]):.4f}"
        lines.append(line)
    return lines


def _uncertainty_lines(group: Sequence[Evaluation]) -> list[str]:
    """How the map of one model and direction relates to the error, and beside an error network's map the samples' spread."""
    pooled = pooled_calibration(group)
    name = f"uncertainty by {group[0].mapped_by}" if group[0].mapped_by else "uncertainty"
    lines = [
        f"  {name}: Spearman {pooled.spearman:.3f} in the head, {pooled.spearman_box:.3f} in its box, "
        f"scale {pooled.scale:.3f}, gap {100 * pooled.gap:.0f} %"
    ]
    points = "  ".join(f"{said:.3f}/{was:.3f}" for said, was in pooled.curve)
    lines.append(f"  calibrated deviation/error: {points}")
    lines += [
        f"  {found.scan}: 90 % intervals hold {100 * own.coverage:.0f} % of the head, mean width {own.sharpness:.3f}, "
        f"Spearman {own.spearman:.3f}"
        for found in group
        if (own := found.calibration) is not None
    ]
    if group[0].mapped_by:
        plain = pooled_calibration(group, samples=True)
        lines.append(
            f"  the samples' spread instead: Spearman {plain.spearman:.3f} in the head, 90 % intervals hold "
            f"{100 * plain.coverage:.0f} %, mean width {plain.sharpness:.3f}"
        )
    return lines
