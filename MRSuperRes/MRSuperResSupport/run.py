"""One run: the volume is exported, a child process computes, the result comes into the scene."""

import base64
import contextlib
import itertools
import json
import logging
import os
import time
from dataclasses import dataclass, field, make_dataclass
from typing import Any

import slicer

from MRSuperResLib.errors import Cancelled, MRSuperResError, UsageError
from MRSuperResLib.jobs import Job
from MRSuperResLib.jobs.job import fields
from MRSuperResLib.private import PrivateFolder, remove_dead
from MRSuperResLib.staging import clean

from . import places, scene
from .words import _

try:
    import qt
except ImportError:  # a script without Qt: runs are then pumped by whoever waits for them
    qt = None

POLL_MILLISECONDS = 50
PREFIX = "MRSuperRes-"  # of the folders, in Slicer's temporary folder, through which volumes go to the worker and back
MAPS = {"errorMap": "error_map", "consistencyMap": "consistency_map", "uncertaintyMap": "uncertainty_map"}
CANCELLED = "cancelled; nothing was changed"
MAP_NAMES = {"errorMap": "error", "consistencyMap": "consistency", "uncertaintyMap": "uncertainty"}


def _settings():
    """The fields of a job that are no files: by the name they have in Slicer, and what the job says of each."""
    parts = {field.name: field.name.split("_") for field in fields() if field.role not in ("input", "output")}
    names = {name: first + "".join(word.title() for word in rest) for name, (first, *rest) in parts.items()}
    return {names[field.name]: field for field in fields() if field.name in names and field.name not in NOT_ASKED}


NOT_ASKED = ("model", "schema", "series", "overwrite", "skip_existing", "preview", "model_folders")
SETTINGS = _settings()
# Text that is not given is "", as in Qt.
_Settings = make_dataclass(
    "_Settings",
    [
        (name, Any, "" if setting.kind is str and not setting.choices and setting.default is None else setting.default)
        for name, setting in SETTINGS.items()
    ],
    kw_only=True,
)


@dataclass
class RunRequest(_Settings):
    """One volume, one model, and what to make of them.

    input, reference, truth: volume nodes. output, errorMap, consistencyMap, uncertaintyMap: a node to fill, True to make one;
    for a map, None not to. flags: whether a translation marks what it may have lost, None where that can be done (see
    `MRSuperResLogic.canFlag`). keepSamples: each sample of a translation becomes a node. The rest are the fields of a job, with
    its defaults (`MRSuperResLib.jobs.job.fields()` says what each means): task, plane, sliceAxis, factor, spacing (mm along i,
    j, k), contrast, referenceContrast, register, samples, seed, target, superResolveWith, project, profile, thickness, device,
    precision, tile, batch, threads.
    """

    input: Any
    model: str
    reference: Any = None
    truth: Any = None
    keepSamples: bool = True
    output: Any = None
    errorMap: Any = None
    consistencyMap: Any = None
    uncertaintyMap: Any = None
    flags: bool | None = None


@dataclass
class RunResult:
    """What a run made. metrics: against the ground truth, if there was one. `scene.attached` finds maps and samples again."""

    output: Any
    errorMap: Any = None
    consistencyMap: Any = None
    uncertaintyMap: Any = None
    flags: Any = None
    samples: list = field(default_factory=list)
    metrics: dict = field(default_factory=dict)
    provenance: dict = field(default_factory=dict)
    warnings: list = field(default_factory=list)
    seconds: float = 0.0


class Run:
    """One run: exported, computed in a child process, imported.

    Once it is cancelled nothing of it reaches the scene, whatever the process still says. A result that is in the scene stays.
    source: the node that the input is a copy of, if it is one: without it in the scene, the run stops.
    """

    def __init__(
        self,
        request,
        process,
        onProgress=None,
        onWarning=None,
        onLog=None,
        onFinished=None,
        outputFile=None,
        onPreview=None,
        source=None,
    ):
        self.request, self.error, self.result, self.warnings = request, None, None, []
        self.outputFile = outputFile
        self._process, self._onPreview = process, onPreview
        self._onProgress, self._onWarning, self._onLog, self._onFinished = onProgress, onWarning, onLog, onFinished
        self._private = self._answer = self._failure = None
        self._lastErrors, self._cancelled, self.isRunning = [], False, False
        self._source = source if source is not None else request.input
        self._gone = False  # the input left the scene
        self._made = []  # new nodes of the result

    def begin(self):
        """Export and start; raises `MRSuperResError`, leaving nothing behind."""
        try:
            checkOutputs(self.request)
            job = jobOf(self.request, self.folder, self.outputFile, preview=self._onPreview is not None)
            self.export()
            path = self.folder / "job.json"
            path.write_text(job.to_json(), encoding="utf-8")
            self._process.start(path, self._line, self._end)
        except MRSuperResError:
            self._clean()
            raise
        except (OSError, RuntimeError, ValueError) as error:  # ITK's are RuntimeErrors, of a full disk for one
            self._clean()
            raise MRSuperResError(f"the worker could not be started: {error}", code="no-worker") from error
        self.isRunning = True
        if self._cancelled:
            self._process.cancel()
        self._poll()

    @property
    def folder(self):
        """The folder of its own through which volumes go to the worker and back, made when it is first needed."""
        if self._private is None:
            removeDead()
            self._private = PrivateFolder(temporaryPath(), PREFIX)
        return self._private.path

    def export(self):
        """Write the volumes that are read into `folder`, once."""
        for role in ("input", "reference", "truth"):
            node, path = getattr(self.request, role), self.folder / f"{role}.nrrd"
            if (node or role == "input") and not path.exists():
                scene.export(node, path, self._warn)
                scene.tell(node, path)

    def discard(self):
        """Remove what it has written: it is not begun, or is over."""
        self._clean()

    def _poll(self):
        """Keep pumping as long as it runs. Single shots, because a timer must not be deleted in its own call."""
        try:
            self.pump()
        finally:
            if self.isRunning and qt is not None:
                qt.QTimer.singleShot(POLL_MILLISECONDS, self._poll)

    def cancel(self):
        """End the run: within two seconds nothing of it computes, and nothing of it stays in the scene or on disk."""
        if self.error is not None or self.result is not None:  # too late
            return
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
        if not self.isRunning:
            return
        live = all(map(slicer.mrmlScene.IsNodePresent, (self.request.input, self._source)))
        if not self._cancelled and not live:
            self._gone = True
            self.cancel()
        self._process.pump()

    def _line(self, line, isError):
        if not self.isRunning:
            return
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
        elif kind == "preview":
            pixels = base64.b64decode(event["pixels"])
            self._tell(self._onPreview, event["rows"], event["columns"], event["spacing"], pixels)
        elif kind == "warning":
            self._warn(event["code"], event["message"])
        elif kind == "result":
            self._answer = event
        elif kind == "error":
            self._failure = event
        elif kind == "started":
            self._tell(self._onLog, f"{event['model']} on {event['device']} ({event['precision']})")

    def _warn(self, code, message):
        self.warnings.append(message)
        self._tell(self._onWarning, code, message)

    def _tell(self, callback, *values):
        if callback is None or self._cancelled:
            return
        try:
            callback(*values)
        except Exception:  # of a script's callback: it must not leave a run that nobody follows
            logging.exception("MRSuperRes: what was told could not be shown")

    def _end(self, code):
        if not self.isRunning:
            return
        try:
            self.error = self._errorOf(code)
            if self.error is None:
                self.result = self._imported()
        except MRSuperResError as error:
            self.error = error
        except Exception as error:  # of a file, or of whoever watches the scene: nobody may wait for this run for ever
            logging.exception("MRSuperRes: the result could not be brought into the scene")
            self.error = MRSuperResError(f"the result could not be brought into the scene: {error}", code="import")
        finally:
            self._clean()
        if self._onFinished is not None:
            self._onFinished(self)

    def _errorOf(self, code):
        if self._gone:
            return gone(self._source)
        if self._cancelled or (self._failure or {}).get("code") == "cancelled":
            return Cancelled(CANCELLED)
        if self._failure is not None:
            return MRSuperResError(self._failure["message"], code=self._failure["code"])
        if self._answer is None or code != 0:
            last = next((line for line in reversed(self._lastErrors) if line.strip()), "it said nothing")
            ended = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            hint = " (out of memory?)" if code in (-9, 137) else ""
            return MRSuperResError(f"the worker {ended}{hint}: {last}", code="crash")
        return None

    def _imported(self):
        answer = self._answer
        known = {"metrics": answer["metrics"], "provenance": answer["provenance"], "seconds": answer["seconds"]}
        result = RunResult(None, **known, warnings=self.warnings)
        if self.outputFile is not None:
            result.output = str(self.outputFile)
            return result
        outputs = answer["outputs"]
        loaded = {key: scene.load(outputs[key]) for key in ("output", "flags", *MAPS.values()) if outputs.get(key)}
        samples = [scene.load(path) for path in outputs.get("samples") or []]
        if self._cancelled:  # all that takes time is over: what follows happens at once, or not at all
            raise Cancelled(CANCELLED)
        self._made = []
        try:
            with _batch():
                self._bring(result, loaded, samples)
        except BaseException:
            for node in self._made:
                slicer.mrmlScene.RemoveNode(node)
            raise
        return result

    def _bring(self, result, loaded, samples):
        """Fill `result` with nodes. loaded: (array, grid) by the job's name of the file; samples: (array, grid) each."""
        request = self.request
        source = request.input
        before, after = scene.gridOf(source).spacing, loaded["output"][1].spacing
        factor = max(old / new for old, new in zip(before, after, strict=True))
        name = scene.resultName(source.GetName(), request.model, factor, request.target, request.superResolveWith)
        former = self._former()
        result.output = self._node(request.output, name, loaded["output"], "result", like=not request.target)
        for attribute, key in MAPS.items():
            if key in loaded:
                place = self._place(getattr(request, attribute), former[attribute])
                made = self._node(place, f"{name} {MAP_NAMES[attribute]}", loaded[key], attribute)
                scene.colourMap(made, signed=attribute == "consistencyMap")
                setattr(result, attribute, made)
            scene.attach(result.output, attribute, filter(None, [getattr(result, attribute)]))
        for number, sample in enumerate(samples, start=1):
            made = self._node(self._place(True, former["sample"]), f"{name} sample {number}", sample, "sample")
            scene.show(made, result.output)  # one window for all: they differ by what they show
            result.samples.append(made)
        scene.attach(result.output, "sample", result.samples)
        result.flags = self._flags(f"{name} flags", loaded.get("flags"), former[places.ROLE])
        if result.flags is not None:
            result.flags.SetReferenceImageGeometryParameterFromVolumeNode(result.output)
        scene.attach(result.output, places.ROLE, filter(None, [result.flags]))
        scene.attach(result.output, "segmentation", scene.segmentationsOf(source))
        for node in itertools.chain(*former.values()):
            slicer.mrmlScene.RemoveNode(node)

    def _former(self):
        """By role, the samples and maps that came with what the output holds until now, but for those this run is given."""
        request, roles = self.request, ("sample", places.ROLE, *MAPS)
        given = [getattr(request, role) for role in ("input", "reference", "truth", *MAPS)]
        known = {role: scene.attached(request.output, role) if _isLive(request.output) else [] for role in roles}
        return {role: [node for node in nodes if node not in given] for role, nodes in known.items()}

    @staticmethod
    def _place(wanted, former):
        """The node asked for, else one of the `former`, which it takes out of there, else True for a new one."""
        return wanted if _isLive(wanted) or not former else former.pop(0)

    def _flags(self, name, loaded, former):
        """A segmentation of the places that the translation may have lost, None if there are none."""
        array, grid = loaded or (None, None)
        if array is None or not array.any():
            return None
        node = former.pop(0) if former else self._kept(scene.create(name, "vtkMRMLSegmentationNode"))
        node.CreateDefaultDisplayNodes()
        places.fill(node, array, grid, self._answer["provenance"]["translation"]["flags"]["places"])
        scene.placeBeside(node, self.request.input)
        scene.record(node, places.ROLE, self.request.input)
        return node

    def _node(self, wanted, name, loaded, role, like=False):
        """A node with the voxels `loaded`, beside the input; like: with its window, colours and units."""
        source, provenance = self.request.input, self._answer["provenance"]
        node = wanted if _isLive(wanted) else self._kept(scene.create(name))
        scene.fill(node, *loaded)
        scene.show(node, source if like else None)
        scene.placeBeside(node, source)
        scene.describeAsSeries(node, source)
        kept = ("model", "parameters", "versions", "created", "statement")
        known = {key: provenance[key] for key in kept if key in provenance}
        scene.record(node, role, source, known, self._answer["metrics"] if role == "result" else None)
        return node

    def _kept(self, node):
        """`node`, which is new: it goes again if the others that belong to it cannot be made."""
        self._made.append(node)
        return node

    def _clean(self):
        self.isRunning = False
        if self._private is not None:
            self._private.remove()
        if self.outputFile is not None and self.error is not None:  # a worker ended by force cannot clean up
            clean(self.outputFile.parent)


def gone(node):
    """The error of a run whose input `node` left the scene."""
    return Cancelled(_("{name} was removed from the scene: stopped.").format(name=node.GetName()), code="gone")


def wait(run):
    """Keep the application alive until `run` has ended."""
    application = getattr(slicer, "app", None)
    while run.isRunning:
        run.pump()
        if application is not None:
            application.processEvents()
        time.sleep(0.01)


def jobOf(request, folder, outputFile=None, preview=False):
    """The job of a request, whose files lie in `folder`; preview: with the middle slice first.

    Raises `UsageError` for what contradicts itself.
    """
    files = {"input": folder / "input.nrrd", "output": outputFile or folder / "output.nrrd"}
    files |= {role: folder / f"{role}.nrrd" for role in ("reference", "truth") if getattr(request, role)}
    for name, key in MAPS.items():
        if getattr(request, name):
            files[key] = mapFile(outputFile, name) if outputFile else folder / f"{key}.nrrd"
    if request.flags:
        files["flags"] = outputFile.with_name(f"{outputFile.stem}_flags.nrrd") if outputFile else folder / "flags.nrrd"
    if request.keepSamples and request.samples and request.samples > 1 and outputFile is None:  # nodes, never files
        files["samples_folder"] = folder / "samples"
    settings = {setting.name: getattr(request, name) for name, setting in SETTINGS.items()}
    given = {name: value for name, value in settings.items() if value not in (None, "")}
    if "super_resolve_with" in given:
        given["super_resolve_with"] = _model(given["super_resolve_with"])
    if "spacing" in given:
        given["spacing"] = list(given["spacing"])
    given |= {"model": _model(request.model), "preview": preview}
    return Job.from_json({**given, **{name: str(path) for name, path in files.items()}})


def _model(name):
    """A model's id, or the whole path of its file: the worker runs in a folder of its own."""
    return os.path.abspath(os.path.expanduser(name)) if str(name).endswith(".safetensors") else name


def checkOutputs(request):
    """Raise `UsageError` for a node that cannot hold an output, or that holds something else of this run."""
    inputs = [node for node in (request.input, request.reference, request.truth) if node is not None]
    given = {}  # by ID: what it is to hold
    for role in ("output", *MAPS):
        node, what = getattr(request, role), f"{MAP_NAMES[role]} map" if role in MAPS else "result"
        if not _isLive(node):
            continue
        if node.GetClassName() != scene.VOLUME_CLASS:
            raise UsageError(f"{node.GetName()} is no scalar volume, which the {what} is: choose another, or a new one")
        if node in inputs:
            raise UsageError(
                f"{node.GetName()} is read by this run: choose another volume for the {what}, or a new one"
            )
        if node.GetID() in given:
            both = f"the {given[node.GetID()]} and the {what}"
            raise UsageError(f"{node.GetName()} cannot hold both {both}: choose another for one of them, or a new one")
        given[node.GetID()] = what


def mapFile(outputFile, name):
    """Where the map of that name goes beside a result in a file."""
    return outputFile.with_name(f"{outputFile.stem}_{MAP_NAMES[name]}.nrrd")


def _isLive(node):
    """Whether what a request holds for an output is a node of the scene, and not None or True."""
    return node not in (None, True) and bool(slicer.mrmlScene.IsNodePresent(node))


def removeDead():
    """Remove what runs of a Slicer that crashed have left in the temporary folder: the voxels of a patient."""
    remove_dead(temporaryPath(), PREFIX)


def temporaryPath():
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
