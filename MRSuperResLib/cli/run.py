"""`mrsuperres run`: super-resolve a volume; and what it shares with `translate`."""

from __future__ import annotations

import argparse
from typing import Any

from .. import jobs
from ..jobs import Cancellation, Job
from .arguments import add_command, add_model_folder, plane
from .output import events


def add_run(commands: Any) -> None:
    parser = add_command(commands, "run", _run, "super-resolve a volume")
    add_job_arguments(parser)
    add_resolution_arguments(parser)
    parser.add_argument(
        "--reference", metavar="REF", help="a sharp volume of the same anatomy, for a reference-guided model"
    )
    parser.add_argument(
        "--reference-contrast", metavar="NAME", help="of the reference; by default what its file name tells"
    )
    parser.add_argument("--no-register", action="store_true", help="trust the headers: do not align the reference")
    parser.add_argument(
        "--consistency-map", metavar="PATH", help="write where the result contradicts what was acquired"
    )
    parser.add_argument("--project", action="store_true", help="make the result reproduce the acquired voxels")
    profiles = ("gaussian", "box", "sinc", "kspace", "bicubic")
    parser.add_argument(
        "--profile", choices=profiles, default="gaussian", help="slice profile for those two (gaussian)"
    )


def _run(options: argparse.Namespace) -> int:
    return execute(
        options,
        task="reference-guided" if options.reference else "super-resolve",
        reference=options.reference,
        reference_contrast=options.reference_contrast,
        register=not options.no_register,
        consistency_map=options.consistency_map,
        project=options.project,
        profile=options.profile,
    )


def add_job_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` and `translate` share."""
    parser.add_argument("input", metavar="INPUT", help="NIfTI, NRRD, MHA or MGZ file, or the folder of a DICOM series")
    parser.add_argument(
        "-o", "--output", required=True, metavar="OUTPUT", help=f"file to write ({', '.join(jobs.FORMATS)})"
    )
    parser.add_argument(
        "-m", "--model", required=True, metavar="ID", help="id (see 'mrsuperres models') or a .safetensors file"
    )
    parser.add_argument(
        "--contrast", metavar="NAME", help="of the input: T1w, T2w, FLAIR or PDw; checked against the model"
    )
    parser.add_argument("--truth", metavar="HR", help="a ground truth: the result is scored against it")
    parser.add_argument("--error-map", metavar="PATH", help="write |result - truth|")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto (CUDA if there is one), cpu, cuda, cuda:n or mps")
    machine.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="of the network")
    machine.add_argument("--tile", type=int, metavar="N", help="at most N x N pixels of a slice at once")
    machine.add_argument("--batch", type=int, metavar="N", help="slices at once")
    machine.add_argument("--threads", type=int, metavar="N", help="of the CPU")
    add_model_folder(parser)
    parser.add_argument("--json", action="store_true", help="print events as JSON lines instead of a progress bar")


def add_resolution_arguments(parser: argparse.ArgumentParser) -> None:
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--factor", type=float, metavar="F", help="how much finer; by default the model's own factor")
    size.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        metavar=("X", "Y", "Z"),
        help="mm wanted along i, j, k; the nearest that fits the extent is made",
    )
    parser.add_argument(
        "--plane", type=plane, metavar="PLANE", help="in-plane or through-plane; by default the model's"
    )
    parser.add_argument(
        "--slice-axis",
        type=int,
        metavar="A",
        help="0, 1 or 2 (i, j, k); by default across square pixels, or the coarsest",
    )


def execute(options: argparse.Namespace, **fields: Any) -> int:
    """Run the job in this process, showing its events."""
    names = ["input", "output", "model", "contrast", "truth", "error_map", "factor", "plane", "slice_axis"]
    names += ["device", "precision", "tile", "batch", "threads"]
    spacing = None if options.spacing is None else tuple(options.spacing)
    job = Job(
        **{name: getattr(options, name) for name in names},
        spacing=spacing,
        model_folders=tuple(options.models),
        **fields,
    )
    cancellation = Cancellation()
    with events(options.json) as emit, cancellation.on_signals():
        return jobs.execute(job, emit, cancellation)
