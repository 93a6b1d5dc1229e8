from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdscale.analysis.statistics import almost_stochastic_order, compare_methods


def runs(mean: float, rng: int, seeds: int = 8) -> dict[int, float]:
    shared = np.random.default_rng(99).normal(0.0, 0.5, seeds)
    own = np.random.default_rng(rng).normal(mean, 0.2, seeds)
    return dict(enumerate((shared + own).tolist()))


def test_tests_are_those_of_scipy() -> None:
    one, two = runs(70.3, 0), runs(70.0, 1)
    (found,) = compare_methods({"a": one, "b": two}, "maximize")
    first, second = list(one.values()), list(two.values())
    assert found.p == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(first, second).pvalue)
    assert found.p_adjusted == found.p
    assert found.difference.n == 8


def test_a_better_method_is_told() -> None:
    found = compare_methods(
        {"a": runs(71.0, 0), "b": runs(70.0, 1), "c": runs(70.0, 2)}, "maximize"
    )
    assert [(one.first, one.second) for one in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [one.verdict for one in found] == ["better", "better", "not distinguishable from noise"]
    assert all(one.p_adjusted >= one.p for one in found)
    assert found[0].bootstrap is not None
    assert 0.5 < found[0].bootstrap[0] < 1.0 < found[0].bootstrap[1] + 0.3
    (lower,) = compare_methods({"a": runs(71.0, 0), "b": runs(70.0, 1)}, "minimize")
    assert lower.verdict == "worse"
    assert lower.dominance > 0.5


@pytest.mark.parametrize("n", [5, 12])
def test_bootstrap_interval_covers(n: int) -> None:
    held = []
    for rng in range(200):
        one = dict(enumerate(np.random.default_rng(rng).normal(size=n).tolist()))
        (found,) = compare_methods({"a": one, "b": dict.fromkeys(range(n), 0.0)}, "maximize")
        assert found.bootstrap is not None
        held.append(found.bootstrap[0] <= 0.0 <= found.bootstrap[1])
    assert 0.90 <= np.mean(held) <= 0.985


def test_few_or_equal_differences_show_nothing() -> None:
    (few,) = compare_methods({"a": {0: 1.0}, "b": {0: 2.0}}, "maximize")
    assert (few.p, few.bootstrap, few.difference.n) == (1.0, None, 1)
    (equal,) = compare_methods({"a": {0: 1.0, 1: 2.0}, "b": {0: 2.0, 1: 3.0}}, "maximize")
    assert (equal.p, equal.verdict) == (1.0, "not distinguishable from noise")
    with pytest.raises(ValueError, match="must have a seed in common"):
        compare_methods({"a": {0: 1.0}, "b": {1: 2.0}}, "maximize")


def test_stochastic_order_at_its_ends() -> None:
    low, high = np.arange(8.0), np.arange(8.0) + 10.0
    assert almost_stochastic_order(high, low) == 0.0
    assert almost_stochastic_order(low, high) == 1.0
    assert almost_stochastic_order(low, low) == pytest.approx(0.5, abs=0.5)


def test_stochastic_order_of_equal_methods_is_seldom_below_the_threshold() -> None:
    draws = np.random.default_rng(0).normal(size=(200, 2, 8))
    below = [almost_stochastic_order(first, second) < 0.2 for first, second in draws]
    assert np.mean(below) <= 0.07


@settings(deadline=None, max_examples=25)
@given(seeds=st.permutations(range(8)), scale=st.floats(0.1, 10.0))
def test_order_of_seeds_and_unit_do_not_matter(seeds: list[int], scale: float) -> None:
    one, two = runs(70.3, 0), runs(70.0, 1)
    (before,) = compare_methods({"a": one, "b": two}, "maximize")
    shuffled = {seed: one[seed] for seed in seeds}
    (after,) = compare_methods({"a": shuffled, "b": two}, "maximize")
    assert after == before
    scaled = [{seed: scale * value for seed, value in run.items()} for run in (one, two)]
    (other,) = compare_methods(dict(zip("ab", scaled, strict=True)), "maximize")
    assert other.p == pytest.approx(before.p)
    assert other.dominance == pytest.approx(before.dominance)
