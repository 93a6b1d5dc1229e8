from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdscale.search import Study
from kdscale.search._plan import CONTROL, Cost, controls, cost, generation, generations
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
        (trial.configuration, trial.seed, trial.cohort)
        for number in range(generations(study))
        for trial in generation(study, number)
    ]


def test_a_generation_is_dealt_out_to_cohorts_under_each_seed() -> None:
    study = planned_study(configurations=5, seeds=[3, 1], cohort=2, size=4)
    assert everyone(study) == [
        (0, 3, "g0-s3-0"),
        (1, 3, "g0-s3-0"),
        (2, 3, "g0-s3-1"),
        (3, 3, "g0-s3-1"),
        (0, 1, "g0-s1-0"),
        (1, 1, "g0-s1-0"),
        (2, 1, "g0-s1-1"),
        (3, 1, "g0-s1-1"),
        (4, 3, "g1-s3-0"),
        (4, 1, "g1-s1-0"),
    ]


def test_without_a_generation_size_a_generation_is_one_cohort_a_seed() -> None:
    study = planned_study(configurations=5, seeds=1, cohort=2)
    assert [cohort for _, _, cohort in everyone(study)] == [
        "g0-s0-0",
        "g0-s0-0",
        "g1-s0-0",
        "g1-s0-0",
        "g2-s0-0",
    ]


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
    assert max(Counter(name for _, _, name in planned).values()) <= study.cohort_size
    for name, members in groupby(sorted(planned, key=lambda one: one[2]), key=lambda one: one[2]):
        assert len({seed for _, seed, _ in members}) == 1, name


@given(**shapes, more=st.integers(0, 20))
def test_raising_the_budget_moves_no_trial_to_another_cohort(
    configurations: int, seeds: int, cohort: int | str, size: int | None, more: int
) -> None:
    few = planned_study(configurations, seeds, cohort, size=size)
    many = planned_study(configurations + more, seeds, cohort, size=size)
    assert set(everyone(few)) <= set(everyone(many))


@given(**shapes, workers=st.sampled_from([1, 2, 8]), gpus=st.sampled_from([0, 0.5, 1]))
def test_cohorts_depend_on_the_study_file_and_not_on_the_cluster(
    configurations: int,
    seeds: int,
    cohort: int | str,
    size: int | None,
    workers: int,
    gpus: float,
) -> None:
    study = planned_study(configurations, seeds, cohort, size=size)
    resources = {"cohort": cohort, "workers": workers, "gpus_per_worker": gpus}
    elsewhere = study.model_copy(update={"resources": make_study(resources=resources).resources})
    assert everyone(study) == everyone(elsewhere)


def test_controls_are_one_a_seed_and_each_a_cohort_of_its_own() -> None:
    study = planned_study(seeds=[4, 2])
    assert [(c.configuration, c.seed, c.cohort) for c in controls(study)] == [
        (CONTROL, 4, "undistilled-s4"),
        (CONTROL, 2, "undistilled-s2"),
    ]
    assert controls(planned_study(undistilled=False)) == []


def test_cost_without_rungs() -> None:
    # 4 cohorts of 2 and 2 cohorts of 1, 8 epochs, and two control trials.
    assert cost(planned_study()) == Cost(
        cohorts=6, student_epochs=10 * 8 + 16, without_rungs=96, teacher_epochs=6 * 8
    )


def test_cost_with_rungs_counts_what_each_rung_leaves() -> None:
    study = planned_study(
        configurations=10, seeds=1, cohort=8, undistilled=False, rungs={"eta": 2, "first": 2}
    )
    # 8 students to epoch 2, 4 to 4, 2 to 8; and 2 to epoch 2, then 1 to 8.
    assert cost(study) == Cost(
        cohorts=2,
        student_epochs=(8 * 2 + 4 * 2 + 2 * 4) + (2 * 2 + 6),
        without_rungs=80,
        teacher_epochs=16,
    )


@pytest.mark.parametrize("eta", [2, 3])
@given(size=st.integers(1, 20), first=st.integers(1, 7))
def test_cost_is_what_the_stop_rule_lets_through(eta: int, size: int, first: int) -> None:
    study = planned_study(size, 1, 20, undistilled=False, rungs={"eta": eta, "first": first})
    rule = Halving(study.rung_epochs, eta, "val_accuracy", "maximize")
    histories: dict[str, list[dict[str, float]]] = {f"c{n:03d}-s0": [] for n in range(size)}
    stopped: dict[str, str] = {}
    for epoch in range(1, 9):
        for number, name in enumerate(histories):
            if name not in stopped:
                histories[name].append({"epoch": epoch, "val_accuracy": float(number)})
        stopped |= rule(histories, set(histories) - set(stopped))
    assert cost(study).student_epochs == sum(len(history) for history in histories.values())
