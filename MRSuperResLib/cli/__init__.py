"""`mrsuperres`: the shell's door to the library, one file a command."""

from __future__ import annotations

from .main import main, parser
from .output import Show

__all__ = ["Show", "main", "parser"]
