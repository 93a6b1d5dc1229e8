"""New trials and changes of trials, gathered and written to Optuna's storage in one transaction.

Optuna's own interface has a transaction for every trial, every attribute and every epoch. Where the
storage is SQLite or PostgreSQL, the tables behind it are written instead: all trials of a plan and
all changes that a report brings are there at once or not at all, and only while this sweep is the
study's writer.
"""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Engine, Table, bindparam, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from kdscale.search._patient import waiting_for_room
from kdscale.search._served import ServedStorage

Guard = Callable[[Connection], None]
"""Raises if this process may not write, asked within the transaction and before its end."""

Key = tuple[int, int]
"""The storage's id of an Optuna study, and a trial's number in it."""

_INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_TRIALS: Table = models.TrialModel.__table__
_END = (
    update(_TRIALS)
    .where(_TRIALS.c.trial_id == bindparam("id"))
    .values(state=bindparam("to"), datetime_complete=bindparam("at"))
)


class Writes:
    """The changes since the last `flush`; of several to one thing the last one counts."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self._ids: dict[Key, int] = {}
        self._new: dict[Key, FrozenTrial] = {}
        self._epochs: dict[tuple[Key, int], float] = {}
        self._attributes: dict[tuple[Key, str], Any] = {}
        self._ends: dict[Key, tuple[TrialState, float | None]] = {}
        self.guard: Guard | None = None

    def knows(self, trial: Key, trial_id: int) -> None:
        """Takes the storage's id of a trial that is there."""
        self._ids[trial] = trial_id

    def create(self, trial: Key, template: FrozenTrial) -> None:
        """Adds a trial in training, with its parameters and attributes."""
        self._new[trial] = template

    def epoch(self, trial: Key, epoch: int, value: float) -> None:
        """Adds an epoch's metric."""
        self._epochs[trial, epoch] = value

    def attribute(self, trial: Key, key: str, value: Any) -> None:
        """Adds a trial's attribute, which may be any JSON value."""
        self._attributes[trial, key] = value

    def end(self, trial: Key, state: TrialState, value: float | None) -> None:
        """Adds how a trial ends."""
        self._ends[trial] = (state, value)

    def flush(self) -> None:
        """Writes all changes; what ends a trial comes last. On a full disk it waits for room."""
        if not (self._new or self._epochs or self._attributes or self._ends):
            return
        waiting_for_room(self._write)
        self._new.clear()
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
            made = self._create_trials(connection)
            self._write_tables(connection, ChainMap(made, self._ids))
            # Last: SQLite's lock is held by now, and no other can become the writer.
            if self.guard is not None:
                self.guard(connection)
        self._ids |= made

    def _write_one_by_one(self) -> None:
        for trial, template in self._new.items():
            if trial not in self._ids:  # else a try before this one made it
                self._ids[trial] = self._storage.create_new_trial(trial[0], template)
        for (trial, epoch), value in self._epochs.items():
            self._storage.set_trial_intermediate_value(self._ids[trial], epoch, value)
        for (trial, key), value in self._attributes.items():
            self._storage.set_trial_user_attr(self._ids[trial], key, value)
        for trial, (state, end_value) in self._ends.items():
            values = None if end_value is None else [end_value]
            self._storage.set_trial_state_values(self._ids[trial], state, values)

    def _create_trials(self, connection: Connection) -> dict[Key, int]:
        """Writes new trials, and returns their ids; those that are there are left as they are."""
        made: dict[Key, int] = {}
        for study_id in sorted({trial[0] for trial in self._new}):
            new = {key: one for key, one in self._new.items() if key[0] == study_id}
            # There are some if the answer to a try before this one was lost.
            there = _ids_from(connection, study_id, min(new)[1])
            rows = [
                {
                    "study_id": study_id,
                    "number": number,
                    "state": one.state,
                    "datetime_start": datetime.now(UTC).replace(tzinfo=None),
                }
                for (_, number), one in new.items()
                if number not in there
            ]
            if rows:
                connection.execute(insert(_TRIALS), rows)
                there = _ids_from(connection, study_id, min(new)[1])
            made |= {key: there[key[1]] for key in new}
        _upsert(connection, models.TrialParamModel, "param_name", self._parameters(made))
        _upsert(connection, models.TrialSystemAttributeModel, "key", self._memory(made))
        return made

    def _parameters(self, ids: Mapping[Key, int]) -> list[dict[str, Any]]:
        return [
            {
                "trial_id": ids[trial],
                "param_name": name,
                "param_value": one.distributions[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(one.distributions[name]),
            }
            for trial, one in self._new.items()
            for name, value in one.params.items()
        ]

    def _memory(self, ids: Mapping[Key, int]) -> list[dict[str, Any]]:
        return [
            {"trial_id": ids[trial], "key": key, "value_json": json.dumps(value)}
            for trial, one in self._new.items()
            for key, value in one.system_attrs.items()
        ]

    def _write_tables(self, connection: Connection, ids: Mapping[Key, int]) -> None:
        epochs = [
            {"trial_id": ids[trial], "step": epoch, **_stored_epoch(value)}
            for (trial, epoch), value in self._epochs.items()
        ]
        given = {
            (trial, key): value
            for trial, one in self._new.items()
            for key, value in one.user_attrs.items()
        }
        attributes = [
            {"trial_id": ids[trial], "key": key, "value_json": json.dumps(value)}
            for (trial, key), value in (given | self._attributes).items()
        ]
        values = [
            {"trial_id": ids[trial], "objective": 0, **_stored_value(value)}
            for trial, (_, value) in self._ends.items()
            if value is not None
        ]
        _upsert(connection, models.TrialIntermediateValueModel, "step", epochs)
        _upsert(connection, models.TrialUserAttributeModel, "key", attributes)
        _upsert(connection, models.TrialValueModel, "objective", values)
        complete = datetime.now(UTC).replace(tzinfo=None)  # as Optuna keeps it: UTC, not said
        ends = [
            {"id": ids[trial], "to": state, "at": complete}
            for trial, (state, _) in self._ends.items()
        ]
        if ends:
            connection.execute(_END, ends)


def _ids_from(connection: Connection, study_id: int, number: int) -> dict[int, int]:
    """Returns the ids of a study's trials from a number on, by number."""
    query = select(_TRIALS.c.number, _TRIALS.c.trial_id).where(
        _TRIALS.c.study_id == study_id, _TRIALS.c.number >= number
    )
    return {row.number: row.trial_id for row in connection.execute(query)}


def _stored_epoch(value: float) -> dict[str, Any]:
    stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    return {"intermediate_value": stored, "intermediate_value_type": kind}


def _stored_value(value: float) -> dict[str, Any]:
    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
    return {"value": stored, "value_type": kind}


def _upsert(connection: Connection, model: Any, key: str, rows: list[dict[str, Any]]) -> None:
    """Inserts rows of trials, or replaces those that are there by trial and key."""
    if rows:
        connection.execute(_upsert_into(connection.dialect.name, model, key, tuple(rows[0])), rows)


@cache  # to make one takes longer than to run it
def _upsert_into(dialect: str, model: Any, key: str, names: tuple[str, ...]) -> Any:
    statement = _INSERT[dialect](model.__table__)
    given = {name: statement.excluded[name] for name in names if name not in ("trial_id", key)}
    return statement.on_conflict_do_update(index_elements=["trial_id", key], set_=given)
