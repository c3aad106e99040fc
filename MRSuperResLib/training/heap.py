"""The C library's heap, set for training on a CPU: memory that a step frees is kept for the next one."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h of glibc
TOP_PAD = 64 * 2**20  # bytes asked for beyond what is needed


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for as long as it runs; False where the C library is not glibc.

    By default glibc gives large blocks back at once and gets them anew, page by page, in every step. How much that costs depends on
    the machine and on how far the heap has settled; the process stays as large as its largest step.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, TOP_PAD))
    accepted = [libc.mallopt(name, value) == 1 for name, value in settings]
    return all(accepted)
