"""Runs models on nodes of the scene: from the panel, and from the Python console. Knows no widgets.

    logic = MRSuperResLogic()
    fine = logic.superResolve(getNode("T2 thick"))
    fine = logic.superResolve(getNode("T2 thick"), model="rdst-e-through-x4")
    logic.superResolveMany(["a.nii.gz", "b.nii.gz"], model="rdst-e-through-x4", outputFolder="/data/fine")

What computes is a child process (see `worker`): Slicer stays responsive, and survives it.
"""

import logging
import os
from dataclasses import replace
from pathlib import Path

from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from MRSuperResLib import models
from MRSuperResLib.contrasts import CONTRASTS
from MRSuperResLib.errors import OutputError
from MRSuperResLib.inference import estimate as estimate_grid
from MRSuperResLib.inference.flags import ASYMMETRY

from . import cards, places, recommend, requirements, scene
from .many import ManyRun, expanded
from .run import Run, RunRequest, wait
from .worker import WORKERS

TASKS = {  # what the panel calls a task -> the cards' task, and plane
    "in-plane": ("super-resolve", "in-plane"),
    "through-plane": ("super-resolve", "through-plane"),
    "reference-guided": ("reference-guided", None),
    "translate": ("translate", None),
}


def _guessed(node, contrasts):
    """The contrast of `node` if it is one of `contrasts` or a common one, else ""."""
    guess = scene.guessContrast(node)
    return guess if guess in (*CONTRASTS, *contrasts) else ""


class MRSuperResLogic(ScriptedLoadableModuleLogic):
    """The module's logic; `process` makes a run's child process, for hosts that start them otherwise."""

    def __init__(self, process=WORKERS):
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
        """(models for `task`, the best first, [(model, why it is not offered)]) for a volume node.

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
        return recommend.ranked(offered), hidden

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

    def canFlag(self, contrast):
        """Whether something marks what a translation of such a scan may have lost: a detector, or the head's asymmetry."""
        detectors = [*(entry for entry in self.models() if entry.card.task == "flag"), ASYMMETRY]
        return any(contrast in entry.card.contrasts for entry in detectors)

    def marked(self, request):
        """`request` with flags, unless they were declined or there is no detector: disease is not hidden.

        And with the reference's contrast, unless it was given.
        """
        if request.task == "reference-guided" and not request.referenceContrast:
            taken = self.model(request.model).card.reference_contrasts
            request.referenceContrast = _guessed(request.reference, taken)
        if request.task == "translate" and request.flags is None:
            request.flags = self.canFlag(request.contrast)
        return request

    def guessContrast(self, node):
        """T1w, T2w, FLAIR, PDw, or "" if the node's name and DICOM description do not tell."""
        return scene.guessContrast(node)

    def contrastFor(self, node, card):
        """As `guessContrast`, "" too for a contrast that a run of the card's model would refuse to hear of."""
        return _guessed(node, card.contrasts)

    def refusal(self, node):
        """Why the node cannot be worked on, "" if it can."""
        return scene.refusal(node)

    def recommend(self, node, contrast="", finer=False):
        """Task, plane, model and factor for a volume node, and why, in a sentence: as `mrsuperres run` would choose them.

        finer: a factor or spacing is asked for. Without, the factor is 1 for a node that is fine as it is.
        """
        return recommend.recommend(node, contrast, finer)

    def describe(self, entry):
        """The card in plain words."""
        return cards.describe(entry)

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
        """What the model's card does not cover about this scan and the patient, in plain words.

        firstModel: super-resolves before a translation; factor and spacing are then its own.
        """
        volume, card = scene.glanceOf(node), self.model(modelId).card
        grid, subject = volume.grid, models.subject_coverage(card, volume)
        factors = factor if spacing is None else [old / new for old, new in zip(grid.spacing, spacing, strict=True)]
        if not firstModel:
            found = models.coverage(card, grid, contrast or None, factors, thickness=volume.thickness)
            return subject + found + self._unlikeReference(card, referenceNode)
        first = self.model(firstModel)
        finer = estimate_grid(grid, first, factor=factor, spacing=spacing, plane=plane).grid
        found = subject + models.coverage(first.card, grid, contrast or None, factors, thickness=volume.thickness)
        return found + [reason for reason in models.coverage(card, finer, contrast or None) if reason not in found]

    def warningsOfMany(
        self, items, modelId, contrast="", *, otherContrast="", factor=None, spacing=None, plane=None, firstModel=""
    ):
        """What the model's card does not cover about `items` (see `superResolveMany`), one line each that has something.

        Files are not read for it, and of a sequence only the first frame counts.
        """
        lines = []
        for item in expanded(items):
            if item.path is not None or (item.sequence is not None and item.sequence[1] > 0):
                continue
            node = item.source if item.sequence is None else item.sequence[0].GetNthDataNode(0)
            if scene.refusal(node):  # told when its turn comes
                continue
            kept = contrast or scene.guessContrast(node) or otherContrast
            size = {"factor": factor, "spacing": scene.refinedSpacing(node, plane, spacing) if spacing else None}
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

    def prepare(self):
        """Have a worker ready with its libraries loaded, if all it needs is installed; never asks."""
        if self._process is WORKERS and requirements.areMet():
            WORKERS.warm()

    def close(self):
        """End the worker that waits for the next run."""
        if self._process is WORKERS:
            WORKERS.close()

    def start(self, request, *, onProgress=None, onWarning=None, onLog=None, onFinished=None, onPreview=None):
        """Start a run and return at once; callbacks come in this thread, `onFinished(run)` exactly once.

        onProgress(stage, done, total, secondsLeft or None), onWarning(code, message), onLog(line),
        onPreview(rows, columns, mm between them, 8-bit pixels) of a slice that is done. Raises `MRSuperResError`
        if it cannot be started.
        """
        requirements.ensure(self.model(request.model))
        run = Run(self.marked(request), self._process(), onProgress, onWarning, onLog, onFinished, onPreview=onPreview)
        run.begin()
        return run

    def superResolve(self, node, model=None, **options):
        """Super-resolve `node` and return the new volume node; options as the fields of `RunRequest`.

        The scan's contrast is guessed unless given. Without a model, the one that `recommend` finds, with its plane and factor
        unless they are given; the log says why. Blocks, while the application goes on living. Raises `MRSuperResError`:
        `UnsuitableVolume` too, where nothing else is given and the node is fine as it is.
        """
        if model is None:
            contrast = options["contrast"] if "contrast" in options else scene.guessContrast(node)
            finer = any(options.get(name) is not None for name in ("factor", "spacing", "plane"))
            found = self.recommend(node, contrast, finer)
            found.check()
            model = found.model
            options.setdefault("plane", found.plane)
            if options.get("spacing") is None:
                options.setdefault("factor", found.factor)
            logging.info("%s", found.why)
        entry = self.model(model)
        options.setdefault("contrast", self.contrastFor(node, entry.card))
        options.setdefault("task", entry.card.task)
        return self._waited(RunRequest(input=node, model=model, **options)).output

    def translate(self, node, model, target, samples=None, seed=0, **options):
        """Translate `node` to the contrast `target` and return the new volume node: the mean of `samples` answers.

        The scan's contrast is guessed unless given. Further options as the fields of `RunRequest`, such as
        `uncertaintyMap=True`. The map and the samples come with the result: `scene.attached(result, "uncertaintyMap")` and
        `scene.attached(result, "sample")` list them, and `start` gives all in one `RunResult`.
        """
        options.setdefault("contrast", self.contrastFor(node, self.model(model).card))
        request = RunRequest(
            input=node, model=model, task="translate", target=target, samples=samples, seed=seed, **options
        )
        return self._waited(request).output

    def _waited(self, request):
        run = self.start(request)
        wait(run)
        for message in run.warnings:  # the console has no status line: Slicer prints these, and keeps them in its log
            logging.warning("%s: %s", request.model, message)
        if run.error is not None:
            raise run.error
        return run.result

    def places(self, result):
        """What a translation `result` may have lost or changed: a `places.Place` each, the largest first."""
        return places.placesOf(result)

    def goTo(self, place):
        """Show one of `places` in the middle of all slice views."""
        places.goTo(place)

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
        folder holds already, whole, made from the same volumes by the same models with the same options. The contrast of each
        volume is guessed unless given; otherContrast: of those whose names do not tell. spacing: mm along the axes that `plane`
        refines. Samples of a translation become nodes with `keepSamples` only. onProgress(done, total, what). Blocking,
        returns the list of `ManyResult`; else the `ManyRun`, and `onFinished(results)` is called at the end.
        """
        entry = self.model(model)
        requirements.ensure(entry)
        options.setdefault("task", entry.card.task)
        if outputFolder is not None:
            outputFolder = Path(
                os.path.abspath(os.path.expanduser(outputFolder))
            )  # the worker runs in a folder of its own
            try:
                outputFolder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"the folder {outputFolder} cannot be made: {error.strerror}") from error
        run = ManyRun(
            self, expanded(items), model, outputFolder, resume, onProgress, onFinished, otherContrast, options
        )
        run.begin()
        if not blocking:
            return run
        wait(run)
        return run.results
