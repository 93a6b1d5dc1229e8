"""The best value to expect of a search, against what it may spend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, stdtrit

from kdscale.analysis._estimate import CONFIDENCE
from kdscale.analysis.statistics._results import Array, Results

_ORDERS = 2000
_MOST_GROUPS = 40
_WIDER = 1.15
"""What makes the band hold in 95% of simulated searches; see scripts/bench_statistics.py."""

_REACH = 4
"""Configurations behind each trial of the largest budget that has a band."""

FEWEST_TO_SEARCH = 8
"""Configurations that a band needs: fewer say little of how they vary."""


@dataclass(frozen=True)
class BudgetCurve:
    """Expected best value by budget.

    Attributes:
        unit: ``trials`` or ``seconds``.
        budgets: Budgets, rising.
        expected: Expected best value at each one.
        low: Lower end of the 95% band, budget by budget, for as many trials as a quarter of the
            configurations: beyond it too much hangs on the very best ones. Empty for fewer than 8
            configurations.
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
        low: Lower end of the 95% band, as in `BudgetCurve`; empty where either search
            has fewer than 8 configurations.
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


def budget_in_trials(results: Results) -> BudgetCurve | None:
    """Returns the expected best value of as many complete trials, or None without one.

    Args:
        results: The trials. Every trial counts as one run of a configuration under a seed.

    Source: `expected_best`; the band is that of the jackknife over configurations with all of
    their seeds, which are no independent trials. Its variance is too large rather than too small
    (Efron and Stein, Annals of Statistics 9, 1981).
    """
    trials = _Trials(results.complete)
    n = len(trials.scores)
    if not n:
        return None
    curves = [expected_best(trials.scores[kept]) for kept in trials.without_a_group()]
    budgets = tuple(float(number) for number in range(1, n + 1))
    expected = expected_best(trials.scores)
    return _curve(results, "trials", budgets, expected, curves, trials.reach, n)


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
    differ in cost. The band is that of `budget_in_trials`.
    """
    if not results.complete.rows:
        return None
    trials = _Trials(results)
    scores, n = trials.scores, len(trials.scores)
    worst = scores[np.isfinite(scores)].min()
    scores = np.where(np.isfinite(scores), scores, worst)
    orders = np.random.default_rng(rng).permuted(np.tile(np.arange(n), (_ORDERS, 1)), axis=1)

    def within(order: NDArray[np.int64], wanted: Sequence[float]) -> Array:
        best = np.maximum.accumulate(scores[order], axis=1)
        spent = trials.costs[order].cumsum(axis=1)
        found = np.empty(len(wanted))
        for place, budget in enumerate(wanted):
            done = (spent <= budget + 1e-9).sum(axis=1)
            reached = best[np.arange(len(order)), np.maximum(done - 1, 0)]
            found[place] = np.where(done > 0, reached, worst).mean()
        return found

    rising = tuple(float(budget) for budget in budgets)
    reached = trials.costs.sum() * trials.reach / n
    banded = [budget for budget in rising if budget <= reached]
    # Without a group the others run in the same orders: chance has no part in the differences.
    few = orders[: _ORDERS // 4]
    curves = [
        within(few[kept[few]].reshape(len(few), -1), banded) for kept in trials.without_a_group()
    ]
    return _curve(results, "seconds", rising, within(orders, rising), curves, len(banded), n)


def at_equal_budget(first: Results, second: Results) -> BudgetGap | None:
    """Returns one search minus another at equal numbers of trials, or None if one has none.

    Args:
        first: Trials of one method.
        second: Trials of the other, with the same goal.

    Source: Tang et al., ACL 2020, section 4: comparisons at equal budget; the half width is that
    of both curves' bands together, as of independent errors.
    """
    if first.goal != second.goal:
        raise ValueError(f"both must have one goal, but have {first.goal} and {second.goal}")
    one, two = budget_in_trials(first), budget_in_trials(second)
    if one is None or two is None:
        return None
    most = min(one.trials, two.trials)
    budgets = tuple(float(number) for number in range(1, most + 1))
    sign = first.sign
    seen = [sign * (a - b) for a, b in zip(one.expected, two.expected, strict=False)]
    halves = [
        math.hypot((b - a) / 2.0, (d - c) / 2.0)
        for a, b, c, d in zip(one.low, one.high, two.low, two.high, strict=False)
    ]
    low = tuple(gap - half for gap, half in zip(seen, halves, strict=False))
    high = tuple(gap + half for gap, half in zip(seen, halves, strict=False))
    return BudgetGap("trials", budgets, tuple(seen), low, high)


@lru_cache(maxsize=8)
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


class _Trials:
    """Trials in an order that is a function of values and costs alone, and who belongs together.

    Attributes:
        scores: [n] Values, better being larger; -inf of a trial without one.
        costs: [n] Seconds of training.
    """

    def __init__(self, results: Results) -> None:
        rows = sorted(
            (
                (results.sign * row.value if row.complete else -math.inf, row.cost_seconds, row)
                for row in results.rows
            ),
            key=lambda known: (known[0], known[1], known[2].configuration),
        )
        self.scores = np.array([score for score, _, _ in rows])
        self.costs = np.array([cost for _, cost, _ in rows])
        first: dict[int, int] = {}
        for _, _, row in rows:
            first.setdefault(row.configuration, len(first))
        self._members = np.array([first[row.configuration] for _, _, row in rows])
        self._configurations = len(first)

    @property
    def reach(self) -> int:
        """The most trials that there is a band for."""
        return self._configurations // _REACH

    def without_a_group(self) -> list[NDArray[np.bool_]]:
        """Returns [n] who is left, for each group of configurations; none where these are few."""
        if self._configurations < FEWEST_TO_SEARCH:
            return []
        groups = min(self._configurations, _MOST_GROUPS)
        return [self._members % groups != group for group in range(groups)]


def _curve(
    results: Results,
    unit: str,
    budgets: tuple[float, ...],
    expected: Array,
    curves: Sequence[Array],
    length: int,
    trials: int,
) -> BudgetCurve:
    half = _half_width(curves, length)
    means = results.sign * expected
    low, high = means[: len(half)] - half, means[: len(half)] + half
    return BudgetCurve(
        unit,
        budgets,
        tuple(means.tolist()),
        tuple(low.tolist()),
        tuple(high.tolist()),
        trials,
    )


def _half_width(curves: Sequence[Array], length: int) -> Array:
    """Returns half the jackknife's interval at the first budgets, of curves without a group."""
    if not curves:
        return np.empty(0)
    groups, length = len(curves), min(length, *map(len, curves))
    kept = np.array([curve[:length] for curve in curves])
    error = np.sqrt((groups - 1) / groups * ((kept - kept.mean(axis=0)) ** 2).sum(axis=0))
    return np.asarray(_WIDER * stdtrit(groups - 1, (1.0 + CONFIDENCE) / 2.0) * error)
