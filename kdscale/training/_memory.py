"""How this process keeps memory: freed activations are not handed back to the system."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_NEVER = 2**31 - 1
"""The largest value that mallopt takes: 2 GiB."""


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
