"""Effects of hyperparameters, with what chance alone would show taken off."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import ndtri

from kdscale.analysis._estimate import CONFIDENCE
from kdscale.analysis.statistics._additive import additive_fit
from kdscale.analysis.statistics._measures import MEASURES
from kdscale.analysis.statistics._results import Array, Results
from kdscale.records import Value

NO_EFFECT = "no detectable effect"
"""What is said of an effect whose interval holds zero."""

_RESAMPLES = 60
_FEWEST = 8
_FEWEST_RESAMPLES = 20


@dataclass(frozen=True)
class Effect:
    """A main effect, or the interaction of two hyperparameters.

    Attributes:
        measure: Name of the measure; ``sobol`` comes as ``sobol_first``, ``sobol_total`` and
            ``sobol_pair``, interactions of ``fanova`` as ``fanova_pair``.
        parameters: One name, or the two of an interaction.
        importance: What the measure says; never below 0, and above 0 by chance alone.
        excess: Importance less what the same measure says of shuffled scores on average.
        low: Lower end of the 95% interval of the excess. It is above 0 only if the importance
            exceeds that of shuffled scores, at an error rate of 5% over all effects of its kind.
        high: Upper end.
    """

    measure: str
    parameters: tuple[str, ...]
    importance: float
    excess: float
    low: float
    high: float

    @property
    def detectable(self) -> bool:
        """Whether the interval lies above zero."""
        return self.low > 0.0

    @property
    def verdict(self) -> str:
        """``detectable`` or ``no detectable effect``."""
        return "detectable" if self.detectable else NO_EFFECT


def effects(
    results: Results, measure: str, *, resamples: int = _RESAMPLES, rng: int = 0
) -> tuple[Effect, ...]:
    """Returns the effect of every hyperparameter by one measure, with a bootstrap interval.

    Every measure is at least 0 and above it by chance, so what it says of shuffled scores is
    taken off. The interval has the bootstrap's spread over configurations; its lower end is
    moved down where needed so that it holds zero unless the importance is beyond what shuffled
    scores reach (the greatest over all hyperparameters, 95% of the time). Numbers enter by their
    rank, so that a search on a logarithmic scale and one on a linear scale see the same; other
    values in the order of their text.

    Args:
        results: The trials; each configuration counts once, with its mean over seeds.
        measure: A name from `MEASURES`.
        resamples: Bootstrap samples, and shuffles; at least 20.
        rng: Seed of both.

    Returns:
        An effect for each hyperparameter with more than one value; empty for fewer than 8
        configurations.

    Raises:
        ValueError: There are fewer than 20 resamples: 5% cannot be told with fewer.

    Source: Efron and Tibshirani (1993), section 13.3, normal bootstrap interval; Westfall and
    Young, Resampling-Based Multiple Testing (1993), section 2.3, single-step maxT; Altmann et al.,
    Bioinformatics 26 (2010), importances against shuffled responses.
    """
    if resamples < _FEWEST_RESAMPLES:
        raise ValueError(f"resamples must be >= {_FEWEST_RESAMPLES}, but got {resamples}")
    names, x, y = design(results)
    if len(y) < _FEWEST or not names:
        return ()
    measured = MEASURES[measure]
    draw = np.random.default_rng(rng)
    drawn = [draw.integers(len(y), size=len(y)) for _ in range(resamples)]
    bootstrapped = np.array([measured(x[chosen], y[chosen]) for chosen in drawn])
    shuffled = np.array([measured(x, draw.permutation(y)) for _ in range(resamples)])
    seen = measured(x, y)
    centre, unit = shuffled.mean(axis=0), np.maximum(shuffled.std(axis=0, ddof=1), 1e-12)
    spread = bootstrapped.std(axis=0, ddof=1) * float(ndtri((1.0 + CONFIDENCE) / 2.0))
    kinds = _kinds(measure, names)
    found = []
    for index, (kind, parameters) in enumerate(kinds):
        family = [place for place, (other, _) in enumerate(kinds) if other == kind]
        greatest = ((shuffled - centre) / unit)[:, family].max(axis=1)
        chance = _quantile(greatest) * float(unit[index])
        excess, half = float(seen[index] - centre[index]), float(spread[index])
        low = excess - max(half, chance)
        found.append(Effect(kind, parameters, float(seen[index]), excess, low, excess + half))
    return tuple(found)


def design(results: Results) -> tuple[tuple[str, ...], Array, Array]:
    """Returns names, [n, d] ranks in the unit cube and [n] scores of the complete trials.

    Scores are configuration means with the seeds' effects taken out, larger being better. A
    hyperparameter that some configuration does not have, or that has one value, is left out.
    """
    layout = results.layout
    if not layout.configurations:
        return (), np.zeros((0, 0)), np.zeros(0)
    rows = [results.parameters[number] for number in layout.configurations]
    names, columns = [], []
    for name in results.names:
        if any(name not in row for row in rows):
            continue
        column = _ranks([row[name] for row in rows])
        if np.ptp(column) > 0.0:
            names.append(name)
            columns.append(column)
    score = results.sign * additive_fit(layout).effects
    return tuple(names), np.array(columns).T.reshape(len(rows), len(names)), score


def ordered_values(values: Iterable[Value]) -> tuple[Value, ...]:
    """Returns the distinct values: numbers by size, others by their text."""
    distinct = set(values)
    if all(isinstance(value, int | float) for value in distinct):
        return tuple(sorted(distinct))
    return tuple(sorted(distinct, key=str))


def _quantile(draws: Array) -> float:
    """Returns the least draw that a further one exceeds with 5% chance at most."""
    place = math.ceil(CONFIDENCE * (len(draws) + 1))
    return float(np.sort(draws)[min(place, len(draws)) - 1])


def _ranks(values: Sequence[Value]) -> Array:
    """Returns where each value lies among the distinct ones, in (0, 1)."""
    distinct = ordered_values(values)
    place = {value: (index + 0.5) / len(distinct) for index, value in enumerate(distinct)}
    return np.array([place[value] for value in values])


def _kinds(measure: str, names: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    alone: list[tuple[str, ...]] = [(name,) for name in names]
    pairs: list[tuple[str, tuple[str, ...]]] = [
        (f"{measure}_pair", pair) for pair in combinations(names, 2)
    ]
    if measure == "sobol":
        singles = [(kind, one) for kind in ("sobol_first", "sobol_total") for one in alone]
        return [*singles, *pairs]
    singles = [(measure, one) for one in alone]
    return [*singles, *pairs] if measure == "fanova" else singles
