"""Slice views without a window: Slicer's own slice and link logics, and what a view's controller does by itself.

The controller (qMRMLSliceControllerWidget) is modelled after Slicer's sources, because it acts on what programs change: its
opacity slider and its interpolation buttons follow the view's nodes with their signals on, and so behave as if the user
had moved them; in a linked view that reaches the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import slicer
import vtk

from . import widgets

if TYPE_CHECKING:
    from .application import Application

LAYERS = ("Background", "Foreground")


class Controller(widgets.QtWidgets.QWidget):
    """A view's bar: as wide as Slicer's, with the opacity slider and the interpolation buttons."""

    def __init__(self, view: SliceWidget) -> None:
        super().__init__()
        self._view, self._opacity, self._smooth = view, 0.0, dict.fromkeys(LAYERS, True)
        self._displays: dict[str, Any] = {}
        view.mrmlSliceCompositeNode().AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._follow())

    def minimumSizeHint(self) -> Any:
        return widgets.QtCore.QSize(541, 22)  # 1,624 for three, as seen in a real Slicer

    def _follow(self) -> None:
        if slicer.mrmlScene is None or slicer.mrmlScene.IsBatchProcessing():
            return
        composite = self._view.mrmlSliceCompositeNode()
        for layer in LAYERS:
            volume = slicer.mrmlScene.GetNodeByID(getattr(composite, f"Get{layer}VolumeID")() or "")
            display = volume.GetDisplayNode() if volume is not None else None
            known = self._displays.get(layer)
            if known is None or known[0] is not display:
                if known is not None:
                    known[0].RemoveObserver(known[1])
                self._displays.pop(layer, None)
                if display is not None:
                    tag = display.AddObserver(
                        vtk.vtkCommand.ModifiedEvent, lambda node, _event, layer=layer: self._toggle(layer, node)
                    )
                    self._displays[layer] = (display, tag)
            if display is not None:
                self._toggle(layer, display)
        if composite.GetForegroundOpacity() != self._opacity:  # the slider's setValue: valueChanged is not blocked
            self._opacity = composite.GetForegroundOpacity()
            logic = self._view.sliceLogic()
            logic.StartSliceCompositeNodeInteraction(composite.ForegroundOpacityFlag)
            composite.SetForegroundOpacity(self._opacity)
            logic.EndSliceCompositeNodeInteraction()

    def _toggle(self, layer: str, display: Any) -> None:
        """A checkable button that is set: if that is a change, it speaks for all linked views."""
        smooth = bool(display.GetInterpolate())
        if self._smooth[layer] == smooth:
            return
        self._smooth[layer] = smooth
        for view in self._view.linked():
            volume = getattr(view.sliceLogic(), f"Get{layer}Layer")().GetVolumeNode()
            if volume is not None and volume.GetDisplayNode() is not None:
                volume.GetDisplayNode().SetInterpolate(smooth)


class SliceWidget:
    """One slice view: a real slice logic with its nodes, without a window."""

    def __init__(self, application: Application, node: Any) -> None:
        self._application, self._node, self._logic = application, node, slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(application.logic)
        self._logic.SetMRMLScene(slicer.mrmlScene)
        self._logic.SetSliceNode(node)
        application.logic.GetSliceLogics().AddItem(self._logic)
        node.SetDimensions(300, 300, 1)
        self._controller = Controller(self)

    def mrmlSliceNode(self) -> Any:
        return self._node

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()

    def sliceLogic(self) -> Any:
        return self._logic

    def sliceController(self) -> Controller:
        return self._controller

    def linked(self) -> list[SliceWidget]:
        """This view, and those whose links it shares."""
        if not self.mrmlSliceCompositeNode().GetLinkedControl():
            return [self]
        return [
            view
            for view in self._application.layoutManager().views()
            if view is self
            or (
                view.mrmlSliceCompositeNode().GetLinkedControl()
                and view.mrmlSliceNode().GetViewGroup() == self._node.GetViewGroup()
            )
        ]


class LayoutManager:
    """The layout logic makes the slice nodes a layout describes; this gives each its slice logic."""

    def __init__(self, application: Application) -> None:
        self._application, self._widgets = application, {}
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLScene(slicer.mrmlScene)

    def close(self) -> None:
        for widget in self._widgets.values():
            widget.sliceLogic().SetMRMLScene(None)
            widget.sliceLogic().SetMRMLApplicationLogic(None)
        self._application.logic.GetSliceLogics().RemoveAllItems()
        self._widgets.clear()
        self._logic.SetMRMLScene(None)

    def views(self) -> list[SliceWidget]:
        """Those that were ever shown."""
        return list(self._widgets.values())

    def layoutLogic(self) -> Any:
        return self._logic

    def setLayout(self, number: int) -> None:
        node = self._logic.GetLayoutNode()
        if node.GetViewArrangement() != number:
            node.RemoveAllMaximizedViewNodes()
            node.SetViewArrangement(number if node.IsLayoutDescription(number) else node.SlicerLayoutConventionalView)

    def sliceViewNames(self) -> list[str]:
        views = self._logic.GetViewNodes()
        nodes = [views.GetItemAsObject(number) for number in range(views.GetNumberOfItems())]
        return [node.GetLayoutName() for node in nodes if node.IsA("vtkMRMLSliceNode")]

    def sliceWidget(self, name: str) -> SliceWidget | None:
        node = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode")
        if node is None or name not in self.sliceViewNames():
            return None
        known = self._widgets.get(name)
        if known is None or known.mrmlSliceNode() is not node:
            self._widgets[name] = SliceWidget(self._application, node)
        return self._widgets[name]

    def mrmlSliceLogics(self) -> Any:
        for name in self.sliceViewNames():
            self.sliceWidget(name)
        return self._application.logic.GetSliceLogics()
