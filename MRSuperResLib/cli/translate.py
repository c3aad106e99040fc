"""`mrsuperres translate`: translate a volume to another contrast."""

from __future__ import annotations

import argparse
from typing import Any

from .arguments import add_command
from .run import add_job_arguments, add_resolution_arguments, execute


def add_translate(commands: Any) -> None:
    parser = add_command(commands, "translate", _translate, "translate a volume to another contrast")
    add_job_arguments(parser)
    add_resolution_arguments(parser)
    parser.add_argument(
        "--to", metavar="CONTRAST", dest="target", help="contrast to make: T1w, T2w or FLAIR; by default the only other"
    )
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="how many plausible answers to draw (8; 1 to 100); the result is their mean",
    )
    parser.add_argument("--samples-folder", metavar="DIR", help="write each of the samples there")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the samples (0): same seed, same result")
    parser.add_argument("--uncertainty-map", metavar="PATH", help="write the samples' standard deviation, calibrated")
    parser.add_argument("--super-resolve", metavar="MODEL", help="super-resolve with this model first")


def _translate(options: argparse.Namespace) -> int:
    return execute(
        options,
        task="translate",
        target=options.target,
        samples=options.samples,
        samples_folder=options.samples_folder,
        seed=options.seed,
        uncertainty_map=options.uncertainty_map,
        super_resolve_with=options.super_resolve,
    )
