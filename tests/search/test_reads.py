from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from sqlalchemy import event

from kdscale.search import _reads as module
from kdscale.search._reads import all_trials


def fill(storage: BaseStorage) -> list[int]:
    """Makes two studies, with every kind of value that a trial can have."""
    studies = [storage.create_new_study([StudyDirection.MAXIMIZE], name) for name in "ab"]
    distributions = {
        "z": FloatDistribution(1e-3, 10.0, log=True),
        "a": IntDistribution(1, 9),
        "kind": CategoricalDistribution(["x", 1, True, 0.5]),
    }
    for number in range(6):
        for study in studies:
            params = {
                "z": 0.1 * (number + 1),
                "a": number + 1,
                "kind": ["x", 1, True, 0.5][number % 4],
            }
            template = create_trial(
                state=TrialState.RUNNING,
                params=params,
                distributions=distributions,
                user_attrs={"seed": number, "text": "é", "list": [1, {"b": None}]},
                system_attrs={"memory": [number]},
            )
            trial = storage.create_new_trial(study, template)
            for epoch, value in enumerate((0.1, math.inf, -math.inf)[: number % 4], start=1):
                storage.set_trial_intermediate_value(trial, epoch, value)
            if number % 3 == 1:
                storage.set_trial_state_values(trial, TrialState.COMPLETE, [1 / 3 + number])
            elif number % 3 == 2:
                storage.set_trial_state_values(trial, TrialState.FAIL)
    return studies


@pytest.mark.parametrize("kind", ["sqlite", "memory"])
def test_trials_are_read_as_optuna_reads_them(kind: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    storage = RDBStorage(url) if kind == "sqlite" else InMemoryStorage()
    for study in fill(storage):
        found, wanted = all_trials(storage, study), storage.get_all_trials(study)
        assert found == wanted
        assert [list(one.params.items()) for one in found] == [
            list(one.params.items()) for one in wanted
        ]
        assert [one._trial_id for one in found] == [one._trial_id for one in wanted]


def test_all_of_it_is_of_one_moment_while_another_writes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    storage, sweep = RDBStorage(url), RDBStorage(url)
    with storage.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    study, _ = fill(storage)
    wanted = storage.get_all_trials(study)
    queries = 0

    def write(connection: object, cursor: object, statement: str, *_: object) -> None:
        nonlocal queries
        if not statement.startswith("SELECT"):
            return
        queries += 1
        sweep.create_new_trial(study, create_trial(state=TrialState.RUNNING))
        sweep.set_trial_user_attr(wanted[0]._trial_id, "seed", 100 + queries)

    event.listen(storage.engine, "after_cursor_execute", write)
    found = all_trials(storage, study)
    event.remove(storage.engine, "after_cursor_execute", write)
    assert queries > 5
    assert found == wanted
    assert len(all_trials(storage, study)) == len(wanted) + queries


def test_a_sweep_may_write_while_what_was_read_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "study.db"
    storage = RDBStorage(f"sqlite:///{database}")
    study, _ = fill(storage)
    decode, writes = module._distribution, []

    def write(text: str) -> BaseDistribution:
        with closing(sqlite3.connect(database, timeout=0)) as sweep, sweep:
            sweep.execute("UPDATE trial_params SET param_value = param_value")
        writes.append(text)
        return decode(text)

    monkeypatch.setattr(module, "_distribution", write)
    assert all_trials(storage, study) == storage.get_all_trials(study)
    assert writes


def test_a_study_without_a_trial(tmp_path: Path) -> None:
    storage = RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    study = storage.create_new_study([StudyDirection.MAXIMIZE], "empty")
    assert all_trials(storage, study) == []
