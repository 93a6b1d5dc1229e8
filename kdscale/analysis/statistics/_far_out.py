"""Configurations and values that lie far from the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kdscale.analysis.statistics._additive import additive_fit
from kdscale.analysis.statistics._results import Results
from kdscale.outliers import far_below, far_out

_LEAST_SHARE = 0.1


def common_range(values: Sequence[float]) -> tuple[float, float]:
    """Returns the ends of an axis: of all values, unless some would squeeze the others together.

    Values that are far out are left out where the others had less than a tenth of the axis.
    """
    low, high = far_out(values)
    kept = [value for value in values if low <= value <= high]
    squeezed = max(kept) - min(kept) < _LEAST_SHARE * (max(values) - min(values))
    return (min(kept), max(kept)) if squeezed else (min(values), max(values))


def far_worse(results: Results) -> tuple[int, ...]:
    """Returns the configurations whose means are far out on the bad side: `far_below`.

    Args:
        results: The trials; only complete ones count.
    """
    layout = results.layout
    if not layout.configurations:
        return ()
    effects = results.sign * additive_fit(layout).effects
    far = far_below(results.sign * layout.values, effects)
    return tuple(layout.configurations[row] for row in np.flatnonzero(far))


def without(results: Results, configurations: Sequence[int]) -> Results:
    """Returns the results of all other configurations."""
    rows = tuple(row for row in results.rows if row.configuration not in configurations)
    return replace(results, rows=rows)
