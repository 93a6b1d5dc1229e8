"""Robustness of one setting across tasks: how far it stays behind the best of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from kdscale.analysis._estimate import CONFIDENCE, Estimate
from kdscale.analysis.statistics._additive import additive_fit
from kdscale.analysis.statistics._far_out import far_worse, without
from kdscale.analysis.statistics._plateau import plateau
from kdscale.analysis.statistics._results import Results
from kdscale.records import Value

Setting = tuple[tuple[str, Value], ...]

_DIGITS = 9


@dataclass(frozen=True)
class Regret:
    """How far one configuration stays behind the best of each task.

    Attributes:
        configuration: Its number in the first of the tasks.
        parameters: Its hyperparameters: what makes it the same configuration on each task.
        by_task: Task -> its regret there, 0 or more; n is the number of its seeds.
        worst_task: The task where it is largest.
        worst: Its regret there, with an interval for the largest of its regrets.
        low: Lower end of that interval; 0 where nothing shows the noise.
        high: Upper end; infinite where nothing shows the noise.
    """

    configuration: int
    parameters: Mapping[str, Value]
    by_task: Mapping[str, Estimate]
    worst_task: str
    worst: Estimate
    low: float
    high: float


@dataclass(frozen=True)
class Regrets:
    """The regret of every configuration on every task.

    Attributes:
        tasks: The tasks in the order given.
        rows: The configurations, from the least worst-case regret up.
        candidates: Numbers of those whose worst-case regret could be the least.
        left_out: How many configurations are not here, because some task lacks a trial of theirs
            that trained to the last epoch.
    """

    tasks: tuple[str, ...]
    rows: tuple[Regret, ...]
    candidates: tuple[int, ...]
    left_out: int

    @property
    def best(self) -> Regret:
        """The configuration with the least worst-case regret."""
        return self.rows[0]


def regrets(tasks: Mapping[str, Results]) -> Regrets | None:
    """Returns the regret of each configuration on each task.

    A configuration's regret on a task is the best mean there less its own, in the metric's unit,
    among the configurations that all tasks have. Configurations are the same where their
    hyperparameters are. All intervals of all tasks hold together with 95% probability; that of a
    configuration far worse than the rest of a task, whose noise is another, has none there.

    Args:
        tasks: Task -> its trials; only complete ones count, and all tasks have one goal.

    Returns:
        None where fewer than two tasks share at least two configurations.

    Source: Savage, JASA 46 (1951), minimax regret. The intervals are those of Hsu's comparisons
    with the best (Annals of Statistics 9, 1981) by Tukey's bounds for all pairs, as in `plateau`,
    with Bonferroni's adjustment for the number of tasks.
    """
    numbers = {task: _numbers(results) for task, results in tasks.items()}
    every = set().union(*numbers.values()) if numbers else set()
    shared = {setting for setting in every if all(setting in own for own in numbers.values())}
    if len(tasks) < 2 or len(shared) < 2:
        return None
    error_rate = (1.0 - CONFIDENCE) / len(tasks)
    found: dict[Setting, dict[str, Estimate]] = {setting: {} for setting in shared}
    far: set[Setting] = set()
    for task, results in tasks.items():
        of_task, far_off = _of_task(
            results, {numbers[task][setting] for setting in shared}, error_rate
        )
        for setting in shared:
            found[setting][task] = of_task[numbers[task][setting]]
            if numbers[task][setting] in far_off:
                far.add(setting)
    first = numbers[next(iter(tasks))]
    rows = [_row(first[setting], setting, by_task) for setting, by_task in found.items()]
    rows.sort(key=_order)
    least, out = min(row.high for row in rows), {first[setting] for setting in far}
    return Regrets(
        tasks=tuple(tasks),
        rows=tuple(rows),
        candidates=tuple(
            row.configuration
            for row in rows
            if row is rows[0] or (row.low <= least and row.configuration not in out)
        ),
        left_out=len(every) - len(shared),
    )


def _numbers(results: Results) -> dict[Setting, int]:
    """Returns the number of each setting that has a complete trial."""
    complete = results.layout.configurations
    return {tuple(sorted(results.parameters[number].items())): number for number in complete}


def _of_task(
    results: Results, numbers: set[int], error_rate: float
) -> tuple[dict[int, Estimate], tuple[int, ...]]:
    """Returns the regrets on one task, among some of its configurations, and which are far off."""
    own = replace(results, rows=tuple(r for r in results.rows if r.configuration in numbers))
    far = far_worse(own)
    layout, alike = own.layout, without(own, far)
    known = plateau(alike, error_rate=error_rate)
    assert known is not None, "a setting that tasks share has a complete trial on each"
    score = _scores(own) | _scores(alike)
    best = max(score[number] for number in known.margins)
    found = {}
    for row, number in enumerate(layout.configurations):
        mean, n = best - score[number], int(layout.counts[row])
        margin = known.margins.get(number, (-math.inf, math.inf))
        low, high = (max(0.0, -end) for end in reversed(margin))
        bounded = known.known and math.isfinite(high)
        found[number] = Estimate(mean, n, low, high) if bounded else Estimate(mean, n)
    return found, far if known.known else ()


def _scores(results: Results) -> dict[int, float]:
    layout = results.layout
    score = np.round(results.sign * additive_fit(layout).effects, _DIGITS)
    return dict(zip(layout.configurations, score.tolist(), strict=True))


def _row(number: int, setting: Setting, by_task: Mapping[str, Estimate]) -> Regret:
    worst_task = max(sorted(by_task), key=lambda task: by_task[task].mean)
    known = by_task.values()
    return Regret(
        configuration=number,
        parameters=dict(setting),
        by_task=by_task,
        worst_task=worst_task,
        worst=by_task[worst_task],
        low=max(one.low or 0.0 for one in known),
        high=max(math.inf if one.high is None else one.high for one in known),
    )


def _order(row: Regret) -> tuple[float, float, str]:
    mean = math.fsum(one.mean for one in row.by_task.values()) / len(row.by_task)
    return (
        round(row.worst.mean, _DIGITS),
        round(mean, _DIGITS),
        repr(sorted(row.parameters.items())),
    )
