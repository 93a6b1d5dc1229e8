"""A study's trials out of Optuna's storage, in a few queries for all of them.

Optuna's own interface makes some twenty objects a trial, most of which nobody looks at: a study of
thousands of trials takes it many seconds to open. Where the storage is a database, the tables
behind it are read instead.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy import Connection, Engine, select

from kdscale.records import FinalEvaluation, FinalScores
from kdscale.search._served import ServedStorage

_OF_TRIALS: tuple[Any, ...] = (
    models.TrialParamModel,
    models.TrialUserAttributeModel,
    models.TrialSystemAttributeModel,
    models.TrialIntermediateValueModel,
    models.TrialValueModel,
)


def all_trials(storage: BaseStorage, study_id: int) -> list[FrozenTrial]:
    """Returns the trials of an Optuna study in order of their numbers, not to be changed."""
    if not isinstance(storage, RDBStorage):
        return storage.get_all_trials(study_id, deepcopy=False)
    if isinstance(storage, ServedStorage):
        return storage.patiently(lambda: _read(storage.engine, study_id))
    return _read(storage.engine, study_id)


def _read(engine: Engine, study_id: int) -> list[FrozenTrial]:
    # One moment for all queries: a sweep may be writing, and would add trials between two of them.
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")  # Python begins nothing for those who only read
        else:
            connection.execution_options(isolation_level="REPEATABLE READ")
        rows = _rows(connection, study_id)
    return _trials(rows)  # no longer in the transaction: it may keep a sweep from writing


def _rows(connection: Connection, study_id: int) -> dict[Any, Sequence[Any]]:
    """Returns all rows of a study's trials, by Optuna's model of their table."""
    trials = models.TrialModel.__table__
    mine = select(trials.c.trial_id).where(trials.c.study_id == study_id)
    order = select(trials).where(trials.c.study_id == study_id).order_by(trials.c.trial_id)
    rows: dict[Any, Sequence[Any]] = {models.TrialModel: connection.execute(order).all()}
    for model in _OF_TRIALS:
        table = model.__table__
        # In order of creation: parameters are shown in the order in which they were set.
        [key] = table.primary_key.columns
        query = select(table).where(table.c.trial_id.in_(mine)).order_by(key)
        rows[model] = connection.execute(query).all()
    return rows


def _trials(rows: Mapping[Any, Sequence[Any]]) -> list[FrozenTrial]:
    def by_trial(model: Any) -> dict[int, list[Any]]:
        found: defaultdict[int, list[Any]] = defaultdict(list)
        for row in rows[model]:
            found[row.trial_id].append(row)
        return found

    parameters = by_trial(models.TrialParamModel)
    user = by_trial(models.TrialUserAttributeModel)
    system = by_trial(models.TrialSystemAttributeModel)
    epochs = by_trial(models.TrialIntermediateValueModel)
    values = by_trial(models.TrialValueModel)
    epoch_of = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    value_of = models.TrialValueModel.stored_repr_to_value
    return [
        FrozenTrial(
            number=row.number,
            state=row.state,
            value=None,
            values=[value_of(one.value, one.value_type) for one in values[number]] or None,
            datetime_start=row.datetime_start,
            datetime_complete=row.datetime_complete,
            params={
                one.param_name: _distribution(one.distribution_json).to_external_repr(
                    one.param_value
                )
                for one in parameters[number]
            },
            distributions={
                one.param_name: _distribution(one.distribution_json) for one in parameters[number]
            },
            user_attrs={one.key: json.loads(one.value_json) for one in user[number]},
            system_attrs={one.key: json.loads(one.value_json) for one in system[number]},
            intermediate_values={
                one.step: epoch_of(one.intermediate_value, one.intermediate_value_type)
                for one in epochs[number]
            },
            trial_id=number,
        )
        for row in rows[models.TrialModel]
        for number in (row.trial_id,)
    ]


@cache
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def final_of(text: str | None) -> FinalEvaluation | None:
    """Returns the final evaluation that a ledger has kept, if there is one."""
    if text is None:
        return None
    saved = json.loads(text)
    scores = tuple(
        FinalScores(
            s["label"],
            {int(seed): value for seed, value in s["accuracies"].items()},
            s.get("parameters", 0),
        )
        for s in saved.pop("scores")
    )
    return FinalEvaluation(scores=scores, **saved)
