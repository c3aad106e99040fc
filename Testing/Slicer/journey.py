"""The user's journey in a real Slicer, from the command line, with pictures of the panel and of the comparison:

    make slicer-test SLICER=/path/to/Slicer

or, without make,

    Slicer --testing --no-splash --additional-module-paths CHECKOUT/MRSuperRes --python-script CHECKOUT/Testing/Slicer/journey.py

The application ends with status 0 if all went well. Pictures go to the folder named by MRSUPERRES_PICTURES, if there is one.
Every fault that was once found by hand has its step here. The steps use the application's own widgets and nodes only, so that
they also run where its window is stood in for (Testing/test_panel_journey.py).
"""

import os
import sys
import time
import traceback
from pathlib import Path

import slicer

SELF_TEST = ("test_apply", "test_cancel", "test_compare", "test_many", "test_restore")
PANEL_WIDTH = 410  # pixels of the module panel in a window of 1600 x 1000


class Journey:
    """The steps; each begins with an empty scene. picture: called with a name after each."""

    def __init__(self, picture=lambda name: None):
        from MRSuperResSupport import compare, scene

        import MRSuperRes

        self.module, self.compare, self.scene, self.picture = MRSuperRes, compare, scene, picture

    @property
    def panel(self):
        """The module's panel, as Slicer shows it."""
        slicer.util.selectModule("MRSuperRes")
        panel = slicer.modules.MRSuperResWidget
        panel.initializeParameterNode()
        return panel

    def scan(self, name, size=(12, 48, 40), spacing=(1.0, 1.0, 4.0)):
        """A ball in a volume of `size` (k, j, i)."""
        import numpy as np

        k, j, i = np.meshgrid(*(np.linspace(-1, 1, count) for count in size), indexing="ij")
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        slicer.util.updateVolumeFromArray(node, (100 * np.exp(-3 * (k**2 + j**2 + i**2))).astype(np.float32))
        node.SetSpacing(*spacing)
        node.CreateDefaultDisplayNodes()
        return node

    def chosen(self, node, **more):
        """The panel with `node` and B-spline interpolation, twice as fine through plane."""
        panel = self.panel
        panel._parameterNode.inputVolume = node
        values = {"task": self.module.Task.THROUGH_PLANE, "model": "bspline", "factor": 2.0, **more}
        for name, value in values.items():
            setattr(panel._parameterNode, name, value)
        return panel

    def until(self, condition, seconds, what):
        """Let the application live until `condition()`."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
            slicer.app.processEvents()
            time.sleep(0.01)

    def applied(self, panel):
        """Press Apply, wait, and return the result."""
        assert self.get(panel.ui.applyButton, "enabled"), self.get(panel.ui.applyButton, "toolTip")
        panel.ui.applyButton.click()
        self.until(lambda: not panel.work.isRunning, 120, "the end of the run")
        result = panel._parameterNode.outputVolume
        assert result is not None, self.get(panel.ui.statusLabel, "text")
        return result

    @staticmethod
    def get(widget, name):
        """A property of a widget."""
        return widget.property(name)

    def run(self):
        """All steps, in order."""
        for name in sorted(name for name in dir(self) if name.startswith("step_")):
            slicer.mrmlScene.Clear()
            getattr(self, name)()
            self.picture(name)
            print(f"{name}: passed", flush=True)

    # Steps, after the faults they hold

    def step_01_patients_are_not_mixed(self):
        """Another patient is shown with nothing of the former one's: no result, scores, reference, truth or words."""
        first = self.scan("T2 of A")
        panel = self.chosen(first)
        panel._parameterNode.truthVolume = self.scan("truth of A", (24, 48, 40), (1.0, 1.0, 2.0))
        result = self.applied(panel)
        panel._parameterNode.factor = 3.0
        panel._parameterNode.inputVolume = self.scan("T2 of B")
        assert panel.results.result() is None and not self.get(panel.ui.compareButton, "enabled")
        assert panel._parameterNode.truthVolume is None and self.get(panel.ui.metricsTable, "rowCount") == 0
        assert "A" not in self.get(panel.ui.statusLabel, "text")
        panel._parameterNode.inputVolume = first
        assert panel.results.result() is result
        slicer.mrmlScene.Clear()
        assert self.get(panel.ui.statusLabel, "text") == ""

    def step_02_the_view_called_result_shows_the_result(self):
        """Choosing the other map leaves the opacity of the result."""
        panel = self.chosen(self.scan("T2 thick"), makeConsistencyMap=True)
        panel._parameterNode.truthVolume = self.scan("truth", (24, 48, 40), (1.0, 1.0, 2.0))
        result = self.applied(panel)
        panel.ui.compareButton.click()
        for number in (1, 0, 1):
            panel.ui.mapSelector.setProperty("currentIndex", number)
            slicer.app.processEvents()
            view = self.compare.compositeNode(self.compare.VIEWS[1])
            assert view.GetForegroundVolumeID() == result.GetID()
            assert view.GetForegroundOpacity() == self.get(panel.ui.blendSlider, "value") == 1.0
            assert self.compare.sliceNode(self.compare.VIEWS[1]).GetLayoutLabel() == panel.results.comparison._names[1]
        self.picture("two_maps")
        panel.ui.restoreLayoutButton.click()

    def step_04_the_sample_begins_with_the_thick_volume_and_a_network(self):
        """After loading the sample nobody has to know which volume and which model."""
        from MRSuperResSupport import samples

        panel = self.panel
        samples.register()
        source = slicer.modules.sampleDataSources[samples.CATEGORY][0]
        thick, _truth = samples.load(source)
        self.until(lambda: panel._parameterNode.inputVolume is thick, 5, "the choice of the thick volume")
        card = panel.inputs.entry().card
        assert (
            card.plane == "through-plane" and not card.is_baseline and panel._parameterNode.factor == card.factor == 4.0
        )
        assert panel.inputs.offered[-1].card.is_baseline

    def step_05_the_factor_follows_the_model(self):
        """No warning about a factor that nobody has chosen."""
        panel = self.panel
        panel._parameterNode.inputVolume = self.scan("T1 gre", (20, 64, 64), (2.4, 2.4, 3.0))
        panel._parameterNode.task = self.module.Task.IN_PLANE
        for entry in [entry for entry in panel.inputs.offered if not entry.card.is_baseline]:
            panel._parameterNode.model = entry.card.id
            assert panel._parameterNode.factor == entry.card.factor and panel.inputs.warnings() == []

    def step_06_the_panel_is_never_wider(self):
        """Long names, a card, warnings: the views do not jump."""
        panel = self.chosen(self.scan("T2 " + "with a very long name " * 6))
        for name in ("about", "hidden", "outputs", "compare", "log"):
            getattr(panel.ui, f"{name}CollapsibleButton").setProperty("collapsed", False)
        slicer.app.processEvents()
        hint = panel.parent.minimumSizeHint  # a property for PythonQt
        assert (hint() if callable(hint) else hint).width() <= PANEL_WIDTH

    def step_07_the_console_hears_what_a_run_warns_of(self):
        """`superResolve` has no status line: Slicer's log says what the panel would."""
        import logging

        from MRSuperResSupport import requirements

        if not requirements.areMet():
            print("left out: this Slicer has no PyTorch, and a network is run here")
            return
        heard = []
        handler = logging.Handler()
        handler.emit = lambda record: heard.append(record.getMessage())
        logging.getLogger().addHandler(handler)
        try:  # 12 mm apart: no network was made for that
            self.panel.logic.superResolve(self.scan("T2 thick", spacing=(1.0, 1.0, 12.0)), "disvit-through-x4")
        finally:
            logging.getLogger().removeHandler(handler)
        assert any(line.startswith("disvit-through-x4: ") for line in heard), heard

    def step_08_a_deleted_input_stops_its_run(self):
        """At once, and the panel says why."""
        node = self.scan("T2 thick")
        panel = self.chosen(node)
        panel.ui.applyButton.click()
        slicer.mrmlScene.RemoveNode(node)
        self.until(lambda: not panel.work.isRunning, 5, "the end of the run")
        assert "T2 thick" in self.get(panel.ui.statusLabel, "text")

    def step_09_the_layout_menu_leaves_a_comparison_completely(self):
        """Cross-hair, linked windows and open eyes go with the layout."""
        node = self.scan("T2 thick")
        panel = self.chosen(node)
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        crosshair.SetCrosshairMode(crosshair.NoCrosshair)
        result = self.applied(panel)
        panel.ui.compareButton.click()
        slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView)
        slicer.app.processEvents()
        assert crosshair.GetCrosshairMode() == crosshair.NoCrosshair
        window = node.GetDisplayNode().GetWindow()
        result.GetDisplayNode().SetWindowLevel(window + 10, 20)
        assert node.GetDisplayNode().GetWindow() == window
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            if composite.GetLayoutName() in self.compare.VIEWS:
                assert not composite.GetBackgroundVolumeID() and not composite.GetForegroundVolumeID()

    def step_10_nothing_speaks_of_the_command_line(self):
        """Labels, cards and tool tips, of each model for two unlike scans: no option of a shell."""
        texts = set()
        for name, size, spacing in (("T2 thick", (12, 48, 40), (1.0, 1.0, 4.0)), ("T1", (40, 48, 40), (1.0, 1.0, 1.0))):
            panel = self.chosen(self.scan(name, size, spacing))
            for task in self.module.Task:
                panel._parameterNode.task = task
                for entry in list(panel.inputs.offered):
                    panel._parameterNode.model = entry.card.id
                    for widget in vars(panel.ui).values():
                        texts.update(self.get(widget, words) for words in ("text", "toolTip", "plainText"))
        texts = [text for text in texts if isinstance(text, str)]
        assert len(texts) > 50 and not [text for text in texts if " --" in f" {text}"]

    def step_11_cancel_leaves_nothing_however_often(self):
        """Pressed at once, after a moment, and when the worker has answered already; also with a worker that is warm."""
        panel = self.chosen(self.scan("T2 thick"))
        for pause, lives in ((0.0, True), (0.0, True), (0.2, True), (3.0, False), (0.0, True)):
            before = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")}
            panel.ui.applyButton.click()
            run = panel.work.run
            assert run is not None, f"the first press started nothing: {self.get(panel.ui.statusLabel, 'text')}"
            end = time.monotonic() + pause
            while time.monotonic() < end:
                if lives:
                    slicer.app.processEvents()
                time.sleep(0.01)
            if not run.isRunning:  # it was quicker than the pause
                self.until(lambda: not panel.work.isRunning, 10, "the end of a run")
                panel._parameterNode.outputVolume = None
                continue
            panel.ui.applyButton.click()
            panel.ui.applyButton.click()
            self.until(lambda: not panel.work.isRunning, 10, "the end of a cancelled run")
            assert run.error is not None and run.error.code == "cancelled"
            assert {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")} == before
            assert self.get(panel.ui.applyButton, "enabled"), self.get(panel.ui.applyButton, "toolTip")

    def step_12_maps_are_no_inputs_and_begin_at_zero(self):
        """What is offered as an input is a scan or a result."""
        panel = self.chosen(self.scan("T2 thick"), makeConsistencyMap=True)
        panel._parameterNode.truthVolume = self.scan("truth", (24, 48, 40), (1.0, 1.0, 2.0))
        self.applied(panel)
        hidden = list(panel.ui.inputSelector.sortFilterProxyModel().property("hiddenNodeIDs"))
        for shown in (panel._parameterNode.errorMap, panel._parameterNode.consistencyMap):
            assert shown.GetID() in hidden
        assert panel._parameterNode.errorMap.GetDisplayNode().GetWindowLevelMin() == 0.0

    def step_13_a_second_run_is_under_way_at_once(self):
        """The worker stays: the first sign of progress comes within two seconds."""
        panel = self.chosen(self.scan("T2 thick"))
        self.applied(panel)
        panel._parameterNode.factor = 3.0
        seen, progress = [], panel.work._onProgress
        panel.work._onProgress = lambda *step: (seen.append(step), progress(*step))
        started = time.monotonic()
        panel.ui.applyButton.click()
        self.until(lambda: bool(seen), 10, "a sign of progress")
        real = "MRSUPERRES_PICTURES" in os.environ  # `make slicer-test`, on a machine that has nothing else to do
        assert time.monotonic() - started < 2.0 or not real
        self.until(lambda: not panel.work.isRunning, 60, "the end of the run")
        del panel.work._onProgress

    def step_14_results_are_series_of_the_study(self):
        """Slicer's DICOM export writes MR, in the study of the scan."""
        tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        node = self.scan("T2 thick")
        study = tree.CreateStudyItem(tree.CreateSubjectItem(tree.GetSceneItemID(), "patient"), "visit")
        item = tree.GetItemByDataNode(node)
        if item == slicer.vtkMRMLSubjectHierarchyNode.GetInvalidItemID():
            item = tree.CreateItem(study, node)
        tree.SetItemParent(item, study)
        made = tree.GetItemByDataNode(self.applied(self.chosen(node)))
        assert tree.GetItemParent(made) == study and tree.GetItemAttribute(made, "DICOM.Modality") == "MR"

    def step_15_the_tree_offers_super_resolution(self):
        """Right click on a volume."""
        node = self.scan("T2 thick")
        tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        item = tree.GetItemByDataNode(node)
        if item == slicer.vtkMRMLSubjectHierarchyNode.GetInvalidItemID():
            item = tree.CreateItem(tree.GetSceneItemID(), node)
        assert self.scene.isWork(item)
        panel = self.panel
        plugin = slicer.qSlicerSubjectHierarchyPluginHandler.instance().pluginByName("MRSuperRes")
        assert plugin is not None, "the tree does not know the module"
        ours = slicer.MRSuperResSubjectHierarchyPlugin  # where Slicer puts the plugin's Python part
        ours.showContextMenuActionsForItem(item)
        assert self.get(ours.action, "visible")
        ours.action.trigger()
        assert panel._parameterNode.inputVolume is node

    def step_16_what_a_translation_may_have_lost_is_warned_of_and_gone_to(self):
        """Outlined over scan and result; the button goes to one place after the other, in all slice views."""
        import numpy as np
        from MRSuperResSupport import places

        node, result = self.scan("T2 thick"), self.scan("T2 thick as FLAIR")
        self.scene.record(result, "result", node)
        segmentation = self.scene.create("flags", "vtkMRMLSegmentationNode")
        segmentation.CreateDefaultDisplayNodes()
        labels = np.zeros((12, 48, 40), np.float32)
        labels[2:6, 10:20, 10:20], labels[8:10, 30:34, 30:34] = 1, 2
        found = []
        for number, index in ((1, (15, 15, 4)), (2, (32, 32, 9))):
            volume = float(np.sum(labels == number)) * 4.0
            centre = [float(mm) for mm in self.scene.gridOf(result).index_to_world(np.array([index]))[0]]
            about = {"volume_mm3": volume, "diameter_mm": round((6 * volume / np.pi) ** (1 / 3), 1)}
            found.append({"label": number, "centre_lps_mm": centre, **about})
        places.fill(segmentation, labels, self.scene.gridOf(result), found)
        self.scene.placeBeside(segmentation, node)
        self.scene.record(segmentation, places.ROLE, node)
        self.scene.attach(result, places.ROLE, [segmentation])
        panel = self.chosen(node)
        panel.refresh()
        panel.results.present(result)
        assert self.get(panel.ui.placesRow, "visible") or not self.get(panel.parent, "visible")
        assert self.get(panel.ui.placesLabel, "text").startswith("2 ")
        for place in panel.logic.places(result):
            panel.ui.placesButton.click()
            slicer.app.processEvents()
            for name in ("Red", "Yellow", "Green"):
                matrix = slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode().GetSliceToRAS()
                middle = [matrix.GetElement(row, 3) for row in range(3)]
                assert all(abs(one - other) < 1e-3 for one, other in zip(middle, place.centre, strict=True))
        self.picture("places")
        panel._parameterNode.inputVolume = self.scan("T2 of B")
        assert not segmentation.GetDisplayNode().GetVisibility()

    def step_17_a_deleted_result_leaves_no_other_scan_as_the_output(self):
        """Qt makes the row before it the current one."""
        node, other = self.scan("T2 thick"), self.scan("T1 of B")
        panel = self.chosen(node)
        result = self.applied(panel)
        slicer.mrmlScene.RemoveNode(result)
        slicer.app.processEvents()
        assert panel._parameterNode.outputVolume is None and panel._parameterNode.inputVolume is node
        size = other.GetImageData().GetDimensions()
        assert self.applied(panel) is not other and other.GetImageData().GetDimensions() == size

    def step_18_a_comparison_keeps_its_volumes_and_gives_the_views_back(self):
        """Whatever is loaded meanwhile; and the user's views are as hot-linked as they were."""
        node = self.scan("T2 thick")
        panel = self.chosen(node)
        self.applied(panel)
        slicer.app.processEvents()
        composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        users = [one for one in composites if one.GetLayoutName() not in self.compare.VIEWS]
        before = [bool(one.GetHotLinkedControl()) for one in users]
        panel.ui.compareButton.click()
        slicer.app.processEvents()
        shown = [self.compare.compositeNode(name) for name in self.compare.VIEWS[:2]]
        kept = [(one.GetBackgroundVolumeID(), one.GetForegroundVolumeID()) for one in shown]
        logic = slicer.app.applicationLogic()
        logic.GetSelectionNode().SetActiveVolumeID(self.scan("T1 of B").GetID())
        logic.PropagateVolumeSelection()
        slicer.app.processEvents()
        assert [(one.GetBackgroundVolumeID(), one.GetForegroundVolumeID()) for one in shown] == kept
        shown[1].SetForegroundOpacity(0.4)
        assert abs(self.get(panel.ui.blendSlider, "value") - 0.4) < 1e-6
        assert "40" in self.compare.sliceNode(self.compare.VIEWS[1]).GetLayoutLabel()
        self.picture("comparison after a load")
        panel.ui.restoreLayoutButton.click()
        slicer.app.processEvents()
        assert [bool(one.GetHotLinkedControl()) for one in users] == before


def picture(name):
    """The application's window as it is now."""
    folder = os.environ.get("MRSUPERRES_PICTURES")
    window = slicer.util.mainWindow()
    if not folder or window is None:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    for _repeat in range(5):
        slicer.app.processEvents()
    slicer.util.forceRenderAllViews()
    window.grab().save(str(Path(folder) / f"{name}.png"))


def selfTest():
    """Every step of the module's self-test, with a picture after each."""
    from MRSuperRes import MRSuperResTest

    test = MRSuperResTest()
    test.messageDelay = 10
    for name in SELF_TEST:
        test.setUp()
        getattr(test, name)()
        picture(name.removeprefix("test_"))
        print(f"{name}: passed", flush=True)


def main():
    """Run, and tell by the exit status."""
    try:
        selfTest()
        Journey(picture).run()
    except Exception:
        traceback.print_exc(file=sys.stdout)
        slicer.util.exit(slicer.util.EXIT_FAILURE)
    else:
        slicer.util.exit(slicer.util.EXIT_SUCCESS)


if __name__ == "__main__":
    main()
