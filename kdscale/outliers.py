"""What lies far from the rest, as a training does that collapses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_REACH = 3.0
_FEWEST = 5
"""Of fewer values a single one moves the quartiles, and none is far out."""

_NORMAL_SPREAD = 1.349
"""Distance of a normal distribution's quartiles, in standard deviations."""


def far_out(
    values: Array | Sequence[float], noise: float = 0.0, reach: float = _REACH
) -> tuple[float, float]:
    """Returns the fences beyond which a value is far out: infinite where half of them are equal.

    Of many normal values two in a million lie beyond; of few, whose quartiles are uncertain, more.

    Args:
        values: [n] Finite, n ≥ 1.
        noise: Standard deviation that each has at least; makes equal values no standard.
        reach: Distance from the quartiles, in distances between them.

    Source: Tukey, Exploratory Data Analysis (1977), section 2E, the outer fences.
    """
    first, third = np.percentile(np.asarray(values, dtype=float), [25.0, 75.0])
    half = reach * max(float(third - first), _NORMAL_SPREAD * noise)
    return (float(first) - half, float(third) + half) if half else (-np.inf, np.inf)


def far_below(scores: Array, effects: Array) -> NDArray[np.bool_]:
    """Returns which configurations' scores are far out on the bad side.

    Training that collapses, under some seeds or under all, has a noise of its own, many times that
    of the others: together they would have a common estimate that is true of neither.

    Fences are wider for few configurations, and much wider where fewer than half of these have a
    second seed to show the noise: some configuration of equal ones is told to be far worse in some
    0.5% of studies. (Simulated with 5 to 64 configurations of 1 to 5 seeds.)

    Args:
        scores: [configurations, seeds] The higher the better; NaN where there is no trial.
        effects: [configurations] Means with what the seeds do to all taken out; what one without
            a trial has counts for nothing.

    Returns:
        [configurations] Never true of one without a trial.
    """
    counts = (~np.isnan(scores)).sum(axis=1)
    known = int((counts > 0).sum())
    if known < _FEWEST:
        return np.zeros(len(scores), dtype=bool)
    several = counts > 1
    wider = 1.0 if 2 * int(several.sum()) >= known else 15.0
    noise = 0.0
    if several.any():
        variances = np.nanvar(scores[several], axis=1, ddof=1) / counts[several]
        noise = math.sqrt(float(np.median(variances)))
    low, _ = far_out(effects[counts > 0], noise, _REACH + wider / (known - _FEWEST + 1))
    return np.asarray((counts > 0) & (effects < low))
