from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestPower

from kdscale.analysis.statistics import detectable_difference, power, seeds_needed


@pytest.mark.parametrize("n", [2, 3, 5, 20, 200])
@pytest.mark.parametrize("effect", [0.1, 0.5, 1.5])
def test_power_is_that_of_statsmodels(n: int, effect: float) -> None:
    assert power(effect, 1.0, n) == pytest.approx(TTestPower().power(effect, n, 0.05), abs=1e-6)


def test_textbook() -> None:
    # Cohen (1988): a paired difference of half a standard deviation needs 34 pairs at 80%.
    assert seeds_needed(0.5, 1.0) == 34
    assert seeds_needed(0.3, 0.2 * math.sqrt(2)) == 10


def test_the_normal_form_joins_the_exact_one() -> None:
    assert power(0.08, 1.0, 1000) == pytest.approx(power(0.08, 1.0, 1001), abs=1e-3)


def test_power_is_what_simulated_tests_find() -> None:
    draws = np.random.default_rng(0).normal(0.3, 0.25, (4000, 8))
    seen = stats.ttest_1samp(draws, 0.0, axis=1).pvalue <= 0.05
    assert seen.mean() == pytest.approx(power(0.3, 0.25, 8), abs=0.03)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.05, 3.0), st.sampled_from([0.5, 0.8, 0.95]), st.sampled_from([0.05, 0.005]))
def test_needed_seeds_are_enough_and_no_more(effect: float, wanted: float, alpha: float) -> None:
    n = seeds_needed(effect, 1.0, wanted=wanted, alpha=alpha)
    assert n is not None
    assert power(effect, 1.0, n, alpha=alpha) >= wanted
    assert n == 2 or power(effect, 1.0, n - 1, alpha=alpha) < wanted


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 40), st.floats(0.05, 2.0))
def test_detectable_difference_has_the_power(n: int, sd: float) -> None:
    difference = detectable_difference(sd, n)
    assert power(difference, sd, n) == pytest.approx(0.8, abs=1e-6)


def test_edges() -> None:
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(1e-5, 1.0) is None
    assert seeds_needed(0.1, 0.0) == 2
    assert detectable_difference(0.0, 3) == 0.0
    with pytest.raises(ValueError, match="n >= 2"):
        power(1.0, 1.0, 1)
    with pytest.raises(ValueError, match="n >= 2"):
        detectable_difference(1.0, 1)
