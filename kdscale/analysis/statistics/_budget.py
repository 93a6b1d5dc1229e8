"""The best value to expect of a search, against what it may spend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import gammaln

from kdscale.analysis._estimate import CONFIDENCE
from kdscale.analysis.statistics._results import Array, Results

_RESAMPLES = 500


@dataclass(frozen=True)
class BudgetCurve:
    """Expected best value by budget.

    Attributes:
        unit: ``trials`` or ``seconds``.
        budgets: Budgets, rising.
        expected: Expected best value at each one.
        low: Lower end of the 95% bootstrap band, budget by budget.
        high: Upper end.
        trials: Trials behind the curve.
    """

    unit: str
    budgets: tuple[float, ...]
    expected: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    trials: int


@dataclass(frozen=True)
class BudgetGap:
    """Two searches at equal budget.

    Attributes:
        unit: ``trials``.
        budgets: Budgets that both curves reach.
        difference: First minus second expected best value, better being positive.
        low: Lower end of the 95% bootstrap band, budget by budget.
        high: Upper end.
    """

    unit: str
    budgets: tuple[float, ...]
    difference: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def expected_best(values: Sequence[float] | Array, *, unbiased: bool = True) -> Array:
    """Returns the expected maximum of 1, 2, … n of n random-search values.

    Args:
        values: [n] Values, larger being better; independent draws, as of a random search. What a
            model-based search found late is no such draw, and flatters it.
        unbiased: Of all subsets without replacement (each entry is unbiased), else with (which
            underrates the maximum, most at large budgets).

    Source: Tang et al., ACL 2020, eq. 3, unbiased; Dodge et al., EMNLP 2019, eq. 1, biased.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    return np.asarray(_order_weights(len(ordered), unbiased) @ ordered)


def budget_in_trials(results: Results, *, rng: int = 0) -> BudgetCurve | None:
    """Returns the expected best value of as many complete trials, or None without one.

    Args:
        results: The trials. Every trial counts as one run of a configuration under a seed.
        rng: Seed of the bootstrap.

    Source: `expected_best`; the band is a percentile bootstrap over trials.
    """
    scores = _scores(results)
    if not len(scores):
        return None
    n = len(scores)
    draw = np.random.default_rng(rng)
    curves = np.array([expected_best(draw.choice(scores, n)) for _ in range(_RESAMPLES)])
    budgets = tuple(float(number) for number in range(1, n + 1))
    return _curve(results, "trials", budgets, expected_best(scores), curves, n)


def budget_in_seconds(
    results: Results, budgets: Sequence[float], *, rng: int = 0
) -> BudgetCurve | None:
    """Returns the expected best value within seconds of training, or None without a trial.

    Trials run in random order until the budget is used up; one that does not fit any more counts
    nothing. Trials that a rung stopped cost what they cost and yield no value. Before the first
    value the search has the worst one of all.

    Args:
        results: The trials with their costs.
        budgets: Seconds, rising.
        rng: Seed of the orders.

    Source: Dodge et al., EMNLP 2019, section 3.2, budgets in time; by simulation, since trials
    differ in cost. Each order is of a bootstrap sample, of which the band takes percentiles of
    averages over orders.
    """
    if not results.complete.rows:
        return None
    value, cost = _priced(results)
    draw = np.random.default_rng(rng)
    wanted = np.asarray(budgets, dtype=float)
    expected = _within(value, cost, wanted, draw, 4 * _RESAMPLES)
    chosen = [draw.integers(len(value), size=len(value)) for _ in range(_RESAMPLES // 2)]
    curves = np.array([_within(value[c], cost[c], wanted, draw, 50) for c in chosen])
    rising = tuple(float(budget) for budget in budgets)
    return _curve(results, "seconds", rising, expected, curves, len(results.rows))


def at_equal_budget(first: Results, second: Results, *, rng: int = 0) -> BudgetGap | None:
    """Returns one search minus another at equal numbers of trials, or None if one has none.

    Args:
        first: Trials of one method.
        second: Trials of the other, with the same goal.
        rng: Seed of the bootstrap.

    Source: Tang et al., ACL 2020, section 4: comparisons at equal budget, by bootstrap over trials.
    """
    if first.goal != second.goal:
        raise ValueError(f"both must have one goal, but have {first.goal} and {second.goal}")
    one, two = _scores(first), _scores(second)
    most = min(len(one), len(two))
    if not most:
        return None
    draw = np.random.default_rng(rng)
    gaps = np.array(
        [
            expected_best(draw.choice(one, len(one)))[:most]
            - expected_best(draw.choice(two, len(two)))[:most]
            for _ in range(_RESAMPLES)
        ]
    )
    low, high = _band(gaps)
    seen = expected_best(one)[:most] - expected_best(two)[:most]
    budgets = tuple(float(number) for number in range(1, most + 1))
    return BudgetGap("trials", budgets, tuple(seen.tolist()), low, high)


@lru_cache(maxsize=64)
def _order_weights(n: int, unbiased: bool) -> Array:
    """Returns [k - 1, i]: the chance that the i-th smallest of n is the largest of k."""
    k = np.arange(1, n + 1)[:, None]
    rank = np.arange(1, n + 1)[None, :]
    if not unbiased:
        return np.asarray((rank / n) ** k - ((rank - 1) / n) ** k)
    # C(rank - 1, k - 1) / C(n, k), by logarithms.
    with np.errstate(divide="ignore", invalid="ignore"):
        above = gammaln(rank) - gammaln(np.maximum(rank - k + 1, 1)) - gammaln(k)
    whole = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return np.asarray(np.where(rank >= k, np.exp(above - whole), 0.0))


def _scores(results: Results) -> Array:
    return np.sort(np.array([results.sign * row.value for row in results.complete.rows]))


def _priced(results: Results) -> tuple[Array, Array]:
    """Returns value and cost of every trial, in an order that is a function of these alone."""
    rows = sorted(
        (results.sign * row.value if row.complete else -math.inf, row.cost_seconds)
        for row in results.rows
    )
    return np.array([value for value, _ in rows]), np.array([cost for _, cost in rows])


def _within(
    value: Array, cost: Array, budgets: Array, draw: np.random.Generator, orders: int
) -> Array:
    """Returns the mean over random orders of the best value within each budget."""
    floor = value[np.isfinite(value)].min() if np.isfinite(value).any() else 0.0
    order = draw.permuted(np.tile(np.arange(len(value)), (orders, 1)), axis=1)
    best = np.maximum.accumulate(np.where(np.isfinite(value), value, floor)[order], axis=1)
    spent = cost[order].cumsum(axis=1)
    total = np.zeros(len(budgets))
    for place, budget in enumerate(budgets):
        done = (spent <= budget + 1e-9).sum(axis=1)
        rows = np.arange(orders)
        total[place] = np.where(done > 0, best[rows, np.maximum(done - 1, 0)], floor).mean()
    return total


def _curve(
    results: Results,
    unit: str,
    budgets: tuple[float, ...],
    expected: Array,
    curves: Array,
    trials: int,
) -> BudgetCurve:
    low, high = _band(curves)
    if results.sign < 0.0:
        low, high = tuple(-end for end in high), tuple(-end for end in low)
    means = tuple((results.sign * expected).tolist())
    return BudgetCurve(unit, budgets, means, low, high, trials)


def _band(curves: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(curves, (tail, 1.0 - tail), axis=0)
    return tuple(low.tolist()), tuple(high.tolist())
