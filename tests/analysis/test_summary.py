from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdscale.analysis import (
    best_configuration,
    candidates,
    cost,
    final_difference,
    summarise,
    validation_difference,
)
from kdscale.records import FinalEvaluation, FinalScores

from .studies import study, trial, usual


def test_summary_of_each_configuration() -> None:
    summaries = summarise(usual())
    assert [summary.number for summary in summaries] == [0, 1, 2, 3]
    assert [summary.n for summary in summaries] == [2, 2, 1, 0]
    assert summaries[0].values == {0: 70.0, 1: 71.0}
    assert summaries[1].parameters == {"alpha": 0.5, "depth": 5}
    assert (summaries[2].pruned, summaries[2].failed) == ((0,), ())
    assert (summaries[3].pruned, summaries[3].failed) == ((1,), (0,))
    assert summaries[3].estimate is None


def test_best_has_all_its_seeds_before_it_has_the_best_mean() -> None:
    # Configuration 2 has the highest value, but a rung took one of its seeds.
    best = best_configuration(usual())
    assert best is not None
    assert (best.number, best.n) == (1, 2)
    assert [summary.number for summary in candidates(usual())] == [1, 0]


def test_best_follows_the_goal_and_breaks_ties_by_number() -> None:
    trials = [trial(0, 5, 0, 0.2), trial(1, 3, 0, 0.1), trial(2, 4, 0, 0.1), trial(3, 1, 0, 0.2)]
    lowest = best_configuration(study(trials, goal="minimize"))
    highest = best_configuration(study(trials))
    assert lowest is not None
    assert highest is not None
    assert (lowest.number, highest.number) == (3, 1)


def test_no_best_without_a_trial_that_trained_to_the_end() -> None:
    assert best_configuration(study()) is None
    assert best_configuration(study([trial(0, 0, 0, 50.0, "pruned")])) is None
    assert best_configuration(study([trial(0, 0, 0, math.nan)])) is None


@given(st.permutations(range(8)))
def test_order_of_trials_does_not_matter(order: list[int]) -> None:
    record = usual()
    shuffled = replace(record, trials=tuple(record.trials[index] for index in order))
    assert summarise(shuffled) == summarise(record)
    assert best_configuration(shuffled) == best_configuration(record)


def test_difference_to_the_undistilled_student() -> None:
    difference = validation_difference(usual())
    assert difference is not None
    assert difference.seeds == (0, 1)
    assert difference.estimate.mean == pytest.approx(2.75)
    assert difference.verdict == "not distinguishable from noise"
    assert validation_difference(study([trial(0, 0, 0, 70.0)])) is None
    other_seed = study([trial(0, 0, 0, 70.0)], [trial(0, None, 1, 69.0)])
    assert validation_difference(other_seed) is None


def test_difference_on_the_test_set() -> None:
    final = usual().final
    assert final is not None
    difference = final_difference(final)
    assert difference is not None
    assert difference.estimate.mean == pytest.approx(2.95)
    assert difference.verdict == "better"
    alone = FinalEvaluation(0, (FinalScores("distilled student", {0: 71.0}),), 1, 100)
    assert final_difference(alone) is None


def test_cost_counts_controls_and_what_has_started() -> None:
    spent = cost(usual())
    assert (spent.trials, spent.controls) == (10, 2)
    assert spent.epochs == 7 * 4 + 2 * 2
    assert spent.train_seconds == pytest.approx(1.5 * spent.epochs)
    assert cost(study([trial(0, 0, 0, None, "waiting")])).trials == 0
