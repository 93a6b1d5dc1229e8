"""A trial's value from its history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from kdscale.search._sections import MetricSpec


def trial_value(metric: MetricSpec, history: Sequence[Mapping[str, float]]) -> float | None:
    """Returns the metric's last or best value, or the mean of its last n; None without epochs."""
    values = [row[metric.name] for row in history]
    if not values:
        return None
    if metric.mode == "last":
        return values[-1]
    if metric.mode == "best":
        return max(values) if metric.goal == "maximize" else min(values)
    return fmean(values[-(metric.n or 1) :])
