"""SQLite that waits while its disk is full or others lock it, and then goes on."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

from optuna.storages import RDBStorage

from kdscale.files import disk_full, pauses

T = TypeVar("T")
_LONG_SECONDS = 10.0
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}
_PRIMARY = 0xFF
"""The bits of SQLite's error codes that do not tell apart kinds of one error."""

_NO_ROOM = (
    "the disk of the study's database is full: the sweep waits until there is room, and nothing "
    "is lost"
)
_LOCKED = (
    "the database is locked by another process: the sweep waits until it is free, and nothing is "
    "lost"
)


def _patient(method: Callable[..., T]) -> Callable[..., T]:
    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> T:
        return waiting_for_room(lambda: method(*args, **kwargs))

    return call


class PatientStorage(RDBStorage):
    """Optuna's storage, each of whose writes is tried again until the database takes it.

    A write is one transaction, so one that failed has left nothing behind.
    """

    create_new_study = _patient(RDBStorage.create_new_study)
    create_new_trial = _patient(RDBStorage.create_new_trial)
    set_study_user_attr = _patient(RDBStorage.set_study_user_attr)
    set_trial_intermediate_value = _patient(RDBStorage.set_trial_intermediate_value)
    set_trial_state_values = _patient(RDBStorage.set_trial_state_values)
    set_trial_user_attr = _patient(RDBStorage.set_trial_user_attr)
    set_trial_system_attr = _patient(RDBStorage.set_trial_system_attr)


def waiting_for_room(write: Callable[[], T]) -> T:
    """Returns what a write returns, tried again while the disk is full or the database locked.

    Raises:
        KeyboardInterrupt: After Ctrl-C, also where somebody else has taken that signal.
    """
    began = time.monotonic()
    told = ""
    for pause in pauses():
        try:
            return write()
        except Exception as error:
            why = _why_not_now(error)
            if why is None:
                raise
            is_long = why == _NO_ROOM or time.monotonic() - began > _LONG_SECONDS
            if is_long and why != told:
                told = why
                warnings.warn(why, RuntimeWarning, stacklevel=2)
        with interruptible():
            time.sleep(pause)
    raise AssertionError("pauses() does not end")


def database_full(error: BaseException | None) -> bool:
    """Returns whether an error, or one that led to it, says that SQLite's disk is full."""
    return disk_full(error) or any(code in _FULL for code in _codes(error))


def _why_not_now(error: BaseException) -> str | None:
    """Returns what a write has to wait for, in a sentence; None for other errors."""
    if database_full(error):
        return _NO_ROOM
    locked = any(code & _PRIMARY == sqlite3.SQLITE_BUSY for code in _codes(error))
    return _LOCKED if locked else None


def _codes(error: BaseException | None) -> Iterator[int]:
    """Yields SQLite's codes of an error and of those that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, sqlite3.Error):
            yield getattr(error, "sqlite_errorcode", 0)
        error = error.__cause__ or error.__context__


@contextmanager
def interruptible() -> Iterator[None]:
    """Makes Ctrl-C end a wait: Ray Tune's own handler only takes note of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
