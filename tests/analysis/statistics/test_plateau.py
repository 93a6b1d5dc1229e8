from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import studentized_range
from statsmodels.stats.multicomp import pairwise_tukeyhsd

from kdscale.analysis.statistics import Results, plateau

from .tables import simulated, table


@pytest.mark.parametrize("seeds", [3, 6])
def test_members_are_those_of_statsmodels_tukey(seeds: int) -> None:
    # Without a seed's effect to take out, the two-way fit loses its degrees of freedom only.
    results = simulated([70.0, 70.3, 70.6, 71.5], seeds, rng=5, seed_sd=0.0)
    values = results.layout.values
    centred = values - values.mean(axis=0) + values.mean()
    found = plateau(results)
    assert found is not None
    tukey = pairwise_tukeyhsd(centred.ravel(), np.repeat(np.arange(4), seeds))
    squares = ((centred - centred.mean(axis=1, keepdims=True)) ** 2).sum()
    df = 3 * (seeds - 1)
    half = studentized_range.ppf(0.95, 4, df) * np.sqrt(squares / df / seeds)
    gaps = dict(zip(combinations(range(4), 2), tukey.meandiffs, strict=True))
    worse = {i for (i, j), gap in gaps.items() if gap > half}
    worse |= {j for (i, j), gap in gaps.items() if -gap > half}
    assert set(found.worse) == worse


def test_of_equal_configurations_none_is_called_worse() -> None:
    claims = []
    for rng in range(400):
        found = plateau(simulated([0.0] * 8, 4, rng=rng))
        assert found is not None
        claims.append(bool(found.worse))
    assert np.mean(claims) <= 0.075


@pytest.mark.parametrize("missing", [False, True])
def test_the_best_is_in_it_as_often_as_it_says(missing: bool) -> None:
    held = []
    for rng in range(400):
        results = simulated([0.0] * 6, 4, rng=rng)
        if missing:  # as after racing: some configurations stopped early
            rows = [row for row in results.rows if row.configuration < 3 or row.seed < 2]
            results = Results(tuple(rows), "maximize")
        found = plateau(results)
        assert found is not None
        held.append(0 in found.members)
    assert np.mean(held) >= 0.92


def test_clear_differences_are_told() -> None:
    found = plateau(simulated([70.0, 75.0, 74.98, 60.0], 5, rng=0))
    assert found is not None
    assert set(found.members) == {1, 2}
    assert found.worse == (0, 3)
    assert found.margins[0][1] < -4.0
    assert found.margins[0][0] < -5.0
    assert found.margins[1][0] < 0.0 < found.margins[1][1]
    assert found.error_rate == 0.05


def test_a_single_winner_is_ahead_of_the_rest() -> None:
    found = plateau(simulated([70.0, 75.0, 60.0], 5, rng=0))
    assert found is not None
    assert found.members == (1,)
    assert 4.0 < found.margins[1][0] < 5.0 < found.margins[1][1]


def test_lower_may_be_better() -> None:
    rows = [[1.0, 1.1, 1.0], [2.0, 2.1, 2.1], [3.0, 3.2, 3.1]]
    found = plateau(table(rows, "minimize"))
    assert found is not None
    assert found.members == (0,)


def test_without_noise_nothing_is_excluded() -> None:
    found = plateau(table([[70.0], [80.0], [75.0]]))
    assert found is not None
    assert not found.known
    assert found.members == (1, 2, 0)
    assert found.margins[0] == (-math.inf, math.inf)
    assert plateau(Results((), "maximize")) is None
    single = plateau(table([[70.0, 71.0]]))
    assert single is not None
    assert single.members == (0,)
