"""Disks that run full: the operating system's own errors, with root's rights and without."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

DISK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Disk:
    """A disk that is full.

    Attributes:
        folder: Lies on it.
        make_room: Makes it as good as empty.
    """

    folder: Path
    make_room: Callable[[], None]


def mounted(folder: Path) -> bool:
    """Returns whether a file system in memory, of 16 MiB, could be mounted on a folder."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "kdscale-test", str(folder)]
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False


@contextmanager
def full_disk(folder: Path, free_bytes: int) -> Iterator[Disk]:
    """Gives a small file system with little room left, where one may be mounted."""
    folder.mkdir()
    assert mounted(folder)
    ballast = folder / "ballast"
    try:
        ballast.write_bytes(bytes(DISK_BYTES - free_bytes))
        yield Disk(folder, ballast.unlink)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def no_room() -> Iterator[None]:
    """Lets this process write to no file, as a disk that is full to the last byte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def limited_files(folder: Path) -> Iterator[Disk]:
    """Gives a folder, and this process no file beyond 16 MiB, which needs nobody's leave."""
    folder.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (DISK_BYTES, before[1]))
    try:
        yield Disk(folder, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def can_mount(folder: Path) -> bool:
    """Returns whether this process may mount file systems."""
    if os.geteuid() != 0 or not mounted(folder):
        return False
    subprocess.run(["umount", str(folder)], check=True)
    return True
