"""`mrsuperres evaluate` and `evaluate-translation`: score models against the truth."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import models, provenance
from ..errors import MissingRequirement, ModelError, OutputError, UsageError
from ..inference.translation import check_task
from ..jobs.progress import LinesOfProgress
from ..terms import TRANSLATION_SCORES
from .arguments import add_command, add_fields, checked_folder, plane, whole
from .output import say, tell
from .streams import show


def add_evaluate(commands: Any) -> None:
    parser = add_command(
        commands, "evaluate", _evaluate, "degrade sharp volumes, super-resolve them, score against the truth"
    )
    parser.add_argument("truth", nargs="+", metavar="HR", help="sharp volumes; with --protocol, a data set's folder")
    parser.add_argument(
        "--protocol", metavar="NAME", help="a paper's table on its data set: oasis-x4, brats-x4, ixi-x2, ixi-x4, "
        "ixi-through-x4, ixi-through-x8, fastmri-x4, or a TOML file",
    )  # fmt: skip
    parser.add_argument(
        "-m", "--model", required=True, metavar="ID[,ID...]", help="models, scored beside the baselines"
    )
    parser.add_argument("--plane", type=plane, metavar="PLANE", help="in-plane or through-plane")
    parser.add_argument("--factor", type=float, metavar="F", help="how much coarser the input is made")
    parser.add_argument(
        "--degradation", "--profile", metavar="NAME[,NAME...]", default="",
        help="gaussian, box, sinc; kspace, kspace-apodised, kspace-partial; bicubic, bicubic-noise, second-order; several are "
        "scored apart (bicubic-noise in plane, gaussian through it)",
    )  # fmt: skip
    parser.add_argument("--thickness", type=float, metavar="MM", help="of the slices made; by default as far as apart")
    parser.add_argument(
        "--reference", nargs="+", metavar="REF", help="for reference-guided models, one for each volume"
    )
    parser.add_argument(
        "--slice-axis", type=int, metavar="A", help="0, 1 or 2 (i, j, k); by default the coarsest, or axial"
    )
    parser.add_argument("--slices", type=int, metavar="N", help="only that many in the middle of the head, to be quick")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the noise (0)")
    parser.add_argument(
        "--figure", default="evaluation.png", metavar="PNG",
        help="to draw (evaluation.png); of several scans or degradations one each, with their names in it; '' for none",
    )  # fmt: skip
    parser.add_argument(
        "--publish", metavar="DIR", help="write the models there with these scores printed in their cards"
    )
    add_fields(parser, "not_labels", "device", "threads", "model_folders")
    parser.add_argument("--json", action="store_true", help="print scores as JSON")


def _evaluate(options: argparse.Namespace) -> int:
    from .. import evaluation
    from ..acquisition import PRESETS
    from ..inference import Options
    from ..io.read import read_volume
    from ..models import BASELINES, find_model

    if options.protocol:
        return _evaluate_protocol(options)
    if options.plane is None or options.factor is None:
        raise UsageError("say --plane and --factor, or a paper's --protocol")
    if options.reference and len(options.reference) != len(options.truth):
        raise UsageError(
            f"{len(options.truth)} volumes and {len(options.reference)} references: give one for each, in order"
        )
    _check_scans(options.truth, "truth")
    _check_scans(options.reference or (), "scan")
    folder = checked_folder(options.publish) if options.publish else None
    ways = [f"through-{way}" if f"through-{way}" in PRESETS else way for way in options.degradation.split(",")]
    how = Options(device=options.device, threads=options.threads, model_folders=tuple(options.model_folders))
    asked = _names(options.model)
    names = evaluation.with_baselines([*asked])
    scans = evaluation.scan_names(options.truth)
    figures = _figures(options.figure, scans, ways)
    entries = [find_model(name, options.model_folders) for name in asked if folder and name not in BASELINES]
    _check_published(folder, [entry.card.id for entry in entries])
    read = partial(read_volume, warn=tell, allow_labels=options.not_labels)
    rows: list[evaluation.Row] = []
    try:
        for number, scan in enumerate(scans):
            truth = replace(read(options.truth[number]), name=scan)
            reference = read(options.reference[number]) if options.reference else None
            for way in ways:
                pair = evaluation.degraded_pair(
                    truth,
                    options.plane,
                    options.factor,
                    way or None,
                    seed=options.seed,
                    slices=options.slices,
                    slice_axis=options.slice_axis,
                    thickness=options.thickness,
                )
                found, answers = evaluation.evaluate(
                    pair, names, reference=reference, options=how, report=say, progress=LinesOfProgress(say)
                )
                rows += found
                if figures:
                    shown = {name: answer for name, answer in answers.items() if name not in ("linear", "lanczos")}
                    evaluation.figure(figures[scan, way], pair, shown)
                    say(f"drawn: {figures[scan, way]}")
    finally:  # what was scored is told even if the next scan, or a picture, fails
        if rows:
            show(evaluation.to_json(rows) if options.json else evaluation.table(rows))
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        for entry in entries:
            evaluation.publish(rows, entry, folder / f"{entry.card.id}.safetensors")
    return 0


def _evaluate_protocol(options: argparse.Namespace) -> int:
    """A paper's table."""
    from ..evaluation import protocol as papers
    from ..inference import Options

    chosen = papers.load_protocol(options.protocol)
    if len(options.truth) > 1:
        raise UsageError(f"--protocol takes one folder, {len(options.truth)} paths are given")
    how = Options(device=options.device, threads=options.threads, model_folders=tuple(options.model_folders))
    asked = _names(options.model)
    scores = papers.run_protocol(chosen, options.truth[0], asked, options=how, report=say)
    print(papers.protocol_json(chosen, scores) if options.json else papers.protocol_table(chosen, scores))
    return 0


def _check_published(folder: Path | None, ids: Sequence[str]) -> None:
    """Raise `OutputError` before any work if a file in `folder` is in the way that is not the model of that id."""
    for name in ids:
        path = folder / f"{name}.safetensors" if folder else None
        if path is None or not os.path.lexists(path):
            continue
        try:
            found = models.read_entry(path).card.id
        except ModelError as error:
            raise OutputError(
                f"{path} is there already and is no sound model: {error.message}", code="not-ours"
            ) from error
        if found != name:
            raise OutputError(f"{path} is there already and holds '{found}': choose another folder", code="not-ours")


def _check_scans(paths: Sequence[str], what: str) -> None:
    """Raise `UsageError` for one that a model has made, and is no `what`."""
    for path in paths:
        maker = provenance.made_by(path)
        if maker:
            raise UsageError(
                f"{path} is no {what}: its record says that {maker} made it; give the real scan", code="truth-made"
            )


def _names(text: str) -> list[str]:
    """Names with commas between them; raises `UsageError` for none."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise UsageError(f"'{text}' names no model: give one or several, with commas between them")
    return found


def _figures(path: str, scans: Sequence[str], ways: Sequence[str]) -> dict[tuple[str, str], Path]:
    """By scan and degradation the figures to draw, found fit before any work; none if none are wanted or, which is told, can be."""
    from .. import evaluation

    if not path:
        return {}
    figures = {}
    for scan in scans:
        for way in ways:
            tags = [scan] * (len(scans) > 1) + [way] * (len(ways) > 1)
            figures[scan, way] = Path(path).with_stem("-".join([Path(path).stem, *tags])) if tags else Path(path)
    try:
        for figure in figures.values():
            evaluation.check_figure(figure)
    except MissingRequirement as missing:
        tell(missing.code, f"no figure: {missing.message}")
        return {}
    return figures


def add_scores(commands: Any) -> None:
    parser = add_command(
        commands,
        "evaluate-translation",
        _evaluate_translation,
        "translate scans and score against the real other contrast",
        f"the table:\n{TRANSLATION_SCORES}",
    )
    parser.add_argument(
        "volumes", nargs="+", metavar="SOURCE TRUTH", help="a scan and the same head in the target contrast; more pairs"
    )
    parser.add_argument("-m", "--model", required=True, metavar="ID[,ID...]", help="translation models")
    parser.add_argument(
        "--from", "--contrast", dest="contrast", metavar="CONTRAST", help="of the scans; by default what names say"
    )
    parser.add_argument("--to", dest="target", metavar="CONTRAST", help="of the truths; by default what names say")
    parser.add_argument("--regressor", metavar="ID", help="a model of one answer, to compare with")
    add_fields(parser, "samples", help="of each scan, whose mean is scored")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the samples (0)")
    parser.add_argument("--slices", type=int, metavar="N", help="only that many in the middle of the head, to be quick")
    parser.add_argument(
        "--slice-axis", type=int, metavar="A", help="0, 1 or 2 (i, j, k); by default the acquired, or axial"
    )
    parser.add_argument(
        "--lpips", metavar="FILE", help="LPIPS' weights (safetensors): measure realism and diversity by it too"
    )
    parser.add_argument("--lpips-digest", default="", metavar="SHA256", help="of that file")
    parser.add_argument(
        "--lesions", type=whole, nargs="?", const=1, default=0, metavar="N",
        help="put lesions of five kinds and four sizes into the scans, N times (1), and tell how many are shown, flagged or lost",
    )  # fmt: skip
    parser.add_argument(
        "--publish", metavar="DIR", help="write the models there with these scores and the calibration in their cards"
    )
    add_fields(parser, "not_labels", "device", "threads", "model_folders")
    parser.add_argument("--json", action="store_true", help="print scores as JSON")


def _evaluate_translation(options: argparse.Namespace) -> int:
    from ..evaluation import tables, translation
    from ..evaluation.lesions import LesionScore, evaluate_lesions, lesion_table
    from ..inference import Options
    from ..io.read import read_volume

    if len(options.volumes) % 2:
        raise UsageError(f"{len(options.volumes)} volumes are given: give pairs, a scan and its truth, in order")
    _check_scans(options.volumes[1::2], "truth")
    _check_scans(options.volumes[::2], "scan")
    entries = [_translator(name, options.model_folders) for name in _names(options.model)]
    regressor = _translator(options.regressor, options.model_folders) if options.regressor else None
    folder = checked_folder(options.publish) if options.publish else None
    _check_published(folder, [entry.card.id for entry in entries])
    how = Options(
        device=options.device,
        threads=options.threads,
        slice_axis=options.slice_axis,
        model_folders=tuple(options.model_folders),
    )
    segment = translation.tissue_segmentation(options.device, report=say)
    put_in: list[LesionScore] = []
    distances = translation.feature_distances(options.lpips, options.lpips_digest, options.device, report=say)
    read = partial(read_volume, warn=tell, allow_labels=options.not_labels)
    found: list[translation.Evaluation] = []
    try:
        for source_path, truth_path in zip(options.volumes[::2], options.volumes[1::2], strict=True):
            source, truth = read(source_path), read(truth_path)
            for entry in entries:
                found.append(
                    translation.evaluate(
                        source,
                        truth,
                        entry,
                        contrast=options.contrast,
                        target=options.target,
                        regressor=regressor,
                        samples=options.samples,
                        slices=options.slices,
                        seed=options.seed,
                        distances=distances,
                        segment=segment,
                        options=how,
                        report=say,
                    )
                )
                if options.lesions:
                    given = {"contrast": options.contrast, "target": options.target}
                    seeds = range(1, options.lesions + 1)
                    put_in.append(evaluate_lesions(source, truth, entry, **given, seeds=seeds, options=how, report=say))
    finally:  # what was scored is told even if the next scan or model fails
        if found:
            show(tables.translation_json(found, put_in) if options.json else tables.translation_table(found))
        if put_in and not options.json:
            show(f"\n{lesion_table(put_in)}")
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        for entry in entries:
            translation.publish(found, entry, folder / f"{entry.card.id}.safetensors")
    return 0


def _translator(name: str, folders: Sequence[str]) -> models.ModelEntry:
    """The model `name`, which must translate."""
    entry = models.find_model(name, folders)
    check_task(entry.card)
    return entry
