"""Runs models on nodes of the scene: from the panel, and from the Python console. Knows no widgets.

    logic = MRSuperResLogic()
    fine = logic.superResolve(getNode("T2 thick"), model="rdst-e-through-x4")
    logic.superResolveMany(["a.nii.gz", "b.nii.gz"], model="rdst-e-through-x4", outputFolder="/data/fine")

What computes is a child process (see `worker`): Slicer stays responsive, and survives it.
"""

import contextlib
import hashlib
import itertools
import json
import shutil
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from MRSuperResLib import models
from MRSuperResLib.documents import encode
from MRSuperResLib.errors import Cancelled, MRSuperResError, OutputError, UsageError
from MRSuperResLib.inference import estimate as estimate_grid
from MRSuperResLib.inference.planning import slice_axis_for
from MRSuperResLib.jobs import Job
from MRSuperResLib.provenance import sidecar_path
from MRSuperResLib.staging import PREFIX as STAGED

from . import requirements, scene
from .words import _
from .worker import Worker

try:
    import qt
except ImportError:  # a script without Qt: runs are then pumped by whoever waits for them
    qt = None

POLL_MILLISECONDS = 50
MAPS = {"errorMap": "error_map", "consistencyMap": "consistency_map", "uncertaintyMap": "uncertainty_map"}
MAP_NAMES = {"errorMap": "error", "consistencyMap": "consistency", "uncertaintyMap": "uncertainty"}
TASKS = {  # what the panel calls a task -> the cards' task, and plane
    "in-plane": ("super-resolve", "in-plane"),
    "through-plane": ("super-resolve", "through-plane"),
    "reference-guided": ("reference-guided", None),
    "translate": ("translate", None),
}
DONE = "a result is there already"


@dataclass
class RunRequest:
    """One volume, one model, and what to make of them.

    input, reference, truth: volume nodes. output, errorMap, consistencyMap, uncertaintyMap: a node to fill, True to make one;
    for a map, None not to. spacing: mm along i, j, k. samples: of a translation. keepSamples: each of them becomes a node.
    """

    input: Any
    model: str
    task: str = "super-resolve"
    plane: str | None = None
    factor: float | None = None
    spacing: Any = None
    contrast: str = ""
    reference: Any = None
    register: bool = True
    truth: Any = None
    target: str = ""
    samples: int | None = None
    keepSamples: bool = True
    seed: int = 0
    output: Any = None
    errorMap: Any = None
    consistencyMap: Any = None
    uncertaintyMap: Any = None
    project: bool = False
    device: str = "auto"
    precision: str = "auto"
    superResolveWith: str | None = None


@dataclass
class RunResult:
    """What a run made. metrics: against the ground truth, if there was one. `scene.attached` finds maps and samples again."""

    output: Any
    errorMap: Any = None
    consistencyMap: Any = None
    uncertaintyMap: Any = None
    samples: list = field(default_factory=list)
    metrics: dict = field(default_factory=dict)
    provenance: dict = field(default_factory=dict)
    warnings: list = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class ManyResult:
    """One volume of many. output: a node, or the file it was written to; error: None if all went well.

    skipped: the result was there already. warnings: what the model was not made for, and what was wrong with the scan.
    """

    name: str
    output: Any = None
    error: MRSuperResError | None = None
    skipped: bool = False
    warnings: list = field(default_factory=list)
    seconds: float = 0.0


class MRSuperResLogic(ScriptedLoadableModuleLogic):
    """The module's logic; `process` makes the child processes, for hosts that start them otherwise."""

    def __init__(self, process=Worker):
        ScriptedLoadableModuleLogic.__init__(self)
        self._process = process

    # What there is, and what suits

    def models(self):
        """All models, the baselines first; reads cards only, no torch."""
        return models.list_models()

    def model(self, name):
        """The model of that id, or in that file. Raises `ModelError`."""
        return next((entry for entry in self.models() if entry.card.id == name), None) or models.find_model(name)

    def suitable(self, node, task, contrast="", referenceNode=None):
        """(models for `task`, [(model, why it is not offered)]) for a volume node.

        task: "in-plane", "through-plane", "reference-guided" or "translate"; contrast: "" if not known.
        """
        grid = scene.gridOf(node) if node is not None and not scene.refusal(node) else None
        offered, hidden = [], []
        for entry in self._modelsFor(task):
            reasons = self._unsuitable(entry.card, grid, contrast, referenceNode)
            if reasons:
                hidden.append((entry, "; ".join(reasons)))
            else:
                offered.append(entry)
        return offered, hidden

    def tasks(self):
        """The tasks (see `suitable`) that there are models for."""
        return [task for task in TASKS if self._modelsFor(task)]

    def _modelsFor(self, task):
        kind, plane = TASKS[task]
        return [
            entry
            for entry in self.models()
            if entry.card.task == kind and (plane is None or entry.card.plane in ("any", plane))
        ]

    def _unsuitable(self, card, grid, contrast, referenceNode):
        """Why the card's model is not offered: its contrasts, and the voxels it was made for."""
        if grid is None:
            reasons = []
        elif card.task == "translate":  # another model may make the voxels finer first: `warnings` tells of them
            reasons = models.contrast_coverage(card, contrast or None)
        else:
            reasons = models.coverage(card, grid, contrast or None)
        if card.task == "translate" and not [target for target in card.target_contrasts if target != contrast]:
            reasons.append(f"makes {', '.join(card.target_contrasts)} only, which this scan is")
        return reasons + self._unlikeReference(card, referenceNode)

    def _unlikeReference(self, card, referenceNode):
        """Why the reference is none that the card's model was made for, as far as its name tells."""
        taken, found = card.reference_contrasts, scene.guessContrast(referenceNode)
        if card.task != "reference-guided" or not found or not taken or "any" in taken or found in taken:
            return []
        return [f"takes a reference of {', '.join(taken)}, this one is {found}"]

    def guessContrast(self, node):
        """T1w, T2w, FLAIR, PDw, or "" if the node's name and DICOM description do not tell."""
        return scene.guessContrast(node)

    def refusal(self, node):
        """Why the node cannot be worked on, "" if it can."""
        return scene.refusal(node)

    def describe(self, entry):
        """The card in plain words."""
        card = entry.card
        if card.is_baseline:
            return _("{title}. What Slicer does without a model; for comparison.").format(title=card.title)
        lines = [
            _("{title}, version {version}.").format(title=card.title, version=card.version) + f" {card.intended_use}"
        ]
        if "research use only" not in card.intended_use.lower():
            lines.append(_("Research use only."))
        contrasts = ", ".join(card.contrasts)
        if card.task == "translate":
            text = _("Makes {targets} of {contrasts} of the {anatomy}.")
            lines.append(
                text.format(targets=_(" or ").join(card.target_contrasts), contrasts=contrasts, anatomy=card.anatomy)
            )
        else:
            lines.append(_("For {contrasts} of the {anatomy}.").format(contrasts=contrasts, anatomy=card.anatomy))
        if card.spacing is not None:
            (low, high), (thin, thick) = card.spacing.in_plane, card.spacing.through_plane
            text = _("Trained for voxels of {low:g} to {high:g} mm in plane and slices of {thin:g} to {thick:g} mm.")
            lines.append(text.format(low=low, high=high, thin=thin, thick=thick))
        gains = [score.psnr - score.baseline["bspline"][0] for score in card.metrics if "bspline" in score.baseline]
        if gains:
            text = _("On {count} held-out scans {mean:+.1f} dB PSNR over B-spline ({least:+.1f} to {most:+.1f}).")
            mean = sum(gains) / len(gains)
            lines.append(text.format(count=len(gains), mean=mean, least=min(gains), most=max(gains)))
        if card.paper is not None:
            text = _("After {authors}, {year}: {title}.")
            lines.append(text.format(authors=card.paper.authors, year=card.paper.year, title=card.paper.title))
        lines.append(_("Licence {licence}.").format(licence=card.licence))
        return "\n".join(lines)

    def estimate(self, node, modelId, *, factor=None, spacing=None, plane=None, firstModel="", keptSamples=0):
        """The grid a run would make and the memory it needs. Raises `MRSuperResError` if it cannot be.

        firstModel: super-resolves before a translation; factor, spacing and plane are then its own.
        """
        grid = scene.volumeOf(node).grid if scene.refusal(node) else scene.gridOf(node)
        size = {"factor": factor, "spacing": spacing, "plane": plane}
        if not firstModel:
            return estimate_grid(grid, self.model(modelId), **size, kept_samples=keptSamples)
        first = estimate_grid(grid, self.model(firstModel), **size)
        made = estimate_grid(first.grid, self.model(modelId), kept_samples=keptSamples)
        return replace(made, memory=max(first.memory, made.memory))

    def warnings(
        self, node, modelId, contrast="", *, factor=None, spacing=None, referenceNode=None, firstModel="", plane=None
    ):
        """What the model's card does not cover about this scan, in plain words.

        firstModel: super-resolves before a translation; factor and spacing are then its own.
        """
        grid, card = scene.gridOf(node), self.model(modelId).card
        factors = factor if spacing is None else [old / new for old, new in zip(grid.spacing, spacing, strict=True)]
        if not firstModel:
            return models.coverage(card, grid, contrast or None, factors) + self._unlikeReference(card, referenceNode)
        first = self.model(firstModel)
        finer = estimate_grid(grid, first, factor=factor, spacing=spacing, plane=plane).grid
        found = models.coverage(first.card, grid, contrast or None, factors)
        return found + [reason for reason in models.coverage(card, finer, contrast or None) if reason not in found]

    def warningsOfMany(
        self, items, modelId, contrast="", *, otherContrast="", factor=None, spacing=None, plane=None, firstModel=""
    ):
        """What the model's card does not cover about `items` (see `superResolveMany`), one line each that has something.

        Files are not read for it, and of a sequence only the first frame counts.
        """
        lines = []
        for item in _expanded(items):
            if item.path is not None or (item.sequence is not None and item.sequence[1] > 0):
                continue
            node = item.source if item.sequence is None else item.sequence[0].GetNthDataNode(0)
            if scene.refusal(node):  # told when its turn comes
                continue
            kept = contrast or scene.guessContrast(node) or otherContrast
            size = {"factor": factor, "spacing": refinedSpacing(node, plane, spacing) if spacing else None}
            found = self.warnings(node, modelId, kept, **size, firstModel=firstModel, plane=plane)
            if found:
                lines.append(f"{item.name}: {'; '.join(found)}")
        return lines

    def overlap(self, node, referenceNode):
        """Share (0 to 1) of the node's box that the reference covers, by their headers, on a coarse raster of points."""
        import numpy as np

        grid, other = scene.gridOf(node), scene.gridOf(referenceNode)
        axes = [np.linspace(0, size - 1, 12) for size in grid.size]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        return float(np.mean(other.contains(grid.index_to_world(points))))

    # One volume

    def start(self, request, *, onProgress=None, onWarning=None, onLog=None, onFinished=None):
        """Start a run and return at once; callbacks come in this thread, `onFinished(run)` exactly once.

        onProgress(stage, done, total, secondsLeft or None), onWarning(code, message), onLog(line). Raises `MRSuperResError`
        if it cannot be started.
        """
        requirements.ensure(self.model(request.model))
        run = Run(request, self._process(), onProgress, onWarning, onLog, onFinished)
        run.begin()
        return run

    def superResolve(self, node, model, **options):
        """Super-resolve `node` and return the new volume node; options as the fields of `RunRequest`.

        Blocks, while the application goes on living. Raises `MRSuperResError`.
        """
        entry = self.model(model)
        options.setdefault("task", entry.card.task)
        return self._waited(RunRequest(input=node, model=model, **options)).output

    def translate(self, node, model, target, samples=None, seed=0, **options):
        """Translate `node` to the contrast `target` and return the new volume node: the mean of `samples` answers.

        The scan's contrast is guessed unless given. Further options as the fields of `RunRequest`, such as
        `uncertaintyMap=True`. The map and the samples come with the result: `scene.attached(result, "uncertaintyMap")` and
        `scene.attached(result, "sample")` list them, and `start` gives all in one `RunResult`.
        """
        options.setdefault("contrast", scene.guessContrast(node))
        request = RunRequest(
            input=node, model=model, task="translate", target=target, samples=samples, seed=seed, **options
        )
        return self._waited(request).output

    def _waited(self, request):
        run = self.start(request)
        wait(run)
        if run.error is not None:
            raise run.error
        return run.result

    # Many volumes

    def superResolveMany(
        self,
        items,
        model,
        outputFolder=None,
        onProgress=None,
        onFinished=None,
        blocking=True,
        resume=True,
        otherContrast="",
        **options,
    ):
        """Super-resolve many volumes one after another, going on after a bad one.

        items: volume nodes, sequence nodes, files, or subject-hierarchy items (numbers; all volumes below). outputFolder: write
        results there as NRRD with a sidecar each, and maps beside them, instead of making nodes. resume: leave out what the
        folder holds already, made from the same voxels by the same model with the same options. The contrast of each volume is
        guessed unless given; otherContrast: of those whose names do not tell. spacing: mm along the axes that `plane` refines.
        Samples of a translation become nodes with `keepSamples` only. onProgress(done, total, what). Blocking, returns the
        list of `ManyResult`; else the `ManyRun`, and `onFinished(results)` is called at the end.
        """
        entry = self.model(model)
        requirements.ensure(entry)
        options.setdefault("task", entry.card.task)
        if outputFolder is not None:
            outputFolder = Path(outputFolder)
            try:
                outputFolder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"the folder {outputFolder} cannot be made: {error.strerror}") from error
        run = ManyRun(
            self, _expanded(items), model, outputFolder, resume, onProgress, onFinished, otherContrast, options
        )
        run.begin()
        if not blocking:
            return run
        wait(run)
        return run.results


class Run:
    """One run: exported, computed in a child process, imported."""

    def __init__(self, request, process, onProgress=None, onWarning=None, onLog=None, onFinished=None, outputFile=None):
        self.request, self.error, self.result, self.warnings = request, None, None, []
        self._process, self._outputFile = process, outputFile
        self._onProgress, self._onWarning, self._onLog, self._onFinished = onProgress, onWarning, onLog, onFinished
        self._folder = self._answer = self._failure = None
        self._lastErrors, self._cancelled, self.isRunning = [], False, False

    def begin(self):
        """Export and start; raises `MRSuperResError`, leaving nothing behind."""
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="MRSuperRes-", dir=_temporaryPath()))
            job = jobOf(self.request, self._folder, self._outputFile)
            for role in ("input", "reference", "truth"):
                if getattr(job, role):
                    scene.export(getattr(self.request, role), getattr(job, role))
            path = self._folder / "job.json"
            path.write_text(job.to_json(), encoding="utf-8")
            self._process.start(path, self._line, self._end)
        except OSError as error:
            self._clean()
            raise MRSuperResError(f"the worker could not be started: {error}", code="no-worker") from error
        except MRSuperResError:
            self._clean()
            raise
        self.isRunning = True
        self._poll()

    def _poll(self):
        """Keep pumping as long as it runs. Single shots, because a timer must not be deleted in its own call."""
        self.pump()
        if self.isRunning and qt is not None:
            qt.QTimer.singleShot(POLL_MILLISECONDS, self._poll)

    def cancel(self):
        """End the run: within two seconds nothing of it computes, and nothing of it stays in the scene or on disk."""
        self._cancelled = True
        if self.isRunning:
            self._process.cancel()

    def end(self):
        """Cancel, and wait for the end without giving the application a turn: it is closing."""
        self.cancel()
        while self.isRunning:
            self.pump()
            time.sleep(0.01)

    def pump(self):
        """Take in what the worker has said; the timer calls it, and whoever blocks."""
        if self.isRunning:
            self._process.pump()

    def _line(self, line, isError):
        if isError:
            self._lastErrors = [*self._lastErrors, line][-40:]
            self._tell(self._onLog, line)
            return
        try:
            event = json.loads(line)
            kind = event["event"]
        except (ValueError, KeyError, TypeError):  # something else that a library printed
            self._tell(self._onLog, line)
            return
        if kind == "progress":
            self._tell(self._onProgress, event["stage"], event["done"], event["total"], event.get("seconds_left"))
        elif kind == "warning":
            self.warnings.append(event["message"])
            self._tell(self._onWarning, event["code"], event["message"])
        elif kind == "result":
            self._answer = event
        elif kind == "error":
            self._failure = event
        elif kind == "started":
            self._tell(self._onLog, f"{event['model']} on {event['device']} ({event['precision']})")

    def _tell(self, callback, *values):
        if callback is not None and not self._cancelled:
            callback(*values)

    def _end(self, code):
        try:
            self.error = self._errorOf(code)
            if self.error is None:
                self.result = self._imported()
        except MRSuperResError as error:
            self.error = error
        except (RuntimeError, OSError, ValueError) as error:  # what the worker wrote cannot be read back
            self.error = MRSuperResError(f"the result could not be brought into the scene: {error}", code="import")
        finally:
            self._clean()
        if self._onFinished is not None:
            self._onFinished(self)

    def _errorOf(self, code):
        if self._cancelled or (self._failure or {}).get("code") == "cancelled":
            return Cancelled("cancelled; nothing was changed")
        if self._failure is not None:
            return MRSuperResError(self._failure["message"], code=self._failure["code"])
        if self._answer is None or code != 0:
            last = next((line for line in reversed(self._lastErrors) if line.strip()), "it said nothing")
            ended = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            hint = " (out of memory?)" if code in (-9, 137) else ""
            return MRSuperResError(f"the worker {ended}{hint}: {last}", code="crash")
        if self._outputFile is None and not slicer.mrmlScene.IsNodePresent(self.request.input):
            return Cancelled("the volume left the scene meanwhile; its result was dropped")
        return None

    def _imported(self):
        request, answer = self.request, self._answer
        provenance, outputs = answer["provenance"], answer["outputs"]
        result = RunResult(
            None, metrics=answer["metrics"], provenance=provenance, warnings=self.warnings, seconds=answer["seconds"]
        )
        if self._outputFile is not None:
            result.output = str(self._outputFile)
            return result
        source = request.input
        loaded = scene.load(outputs["output"])
        before = scene.gridOf(source).spacing
        factor = max(old / new for old, new in zip(before, loaded[1].spacing, strict=True))
        name = scene.resultName(source.GetName(), request.model, factor, request.target, request.superResolveWith)
        with _batch():
            former = self._former()
            result.output = self._node(request.output, name, loaded, source, provenance, like=not request.target)
            for attribute, key in MAPS.items():
                if outputs.get(key):
                    mapName = f"{name} {MAP_NAMES[attribute]}"
                    place = self._place(getattr(request, attribute), former[attribute])
                    made = self._node(place, mapName, scene.load(outputs[key]), source, provenance, like=False)
                    scene.colourMap(made, signed=attribute == "consistencyMap")
                    setattr(result, attribute, made)
                scene.attach(result.output, attribute, filter(None, [getattr(result, attribute)]))
            for number, path in enumerate(outputs.get("samples") or [], start=1):
                place = self._place(True, former["sample"])
                made = self._node(place, f"{name} sample {number}", scene.load(path), source, provenance, like=False)
                scene.show(made, result.output)  # one window for all: they differ by what they show
                result.samples.append(made)
            scene.attach(result.output, "sample", result.samples)
            for node in itertools.chain(*former.values()):
                slicer.mrmlScene.RemoveNode(node)
        return result

    def _former(self):
        """By role, the samples and maps that came with what the output holds until now, but for those this run is given."""
        request, roles = self.request, ("sample", *MAPS)
        given = [getattr(request, role) for role in ("input", "reference", "truth", *MAPS)]
        known = {role: scene.attached(request.output, role) if _isLive(request.output) else [] for role in roles}
        return {role: [node for node in nodes if node not in given] for role, nodes in known.items()}

    @staticmethod
    def _place(wanted, former):
        """The node asked for, else one of the `former`, which it takes out of there, else True for a new one."""
        return wanted if _isLive(wanted) or not former else former.pop(0)

    def _node(self, wanted, name, loaded, source, provenance, like):
        node = wanted if _isLive(wanted) else scene.create(name)
        scene.fill(node, *loaded)
        scene.show(node, source if like else None)
        scene.placeBeside(node, source)
        kept = ("model", "parameters", "versions", "created", "statement")
        scene.record(node, {key: provenance[key] for key in kept if key in provenance}, source)
        return node

    def _clean(self):
        self.isRunning = False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._outputFile is not None and self.error is not None:  # a worker ended by force leaves half a file
            for file in (self._outputFile, *(_mapFile(self._outputFile, name) for name in MAPS)):
                for leftover in file.parent.glob(f"*{STAGED}*-{file.stem}.*"):
                    leftover.unlink(missing_ok=True)


class ManyRun:
    """Many runs, one after another."""

    def __init__(self, logic, items, model, folder, resume, onProgress, onFinished, otherContrast, options):
        self.results, self.error, self.isRunning = [], None, False
        self._logic, self._items, self._model, self._folder, self._resume = logic, items, model, folder, resume
        self._onProgress, self._onFinished, self._otherContrast = onProgress, onFinished, otherContrast
        self._options = {"keepSamples": False, **options}
        self._current, self._cancelled, self._sequences, self._taken = None, False, {}, set()

    def begin(self):
        """Start with the first."""
        self.isRunning = True
        self._next()

    def cancel(self):
        """Stop the one that is running and leave out the rest; what is done stays."""
        self._cancelled = True
        if self._current is not None:
            self._current.cancel()

    def end(self):
        """Cancel, and wait for the end without giving the application a turn: it is closing."""
        self.cancel()
        while self._current is not None:
            self._current.end()

    def pump(self):
        """Take in what the worker has said."""
        if self._current is not None:
            self._current.pump()

    def _next(self):
        """Start the next volume that has something to be done; finish after the last."""
        while len(self.results) < len(self._items):
            item = self._items[len(self.results)]
            self._tell(item.name)
            if self._cancelled:
                self.results.append(ManyResult(item.name, error=Cancelled("cancelled before it was begun")))
                continue
            try:
                if self._begun(item):
                    return
            except MRSuperResError as error:
                item.release()
                self.results.append(ManyResult(item.name, error=error))
        if not self.isRunning:
            return
        self.isRunning = False
        for (source, _what), made in self._sequences.items():
            scene.playAlong(made, slicer.mrmlScene.GetNodeByID(source))
        self._tell("")
        if self._onFinished is not None:
            self._onFinished(self.results)

    def _tell(self, what):
        if self._onProgress is not None:
            self._onProgress(len(self.results), len(self._items), what)

    def _begun(self, item):
        """Start `item` and return True, or settle it at once and return False."""
        node = item.node()
        contrast = self._options.get("contrast") or scene.guessContrast(node) or self._otherContrast
        options = {**self._options, "contrast": contrast}
        if item.sequence is not None:  # whose frames cannot hold them
            options["keepSamples"] = False
        if isinstance(options.get("spacing"), (int, float)) and not scene.refusal(node):
            options["spacing"] = refinedSpacing(node, options.get("plane"), options["spacing"])
        request = RunRequest(input=node, model=self._model, **options)
        target = None
        if self._folder is not None:
            target = self._folder / f"{self._unique(item.name)}.nrrd"
            if self._resume and _isDone(target, request):
                item.release()
                self.results.append(ManyResult(item.name, str(target), skipped=True))
                return False
        started = time.monotonic()

        def progress(stage, done, total, secondsLeft):
            self._tell(f"{item.name}, {stage} {done} of {total}" if total > 1 else f"{item.name}, {stage}")

        def finished(run):
            self._current = None
            output = None if run.error else run.result.output
            if output is not None and item.sequence is not None and self._folder is None:
                for name, what in MAP_NAMES.items():
                    if getattr(run.result, name) is not None:
                        self._intoSequence(item, getattr(run.result, name), what)
                output = self._intoSequence(item, output)
            item.release()
            seconds = time.monotonic() - started
            self.results.append(ManyResult(item.name, output, run.error, warnings=run.warnings, seconds=seconds))
            self._next()

        run = Run(request, self._logic._process(), onProgress=progress, onFinished=finished, outputFile=target)
        self._current = run  # before it begins: it may end while it does
        try:
            run.begin()
        except MRSuperResError:
            self._current = None
            raise
        return True

    def _unique(self, name):
        stem = scene.fileName(self._named(scene.stemOf(name)))
        number, unique = 1, stem
        while unique in self._taken:
            number += 1
            unique = f"{stem}_{number}"
        self._taken.add(unique)
        return unique

    def _named(self, name):
        options = self._options
        return scene.resultName(
            name, self._model, target=options.get("target") or "", firstModel=options.get("superResolveWith") or ""
        )

    def _intoSequence(self, item, node, what=""):
        """Move a frame's result, or its map `what`, into the sequence of those, which has the source's index."""
        source, index = item.sequence
        made = self._sequences.get((source.GetID(), what))
        if made is None:
            name = f"{self._named(source.GetName())} {what}".strip()
            made = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", slicer.mrmlScene.GenerateUniqueName(name))
            made.SetIndexName(source.GetIndexName())
            made.SetIndexUnit(source.GetIndexUnit())
            self._sequences[source.GetID(), what] = made
            scene.placeBeside(made, source)
        made.SetDataNodeAtValue(node, source.GetNthIndexValue(index))
        slicer.mrmlScene.RemoveNode(node)
        return made


@dataclass
class Item:
    """One volume of many: a node, a file, or a frame of a sequence (the sequence node and its number)."""

    name: str
    source: Any = None
    path: Path | None = None
    sequence: tuple | None = None
    temporary: list = field(default_factory=list)

    def node(self):
        """The volume node to run on; for files and frames a temporary one, which `release` removes."""
        if self.path is not None:
            from MRSuperResLib.volume import read_volume

            volume = read_volume(self.path)
            node = self._temporaryNode()
            scene.fill(node, volume.array, volume.grid)
            return node
        if self.sequence is not None:
            sequence, index = self.sequence
            frame = sequence.GetNthDataNode(index)
            node = self._temporaryNode()
            node.Copy(frame)
            node.SetName(self.name)
            return node
        return self.source

    def release(self):
        """Remove what `node` made."""
        for node in self.temporary:
            if slicer.mrmlScene.IsNodePresent(node):  # closing the scene has removed it already
                slicer.mrmlScene.RemoveNode(node)
        self.temporary.clear()

    def _temporaryNode(self):
        node = slicer.mrmlScene.CreateNodeByClass(scene.VOLUME_CLASS)
        node.UnRegister(None)
        node.SetName(self.name)
        node.SetHideFromEditors(True)
        slicer.mrmlScene.AddNode(node)
        self.temporary.append(node)
        return node


def refinedSpacing(node, plane, length):
    """mm along i, j, k of a result: `length` along the axes that `plane` refines, the node's own along the others."""
    grid = scene.gridOf(node)
    sliced, through = slice_axis_for(grid, plane=plane), plane == "through-plane"
    return tuple(float(length) if (axis == sliced) == through else own for axis, own in enumerate(grid.spacing))


def wait(run):
    """Keep the application alive until `run` has ended."""
    application = getattr(slicer, "app", None)
    while run.isRunning:
        run.pump()
        if application is not None:
            application.processEvents()
        time.sleep(0.01)


def _expanded(items):
    """Every volume that `items` (one or many) stand for."""
    if isinstance(items, (str, Path, int)) or hasattr(items, "IsA"):
        items = [items]
    found = []
    for item in items:
        if isinstance(item, (str, Path)):
            found.append(Item(Path(item).name, path=Path(item)))
        elif isinstance(item, int):
            nodes = scene.itemsOf(item)
            if not nodes:
                raise UsageError(f"subject-hierarchy item {item} has no volumes below it")
            found += [Item(node.GetName(), source=node) for node in nodes]
        elif item is not None and item.IsA("vtkMRMLSequenceNode"):
            count = item.GetNumberOfDataNodes()
            found += [Item(f"{item.GetName()} {index + 1}", sequence=(item, index)) for index in range(count)]
        else:
            found.append(Item(item.GetName() if item is not None else "nothing", source=item))
    if not found:
        raise UsageError("there is no volume to work on")
    return found


def jobOf(request, folder, outputFile=None):
    """The job of a request, whose files lie in `folder`. Raises `UsageError` for what contradicts itself."""
    files = {"input": folder / "input.nrrd", "output": outputFile or folder / "output.nrrd"}
    files |= {role: folder / f"{role}.nrrd" for role in ("reference", "truth") if getattr(request, role)}
    for name, key in MAPS.items():
        if getattr(request, name):
            files[key] = _mapFile(outputFile, name) if outputFile else folder / f"{key}.nrrd"
    if request.keepSamples and request.samples and request.samples > 1 and outputFile is None:  # nodes, never files
        files["samples_folder"] = folder / "samples"
    return Job.from_json(
        {
            "model": request.model,
            "task": request.task,
            "plane": request.plane,
            "factor": request.factor,
            "spacing": list(request.spacing) if request.spacing else None,
            "contrast": request.contrast or None,
            "register": request.register,
            "target": request.target or None,
            "samples": request.samples,
            "seed": request.seed,
            "project": request.project,
            "device": request.device,
            "precision": request.precision,
            "super_resolve_with": request.superResolveWith,
            **{name: str(path) for name, path in files.items()},
        }
    )


def _mapFile(outputFile, name):
    """Where the map of that name goes beside a result in a file."""
    return outputFile.with_name(f"{outputFile.stem}_{MAP_NAMES[name]}.nrrd")


def _isLive(node):
    """Whether what a request holds for an output is a node of the scene, and not None or True."""
    return node not in (None, True) and bool(slicer.mrmlScene.IsNodePresent(node))


def _isDone(target, request):
    """Whether `target` was made from the same voxels, where they lie, by the same model in the same way, maps included."""
    sidecar = Path(sidecar_path(str(target)))
    maps = [_mapFile(target, name) for name in MAPS if getattr(request, name)]
    if not all(path.is_file() for path in (target, sidecar, *maps)):
        return False
    with tempfile.TemporaryDirectory(dir=_temporaryPath()) as folder:
        job = jobOf(request, Path(folder), target)
        try:
            record = json.loads(sidecar.read_text(encoding="utf-8"))
            made = record["inputs"]["input"]["sha256"]
            same = record["model"]["digest"] == models.find_model(request.model).digest
            if not same or record["parameters"] != encode(job.parameters):
                return False
        except (OSError, ValueError, KeyError, TypeError):  # not a record of ours: make it anew
            return False
        scene.export(request.input, job.input)
        return made == hashlib.sha256(Path(job.input).read_bytes()).hexdigest()


def _temporaryPath():
    application = getattr(slicer, "app", None)
    return application.temporaryPath if application is not None else None


@contextlib.contextmanager
def _batch():
    """One scene update for all that is made inside."""
    slicer.mrmlScene.StartState(slicer.vtkMRMLScene.BatchProcessState)
    try:
        yield
    finally:
        slicer.mrmlScene.EndState(slicer.vtkMRMLScene.BatchProcessState)
