"""Moved to `evaluation.translation` and `evaluation.tables`."""

from .evaluation.tables import translation_json as to_json  # noqa: F401 - moved
from .evaluation.tables import translation_table as table  # noqa: F401 - moved
from .evaluation.translation import *  # noqa: F403 - moved
