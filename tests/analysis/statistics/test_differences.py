from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from kdscale.analysis.statistics import Results, best_mean, differences, holm

from .tables import simulated, table


def test_own_noise_is_the_paired_t_test_of_scipy() -> None:
    results = simulated([70.0, 70.4, 71.0], 6, rng=2)
    values = results.layout.values
    for known in differences(results, 0, pooled=False):
        test = stats.ttest_rel(values[known.configuration], values[0])
        interval = test.confidence_interval(0.95)
        assert known.p == pytest.approx(test.pvalue)
        assert known.difference.low == pytest.approx(interval.low)
        assert known.difference.high == pytest.approx(interval.high)


def test_pooled_noise_of_two_configurations_is_the_paired_t_test() -> None:
    results = simulated([70.0, 70.4], 6, rng=2)
    (pooled,) = differences(results, 0)
    (own,) = differences(results, 0, pooled=False)
    assert pooled.p == pytest.approx(own.p)
    assert pooled.difference.low == pytest.approx(own.difference.low)


@pytest.mark.parametrize(
    "p_values", [[], [0.3], [0.01, 0.04, 0.03, 0.005], [0.2, 0.2, 0.9, 1.0, 0.001, 0.02]]
)
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    expected = multipletests(p_values, method="holm")[1] if p_values else []
    np.testing.assert_allclose(holm(p_values), expected, atol=1e-12)


def test_false_claims_stay_under_the_rate() -> None:
    claims = [
        any(known.distinguishable for known in differences(simulated([0.0] * 9, 4, rng=rng), 0))
        for rng in range(400)
    ]
    assert np.mean(claims) <= 0.075


def test_a_missing_trial_is_made_up_for_by_its_seed() -> None:
    # Seed 1 gives everyone 1 more. Configuration 1 lacks it and would look worse unpaired.
    results = table([[70.0, 71.0, 70.1], [70.5, None, 70.6], [70.2, 71.2, 70.3]])
    by_number = {known.configuration: known for known in differences(results, 0)}
    assert by_number[1].difference.mean == pytest.approx(0.5)
    assert by_number[1].difference.n == 2
    assert by_number[2].difference.mean == pytest.approx(0.2)
    assert best_mean(results) == 1


def test_best_mean_knows_the_goal() -> None:
    rows = [[70.0, 70.1], [71.0, 71.1], [71.0, 71.1]]
    assert best_mean(table(rows)) == 1
    assert best_mean(table(rows, "minimize")) == 0
    assert best_mean(Results((), "maximize")) is None


@pytest.mark.parametrize("rows", [[[70.0], [71.0]], [[70.0, 70.0], [71.0, 71.0]]])
def test_where_nothing_shows_noise_nothing_is_claimed(rows: list[list[float]]) -> None:
    for pooled in (True, False):
        (known,) = differences(table(rows), 0, pooled=pooled)
        assert known.difference.low is None
        assert not known.distinguishable
