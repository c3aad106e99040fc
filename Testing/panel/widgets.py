"""`qt`, `ctk` and the qMRML widgets on PySide6, as far as the panel uses them."""

from __future__ import annotations

import os
import types
from collections.abc import Callable
from typing import Any, ClassVar

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets
from PySide6.QtCore import Qt, Signal

NO_NODE = "None"


QtCore.QObject.name = property(lambda self: str(self.property("objectName") or ""))


class ctkCollapsibleButton(QtWidgets.QGroupBox):
    """A section with a title; its contents hide when it is collapsed."""

    contentsCollapsed = Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._collapsed = False
        self._title = ""

    def _text(self) -> str:
        return self._title

    def _setText(self, text: str) -> None:
        self._title = text
        self._draw()

    text = QtCore.Property(str, _text, _setText)

    def _isCollapsed(self) -> bool:
        return self._collapsed

    def _setCollapsed(self, collapsed: bool) -> None:
        self._collapsed = bool(collapsed)
        self._draw()
        self.contentsCollapsed.emit(self._collapsed)

    collapsed = QtCore.Property(bool, _isCollapsed, _setCollapsed)

    def _draw(self) -> None:
        self.setProperty("title", ("▸ " if self._collapsed else "▾ ") + self._title)
        self.setProperty("maximumHeight", 26 if self._collapsed else 16777215)


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider beside a spin box."""

    valueChanged = Signal(float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider, self._box = QtWidgets.QSlider(Qt.Horizontal), QtWidgets.QDoubleSpinBox()
        layout.addWidget(self._slider)
        layout.addWidget(self._box)
        self._slider.setProperty("maximum", 1000)
        self._box.valueChanged.connect(self._follow)
        self._slider.sliderMoved.connect(self._lead)

    def _span(self) -> float:
        return float(self._box.property("maximum")) - float(self._box.property("minimum"))

    def _follow(self, value: float) -> None:
        low, span = float(self._box.property("minimum")), self._span()
        self._slider.setProperty("value", round(1000 * (value - low) / span) if span else 0)
        self.valueChanged.emit(value)

    def _lead(self, position: int) -> None:
        self._box.setProperty("value", float(self._box.property("minimum")) + self._span() * position / 1000)

    def _forward(kind: type, name: str) -> Any:
        return QtCore.Property(
            kind,
            lambda self: kind(self._box.property(name)),
            lambda self, value: self._box.setProperty(name, kind(value)),
        )

    value = _forward(float, "value")
    minimum = _forward(float, "minimum")
    maximum = _forward(float, "maximum")
    singleStep = _forward(float, "singleStep")
    decimals = _forward(int, "decimals")


class ctkPathLineEdit(QtWidgets.QLineEdit):
    """A path; the real one has a button that browses."""

    currentPathChanged = Signal(str)
    currentPath = QtCore.Property(
        str, lambda self: self.property("text"), lambda self, path: self.setProperty("text", path)
    )


class qMRMLWidget(QtWidgets.QWidget):
    """The top of a module's panel: hands the scene down to the widgets connected to it in the .ui file."""

    receivers: tuple[str, ...] = ()  # names connected to mrmlSceneChanged, read from the .ui file by the loader
    isEntered = True

    def setMRMLScene(self, scene: Any) -> None:
        for name in self.receivers:
            self.findChild(QtWidgets.QWidget, name).setMRMLScene(scene)


class qMRMLSortFilterProxyModel(QtCore.QObject):
    """Which nodes a list leaves out; only these IDs are modelled."""

    def __init__(self, box: qMRMLNodeComboBox) -> None:
        super().__init__(box)
        self._box, self._hidden = box, []

    def _read(self) -> list[str]:
        return self._hidden

    def _write(self, identities: Any) -> None:
        self._hidden = list(identities)
        self._box._list()

    hiddenNodeIDs = QtCore.Property("QStringList", _read, _write)


class qMRMLNodeComboBox(QtWidgets.QComboBox):
    """Lists the nodes of its types; follows additions, removals and renaming."""

    currentNodeChanged = Signal(object)
    nodeActivated = Signal(object)  # by the user only

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._tags: list[int] = []
        self._nodes: list[Any] = []
        self._current: Any = None
        self._types: list[str] = []
        self._flags = {"noneEnabled": False, "noneDisplay": NO_NODE}
        self._model = qMRMLSortFilterProxyModel(self)
        self.activated.connect(self._chosen)

    def _flag(name: str, kind: type = bool) -> Any:
        def write(self: qMRMLNodeComboBox, value: Any) -> None:
            self._flags[name] = value
            self._list()

        return QtCore.Property(kind, lambda self: self._flags.get(name, kind()), write)

    noneEnabled = _flag("noneEnabled")
    addEnabled = _flag("addEnabled")
    removeEnabled = _flag("removeEnabled")
    renameEnabled = _flag("renameEnabled")
    showChildNodeTypes = _flag("showChildNodeTypes")
    selectNodeUponCreation = _flag("selectNodeUponCreation")
    noneDisplay = _flag("noneDisplay", str)
    baseName = _flag("baseName", str)

    def _readTypes(self) -> list[str]:
        return self._types

    def _writeTypes(self, types_: Any) -> None:
        self._types = list(types_)
        self._list()

    nodeTypes = QtCore.Property("QStringList", _readTypes, _writeTypes)

    def setMRMLScene(self, scene: Any) -> None:
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene, self._tags = scene, []
        if scene is None:
            return
        events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent)
        self._tags = [scene.AddObserver(event, lambda *_: self._list()) for event in events]
        self._tags.append(scene.AddObserver(scene.NodeAboutToBeRemovedEvent, self._removing()))
        self._list()

    def _list(self) -> None:
        if self._scene is None:
            return
        nodes = [n for t in self._types for n in slicer.util.getNodesByClass(t) if n.GetClassName() == t]
        nodes = [n for n in nodes if not n.GetHideFromEditors() and n.GetID() not in self._model._hidden]
        blocked = self.blockSignals(True)
        self.clear()
        self._nodes = ([None] if self._flags["noneEnabled"] else []) + nodes
        self.addItems([self._flags["noneDisplay"] if n is None else n.GetName() for n in self._nodes])
        self.blockSignals(blocked)
        current = self._current if self._current in nodes else None
        if current is None and not self._flags["noneEnabled"] and nodes:
            current = nodes[0]
        self._show(current)

    def _removing(self) -> Callable[..., None]:
        """qMRMLSceneModel takes the row of a node that is going, and QComboBox makes the row before it the current one."""

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def removing(caller: Any, event: str, node: Any) -> None:
            if node not in self._nodes:
                return
            place = self._nodes.index(node)
            self._nodes.remove(node)
            blocked = self.blockSignals(True)
            self.removeItem(place)
            self.blockSignals(blocked)
            if node is self._current:
                self._show(self._nodes[max(0, place - 1)] if self._nodes else None)

        return removing

    def _show(self, node: Any) -> None:
        blocked = self.blockSignals(True)
        self.setProperty("currentIndex", self._nodes.index(node) if node in self._nodes else -1)
        self.blockSignals(blocked)
        if node is not self._current:
            self._current = node
            self.currentNodeChanged.emit(node)

    def _chosen(self, number: int) -> None:
        self._show(self._nodes[number])
        self.nodeActivated.emit(self._nodes[number])

    def sortFilterProxyModel(self) -> qMRMLSortFilterProxyModel:
        return self._model

    def currentNode(self) -> Any:
        return self._current

    def setCurrentNode(self, node: Any) -> None:
        self._show(node if node in self._nodes else None)


class QTimer(QtCore.QTimer):
    """A timer whose single shots do not lose a reference to None at each call, as PySide6's own do (before Python 3.12)."""

    _waiting: ClassVar[list[QtCore.QTimer]] = []

    @classmethod
    def singleShot(cls, milliseconds: int, receiver: Callable[[], None]) -> None:
        cls._waiting = [timer for timer in cls._waiting if timer.isActive()]
        timer = QtCore.QTimer()
        timer.setSingleShot(True)
        timer.timeout.connect(receiver)
        timer.start(milliseconds)
        cls._waiting.append(timer)


class Loader(QtUiTools.QUiLoader):
    """Loads .ui files with the widgets above; connections to the scene are made as Slicer makes them."""

    def __init__(self) -> None:
        super().__init__()
        for kind in (ctkCollapsibleButton, ctkSliderWidget, ctkPathLineEdit, qMRMLNodeComboBox, qMRMLWidget):
            self.registerCustomWidget(kind)

    def load(self, file: QtCore.QFile) -> QtWidgets.QWidget:
        from xml.etree import ElementTree

        root = ElementTree.parse(str(file.fileName())).getroot()
        file.seek(0)
        widget = super().load(file)
        widget.receivers = tuple(
            c.findtext("receiver")
            for c in root.iter("connection")
            if c.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)"
            and c.findtext("sender") == root.findtext("class")
            and c.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"
        )
        return widget


def modules() -> dict[str, types.ModuleType]:
    """The modules `qt` and `ctk`."""
    qt = types.ModuleType("qt")
    for source in (QtCore, QtGui, QtWidgets):
        vars(qt).update({name: getattr(source, name) for name in dir(source) if name.startswith("Q")})
    qt.QUiLoader, qt.QTimer = Loader, QTimer
    ctk = types.ModuleType("ctk")
    for kind in (ctkCollapsibleButton, ctkSliderWidget, ctkPathLineEdit):
        setattr(ctk, kind.__name__, kind)
    return {"qt": qt, "ctk": ctk}


def application() -> QtWidgets.QApplication:
    """The one Qt application of this process."""
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication([])


assert vtk  # PySide6 must not be the first to load what VTK brings too
