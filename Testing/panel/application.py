"""`slicer.app`, its layout manager and scene, and `slicer.ScriptedLoadableModule`, on Slicer's own MRML logics."""

from __future__ import annotations

import ast
import atexit
import ctypes
import re
import sys
import time
import types
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
import vtk

from . import hierarchy, parameters, sampledata, widgets
from .views import LayoutManager

RUNNING: list[Application] = []
KEPT: list[Any] = []  # Qt and VTK objects with cycles between them are not for the garbage collector
# PySide6 gives away references to None that are not its own; before Python 3.12 losing the last is fatal. Never freed:
NONES = [None] * 10**6
ctypes.pythonapi.Py_IncRef(ctypes.py_object(NONES))
COLOURS = 256
TRUE_PROPERTY = 2  # the bit of that feature of PySide6
MODULE = Path(__file__).resolve().parents[2] / "MRSuperRes"


class Application:
    """`slicer.app`."""

    applicationName = "Slicer"

    def __init__(self, temporaryPath: Path) -> None:
        self.temporaryPath = str(temporaryPath)
        self.qt = widgets.application()
        self.connected: list[tuple[str, Callable[[], None]]] = []
        self.messages: list[str] = []
        slicer.mrmlScene = slicer.vtkMRMLScene()
        self.logic = slicer.vtkMRMLApplicationLogic()
        self.logic.SetMRMLScene(slicer.mrmlScene)
        self.logic.SetSliceLogics(vtk.vtkCollection())
        self.links = slicer.vtkMRMLSliceLinkLogic()  # as the real application logic has one
        self.links.SetMRMLApplicationLogic(self.logic)
        self.links.SetMRMLScene(slicer.mrmlScene)
        self.colours = slicer.vtkSlicerColorLogic()
        self.colours.SetMRMLScene(slicer.mrmlScene)
        self.sequences = slicer.vtkSlicerSequencesLogic()
        self.sequences.SetMRMLScene(slicer.mrmlScene)
        for name in ("Inferno", "DivergingBlueRed"):
            self._addColours(name)
        for kind in ("vtkMRMLSelectionNode", "vtkMRMLInteractionNode"):
            slicer.mrmlScene.AddNode(getattr(slicer, kind)())
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetSingletonTag("default")
        slicer.mrmlScene.AddNode(crosshair)
        self._layouts = LayoutManager(self)

    def _addColours(self, name: str) -> None:
        """A table that Slicer reads from a file of its own, which slicer-core does not bring: the same ID, other colours."""
        table = slicer.vtkMRMLColorTableNode()
        table.SetTypeToUser()
        table.SetName(name)
        table.SetSingletonTag(f"File{name}.txt")
        table.SetNumberOfColors(COLOURS)
        for number in range(COLOURS):
            share = number / (COLOURS - 1)
            table.SetColor(number, share, share**2, share**3, 1.0)
        slicer.mrmlScene.AddNode(table)

    def close(self) -> None:
        """Let go of the scene in order, views first: VTK's objects do not survive being collected in any other."""
        self._layouts.close()
        self.links.SetMRMLScene(None)
        self.sequences.SetMRMLScene(None)
        self.colours.SetMRMLScene(None)
        self.logic.SetMRMLScene(None)

    def connect(self, signature: str, receiver: Callable[[], None]) -> None:
        self.connected.append((signature, receiver))

    def applicationLogic(self) -> Any:
        return self.logic

    def layoutManager(self) -> LayoutManager:
        return self._layouts

    def moduleManager(self) -> Any:
        return types.SimpleNamespace(connect=lambda *_: None, disconnect=lambda *_: None)

    def userSettings(self) -> Any:
        """The user's settings, of this test alone."""
        return widgets.QtCore.QSettings(
            str(Path(self.temporaryPath) / "Slicer.ini"), widgets.QtCore.QSettings.IniFormat
        )

    def testingEnabled(self) -> bool:
        return True

    def processEvents(self, *flags: Any) -> None:
        self.qt.processEvents(*flags)


class ScriptedLoadableModule:
    """What a module tells the application."""

    def __init__(self, parent: Any) -> None:
        self.parent, self.moduleName = parent, type(self).__name__


class ScriptedLoadableModuleWidget:
    """The panel's frame."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        KEPT.append(self)
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent or widgets.qMRMLWidget()
        self.layout = self.parent.layout() or widgets.QtWidgets.QVBoxLayout(self.parent)

    def resourcePath(self, filename: str) -> str:
        return str(MODULE / "Resources" / filename)

    def setup(self) -> None:
        pass

    def cleanup(self) -> None:
        pass

    def onReload(self) -> None:
        pass


class ScriptedLoadableModuleLogic:
    """Keeps the module's one parameter node."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.vtkMRMLScriptedModuleNode()
            node.SetSingletonTag(self.moduleName)
            node.SetName(self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetModuleName(self.moduleName)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """A self-test; messages are not shown."""

    def runTest(self) -> None:
        pass

    def delayDisplay(self, message: str, *_: Any) -> None:
        slicer.app.messages.append(message)


def translate_here(text: str) -> str:
    """`slicer.i18n.tr`: looked up in the context of the caller's file, and refused if placeholders were translated too."""
    path = Path(sys._getframe(1).f_code.co_filename)
    context = f"{path.parent.name}.{path.stem}" if (path.parent / "__init__.py").is_file() else path.stem
    translated = widgets.QtCore.QCoreApplication.translate(context, text)
    pattern = r"(?<!\{)\{([^\{\}]+)\}(?!\})"
    return translated if set(re.findall(pattern, text)) == set(re.findall(pattern, translated)) else text


def start(temporaryPath: Path) -> Application:
    """The application, one a process, with an empty scene; the module's folder is on the path, as Slicer puts it."""
    if RUNNING:
        application = slicer.app = RUNNING[0]
        slicer.mrmlScene = application.logic.GetMRMLScene()
        slicer.mrmlScene.Clear(False)
        slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(
            slicer.mrmlScene
        ).RemoveAllItems()  # as its plugins do
        application.temporaryPath = str(temporaryPath)
        application.messages.clear()
        return application
    if str(MODULE) not in sys.path:
        sys.path.insert(0, str(MODULE))
    base = types.ModuleType("slicer.ScriptedLoadableModule")
    for kind in (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    ):
        setattr(base, kind.__name__, kind)
    words = types.ModuleType("slicer.i18n")
    words.tr, words.translate = translate_here, widgets.QtCore.QCoreApplication.translate
    made = {
        "slicer.ScriptedLoadableModule": base,
        "slicer.i18n": words,
        **parameters.modules(),
        **widgets.modules(),
        **sampledata.modules(),
        **hierarchy.modules(),
    }
    sys.modules.update(made)
    for name, module in made.items():
        if name.startswith("slicer."):
            setattr(slicer, name.removeprefix("slicer."), module)
    slicer.qMRMLNodeComboBox, slicer.qMRMLWidget = widgets.qMRMLNodeComboBox, widgets.qMRMLWidget
    slicer.app = Application(temporaryPath)
    RUNNING.append(slicer.app)
    atexit.register(slicer.app.close)
    colours = types.SimpleNamespace(logic=lambda: slicer.vtkSlicerColorLogic)
    slicer.modules = types.SimpleNamespace(colors=colours)
    return slicer.app


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Process events until `condition()`; fail after `seconds`, saying `what` did not happen."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        slicer.app.processEvents()
        time.sleep(0.01)


def _shieldTorch() -> None:
    """Qt's feature switch reads the source of every loaded module, and torch.classes answers any question with an error."""
    classes = sys.modules.get("torch.classes")
    if classes is not None:
        vars(classes)["__wrapped__"] = None  # where `inspect.unwrap` stops


def load(name: str = "MRSuperRes") -> types.ModuleType:
    """The module's own file, unchanged but for one import: Qt properties as attributes, which PythonQt always has."""
    _shieldTorch()
    from shibokensupport.feature import pyside_feature_dict

    path = MODULE / f"{name}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    feature = ast.ImportFrom(module="__feature__", names=[ast.alias("true_property")], level=0)
    tree.body.insert(1, ast.copy_location(feature, tree.body[0]))
    module = types.ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    for plain in ("MRSuperResSupport.run", "MRSuperResSupport.compare", "slicer.util", __name__):
        pyside_feature_dict[plain] = 0  # they set Qt's properties by functions, which PythonQt has too
    for file in (MODULE / "MRSuperResSupport").glob("*.py"):
        if file.stem == "part" or file.stem.endswith("_view"):
            pyside_feature_dict[f"MRSuperResSupport.{file.stem}"] = TRUE_PROPERTY
    exec(compile(ast.fix_missing_locations(tree), str(path), "exec"), vars(module))
    return module
