from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdscale.search import Study
from kdscale.search._plan import (
    CONTROL,
    Cost,
    controls,
    cost,
    generation,
    generations,
    most_together,
    rung_group,
)
from kdscale.search._rungs import Halving

from .studies import make_study


def planned_study(
    configurations: int = 5,
    seeds: int | list[int] = 2,
    cohort: int | str = 2,
    *,
    size: int | None = None,
    **sections: Any,
) -> Study:
    count = seeds if isinstance(seeds, int) else len(seeds)
    return make_study(
        seeds=seeds,
        search={"method": "random", "generation": size},
        resources={"cohort": cohort},
        **({"budget": {"trials": configurations * count, "epochs": 8}} | sections),
    )


def everyone(study: Study) -> list[tuple[int, int, str]]:
    return [
        (trial.configuration, trial.seed, rung_group(study, trial.configuration, trial.seed))
        for number in range(generations(study))
        for trial in generation(study, number)
    ]


def test_a_generation_is_one_rung_group_under_each_seed() -> None:
    study = planned_study(configurations=5, seeds=[3, 1], size=4)
    assert everyone(study) == [
        *((number, 3, "g0-s3") for number in range(4)),
        *((number, 1, "g0-s1") for number in range(4)),
        (4, 3, "g1-s3"),
        (4, 1, "g1-s1"),
    ]


def test_without_a_generation_size_a_generation_has_eight_configurations() -> None:
    study = planned_study(configurations=9, seeds=1, cohort=2)
    assert [group for _, _, group in everyone(study)] == ["g0-s0"] * 8 + ["g1-s0"]


shapes = {
    "configurations": st.integers(1, 30),
    "seeds": st.integers(1, 4),
    "cohort": st.one_of(st.integers(1, 9), st.just("auto")),
    "size": st.one_of(st.none(), st.integers(1, 12)),
}


@given(**shapes)
def test_every_configuration_trains_once_under_every_seed(
    configurations: int, seeds: int, cohort: int | str, size: int | None
) -> None:
    study = planned_study(configurations, seeds, cohort, size=size)
    planned = everyone(study)
    pairs = [(configuration, seed) for configuration, seed, _ in planned]
    assert sorted(pairs) == [(c, s) for c in range(configurations) for s in range(seeds)]
    assert len(planned) == study.trials
    assert max(Counter(name for _, _, name in planned).values()) <= study.generation_size
    for name, members in groupby(sorted(planned, key=lambda one: one[2]), key=lambda one: one[2]):
        assert len({seed for _, seed, _ in members}) == 1, name


@given(**shapes, more=st.integers(0, 20))
def test_raising_the_budget_moves_no_trial_to_another_group(
    configurations: int, seeds: int, cohort: int | str, size: int | None, more: int
) -> None:
    few = planned_study(configurations, seeds, cohort, size=size)
    many = planned_study(configurations + more, seeds, cohort, size=size)
    assert set(everyone(few)) <= set(everyone(many))


@given(
    **shapes,
    other=st.one_of(st.integers(1, 9), st.just("auto")),
    workers=st.sampled_from([1, 2, 8]),
)
def test_groups_do_not_depend_on_resources(
    configurations: int,
    seeds: int,
    cohort: int | str,
    size: int | None,
    other: int | str,
    workers: int,
) -> None:
    study = planned_study(configurations, seeds, cohort, size=size)
    resources = {"cohort": other, "workers": workers}
    elsewhere = study.model_copy(update={"resources": make_study(resources=resources).resources})
    assert everyone(study) == everyone(elsewhere)


def test_controls_are_one_a_seed() -> None:
    study = planned_study(seeds=[4, 2])
    assert [(c.configuration, c.seed, c.name) for c in controls(study)] == [
        (CONTROL, 4, "undistilled-s4"),
        (CONTROL, 2, "undistilled-s2"),
    ]
    assert controls(planned_study(undistilled=False)) == []


@pytest.mark.parametrize(("method", "most"), [("random", 20), ("tpe", 4)])
def test_trials_that_are_planned_at_once_can_train_together(method: str, most: int) -> None:
    search = {"method": method, "generation": 4}
    study = make_study(search=search, budget={"trials": 20, "epochs": 8}, undistilled=False)
    assert most_together(study) == most
    assert most_together(study.model_copy(update={"undistilled": True})) == most + 1


def test_cost_without_rungs() -> None:
    # 5 configurations under each of 2 seeds and two control trials, 8 epochs: 3 cohorts a seed.
    assert cost(planned_study(), 2) == Cost(
        student_epochs=10 * 8 + 16, without_rungs=96, teacher_epochs=6 * 8
    )


def test_cost_with_rungs_counts_what_each_rung_leaves() -> None:
    study = planned_study(
        configurations=10, seeds=1, undistilled=False, rungs={"eta": 2, "first": 2}
    )
    # 8 and 2 students to epoch 2, 4 and 1 to 4, 2 and 1 to 8: 2, 1 and 1 cohorts.
    assert cost(study, 8) == Cost(
        student_epochs=10 * 2 + 5 * 2 + 3 * 4, without_rungs=80, teacher_epochs=2 * 2 + 2 + 4
    )


@pytest.mark.parametrize("eta", [2, 3])
@given(size=st.integers(1, 20), first=st.integers(1, 7))
def test_cost_is_what_the_stop_rule_lets_through(eta: int, size: int, first: int) -> None:
    rungs = {"eta": eta, "first": first}
    study = planned_study(size, 1, size=20, undistilled=False, rungs=rungs)
    rule = Halving(study.rung_epochs, eta, "val_accuracy", "maximize")
    histories: dict[str, list[dict[str, float]]] = {f"c{n:03d}-s0": [] for n in range(size)}
    stopped: dict[str, str] = {}
    for epoch in range(1, 9):
        for number, name in enumerate(histories):
            if name not in stopped:
                histories[name].append({"epoch": epoch, "val_accuracy": float(number)})
        stopped |= rule(histories, set(histories) - set(stopped))
    assert cost(study, 8).student_epochs == sum(len(history) for history in histories.values())
