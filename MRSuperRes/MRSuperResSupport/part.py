"""What the parts of the panel share: each owns some widgets, and asks the panel for the rest."""

import slicer


def live(node):
    """`node` if it still is in the scene; parameter nodes remember deleted ones."""
    return node if node is not None and slicer.mrmlScene.IsNodePresent(node) else None


class Part:
    """A part of the panel. panel: has the widgets (`ui`), the parameter node (`_parameterNode`) and the `logic`."""

    def __init__(self, panel):
        self.panel = panel

    @property
    def ui(self):
        """The widgets of the .ui file, by name."""
        return self.panel.ui

    @property
    def logic(self):
        """The module's logic."""
        return self.panel.logic

    @property
    def _parameterNode(self):
        return self.panel._parameterNode

    @property
    def _refreshing(self):
        return self.panel._refreshing

    _live = staticmethod(live)


def fill(combo, labels, current):
    """Give `combo` these entries, silently."""
    blocked = combo.blockSignals(True)
    try:
        if [combo.itemText(number) for number in range(combo.count)] != list(labels):
            combo.clear()
            combo.addItems(list(labels))
        combo.currentIndex = current
    finally:
        combo.blockSignals(blocked)
