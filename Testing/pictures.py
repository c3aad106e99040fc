"""Draw the pictures that README shows: `make demo`, then `python Testing/pictures.py demo-output [FOLDER]`.

The panel is the module's own, and shows the scan, the truth and the result of the demo (ICBM 152, whose licence permits
publishing). Slice views are drawn by MRML's own slice logics, cross-hair and colour legend. Around them stands in what
`panel` has; no window is opened. Needs slicer-core, PySide6 and an OpenGL that draws offscreen (EGL, Mesa's software too).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import slicer
import vtk

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "Testing")]

from panel import application  # noqa: E402
from panel.widgets import QtCore, QtGui  # noqa: E402
from vtkmodules.util.numpy_support import vtk_to_numpy  # noqa: E402

VIEW = (420, 460)  # pixels of a slice view
BAR = 26  # pixels of the coloured bar above it
PANEL_WIDTH = 400
ZOOM = 0.97  # of the field that shows all of the slab
# Where the cross-hair is, as shares of the scan's box along R, A and S.
PLACE = (0.42, 0.3, 0.53)
INFERNO = "000004 1f0c48 550f6d 88226a ba3655 e35933 f98e09 f9c932 fcffa4"  # matplotlib's, at equal steps
MANAGERS = ("vtkMRMLCrosshairDisplayableManager", "vtkMRMLColorLegendDisplayableManager")
MODEL = "disvit-through-x4"


class Finished:
    """A worker that has done its job already: the demo's files are its answer."""

    def __init__(self, demo: Path) -> None:
        self._demo, self.isRunning = demo, False

    def start(self, job: Path, onLine: Any, onEnd: Any) -> None:
        self._job, self._onLine, self._onEnd, self.isRunning = json.loads(job.read_text()), onLine, onEnd, True

    def cancel(self) -> None:
        raise AssertionError("nobody cancels")

    def pump(self) -> None:
        if not self.isRunning:
            return
        self.isRunning = False
        record = json.loads((self._demo / f"{MODEL}.json").read_text())
        made = {"output": self._demo / f"{MODEL}.nii.gz", "error_map": self._demo / f"{MODEL}_error.nii.gz"}
        outputs = {name: self._job[name] for name in made}
        for name, source in made.items():
            sitk.WriteImage(sitk.ReadImage(str(source)), outputs[name])
        answer = {"event": "result", "outputs": outputs, "metrics": record["metrics"], "provenance": record}
        self._onLine(json.dumps(answer | {"seconds": record["timings"]["total"]}), False)
        self._onEnd(0)


def scan(path: Path, name: str) -> Any:
    """The file as a node of the scene."""
    scenes = sys.modules["MRSuperResSupport.scene"]
    node = scenes.create(name)
    scenes.fill(node, *scenes.load(path))
    node.CreateDefaultDisplayNodes()
    return node


def applied(module: Any, demo: Path) -> Any:
    """The panel after a run with an error map and scores."""
    panel = module.MRSuperResWidget()
    panel.setup()
    panel.logic._process = lambda: Finished(demo)
    parameters = panel._parameterNode
    parameters.inputVolume = scan(demo / "acquired.nii.gz", "T1w, 4 mm slices")
    parameters.truthVolume = scan(demo / "truth.nii.gz", "T1w, 1 mm")
    parameters.task, parameters.model = module.Task.THROUGH_PLANE, MODEL
    panel.ui.applyButton.click()
    application.until(lambda: panel.work.run is None, 60, "the end of the run")
    assert parameters.outputVolume is not None, panel.ui.statusLabel.property("text")
    return panel


class View:
    """A slice view as Slicer makes it: MRML's slice logic and displayable managers, drawn into a window nobody sees."""

    def __init__(self, name: str) -> None:
        widget = slicer.app.layoutManager().sliceWidget(name)
        self.node = widget.mrmlSliceNode()
        self.node.SetDimensions(*VIEW, 1)
        self.window, renderer, interactor = (
            vtk.vtkRenderWindow(),
            vtk.vtkRenderer(),
            vtk.vtkGenericRenderWindowInteractor(),
        )
        self.window.SetOffScreenRendering(1)
        self.window.SetSize(*VIEW)
        self.window.AddRenderer(renderer)
        interactor.SetRenderWindow(self.window)
        mapper, picture = vtk.vtkImageMapper(), vtk.vtkActor2D()
        mapper.SetInputConnection(widget.sliceLogic().GetImageDataConnection())
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        picture.SetMapper(mapper)
        renderer.AddViewProp(picture)
        self._group = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance().InstantiateDisplayableManagers(
            renderer
        )
        self._group.SetMRMLDisplayableNode(self.node)
        application.KEPT.append((self, renderer, interactor, mapper))

    def drawn(self) -> QtGui.QImage:
        """What the view shows now."""
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.Update()
        pixels = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars()).reshape(VIEW[1], VIEW[0], 3)
        image = np.ascontiguousarray(pixels[::-1])
        return QtGui.QImage(image.data, *VIEW, 3 * VIEW[0], QtGui.QImage.Format.Format_RGB888).copy()


def compared(panel: Any) -> list[View]:
    """The views after Compare, at a place with many folds."""
    compare = sys.modules["MRSuperResSupport.compare"]
    panel.ui.compareButton.click()  # the layout has views now
    views = [View(name) for name in compare.VIEWS]
    panel.ui.compareButton.click()  # in their size
    low = slicer.mrmlScene.GetNodeByID(compare.compositeNode(compare.VIEWS[0]).GetBackgroundVolumeID())
    bounds = [0.0] * 6
    low.GetRASBounds(bounds)
    place = [(1 - share) * bounds[2 * axis] + share * bounds[2 * axis + 1] for axis, share in enumerate(PLACE)]
    for view in views:
        view.node.SetOrientation("Coronal")  # the demo's scan is a slab
        slicer.app.layoutManager().sliceWidget(view.node.GetLayoutName()).sliceLogic().FitSliceToBackground()
    across, down, depth = views[0].node.GetFieldOfView()
    for view in views:
        view.node.SetFieldOfView(ZOOM * across, ZOOM * down, depth)
        view.node.JumpSliceByCentering(*place)
    slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode").SetCrosshairRAS(place)
    return views


def useInferno() -> None:
    """The colours that Slicer reads from its file Inferno.txt, interpolated between nine of them."""
    known = np.array([list(bytes.fromhex(colour)) for colour in INFERNO.split()]) / 255
    table = slicer.mrmlScene.GetNodeByID("vtkMRMLColorTableNodeFileInferno.txt")
    places = np.linspace(0, application.COLOURS - 1, len(known))
    channels = [np.interp(np.arange(application.COLOURS), places, channel) for channel in known.T]
    for number, colour in enumerate(zip(*channels, strict=True)):
        table.SetColor(number, *(float(value) for value in colour), 1.0)


def comparison(views: list[View]) -> QtGui.QImage:
    """The compare layout: its views in a row, each under a bar in its colour with its label and what it shows."""
    compare = sys.modules["MRSuperResSupport.compare"]
    labels = [view.node.GetLayoutLabel() for view in views]
    gap = 4
    whole = QtGui.QImage((VIEW[0] + gap) * 3 - gap, VIEW[1] + BAR, QtGui.QImage.Format.Format_RGB888)
    whole.fill(QtGui.QColor("#202020"))
    painter = QtGui.QPainter(whole)
    for number, (view, label, colour) in enumerate(zip(views, labels, compare.VIEW_COLOURS, strict=True)):
        composite = compare.compositeNode(view.node.GetLayoutName())
        shown = composite.GetForegroundVolumeID() or composite.GetBackgroundVolumeID()
        left = number * (VIEW[0] + gap)
        bar = QtCore.QRect(left, 0, VIEW[0], BAR)
        painter.fillRect(bar, QtGui.QColor(colour))
        painter.setPen(QtGui.QColor("white"))
        text = f"{label}: {slicer.mrmlScene.GetNodeByID(shown).GetName()}"
        painter.drawText(bar.adjusted(8, 0, -8, 0), QtCore.Qt.AlignmentFlag.AlignVCenter, text)
        painter.drawImage(left, BAR, view.drawn())
    painter.end()
    return whole


def panelPicture(panel: Any) -> QtGui.QImage:
    """The panel at the width that Slicer gives it, as tall as it needs."""
    frame = panel.parent
    frame.setAttribute(QtCore.Qt.WidgetAttribute.WA_DontShowOnScreen)
    frame.show()
    for _settle in range(3):
        frame.resize(PANEL_WIDTH, max(frame.layout().heightForWidth(PANEL_WIDTH), frame.minimumSizeHint().height()))
        slicer.app.processEvents()
    return frame.grab().toImage()


def main(demo: Path, folder: Path) -> None:
    """Show the demo in the panel, and write panel.png and compare.png into `folder`."""
    with tempfile.TemporaryDirectory() as temporary:
        application.start(Path(temporary))
        useInferno()
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(slicer.app.logic)
        for manager in MANAGERS:
            factory.RegisterDisplayableManager(manager)
        module = application.load()
        panel = applied(module, demo)
        views = compared(panel)
        for name, image in (("panel", panelPicture(panel)), ("compare", comparison(views))):
            assert image.save(str(folder / f"{name}.png")), folder
            print(folder / f"{name}.png")
        panel.cleanup()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else REPOSITORY / "Resources" / "Screenshots")
