"""Each configuration's mean with its intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kdscale.analysis._estimate import CONFIDENCE, estimate
from kdscale.analysis.statistics._results import Array, Results

Interval = tuple[float, float]

_RESAMPLES = 4000


@dataclass(frozen=True)
class ConfigurationEstimate:
    """One configuration's mean over seeds and two 95% intervals for it.

    Neither borrows the noise of other configurations: under shared seeds their means move
    together, and 3 seeds show that movement 3 times however many configurations there are.

    Attributes:
        configuration: Its number.
        n: Complete trials.
        mean: Their mean.
        t: Student's; None for one trial.
        bootstrap: As `t`, with the residuals of all configurations in the place of the normal
            distribution; None where there are too few of them.
    """

    configuration: int
    n: int
    mean: float
    t: Interval | None
    bootstrap: Interval | None


def configuration_estimates(results: Results, *, rng: int = 0) -> tuple[ConfigurationEstimate, ...]:
    """Returns each configuration's mean, t interval and bootstrap interval, by number.

    Args:
        results: The trials; only complete ones count.
        rng: Seed of the bootstrap.

    Source: the bootstrap is the bootstrap-t of Efron and Tibshirani, An Introduction to the
    Bootstrap (1993), section 12.5, on residuals pooled over configurations and inflated by
    sqrt(n / (n - 1)) (their section 9.7): with 3 seeds a configuration alone has too few values.
    """
    layout = results.layout
    residuals = _pooled_residuals(layout.values, layout.counts)
    quantiles = {
        n: _studentised_quantiles(residuals, n, rng) for n in sorted(set(layout.counts.tolist()))
    }
    found = []
    for number, values, n in zip(
        layout.configurations, layout.values, layout.counts.tolist(), strict=True
    ):
        known = estimate(values[~np.isnan(values)].tolist())
        own = None if known.low is None or known.high is None else (known.low, known.high)
        bootstrap = None
        ends = quantiles[n]
        if own is not None and ends is not None:
            error = float(np.nanstd(values, ddof=1)) / math.sqrt(n)
            bootstrap = (known.mean - ends[1] * error, known.mean - ends[0] * error)
        found.append(ConfigurationEstimate(number, n, known.mean, own, bootstrap))
    return tuple(found)


def _pooled_residuals(values: Array, counts: np.ndarray) -> Array:
    """Returns all residuals, each with the variance of one trial; centred."""
    several = counts > 1
    if not several.any():
        return np.zeros(0)
    inflate = np.sqrt(counts[several] / (counts[several] - 1.0))[:, None]
    rows = values[several]
    residuals = (rows - np.nanmean(rows, axis=1, keepdims=True)) * inflate
    return np.asarray(residuals[~np.isnan(residuals)])


def _studentised_quantiles(residuals: Array, n: int, rng: int) -> Interval | None:
    """Returns the 2.5% and 97.5% points of mean / standard error of n resampled residuals."""
    if n < 2 or len(np.unique(residuals)) < 2 * n:
        return None
    draws = np.random.default_rng(rng).choice(residuals, size=(_RESAMPLES, n))
    error = draws.std(axis=1, ddof=1) / math.sqrt(n)
    kept = error > 0.0
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(draws[kept].mean(axis=1) / error[kept], (tail, 1.0 - tail))
    return float(low), float(high)
