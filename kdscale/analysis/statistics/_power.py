"""How many paired seeds a wanted difference needs, before anything is launched."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.special import ndtr, stdtrit
from scipy.stats import nct


@dataclass(frozen=True)
class PowerPlan:
    """What a planned study will be able to tell, with 80% power and 5% errors.

    Attributes:
        difference: The difference that is wanted to be seen.
        sd: Standard deviation of a single paired difference.
        seeds: Seeds of the plan.
        configurations: Configurations of the plan.
        needed_one: Seeds for one comparison of two configurations; None above a million.
        needed_all: Seeds for every configuration against one, Bonferroni-adjusted.
        seen_one: Difference that the plan's seeds show between two configurations; None for one
            seed.
        seen_all: As `seen_one`, for every configuration against one.
    """

    difference: float
    sd: float
    seeds: int
    configurations: int
    needed_one: int | None
    needed_all: int | None
    seen_one: float | None
    seen_all: float | None


MOST_SEEDS = 1_000_000
"""Above it, `seeds_needed` gives up."""

_LARGE = 1_000


def power(difference: float, sd: float, n: int, *, alpha: float = 0.05) -> float:
    """Returns the chance that the two-sided paired t-test sees a true difference.

    Args:
        difference: The true mean difference.
        sd: Standard deviation of a single paired difference: sqrt(2) times the residual noise of a
            trial, or times the whole noise where seeds are not shared.
        n: Paired seeds, at least 2.
        alpha: Error rate of the test.

    Source: Cohen, Statistical Power Analysis (1988), section 2.4: the noncentral t distribution.
    """
    if n < 2:
        raise ValueError(f"a paired test needs n >= 2, but got {n}")
    if sd == 0.0:
        return 1.0 if difference else alpha
    shift, critical = abs(difference) / sd * math.sqrt(n), float(stdtrit(n - 1, 1.0 - alpha / 2.0))
    if n > _LARGE:  # normal to four digits, and the noncentral t is slow there
        return float(ndtr(shift - critical) + ndtr(-shift - critical))
    return float(nct.sf(critical, n - 1, shift) + nct.sf(critical, n - 1, -shift))


def seeds_needed(
    difference: float, sd: float, *, wanted: float = 0.8, alpha: float = 0.05
) -> int | None:
    """Returns the least number of paired seeds with the wanted power, or None above a million.

    Args:
        difference: The difference that one wants to see; not 0.
        sd: Standard deviation of a single paired difference, as for `power`.
        wanted: The power, for example 0.8: four true differences in five are seen.
        alpha: Error rate; divide it by the number of comparisons made together (Bonferroni).
    """
    if not difference:
        return None
    low, high = 1, 2
    while power(difference, sd, high, alpha=alpha) < wanted:
        low, high = high, 2 * high
        if high > MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if power(difference, sd, middle, alpha=alpha) < wanted:
            low = middle
        else:
            high = middle
    return high


def detectable_difference(sd: float, n: int, *, wanted: float = 0.8, alpha: float = 0.05) -> float:
    """Returns the difference that n paired seeds show with the wanted power.

    Args:
        sd: Standard deviation of a single paired difference, as for `power`.
        n: Paired seeds, at least 2.
        wanted: The power.
        alpha: Error rate, as for `seeds_needed`.
    """
    if n < 2:
        raise ValueError(f"a paired test needs n >= 2, but got {n}")
    if sd == 0.0:
        return 0.0
    most = 10.0 * float(stdtrit(n - 1, 1.0 - alpha / 2.0))
    return sd * float(brentq(lambda d: power(d, 1.0, n, alpha=alpha) - wanted, 0.0, most))


def power_plan(difference: float, sd: float, *, seeds: int, configurations: int) -> PowerPlan:
    """Returns what a study of so many seeds and configurations can tell apart.

    Args:
        difference: The difference that is wanted to be seen.
        sd: Standard deviation of a single paired difference, as for `power`.
        seeds: Seeds of the plan.
        configurations: Configurations of the plan.
    """
    shared = 0.05 / max(1, configurations - 1)
    return PowerPlan(
        difference=difference,
        sd=sd,
        seeds=seeds,
        configurations=configurations,
        needed_one=seeds_needed(difference, sd),
        needed_all=seeds_needed(difference, sd, alpha=shared),
        seen_one=detectable_difference(sd, seeds) if seeds > 1 else None,
        seen_all=detectable_difference(sd, seeds, alpha=shared) if seeds > 1 else None,
    )
