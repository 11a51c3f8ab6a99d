"""What this machine has (devices, precisions, cores, processor), and the thread settings that fix every last bit."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch

from committee import kernels
from committee.errors import CommitteeError

DEVICES = ("cuda", "mps", "xpu", "cpu")  # the order in which auto picks
PRECISIONS = ("bfloat16", "float32")


def pick_device(choice: str = "auto") -> str:
    """The device to train on: "cuda", "mps", "xpu" or "cpu".

    Args:
        choice: a device; or "auto": the first of CUDA (NVIDIA, AMD), MPS (Apple) and XPU (Intel) that is available,
            else the CPU.

    Raises:
        CommitteeError: this machine, or this build of PyTorch, does not have the device.
    """
    available = _available()
    if choice == "auto":
        return available[0]
    if choice not in available:
        raise CommitteeError(
            f"--device must be auto or one that this machine and this PyTorch have ({', '.join(available)}); "
            f"got {choice!r}"
        )
    return choice


def usable(device: str) -> str:
    """The device that a training was on, or the best one of this machine where it lacks that.

    A cluster's nodes may have GPUs where the machine that evaluates has none.
    """
    available = _available()
    return device if device in available else available[0]


def _available() -> list[str]:
    """The devices that this machine has, in the order of `DEVICES`."""
    is_available: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "xpu": torch.xpu.is_available,
        "cpu": lambda: True,
    }
    return [device for device in DEVICES if is_available[device]()]


def pick_precision(choice: str, device: str) -> str:
    """The precision to train in: "bfloat16" or "float32".

    Args:
        choice: a precision; or "auto": bfloat16 where the device has it in hardware, and on CPUs with kernels, between
            whose layers values are bfloat16; else float32.
        device: as `pick_device` gives it.

    Raises:
        CommitteeError: there is no such precision, or COMMITTEE_CPU names a path that this machine does not have.
    """
    if choice == "auto":
        with_kernels = device == "cpu" and kernels.available()
        return "bfloat16" if with_kernels or has_bfloat16(device) else "float32"
    if choice not in PRECISIONS:
        raise CommitteeError(f"--precision must be auto, {' or '.join(PRECISIONS)}; got {choice!r}")
    return choice


def has_bfloat16(device: str) -> bool:
    """Whether torch multiplies matrices of bfloat16 in hardware on the device."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return device == "xpu"


def takes_bfloat16(device: str, precision: str) -> bool:
    """Whether torch's own layers compute in bfloat16 (under autocast) where a network's precision is this.

    On a CPU without bfloat16 instructions torch's bfloat16 is many times slower than its float32, so they take that.
    """
    return precision == "bfloat16" and (device != "cpu" or has_bfloat16(device))


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Compute with one CPU thread and flush denormal numbers to zero, as every member does wherever it is trained.

    torch splits sums among its threads, so that another number of threads would change the last bits. At the end the
    number of threads is restored and denormal numbers are allowed again. The process also keeps the memory that it
    frees from now on; see `keep_freed_memory`.
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
    """Let the C library (glibc; others ignore this) reuse freed memory instead of returning it to the system.

    A step's large arrays would otherwise be returned and fetched again, zeroed, page by page: several milliseconds of
    each training step, and a third of the time of inference.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def processor() -> str:
    """The processor's name, and on Linux its family and model numbers, since virtual machines often hide the name."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []
    values = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = values.get("model name") or platform.processor() or platform.machine()
    numbers = [f"{word} {values[key]}" for word, key in (("family", "cpu family"), ("model", "model")) if key in values]
    return f"{name} ({', '.join(numbers)})" if numbers else name


def accelerator(device: str) -> str:
    """The name of the accelerator behind "cuda", "mps" or "xpu"."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return "Apple" if device == "mps" else "Intel"
