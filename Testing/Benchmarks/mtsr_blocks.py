"""ESRGAN's generator with 23, 21, 15 and 12 of its blocks: parameters, multiply-adds and time, as MTSR-MRI's table 3 has them.

    python Testing/Benchmarks/mtsr_blocks.py [--size 64] [--repeats 10] [--threads 1] [--clock wall|cpu] [--json FILE]

A slice of 64x64 becomes one of 256x256, on the CPU in float32, as `load_network` lays networks out. All variants are timed in one
run, one after the other in every round, and the median of each variant's times counts, so that a busy moment of the machine does
not fall on one alone. First a block as large as a small scan is allocated and freed, as reading one does: from then on glibc keeps
the memory that layers free, instead of taking pages from the kernel anew in every layer. `--clock cpu` takes the process's own time
instead, for a machine that others use too; with one thread the two are the same on an idle one. Networks have random weights: the
speed does not depend on them. Multiply-adds are those of our code, which doubles images by transposed convolutions; 3x3 ones after
nearest-neighbour doubling, as published, have 1.68 G more.

Ends with 1 if the 12 blocks that MTSR-MRI keeps take more than 0.55 of the time of all 23.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from MRSuperResLib.networks import rrdb

AT_MOST = 0.55
SCAN_BYTES = 31 * 2**20  # larger ones, glibc would not learn from
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Variant:
    """A row of table 3: what it removes, what stays, and the PSNR (dB) and seconds that are printed there."""

    name: str
    removed: str
    kept: tuple[int, ...]
    paper_psnr: float
    paper_seconds: float


# The paper's v1 removes 1, 2, 22 and 23, which would leave 19 where it says 21, and its v4 12 to 23, which would leave 11 where it
# says 12. The number of blocks is kept here, because that is what costs time.
VARIANTS = (
    Variant("v0", "none", tuple(range(1, 24)), 38.10, 23.211),
    Variant("v1", "1, 23", tuple(range(2, 23)), 37.92, 20.115),
    Variant("v2", "1-4, 20-23", tuple(range(5, 20)), 35.88, 15.003),
    Variant("v3", "1-11", tuple(range(12, 24)), 34.03, 11.268),
    Variant("v4", "13-23", tuple(range(1, 13)), 35.22, 11.274),
    Variant("proposed", "all even", tuple(range(1, 24, 2)), 36.64, 11.287),
)


@dataclass(frozen=True)
class Row:
    """What is measured of a variant. multiply_adds: of one slice; seconds: the median of the repeats."""

    variant: Variant
    parameters: int
    multiply_adds: int
    seconds: float


def main() -> int:
    """Measure, print the table, and say whether the proposed variant is fast enough."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="rows and columns of the slice")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = measure(VARIANTS, size=options.size, repeats=options.repeats, clock=options.clock)
    print(table(rows))
    share = ratio(rows)
    print(f"proposed takes {share:.3f} of the time of v0, at most {AT_MOST} is asked for")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    return 0 if share <= AT_MOST else 1


def measure(
    variants: tuple[Variant, ...], *, size: int, repeats: int, clock: str = "wall", **hyperparameters: Any
) -> list[Row]:
    """A row for each of `variants`, with networks of `hyperparameters` (by default the published ones)."""
    networks = [
        rrdb.build(kept=variant.kept, **hyperparameters).eval().to(memory_format=torch.channels_last)
        for variant in variants
    ]
    times = seconds(networks, size=size, repeats=repeats, clock=clock)
    return [
        Row(variant, sum(p.numel() for p in network.parameters()), multiply_adds(network, size), taken)
        for variant, network, taken in zip(variants, networks, times, strict=True)
    ]


def multiply_adds(network: nn.Module, size: int) -> int:
    """What `network` multiplies and adds for one slice of `size` x `size`, by torch's counter (which has 2 for each)."""
    x = torch.zeros(1, 1, size, size, device="meta")
    with FlopCounterMode(display=False) as counter:
        network.to("meta")(x)
    return int(counter.get_total_flops()) // 2


def seconds(networks: list[nn.Module], *, size: int, repeats: int, clock: str) -> list[float]:
    """The median of `repeats` times of each network, taken in turns after a first round that does not count."""
    now = CLOCKS[clock]
    times: list[list[float]] = [[] for _ in networks]
    x = torch.rand(1, 1, size, size)
    torch.zeros(SCAN_BYTES // 4)  # freed at once
    with torch.inference_mode():
        for repeat in range(repeats + 1):
            for number, network in enumerate(networks):
                start = now()
                network(x)
                if repeat:
                    times[number].append(now() - start)
    return [statistics.median(each) for each in times]


def ratio(rows: list[Row]) -> float:
    """The last variant's time over the first one's."""
    return rows[-1].seconds / rows[0].seconds


def table(rows: list[Row]) -> str:
    """The rows as text, beside what the paper prints."""
    lines = [
        "variant   removed       blocks  parameters  multiply-adds    time   of v0   paper: PSNR     time   of v0",
        "                                                      (G)     (s)                  (dB)      (s)",
    ]
    first = rows[0]
    for row in rows:
        paper = row.variant
        lines.append(
            f"{paper.name:<9} {paper.removed:<13} {len(paper.kept):>6}  {row.parameters:>10,}  {row.multiply_adds / 1e9:>13.2f} "
            f"{row.seconds:>7.3f} {row.seconds / first.seconds:>7.3f} {paper.paper_psnr:>13.2f} {paper.paper_seconds:>8.3f} "
            f"{paper.paper_seconds / first.variant.paper_seconds:>7.3f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
