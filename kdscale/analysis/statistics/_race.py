"""Racing: which configurations get another seed, and which are surely worse."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scipy.special import stdtrit

from kdscale.analysis.statistics._additive import additive_fit
from kdscale.analysis.statistics._results import Results

_PILOTS = 8

Values = Mapping[tuple[int, int], float]


@dataclass(frozen=True)
class Race:
    """What a race does next.

    Attributes:
        run: Configuration -> seed: trials to run next, one each; empty at the end.
        stopped: Configurations that are surely worse than another; they get no further seed.
        leader: The configuration with the best mean among those with the most seeds that still
            race; None before the first value.
    """

    run: Mapping[int, int]
    stopped: tuple[int, ...]
    leader: int | None

    @property
    def done(self) -> bool:
        """Whether nothing is left to run."""
        return not self.run


def race(
    results: Results,
    configurations: tuple[int, ...],
    seeds: tuple[int, ...],
    *,
    error_rate: float = 0.05,
    tolerance: float = 0.0,
) -> Race:
    """Returns the next step of a race between configurations, seed by seed.

    Every configuration runs under the first seed, and the 8 best of these under the second: that
    shows the noise. From then on a configuration is stopped while another one is ahead of it over
    the seeds that both have by a one-sided paired t-test at error_rate / ((seeds - 1) x (other
    configurations)), and those that still race get their next seed, fewest seeds first. The chance
    that the truly best configuration is stopped is at most `error_rate` for normal noise of equal
    spread (Bonferroni over rivals and numbers of seeds). The step is a function of the table
    alone: a race that is interrupted goes on as it would have.

    Args:
        results: The trials so far. Only complete ones count, and of each configuration only the
            seeds without a gap from the first one on.
        configurations: All that were entered.
        seeds: All seeds, in the order in which they are used.
        error_rate: Chance, at most, that the truly best configuration is stopped, or with a
            tolerance that it is stopped by one that is worse by more than that.
        tolerance: By how much worse than the best the winner may be. Configurations that are surely
            not better than the leader by more than it are stopped too.

    Source: Maron and Moore, NeurIPS 1993, races with a bound over all rounds; Birattari et al.,
    GECCO 2002, F-Race, blocked by instance (here: seed); Hutter, Hoos and Leyton-Brown, LION
    2011, seeds one by one in intensification; Kim and Nelson, ACM TOMACS 11 (2001), the
    tolerance (indifference zone).
    """
    values = {
        (row.configuration, row.seed): results.sign * row.value for row in results.complete.rows
    }
    entered = tuple(sorted(configurations))
    first = {number: seeds[0] for number in entered if (number, seeds[0]) not in values}
    if first or not entered:
        return Race(first, (), None)
    had = {number: _had(values, number, seeds) for number in entered}
    noise = _noise(results, entered)
    pilots = sorted(entered, key=lambda number: (-values[number, seeds[0]], number))[:_PILOTS]
    lacking = [number for number in pilots if had[number] < min(2, len(seeds))]
    if lacking:
        return Race(dict.fromkeys(sorted(lacking), seeds[1]), (), pilots[0])
    behind = _surely_behind(values, had, seeds, noise, error_rate)
    stopped = {n for n in entered if any(behind(n, rival, 0.0) for rival in entered)}
    most = max(had[number] for number in entered if number not in stopped)
    means = {
        n: math.fsum(values[n, seed] for seed in seeds[:most])
        for n in entered
        if n not in stopped and had[n] == most
    }
    leader = max(means, key=lambda number: (round(means[number], 9), -number))
    stopped |= {n for n in entered if n != leader and behind(n, leader, tolerance)}
    racing = [number for number in entered if number not in stopped]
    fewest = min(had[number] for number in racing)
    if len(racing) == 1 or fewest == len(seeds):
        return Race({}, tuple(sorted(stopped)), leader)
    run = {n: seeds[fewest] for n in racing if had[n] == fewest}
    return Race(run, tuple(sorted(stopped)), leader)


def _had(values: Values, number: int, seeds: tuple[int, ...]) -> int:
    """Returns how many seeds a configuration has without a gap."""
    for count, seed in enumerate(seeds):
        if (number, seed) not in values:
            return count
    return len(seeds)


def _noise(results: Results, entered: tuple[int, ...]) -> tuple[float, int] | None:
    """Returns the residual standard deviation with its degrees of freedom, if anything shows it."""
    rows = tuple(row for row in results.complete.rows if row.configuration in entered)
    fit = additive_fit(Results(rows, results.goal).layout)
    if fit.residual_df < 1 or fit.residual_variance <= 0.0:
        return None
    return math.sqrt(fit.residual_variance), fit.residual_df


def _surely_behind(
    values: Values,
    had: Mapping[int, int],
    seeds: tuple[int, ...],
    noise: tuple[float, int] | None,
    error_rate: float,
) -> Callable[[int, int, float], bool]:
    """Returns whether one is surely not better than another by more than a tolerance."""
    if noise is None:
        return lambda number, rival, tolerance: False
    sd, df = noise
    level = error_rate / max(1, len(seeds) - 1) / max(1, len(had) - 1)
    margin = -float(stdtrit(df, level)) * sd * math.sqrt(2.0)

    def behind(number: int, rival: int, tolerance: float) -> bool:
        shared = seeds[: min(had[rival], had[number])]
        gap = math.fsum(values[rival, seed] - values[number, seed] for seed in shared)
        return gap / len(shared) + tolerance > margin / math.sqrt(len(shared))

    return behind
