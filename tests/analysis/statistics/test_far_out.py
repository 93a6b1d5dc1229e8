from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kdscale.analysis.statistics import common_range, far_worse, noise_floor, without

from .tables import simulated, table

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


@given(NUMBERS)
def test_a_range_ends_at_values_whatever_their_order(values: list[float]) -> None:
    low, high = common_range(values)
    assert low <= high
    assert {low, high} <= set(values)
    assert common_range(sorted(values)) == (low, high)


def test_a_collapsed_training_is_far_out_and_normal_values_are_not() -> None:
    values = np.random.default_rng(0).normal(74.0, 0.5, 25).tolist()
    assert common_range([*values, 1.14]) == (min(values), max(values))
    assert common_range(values) == (min(values), max(values))
    assert common_range([*values, 68.0]) == (68.0, max(values))  # the others are still apart


def test_a_collapse_under_some_seeds_is_told_apart_and_its_noise_left_out() -> None:
    means = np.random.default_rng(1).normal(74.0, 0.1, 15)
    calm = simulated(means, 5, rng=0)
    rows = calm.layout.values.tolist()
    rows.insert(3, [7.4, 34.5, 73.9, 9.1, 1.1])
    results = table(rows)
    assert far_worse(calm) == ()
    assert far_worse(results) == (3,)
    assert noise_floor(without(results, (3,))) == noise_floor(calm)
    minimized = table([[-value for value in row] for row in rows], "minimize")
    assert far_worse(minimized) == (3,)
    assert far_worse(table([[value] for value in (70.0, 70.2, 70.1, 70.3, 1.0)])) == (4,)


def test_what_is_far_better_or_moved_by_noise_alone_is_not() -> None:
    assert far_worse(table([[70.0, 70.1]] * 9 + [[90.0, 90.1]])) == ()
    equal = [far_worse(simulated([70.0] * 25, 5, rng=rng)) for rng in range(200)]
    assert not any(equal)
    assert far_worse(table([])) == ()
