"""Paired differences of every configuration to one, with the multiplicity told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from kdscale.analysis._estimate import CONFIDENCE, Estimate
from kdscale.analysis.statistics._additive import additive_fit
from kdscale.analysis.statistics._results import Results


@dataclass(frozen=True)
class Comparison:
    """One configuration minus another, paired by seed.

    Attributes:
        configuration: The first.
        against: The second.
        difference: Mean difference, its 95% interval by itself, and the number of shared seeds;
            no interval where nothing shows the noise.
        p: Two-sided p-value by itself; 1 where there is no interval.
        p_adjusted: After Holm's adjustment for all comparisons made together.
    """

    configuration: int
    against: int
    difference: Estimate
    p: float
    p_adjusted: float

    @property
    def distinguishable(self) -> bool:
        """Whether the adjusted p-value is at most 5%."""
        return self.p_adjusted <= 1.0 - CONFIDENCE


def best_mean(results: Results) -> int | None:
    """Returns the configuration with the best mean; of equal ones the lower number.

    Means have the seeds' effects taken out, so that a configuration that ran under lucky seeds
    only is not called best for that.
    """
    if not results.layout.configurations:
        return None
    effects = results.sign * additive_fit(results.layout).effects
    return results.layout.configurations[int(np.argmax(np.round(effects, 9)))]


def differences(results: Results, against: int, *, pooled: bool = True) -> tuple[Comparison, ...]:
    """Returns every other configuration minus one of them, by number.

    Set against the best of the same numbers, the differences flatter that one: for what can be
    said about the best, see `plateau`.

    Args:
        results: The trials; only complete ones count.
        against: Number of the baseline, or of the best.
        pooled: Estimate the noise of a difference from all configurations (value =
            configuration + seed + residual of equal spread everywhere): (seeds - 1) x
            (configurations - 1) degrees of freedom. Else each pair has its own paired t-test with
            seeds - 1, which needs many seeds but no equal spread.

    Raises:
        ValueError: The configuration has no complete trial.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979); error rate 5% over all comparisons.
    """
    layout = results.layout
    reference = layout.index(against)
    fit = additive_fit(layout)
    rows = []
    for index, number in enumerate(layout.configurations):
        if index == reference:
            continue
        gaps = layout.values[index] - layout.values[reference]
        gaps = gaps[~np.isnan(gaps)]
        n = len(gaps)
        if pooled and fit.component[index] == fit.component[reference]:
            mean = float(fit.effects[index] - fit.effects[reference])
            variance = fit.residual_variance * fit.difference_variance(index, reference)
            rows.append((number, *_tested(mean, n, variance, fit.residual_df)))
        elif n:
            variance = float(gaps.var(ddof=1)) / n if n > 1 else math.nan
            rows.append((number, *_tested(float(gaps.mean()), n, variance, n - 1)))
    adjusted = holm([p for _, _, p in rows])
    return tuple(
        Comparison(number, against, difference, p, p_adjusted)
        for (number, difference, p), p_adjusted in zip(rows, adjusted, strict=True)
    )


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Returns Holm's adjusted p-values, in the order given.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979), the step-down form.
    """
    m = len(p_values)
    adjusted = [1.0] * m
    highest = 0.0
    for rank, place in enumerate(sorted(range(m), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (m - rank) * p_values[place]))
        adjusted[place] = highest
    return tuple(adjusted)


def _tested(mean: float, n: int, variance: float, df: int) -> tuple[Estimate, float]:
    if df < 1 or not variance > 1e-18 * max(1.0, mean * mean):
        return Estimate(mean, n), 1.0
    error = math.sqrt(variance)
    half = float(stdtrit(df, (1.0 + CONFIDENCE) / 2.0)) * error
    p = 2.0 * float(stdtr(df, -abs(mean) / error))
    return Estimate(mean, n, mean - half, mean + half), p
