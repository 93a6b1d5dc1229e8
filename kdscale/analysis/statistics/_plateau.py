"""The plateau: every configuration that could still be the best, instead of one bold number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import chi

from kdscale.analysis.statistics._additive import additive_fit
from kdscale.analysis.statistics._results import Results

_NODES = 64


@dataclass(frozen=True)
class Plateau:
    """Hsu's multiple comparisons with the best.

    Attributes:
        best: The configuration with the best mean.
        members: All that are not distinguishable from the best one, from the best mean down.
            With probability 1 - `error_rate` or more, the truly best configuration is among them.
        worse: The others: each is worse than the best one, all of these statements together wrong
            with probability `error_rate` at most.
        margins: Configuration -> simultaneous interval for its mean minus that of the best of the
            others, better being positive whatever the goal. It ends at 0 for those that are worse.
        error_rate: The rate stated above.
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

    A configuration belongs to the plateau unless it is behind the best of the others by more than
    d standard errors of their paired difference, where d is Dunnett's one-sided critical value
    for as many comparisons as there are other configurations.

    Args:
        results: The trials; only complete ones count.
        error_rate: Chance, at most, that the truly best configuration is left out.

    Source: Gupta, Technometrics 7 (1965), the subset; Hsu, Annals of Statistics 12 (1984), the
    constrained intervals; Dunnett, JASA 50 (1955), eq. 3, the critical value. Where configurations
    have unequal numbers of seeds, the correlations are those of independent means (Hsu, Multiple
    Comparisons (1996), section 4.2).
    """
    layout = results.layout
    if not layout.configurations:
        return None
    fit = additive_fit(layout)
    score = results.sign * fit.effects
    order = sorted(range(len(score)), key=lambda row: (-round(float(score[row]), 9), row))
    known = fit.residual_df > 0 and fit.residual_variance > 1e-18
    rows = range(len(score))
    lead = np.full((len(score), len(score)), np.inf)  # [i, j]: what i may be ahead of j at most
    for i in rows:
        d = _critical(tuple(layout.counts.tolist()), i, fit.residual_df, error_rate) if known else 0
        for j in rows:
            if i != j and known and fit.component[i] == fit.component[j]:
                error = math.sqrt(fit.residual_variance * fit.difference_variance(i, j))
                lead[i, j] = score[i] - score[j] + d * error
    could_be_best = [row for row in order if float(lead[row].min()) > 0.0]
    margins = {}
    for row in order:
        rivals = [other for other in could_be_best if other != row]
        upper = max(0.0, float(lead[row].min()))
        lower = -max((float(lead[rival, row]) for rival in rivals), default=0.0)
        margins[layout.configurations[row]] = (lower, upper)
    return Plateau(
        best=layout.configurations[order[0]],
        members=tuple(layout.configurations[row] for row in could_be_best),
        worse=tuple(layout.configurations[row] for row in order if row not in could_be_best),
        margins=margins,
        error_rate=error_rate,
        known=known,
    )


@lru_cache(maxsize=4096)
def _critical(counts: tuple[int, ...], control: int, df: int, error_rate: float) -> float:
    """Returns d with P(every (Z_j - Z_control) / its error <= d) = 1 - error_rate.

    The errors share one estimate of the residual variance with df degrees of freedom. The double
    integral over the control's own error and the estimate is done by Gauss quadrature.
    """
    rivals = [count for row, count in enumerate(counts) if row != control]
    if not rivals:
        return 0.0
    load = 1.0 / np.sqrt(1.0 + counts[control] / np.asarray(rivals, dtype=float))
    z, z_weight = np.polynomial.hermite_e.hermegauss(_NODES)
    z_weight = z_weight / z_weight.sum()
    share, share_weight = np.polynomial.legendre.leggauss(_NODES)
    u = chi.ppf((share + 1.0) / 2.0, df) / math.sqrt(df)
    sizes, repeats = np.unique(load, return_counts=True)

    def covered(d: float) -> float:
        inside = np.ones((_NODES, _NODES))
        for size, repeat in zip(sizes, repeats, strict=True):
            bound = (d * u[None, :] + size * z[:, None]) / math.sqrt(1.0 - size * size)
            inside *= ndtr(bound) ** repeat
        return float(z_weight @ inside @ (share_weight / 2.0))

    return float(brentq(lambda d: covered(d) - (1.0 - error_rate), 0.0, 500.0, xtol=1e-6))
