"""What the tests of the panel share: scans, models, a process that answers at once, and how Qt's widgets are asked."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import SimpleITK as sitk
import slicer

from MRSuperResLib.models import ModelCard, ModelEntry, Requirements

from . import application


def support(name: str) -> Any:
    """A module of MRSuperResSupport, which can be imported only once the application runs."""
    return importlib.import_module(f"MRSuperResSupport.{name}")


def got(widget: Any, name: str) -> Any:
    return widget.property(name)


def put(widget: Any, name: str, value: Any) -> None:
    assert widget.setProperty(name, value)


def hidden(widget: Any) -> bool:
    """Whether the panel hides it; a window that was never shown hides everything, so only the explicit flag counts."""
    return widget.testAttribute(application.widgets.Qt.WA_WState_ExplicitShowHide) and widget.testAttribute(
        application.widgets.Qt.WA_WState_Hidden
    )


def scan(name: str = "T2 thick", shape: tuple[int, int, int] = (10, 24, 20), spacing: Any = (1.0, 1.0, 4.0)) -> Any:
    """A small volume in the scene: a ball in noise."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    noise = np.random.default_rng(3).normal(size=shape)
    array = 100 * np.exp(-3 * (k**2 + j**2 + i**2)) + noise
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, array.astype(np.float32))
    node.SetSpacing(*spacing)
    node.CreateDefaultDisplayNodes()
    return node


def made(source: Any, name: str = "result", **maps: Any) -> Any:
    """A finer volume as a run on `source` would have left it, with `maps` by their names."""
    result, scenes = scan(name, (20, 24, 20), (1, 1, 2)), support("scene")
    scenes.record(result, "result", source)
    for role, node in maps.items():
        scenes.record(node, role, source)
        scenes.attach(result, role, [node])
    return result


def chosen(panel: Any, module: Any, **fields: Any) -> Any:
    """A scan, interpolation as the model, and `fields` of the parameter node set; returns the scan."""
    node = scan()
    parameters = panel._parameterNode
    parameters.inputVolume = node
    for name, value in {"task": module.Task.THROUGH_PLANE, "model": "bspline", "factor": 2.0, **fields}.items():
        setattr(parameters, name, value)
    return node


def ended(panel: Any, seconds: float = 60.0) -> None:
    application.until(lambda: panel.work.run is None, seconds, "the end of the run")


def translator(**changes: Any) -> ModelEntry:
    values = {
        "id": "mt-test",
        "title": "Translator",
        "version": "1",
        "architecture": "translation",
        "task": "translate",
        "plane": "any",
        "factors": (1.0, 1.0),
        "contrasts": ("T1w", "T2w"),
        "target_contrasts": ("T1w", "T2w", "FLAIR"),
        "spacing": None,
        "licence": "Apache-2.0",
        "intended_use": "Tests. Research use only.",
        "requirements": Requirements(latent=8),
    }
    return ModelEntry(ModelCard(**(values | changes)), Path("mt-test.safetensors"), "0" * 64)


def tip(panel: Any) -> tuple[bool, str]:
    return got(panel.ui.applyButton, "enabled"), got(panel.ui.applyButton, "toolTip")


def folder(*nodes: Any) -> int:
    """The nodes in a folder of the subject hierarchy, called Study; its item."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = int(hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "Study"))
    for node in nodes:
        assert hierarchy.CreateItem(item, node)
    return item


def select(panel: Any, text: str) -> None:
    """Choose in the list of folders and sequences, as it is when the section is opened."""
    put(panel.ui.manyCollapsibleButton, "collapsed", False)
    number = panel.ui.manySelector.findText(text)
    assert number >= 0, [panel.ui.manySelector.itemText(n) for n in range(got(panel.ui.manySelector, "count"))]
    put(panel.ui.manySelector, "currentIndex", number)
    assert got(panel.ui.manyButton, "enabled"), got(panel.ui.manyButton, "toolTip")


def said(panel: Any, monkeypatch: Any) -> list[str]:
    """What the status line says from now on."""
    lines: list[str] = []
    say = panel.work.say
    monkeypatch.setattr(panel.work, "say", lambda text, style="": (lines.append(text), say(text, style)))
    return lines


class Translates:
    """Answers a translation job at once: samples that are the input plus their number, their mean and their spread."""

    jobs: ClassVar[list[dict[str, Any]]] = []
    warnings: ClassVar[list[str]] = []
    loses: ClassVar[bool] = True  # what is bright

    def start(self, job: Path, onLine: Any, onEnd: Any) -> None:
        self.job, self.onLine, self.onEnd = json.loads(Path(job).read_text()), onLine, onEnd
        self.isRunning = True
        self.jobs.append(self.job)

    def cancel(self) -> None:
        raise AssertionError("nobody cancels")

    def pump(self) -> None:
        if not self.isRunning:
            return
        self.isRunning = False
        job, image = self.job, sitk.ReadImage(self.job["input"])
        sitk.WriteImage(image, job["output"])
        drawn = []
        if job["samples_folder"]:
            Path(job["samples_folder"]).mkdir()
            for number in range(1, job["samples"] + 1):
                drawn.append(str(Path(job["samples_folder"]) / f"output_sample-{number:02d}.nrrd"))
                sitk.WriteImage(image + number, drawn[-1])
        maps = {name: job[name] for name in ("error_map", "uncertainty_map")}
        lost = _lost(image, job["flags"], 50 if self.loses else 1e9) if job.get("flags") else None
        for path in filter(None, maps.values()):
            sitk.WriteImage(image * 0 + 1, path)
        outputs = {"output": job["output"], **maps, "flags": job.get("flags"), "samples": drawn}
        provenance = {"translation": {"flags": lost}}
        answer = {"event": "result", "outputs": outputs, "metrics": {}, "provenance": provenance, "seconds": 1.0}
        self.onLine(
            json.dumps({"event": "progress", "stage": "translating", "done": 1, "total": 2, "seconds_left": 3}), False
        )
        if lost and lost["places"]:
            self.onLine(json.dumps({"event": "warning", "code": "flagged", "message": "the scan shows places"}), False)
        for text in self.warnings:
            self.onLine(json.dumps({"event": "warning", "code": "any", "message": text}), False)
        self.onLine(json.dumps(answer), False)
        self.onEnd(0)


def _lost(image: sitk.Image, path: str, level: float) -> dict[str, Any]:
    """Write what is above `level` to `path`, as two places: six lower slices and the rest; and the record of them."""
    array = (sitk.GetArrayFromImage(image) > level).astype(np.uint16)
    array[6:] *= 2
    labels = sitk.GetImageFromArray(array)
    labels.CopyInformation(image)
    sitk.WriteImage(labels, path)
    places = []
    for number in sorted(set(array.ravel()) - {0}):
        inside = np.argwhere(array == number)
        volume = len(inside) * float(np.prod(image.GetSpacing()))
        index = [int(place) for place in inside[len(inside) // 2][::-1]]
        centre = [round(mm, 1) for mm in image.TransformIndexToPhysicalPoint(index)]
        diameter = round(float(np.cbrt(6 * volume / np.pi)), 1)
        places.append(
            {"label": int(number), "volume_mm3": round(volume, 1), "diameter_mm": diameter, "centre_lps_mm": centre}
        )
    return {"count": len(places), "volume_mm3": sum(place["volume_mm3"] for place in places), "places": places}


def pick(box: Any, text: str) -> None:
    """Choose the entry of a list whose text has `text` in it."""
    number = box.findText(text, application.widgets.Qt.MatchContains)
    assert number >= 0, [box.itemText(n) for n in range(got(box, "count"))]
    put(box, "currentIndex", number)


def applied(panel: Any) -> Any:
    """What a run made: the result."""
    assert tip(panel)[0], tip(panel)
    panel.ui.applyButton.click()
    ended(panel)
    return panel._parameterNode.outputVolume


def scalars() -> list[str]:
    """Names of the scalar volumes of the scene."""
    return [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")]
