"""What becomes of memory that is freed between two slices, and between two jobs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory in its own way")
BLOCK = 48 * 2**20  # bytes: larger than glibc ever keeps by itself
WORK = f"""
import os, resource, sys
import numpy as np
from MRSuperResLib.inference.memory import give_back_freed_memory, keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

if "keep" in sys.argv:
    keep_freed_memory()
for turn in range(12):
    if turn == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.ones({BLOCK}, np.uint8) for _ in range(2)]
    del blocks
faults, held = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, resident()
give_back_freed_memory()
print(faults, held - resident())
"""


def work(*arguments: str, **variables: str) -> tuple[int, int]:
    """Pages that ten turns of allocating and freeing asked the system for, and bytes given back afterwards."""
    plain = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_") and name != "LD_PRELOAD"}
    done = subprocess.run(
        [sys.executable, "-c", WORK, *arguments], env=plain | variables, capture_output=True, text=True, check=True
    )
    faults, given_back = map(int, done.stdout.split())
    return faults, given_back


@glibc
def test_what_a_slice_frees_serves_the_next_and_is_given_back_after_the_job() -> None:
    faults, _ = work()
    kept, given_back = work("keep")
    assert kept < faults / 10 and given_back > BLOCK


@glibc
def test_an_allocator_that_the_user_has_set_up_is_left_alone() -> None:
    assert work("keep", MALLOC_ARENA_MAX="2")[0] > work("keep")[0] * 10
