"""How much memory this machine has free, and what becomes of freed memory, on every platform, without a dependency."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # mallopt's names for them, in malloc.h
LARGEST_KEPT = (2**30, 2**25)  # bytes of one block; older versions of glibc take no more than the second
MOST_KEPT = 2**31 - 1  # bytes at the heap's end: the largest that mallopt's int holds


def available_memory() -> int | None:
    """Bytes of host memory free for new work, the smaller of the machine's and the container's; None if unknown."""
    if sys.platform == "win32":
        return _windows()
    limits = [free for free in (_linux(), _container()) if free is not None]
    if limits:
        return min(limits)
    try:  # macOS says only how much there is; half of it is a fair guess
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError):
        return None


def readable_bytes(count: float) -> str:
    """`count` bytes as people say it."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(1.0, count / 2**20):.0f} MiB"


def keep_freed_memory() -> None:
    """Let the C library keep what a network frees for the next slice: glibc gives large blocks back and asks for them anew.

    That took an eighth of a job's processor time. For processes of our own, not for a program that imports the library; nothing is
    changed where the user has set glibc's allocator up, nor with another C library.
    """
    libc = _glibc()
    if libc is None or "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return
    libc.mallopt(TRIM_THRESHOLD, MOST_KEPT)
    for size in LARGEST_KEPT:
        if libc.mallopt(MMAP_THRESHOLD, size):
            return


def give_back_freed_memory() -> None:
    """Give back to the system what `keep_freed_memory` has kept: between jobs nobody needs it here."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """This process's C library if it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None


def _linux() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None


def _container(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container's limit (cgroup 2 or 1) leaves."""
    for limit, usage in (
        (root / "memory.max", root / "memory.current"),
        (root / "memory" / "memory.limit_in_bytes", root / "memory" / "memory.usage_in_bytes"),
    ):
        try:
            return max(0, int(limit.read_text()) - int(usage.read_text()))
        except (OSError, ValueError):
            continue
    return None


def _windows() -> int | None:
    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
            (name, ctypes.c_ulonglong)
            for name in ("total", "available", "page_total", "page_free", "virtual_total", "virtual_free", "extended")
        ]

    status = Status()
    status.length = ctypes.sizeof(Status)
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 - the attribute exists on Windows only
    return int(status.available) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None
