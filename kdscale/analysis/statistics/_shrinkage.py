"""The best value without the luck of having been chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from kdscale.analysis._estimate import CONFIDENCE
from kdscale.analysis.statistics._additive import AdditiveFit, additive_fit
from kdscale.analysis.statistics._noise import noise_floor
from kdscale.analysis.statistics._results import Layout, Results

_RESAMPLES = 4000
_FEWEST = 4


@dataclass(frozen=True)
class BestValue:
    """The best of several means, as it is and with the winner's curse taken out.

    Attributes:
        configuration: The configuration with the best mean.
        naive: Its mean: on average better than what it measures.
        shrunk: The mean drawn towards the grand mean of all configurations by as much as the
            noise explains of their spread. None for fewer than 4 configurations.
        low: Lower end of the 95% interval about `shrunk`; it holds after the choice.
        high: Upper end.
        kept: How much of its distance from the grand mean is kept: from 2 / (configurations - 1),
            where the spread may all be noise, to 1.
        bootstrapped: The mean less the optimism of choosing the best in simulated repetitions of
            the study: a check on `shrunk` that does not assume the configurations alike.
        configurations: How many means it is the best of.
    """

    configuration: int
    naive: float
    shrunk: float | None
    low: float | None
    high: float | None
    kept: float | None
    bootstrapped: float
    configurations: int


def best_value(results: Results, *, rng: int = 0) -> BestValue | None:
    """Returns the best mean beside its corrections, or None without an estimate of the noise.

    Seeds that all configurations share move all means together: that part of the noise leads to
    no wrong choice, so only the residual part shrinks, and the shared part widens the interval.

    Args:
        results: The trials; only complete ones count.
        rng: Seed of the bootstrap.

    Source: Efron and Morris, JASA 70 (1975), positive-part James-Stein towards the grand mean;
    Morris, JASA 78 (1983), eq. 1.15 to 1.17, the factor (k - 3) / (k - 1) and the interval; Efron,
    JASA 106 (2011): such an estimate needs no further correction for selection. The bootstrap is
    parametric, as in Efron and Tibshirani (1993), section 10.3.
    """
    layout, floor = results.layout, noise_floor(results)
    if floor is None:
        return None
    fit = additive_fit(layout)
    score = results.sign * fit.effects
    k, best = len(score), int(np.argmax(np.round(score, 9)))
    residual = floor.residual.sd if floor.residual is not None else floor.within.sd
    variances = residual**2 / layout.counts
    draws = score + np.random.default_rng(rng).normal(size=(_RESAMPLES, k)) * np.sqrt(variances)
    chosen = draws.argmax(axis=1)
    optimism = float((draws.max(axis=1) - score[chosen]).mean())
    naive = float(score[best])
    shrunk = low = high = kept = None
    if k >= _FEWEST:
        grand = float(score.mean())
        spread = float(((score - grand) ** 2).sum()) / (k - 1)
        drawn = (k - 3) / (k - 1) * min(1.0, float(variances.mean()) / spread) if spread else 1.0
        variance = float(variances[best])
        centre = grand + (1.0 - drawn) * (naive - grand)
        own = variance * (1.0 - drawn) * (k - 1) / k
        own += 2.0 / (k - 3) * drawn**2 * (naive - grand) ** 2
        df = floor.residual.df if floor.residual is not None else floor.within.df
        half = math.hypot(_quantile(df) * math.sqrt(own), _grand_half(fit, layout))
        ends = sorted(results.sign * end for end in (centre - half, centre + half))
        shrunk, (low, high), kept = results.sign * centre, ends, 1.0 - drawn
    return BestValue(
        configuration=layout.configurations[best],
        naive=results.sign * naive,
        shrunk=shrunk,
        low=low,
        high=high,
        kept=kept,
        bootstrapped=results.sign * (naive - optimism),
        configurations=k,
    )


def _grand_half(fit: AdditiveFit, layout: Layout) -> float:
    """Returns half the t interval of the grand mean, whose noise is that of the seeds' means."""
    trials = int(layout.counts.sum())
    if fit.seed_df:
        return _quantile(fit.seed_df) * math.sqrt(fit.seed_ss / fit.seed_df / trials)
    return _quantile(fit.residual_df) * math.sqrt(fit.residual_variance / trials)


def _quantile(df: float) -> float:
    return float(stdtrit(df, (1.0 + CONFIDENCE) / 2.0))
