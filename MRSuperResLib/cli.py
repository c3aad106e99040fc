"""`mrsuperres`: the shell's door to the library. Every command is a thin reader of arguments."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NoReturn

from . import __version__, jobs, models
from .documents import encode
from .errors import Cancelled, MissingRequirement, MRSuperResError, OutputError, UsageError
from .inference.translation import MOST_SAMPLES, check_task
from .jobs import Cancellation, Job
from .staging import check_folder

BAR = 24  # characters of the progress bar
REDRAW_SECONDS = 0.1
PLANES = {"in-plane": "in-plane", "inplane": "in-plane", "through-plane": "through-plane", "through": "through-plane"}
HINTS = {"no-contrast": " (--contrast)", "no-target": " (--to)"}  # the option that mends an error of that code
EXIT_CODES = """\
exit codes: 0 done, 1 a bug, 2 wrong use of the command line, 3 unsuitable input volume, 4 unsuitable model,
5 output cannot be written, 6 device or memory, 7 missing requirement, 130 cancelled.
Research use only."""


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where help is, and leave with 2."""
        self.exit(UsageError.exit_code, f"error: {' '.join(message.split())} (see '{self.prog} --help')\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors are one line on standard error, tracebacks only for bugs."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except MRSuperResError as error:
        return _complain(" ".join(error.message.split()) + HINTS.get(error.code, ""), error.exit_code)
    except KeyboardInterrupt:
        return _complain("cancelled", Cancelled.exit_code)
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(__package__ or ""):
            raise
        package = (error.name or "?").split(".")[0]
        text = f"the package '{package}' is not installed and this command needs it: pip install {package}"
        return _complain(text, MissingRequirement.exit_code)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return _complain(f"{type(error).__name__}: {' '.join(str(error).split())[:200]} (a bug: please report it)", 1)


def _parser() -> Parser:
    parser = Parser(
        prog="mrsuperres",
        description="Super-resolution and contrast translation of MR volumes. Research use only.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mrsuperres {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _add_demo,
        _add_run,
        _add_translate,
        _add_models,
        _add_evaluate,
        _add_scores,
        _add_train,
        _add_data,
        _add_worker,
    ):
        add(commands)
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


# run and translate


def _add_run(commands: Any) -> None:
    parser = _command(commands, "run", _run, "super-resolve a volume")
    _add_job_arguments(parser)
    _add_resolution_arguments(parser)
    parser.add_argument(
        "--reference", metavar="REF", help="a sharp volume of the same anatomy, for a reference-guided model"
    )
    parser.add_argument(
        "--reference-contrast", metavar="NAME", help="of the reference; by default what its file name tells"
    )
    parser.add_argument("--no-register", action="store_true", help="trust the headers: do not align the reference")
    parser.add_argument(
        "--consistency-map", metavar="PATH", help="write where the result contradicts what was acquired"
    )
    parser.add_argument("--project", action="store_true", help="make the result reproduce the acquired voxels")
    profiles = ("gaussian", "box", "sinc", "kspace", "bicubic")
    parser.add_argument(
        "--profile", choices=profiles, default="gaussian", help="slice profile for those two (gaussian)"
    )


def _add_translate(commands: Any) -> None:
    parser = _command(commands, "translate", _translate, "translate a volume to another contrast")
    _add_job_arguments(parser)
    _add_resolution_arguments(parser)
    parser.add_argument(
        "--to", metavar="CONTRAST", dest="target", help="contrast to make: T1w, T2w or FLAIR; by default the only other"
    )
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="how many plausible answers to draw (8; 1 to 100); the result is their mean",
    )
    parser.add_argument("--samples-folder", metavar="DIR", help="write each of the samples there")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the samples (0): same seed, same result")
    parser.add_argument("--uncertainty-map", metavar="PATH", help="write the samples' standard deviation, calibrated")
    parser.add_argument("--super-resolve", metavar="MODEL", help="super-resolve with this model first")


def _add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` and `translate` share."""
    parser.add_argument("input", metavar="INPUT", help="NIfTI, NRRD, MHA or MGZ file, or the folder of a DICOM series")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUTPUT", help=f"file to write ({', '.join(jobs.FORMATS)})"
    )
    parser.add_argument(
        "-m", "--model", required=True, metavar="ID", help="id (see 'mrsuperres models') or a .safetensors file"
    )
    parser.add_argument(
        "--contrast", metavar="NAME", help="of the input: T1w, T2w, FLAIR or PDw; checked against the model"
    )
    parser.add_argument("--truth", metavar="HR", help="a ground truth: the result is scored against it")
    parser.add_argument("--error-map", metavar="PATH", help="write |result - truth|")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto (CUDA if there is one), cpu, cuda, cuda:n or mps")
    machine.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="of the network")
    machine.add_argument("--tile", type=int, metavar="N", help="at most N x N pixels of a slice at once")
    machine.add_argument("--batch", type=int, metavar="N", help="slices at once")
    machine.add_argument("--threads", type=int, metavar="N", help="of the CPU")
    _add_model_folder(parser)
    parser.add_argument("--json", action="store_true", help="print events as JSON lines instead of a progress bar")


def _add_resolution_arguments(parser: argparse.ArgumentParser) -> None:
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--factor", type=float, metavar="F", help="how much finer; by default the model's own factor")
    size.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="mm wanted along i, j, k; the nearest that fits the extent is made",
    )
    parser.add_argument(
        "--plane", type=_plane, metavar="PLANE", help="in-plane or through-plane; by default the model's"
    )
    parser.add_argument(
        "--slice-axis",
        type=int,
        metavar="A",
        help="0, 1 or 2 (i, j, k); by default across square pixels, or the coarsest",
    )


def _add_model_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models", action="append", default=[], metavar="DIR", help="look for models there too (repeatable)"
    )


def _run(options: argparse.Namespace) -> int:
    return _execute(
        options,
        task="reference-guided" if options.reference else "super-resolve",
        reference=options.reference,
        reference_contrast=options.reference_contrast,
        register=not options.no_register,
        consistency_map=options.consistency_map,
        project=options.project,
        profile=options.profile,
    )


def _translate(options: argparse.Namespace) -> int:
    return _execute(
        options,
        task="translate",
        target=options.target,
        samples=options.samples,
        samples_folder=options.samples_folder,
        seed=options.seed,
        uncertainty_map=options.uncertainty_map,
        super_resolve_with=options.super_resolve,
    )


def _execute(options: argparse.Namespace, **fields: Any) -> int:
    """Run the job in this process, showing its events."""
    names = ["input", "output", "model", "contrast", "truth", "error_map", "factor", "plane", "slice_axis"]
    names += ["device", "precision", "tile", "batch", "threads"]
    spacing = None if options.spacing is None else tuple(options.spacing)
    job = Job(
        **{name: getattr(options, name) for name in names},
        spacing=spacing,
        model_folders=tuple(options.models),
        **fields,
    )
    cancellation = Cancellation()
    with _events(options.json) as emit, cancellation.on_signals():
        return jobs.execute(job, emit, cancellation)


@contextlib.contextmanager
def _events(as_json: bool) -> Iterator[jobs.Emit]:
    """Where a job's events go: JSON lines on standard output, or words for people."""
    if as_json:
        with _clean_stdout() as stream:
            yield lambda event: print(json.dumps(event), file=stream, flush=True)
        return
    show = Show(sys.stderr, sys.stdout)
    try:
        yield show
    finally:
        show.clear()


class Show:
    """A job's events for people: a progress bar and warnings on standard error, the outcome on standard output."""

    def __init__(self, errors: IO[str], output: IO[str]) -> None:
        self.errors, self.output = errors, output
        self.live = errors.isatty()
        self.drawn = 0.0
        self.width = 0

    def __call__(self, event: dict[str, Any]) -> None:
        {
            "started": self._started,
            "progress": self._progress,
            "warning": lambda e: self._line(f"warning: {e['message']}"),
            "error": lambda e: self._line(f"error: {e['message']}{HINTS.get(e['code'], '')}"),
            "result": self._result,
        }[event["event"]](event)

    def clear(self) -> None:
        """Wipe the bar."""
        if self.width:
            self.errors.write("\r" + " " * self.width + "\r")
            self.errors.flush()
            self.width = 0

    def _line(self, text: str) -> None:
        self.clear()
        print(text, file=self.errors, flush=True)

    def _started(self, event: dict[str, Any]) -> None:
        if self.live:
            size = " x ".join(map(str, event["output_size"]))
            spacing = " x ".join(f"{mm:.3g}" for mm in event["output_spacing"])
            self._line(f"{event['model']} on {event['device']} ({event['precision']}): {size} voxels of {spacing} mm")

    def _progress(self, event: dict[str, Any]) -> None:
        now, done, total = time.monotonic(), event["done"], max(event["total"], 1)
        if not self.live or (now - self.drawn < REDRAW_SECONDS and done < total):
            return
        self.drawn = now
        bar = "#" * (BAR * done // total)
        left = "" if not event["seconds_left"] else f"  {_duration(event['seconds_left'])} left"
        text = f"{event['stage']:<16} [{bar:<{BAR}}] {done}/{total}{left}"
        self.errors.write("\r" + text.ljust(self.width))
        self.errors.flush()
        self.width = len(text)

    def _result(self, event: dict[str, Any]) -> None:
        self.clear()
        outputs = event["outputs"]
        paths = [
            outputs[name] for name in ("output", "error_map", "consistency_map", "uncertainty_map") if outputs.get(name)
        ]
        for path in [*paths, *outputs["samples"], outputs["sidecar"]]:
            print(path, file=self.output)
        for name, value in event["metrics"].items():
            print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}", file=self.output)
        registration = event.get("provenance", {}).get("registration")
        if registration:
            print(_reference_text(registration), file=self.output)
        print(f"done in {_duration(event['seconds'])}; research use only", file=self.output, flush=True)


# models


def _add_models(commands: Any) -> None:
    parser = _command(commands, "models", _models, "list the models, show one's card, or verify their files")
    actions = ("list", "show", "verify")
    parser.add_argument("action", nargs="?", choices=actions, default="list", help="list (default), show or verify")
    parser.add_argument("ids", nargs="*", metavar="ID", help="models to show or verify; all if none is named")
    parser.add_argument("--json", action="store_true", help="print cards as JSON")
    _add_model_folder(parser)


def _models(options: argparse.Namespace) -> int:
    broken: list[str] = []

    def warn(code: str, message: str) -> None:
        broken.append(message)
        print(f"warning: {message}", file=sys.stderr)

    if options.ids:
        entries = [models.find_model(name, options.models, warn) for name in options.ids]
    else:
        entries = models.list_models(options.models, warn)
    if options.action == "verify":
        return _verify(entries, broken, options.json)
    if options.json:
        print(json.dumps([_entry_json(entry) for entry in entries], indent=2, ensure_ascii=False))
    elif options.action == "show":
        print("\n\n".join(_card_text(entry) for entry in entries))
    else:
        print(_table([("ID", "TASK", "PLANE", "FACTOR", "CONTRAST", "TITLE"), *(_row(entry) for entry in entries)]))
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
        print(_table([(str(o["id"]), "ok" if o["ok"] else "BAD", str(o["message"])) for o in outcomes]))
    return 0 if all(outcome["ok"] for outcome in outcomes) and not broken else models.ModelError.exit_code


def _entry_json(entry: models.ModelEntry) -> dict[str, Any]:
    return {"path": str(entry.path) if entry.path else None, "digest": entry.digest, "card": encode(entry.card)}


def _row(entry: models.ModelEntry) -> tuple[str, ...]:
    card = entry.card
    factor = "any" if card.factor is None else f"x{card.factor:g}"
    return (card.id, card.task, card.plane, factor, ",".join(card.contrasts), card.title)


def _reference_text(found: Mapping[str, Any]) -> str:
    """How a reference was brought to its scan, from the record of it."""
    if not found["searched"]:
        how = "its header is trusted"
    elif found["moved"]:
        how = f"registered, moved by {found['shift_mm']:.1f} mm and {found['rotation_degrees']:.1f} degrees"
    else:
        how = "registered, its header was right"
    alike = "similarity unknown" if found["similarity"] is None else f"similarity {found['similarity']:.3f}"
    return f"reference: {how}; {alike}{'' if found['used'] else '; not used'}"


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
    if not card.is_baseline:
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
    for score in card.metrics:
        beside = ", ".join(f"{name} {psnr:.2f} dB" for name, (psnr, _) in score.baseline.items())
        lines.append(f"  {score.scan}, {score.degradation}: PSNR {score.psnr:.2f} dB, SSIM {score.ssim:.4f} ({beside})")
    if card.paper:
        lines.append(
            f"  paper: {card.paper.authors}: {card.paper.title}, {card.paper.year}. {card.paper.published_gain}"
        )
    lines.append(f"  licence: {card.licence}. {card.intended_use}")
    return "\n".join([*lines, f"  digest: {entry.digest}", f"  file: {entry.path or 'none, computed'}"])


# evaluate, train, data, demo, worker


def _add_evaluate(commands: Any) -> None:
    parser = _command(
        commands, "evaluate", _evaluate, "degrade sharp volumes, super-resolve them, score against the truth"
    )
    parser.add_argument("truth", nargs="+", metavar="HR", help="sharp volumes")
    parser.add_argument(
        "-m", "--model", required=True, metavar="ID[,ID...]", help="models, scored beside the baselines"
    )
    parser.add_argument("--plane", required=True, type=_plane, metavar="PLANE", help="in-plane or through-plane")
    parser.add_argument("--factor", required=True, type=float, metavar="F", help="how much coarser the input is made")
    parser.add_argument(
        "--profile", metavar="NAME", help="gaussian, box, sinc, kspace, bicubic, bicubic-noise or second-order"
    )
    parser.add_argument(
        "--reference", nargs="+", metavar="REF", help="for reference-guided models, one for each volume"
    )
    parser.add_argument(
        "--slice-axis", type=int, metavar="A", help="0, 1 or 2 (i, j, k); by default the coarsest, or axial"
    )
    parser.add_argument("--slices", type=int, metavar="N", help="only that many in the middle of the head, to be quick")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the noise (0)")
    parser.add_argument(
        "--figure", default="evaluation.png", metavar="PNG", help="to draw (evaluation.png); '' for none"
    )
    parser.add_argument(
        "--publish", metavar="DIR", help="write the models there with these scores printed in their cards"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:n or mps")
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU")
    parser.add_argument("--json", action="store_true", help="print scores as JSON")
    _add_model_folder(parser)


def _add_scores(commands: Any) -> None:
    parser = _command(
        commands,
        "evaluate-translation",
        _evaluate_translation,
        "translate scans and score against the real other contrast",
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
    parser.add_argument("--samples", type=int, metavar="N", help="whose mean is scored")
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
        "--publish", metavar="DIR", help="write the models there with these scores and the calibration in their cards"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:n or mps")
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU")
    parser.add_argument("--json", action="store_true", help="print scores as JSON")
    _add_model_folder(parser)


def _add_train(commands: Any) -> None:
    parser = _command(commands, "train", _train, "train a model by a recipe")
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's name, or a TOML file")
    parser.add_argument("--data", required=True, metavar="DIR", help="with train/ and val/, or packs of them")
    parser.add_argument("--out", required=True, metavar="DIR", help="for checkpoints, curves, pictures and the model")
    parser.add_argument("--minutes", required=True, type=float, metavar="N", help="of wall time")
    parser.add_argument("--resume", action="store_true", help="go on from DIR's last checkpoint")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (all of them) or cuda:n")
    parser.add_argument("--init", metavar="ID", help="start from the weights of this model where they fit")


def _add_data(commands: Any) -> None:
    data = commands.add_parser("data", help="prepare data for training", description="Prepare data for training.")
    parser = _command(
        data.add_subparsers(metavar="COMMAND", required=True), "pack", _pack, "pack a folder of volumes into one file"
    )
    parser.add_argument("folder", metavar="FOLDER", help="of volumes, searched recursively")
    parser.add_argument("out", metavar="OUT", help="the pack to write")


def _add_demo(commands: Any) -> None:
    parser = _command(
        commands, "demo", _demo, "super-resolve a real volume that comes with a package, and show the gain"
    )
    parser.add_argument("--output", default="demo-output", metavar="DIR", help="where to write (demo-output)")
    parser.add_argument("--input", metavar="VOLUME", help="an isotropic volume of your own instead")
    parser.add_argument("-m", "--model", metavar="ID", help="by default the best through-plane model")
    parser.add_argument("--whole", action="store_true", help="use the whole head, not a block of it")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:n or mps")
    parser.add_argument("--threads", type=int, metavar="N", help="of the CPU")
    _add_model_folder(parser)


def _add_worker(commands: Any) -> None:
    parser = _command(commands, "worker", _worker, "run a job given as JSON, printing events as JSON lines")
    parser.add_argument("job", metavar="JOB.json", help="the job, or - to read it from standard input")
    parser.add_argument("--cancel-file", metavar="PATH", help="stop once this file exists (JOB.json.cancel)")


def _evaluate(options: argparse.Namespace) -> int:
    from . import evaluation
    from .acquisition import PRESETS
    from .inference import Options
    from .models import BASELINES, find_model
    from .volume import read_volume

    if options.reference and len(options.reference) != len(options.truth):
        raise UsageError(
            f"{len(options.truth)} volumes and {len(options.reference)} references: give one for each, in order"
        )
    folder = _folder(options.publish) if options.publish else None
    profile = f"through-{options.profile}" if f"through-{options.profile}" in PRESETS else options.profile
    how = Options(device=options.device, threads=options.threads, model_folders=tuple(options.models))
    asked = [name for name in options.model.split(",") if name]
    names = evaluation.with_baselines([*asked])
    figure = _figure(options.figure)
    rows: list[evaluation.Row] = []
    try:
        for number, scan in enumerate(evaluation.scan_names(options.truth)):
            truth = replace(read_volume(options.truth[number], warn=_tell), name=scan)
            reference = read_volume(options.reference[number], warn=_tell) if options.reference else None
            trial = evaluation.make_trial(
                truth,
                options.plane,
                options.factor,
                profile,
                seed=options.seed,
                slices=options.slices,
                slice_axis=options.slice_axis,
            )
            found, answers = evaluation.evaluate(trial, names, reference=reference, options=how, report=_say)
            rows += found
            if figure:
                several = len(options.truth) > 1
                shown = {name: answer for name, answer in answers.items() if name not in ("linear", "lanczos")}
                evaluation.figure(figure.with_stem(f"{figure.stem}-{scan}") if several else figure, trial, shown)
    finally:  # what was scored is told even if the next scan, or a picture, fails
        if rows:
            print(evaluation.to_json(rows) if options.json else evaluation.table(rows), flush=True)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        for name in asked:
            if name not in BASELINES:
                entry = find_model(name, options.models)
                evaluation.publish(rows, entry, folder / f"{entry.card.id}.safetensors")
    return 0


def _figure(path: str) -> Path | None:
    """The figure to draw, found fit before any work; None if none is wanted or, which is told, none can be drawn."""
    from . import evaluation

    if not path:
        return None
    try:
        evaluation.check_figure(path)
    except MissingRequirement as missing:
        _tell(missing.code, f"no figure: {missing.message}")
        return None
    return Path(path)


def _evaluate_translation(options: argparse.Namespace) -> int:
    from . import translation_scores
    from .inference import Options
    from .volume import read_volume

    if len(options.volumes) % 2:
        raise UsageError(f"{len(options.volumes)} volumes are given: give pairs, a scan and its truth, in order")
    entries = [_translator(name, options.models) for name in options.model.split(",") if name]
    regressor = _translator(options.regressor, options.models) if options.regressor else None
    folder = _folder(options.publish) if options.publish else None
    how = Options(
        device=options.device,
        threads=options.threads,
        slice_axis=options.slice_axis,
        model_folders=tuple(options.models),
    )
    distances = translation_scores.feature_distances(options.lpips, options.lpips_digest, options.device, report=_say)
    found: list[translation_scores.Evaluation] = []
    try:
        for source_path, truth_path in zip(options.volumes[::2], options.volumes[1::2], strict=True):
            source, truth = read_volume(source_path, warn=_tell), read_volume(truth_path, warn=_tell)
            for entry in entries:
                found.append(
                    translation_scores.evaluate(
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
                        options=how,
                        report=_say,
                    )
                )
    finally:  # what was scored is told even if the next scan or model fails
        if found:
            print(translation_scores.to_json(found) if options.json else translation_scores.table(found), flush=True)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        for entry in entries:
            translation_scores.publish(found, entry, folder / f"{entry.card.id}.safetensors")
    return 0


def _translator(name: str, folders: Sequence[str]) -> models.ModelEntry:
    """The model `name`, which must translate."""
    entry = models.find_model(name, folders)
    check_task(entry.card)
    return entry


def _demo(options: argparse.Namespace) -> int:
    from . import demo

    demo.run(
        options.output,
        source=options.input,
        model=options.model,
        model_folders=options.models,
        block_mm=None if options.whole else demo.BLOCK_MM,
        device=options.device,
        threads=options.threads,
    )
    return 0


def _train(options: argparse.Namespace) -> int:
    from .training.recipes import loop_of

    loop = importlib.import_module(f".training.{loop_of(options.recipe)}", __package__)
    entry = loop.train(
        options.recipe,
        options.data,
        options.out,
        minutes=options.minutes,
        resume=options.resume,
        device=options.device,
        init=options.init,
    )
    print(entry.path)
    return 0


def _pack(options: argparse.Namespace) -> int:
    from .training.pack import pack

    packed = pack(Path(options.folder), Path(options.out))
    print(f"{options.out}: {len(packed.entries)} volumes")
    return 0


def _worker(options: argparse.Namespace) -> int:
    with _clean_stdout() as stream:
        return jobs.work(options.job, stream, options.cancel_file)


def _folder(path: str) -> Path:
    """The folder `path`, made now so that what takes long is not done for nothing, and removed again until it is needed."""
    folder = Path(path)
    missing = [place for place in (folder, *folder.parents) if not os.path.exists(place)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_folder(folder)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made: {error.strerror}") from error
    finally:
        for place in missing:
            with contextlib.suppress(OSError):
                place.rmdir()
    return folder


def _plane(text: str) -> str:
    if text not in PLANES:
        raise argparse.ArgumentTypeError(f"plane is '{text}', expected in-plane or through-plane")
    return PLANES[text]


@contextlib.contextmanager
def _clean_stdout() -> Iterator[IO[str]]:
    """Standard output for our lines alone: what libraries print meanwhile goes to standard error."""
    sys.stdout.flush()
    try:
        ours = os.dup(1)
    except OSError:  # closed, as under pythonw
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            yield nowhere
        return
    os.dup2(2, 1)
    stream = os.fdopen(ours, "w", encoding="utf-8", newline="\n")
    try:
        yield stream
    finally:
        sys.stdout.flush()
        with contextlib.suppress(BrokenPipeError):
            stream.flush()
        os.dup2(ours, 1)
        with contextlib.suppress(BrokenPipeError):
            stream.close()


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need to be."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _tell(code: str, message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _complain(text: str, code: int) -> int:
    print(f"error: {text}", file=sys.stderr)
    return code
