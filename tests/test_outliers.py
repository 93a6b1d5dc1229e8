from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdscale.outliers import far_below, far_out

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@given(NUMBERS, st.floats(0.1, 10), st.floats(-100, 100))
def test_fences_follow_the_unit(values: list[float], factor: float, shift: float) -> None:
    fences = far_out(values)
    moved = far_out([factor * value + shift for value in values])
    if all(map(math.isfinite, (*fences, *moved))):
        assert moved == pytest.approx([factor * one + shift for one in fences], rel=1e-6, abs=1e-3)


def test_equal_values_set_no_standard_but_noise_does() -> None:
    assert far_out([70.0] * 9 + [71.0]) == (-math.inf, math.inf)
    low, high = far_out([70.0] * 9 + [71.0], noise=0.1)
    assert (low, high) == pytest.approx((70.0 - 0.4047, 70.0 + 0.4047))


def test_who_has_no_trial_is_not_far_and_counts_for_nothing() -> None:
    scores = np.full((8, 2), np.nan)
    scores[:6] = np.linspace(69.9, 70.1, 6)[:, None] + [0.0, 0.1]
    scores[6, 0] = 1.0
    effects = np.append(scores[:6].mean(axis=1), [1.0, 0.0])
    assert np.flatnonzero(far_below(scores, effects)).tolist() == [6]
    assert not far_below(np.full((2, 3), np.nan), np.zeros(2)).any()


@pytest.mark.parametrize("configurations", [5, 6, 9, 16])
@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_of_equal_configurations_hardly_any_is_far_worse(configurations: int, seeds: int) -> None:
    scores = np.random.default_rng(0).normal(size=(3000, configurations, seeds))
    found = [far_below(one, one.mean(axis=1)).any() for one in scores]
    assert np.mean(found) < 0.012


def test_of_four_none_is_far_worse() -> None:
    scores = np.array([[70.0], [70.1], [70.2], [1.0]])
    assert not far_below(scores, scores[:, 0]).any()
