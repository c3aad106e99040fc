"""Input and result side by side: linked views, one window and level, blending, and what a map's colours mean.

Everything here changes only what is shown; the layout and cross-hair the user had come back with `restore`.
"""

import contextlib

import qt
import slicer
import vtk

from . import places, scene
from .run import MAPS
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

VIEWS = scene.COMPARING_VIEWS
LAYOUTS = {2: 7411, 3: 7412}  # by number of views; numbers above 999 are free for modules
VIEW_COLOURS = ("#4a90d9", "#3aa76d", "#b8860b")
VIEW_GROUP = 741  # only views of one group follow each other
FLICKER_MILLISECONDS = 600
CONTROLLER_WIDTH = 120  # pixels: three views and the panel fit a screen of 1,280


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


def _composites(ours):
    """The composite nodes of our views, or of all others, hidden ones too."""
    found = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return [node for node in found if (node.GetLayoutName() in VIEWS) == ours]


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


def _comparing():
    """The names of our views on the screen; those of a layout that was left are not."""
    node = _layoutNode()
    arrangement = node.GetViewArrangement() if node is not None else None
    count = next((count for count, number in LAYOUTS.items() if number == arrangement), 0)
    return [name for name in VIEWS[:count] if _sliceWidget(name) is not None]


class Comparison:
    """The comparing layout: shown, changed and taken away again.

    onLeft: called when the user has left it. onBlend: called with the opacity that the second view was given elsewhere.
    """

    def __init__(self, onLeft=None, onBlend=None):
        self._before = None  # the user's layout and cross-hair
        self._observed = []  # (node, tag)
        self._watchedLayout = None
        self._watchedViews = []  # (composite node, tag)
        self._hotLinked = []  # (composite node, whether its view was hot-linked before): Slicer's button sets them all
        self._onLeft, self._onBlend = onLeft, onBlend
        self.low = self.result = None  # what is compared
        self._widened = []  # (display node of a segmentation, views added to those it is limited to)
        self._names = ["", "", ""]  # what the views show, in words
        self.caption = ""  # what the third view's colours mean

    @property
    def isShown(self):
        """Whether the views are on the screen."""
        node = _layoutNode()
        return node is not None and node.GetViewArrangement() in LAYOUTS.values()

    def show(self, low, result, shownMap=None, through=False, opacity=1.0):
        """Lay out `low` | `result` (| `shownMap`), linked, in one window and level and zoom, cross-hair on.

        shownMap: (node, what it is in a word). through: look across the slices of `low` instead of along them.
        opacity: of the result over the input, in the second view.
        """
        layout, crosshair = _layoutNode(), _crosshair()
        if layout is None:  # no window, nothing to show
            return
        if not self.isShown:
            self._before = (
                layout.GetViewArrangement(),
                (crosshair.GetCrosshairMode(), crosshair.GetCrosshairBehavior()) if crosshair else None,
            )
            self._hotLinked = [(node, bool(node.GetHotLinkedControl())) for node in _composites(ours=False)]
        count = 2 if shownMap is None else 3
        registerLayouts()
        slicer.app.layoutManager().setLayout(LAYOUTS[count])  # unlike the node's own, it leaves a maximized view
        slicer.app.processEvents(qt.QEventLoop.ExcludeUserInputEvents)  # views have their sizes only then
        self._unlinkWindows()
        self._followLayout(layout)
        self.low, self.result = low, result
        views = VIEWS[:count]
        for name in views:
            _letShrink(name)
            compositeNode(name).SetDoPropagateVolumeSelection(False)  # a volume that is loaded is shown in other views
        self._unwatchViews()
        self.caption = ""
        with _apart(views):
            _setLayers(VIEWS[0], low)
            _setLayers(VIEWS[1], low, result)
            compositeNode(VIEWS[1]).SetForegroundOpacity(opacity)
            if shownMap is not None:
                self._putMap(*shownMap)
            _align(views, low, _orientation(low, through))
        self._names[:2] = _("Input"), _("Result")
        self._label()
        self._watchViews(views)
        self._linkWindows(low, result)
        self._showSegmentations(low, views)
        places.showOnly(result)  # over the scan, which shows what is there, and over the result
        if crosshair:
            crosshair.SetCrosshairRAS(_centre(low))
            crosshair.SetCrosshairMode(crosshair.ShowBasic)
            crosshair.SetCrosshairBehavior(crosshair.OffsetJumpSlice)

    def _showSegmentations(self, low, names):
        """Segmentations of the input are drawn over the result as they are, in world space: nothing is resampled.

        Those that are limited to some views are shown in ours too, until the comparison is left.
        """
        self._hideSegmentations()
        for segmentation in scene.segmentationsOf(low):
            display = segmentation.GetDisplayNode()
            if display is None or display.GetNumberOfViewNodeIDs() == 0:  # shown in all views
                continue
            added = [
                sliceNode(name).GetID() for name in names if not display.IsViewNodeIDPresent(sliceNode(name).GetID())
            ]
            for identity in added:
                display.AddViewNodeID(identity)
            self._widened.append((display, added))

    def _hideSegmentations(self):
        for display, added in self._widened:
            for identity in added:
                display.RemoveViewNodeID(identity)
        self._widened = []

    def adopt(self):
        """Take over the views of a scene that was saved while comparing: what they show is what is compared."""
        if self.low is not None or VIEWS[1] not in _comparing():
            return
        below, above = compositeNode(VIEWS[1]).GetBackgroundVolumeID(), compositeNode(VIEWS[1]).GetForegroundVolumeID()
        self.low, self.result = (slicer.mrmlScene.GetNodeByID(each) if each else None for each in (below, above))

    def _watchViews(self, names):
        """Notice what else changes the views: their own controllers, a drag, a script."""
        for name in names:
            composite = compositeNode(name)
            self._watchedViews.append((composite, composite.AddObserver(vtk.vtkCommand.ModifiedEvent, self._onView)))

    def _unwatchViews(self):
        for composite, tag in self._watchedViews:
            composite.RemoveObserver(tag)
        self._watchedViews = []

    def _onView(self, caller, event):
        if not _comparing():
            return
        self._label()
        if self._onBlend is not None and caller.GetLayoutName() == VIEWS[1]:
            self._onBlend(caller.GetForegroundOpacity())

    def showMap(self, node, word):
        """Show the map `node`, which is `word`, in the third view, if a comparison has been laid out that has one."""
        if self.result is None or VIEWS[2] not in _comparing():
            return
        with _apart(VIEWS), _still(VIEWS):
            self._putMap(node, word)
        self._label()

    def _putMap(self, node, word):
        _setLayers(VIEWS[2], node)
        _legend(node)
        self._names[2] = word
        self.caption = _caption(node, node in scene.attached(self.result, "uncertaintyMap"))

    def showResult(self, node, word=""):
        """Show `node`, e.g. a sample, in place of the result; word: what it is, "" for the result."""
        views = _comparing()
        if VIEWS[1] not in views:
            return
        with _apart(views), _still(views):
            compositeNode(VIEWS[1]).SetForegroundVolumeID(node.GetID())
        self._names[1] = word or _("Result")
        self._label()
        if self.low is not None:
            self._unlinkWindows()
            self._linkWindows(self.low, node)

    def setBlend(self, opacity):
        """From the input (0) to the result (1) in the second view."""
        views = _comparing()
        if VIEWS[1] in views:
            with _apart(views):
                compositeNode(VIEWS[1]).SetForegroundOpacity(opacity)
            self._label()

    def swap(self):
        """The input in place of the result in the second view, or the other way round."""
        if VIEWS[1] in _comparing():
            self.setBlend(0.0 if compositeNode(VIEWS[1]).GetForegroundOpacity() > 0.5 else 1.0)

    def _label(self):
        """Say in each view what is drawn there, in one word: long labels would widen the window."""
        for name, word in zip(VIEWS, self._names, strict=True):
            if name not in _comparing():
                continue
            opacity = compositeNode(name).GetForegroundOpacity() if name == VIEWS[1] else 1.0
            if 0.0 < opacity < 1.0:
                word = f"{word} {opacity:.0%}"
            sliceNode(name).SetLayoutLabel(self._stranger(name) or (word if opacity > 0.0 else self._names[0]))

    def _stranger(self, name):
        """The name of what a view shows and we have not put there, "" for what we have."""
        composite = compositeNode(name)
        expected = {VIEWS[0]: [self.low], VIEWS[1]: [self.low], VIEWS[2]: self._maps()}[name]
        layers = [(composite.GetBackgroundVolumeID(), expected)]
        if name == VIEWS[1]:
            layers.append((composite.GetForegroundVolumeID(), [self.result, *scene.attached(self.result, "sample")]))
        for identity, known in layers:
            node = slicer.mrmlScene.GetNodeByID(identity) if identity else None
            if node is not None and node not in known:
                return node.GetName()
        return ""

    def _maps(self):
        return [node for role in MAPS for node in scene.attached(self.result, role)]

    def restore(self):
        """The layout and cross-hair there were before; the four views if a loaded scene brought the comparing layout."""
        manager = slicer.app.layoutManager()
        if manager is None or not (self._before or self.isShown):
            self._leave()
            return
        manager.setLayout(self._before[0] if self._before else slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        self._leave()

    def forget(self):
        """The scene goes: let go of its nodes, and leave the comparing layout if it is shown."""
        if self.isShown:
            self.restore()
        self._leave()

    def _followLayout(self, layout):
        """Notice when the user leaves by Slicer's own layout menu."""
        if self._watchedLayout is not None:
            return

        def changed(caller, event):
            if self._before is not None and not self.isShown:
                self._leave()
                if self._onLeft is not None:
                    self._onLeft()

        self._watchedLayout = (layout, layout.AddObserver(vtk.vtkCommand.ModifiedEvent, changed))

    def _leave(self):
        """Undo what else than the layout was changed: linked windows, cross-hair, and the layers of our views.

        Volumes in views that nobody sees would keep their eyes open in the Data module's tree.
        """
        self._unlinkWindows()
        self._unwatchViews()
        self._hideSegmentations()
        before, self._before = self._before, None
        crosshair = _crosshair()
        if before is not None and crosshair and before[1]:
            crosshair.SetCrosshairMode(before[1][0])
            crosshair.SetCrosshairBehavior(before[1][1])
        if self._watchedLayout is not None:
            layout, tag = self._watchedLayout
            self._watchedLayout = None
            layout.RemoveObserver(tag)
        for composite in _composites(ours=True):
            composite.SetHotLinkedControl(False)
            composite.SetLinkedControl(False)
            composite.SetBackgroundVolumeID(None)
            composite.SetForegroundVolumeID(None)
            composite.SetLabelVolumeID(None)
        for composite, hotLinked in self._hotLinked:
            composite.SetHotLinkedControl(hotLinked)
        self._hotLinked = []
        self.low, self.result, self.caption = None, None, ""

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

    def _unlinkWindows(self):
        for display, tag in self._observed:
            display.RemoveObserver(tag)
        self._observed = []


@contextlib.contextmanager
def _apart(names):
    """While inside, these views do not hand to each other what they show; afterwards they share place and zoom only.

    A linked view's controller broadcasts the opacity and the interpolation of whatever its own view is given, also by a
    program (qMRMLSliceControllerWidget), and vtkMRMLSliceLinkLogic hands it to the views of its group.
    """
    composites = [compositeNode(name) for name in names]
    for composite in composites:
        composite.SetInteractionFlagsModifier(0)  # no layer and no opacity, whoever changes them
        composite.SetLinkedControl(False)
    try:
        yield
    finally:
        for composite in composites:
            composite.SetHotLinkedControl(True)
            composite.SetLinkedControl(True)


@contextlib.contextmanager
def _still(names):
    """Keep place and zoom of these views: new layers must not fit them anew."""
    kept = []
    for name in names:
        node, matrix = sliceNode(name), vtk.vtkMatrix4x4()
        matrix.DeepCopy(node.GetSliceToRAS())
        kept.append((node, matrix, node.GetFieldOfView(), node.GetXYZOrigin()))
    yield
    for node, matrix, field, origin in kept:
        node.GetSliceToRAS().DeepCopy(matrix)
        node.SetFieldOfView(*field)
        node.SetXYZOrigin(*origin)
        node.UpdateMatrices()


def _letShrink(name):
    """Slice controllers ask for more width than a third of a small screen has: let them be cut off instead."""
    controller = getattr(_sliceWidget(name), "sliceController", None)
    if controller is not None:
        controller().setMinimumWidth(CONTROLLER_WIDTH)


def _setLayers(name, background, foreground=None):
    """The volumes of a view. Where there is no foreground its opacity means nothing, and is left alone."""
    composite = compositeNode(name)
    composite.SetBackgroundVolumeID(background.GetID())
    composite.SetForegroundVolumeID(foreground.GetID() if foreground else None)
    composite.SetLabelVolumeID(None)


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
