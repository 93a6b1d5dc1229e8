from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdscale.analysis.statistics import (
    Result,
    Results,
    at_equal_budget,
    budget_in_seconds,
    budget_in_trials,
    expected_best,
)

from .tables import mapped


def search(values: list[float], cost_seconds: float = 10.0, goal: str = "maximize") -> Results:
    rows = (
        Result(number, 0, {}, value, cost_seconds=cost_seconds)
        for number, value in enumerate(values)
    )
    return Results(tuple(rows), goal)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 100).map(float), min_size=1, max_size=6), st.data())
def test_it_is_the_mean_over_all_subsets(values: list[float], data: st.DataObject) -> None:
    without, with_ = expected_best(values), expected_best(values, unbiased=False)
    for k in range(1, len(values) + 1):
        subsets = [max(chosen) for chosen in combinations(values, k)]
        assert without[k - 1] == pytest.approx(np.mean(subsets))
        tuples = [max(chosen) for chosen in product(values, repeat=k)]
        assert with_[k - 1] == pytest.approx(np.mean(tuples))
    np.testing.assert_allclose(expected_best(data.draw(st.permutations(values))), without)


def test_the_ends_are_mean_and_maximum() -> None:
    values = np.random.default_rng(0).normal(size=300)
    curve = expected_best(values)
    assert curve[0] == pytest.approx(values.mean())
    assert curve[-1] == pytest.approx(values.max())
    assert (np.diff(curve) >= -1e-12).all()


def test_in_trials_the_band_ends_at_a_quarter_of_the_configurations() -> None:
    curve = budget_in_trials(search(np.random.default_rng(0).normal(70, 1, 30).tolist()))
    assert curve is not None
    assert (curve.unit, curve.trials, curve.budgets[-1]) == ("trials", 30, 30.0)
    assert len(curve.low) == len(curve.high) == 7
    for low, mean, high in zip(curve.low, curve.expected, curve.high, strict=False):
        assert low < mean < high
    few = budget_in_trials(search([70.0, 71.0, 72.0, 73.0, 74.0, 75.0, 76.0]))
    assert few is not None
    assert (few.low, few.high) == ((), ())
    assert budget_in_trials(Results((), "maximize")) is None


def test_in_seconds_equal_costs_are_trials() -> None:
    values = np.random.default_rng(1).normal(70, 1, 12).tolist()
    curve = budget_in_seconds(search(values), [5.0, 10.0, 60.0, 120.0])
    assert curve is not None
    trials = expected_best(values)
    assert curve.expected[0] == min(values)
    assert curve.expected[1] == pytest.approx(trials[0], abs=0.06)
    assert curve.expected[2] == pytest.approx(trials[5], abs=0.06)
    assert curve.expected[3] == pytest.approx(max(values))


def test_stopped_trials_cost_and_yield_nothing() -> None:
    whole = search([70.0, 71.0])
    pruned = Result(9, 0, {}, 99.0, cost_seconds=10.0, complete=False)
    curve = budget_in_seconds(replace(whole, rows=(*whole.rows, pruned)), [10.0, 20.0, 30.0])
    assert curve is not None
    assert curve.expected[2] == 71.0
    assert 70.0 < curve.expected[0] < curve.expected[1] < 71.0
    assert budget_in_seconds(Results((pruned,), "maximize"), [10.0]) is None


def test_lower_may_be_better() -> None:
    values = [3.0, 1.0, 2.0]
    curve = budget_in_trials(search(values, goal="minimize"))
    assert curve is not None
    assert curve.expected == pytest.approx((2.0, 4 / 3, 1.0))
    seconds = budget_in_seconds(search(values, goal="minimize"), [30.0])
    assert seconds is not None
    assert seconds.expected == (1.0,)


def test_methods_at_equal_budget() -> None:
    draw = np.random.default_rng(0)
    one, two = search(draw.normal(71, 0.5, 20).tolist()), search(draw.normal(70, 0.5, 30).tolist())
    gap = at_equal_budget(one, two)
    assert gap is not None
    assert len(gap.budgets) == 20
    assert len(gap.low) == len(gap.high) == 5
    assert gap.low[3] > 0.0
    same = at_equal_budget(one, one)
    assert same is not None
    assert same.difference == (0.0,) * 20
    assert at_equal_budget(one, Results((), "maximize")) is None
    with pytest.raises(ValueError, match="one goal"):
        at_equal_budget(one, replace(two, goal="minimize"))


def test_order_and_names_do_not_matter() -> None:
    whole = search(np.random.default_rng(0).normal(70, 1, 9).tolist())
    other = mapped(whole, lambda row: replace(row, configuration=100 - row.configuration))
    assert budget_in_trials(other) == budget_in_trials(whole)
    assert budget_in_seconds(other, [10.0, 50.0]) == budget_in_seconds(whole, [10.0, 50.0])


@pytest.mark.parametrize(("configurations", "seeds"), [(8, 3), (16, 5), (32, 1)])
def test_equal_searches_are_seldom_told_apart(configurations: int, seeds: int) -> None:
    draw = np.random.default_rng(0)

    def drawn() -> Results:
        means = draw.normal(70.0, 1.0, configurations)
        values = means[:, None] + draw.normal(0.0, 0.2, (configurations, seeds))
        rows = [
            Result(number, seed, {}, float(value))
            for (number, seed), value in np.ndenumerate(values)
        ]
        return Results(tuple(rows), "maximize")

    claims = 0
    for _ in range(200):
        gap = at_equal_budget(drawn(), drawn())
        assert gap is not None
        claims += gap.low[-1] > 0.0 or gap.high[-1] < 0.0
    assert claims <= 16  # 8% of 200; 5% are meant


def test_the_band_of_seconds_is_that_of_trials_where_costs_are_equal() -> None:
    values = np.random.default_rng(3).normal(70, 1, 16).tolist()
    trials = budget_in_trials(search(values))
    seconds = budget_in_seconds(search(values), [10.0, 20.0, 30.0, 40.0, 160.0])
    assert trials is not None
    assert seconds is not None
    assert len(seconds.low) == 4
    for place in range(4):
        width = trials.high[place] - trials.low[place]
        assert seconds.high[place] - seconds.low[place] == pytest.approx(width, rel=0.15)
