from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from kdscale.analysis import estimate, paired_difference

accuracies = st.floats(0.0, 100.0).map(lambda value: round(value, 3))
by_seed = st.dictionaries(st.integers(0, 9), accuracies, min_size=1, max_size=8)


def test_textbook_interval() -> None:
    # n = 4, mean 5, s = 2.582, t(3) = 3.182: 5 +- 4.108.
    known = estimate([2.0, 4.0, 6.0, 8.0])
    assert (known.mean, known.n) == (5.0, 4)
    assert known.low == pytest.approx(0.8915, abs=1e-4)
    assert known.high == pytest.approx(9.1085, abs=1e-4)


@given(st.lists(accuracies, min_size=2, max_size=20))
def test_interval_is_scipys(values: list[float]) -> None:
    assume(max(values) - min(values) > 1e-2)
    known = estimate(values)
    interval = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert known.mean == pytest.approx(np.mean(values))
    assert known.low == pytest.approx(interval.low, abs=1e-6)
    assert known.high == pytest.approx(interval.high, abs=1e-6)


@given(st.lists(accuracies, min_size=1, max_size=8), st.randoms())
def test_order_does_not_matter(values: list[float], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert estimate(values) == estimate(shuffled)


def test_no_interval_without_spread() -> None:
    assert (estimate([70.0]).low, estimate([70.0]).high) == (None, None)
    assert estimate([70.1, 70.1, 70.1]).low is None
    with pytest.raises(ValueError, match="at least one value"):
        estimate([])


def test_intervals_cover_as_often_as_they_say() -> None:
    draws = np.random.default_rng(0).normal(70.0, 0.8, size=(2000, 3))
    covered = 0
    for draw in draws:
        known = estimate(draw.tolist())
        assert known.low is not None
        assert known.high is not None
        covered += known.low <= 70.0 <= known.high
    assert 0.93 <= covered / len(draws) <= 0.97


@given(by_seed, by_seed)
def test_difference_is_paired_and_antisymmetric(
    first: dict[int, float], second: dict[int, float]
) -> None:
    difference = paired_difference(first, second, "maximize")
    reverse = paired_difference(second, first, "maximize")
    common = sorted(first.keys() & second.keys())
    if not common:
        assert difference is None
        assert reverse is None
        return
    assert difference is not None
    assert reverse is not None
    assert difference.seeds == tuple(common)
    assert difference.estimate.mean == pytest.approx(-reverse.estimate.mean, abs=1e-9)
    assert difference.distinguishable == reverse.distinguishable
    gaps = [first[seed] - second[seed] for seed in common]
    if max(gaps) - min(gaps) > 1e-2:
        interval = stats.ttest_rel(
            [first[seed] for seed in common], [second[seed] for seed in common]
        ).confidence_interval(0.95)
        assert difference.estimate.low == pytest.approx(interval.low, abs=1e-6)


def test_pairing_takes_away_what_a_seed_does_to_both() -> None:
    first = {0: 70.1, 1: 75.0, 2: 65.2}
    second = {0: 69.0, 1: 74.1, 2: 64.1}
    difference = paired_difference(first, second, "maximize")
    assert difference is not None
    assert difference.verdict == "better"
    low = estimate(first.values()).low
    assert low is not None
    assert low < estimate(second.values()).mean


@pytest.mark.parametrize(
    ("first", "goal", "verdict"),
    [
        ({0: 72.0, 1: 72.1, 2: 71.9}, "maximize", "better"),
        ({0: 72.0, 1: 72.1, 2: 71.9}, "minimize", "worse"),
        ({0: 68.0, 1: 68.1, 2: 67.9}, "maximize", "worse"),
        ({0: 72.0, 1: 69.0, 2: 70.1}, "maximize", "not distinguishable from noise"),
        ({0: 72.0}, "maximize", "not distinguishable from noise (n = 1: no interval)"),
        (
            {0: 72.0, 1: 72.0},
            "maximize",
            "not distinguishable from noise (all 2 differences are equal: no interval)",
        ),
    ],
)
def test_verdict(first: dict[int, float], goal: str, verdict: str) -> None:
    difference = paired_difference(first, {0: 70.0, 1: 70.0, 2: 70.0}, goal)  # type: ignore[arg-type]
    assert difference is not None
    assert difference.verdict == verdict
