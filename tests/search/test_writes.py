from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from kdscale.search._writes import Writes

SPACE: dict[str, BaseDistribution] = {
    "alpha": FloatDistribution(1e-3, 14, log=True),
    "depth": IntDistribution(1, 9, step=2),
    "form": CategoricalDistribution(["cosine", 3, None, True]),
}


@st.composite
def templates(draw: st.DrawFn) -> FrozenTrial:
    values = {
        "alpha": draw(st.floats(1e-3, 14)),
        "depth": draw(st.sampled_from([1, 3, 5, 7, 9])),
        "form": draw(st.sampled_from(["cosine", 3, None, True])),
    }
    json = st.none() | st.integers(-9, 9) | st.text(max_size=5) | st.lists(st.floats(0, 1))
    names = st.text("abc:", min_size=1, max_size=4)
    return create_trial(
        state=TrialState.RUNNING,
        params=values,
        distributions=SPACE,
        user_attrs=draw(st.dictionaries(names, json, max_size=3)),
        system_attrs=draw(st.dictionaries(names, json, max_size=3)),
    )


def contents(storage: RDBStorage | InMemoryStorage, study_id: int) -> list[object]:
    return [
        (one.number, one.state, one.params, one.distributions, one.user_attrs, one.system_attrs)
        for one in storage.get_all_trials(study_id)
    ]


@settings(deadline=None, max_examples=20)
@given(st.lists(templates(), min_size=1, max_size=5), st.integers(0, 5))
def test_a_plan_is_what_optuna_itself_would_have_written(
    plan: list[FrozenTrial], earlier: int
) -> None:
    storage = RDBStorage("sqlite:///:memory:")
    ours, theirs = (
        storage.create_new_study([StudyDirection.MAXIMIZE], name) for name in ("ours", "theirs")
    )
    writes = Writes(storage)
    for number, template in enumerate(plan):
        if number == earlier:
            writes.flush()
        writes.create((ours, number), template)
        storage.create_new_trial(theirs, template)
    writes.flush()
    assert contents(storage, ours) == contents(storage, theirs)


@pytest.mark.parametrize("kind", ["database", "memory"])
def test_what_happens_to_new_trials_may_be_written_with_them(kind: str) -> None:
    storage = RDBStorage("sqlite:///:memory:") if kind == "database" else InMemoryStorage()
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "study")
    writes = Writes(storage)
    for number in range(3):
        writes.create((study_id, number), create_trial(state=TrialState.RUNNING))
        writes.attribute((study_id, number), "seed", number)
        writes.epoch((study_id, number), 1, 50.0 + number)
    writes.end((study_id, 1), TrialState.PRUNED, 51.0)
    writes.flush()
    trials = storage.get_all_trials(study_id)
    assert [one.user_attrs for one in trials] == [{"seed": 0}, {"seed": 1}, {"seed": 2}]
    assert [one.intermediate_values for one in trials] == [{1: 50.0}, {1: 51.0}, {1: 52.0}]
    assert [one.state.name for one in trials] == ["RUNNING", "PRUNED", "RUNNING"]
    assert trials[1].value == 51.0


def test_a_plan_whose_answer_was_lost_is_made_once(tmp_path: Path) -> None:
    storage = RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "study")
    lost, again = Writes(storage), Writes(storage)
    for writes in (lost, again):  # the same process, which never heard of the first commit
        for number in range(4 if writes is lost else 6):
            template = create_trial(state=TrialState.RUNNING, user_attrs={"seed": number})
            writes.create((study_id, number), template)
        writes.flush()
    trials = storage.get_all_trials(study_id)
    assert [one.number for one in trials] == list(range(6))
    assert [one.user_attrs["seed"] for one in trials] == list(range(6))
    assert len({one._trial_id for one in trials}) == 6
