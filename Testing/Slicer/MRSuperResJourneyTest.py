"""The user's journey inside a real Slicer, as a unit test: `slicer_add_python_unittest(SCRIPT MRSuperResJourneyTest.py)`.

The journey itself is `MRSuperResTest` in the module, which the module's own "Reload and Test" runs too.
"""

import unittest

import slicer


class MRSuperResJourneyTest(unittest.TestCase):
    """Each step in its own test, so that a report names the one that failed."""

    def setUp(self):
        from MRSuperRes import MRSuperResTest

        self.journey = MRSuperResTest()
        self.journey.messageDelay = 10
        self.journey.setUp()

    def tearDown(self):
        slicer.mrmlScene.Clear()

    def test_the_module_is_loaded(self):
        """The module is there, with its icon and help."""
        module = slicer.modules.mrsuperres
        self.assertIn("Research use only", module.helpText)
        self.assertFalse(module.icon.isNull())

    def test_nothing_heavy_is_imported_at_start(self):
        """Slicer's own process never imports torch or MONAI for this module."""
        import sys

        self.assertFalse({"torch", "monai", "safetensors", "einops"} & set(sys.modules))

    def test_apply(self):
        """Apply makes a finer volume."""
        self.journey.test_apply()

    def test_cancel(self):
        """Cancel leaves nothing."""
        self.journey.test_cancel()

    def test_compare(self):
        """Compare lays out linked views, and back."""
        self.journey.test_compare()

    def test_many(self):
        """All volumes of a folder are done, a bad one is reported."""
        self.journey.test_many()

    def test_restore(self):
        """Choices come back with a saved scene."""
        self.journey.test_restore()


if __name__ == "__main__":
    unittest.main()
