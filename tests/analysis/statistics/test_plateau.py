from __future__ import annotations

import math

import numpy as np
import pytest

from kdscale.analysis.statistics import Results, plateau
from kdscale.analysis.statistics._plateau import _critical

from .tables import simulated, table


@pytest.mark.parametrize(
    ("others", "df", "expected"),
    # Dunnett, JASA 50 (1955), table 1a: one-sided, 5%.
    [(1, 10, 1.81), (4, 20, 2.30), (9, 20, 2.60), (3, 5, 2.68)],
)
def test_critical_value_is_dunnetts(others: int, df: int, expected: float) -> None:
    assert _critical((5,) * (others + 1), 0, df, 0.05) == pytest.approx(expected, abs=0.006)


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
    assert found.margins[0][1] == 0.0
    assert found.margins[0][0] < -4.0
    assert found.margins[1][0] < 0.0 < found.margins[1][1]
    assert found.error_rate == 0.05


def test_a_single_winner_is_ahead_of_the_rest() -> None:
    found = plateau(simulated([70.0, 75.0, 60.0], 5, rng=0))
    assert found is not None
    assert found.members == (1,)
    assert found.margins[1][0] == 0.0
    assert found.margins[1][1] > 4.0


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
