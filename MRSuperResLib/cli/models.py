"""`mrsuperres models`: list the models, show their cards, verify their files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from .. import models
from ..documents import encode
from ..errors import ModelError, MRSuperResError
from ..inference.sampling import MOST_SAMPLES
from ..models.scores import gains
from .arguments import add_command, add_fields
from .output import table, tell
from .streams import printable


def add_models(commands: Any) -> None:
    parser = add_command(commands, "models", _models, "list the models, show one's card, or verify their files")
    actions = ("list", "show", "verify")
    parser.add_argument("action", nargs="?", choices=actions, default="list", help="list (default), show or verify")
    parser.add_argument("ids", nargs="*", metavar="ID", help="models to show or verify; all if none is named")
    parser.add_argument("--json", action="store_true", help="print cards as JSON")
    add_fields(parser, "model_folders")


def _models(options: argparse.Namespace) -> int:
    broken: list[str] = []

    def warn(code: str, message: str) -> None:
        broken.append(message)
        tell(code, message)

    if options.ids:
        entries = [models.find_model(name, options.model_folders, warn) for name in options.ids]
    else:
        entries = models.list_models(options.model_folders, warn)
    if options.action == "verify":
        return _verify(entries, broken, options.json)
    if options.json:
        print(json.dumps([_entry_json(entry) for entry in entries], indent=2, ensure_ascii=True))
    elif options.action == "show":
        print("\n\n".join(_card_text(entry) for entry in entries))
    else:
        print(table([("ID", "TASK", "PLANE", "FACTOR", "CONTRAST", "TITLE"), *(_row(entry) for entry in entries)]))
    return 0


def _verify(entries: Sequence[models.ModelEntry], broken: Sequence[str], as_json: bool) -> int:
    """Read every file to its end; 4 if any is not as published."""
    outcomes = []
    for entry in entries:
        try:
            models.verify(entry)
            outcomes.append({"id": entry.card.id, "digest": entry.digest, "ok": True, "message": "as published"})
        except MRSuperResError as error:
            outcomes.append({"id": entry.card.id, "digest": entry.digest, "ok": False, "message": error.message})
    if as_json:
        print(json.dumps(outcomes, indent=2))
    else:
        print(table([(str(o["id"]), "ok" if o["ok"] else "BAD", str(o["message"])) for o in outcomes]))
    return 0 if all(outcome["ok"] for outcome in outcomes) and not broken else ModelError.exit_code


def _entry_json(entry: models.ModelEntry) -> dict[str, Any]:
    return {"path": str(entry.path) if entry.path else None, "digest": entry.digest, "card": encode(entry.card)}


def _row(entry: models.ModelEntry) -> tuple[str, ...]:
    card = entry.card
    factor = "-" if card.task in ("prior", "flag", "error") else "any" if card.factor is None else f"x{card.factor:g}"
    return (card.id, card.task, card.plane, factor, ",".join(card.contrasts), card.title)


def _card_text(entry: models.ModelEntry) -> str:
    """A card in words, a line each."""
    card = entry.card
    lines = [f"{card.id} {card.version}: {card.title}", f"  task: {card.task}, {card.plane}"]
    lines.append(
        f"  factor: {'any' if card.factor is None else f'x{card.factor:g}'}; contrasts: {', '.join(card.contrasts)}"
        + (f" to {', '.join(card.target_contrasts)}" if card.target_contrasts else "")
    )
    if card.spacing:
        (low, high), (thin, thick) = card.spacing.in_plane, card.spacing.through_plane
        lines.append(
            f"  trained on voxels of {low:g} to {high:g} mm in plane, slices of {thin:g} to {thick:g} mm; {card.anatomy}"
        )
    if card.task == "prior":
        lines.append("  draws slices; the first stage of another model, which starts its training from it (--init)")
    elif card.task == "flag":
        lines.append("  finds lesions in scans that are translated, so that what the answer loses is flagged")
    elif card.task == "error":
        lines.append(f"  says how far translations by {card.judges} may be from the truth: its uncertainty map")
    elif not card.is_baseline:
        guided = card.task == "reference-guided"
        lines.append(f"  takes a scan {'and a reference, of one channel each' if guided else 'of one channel'}")
    if card.requirements.latent:
        scale = card.requirements.uncertainty_scale
        told = "not calibrated" if scale is None else f"calibrated by x {scale:.4g}"
        lines.append(f"  samples: 1 to {MOST_SAMPLES} answers; uncertainty map {told}")
    if card.training.steps:
        how = card.training
        lines.append(
            f"  trained {how.steps} steps in {how.minutes:g} minutes on {how.machine} ({how.recipe}, {how.date})"
        )
    if card.training.notes:
        lines.append(f"  notes: {card.training.notes}")
    for source in card.sources:
        lines.append(f"  data: {source.name} ({source.licence}), {source.use}")
    for gain in gains(card):
        inside = "" if gain.brain is None else f", in the brain {gain.brain:+.2f}"
        lines.append(
            f"  gain, {gain.degradation}: {gain.mean:+.2f} dB over {gain.baseline}{inside}; "
            f"worst of {gain.scans} scans {gain.worst}: {gain.least:+.2f}"
        )
    for score in card.metrics:
        beside = ", ".join(f"{name} {psnr:.2f} dB" for name, (psnr, _) in score.baseline.items())
        lines.append(f"  {score.scan}, {score.degradation}: PSNR {score.psnr:.2f} dB, SSIM {score.ssim:.4f} ({beside})")
    if card.paper:
        lines.append(
            f"  paper: {card.paper.authors}: {card.paper.title}, {card.paper.year}. {card.paper.published_gain}"
        )
    lines.append(f"  licence: {card.licence}. {card.intended_use}")
    return "\n".join(
        printable(line) for line in [*lines, f"  digest: {entry.digest}", f"  file: {entry.path or 'none, computed'}"]
    )
