"""`mrsuperres train`, `blend` and `data pack`: train a model by a recipe, blend two of its states, and prepare data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .arguments import add_command, whole
from .output import say
from .streams import show


def add_train(commands: Any) -> None:
    parser = add_command(commands, "train", _train, "train a model by a recipe")
    parser.set_defaults(patient=True)
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's name, or a TOML file")
    parser.add_argument("--data", required=True, metavar="DIR", help="with train/ and val/, or packs of them")
    parser.add_argument("--out", required=True, metavar="DIR", help="for checkpoints, curves, pictures and the model")
    parser.add_argument("--minutes", required=True, type=float, metavar="N", help="of wall time")
    parser.add_argument("--resume", action="store_true", help="go on from DIR's last checkpoint")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (all of them) or cuda:n")
    parser.add_argument("--init", metavar="ID", help="start from the weights of this model where they fit")
    parser.add_argument(
        "--workers", type=whole, default=0, metavar="N", help="processes that prepare data (default: 0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything that is random (default: 0)")
    parser.add_argument("--no-validation", action="store_true", help="do not score the network while it trains")
    parser.add_argument(
        "--checkpoint-minutes", type=float, default=2.0, metavar="N", help="between checkpoints (default: 2)"
    )

    parser.add_argument(
        "--id", metavar="ID", help="of a model trained on data of your own (default: the recipe's, with -own)"
    )
    parser.add_argument(
        "--sources", nargs="+", default=(), metavar="SOURCE", help="what you train on, for the model's card: "
        "'NAME; LICENCE; USE' each, or a TOML file with sources = [{ name = ..., licence = ..., use = ... }]",
    )  # fmt: skip


def _train(options: argparse.Namespace) -> int:
    from ..training.fit import fit

    path = fit(
        options.recipe,
        options.data,
        options.out,
        minutes=options.minutes,
        resume=options.resume,
        device=options.device,
        init=options.init,
        workers=options.workers,
        seed=options.seed,
        validate=not options.no_validation,
        checkpoint_minutes=options.checkpoint_minutes,
        id=options.id,
        sources=options.sources,
    )
    show(str(path))
    return 0


def add_blend(commands: Any) -> None:
    parser = add_command(commands, "blend", _blend, "write a model between two of the same network")
    parser.add_argument("first", metavar="FIRST", help="a model's id, or its file: the one that was trained on from")
    parser.add_argument("second", metavar="SECOND", help="a model's id, or its file: what the training has made of it")
    parser.add_argument("--share", required=True, type=float, metavar="S", help="of the second one's weights, 0 to 1")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the model to write, .safetensors")


def _blend(options: argparse.Namespace) -> int:
    from ..models import find_model
    from ..training.blend import blend

    show(str(blend(find_model(options.first), find_model(options.second), options.share, options.output).path))
    return 0


def add_data(commands: Any) -> None:
    data = commands.add_parser("data", help="prepare data for training", description="Prepare data for training.")
    parser = add_command(
        data.add_subparsers(metavar="COMMAND", required=True), "pack", _pack, "pack a folder of volumes into one file"
    )
    parser.add_argument("folder", metavar="FOLDER", help="of volumes, searched recursively")
    parser.add_argument("out", metavar="OUT", help="the pack to write")


def _pack(options: argparse.Namespace) -> int:
    from ..training.pack import pack

    packed = pack(Path(options.folder), Path(options.out), report=say)
    show(f"{options.out}: {len(packed.entries)} volumes")
    return 0
