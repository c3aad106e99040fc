"""What FASR-Net costs: parameters, multiply-adds of the texture extractor as the paper counts them, time and memory of a slice.

    python Testing/Benchmarks/fasr_cost.py [--model fasr-s-inplane-x4 ...] [--size 320]

The paper's table II prints 12.34 M parameters and 22.06 G for the extractor's layers at 256 x 256 x 3. Each slice (an answer of
`size` x `size` pixels) is made in a process of its own, so that its peak memory is its own, Python and torch included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from torch import Tensor, nn

from MRSuperResLib import networks
from MRSuperResLib.inference import Options
from MRSuperResLib.inference.runner import SliceRunner
from MRSuperResLib.models import find_model, load_network
from MRSuperResLib.networks.fasr import TextureExtractor


def main() -> None:
    """Print the extractor's table, then a line for each model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", nargs="*", default=[], help="guided in-plane models, ids or files")
    parser.add_argument("--size", type=int, default=320, help="pixels along each side of an answer")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measured(arguments.measure, arguments.size)))
        return
    published = networks.build("fasr", {})
    extractor = TextureExtractor()
    one = multiply_adds(extractor, torch.zeros(1, 1, 256, 256))
    last = multiply_adds(nn.Conv2d(256, 256, 3, padding=1), torch.zeros(1, 256, 64, 64))
    print(
        f"extractor (VGG-19 to relu3_2): {parameters(extractor) / 1e6:.3f} M parameters, {one / 1e9:.2f} G multiply-adds an image"
    )
    print(
        f"three images, all layers: {3 * one / 1e9:.2f} G; without conv3_2: {3 * (one - last) / 1e9:.2f} G (paper: 22.06 G)"
    )
    print(
        f"published size: {parameters(published) / 1e6:.2f} M parameters (paper: 12.34 M, of the extractor by its table's title)"
    )
    for model in arguments.model:
        command = [sys.executable, __file__, "--measure", model, "--size", str(arguments.size)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(
            f"{model}: {found['parameters'] / 1e6:.2f} M parameters, {found['own'] / 1e6:.2f} M of them beside the base;"
            f" a slice of {arguments.size} x {arguments.size}: {found['seconds']:.1f} s of one thread, peak memory"
            f" {found['peak'] / 2**20:.0f} MiB, {found['bytes_per_pixel']:.0f} bytes an input pixel"
        )


def measured(model: str, size: int) -> dict[str, float]:
    """One slice through the engine's own runner: parameters, seconds, peak bytes of this process, and bytes per input pixel."""
    torch.set_num_threads(1)
    entry = find_model(model)
    network = load_network(entry)
    fh, fw = (int(f) for f in entry.card.factors or (1, 1))
    runner = SliceRunner(network, entry.card, (fh, fw), Options(device="cpu", threads=1, batch=1))
    rng = np.random.default_rng(0)
    low = rng.random((1, size // fh, size // fw), dtype=np.float32)
    beside = (rng.random((1, size, size), dtype=np.float32), np.ones((1, size, size), np.float32))
    before, started = peak(), time.process_time()
    for _ in runner.run(low, beside):
        pass
    own = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("base."))
    return {
        "parameters": parameters(network),
        "own": own,
        "seconds": time.process_time() - started,
        "peak": peak(),
        "bytes_per_pixel": (peak() - before) / low.size,
    }


def peak() -> int:
    """Most bytes this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def parameters(network: nn.Module) -> int:
    """How many weights a network has."""
    return sum(p.numel() for p in network.parameters())


def multiply_adds(network: nn.Module, *inputs: Tensor) -> float:
    """Multiply-adds of the convolutions in one forward pass."""
    total = [0]

    def count(layer: nn.Module, _: object, answer: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        total[0] += answer[0].numel() // layer.out_channels * layer.weight.numel()

    hooks = [layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    with torch.inference_mode():
        network(*inputs)
    for hook in hooks:
        hook.remove()
    return float(total[0])


if __name__ == "__main__":
    main()
