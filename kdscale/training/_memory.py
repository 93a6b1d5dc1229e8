"""Memory: how this process keeps it, how much it has, and what it looks like when it runs out."""

from __future__ import annotations

import ctypes
import gc
import os
import re
from contextlib import suppress
from pathlib import Path

import torch

_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_NEVER = 2**31 - 1
"""The largest value that mallopt takes: 2 GiB."""

_OUT_OF_MEMORY = re.compile(
    r"out of memory|out_of_memory|allocate memory|alloc_failed|bad_alloc|running low on memory|"
    r"could not create a (?:primitive|memory object)(?! descriptor)",
    re.IGNORECASE,
)
"""What CUDA, its libraries, torch's CPU allocator, C++, Ray's memory monitor and oneDNN say."""

_CGROUP_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
"""Of a container, below /sys/fs/cgroup: in version 2 and version 1."""


def keep_freed_memory() -> bool:
    """Makes malloc keep what is freed for the next step, and returns whether it does.

    glibc hands large blocks back to the kernel as soon as they are free. A training step frees
    and allocates all of its activations, so every step pays for zeroing the same pages anew.
    Results do not change, nor does the peak of memory: only what lies free between steps is kept.

    Without glibc, or where the user has set glibc's own MALLOC_* variables, nothing changes.
    """
    if any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _NEVER)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))


def give_back_memory(device: torch.device) -> None:
    """Hands back what is free, after an error: what `keep_freed_memory` keeps too."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with suppress(AttributeError, OSError, TypeError):  # musl, macOS, Windows
        ctypes.CDLL(None).malloc_trim(0)


def out_of_memory(error: BaseException | str) -> bool:
    """Returns whether an error, or the text of one, says that memory has run out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return bool(_OUT_OF_MEMORY.search(str(error)))


def peak_bytes(device: torch.device) -> int:
    """Returns the most memory that this process has held on a device so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return 1024 * int(found[1]) if found else 0


def memory_share(device: torch.device, part: float) -> int:
    """Returns the bytes that belong to a process on a device.

    Args:
        device: The device.
        part: The part of the device that the process may use, at most 1.
    """
    if device.type == "cuda":
        return int(part * torch.cuda.get_device_properties(device).total_memory)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in _CGROUP_LIMITS:
        try:
            whole = min(whole, int(Path("/sys/fs/cgroup", name).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return int(part * whole)
