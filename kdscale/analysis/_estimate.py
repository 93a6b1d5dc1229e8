"""Means with their intervals, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from scipy.special import stdtrit

Goal = Literal["maximize", "minimize"]

CONFIDENCE = 0.95
"""Coverage of every interval of a report."""

NOISE = "not distinguishable from noise"
"""What a report says where an interval holds zero or cannot be had."""


@dataclass(frozen=True)
class Estimate:
    """A mean and what is known about it.

    Attributes:
        mean: Mean of the values.
        n: Number of values.
        low: Lower end of the 95% t interval; None for one value and for values that are all
            equal: neither shows any spread to judge by.
        high: Upper end, as `low`.
    """

    mean: float
    n: int
    low: float | None = None
    high: float | None = None


def estimate(values: Iterable[float]) -> Estimate:
    """Returns the mean of the values with its 95% t interval.

    Args:
        values: At least one finite value; taken as independent draws.

    Raises:
        ValueError: There is no value.
    """
    numbers = sorted(values)
    n = len(numbers)
    if n == 0:
        raise ValueError("an estimate needs at least one value, but got none")
    mean = math.fsum(numbers) / n
    if n == 1 or numbers[-1] - numbers[0] <= 1e-9 * max(1.0, abs(mean)):
        return Estimate(mean, n)
    variance = math.fsum((number - mean) ** 2 for number in numbers) / (n - 1)
    half = float(stdtrit(n - 1, (1.0 + CONFIDENCE) / 2.0)) * math.sqrt(variance / n)
    return Estimate(mean, n, mean - half, mean + half)


@dataclass(frozen=True)
class Difference:
    """First minus second, paired by seed.

    Attributes:
        estimate: Mean difference with its interval.
        seeds: The seeds that both have.
        goal: Whether a larger value is the better one.
    """

    estimate: Estimate
    seeds: tuple[int, ...]
    goal: Goal

    @property
    def distinguishable(self) -> bool:
        """Whether there is an interval and it does not hold zero."""
        low, high = self.estimate.low, self.estimate.high
        return low is not None and high is not None and (low > 0.0 or high < 0.0)

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``not distinguishable from noise``, with the reason if any."""
        if self.distinguishable:
            return "better" if (self.estimate.mean > 0) == (self.goal == "maximize") else "worse"
        if self.estimate.n == 1:
            return f"{NOISE} (n = 1: no interval)"
        if self.estimate.low is None:
            return f"{NOISE} (all {self.estimate.n} differences are equal: no interval)"
        return NOISE


def paired_difference(
    first: Mapping[int, float], second: Mapping[int, float], goal: Goal
) -> Difference | None:
    """Returns first minus second over the seeds that both have, or None if they share no seed.

    Trials with one seed share data order and augmentation, so a difference within a seed is free
    of the noise that both have in common.

    Args:
        first: Seed -> value.
        second: Seed -> value.
        goal: Whether a larger value is the better one.
    """
    seeds = tuple(sorted(first.keys() & second.keys()))
    if not seeds:
        return None
    return Difference(estimate(first[seed] - second[seed] for seed in seeds), seeds, goal)
