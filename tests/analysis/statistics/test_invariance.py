"""What must not matter does not: order of trials, names of configurations, unit of the metric."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdscale.analysis.statistics import (
    Results,
    best_value,
    configuration_estimates,
    differences,
    noise_floor,
    plateau,
)

from .tables import mapped, tables

STATISTICS = {
    "noise_floor": noise_floor,
    "configuration_estimates": configuration_estimates,
    "differences": lambda results: differences(results, 0),
    "plateau": plateau,
    "best_value": best_value,
}


@pytest.mark.parametrize("name", STATISTICS)
@settings(deadline=None, max_examples=40)
@given(results=tables(), data=st.data())
def test_order_of_trials(name: str, results: Results, data: st.DataObject) -> None:
    shuffled = Results(tuple(data.draw(st.permutations(results.rows))), results.goal)
    assert STATISTICS[name](shuffled) == STATISTICS[name](results)


@pytest.mark.parametrize("name", STATISTICS)
@settings(deadline=None, max_examples=40)
@given(results=tables())
def test_a_hyperparameter_told_twice(name: str, results: Results) -> None:
    twice = mapped(
        results,
        lambda row: replace(row, parameters={**row.parameters, "again": row.parameters["alpha"]}),
    )
    assert STATISTICS[name](twice) == STATISTICS[name](results)


@settings(deadline=None, max_examples=40)
@given(results=tables())
def test_monotone_relabelling_of_configurations_and_seeds(results: Results) -> None:
    relabelled = mapped(
        results,
        lambda row: replace(row, configuration=3 * row.configuration, seed=row.seed**2 + 7),
    )
    assert noise_floor(relabelled) == noise_floor(results)
    for known, before in zip(
        configuration_estimates(relabelled), configuration_estimates(results), strict=True
    ):
        assert replace(known, configuration=before.configuration) == before
    first, second = plateau(relabelled), plateau(results)
    assert first is not None
    assert second is not None
    assert first.members == tuple(3 * number for number in second.members)


@settings(deadline=None, max_examples=40)
@given(results=tables(), shift=st.floats(-50, 50), scale=st.floats(0.1, 10))
def test_another_unit_of_the_metric(results: Results, shift: float, scale: float) -> None:
    other = mapped(results, lambda row: replace(row, value=shift + scale * row.value))
    before, after = noise_floor(results), noise_floor(other)
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert after.within.sd == pytest.approx(scale * before.within.sd, rel=1e-5, abs=1e-9)
    first, second = plateau(results), plateau(other)
    assert first is not None
    assert second is not None
    assert set(first.members) == set(second.members)
    known, again = configuration_estimates(results), configuration_estimates(other)
    np.testing.assert_allclose(
        [one.mean for one in again], [shift + scale * one.mean for one in known]
    )


@settings(deadline=None, max_examples=40)
@given(results=tables())
def test_the_other_goal_of_the_negated_metric(results: Results) -> None:
    negated = mapped(results, lambda row: replace(row, value=-row.value))
    negated = replace(negated, goal="minimize")
    first, second = plateau(results), plateau(negated)
    assert first is not None
    assert second is not None
    assert first.members == second.members
    one, two = best_value(results), best_value(negated)
    if one is None or two is None:
        assert one == two
        return
    assert two.configuration == one.configuration
    assert two.naive == pytest.approx(-one.naive)
    assert two.bootstrapped == pytest.approx(-one.bootstrapped)
