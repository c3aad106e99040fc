"""The user's journey in a real Slicer, from the command line, with pictures of the panel and of the comparison:

    Slicer --testing --no-splash --additional-module-paths CHECKOUT/MRSuperRes --python-script CHECKOUT/Testing/Slicer/journey.py

The application ends with status 0 if all went well. Pictures go to the folder named by MRSUPERRES_PICTURES, if there is one.
"""

import os
import sys
import traceback
from pathlib import Path

import slicer


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


def journey():
    """Every step of the module's self-test, with a picture after each."""
    from MRSuperRes import MRSuperResTest

    test = MRSuperResTest()
    test.messageDelay = 10
    for name in ("test_apply", "test_cancel", "test_compare", "test_many", "test_restore"):
        test.setUp()
        getattr(test, name)()
        picture(name.removeprefix("test_"))
        print(f"{name}: passed", flush=True)


def main():
    """Run, and tell by the exit status."""
    try:
        journey()
    except Exception:
        traceback.print_exc(file=sys.stdout)
        slicer.util.exit(slicer.util.EXIT_FAILURE)
    else:
        slicer.util.exit(slicer.util.EXIT_SUCCESS)


main()
