from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdscale.analysis.statistics import common_range, far_out

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@given(NUMBERS)
def test_a_range_ends_at_values_whatever_their_order(values: list[float]) -> None:
    low, high = common_range(values)
    assert low <= high
    assert {low, high} <= set(values)
    assert common_range(sorted(values)) == (low, high)


@given(NUMBERS, st.floats(0.1, 10), st.floats(-100, 100))
def test_fences_follow_the_unit(values: list[float], factor: float, shift: float) -> None:
    fences = far_out(values)
    moved = far_out([factor * value + shift for value in values])
    if all(map(math.isfinite, (*fences, *moved))):
        assert moved == pytest.approx([factor * one + shift for one in fences], rel=1e-6, abs=1e-3)


def test_a_collapsed_training_is_far_out_and_normal_values_are_not() -> None:
    values = np.random.default_rng(0).normal(74.0, 0.5, 25).tolist()
    assert common_range([*values, 1.14]) == (min(values), max(values))
    assert common_range(values) == (min(values), max(values))
    assert common_range([*values, 68.0]) == (68.0, max(values))  # the others are still apart


def test_equal_values_set_no_standard_but_noise_does() -> None:
    assert far_out([70.0] * 9 + [71.0]) == (-math.inf, math.inf)
    low, high = far_out([70.0] * 9 + [71.0], noise=0.1)
    assert (low, high) == pytest.approx((70.0 - 0.4047, 70.0 + 0.4047))
