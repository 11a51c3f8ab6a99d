"""What this machine has: devices, precisions, cores, processor; and the set-up that makes results bit-identical."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch

from committee.errors import CommitteeError

DEVICES = ("cuda", "mps", "xpu", "cpu")  # the order in which auto picks
PRECISIONS = ("bfloat16", "float32")


def pick_device(wanted: str = "auto") -> str:
    """The device to train on: "auto" takes NVIDIA's or AMD's CUDA, Apple's MPS, Intel's XPU, else the CPU.

    Raises:
        CommitteeError: this machine, or this build of PyTorch, does not have it.
    """
    there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "xpu": torch.xpu.is_available,
        "cpu": lambda: True,
    }
    available = [device for device in DEVICES if there[device]()]
    if wanted == "auto":
        return available[0]
    if wanted not in available:
        raise CommitteeError(
            f"--device must be auto or one that this machine and this PyTorch have ({', '.join(available)}); "
            f"got {wanted!r}"
        )
    return wanted


def pick_precision(wanted: str, device: str) -> str:
    """bfloat16 where the device has it in hardware, else float32.

    Raises:
        CommitteeError: not a precision.
    """
    if wanted == "auto":
        return "bfloat16" if has_bfloat16(device) else "float32"
    if wanted not in PRECISIONS:
        raise CommitteeError(f"--precision must be auto, {' or '.join(PRECISIONS)}; got {wanted!r}")
    return wanted


def has_bfloat16(device: str) -> bool:
    """Whether matrix products in bfloat16 run in hardware there."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return device == "xpu"


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Pin the CPU's threads to one and flush denormals, as for every member wherever it runs; then restore.

    Sums are split among threads, so another number of threads would give other last bits. The process also keeps the
    memory that it frees from now on; see `keep_freed_memory`.
    """
    keep_freed_memory()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


@cache
def keep_freed_memory() -> None:
    """Let this process keep what it frees, for its next use, from now on, where the C library can (glibc).

    A step's large arrays would otherwise go back to the system and be fetched again, zeroed, page by page: several
    milliseconds a step, and a third of the time when judging.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def processor() -> str:
    """The processor's name; where Linux tells them, its family and model, since rented machines hide the name."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8", errors="replace").splitlines() if facts.exists() else []
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = told.get("model name") or platform.processor() or platform.machine()
    numbers = [f"{word} {told[key]}" for word, key in (("family", "cpu family"), ("model", "model")) if key in told]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def accelerator(device: str) -> str:
    """The accelerator's name."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return "Apple" if device == "mps" else "Intel"
