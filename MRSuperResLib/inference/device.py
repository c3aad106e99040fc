"""Where and in what precision a network runs, and how to tell that memory ran out."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DeviceError, MissingRequirement, UsageError
from ..terms import PRECISIONS
from .memory import available_memory, give_back_freed_memory

if TYPE_CHECKING:
    import torch

OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "failed to allocate")
SHARE = 0.6  # of the free memory that a batch may plan to use; the rest is for what we cannot foresee

CHOSEN_THREADS: dict[str, int] = {}  # "before": torch's number of them, while another one is in use


def require_torch() -> None:
    """Raise `MissingRequirement`, in words a clinician can act on, unless torch can be imported."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingRequirement(
            "PyTorch is not installed, and models other than interpolation need it: pip install torch, "
            "or in Slicer install the PyTorch extension",
            code="missing-torch",
        ) from error


def choose_device(name: str) -> torch.device:
    """The device called `name`: "auto" (CUDA if there is one), "cpu", "cuda", "cuda:n" or "mps".

    Raises `UsageError` for another name, `DeviceError` if the device is not there.
    """
    require_torch()
    import torch

    kind, _, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdigit())):
        raise UsageError(f"device is '{name}', expected auto, cpu, cuda, cuda:n or mps")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto":
        return torch.device("cuda" if there else "cpu")
    if kind == "cuda" and int(number or 0) >= there:
        found = f"{there} CUDA device{'s' if there != 1 else ''}" if there else "no CUDA device"
        raise DeviceError(f"device '{name}' is asked for, this machine has {found}: choose auto or cpu instead")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device 'mps' is asked for, this machine has none: choose auto or cpu instead")
    return torch.device(name)


def choose_precision(name: str, device: torch.device, bf16: bool = False) -> str:
    """ "fp32", "bf16" or "fp16" for `name` on `device`.

    bf16: whether the model's card allows it (`Requirements.bf16`). "auto" is half precision on CUDA, bf16 on a CPU that has it
    natively if the card allows it, else fp32.
    """
    import torch

    if name not in PRECISIONS:
        raise UsageError(f"precision is '{name}', expected one of {', '.join(PRECISIONS)}")
    if name == "auto":
        if device.type == "cpu":
            return "bf16" if bf16 and has_native_bf16() else "fp32"
        if device.type != "cuda":
            return "fp32"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if name == "fp16" and device.type == "cpu":
        raise UsageError("precision fp16 needs a GPU: use fp32 or bf16 on the CPU")
    return name


@functools.cache
def has_native_bf16() -> bool:
    """Whether this processor multiplies bfloat16 itself (AVX-512 BF16, AMX, or Arm's BF16 under Linux); emulated, it is slow."""
    import torch

    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        asked = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(asked and asked())
    flags = {
        flag for line in text.splitlines() if line.lower().startswith(("flags", "features")) for flag in line.split()
    }
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"}) and torch.backends.mkldnn.is_available()


def use_threads(threads: int | None) -> None:
    """Let torch take that many threads of the CPU; None: as many as before anybody asked for a number here."""
    import torch

    if threads:
        CHOSEN_THREADS.setdefault("before", torch.get_num_threads())
        torch.set_num_threads(threads)
    elif "before" in CHOSEN_THREADS:
        torch.set_num_threads(CHOSEN_THREADS.pop("before"))


def let_idle_threads_sleep() -> None:
    """Make threads of torch that wait sleep instead of spin; before torch is first imported, and unless the user chose otherwise.

    Spinning threads take a busy machine's processors from those that have work: a job of 28 s then took 209 s.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("KMP_BLOCKTIME", "0")  # the same for Intel's and LLVM's OpenMP


def half_type(precision: str) -> torch.dtype | None:
    """The autocast type of `precision`, None for fp32."""
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory, of the host or the device, ran out."""
    import torch

    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in OUT_OF_MEMORY)


def memory_budget(device: torch.device) -> float:
    """Bytes a batch may plan to use on `device`; infinite if unknown."""
    import torch

    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return SHARE * (free + cached)
    there = available_memory()
    return SHARE * there if there is not None else float("inf")


def release_memory(device: torch.device) -> None:
    """Give back what the allocator keeps, after memory ran out."""
    import gc

    import torch

    gc.collect()
    give_back_freed_memory()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
