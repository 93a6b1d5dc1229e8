"""The noise floor: how far values of one configuration lie apart under different seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import chi2

from kdscale.analysis._estimate import CONFIDENCE
from kdscale.analysis.statistics._additive import additive_fit
from kdscale.analysis.statistics._results import Results


@dataclass(frozen=True)
class Spread:
    """A standard deviation and what is known about it.

    Attributes:
        sd: The estimate.
        df: Degrees of freedom behind it; not whole where two mean squares make it up.
        low: Lower end of its 95% interval.
        high: Upper end.
    """

    sd: float
    df: float
    low: float
    high: float


@dataclass(frozen=True)
class NoiseFloor:
    """What seeds do to values, from configurations that ran under several.

    Attributes:
        within: Standard deviation of one configuration's values over seeds, pooled over the
            configurations. A single run is uncertain by this much.
        seed_sd: Standard deviation of what a seed does to all configurations alike; pairing by
            seed takes it out. None where configurations share too few seeds to tell.
        residual: Standard deviation of what is left; a paired difference of two runs has the
            square root of 2 times this. None as above.
        configurations: Configurations with at least two seeds.
        trials: Their trials.
    """

    within: Spread
    seed_sd: float | None
    residual: Spread | None
    configurations: int
    trials: int

    @property
    def paired_share(self) -> float | None:
        """Share of the variance that pairing by seed takes away, 0 to 1."""
        if self.residual is None or self.within.sd == 0.0:
            return None
        return max(0.0, 1.0 - (self.residual.sd / self.within.sd) ** 2)


def noise_floor(results: Results) -> NoiseFloor | None:
    """Returns the spread over seeds, or None if no configuration has two complete trials.

    The pooled variance is that within configurations. Under shared seeds it is a sum of two mean
    squares, seeds after configurations and residual; its interval and degrees of freedom know
    that 3 seeds show a seed effect 3 times, however many trials there are.

    Args:
        results: The trials.

    Source: Henderson, Biometrics 9 (1953), method 3, for the seeds' variance; Graybill and Wang,
    JASA 75 (1980), for the interval of a sum of mean squares; Satterthwaite, Biometrics Bulletin 2
    (1946), for its degrees of freedom.
    """
    layout = results.layout
    replicated = int((layout.counts > 1).sum())
    if not replicated:
        return None
    fit = additive_fit(layout)
    free = int(layout.counts.sum()) - len(layout.configurations)
    within = _spread(
        [
            (ss / free, df)
            for ss, df in ((fit.seed_ss, fit.seed_df), (fit.residual_ss, fit.residual_df))
            if df
        ]
    )
    trials = int(layout.counts[layout.counts > 1].sum())
    if not fit.residual_df or not fit.seed_df:
        return NoiseFloor(within, None, None, replicated, trials)
    seed_variance = max(0.0, (fit.seed_ss - fit.seed_df * fit.residual_variance) / free)
    return NoiseFloor(
        within=within,
        seed_sd=math.sqrt(seed_variance),
        residual=_spread([(fit.residual_variance, fit.residual_df)]),
        configurations=replicated,
        trials=trials,
    )


def _spread(parts: Sequence[tuple[float, int]]) -> Spread:
    """Returns the standard deviation of a variance that is a sum of independent mean squares.

    For one mean square the interval is the chi-square interval.
    """
    variance = math.fsum(part for part, _ in parts)
    spent = math.fsum(part**2 / df for part, df in parts)
    tail = (1.0 - CONFIDENCE) / 2.0
    down = math.fsum(
        (part * (1.0 - df / float(chi2.ppf(1.0 - tail, df)))) ** 2 for part, df in parts
    )
    up = math.fsum((part * (df / float(chi2.ppf(tail, df)) - 1.0)) ** 2 for part, df in parts)
    return Spread(
        sd=math.sqrt(variance),
        df=variance**2 / spent if spent else float(sum(df for _, df in parts)),
        low=math.sqrt(max(0.0, variance - math.sqrt(down))),
        high=math.sqrt(variance + math.sqrt(up)),
    )
