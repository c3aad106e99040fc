"""`mrsuperres demo`: super-resolve a real volume and show the gain."""

from __future__ import annotations

import argparse
from typing import Any

from .arguments import add_command, add_fields


def add_demo(commands: Any) -> None:
    parser = add_command(
        commands, "demo", _demo, "super-resolve a real volume that comes with a package, and show the gain"
    )
    parser.add_argument("--output", default="demo-output", metavar="DIR", help="where to write (demo-output)")
    parser.add_argument("--input", metavar="VOLUME", help="an isotropic volume of your own instead")
    parser.add_argument("-m", "--model", metavar="ID", help="by default the best through-plane model")
    parser.add_argument("--whole", action="store_true", help="use the whole head, not a block of it")
    add_fields(parser, "device", "threads", "model_folders")


def _demo(options: argparse.Namespace) -> int:
    from .. import demo

    demo.run(
        options.output,
        source=options.input,
        model=options.model,
        model_folders=options.model_folders,
        block_mm=None if options.whole else demo.BLOCK_MM,
        device=options.device,
        threads=options.threads,
    )
    return 0
