"""Two or more methods side by side, paired by seed (or by task and seed)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.special import ndtri, stdtr
from scipy.stats import wilcoxon

from kdscale.analysis._estimate import CONFIDENCE, NOISE, Estimate, Goal, estimate
from kdscale.analysis.statistics._differences import holm
from kdscale.analysis.statistics._results import Array

_RESAMPLES = 9_999
_FEWEST = 5


@dataclass(frozen=True)
class MethodComparison:
    """One method minus another over the seeds that both have.

    Attributes:
        first: Name of the first method.
        second: Name of the second.
        difference: Mean of the paired differences, its 95% t interval, and their number.
        bootstrap: 95% paired bootstrap interval; None for fewer than 5 pairs or equal differences.
        p: Two-sided paired t-test; 1 where nothing shows the noise.
        p_adjusted: After Holm's adjustment for all pairs of methods.
        wilcoxon_p: Two-sided Wilcoxon signed-rank test, which needs no normal noise. With 5 pairs
            it cannot go below 0.0625.
        dominance: Almost stochastic order: upper bound of the share by which `first` fails to be
            better at every quantile. Call it dominant below 0.2 (Ulmer et al., 2022): of equal
            methods with 8 runs 3% come below 0.2, but 22% below 0.5. None for fewer than 5 pairs,
            of which too many do.
        verdict: ``better``, ``worse`` (the first) or ``not distinguishable from noise``.
    """

    first: str
    second: str
    difference: Estimate
    bootstrap: tuple[float, float] | None
    p: float
    p_adjusted: float
    wilcoxon_p: float
    dominance: float | None
    verdict: str


def compare_methods(
    values: Mapping[str, Mapping[Hashable, float]], goal: Goal, *, rng: int = 0
) -> tuple[MethodComparison, ...]:
    """Returns every method minus every later one, in the order given.

    Args:
        values: Method -> seed -> value. A key may also be (task, seed); what has the same key is
            paired. Each method's configuration must have been chosen on other numbers.
        goal: Whether a larger value is the better one.
        rng: Seed of the bootstrap.

    Raises:
        ValueError: Two methods have no key in common.

    Source: Efron and Tibshirani (1993), section 12.5, the bootstrap-t on paired differences;
    Wilcoxon, Biometrics Bulletin 1 (1945); del Barrio, Cuesta-Albertos and Matran, Annals of
    Mathematical Statistics (2018), and Dror, Shlomov and Reichart, ACL 2019, almost stochastic
    order; Holm (1979): the verdicts of one call are wrong together in 5% of cases at most.
    """
    pairs = [
        _compared(first, second, values[first], values[second], goal, rng)
        for first, second in combinations(values, 2)
    ]
    adjusted = holm([pair.p for pair in pairs])
    return tuple(
        replace(pair, p_adjusted=p, verdict=_verdict(pair.difference.mean, p, goal))
        for pair, p in zip(pairs, adjusted, strict=True)
    )


def almost_stochastic_order(
    first: Array, second: Array, *, confidence: float = CONFIDENCE, rng: int = 0
) -> float:
    """Returns the upper confidence bound of how far ``first`` is from being better everywhere.

    0: larger at every quantile; 1: smaller at every quantile; 0.5 where the samples are equal.

    Args:
        first: [n] Scores, larger being better.
        second: [m] Scores.
        confidence: Of the one-sided bound.
        rng: Seed of the bootstrap that gives the bound its width.

    Source: del Barrio et al. (2018), eq. 4 and theorem 2.1; Dror et al. (2019), section 4.
    """
    n, m = len(first), len(second)
    draw = np.random.default_rng(rng)
    seen = _violation(first[None, :], second[None, :])[0]
    resampled = _violation(
        first[draw.integers(n, size=(_RESAMPLES // 10, n))],
        second[draw.integers(m, size=(_RESAMPLES // 10, m))],
    )
    return float(np.clip(seen + float(ndtri(confidence)) * resampled.std(), 0.0, 1.0))


def _violation(first: Array, second: Array) -> Array:
    """Returns the squared area where the first quantile function is below, over the whole."""
    n, m = first.shape[1], second.shape[1]
    cuts = np.unique(np.concatenate([np.arange(n + 1) / n, np.arange(m + 1) / m]).round(12))
    middle, width = (cuts[1:] + cuts[:-1]) / 2.0, np.diff(cuts)
    a = np.sort(first, axis=1)[:, np.minimum((middle * n).astype(int), n - 1)]
    b = np.sort(second, axis=1)[:, np.minimum((middle * m).astype(int), m - 1)]
    gap = a - b
    whole = (gap**2 * width).sum(axis=1)
    below = (np.minimum(gap, 0.0) ** 2 * width).sum(axis=1)
    half = np.full(len(whole), 0.5)
    return np.asarray(np.divide(below, whole, out=half, where=whole > 0.0))


def _compared(
    first: str,
    second: str,
    one: Mapping[Hashable, float],
    two: Mapping[Hashable, float],
    goal: Goal,
    rng: int,
) -> MethodComparison:
    keys = [key for key in one if key in two]
    if not keys:
        raise ValueError(f"{first} and {second} must have a seed in common, but have none")
    sign = 1.0 if goal == "maximize" else -1.0
    a = np.array([one[key] for key in keys])
    b = np.array([two[key] for key in keys])
    # In order of size, so that what is drawn does not depend on the order of the keys.
    gaps = np.sort(a - b)
    known = estimate(gaps.tolist())
    if known.low is None:
        p, rank_p, bootstrap = 1.0, 1.0, None
    else:
        t = known.mean / (float(gaps.std(ddof=1)) / math.sqrt(len(gaps)))
        p = 2.0 * float(stdtr(len(gaps) - 1, -abs(t)))
        rank_p = float(wilcoxon(gaps).pvalue)
        bootstrap = _bootstrap(gaps, rng)
    dominance = None
    if len(gaps) >= _FEWEST:
        dominance = almost_stochastic_order(np.sort(sign * a), np.sort(sign * b), rng=rng)
    return MethodComparison(first, second, known, bootstrap, p, p, rank_p, dominance, NOISE)


def _bootstrap(gaps: Array, rng: int) -> tuple[float, float] | None:
    n = len(gaps)
    if n < _FEWEST:
        return None
    draws = np.random.default_rng(rng).choice(gaps, size=(_RESAMPLES, n))
    mean, error = float(gaps.mean()), float(gaps.std(ddof=1)) / math.sqrt(n)
    errors = draws.std(axis=1, ddof=1) / math.sqrt(n)
    kept = errors > 1e-9 * error
    tail = (1.0 - CONFIDENCE) / 2.0
    t = (draws[kept].mean(axis=1) - mean) / errors[kept]
    low, high = np.quantile(t, (tail, 1.0 - tail))
    return mean - float(high) * error, mean - float(low) * error


def _verdict(mean: float, p: float, goal: Goal) -> str:
    if p > 1.0 - CONFIDENCE:
        return NOISE
    return "better" if (mean > 0.0) == (goal == "maximize") else "worse"
