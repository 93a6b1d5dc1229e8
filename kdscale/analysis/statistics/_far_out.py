"""What lies far from the rest, as a training does that collapses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kdscale.analysis.statistics._additive import additive_fit
from kdscale.analysis.statistics._results import Array, Results

_REACH = 3.0
_LEAST_SHARE = 0.1
_NORMAL_SPREAD = 1.349
"""Distance of a normal distribution's quartiles, in standard deviations."""


def far_out(values: Array | Sequence[float], noise: float = 0.0) -> tuple[float, float]:
    """Returns the fences beyond which a value is far out: infinite where half of them are equal.

    Of normal values two in a million lie beyond.

    Args:
        values: [n] Finite, n ≥ 1.
        noise: Standard deviation that each has at least; makes equal values no standard.

    Source: Tukey, Exploratory Data Analysis (1977), section 2E, the outer fences.
    """
    first, third = np.percentile(np.asarray(values, dtype=float), [25.0, 75.0])
    reach = _REACH * max(float(third - first), _NORMAL_SPREAD * noise)
    return (float(first) - reach, float(third) + reach) if reach else (-np.inf, np.inf)


def common_range(values: Sequence[float]) -> tuple[float, float]:
    """Returns the ends of an axis: of all values, unless some would squeeze the others together.

    Values that are far out are left out where the others had less than a tenth of the axis.
    """
    low, high = far_out(values)
    kept = [value for value in values if low <= value <= high]
    squeezed = max(kept) - min(kept) < _LEAST_SHARE * (max(values) - min(values))
    return (min(kept), max(kept)) if squeezed else (min(values), max(values))


def far_worse(results: Results) -> tuple[int, ...]:
    """Returns the configurations whose means are far out on the bad side.

    Training that collapses, under some seeds or under all, has a noise of its own, many times that
    of the others: together they would have a common estimate that is true of neither.

    Args:
        results: The trials; only complete ones count.
    """
    layout = results.layout
    if not layout.configurations:
        return ()
    score = results.sign * additive_fit(layout).effects
    several = layout.counts > 1
    noise = 0.0
    if several.any():
        variances = np.nanvar(layout.values[several], axis=1, ddof=1) / layout.counts[several]
        noise = math.sqrt(float(np.median(variances)))
    low, _ = far_out(score, noise)
    return tuple(
        number for number, value in zip(layout.configurations, score, strict=True) if value < low
    )


def without(results: Results, configurations: Sequence[int]) -> Results:
    """Returns the results of all other configurations."""
    rows = tuple(row for row in results.rows if row.configuration not in configurations)
    return replace(results, rows=rows)
