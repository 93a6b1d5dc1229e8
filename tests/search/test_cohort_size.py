from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kdscale.search._cohort_size import (
    CohortSize,
    chosen_size,
    cohorts_of_a_generation,
    expected_size,
    planned_size,
    resources_key,
)
from kdscale.training import Measured

from .studies import make_study

MANY = {"search": {"method": "random"}, "budget": {"trials": 40, "epochs": 8}}
GIB = 2**30


def rows(*sizes: int, teacher: float, student: float, mebibytes: int = 0) -> list[Measured]:
    return [
        Measured(size, teacher + size * student, 1000 + size * mebibytes * 2**20) for size in sizes
    ]


def test_what_is_given_is_never_measured() -> None:
    assert planned_size(make_study(resources={"cohort": 3})).size == 3
    assert planned_size(make_study(resources={"cohort": 300})).size == 9  # 8 and a control


def test_few_trials_all_train_together_and_many_are_measured() -> None:
    assert planned_size(make_study()).size == 9
    assert planned_size(make_study(**MANY)).size == 0
    assert expected_size(make_study(**MANY), None)[0] == 16
    assert cohorts_of_a_generation(make_study(seeds=2)) == 2
    assert cohorts_of_a_generation(make_study(resources={"cohort": 3})) == 3


def test_what_was_measured_holds_as_long_as_the_resources_do() -> None:
    study, nodes = make_study(**MANY), [{"CPU": 2.0, "memory": 1e9, "node:10.0.0.1": 1.0}]
    key = resources_key(study, nodes)
    known = CohortSize(7, "measured", tuple(rows(1, 2, teacher=1, student=1)), GIB, key)
    assert CohortSize.from_json(known.to_json()) == known
    assert planned_size(study, known, key) == known
    assert planned_size(study, known) == known  # a plan, which knows no nodes
    elsewhere = [{"CPU": 2.0, "memory": 2e9, "node:10.0.0.2": 1.0}]
    assert resources_key(study, elsewhere) == key
    other = resources_key(study, [{"CPU": 4.0}])
    assert planned_size(study, known, other).size == 0


def test_the_larger_the_better_as_long_as_the_teacher_is_shared() -> None:
    table = rows(1, 2, 4, 8, 16, teacher=2.0, student=1.0)
    chosen = chosen_size(table, 40, GIB, "")
    assert chosen.size == 32  # 1.06 s a trial, and 40 at once take 1.05
    assert chosen.why == "measured: 2.8x the trials per hour of one at a time"
    # Where the teacher costs nothing, small cohorts are as good.
    assert chosen_size(rows(1, 2, 4, teacher=0.0, student=1.0), 40, GIB, "").size == 1


def test_memory_bounds_the_size() -> None:
    table = rows(1, 2, 4, teacher=2.0, student=1.0, mebibytes=100)
    assert chosen_size(table, 40, GIB, "").size == 8  # 16 x 100 MiB do not fit
    assert chosen_size(table, 40, 2**20, "").size == 1


def test_what_is_too_slow_to_measure_is_guessed() -> None:
    assert chosen_size(rows(1, teacher=2.0, student=1.0), 40, GIB, "").size == 8
    assert chosen_size([], 5, GIB, "").size == 5


@given(
    costs=st.lists(st.floats(0.01, 100), min_size=2, max_size=5),
    peaks=st.lists(st.integers(1, 2**31), min_size=5, max_size=5),
    most=st.integers(2, 200),
    memory=st.integers(0, 2**33),
)
def test_there_is_always_a_size(
    costs: list[float], peaks: list[int], most: int, memory: int
) -> None:
    sizes = [2**n for n in range(len(costs)) if 2**n <= most]
    table = [
        Measured(size, seconds, peak)
        for size, seconds, peak in zip(sizes, costs, sorted(peaks), strict=False)
    ]
    assert 1 <= chosen_size(table, most, memory, "").size <= most
