"""Disks that run full: how that shows, and in what words it is said."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_FULL = "the disk is full"
"""In the text of every `DiskFullError`."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DiskFullError(OSError):
    """A file did not fit on its disk.

    Args:
        folder: Where the file was to be.
        needed_bytes: Its size.
    """

    def __init__(self, folder: Path, needed_bytes: int) -> None:
        free = size_text(free_bytes(folder))
        super().__init__(
            errno.ENOSPC,
            f"{folder}: {DISK_FULL}: {size_text(needed_bytes)} are needed, {free} are free",
        )

    def __str__(self) -> str:
        return str(self.args[1])

    def __reduce__(self) -> tuple[type[OSError], tuple[int, str]]:
        return OSError, self.args


@contextmanager
def told_when_full(folder: Path, needed_bytes: int) -> Iterator[None]:
    """Raises `DiskFullError` for whatever is raised in it because the disk is full."""
    try:
        yield
    except Exception as error:
        if not disk_full(error):
            raise
        raise DiskFullError(folder, needed_bytes) from error


def disk_full(error: BaseException | None) -> bool:
    """Returns whether an error, or one that led to it, says that the disk or its quota is full."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


def free_bytes(folder: Path) -> int:
    """Returns how many bytes are free for a folder, which may have to be made first."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def size_text(count: int) -> str:
    """Returns bytes in the unit that reads best, such as ``2.9 GB``."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
