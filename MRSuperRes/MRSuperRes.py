"""MRSuperRes in 3D Slicer: super-resolution and contrast translation of MR volumes. Research use only.

This file is what Slicer loads: the module, the life of its panel, and its self-test. The panel's parts are in
`MRSuperResSupport/*_view.py`; what they ask for is done by `MRSuperResSupport.logic`, and computed in a child process.
"""

import sys
from pathlib import Path

import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

# Installed, everything lies in one folder; in a checkout the library lies one folder up.
_CHECKOUT = Path(__file__).resolve().parent.parent
if (_CHECKOUT / "MRSuperResLib" / "__init__.py").is_file() and str(_CHECKOUT) not in sys.path:
    sys.path.insert(0, str(_CHECKOUT))

from MRSuperResSupport import compare, language, scene  # noqa: E402
from MRSuperResSupport.inputs_view import InputsView  # noqa: E402
from MRSuperResSupport.logic import MRSuperResLogic  # noqa: E402
from MRSuperResSupport.many_view import ManyView  # noqa: E402
from MRSuperResSupport.outputs_view import OutputsView  # noqa: E402
from MRSuperResSupport.parameters import OUTPUTS, MRSuperResParameterNode, Task  # noqa: E402
from MRSuperResSupport.part import live  # noqa: E402
from MRSuperResSupport.results_view import ResultsView  # noqa: E402
from MRSuperResSupport.work_view import WorkView  # noqa: E402

__all__ = ["MRSuperRes", "MRSuperResLogic", "MRSuperResParameterNode", "MRSuperResTest", "MRSuperResWidget"]

INPUT_EVENTS = (
    vtk.vtkCommand.ModifiedEvent,
    vtkMRMLScalarVolumeNode.ImageDataModifiedEvent,
    vtkMRMLScalarVolumeNode.TransformModifiedEvent,
)


class MRSuperRes(ScriptedLoadableModule):
    """What Slicer's module list, help and start-up need to know."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        language.install()
        self.parent.title = _("MRSuperRes")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Filtering")]
        self.parent.dependencies = ["SubjectHierarchy"]
        self.parent.contributors = ["MRSuperRes contributors"]
        self.parent.helpText = _(
            "<p>Makes coarse MR volumes finer, in plane or through plane, alone or guided by a sharp scan of the same "
            "patient, and translates between contrasts. Pick a volume, a task and a model, and press Apply; then press "
            "Compare.</p>"
            "<p>Models state what they were trained on. Outside of it you are warned before running. The consistency "
            "map shows where a result disagrees with what was acquired, the uncertainty map where a model could have "
            "answered otherwise.</p>"
            "<p><b>Research use only.</b> Not for diagnosis or treatment.</p>"
        )
        self.parent.acknowledgementText = _(
            "<p>The models implement published work: RDST (residual dense Swin transformer), TransMRSR (generative "
            "prior through plane), MTSR-MRI (super-resolution and translation), FASR-Net (reference-guided) and "
            "DisViT (disentangled representation losses). Each model's card cites its paper.</p>"
        )
        slicer.app.connect("startupCompleted()", _register)

    def setup(self):
        """Add to the context menu of the Data module's tree: it asks once, when it is made, which may be before start-up ends."""
        from MRSuperResSupport import MRSuperResSubjectHierarchyPlugin

        MRSuperResSubjectHierarchyPlugin.register()


def _register():
    """Tell the application of the samples, and of the comparing layouts that a scene may need.

    What runs of a Slicer that crashed have left is removed.
    """
    from MRSuperResSupport import run, samples

    run.removeDead()
    samples.register()
    compare.registerLayouts()


class MRSuperResWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: shows what is possible, starts and stops the work, shows the results."""

    def __init__(self, parent=None):
        self.logic = None
        self.ui = None
        self._parameterNode = None
        self._guiTag = None
        self._watched = None  # the volume whose changes are observed
        self._refreshing = False
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    # Life of the panel

    def setup(self):
        """Build the panel. Called once, when the module is first opened, and on reload."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MRSuperRes.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = MRSuperResLogic()
        self._dress()
        self.inputs, self.outputs, self.work = InputsView(self), OutputsView(self), WorkView(self)
        self.results, self.many = ResultsView(self), ManyView(self)
        mrml = slicer.mrmlScene
        self.addObserver(mrml, mrml.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(mrml, mrml.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(mrml, mrml.StartImportEvent, self.onSceneStartImport)
        self.addObserver(mrml, mrml.EndImportEvent, self.onSceneEndImport)
        self.addObserver(mrml, mrml.NodeAddedEvent, self._onNodeAdded)
        self.addObserver(mrml, mrml.NodeAboutToBeRemovedEvent, self._onNodeGoing, priority=1.0)
        self.addObserver(mrml, mrml.NodeRemovedEvent, self._onNodeRemoved)
        self.initializeParameterNode()

    def cleanup(self):
        """Let go of everything. Called before a reload and when the application closes: nothing can be waited for after."""
        run = self.work.run
        self.work.abandon()
        if run is not None:
            run.end()
        self.logic.close()
        self.results.flicker.stop()
        self.results.comparison.forget()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        """The user opened the module."""
        self.initializeParameterNode()
        self.many.fillMany()
        self.logic.prepare()

    def take(self, item):
        """Work on a subject-hierarchy item (a number): a volume, or all volumes below it."""
        self.initializeParameterNode()
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        node = hierarchy.GetItemDataNode(item)
        volumes = [node] if node is not None and node.IsA("vtkMRMLScalarVolumeNode") else scene.itemsOf(item)
        if self.work.isRunning:
            slicer.util.showStatusMessage(_("MRSuperRes is at work: choose another volume when it has ended."), 5000)
        elif volumes:
            self._parameterNode.inputVolume = volumes[0]
            self.inputs.accept()
            if len(volumes) > 1:
                self.many.choose(item)

    def exit(self):
        """The user opened another module."""
        self.ui.flickerButton.checked = False
        self._watch(None)

    def onReload(self):
        """Reload the panel and what it is made of, not only this file."""
        for name in [name for name in sys.modules if name.split(".")[0] in ("MRSuperResSupport", "MRSuperResLib")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller=None, event=None):
        """The nodes are about to go."""
        self.work.abandon()
        self.results.flicker.stop()
        self.ui.flickerButton.checked = False
        self.results.comparison.forget()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller=None, event=None):
        """The scene is empty."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneStartImport(self, caller=None, event=None):
        """A scene comes node by node: the lists it fills must not choose in place of what was saved (Slicer issue 7492)."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)

    def onSceneEndImport(self, caller=None, event=None):
        """A scene was loaded, perhaps with a parameter node of ours in it, whose volumes are only now all there."""
        if self._parameterNode is not None or self.parent.isEntered:
            self.setParameterNode(None)
            self.initializeParameterNode()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAdded(self, caller=None, event=None, node=None):
        if node is not None and node.IsA("vtkMRMLScalarVolumeNode") and self.parent.isEntered:
            qt.QTimer.singleShot(0, self._onVolumesAdded)  # its voxels come after it, and perhaps another volume

    def _onVolumesAdded(self):
        if self._parameterNode is not None and not slicer.mrmlScene.IsImporting():
            self.inputs.suggest(newest=next(reversed(scene.volumes()), None))

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeGoing(self, caller=None, event=None, node=None):
        """Let go of a node before its row leaves the selectors: Qt would choose the row before it, perhaps another patient's
        scan, and the next result would be written into that."""
        if self._parameterNode is None or node is None or slicer.mrmlScene.IsClosing():
            return
        for name in ("inputVolume", "referenceVolume", "truthVolume", *OUTPUTS):
            if getattr(self._parameterNode, name) is node:
                setattr(self._parameterNode, name, None)

    def _onNodeRemoved(self, caller=None, event=None):
        if self._parameterNode is None or slicer.mrmlScene.IsClosing():
            return
        slider = self.ui.sampleSlider
        shown, count = slider.value, slider.maximum
        self.refresh()
        if shown > 0 and slider.maximum < count:  # perhaps it was the one in the views
            slider.value = 0.0
            self.results.onSample(0.0)

    def _watch(self, volume):
        """Follow the voxels and the place of `volume`, and of no other; None: of none."""
        if volume is self._watched:
            return
        for event in INPUT_EVENTS:
            if self._watched is not None:
                self.removeObserver(self._watched, event, self.refresh)
            if volume is not None:
                self.addObserver(volume, event, self.refresh)
        self._watched = volume

    def initializeParameterNode(self):
        """Use the scene's parameter node; suggest an input if none is chosen."""
        node = self.logic.getParameterNode()
        if self._parameterNode is None or self._parameterNode.parameterNode is not node:
            self.setParameterNode(MRSuperResParameterNode(node))
        self.refresh()
        self.inputs.suggest()

    def setParameterNode(self, parameterNode):
        """Bind the panel to `parameterNode` (a `MRSuperResParameterNode`), or to none."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.refresh)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            widgets = [w for w in vars(self.ui).values() if w.property("SlicerParameterName")]
            self._guiTag = parameterNode.connectParametersToGui(
                {str(widget.property("SlicerParameterName")): widget for widget in widgets}
            )
            self.addObserver(parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.refresh)
            self.refresh()
        else:
            self._watch(None)

    def _dress(self):
        """What a .ui file cannot say."""
        self.ui.metricsTable.setHorizontalHeaderLabels([_("Against ground truth"), _("Head"), _("Whole volume")])
        for widget in vars(self.ui).values():
            if type(widget) == qt.QLabel and widget.buddy() is not None:  # noqa: E721 - how PythonQt tells
                widget.toolTip = widget.buddy().toolTip
        self.ui.metricsTable.verticalHeader().visible = False
        header = self.ui.metricsTable.horizontalHeader()
        header.setSectionResizeMode(qt.QHeaderView.Stretch)
        header.setSectionResizeMode(0, qt.QHeaderView.ResizeToContents)
        self.ui.metricsTable.visible = False
        self.ui.progressBar.visible = False
        self.ui.statusLabel.visible = False
        self.ui.previewLabel.visible = False
        self.ui.researchLabel.styleSheet = "QLabel { font-weight: bold; }"
        for label in (self.ui.warningLabel, self.ui.placesLabel):
            label.styleSheet = (
                "QLabel { background: #fff3cd; color: #664d03; border: 1px solid #e0c36a; border-radius: 3px;"
                " padding: 3px; }"
            )
        self.ui.placesRow.visible = False

    def refresh(self, caller=None, event=None):
        """Bring the whole panel in line with the parameter node and the scene.

        Everything below the task follows from the volume, the task and the cards.
        """
        mrml = slicer.mrmlScene
        if self._parameterNode is None or self._refreshing or mrml.IsClosing() or mrml.IsImporting():
            return
        self._refreshing = True
        inputs = self.inputs
        try:
            self._watch(live(self._parameterNode.inputVolume) if self.parent.isEntered else None)
            inputs.hideOurs()
            inputs.settle()
            inputs.showRows()
            inputs.showHidden(inputs.fillModels() + inputs.fillTranslation())
            self.outputs.leaveResults()  # what is chosen is settled now
            estimate, problem = inputs.estimate()
            inputs.showEstimate(estimate)
            inputs.showWarnings()
            self.results.leaveOthers()
            self.results.showPlaces()
            self.results.showMetrics()
            self.results.showCompare()
            self.work.showApply(problem)
        finally:
            self._refreshing = False


class MRSuperResTest(ScriptedLoadableModuleTest):
    """The user's journey, in a real Slicer: input, Apply, cancel, result, compare, back, save and restore."""

    def setUp(self):
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """All of it."""
        for journey in (self.test_apply, self.test_cancel, self.test_compare, self.test_many, self.test_restore):
            self.setUp()
            journey()

    def _panel(self):
        """The module's panel, shown, with a small scan chosen and B-spline interpolation as the model."""
        import numpy as np

        k, j, i = np.mgrid[0:12, 0:48, 0:40]
        ball = 100.0 * np.exp(-(((k - 6) / 4.0) ** 2 + ((j - 24) / 14.0) ** 2 + ((i - 20) / 12.0) ** 2))
        volume = slicer.util.addVolumeFromArray(ball.astype("float32"), name="T2 thick")
        volume.SetSpacing(1.0, 1.0, 4.0)
        volume.SetOrigin(10.0, -20.0, 30.0)
        volume.CreateDefaultDisplayNodes()
        slicer.util.selectModule("MRSuperRes")
        panel = slicer.modules.MRSuperResWidget
        panel.initializeParameterNode()
        panel._parameterNode.inputVolume = volume
        panel._parameterNode.task = Task.THROUGH_PLANE
        panel._parameterNode.model = "bspline"
        panel._parameterNode.factor = 2.0
        return panel, volume

    def _wait(self, panel, seconds=120.0):
        import time

        start = time.monotonic()
        while panel.work.isRunning:
            self.assertLess(time.monotonic() - start, seconds, "the run does not end")
            slicer.app.processEvents()
            time.sleep(0.02)

    def _applied(self):
        panel, volume = self._panel()
        self.assertEqual(panel.ui.applyButton.toolTip.count("Select"), 0)
        panel.ui.applyButton.click()
        self.assertEqual(panel.ui.applyButton.text, _("Cancel"))
        self._wait(panel)
        return panel, volume, panel._parameterNode.outputVolume

    def test_apply(self):
        """Apply makes a volume with the same extent and thinner slices, and leaves the input alone."""
        self.delayDisplay("Apply")
        panel, volume, result = self._applied()
        self.assertIsNotNone(result, panel.ui.statusLabel.text)
        self.assertEqual(result.GetImageData().GetDimensions(), (40, 48, 24))
        bounds, expected = [0.0] * 6, [0.0] * 6
        result.GetRASBounds(bounds)
        volume.GetRASBounds(expected)
        for found, wanted in zip(bounds, expected, strict=True):
            self.assertAlmostEqual(found, wanted, places=3)
        self.assertEqual(volume.GetImageData().GetDimensions(), (40, 48, 12))

    def test_cancel(self):
        """Cancel ends the run and leaves no node."""
        self.delayDisplay("Cancel")
        panel, _volume = self._panel()
        before = {node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")}
        panel.ui.applyButton.click()
        run = panel.work.run
        self.assertIsNotNone(run, f"the first press started nothing: {panel.ui.statusLabel.text}")
        panel.ui.applyButton.click()
        panel.ui.applyButton.click()
        self._wait(panel, seconds=10.0)
        self.assertEqual(run.error.code, "cancelled", run.error.message)
        self.assertEqual({node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")}, before)

    def test_compare(self):
        """Compare shows input and result, linked; back returns to the layout there was."""
        self.delayDisplay("Compare")
        panel, volume, result = self._applied()
        layoutNode = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
        before = layoutNode.GetViewArrangement()
        panel.ui.compareButton.click()
        views = [compare.compositeNode(name) for name in compare.VIEWS[:2]]
        self.assertEqual(views[0].GetBackgroundVolumeID(), volume.GetID())
        self.assertEqual(views[1].GetForegroundVolumeID(), result.GetID())
        self.assertTrue(all(view.GetLinkedControl() for view in views))
        panel.ui.restoreLayoutButton.click()
        self.assertEqual(layoutNode.GetViewArrangement(), before)

    def test_many(self):
        """All volumes of a folder are done, a bad one is reported."""
        self.delayDisplay("Many volumes")
        panel, volume = self._panel()
        bad = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T2 bad")
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "Study")
        for node in (volume, bad):
            item = hierarchy.GetItemByDataNode(node)
            if item == slicer.vtkMRMLSubjectHierarchyNode.GetInvalidItemID():
                item = hierarchy.CreateItem(folder, node)
            hierarchy.SetItemParent(item, folder)
        panel.enter()
        panel.ui.manySelector.currentIndex = panel.ui.manySelector.findText("Study (2)")
        self.assertTrue(panel.ui.manyButton.enabled, panel.ui.manyButton.toolTip)
        panel.ui.manyButton.click()
        self._wait(panel)
        self.assertIn("1 of 2 volumes done, 1 could not be", panel.ui.statusLabel.text)
        made = slicer.util.getFirstNodeByClassByName("vtkMRMLScalarVolumeNode", "T2 thick SR x2 (bspline)")
        self.assertEqual(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(made)), folder)

    def test_restore(self):
        """Choices come back with a saved scene; closing the scene empties the panel."""
        self.delayDisplay("Save and restore")
        panel, _volume = self._panel()
        panel._parameterNode.factor = 3.0
        path = str(Path(slicer.app.temporaryPath) / "MRSuperResTest.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear()
        self.assertFalse(panel.ui.applyButton.enabled)
        slicer.util.loadScene(path)
        panel.initializeParameterNode()
        self.assertEqual(panel._parameterNode.factor, 3.0)
        self.assertEqual(panel._parameterNode.inputVolume.GetName(), "T2 thick")
        Path(path).unlink()
