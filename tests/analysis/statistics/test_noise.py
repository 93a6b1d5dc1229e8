from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from kdscale.analysis.statistics import NoiseFloor, Results, noise_floor

from .tables import simulated, table


def floor_of(results: Results) -> NoiseFloor:
    floor = noise_floor(results)
    assert floor is not None
    return floor


@pytest.mark.parametrize("missing", [0, 4])
def test_agrees_with_the_analysis_of_variance_of_statsmodels(missing: int) -> None:
    results = simulated([70.0, 70.5, 71.0, 70.2, 69.0], 4, rng=3)
    keep = results.rows[: len(results.rows) - missing : 1] if missing else results.rows
    results = Results(keep, "maximize")
    floor = floor_of(results)
    frame = pd.DataFrame(
        {"c": row.configuration, "s": row.seed, "y": row.value} for row in results.rows
    )
    both = anova_lm(ols("y ~ C(c) + C(s)", frame).fit(), typ=1)
    alone = anova_lm(ols("y ~ C(c)", frame).fit(), typ=1)
    assert floor.residual is not None
    assert floor.residual.sd == pytest.approx(math.sqrt(both.loc["Residual", "mean_sq"]))
    assert floor.residual.df == both.loc["Residual", "df"]
    assert floor.within.sd == pytest.approx(math.sqrt(alone.loc["Residual", "mean_sq"]))
    assert floor.seed_sd is not None
    if not missing:
        between = both.loc["C(s)", "mean_sq"] - both.loc["Residual", "mean_sq"]
        assert floor.seed_sd == pytest.approx(math.sqrt(max(0.0, between / 5)))


def test_the_parts_add_up() -> None:
    floor = floor_of(simulated(np.linspace(0, 1, 40), 6, rng=0, seed_sd=0.4, sd=0.2))
    assert floor.residual is not None
    assert floor.seed_sd is not None
    assert floor.within.sd**2 == pytest.approx(floor.seed_sd**2 + floor.residual.sd**2)
    assert floor.paired_share == pytest.approx(floor.seed_sd**2 / floor.within.sd**2)
    assert (floor.configurations, floor.trials) == (40, 240)
    assert floor.residual.low < 0.2 < floor.residual.high


@pytest.mark.parametrize("seed_sd", [0.0, 0.5])
def test_interval_covers(seed_sd: float) -> None:
    truth = math.hypot(seed_sd, 0.2)
    covered = [
        floor.within.low <= truth <= floor.within.high
        for floor in (
            floor_of(simulated([0.0, 1.0, 2.0] * 3, 3, rng=rng, seed_sd=seed_sd))
            for rng in range(400)
        )
    ]
    assert 0.92 <= np.mean(covered) <= 0.99


def test_without_shared_seeds_there_is_only_the_pooled_spread() -> None:
    results = table([[1.0, 2.0, None, None], [None, None, 5.0, 8.0]])
    floor = floor_of(results)
    assert floor.within.sd == pytest.approx(math.sqrt((0.5 + 4.5) / 2))
    assert floor.within.df == 2
    assert floor.seed_sd is None
    assert floor.residual is None
    assert floor.paired_share is None


def test_one_trial_each_shows_no_noise() -> None:
    assert noise_floor(table([[1.0], [2.0]])) is None
    assert noise_floor(Results((), "maximize")) is None


def test_equal_values_show_a_floor_of_zero() -> None:
    floor = floor_of(table([[1.0, 1.0], [2.0, 2.0]]))
    assert (floor.within.sd, floor.within.low, floor.within.high) == (0.0, 0.0, 0.0)
    assert floor.paired_share is None
