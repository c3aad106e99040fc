"""Many runs, one after another: nodes, files, folders of the subject hierarchy, frames of sequences."""

import itertools
import time
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer

from MRSuperResLib.errors import Cancelled, MRSuperResError, OutputError, UsageError
from MRSuperResLib.jobs.existing import SIDECAR, check_existing, complete_record
from MRSuperResLib.jobs.outputs import finals_of
from MRSuperResLib.provenance import digest_of, read_record

from . import scene
from .run import MAP_NAMES, Run, RunRequest, gone, jobOf

SOURCES = ("input", "reference")  # what a result is made from; a ground truth only scores it


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


class ManyRun:
    """Many runs, one after another."""

    def __init__(self, logic, items, model, folder, resume, onProgress, onFinished, otherContrast, options):
        self.results, self.error, self.isRunning = [], None, False
        self._logic, self._items, self._model, self._folder, self._resume = logic, items, model, folder, resume
        self._onProgress, self._onFinished, self._otherContrast = onProgress, onFinished, otherContrast
        self._options, self._card = {"keepSamples": False, **options}, logic.model(model).card
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
            except (MRSuperResError, OSError, ValueError, RuntimeError) as error:  # one bad volume ends nothing
                item.release()
                known = error if isinstance(error, MRSuperResError) else MRSuperResError(str(error), code="bad-item")
                self.results.append(ManyResult(item.name, error=known))
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
        if item.origin is not None and not slicer.mrmlScene.IsNodePresent(item.origin):
            raise gone(item.origin)
        noticed = []
        warn = scene.mended(lambda _code, message: noticed.append(message))
        node = item.node(warn, allowLabels=bool(self._options.get("notLabels")))
        contrast = self._options.get("contrast") or self._logic.contrastFor(node, self._card) or self._otherContrast
        options = {**self._options, "contrast": contrast}
        if item.sequence is not None:  # whose frames cannot hold them
            options["keepSamples"] = options["flags"] = False
        if isinstance(options.get("spacing"), (int, float)) and not scene.refusal(node):
            options["spacing"] = scene.refinedSpacing(node, options.get("plane"), options["spacing"])
        request = self._logic.marked(RunRequest(input=node, model=self._model, **options))
        started = time.monotonic()

        def progress(stage, done, total, secondsLeft):
            self._tell(f"{item.name}, {stage} {done / total:.0%}" if total > 1 else f"{item.name}, {stage}")

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
            warnings = [*noticed, *run.warnings]
            self.results.append(ManyResult(item.name, output, run.error, warnings=warnings, seconds=seconds))
            self._next()

        run = Run(request, self._logic._process(), onProgress=progress, onFinished=finished, source=item.origin)
        try:
            if self._folder is not None:
                run.outputFile, isDone = self._target(item.name, run)
                if isDone:
                    run.discard()
                    item.release()
                    self.results.append(ManyResult(item.name, str(run.outputFile), skipped=True))
                    return False
            self._current = run  # before it begins: it may end while it does
            run.begin()
        except BaseException:
            self._current = None
            run.discard()
            raise
        return True

    def _target(self, name, run):
        """The file for the result of `run`, and whether that is there already, made in the same way, and is to be left alone.

        No file is taken twice, and none that was made from other voxels, or by somebody else, or was changed since: of another
        subject, say, whose scan has the same name. Names that differ in case only are one file on Windows and macOS.
        """
        stem, voxels = scene.fileName(self._named(scene.stemOf(name))), None
        there = {_plain(path.name): path for path in self._folder.glob("*.nrrd")}
        entry = self._logic.model(self._model)
        for number in itertools.count(1):
            target = self._folder / (f"{stem}.nrrd" if number == 1 else f"{stem}_{number}.nrrd")
            if _plain(target.name) in self._taken:
                continue
            found = there.get(_plain(target.name))
            target = found or target
            job = jobOf(run.request, run.folder, target)
            finals, isDone = finals_of(job, entry), False
            if found is not None:
                run.export()
                voxels = voxels or {role: digest_of(path) for role, path in job.inputs.items() if role in SOURCES}
                if not _isMadeFrom(voxels, read_record(finals[SIDECAR])):
                    continue
                isDone = bool(self._resume and complete_record(job, entry, finals))
            try:
                check_existing(job, finals)
            except OutputError:
                continue
            self._taken.add(_plain(target.name))
            return target, isDone

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

    @property
    def origin(self):
        """The node of the scene that it comes from, None for a file."""
        return self.source if self.sequence is None else self.sequence[0]

    def node(self, warn=None, allowLabels=False):
        """The volume node to run on; for files and frames a temporary one, which `release` removes.

        warn(code, message): hears what is wrong with it, or doubtful. allowLabels: a file may look like a label map.
        """
        if self.path is not None:
            from MRSuperResLib.io.read import read_volume

            volume = read_volume(self.path, warn=warn, allow_labels=allowLabels)
            node = self._temporaryNode()
            scene.fill(node, volume.array, volume.grid)
            scene.keepTold(node, volume)
            return node
        if self.sequence is not None:
            sequence, index = self.sequence
            frame = sequence.GetNthDataNode(index)
            node = self._temporaryNode()
            node.Copy(frame)
            node.SetName(self.name)
            transform, moves = scene.transformOfFrames(sequence)
            if transform is not None:
                node.SetAndObserveTransformNodeID(transform.GetID())
            if moves and warn is not None:
                text = f"{transform.GetName()}, which moves {sequence.GetName()}, changes with time: it was taken as it is now"
                warn("moving-transform", text)
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


def expanded(items):
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


def _plain(name):
    """The same for names that some file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()


def _isMadeFrom(voxels, record):
    """Whether the record of a result, None if there is none, names the same `voxels` (SHA-256 by role)."""
    inputs = (record or {}).get("inputs")
    made = inputs if isinstance(inputs, dict) else {}
    told = {role: made[role].get("sha256") for role in SOURCES if isinstance(made.get(role), dict)}
    return told == voxels
