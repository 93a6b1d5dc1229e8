"""Which of some numbers lie far from the rest, as a collapsed training does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdscale.analysis.statistics._results import Array

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
