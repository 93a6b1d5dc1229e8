"""The plateau: every configuration that could still be the best, instead of one bold number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.stats import studentized_range

from kdscale.analysis.statistics._additive import additive_fit
from kdscale.analysis.statistics._results import Results


@dataclass(frozen=True)
class Plateau:
    """Which configurations can be told from the best one, and which cannot.

    Attributes:
        best: The configuration with the best mean.
        members: All that are not distinguishable from the best one, from the best mean down.
            With probability 1 - `error_rate` or more, the truly best configuration is among them.
        worse: The others, from the best mean down: each is worse than some member. Where all
            configurations are equal, this is not empty with probability `error_rate` at most.
        margins: Configuration -> simultaneous interval for its mean minus that of the best of the
            others, better being positive whatever the goal.
        error_rate: Chance that anything above is wrong.
        known: Whether there is any estimate of the noise. Without one every configuration is a
            member, and the margins are not finite.
    """

    best: int
    members: tuple[int, ...]
    worse: tuple[int, ...]
    margins: Mapping[int, tuple[float, float]]
    error_rate: float
    known: bool


def plateau(results: Results, *, error_rate: float = 0.05) -> Plateau | None:
    """Returns which configurations could be the best, or None without a complete trial.

    A configuration belongs to the plateau unless another one is ahead of it by more than Tukey's
    honestly significant difference for all pairs, with errors paired by seed. (The narrower subset
    of Gupta and Hsu also holds the best one, but leaves out one of several equal configurations
    more often than not.)

    Args:
        results: The trials; only complete ones count.
        error_rate: Chance, at most, that any pair is told apart wrongly.

    Source: Tukey, The Problem of Multiple Comparisons (1953); Kramer, Biometrics 12 (1956), for
    unequal numbers of seeds, conservative by Hayter, Annals of Statistics 12 (1984).
    """
    layout = results.layout
    if not layout.configurations:
        return None
    fit = additive_fit(layout)
    score = results.sign * fit.effects
    k = len(score)
    order = sorted(range(k), key=lambda row: (-round(float(score[row]), 9), row))
    known = fit.residual_df > 0 and fit.residual_variance > 0.0
    lead = np.full((k, k), np.inf)  # [i, j]: what i may be ahead of j at most
    critical = _critical(k, fit.residual_df, error_rate) if known else 0.0
    for i in range(k):
        for j in range(k):
            if i != j and known and fit.component[i] == fit.component[j]:
                error = math.sqrt(fit.residual_variance * fit.difference_variance(i, j))
                lead[i, j] = score[i] - score[j] + critical * error
    margins = {
        layout.configurations[row]: (
            -max((float(lead[other, row]) for other in range(k) if other != row), default=0.0),
            float(lead[row].min()) if k > 1 else 0.0,
        )
        for row in order
    }
    members = tuple(layout.configurations[row] for row in order if float(lead[row].min()) > 0.0)
    return Plateau(
        best=layout.configurations[order[0]],
        members=members,
        worse=tuple(number for number in margins if number not in members),
        margins=margins,
        error_rate=error_rate,
        known=known,
    )


@lru_cache(maxsize=1024)
def _critical(k: int, df: int, error_rate: float) -> float:
    """Returns the studentised range's critical value, for a difference in units of its error."""
    return float(studentized_range.ppf(1.0 - error_rate, k, df)) / math.sqrt(2.0) if k > 1 else 0.0
