"""Slices per second and peak memory of the shipped architectures, beside SwinIR and beside plain interpolation.

    make bench
    python Testing/Benchmarks/bench.py [--slices 16] [--size 48] [--batch 4] [--rounds 3] [--threads N] [--json FILE]

Every contestant turns the same slices (size x size) into ones four times finer along both axes. Each runs in a process of
its own, so that its peak memory is its own; the rounds alternate between contestants, so that a busy moment of the machine
does not fall on one alone; the median round is reported. Networks have random weights: the speed does not depend on them.

SwinIR is spandrel's, in its published classical size for x4 (Liang et al. 2021: width 180, 6 groups of 6 blocks, 6 heads,
window 8, MLP ratio 2, "pixelshuffle" upsampler) with one channel. It runs on float32 like ours, in the same loop.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.machinery
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

FACTOR = 4
NETWORKS = ("swinir", "rdst", "rdst-e", "disvit")
BF16 = "disvit-bf16"  # as disvit runs by itself on a CPU that has the type natively
BASELINES = ("linear", "bspline", "lanczos")
REFERENCE = "swinir"
SHORTEST = 2.0  # seconds of work that a timing covers at least


def main() -> None:
    """Run all contestants and print the table, or (with --measure) one of them and print its numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--size", type=int, default=48, help="pixels along each side of a low-resolution slice")
    parser.add_argument("--batch", type=int, default=4, help="slices a network sees at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    )
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.add_argument(
        "--at-least", type=float, help="fail unless RDST-E does this many times SwinIR's slices per second on the CPU"
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    if arguments.measure:
        print(json.dumps(measure(arguments)))
        return

    results = {}
    for device, precision in settings():
        names = NETWORKS if device != "cpu" else NETWORKS + (BF16,) * has_bf16() + BASELINES
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for _ in range(arguments.rounds):
            for name in names:
                rounds[name].append(in_own_process(name, device, arguments))
        results[f"{device} {precision}"] = {name: summarise(runs) for name, runs in rounds.items()}
        print(table(f"{device}, {precision}", results[f"{device} {precision}"], arguments), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"platform": platform.platform(), "results": results}, indent=1) + "\n")

    cpu = results["cpu float32"]
    ratio = cpu["rdst-e"]["slices_per_second"] / cpu[REFERENCE]["slices_per_second"]
    if arguments.at_least and ratio < arguments.at_least:
        raise SystemExit(f"RDST-E does {ratio:.2f} times SwinIR's slices per second, below {arguments.at_least:g}")


def settings() -> list[tuple[str, str]]:
    """(device, precision) pairs to run on this machine."""
    code = "import torch; print(torch.cuda.is_available())"
    cuda = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "True"
    )
    return [("cpu", "float32")] + ([("cuda", "bfloat16")] if cuda else [])


def in_own_process(name: str, device: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What `measure` finds for `name` in a fresh process."""
    command = [sys.executable, __file__, "--measure", name, "--device", device]
    for option in ("slices", "size", "batch", "threads"):
        command += [f"--{option}", str(getattr(arguments, option))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment)
    if finished.returncode:
        raise SystemExit(f"{name} on {device} failed:\n{finished.stderr}")
    found: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return found


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Median speed, spread and highest memory of one contestant's rounds."""
    speeds = [run["slices_per_second"] for run in runs]
    return {
        "parameters": runs[0]["parameters"],
        "slices_per_second": statistics.median(speeds),
        "slowest": min(speeds),
        "fastest": max(speeds),
        "peak_mb": max(run["peak_mb"] for run in runs),
    }


def table(title: str, results: dict[str, dict[str, Any]], arguments: argparse.Namespace) -> str:
    """The results as text, with ratios to SwinIR."""
    fine = arguments.size * FACTOR
    lines = [
        f"{title}: {arguments.slices} slices, {arguments.size}x{arguments.size} -> {fine}x{fine}, "
        f"batches of {arguments.batch}, {arguments.threads} threads, median of {arguments.rounds} rounds (slowest to fastest)",
        f"{'':12} {'parameters':>10} {'slices/s':>9} {'':>17} {'/ SwinIR':>9} {'peak MB':>8} {'/ SwinIR':>9}",
    ]
    reference = results[REFERENCE]
    for name, row in results.items():
        size = f"{row['parameters'] / 1e6:.2f} M" if row["parameters"] else "-"
        spread = f"({row['slowest']:.2f} to {row['fastest']:.2f})"
        lines.append(
            f"{name:12} {size:>10} {row['slices_per_second']:9.2f} {spread:>17} "
            f"{row['slices_per_second'] / reference['slices_per_second']:8.2f}x {row['peak_mb']:8.0f} "
            f"{row['peak_mb'] / reference['peak_mb']:8.2f}x"
        )
    return "\n".join([*lines, ""])


# --- one contestant, in its own process ---


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Parameters, slices per second and peak memory (MB above the idle, loaded program) of `arguments.measure`."""
    if arguments.measure in BASELINES:
        work, parameters = interpolation(arguments)
        peak = HostPeak()
    else:
        work, parameters = network(arguments)
        peak = CudaPeak() if arguments.device == "cuda" else HostPeak()
    work()  # warm-up; also where memory peaks
    rounds, start = 0, time.perf_counter()
    while rounds == 0 or time.perf_counter() - start < SHORTEST:
        work()
        rounds += 1
    seconds = (time.perf_counter() - start) / rounds
    return {"parameters": parameters, "slices_per_second": arguments.slices / seconds, "peak_mb": peak.megabytes()}


class HostPeak:
    """The most memory this process held since construction, above what it held then."""

    def __init__(self) -> None:
        self.before = self._highest()

    def megabytes(self) -> float:
        return max(self._highest() - self.before, 0.1)

    @staticmethod
    def _highest() -> float:
        import resource

        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return highest / 1e6 if sys.platform == "darwin" else highest / 1e3


class CudaPeak:
    """The most memory PyTorch held on the GPU since construction."""

    def __init__(self) -> None:
        import torch

        torch.cuda.reset_peak_memory_stats()

    def megabytes(self) -> float:
        import torch

        return torch.cuda.max_memory_allocated() / 1e6


def slices(count: int, size: int) -> Any:
    """(count, size, size) float32 in [0, 1], the same for everyone."""
    import numpy as np

    return np.random.default_rng(0).random((count, size, size), dtype=np.float32)


def interpolation(arguments: argparse.Namespace) -> tuple[Callable[[], None], int]:
    """A function that refines all slices by the library's own interpolation, and 0 parameters."""
    from MRSuperResLib.grid import Grid
    from MRSuperResLib.resample import resample
    from MRSuperResLib.volume import Volume

    size = arguments.size
    grid = Grid(
        (size, size, arguments.slices), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    )
    volume = Volume(slices(arguments.slices, size), grid)
    fine = grid.refine((FACTOR, FACTOR, 1))
    resample(
        Volume(volume.array[:1], Grid((size, size, 1), grid.spacing, grid.origin, grid.direction)), grid, "linear"
    )  # imports
    return lambda: _discard(resample(volume, fine, arguments.measure)), 0


def network(arguments: argparse.Namespace) -> tuple[Callable[[], None], int]:
    """A function that runs all slices through the network in batches, and its number of parameters."""
    import torch

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    build = {"swinir": lambda: swinir(arguments.size), "disvit": disvit, BF16: disvit}
    model = build.get(arguments.measure, lambda: rdst(arguments.measure))().to(device).eval()
    half = device.type == "cuda" or arguments.measure == BF16
    batches = torch.from_numpy(slices(arguments.slices, arguments.size))[:, None].split(arguments.batch)

    def work() -> None:
        autocast = torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext()
        with torch.inference_mode(), autocast:
            for batch in batches:
                answer = model(batch.to(device)).float().cpu()
        fine = arguments.size * FACTOR
        assert answer.shape[1:] == (1, fine, fine), answer.shape

    return work, sum(parameter.numel() for parameter in model.parameters())


def rdst(name: str) -> Any:
    """RDST or RDST-E at its published size."""
    from MRSuperResLib import networks

    return networks.build("rdst", {"blocks": {"rdst": 8, "rdst-e": 4}[name], "factors": (FACTOR, FACTOR)})


def disvit() -> Any:
    """The network of the shipped disvit models, x4 in plane, as `load_network` makes it ready."""
    import torch

    from MRSuperResLib import networks

    ours = {"normalisation": "none", "skip": "zerofill", "consistency": "soft", "head": "shuffle"}
    network = networks.build("srresnet", {"factors": (FACTOR, FACTOR), **ours}).eval().for_inference()
    return network.to(memory_format=torch.channels_last)


def has_bf16() -> bool:
    """Whether this machine's CPU multiplies bfloat16 itself."""
    code = "import torch; print(getattr(torch.cpu, '_is_avx512_bf16_supported', bool)())"
    return (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "True"
    )


def swinir(size: int) -> Any:
    """spandrel's SwinIR at its published classical x4 size, one channel.

    spandrel imports torchvision for other networks than this one. This benchmark satisfies that import with empty modules,
    so that it runs where no torchvision is to be had; nothing of SwinIR touches them.
    """
    if importlib.machinery.PathFinder.find_spec("torchvision") is None:
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
            module = types.ModuleType(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None)
            module.__path__ = []
            module.__getattr__ = lambda attribute: None  # type: ignore[method-assign]
            sys.modules[name] = module
    from spandrel.architectures.SwinIR import SwinIR

    return SwinIR(
        img_size=size, in_chans=1, embed_dim=180, depths=[6] * 6, num_heads=[6] * 6, window_size=8, mlp_ratio=2,
        upscale=FACTOR, upsampler="pixelshuffle", img_range=1.0, resi_connection="1conv",
    )  # fmt: skip


def _discard(_: object) -> None:
    """Keep nothing."""


if __name__ == "__main__":
    main()
