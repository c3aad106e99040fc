"""Input and result side by side: linked views, one window and level, blending, and what a map's colours mean.

Everything here changes only what is shown; the layout and cross-hair the user had come back with `restore`.
"""

import qt
import slicer
import vtk

from . import scene
from .words import _

__all__ = [
    "FLICKER_MILLISECONDS",
    "LAYOUTS",
    "VIEWS",
    "Comparison",
    "compositeNode",
    "registerLayouts",
    "sliceNode",
]

VIEWS = ("MRSuperResInput", "MRSuperResResult", "MRSuperResMap")
LAYOUTS = {2: 7411, 3: 7412}  # by number of views; numbers above 999 are free for modules
VIEW_COLOURS = ("#4a90d9", "#3aa76d", "#b8860b")
VIEW_GROUP = 741  # only views of one group follow each other
FLICKER_MILLISECONDS = 600


def _legend(node):
    """A new colour legend for `node`, where the application has them: a view shows only legends younger than itself."""
    if not hasattr(slicer.modules, "colors"):
        return
    logic = slicer.modules.colors.logic()
    old = logic.GetColorLegendDisplayNode(node)
    if old is not None:
        slicer.mrmlScene.RemoveNode(old)
    legend = logic.AddDefaultColorLegendDisplayNode(node)
    legend.SetTitleText("")  # the view says what it shows
    legend.SetLabelFormat("%.4g")
    legend.GetLabelTextProperty().SetFontSize(14)
    legend.SetNumberOfLabels(5)
    legend.SetVisibility(True)


# Views


def _layout(count):
    """The layout's description: `count` slice views in a row."""
    labels = (_("Input"), _("Result"), _("Map"))
    items = "".join(
        f'<item><view class="vtkMRMLSliceNode" singletontag="{name}">'
        '<property name="orientation" action="default">Axial</property>'
        f'<property name="viewlabel" action="default">{label}</property>'
        f'<property name="viewcolor" action="default">{colour}</property>'
        f'<property name="viewgroup" action="default">{VIEW_GROUP}</property>'
        "</view></item>"
        for name, label, colour in list(zip(VIEWS, labels, VIEW_COLOURS, strict=True))[:count]
    )
    return f'<layout type="horizontal" split="true">{items}</layout>'


def registerLayouts():
    """Make the layouts known: a scene that was saved while comparing has no views in an application that lacks them."""
    layout = _layoutNode()
    if layout is None:  # no window
        return
    for count, number in LAYOUTS.items():
        if not layout.AddLayoutDescription(number, _layout(count)):
            layout.SetLayoutDescription(number, _layout(count))


def _sliceWidget(name):
    """The slice view of one of `VIEWS`, None while its layout is not shown."""
    manager = slicer.app.layoutManager()
    return manager.sliceWidget(name) if manager is not None else None


def sliceNode(name):
    """The slice node of one of `VIEWS`."""
    return _sliceWidget(name).mrmlSliceNode()


def compositeNode(name):
    """The slice composite node of one of `VIEWS`: which volumes it shows, and how blended."""
    return _sliceWidget(name).mrmlSliceCompositeNode()


def _layoutNode():
    manager = slicer.app.layoutManager()
    return manager.layoutLogic().GetLayoutNode() if manager is not None else None


def _crosshair():
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")


def _centre(node):
    """RAS of the middle of a volume, in the world."""
    bounds = [0.0] * 6
    node.GetRASBounds(bounds)
    return [(low + high) / 2 for low, high in zip(bounds[::2], bounds[1::2], strict=True)]


def _orientation(node, through):
    """The plane to look at: the acquired one, or, `through` the slices, one that cuts across them."""
    spacing = node.GetSpacing()
    axis = max(range(3), key=lambda number: (round(spacing[number], 3), number))
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASDirectionMatrix(matrix)
    along = max(range(3), key=lambda row: abs(matrix.GetElement(row, axis)))  # R, A or S
    if through:
        return "Coronal" if along == 0 else "Sagittal"
    return ("Sagittal", "Coronal", "Axial")[along]


class Comparison:
    """The comparing layout: shown, changed and taken away again."""

    def __init__(self):
        self._before = None  # the user's layout and cross-hair
        self._observed = []
        self._result = None
        self.caption = ""  # what the third view's colours mean

    @property
    def isShown(self):
        """Whether the views are on the screen."""
        node = _layoutNode()
        return node is not None and node.GetViewArrangement() in LAYOUTS.values()

    def show(self, low, result, shownMap=None, through=False):
        """Lay out `low` | `result` (| `shownMap`), linked, in one window and level and zoom, cross-hair on.

        through: look across the slices of `low` instead of along them.
        """
        layout, crosshair = _layoutNode(), _crosshair()
        if layout is None:  # no window, nothing to show
            return
        if not self.isShown:
            self._before = (
                layout.GetViewArrangement(),
                (crosshair.GetCrosshairMode(), crosshair.GetCrosshairBehavior()) if crosshair else None,
            )
        count = 2 if shownMap is None else 3
        registerLayouts()
        slicer.app.layoutManager().setLayout(LAYOUTS[count])  # unlike the node's own, it leaves a maximized view
        slicer.app.processEvents(qt.QEventLoop.ExcludeUserInputEvents)  # views have their sizes only then
        self._unlink()
        self._result = result
        views = VIEWS[:count]
        for name in views:
            compositeNode(name).SetLinkedControl(True)
            compositeNode(name).SetHotLinkedControl(True)
        _setLayers(VIEWS[0], low)
        _setLayers(VIEWS[1], low, result)
        self.caption = ""
        if shownMap is not None:
            self.showMap(shownMap)
        _align(views, low, _orientation(low, through))
        self._linkWindows(low, result)
        if crosshair:
            crosshair.SetCrosshairRAS(_centre(low))
            crosshair.SetCrosshairMode(crosshair.ShowBasic)
            crosshair.SetCrosshairBehavior(crosshair.OffsetJumpSlice)

    def showMap(self, node):
        """Show the map `node` in the third view, if a comparison has been laid out that has one."""
        if self._result is None or _sliceWidget(VIEWS[2]) is None:
            return
        _setLayers(VIEWS[2], node)
        _legend(node)
        self.caption = _caption(node, node in scene.attached(self._result, "uncertaintyMap"))

    def showResult(self, node):
        """Show `node`, e.g. a sample, in place of the result."""
        low = slicer.mrmlScene.GetNodeByID(compositeNode(VIEWS[1]).GetBackgroundVolumeID() or "")
        compositeNode(VIEWS[1]).SetForegroundVolumeID(node.GetID())
        if low is not None:
            self._unlink()
            self._linkWindows(low, node)

    def setBlend(self, opacity):
        """From the input (0) to the result (1) in the second view."""
        if self.isShown:
            compositeNode(VIEWS[1]).SetForegroundOpacity(opacity)

    def swap(self):
        """The input in place of the result in the second view, or the other way round."""
        if self.isShown:
            self.setBlend(0.0 if compositeNode(VIEWS[1]).GetForegroundOpacity() > 0.5 else 1.0)

    def restore(self):
        """The layout and cross-hair there were before; the four views if a loaded scene brought the comparing layout."""
        self._unlink()
        manager, crosshair = slicer.app.layoutManager(), _crosshair()
        if manager is None or not (self._before or self.isShown):
            return
        arrangement, cross = self._before or (slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView, None)
        self._before = None
        manager.setLayout(arrangement)
        if crosshair and cross:
            crosshair.SetCrosshairMode(cross[0])
            crosshair.SetCrosshairBehavior(cross[1])

    def forget(self):
        """The scene goes: let go of its nodes, and leave the comparing layout if it is shown."""
        if self.isShown:
            self.restore()
        self._unlink()
        self._result, self.caption = None, ""

    def _linkWindows(self, first, second):
        """Give both volumes the window and level of `first`, now and whenever the user changes either.

        New voxels change a window that is automatic: that is nobody's choice, and not passed on.
        """
        displays = []
        for node in (first, second):
            node.CreateDefaultDisplayNodes()
            displays.append(node.GetDisplayNode())
        source, target = displays
        _copyWindow(source, target)
        for one, other in ((source, target), (target, source)):

            def follow(caller, event, other=other):
                if not caller.GetAutoWindowLevel():
                    _copyWindow(caller, other)

            self._observed.append((one, one.AddObserver(vtk.vtkCommand.ModifiedEvent, follow)))

    def _unlink(self):
        for display, tag in self._observed:
            display.RemoveObserver(tag)
        self._observed = []


def _setLayers(name, background, foreground=None):
    composite = compositeNode(name)
    composite.SetBackgroundVolumeID(background.GetID())
    composite.SetForegroundVolumeID(foreground.GetID() if foreground else None)
    composite.SetLabelVolumeID(None)
    composite.SetForegroundOpacity(1.0 if foreground else 0.0)


def _align(names, volume, orientation):
    """The same plane, place and zoom in all views, along the volume's own axes."""
    for name in names:
        node = sliceNode(name)
        node.SetOrientation(orientation)
        node.RotateToVolumePlane(volume)
    logic, first = _sliceWidget(names[0]).sliceLogic(), sliceNode(names[0])
    logic.FitSliceToBackground()
    width, height, depth = (
        mm / pixels for mm, pixels in zip(first.GetFieldOfView(), first.GetDimensions(), strict=True)
    )
    for name in names[1:]:
        node = sliceNode(name)
        _sliceWidget(name).sliceLogic().FitSliceToBackground()
        across, down, slices = node.GetDimensions()
        node.SetFieldOfView(width * across, height * down, depth * slices)
        node.SetXYZOrigin(*first.GetXYZOrigin())
        node.SetSliceOffset(first.GetSliceOffset())


def _copyWindow(source, target):
    """Window and level of one display node to another; does nothing when they agree, so that links end."""
    same = source.GetWindow() == target.GetWindow() and source.GetLevel() == target.GetLevel()
    if same and not target.GetAutoWindowLevel():
        return
    target.AutoWindowLevelOff()
    target.SetWindowLevel(source.GetWindow(), source.GetLevel())


def _caption(node, isUncertainty):
    """What the colours of the map `node` mean."""
    display = node.GetDisplayNode()
    if display is None:
        return ""
    low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    text = _("{name}: zero is in the middle, {low:.4g} and {high:.4g} are the ends.")
    if low == 0:
        text = _("{name}: black is zero, the brightest colour is {high:.4g} or more.")
    if isUncertainty:
        text += " " + _("One standard deviation, in the input's units.")
    return text.format(name=node.GetName(), low=low, high=high)
