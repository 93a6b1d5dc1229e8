"""The teacher cache's quota: what it takes on the disk, and what goes first when it is too much."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

IN_USE = "in-use"
"""A key's file that its users hold a shared lock on; its time is that of the last use."""

_DISK_BLOCK_BYTES = 512


def take(folder: Path) -> int:
    """Marks a key as used now, and by this process until the returned file is closed.

    Raises:
        OSError: The folder cannot be written.
    """
    for _ in range(3):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(folder / IN_USE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # evicted just now
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
            os.utime(file)
        except OSError:
            os.close(file)
            raise
        if os.fstat(file).st_nlink:
            return file
        os.close(file)
    raise OSError(f"{folder} is deleted as often as it is made")


def used_bytes(folder: Path) -> int:
    """Returns the bytes that a folder takes on the disk; holes of sparse files take none."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_blocks * _DISK_BLOCK_BYTES
        except OSError:  # evicted just now
            continue
    return total


def make_room(root: Path, own: str, quota_bytes: int, wanted_bytes: int) -> int:
    """Returns how many bytes may be written now, after evicting what must go.

    An eighth of the quota stays free for what several writers do not know of each other. Keys
    that nobody uses go first, the longest unused one before the others, until ``wanted_bytes``
    fit. Of the own key blocks go, the oldest first, only where that leaves more than the quota:
    every epoch reads all blocks alike, so replacing one by another gains nothing.

    Args:
        root: The folder of keys.
        own: The key that is written to.
        quota_bytes: Of all keys together.
        wanted_bytes: Room to aim at.
    """
    used = used_bytes(root)
    others = [path for path in root.iterdir() if path.is_dir() and path.name != own]
    for key in sorted(others, key=_last_use):
        if used + wanted_bytes <= usable_bytes(quota_bytes):
            break
        freed = used_bytes(key)
        if _evict(key):
            used -= freed
    for block in sorted((root / own).glob("*.block"), key=_time):
        if used <= quota_bytes:
            break
        used -= block.stat().st_blocks * _DISK_BLOCK_BYTES
        block.unlink(missing_ok=True)
    return usable_bytes(quota_bytes) - used


def usable_bytes(quota_bytes: int) -> int:
    """Returns how much of a quota is written."""
    return quota_bytes - quota_bytes // 8


def _evict(key: Path) -> bool:
    """Returns whether a key was deleted; one in use is not."""
    try:
        file = os.open(key / IN_USE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False  # no key of ours, or only just made
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(key, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def _last_use(key: Path) -> float:
    return _time(key / IN_USE)


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
