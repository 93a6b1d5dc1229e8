"""Freed memory stays with the process."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

_MEGABYTES = 64
_ROUNDS = 8
_PAGE = 4096

_PROGRAM = f"""
import resource, torch
torch.set_num_threads(1)
from kdscale.training import keep_freed_memory
print(keep_freed_memory())
for _ in range({_ROUNDS}):
    torch.ones({_MEGABYTES} * 2**18).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({_ROUNDS}):
    torch.ones({_MEGABYTES} * 2**18).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def printed(**variables: str) -> list[str]:
    command = [sys.executable, "-c", _PROGRAM]
    environment = os.environ | variables
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return ran.stdout.split()


def test_a_block_is_used_again_without_a_page_fault() -> None:
    kept, faults = printed()
    glibc = platform.libc_ver()[0] == "glibc"
    assert kept == str(glibc)
    if glibc:
        pages_of_all_blocks = _ROUNDS * _MEGABYTES * 2**20 // _PAGE
        assert int(faults) < pages_of_all_blocks / 2


def test_what_the_user_has_set_stays() -> None:
    kept, _ = printed(MALLOC_TRIM_THRESHOLD_="1000000")
    assert kept == "False"
