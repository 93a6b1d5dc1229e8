"""Changes of trials, gathered and written to Optuna's storage in one transaction.

Optuna's own interface has a transaction for every attribute and every epoch. Where the storage is
SQLite or PostgreSQL, the tables behind it are written instead: all changes that a report brings
are there at once or not at all, and only while this sweep is the study's writer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import Connection, Engine, Table, update
from sqlalchemy.dialects import postgresql, sqlite

from kdscale.search._patient import waiting_for_room
from kdscale.search._served import ServedStorage

Guard = Callable[[Connection], None]
"""Raises if this process may not write, asked within the transaction and before its end."""

_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class Writes:
    """The changes since the last `flush`; of several to one thing the last one counts."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self._epochs: dict[tuple[int, int], float] = {}
        self._attributes: dict[tuple[int, str], Any] = {}
        self._ends: dict[int, tuple[TrialState, float | None]] = {}
        self.guard: Guard | None = None

    def epoch(self, trial_id: int, epoch: int, value: float) -> None:
        """Adds an epoch's metric."""
        self._epochs[trial_id, epoch] = value

    def attribute(self, trial_id: int, key: str, value: Any) -> None:
        """Adds a trial's attribute, which may be any JSON value."""
        self._attributes[trial_id, key] = value

    def end(self, trial_id: int, state: TrialState, value: float | None) -> None:
        """Adds how a trial ends."""
        self._ends[trial_id] = (state, value)

    def flush(self) -> None:
        """Writes all changes; what ends a trial comes last. On a full disk it waits for room."""
        if not (self._epochs or self._attributes or self._ends):
            return
        waiting_for_room(self._write)
        self._epochs.clear()
        self._attributes.clear()
        self._ends.clear()

    def _write(self) -> None:
        storage = self._storage
        if isinstance(storage, ServedStorage) and storage.engine.dialect.name in _INSERT:
            storage.patiently(lambda: self._write_together(storage.engine))
        elif isinstance(storage, RDBStorage) and storage.engine.dialect.name in _INSERT:
            self._write_together(storage.engine)
        else:
            self._write_one_by_one()

    def _write_together(self, engine: Engine) -> None:
        """Writes all in one transaction; once more changes nothing."""
        with engine.begin() as connection:
            self._write_tables(connection, _INSERT[engine.dialect.name])
            # Last: SQLite's lock is held by now, and no other can become the writer.
            if self.guard is not None:
                self.guard(connection)

    def _write_one_by_one(self) -> None:
        for (trial_id, epoch), value in self._epochs.items():
            self._storage.set_trial_intermediate_value(trial_id, epoch, value)
        for (trial_id, key), value in self._attributes.items():
            self._storage.set_trial_user_attr(trial_id, key, value)
        for trial_id, (state, end_value) in self._ends.items():
            values = None if end_value is None else [end_value]
            self._storage.set_trial_state_values(trial_id, state, values)

    def _write_tables(self, connection: Connection, insert: Any) -> None:
        epochs = [
            {"trial_id": trial_id, "step": epoch, **_stored_epoch(value)}
            for (trial_id, epoch), value in self._epochs.items()
        ]
        attributes = [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
            for (trial_id, key), value in self._attributes.items()
        ]
        values = [
            {"trial_id": trial_id, "objective": 0, **_stored_value(value)}
            for trial_id, (_, value) in self._ends.items()
            if value is not None
        ]
        for table, key, rows in (
            (models.TrialIntermediateValueModel.__table__, ("trial_id", "step"), epochs),
            (models.TrialUserAttributeModel.__table__, ("trial_id", "key"), attributes),
            (models.TrialValueModel.__table__, ("trial_id", "objective"), values),
        ):
            if rows:
                _upsert(connection, insert, table, key, rows)
        trials: Table = models.TrialModel.__table__
        complete = datetime.now(UTC).replace(tzinfo=None)  # as Optuna keeps it: UTC, not said
        for trial_id, (state, _) in self._ends.items():
            connection.execute(
                update(trials)
                .where(trials.c.trial_id == trial_id)
                .values(state=state, datetime_complete=complete)
            )


def _stored_epoch(value: float) -> dict[str, Any]:
    stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    return {"intermediate_value": stored, "intermediate_value_type": kind}


def _stored_value(value: float) -> dict[str, Any]:
    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
    return {"value": stored, "value_type": kind}


def _upsert(
    connection: Connection, insert: Any, table: Table, key: tuple[str, str], rows: list[Any]
) -> None:
    """Inserts rows, or replaces those that are there by their key."""
    statement = insert(table)
    others = [name for name in rows[0] if name not in key]
    statement = statement.on_conflict_do_update(
        index_elements=list(key), set_={name: statement.excluded[name] for name in others}
    )
    connection.execute(statement, rows)
