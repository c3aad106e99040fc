"""'Super-resolve...' in the context menu of the Data module's tree: on a volume, a folder, a study or a patient.

Slicer loads this file by its path, and looks in it for a class of its name (qSlicerSubjectHierarchyScriptedPlugin).
"""

import qt
import slicer
from slicer.i18n import tr as _
from SubjectHierarchyPlugins import AbstractScriptedSubjectHierarchyPlugin

from MRSuperResSupport import scene

MODULE = "MRSuperRes"


class MRSuperResSubjectHierarchyPlugin(AbstractScriptedSubjectHierarchyPlugin):
    """Adds an action to items that others own; owns none itself."""

    filePath = __file__

    def __init__(self, scriptedPlugin):
        scriptedPlugin.name = MODULE
        AbstractScriptedSubjectHierarchyPlugin.__init__(self, scriptedPlugin)
        self._item = 0  # that the menu was opened on; of several that are selected it is one
        self.action = qt.QAction(_("Super-resolve..."), scriptedPlugin)
        self.action.toolTip = _(
            "Opens MRSuperRes with this volume, or with all volumes of this folder, study or patient."
        )
        self.action.triggered.connect(self.onTriggered)

    def canAddNodeToSubjectHierarchy(self, node, parentItemID):
        """No node becomes an item by this plugin."""
        return 0.0

    def canOwnSubjectHierarchyItem(self, itemID):
        """No item is this plugin's."""
        return 0.0

    def roleForPlugin(self):
        """What the items are that it owns: it owns none."""
        return "N/A"

    def itemContextMenuActions(self):
        """All actions; each is hidden until `showContextMenuActionsForItem` shows it."""
        return [self.action]

    def showContextMenuActionsForItem(self, itemID):
        """Show the action where there is something to super-resolve."""
        self._item = itemID
        self.action.visible = bool(itemID) and scene.isWork(itemID)

    def onTriggered(self, checked=False):
        """Open the module on the item that was right-clicked."""
        if not self._item:
            return
        slicer.util.selectModule(MODULE)
        panel = getattr(slicer.modules, f"{MODULE}Widget", None)
        if panel is not None:
            panel.take(self._item)


def register():
    """Tell Slicer of the plugin, where the application has a tree; of one that it knows already it takes no notice."""
    if not hasattr(slicer, "qSlicerSubjectHierarchyScriptedPlugin"):
        return
    plugin = slicer.qSlicerSubjectHierarchyScriptedPlugin(None)
    plugin.setPythonSource(MRSuperResSubjectHierarchyPlugin.filePath)
