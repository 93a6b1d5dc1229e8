"""Who may write a study: one sweep at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdscale.errors import UserError


@contextmanager
def sweep_lock(folder: Path) -> Iterator[None]:
    """Keeps every other sweep out of a study folder.

    Raises:
        UserError: If another process sweeps this study now, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "sweep.lock").open("a+")
    except OSError as error:
        raise UserError(f"{folder}: must be a folder to write to, but: {error}") from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise UserError(
                f"{folder}: one sweep at a time may write a study, but process "
                f"{file.read().strip() or '?'} is at it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
