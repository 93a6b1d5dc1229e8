"""The database behind a study: a file in its folder, or a team's server."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optuna.exceptions import OptunaError
from optuna.storages import RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

from kdscale.errors import UserError
from kdscale.files import DISK_FULL, free_bytes, size_text
from kdscale.search._patient import PatientStorage, database_full
from kdscale.search._served import ServedStorage
from kdscale.urls import drop_password, hide_passwords

_LOCK_SECONDS = 60
_RACES = 5
_RACE_SECONDS = 0.5

_LIVELY: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "kdscale",
}
"""A server that vanished without a word is noticed within half a minute."""

_ENGINE: dict[str, dict[str, Any]] = {
    # Prepared statements do not outlive the turn of a connection in pgbouncer.
    "postgresql+psycopg": _LIVELY | {"prepare_threshold": None},
    "postgresql+psycopg2": _LIVELY,
    "sqlite": {"timeout": _LOCK_SECONDS},
    "sqlite+pysqlite": {"timeout": _LOCK_SECONDS},
}


class _Connection(sqlite3.Connection):
    """A connection that waits for the disk at checkpoints of the log only, not at every commit.

    A process may die at any moment and loses nothing that it has committed. When the machine loses
    power, the last commits may be gone, together and in order: the study stands as it stood some
    seconds earlier, and a sweep goes on from there.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.execute("PRAGMA synchronous=NORMAL")


def shared_storage(url: str) -> RDBStorage:
    """Returns Optuna's storage in the database of a team.

    Args:
        url: Its SQLAlchemy URL; ``postgresql://`` takes whichever driver is installed.

    Raises:
        UserError: If it cannot be opened.
    """
    try:
        place = make_url(url)
        if place.drivername in ("postgres", "postgresql"):
            driver = "psycopg2" if find_spec("psycopg2") else "psycopg"
            place = place.set(drivername=f"postgresql+{driver}")
        full = place.render_as_string(hide_password=False)
        arguments = {
            key: value
            for key, value in _ENGINE.get(place.drivername, {}).items()
            if key not in place.query
        }
        if place.get_backend_name() == "sqlite":
            # Its journal stays as it is: SQLite's other one needs a disk of this machine.
            return _made(lambda: PatientStorage(full, {"connect_args": arguments}))
        name = f"storage.url: the database {drop_password(url)}"
        options: dict[str, Any] = {"connect_args": arguments, "pool_pre_ping": True}
        return _made(lambda: ServedStorage(name, full, options))
    except ImportError as error:
        hint = " (pip install 'kdscale[postgres]')" if "postgres" in url else ""
        raise UserError(
            f"storage.url: must have its driver installed, but: {error}{hint}"
        ) from None
    except (SQLAlchemyError, OptunaError, RuntimeError, ValueError) as error:
        # Optuna's own text says nothing: what it wraps does.
        why = hide_passwords(str(error.__cause__ or error).partition("\n")[0], url)
        raise UserError(f"storage.url: must be a database to use, but: {why}") from None


def _made(make: Callable[[], RDBStorage]) -> RDBStorage:
    """Returns what is made, where several processes may be making the same tables at once."""
    for _ in range(_RACES):
        try:
            return make()
        except (IntegrityError, ProgrammingError):
            time.sleep(_RACE_SECONDS)
    return make()


def own_storage(database: Path) -> RDBStorage:
    """Returns Optuna's storage in a study's own SQLite file, made if it is missing.

    Raises:
        UserError: If it cannot be opened, or is not whole.
    """
    log = database.with_name(f"{database.name}-wal")
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and not (database.exists() and database.stat().st_size):
            raise sqlite3.DatabaseError(f"only {log.name} is there")
        with closing(sqlite3.connect(database, timeout=_LOCK_SECONDS)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # readers do not wait for the writer
            [verdict] = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict.splitlines()[-1])
        options = {"timeout": _LOCK_SECONDS, "factory": _Connection}
        engine = {"connect_args": options}
        # A reader may come while the sweep makes the tables.
        return _made(lambda: PatientStorage(f"sqlite:///{database}", engine_kwargs=engine))
    except (sqlite3.DatabaseError, SQLAlchemyError) as error:
        if database_full(error):
            raise UserError(
                f"{database}: must have room on its disk, but {DISK_FULL}: "
                f"{size_text(free_bytes(database.parent))} are free (make room; the study is as "
                "it was, and the same command continues)"
            ) from error
        why = str(error).partition("\n")[0]
        raise UserError(
            f"{database}: must be a study's database, whole, but: {why} (was it copied while a "
            f"sweep wrote it? copy the folder again while none does, with {log.name} if that "
            "is there)"
        ) from error
    except (OSError, RuntimeError) as error:
        raise UserError(f"{database}: must be a study's database, but: {error}") from error
