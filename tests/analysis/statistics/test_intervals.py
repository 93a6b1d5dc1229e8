from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kdscale.analysis.statistics import Results, configuration_estimates

from .tables import simulated, table


def test_t_interval_is_scipys() -> None:
    results = simulated([70.0, 71.0, 72.0], 5, rng=1)
    for known, values in zip(configuration_estimates(results), results.layout.values, strict=True):
        interval = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert known.t == pytest.approx((interval.low, interval.high))
        assert known.mean == pytest.approx(values.mean())
        assert known.n == 5


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_bootstrap_interval_covers(seeds: int, shape: str) -> None:
    rng = np.random.default_rng(seeds)
    covered = []
    for _ in range(300):
        noise = rng.normal(size=(8, seeds))
        if shape == "skewed":
            noise = rng.gamma(4.0, 0.5, (8, seeds)) - 2.0
        for known in configuration_estimates(table(noise.tolist())):
            assert known.bootstrap is not None
            covered.append(known.bootstrap[0] <= 0.0 <= known.bootstrap[1])
    assert 0.925 <= np.mean(covered) <= 0.975


def test_one_trial_has_no_interval() -> None:
    alone, _ = configuration_estimates(table([[70.0], [71.0]]))
    assert (alone.n, alone.mean, alone.t, alone.bootstrap) == (1, 70.0, None, None)
    assert configuration_estimates(Results((), "maximize")) == ()


def test_equal_values_have_no_interval() -> None:
    known = configuration_estimates(table([[70.0, 70.0], [71.0, 71.0]]))
    assert [one.t for one in known] == [None, None]
    assert [one.bootstrap for one in known] == [None, None]
