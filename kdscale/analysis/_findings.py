"""All that a report says of a study, each part computed when it is first asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from scipy.special import stdtrit

from kdscale.analysis._estimate import CONFIDENCE
from kdscale.analysis._summary import (
    ConfigurationSummary,
    best_configuration,
    rank,
    seed_values,
    summarise,
)
from kdscale.analysis.statistics import (
    MEASURES,
    BestValue,
    BudgetCurve,
    Comparison,
    ConfigurationEstimate,
    Effect,
    NoiseFloor,
    OneAtATime,
    Plateau,
    Result,
    Results,
    Surrogate,
    best_value,
    budget_in_seconds,
    budget_in_trials,
    configuration_estimates,
    differences,
    effects,
    far_worse,
    noise_floor,
    one_at_a_time,
    plateau,
    results_of,
    seeds_needed,
    without,
)
from kdscale.records import StudyRecord

UNDISTILLED_NUMBER = -1
"""Stands for the undistilled student in a table of configurations."""

RESAMPLES = 20
"""Bootstrap samples, and shuffles, behind each importance: the fewest that 5% can be told with."""

FEWEST_CONFIGURATIONS = 8
"""Complete configurations that importances need."""

PRIMARY = "sobol_total"
"""The measure whose word is taken; the others stand beside it.

The Gaussian process behind it tells noise from effects; trees that grow to single points do not,
and so shuffled scores reach high importances with them.
"""

_BUDGET_POINTS = 24


@dataclass(frozen=True)
class Settlement:
    """What it would take to tell the best configuration from the nearest of its plateau.

    Attributes:
        rival: The nearest configuration that the best one cannot be told from.
        gap: By how much the best one is ahead of it, as seen; negative where the other one has
            fewer seeds and is ahead.
        seeds: Paired seeds that a difference of this size needs at 80% power, all members of the
            plateau compared at once; None above a million.
        shown: The difference that the seeds of the study show at 80% power, with the noise
            estimated from all configurations that are `alike`.
        n: Seeds of the best configuration.
    """

    rival: int
    gap: float
    seeds: int | None
    shown: float
    n: int


class Findings:
    """A study's statistics. Nothing is computed before it is asked for, and nothing twice.

    Args:
        study: The study, finished or not.
    """

    def __init__(self, study: StudyRecord) -> None:
        self.study = study

    @cached_property
    def results(self) -> Results:
        """The trials that have a value, without controls."""
        return results_of(self.study)

    @cached_property
    def far_worse(self) -> tuple[int, ...]:
        """The configurations that are far worse than the rest, whose noise is another."""
        return far_worse(self.results)

    @cached_property
    def alike(self) -> Results:
        """The trials of all others: what noise is estimated from, and compared with it."""
        return without(self.results, self.far_worse)

    @cached_property
    def summaries(self) -> tuple[ConfigurationSummary, ...]:
        """Every configuration, best first; the far worse ones last."""
        ranked = rank(summarise(self.study), self.study.goal)
        return tuple(sorted(ranked, key=lambda summary: summary.number in self.far_worse))

    @cached_property
    def best(self) -> ConfigurationSummary | None:
        """The best configuration, or None if no trial has trained to the last epoch."""
        return best_configuration(self.study)

    @cached_property
    def floor(self) -> NoiseFloor | None:
        """What seeds do to values; None without a configuration with two complete trials."""
        return noise_floor(self.alike)

    @cached_property
    def estimates(self) -> Mapping[int, ConfigurationEstimate]:
        """Configuration -> mean with both intervals."""
        apart = without(self.results, self.alike.layout.configurations)
        found = (*configuration_estimates(self.alike), *configuration_estimates(apart))
        return {one.configuration: one for one in found}

    @cached_property
    def plateau(self) -> Plateau | None:
        """What can be told from the best; None without a complete trial."""
        level = plateau(self.alike)
        if level is None or level.known:
            return level and replace(level, worse=(*level.worse, *self.far_worse))
        return replace(level, members=(*level.members, *self.far_worse))  # nothing can be judged

    @cached_property
    def rivals(self) -> tuple[int, ...]:
        """The configurations that the best one cannot be told from, from the best mean down."""
        best, level = self.best, self.plateau
        if best is None or level is None:
            return ()
        return tuple(number for number in level.members if number != best.number)

    @cached_property
    def best_value(self) -> BestValue | None:
        """The best mean beside its corrections; None without an estimate of the noise."""
        return best_value(self.alike)

    @cached_property
    def to_best(self) -> Mapping[int, Comparison]:
        """Configuration -> its difference to the best one, Holm-adjusted; of those alike."""
        if self.best is None:
            return {}
        return {one.configuration: one for one in differences(self.alike, self.best.number)}

    @cached_property
    def to_undistilled(self) -> Mapping[int, Comparison]:
        """Configuration -> its difference to the undistilled student, as `to_best`."""
        controls = tuple(
            Result(UNDISTILLED_NUMBER, seed, {}, value)
            for seed, value in seed_values(self.study.controls).items()
        )
        if not controls:
            return {}
        together = replace(self.alike, rows=(*self.alike.rows, *controls))
        return {one.configuration: one for one in differences(together, UNDISTILLED_NUMBER)}

    @cached_property
    def settlement(self) -> Settlement | None:
        """What would settle the choice; None where nothing rivals the best or noise is unknown."""
        best, floor = self.best, self.floor
        if best is None or floor is None or not self.rivals or floor.within.sd == 0.0:
            return None
        gaps = {
            number: -self.results.sign * self.to_best[number].difference.mean
            for number in self.rivals
            if number in self.to_best
        }
        if not gaps:
            return None
        rival = min(gaps, key=lambda number: (abs(gaps[number]), number))
        sd = math.sqrt(2.0) * (floor.residual.sd if floor.residual else floor.within.sd)
        alpha = (1.0 - CONFIDENCE) / len(gaps)
        return Settlement(
            rival=rival,
            gap=gaps[rival],
            seeds=seeds_needed(abs(gaps[rival]), sd, alpha=alpha) if sd else 2,
            shown=_shown(sd, best.n, (floor.residual or floor.within).df, alpha),
            n=best.n,
        )

    @cached_property
    def lines(self) -> tuple[OneAtATime, ...]:
        """Configurations that differ in one hyperparameter only."""
        return one_at_a_time(self.results)

    @cached_property
    def one_at_a_time_only(self) -> bool:
        """Whether every configuration lies on one of the lines: a one-at-a-time design."""
        reached = 1 + sum(len(line.values) - 1 for line in self.lines)
        return len(self.lines) > 1 and reached == len(self.results.layout.configurations)

    @cached_property
    def surrogate(self) -> Surrogate:
        """A Gaussian process in the place of the study."""
        return Surrogate(self.results)

    @cached_property
    def effects(self) -> Mapping[str, tuple[Effect, ...]]:
        """Measure -> effects, main ones and pairs apart; empty for too few configurations."""
        if not self.surrogate.known:
            return {}
        found: dict[str, list[Effect]] = {}
        for measure in MEASURES:
            for effect in effects(self.results, measure, resamples=RESAMPLES):
                found.setdefault(effect.measure, []).append(effect)
        return {name: tuple(told) for name, told in found.items()}

    @cached_property
    def strongest(self) -> tuple[str, ...]:
        """The hyperparameters by importance, greatest first."""
        told = sorted(self.effects.get(PRIMARY, ()), key=lambda one: -one.excess)
        return tuple(one.parameters[0] for one in told)

    @cached_property
    def budget_curves(self) -> tuple[BudgetCurve, ...]:
        """Expected best value against trials, and against seconds of training."""
        if len(self.results.complete.rows) < 2:
            return ()
        total = math.fsum(row.cost_seconds for row in self.results.rows)
        budgets = [total * (step + 1) / _BUDGET_POINTS for step in range(_BUDGET_POINTS)]
        curves = [budget_in_trials(self.results)]
        curves += [budget_in_seconds(self.results, budgets)] if total else []
        return tuple(curve for curve in curves if curve is not None)


def _shown(sd: float, n: int, df: float, alpha: float) -> float:
    """Returns the difference of two means of n paired seeds that is seen with 80% power.

    Args:
        sd: Standard deviation of a single paired difference.
        n: Paired seeds.
        df: Degrees of freedom behind `sd`.
        alpha: Error rate of the comparison.

    Source: Cohen, Statistical Power Analysis (1988), section 2.4, with the shifted central t
    distribution in the place of the noncentral one: within 2% from 8 degrees of freedom on.
    """
    margin = float(stdtrit(df, 1.0 - alpha / 2.0)) + float(stdtrit(df, 0.8))
    return sd * margin / math.sqrt(n)
