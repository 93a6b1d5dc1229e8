"""Freed memory stays with the process; how much there is; and what it says when it runs out."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch

from kdscale.training import memory_share, out_of_memory
from kdscale.training._memory import peak_bytes

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


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory",
        "std::bad_alloc",
        "could not create a primitive",
        "1 worker(s) were killed due to the node running low on memory. Memory on the node",
    ],
)
def test_memory_that_has_run_out_is_known_by_its_text(text: str) -> None:
    assert out_of_memory(text)
    assert out_of_memory(RuntimeError(text))


def test_other_errors_are_not_about_memory() -> None:
    assert out_of_memory(MemoryError())
    assert out_of_memory(torch.OutOfMemoryError())
    died = "The actor died. (1) The process is killed by SIGKILL by OOM killer or (2) ray stop"
    refused = RuntimeError("could not create a primitive descriptor for a convolution forward")
    for error in (RuntimeError("no such thing"), ValueError("memory"), RuntimeError(died), refused):
        assert not out_of_memory(error)


def test_what_torch_says_when_it_runs_out() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(error.value)


def test_a_process_knows_its_peak_and_its_share() -> None:
    cpu = torch.device("cpu")
    before = peak_bytes(cpu)
    block = torch.ones(_MEGABYTES * 2**18)
    assert peak_bytes(cpu) >= before
    assert peak_bytes(cpu) >= block.numel() * 4
    assert memory_share(cpu, 0.5) == memory_share(cpu, 1.0) // 2 > 0
