"""A study's record as another process may read it, without a lock, a write or a word to the sweep.

SQLite's write-ahead log is kept in memory that machines do not share: a reader on another machine,
over a network file system, could break it. A status therefore reads a copy of the two files.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kdscale.errors import UserError
from kdscale.records import StudyRecord
from kdscale.search._ledger import Ledger, open_ledger
from kdscale.search._storage import DATABASE
from kdscale.search._study import Study

_HEADER_BYTES = 32
_TRIES = 20
_PAUSE_SECONDS = 0.1


@contextmanager
def ledger_snapshot(study: Study) -> Iterator[Ledger]:
    """Yields the study's ledger as it stands now, not to be written to.

    Raises:
        UserError: If there is no such study, or its files cannot be read.
    """
    if study.storage.url is not None:
        yield open_ledger(study, create=False)
        return
    database = study.folder / DATABASE
    if not database.exists():
        raise UserError(
            f"{study.folder}: there must be a study to read, but there is none "
            "(kdscale sweep makes it)"
        )
    with tempfile.TemporaryDirectory(prefix="kdscale-status-") as folder:
        try:
            copy_database(database, Path(folder) / study.name / DATABASE)
        except OSError as error:
            raise UserError(f"{database}: must be a file to read, but: {error}") from error
        storage = study.storage.model_copy(update={"folder": Path(folder)})
        copied = study.model_copy(update={"storage": storage})
        try:
            ledger = open_ledger(copied, create=False)
        except UserError as error:  # about the copy, of which nobody knows
            text = str(error).replace(str(copied.folder), str(study.folder))
            raise UserError(text) from None
        ledger.study = ledger.study.model_copy(update={"storage": study.storage})
        yield ledger


def record_snapshot(study: Study) -> StudyRecord:
    """Returns a study as it stands now, perhaps another's: nothing is written beside it.

    Raises:
        UserError: If there is no such study, or its files cannot be read.
    """
    with ledger_snapshot(study) as ledger:
        return ledger.record()


def copy_database(database: Path, copy: Path) -> None:
    """Copies a database that may be written to meanwhile, as it stood at some moment.

    The log is copied after the database: whatever a checkpoint moves into the database meanwhile is
    in the log as well, unless the log was begun anew, which its header shows.

    Raises:
        OSError: If the files cannot be read, or change too fast.
    """
    log, log_copy = _log_of(database), _log_of(copy)
    copy.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(_TRIES):
        before = _header(log)
        shutil.copyfile(database, copy)
        log_copy.unlink(missing_ok=True)
        with suppress(FileNotFoundError):  # a sweep that ends removes its log: once more
            if before:
                shutil.copyfile(log, log_copy)
            if _header(log) == before == _header(log_copy):
                return
        time.sleep(_PAUSE_SECONDS)
    raise OSError("it is written to so fast that it cannot be copied")


def _log_of(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def _header(log: Path) -> bytes:
    """Returns what differs between one log and the next: its header, with two random numbers."""
    try:
        with log.open("rb") as file:
            return file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return b""
