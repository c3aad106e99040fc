"""Many runs, one after another: nodes, files, folders of the subject hierarchy, frames of sequences."""

import hashlib
import itertools
import json
import time
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import slicer

from MRSuperResLib import models
from MRSuperResLib.documents import encode
from MRSuperResLib.errors import Cancelled, MRSuperResError, UsageError
from MRSuperResLib.private import PrivateFolder
from MRSuperResLib.provenance import sidecar_path

from . import scene
from .run import MAP_NAMES, MAPS, PREFIX, Run, RunRequest, jobOf, mapFile, temporaryPath


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
        node = item.node()
        contrast = self._options.get("contrast") or scene.guessContrast(node) or self._otherContrast
        options = {**self._options, "contrast": contrast}
        if item.sequence is not None:  # whose frames cannot hold them
            options["keepSamples"] = options["flags"] = False
        if isinstance(options.get("spacing"), (int, float)) and not scene.refusal(node):
            options["spacing"] = scene.refinedSpacing(node, options.get("plane"), options["spacing"])
        request = self._logic.marked(RunRequest(input=node, model=self._model, **options))
        target = None
        if self._folder is not None:
            target, voxels = self._target(item.name, request)
            if self._resume and voxels and _isDone(target, request, voxels):
                item.release()
                self.results.append(ManyResult(item.name, str(target), skipped=True))
                return False
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

    def _target(self, name, request):
        """The file for a result, and the SHA-256 of the voxels if it is there already, made from them.

        No file is taken twice, and none that was made from other voxels, or by somebody else: of another subject, say, whose
        scan has the same name. Names that differ in case only are one file on Windows and macOS.
        """
        stem, voxels = scene.fileName(self._named(scene.stemOf(name))), None
        there = {_plain(path.name): path for path in self._folder.glob("*.nrrd")}
        for number in itertools.count(1):
            target = self._folder / (f"{stem}.nrrd" if number == 1 else f"{stem}_{number}.nrrd")
            if _plain(target.name) in self._taken:
                continue
            found = there.get(_plain(target.name))
            if found is not None:
                voxels = voxels or _digestOf(request.input)
                if voxels != _madeFrom(found):
                    continue
                target = found
            self._taken.add(_plain(target.name))
            return target, voxels if found is not None else None

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
            from MRSuperResLib.io.read import read_volume

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


def _isDone(target, request, voxels):
    """Whether `target` was made from those voxels, where they lie, by the same model in the same way, maps included."""
    maps = [mapFile(target, name) for name in MAPS if getattr(request, name)]
    record = _recordOf(target)
    job = jobOf(request, Path(temporaryPath() or "."), target)
    return (
        all(path.is_file() for path in (target, *maps))
        and _madeFrom(target) == voxels
        and record.get("model", {}).get("digest") == models.find_model(request.model).digest
        and record.get("parameters") == encode(job.parameters)
    )


def _plain(name):
    """The same for names that some file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()


def _digestOf(node):
    """SHA-256 of a node's voxels and their place, as the worker gets them."""
    with PrivateFolder(temporaryPath(), PREFIX) as private:
        scene.export(node, private.path / "input.nrrd")
        return hashlib.sha256((private.path / "input.nrrd").read_bytes()).hexdigest()


def _recordOf(target):
    """The record beside a result; empty if there is none."""
    try:
        record = json.loads(Path(sidecar_path(str(target))).read_text(encoding="utf-8"))
        return record if isinstance(record, dict) and isinstance(record.get("model"), dict) else {}
    except (OSError, ValueError):
        return {}


def _madeFrom(target):
    """SHA-256 of what a result was made from; None if its record does not tell."""
    inputs = _recordOf(target).get("inputs")
    scan = inputs.get("input") if isinstance(inputs, dict) else None
    return scan.get("sha256") if isinstance(scan, dict) else None
