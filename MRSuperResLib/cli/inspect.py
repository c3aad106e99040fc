"""`mrsuperres inspect`: what a folder or file holds, and what to say to choose one volume of it."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import BadVolume
from ..provenance import made_by
from .arguments import add_command
from .output import complain, say, table
from .streams import show

if TYPE_CHECKING:
    from ..io.inspect import Found


def add_inspect(commands: Any) -> None:
    """`inspect`."""
    parser = add_command(commands, "inspect", _inspect, "list the volumes that a folder or file holds, and what is odd")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a volume, or a folder of volumes or DICOM files")
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def _with_maker(found: Found) -> Found:
    """With the model that made it among what is odd, if it is no scan."""
    maker = made_by(found.path)
    return replace(found, odd=(*found.odd, f"no scan: {maker} made it")) if maker else found


def _inspect(options: argparse.Namespace) -> int:
    from ..io.inspect import inspect

    found, missing = [], 0
    for path in options.paths:
        try:
            found += [_with_maker(each) for each in inspect(path)]
        except BadVolume as error:
            if len(options.paths) == 1:
                raise
            missing = complain(error.message, error.exit_code)
    if options.json:
        show(json.dumps([each.to_json() for each in found], indent=2))
        return missing
    if not found:
        say("no volumes")
        return BadVolume.exit_code

    def row(each: Found) -> tuple[str, ...]:
        return (
            each.key or "-",
            each.format,
            "-" if each.size is None else " x ".join(map(str, each.size)),
            "-" if each.spacing is None else " x ".join(f"{mm:.3g}" for mm in each.spacing),
            "-" if each.thickness is None else f"{each.thickness:.3g}",
            "-" if each.gap is None else f"{each.gap:.3g}",
            each.plane or "-",
            each.contrast or "-",
            each.name or each.path,
            *([each.path] if several else []),
        )

    several = len(options.paths) > 1
    head = ("SERIES", "FORMAT", "SIZE", "SPACING mm", "THICK", "GAP", "PLANE", "CONTRAST", "NAME") + ("PATH",) * several
    show(table([head, *map(row, found)]))
    for each in found:
        for line in each.odd:
            where = f"series {each.key}: " if each.key else "" if line.startswith(each.path) else f"{each.path}: "
            show(where + line)
    return missing or (0 if any(each.usable for each in found) else BadVolume.exit_code)
