from __future__ import annotations

import numpy as np
import pytest

from kdscale.analysis.statistics import BestValue, Results, best_value

from .tables import simulated, table


def best_of(results: Results) -> BestValue:
    found = best_value(results)
    assert found is not None
    return found


def test_of_equal_configurations_nearly_nothing_is_kept() -> None:
    found = [best_of(simulated([70.0] * 12, 4, rng=rng)) for rng in range(200)]
    naive = np.mean([one.naive - 70.0 for one in found])
    shrunk = np.mean([(one.shrunk or 0.0) - 70.0 for one in found])
    bootstrapped = np.mean([one.bootstrapped - 70.0 for one in found])
    assert naive > 0.1
    assert abs(shrunk) < 0.45 * naive
    assert abs(bootstrapped) < 0.45 * naive


@pytest.mark.parametrize("seed_sd", [0.0, 0.4])
def test_interval_holds_the_chosen_configurations_mean(seed_sd: float) -> None:
    means = np.random.default_rng(0).normal(70.0, 0.2, 15)
    held = []
    for rng in range(300):
        found = best_of(simulated(means, 4, rng=rng, seed_sd=seed_sd))
        assert found.low is not None
        assert found.high is not None
        held.append(found.low <= means[found.configuration] <= found.high)
    assert np.mean(held) >= 0.92


def test_large_differences_are_kept() -> None:
    found = best_of(simulated(np.linspace(60.0, 70.0, 8), 4, rng=0))
    assert found.kept is not None
    assert found.kept > 0.99
    assert found.shrunk == pytest.approx(found.naive, abs=0.05)
    assert found.bootstrapped == pytest.approx(found.naive, abs=0.05)
    assert (found.configuration, found.configurations) == (7, 8)


def test_lower_may_be_better() -> None:
    found = best_of(table([[1.0, 1.2], [1.1, 1.2], [1.2, 1.0], [1.3, 1.1], [1.0, 1.1]], "minimize"))
    assert found.shrunk is not None
    assert found.low is not None
    assert found.naive < found.shrunk
    assert found.naive < found.bootstrapped
    assert found.low < found.shrunk


def test_few_configurations_have_the_bootstrap_alone() -> None:
    found = best_of(table([[1.0, 1.2], [1.1, 1.2], [1.2, 1.0]]))
    assert (found.shrunk, found.low, found.kept) == (None, None, None)
    assert found.bootstrapped < found.naive


def test_without_noise_there_is_no_correction() -> None:
    assert best_value(table([[1.0], [1.2], [1.3], [1.4]])) is None
