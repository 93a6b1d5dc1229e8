from __future__ import annotations

import numpy as np
import pytest

from kdscale.analysis.statistics import Race, Result, Results, race

from .tables import simulated, table


def raced(whole: Results, **how: float) -> tuple[Race, Results]:
    """Returns the last step of a race over a whole table, and the rows that it ran."""
    values = {(row.configuration, row.seed): row for row in whole.rows}
    numbers, seeds = whole.layout.configurations, whole.layout.seeds
    rows: list[Result] = []
    while True:
        so_far = Results(tuple(rows), whole.goal)
        step = race(so_far, numbers, seeds, **how)
        if step.done:
            return step, so_far
        assert not {(row.configuration, row.seed) for row in rows} & set(step.run.items())
        rows += [values[item] for item in step.run.items()]


def test_it_starts_with_one_seed_for_all() -> None:
    step = race(Results((), "maximize"), (0, 1, 2), (5, 6))
    assert step == Race({0: 5, 1: 5, 2: 5}, (), None)
    assert not step.done
    assert race(Results((), "maximize"), (), (5, 6)).done


def test_the_clearly_worse_stop_early() -> None:
    step, rows = raced(simulated([*np.linspace(60, 70, 20)], 5, rng=0))
    assert step.leader == 19
    assert 0 in step.stopped
    assert len(rows.rows) < 40
    assert len([row for row in rows.rows if row.configuration == 0]) == 1


def test_equal_ones_use_all_their_seeds() -> None:
    step, rows = raced(simulated([70.0] * 4, 3, rng=0))
    assert (step.stopped, len(rows.rows)) == ((), 12)


def test_the_best_is_seldom_stopped() -> None:
    means = [70.0] * 9
    lost = [0 in raced(simulated(means, 5, rng=rng))[0].stopped for rng in range(300)]
    assert np.mean(lost) <= 0.05


def test_a_tolerance_saves_runs() -> None:
    whole = [simulated([*np.linspace(69.5, 70, 12)], 5, rng=rng, sd=0.1) for rng in range(20)]
    spent = [
        sum(len(raced(one, tolerance=tolerance)[1].rows) for one in whole)
        for tolerance in (0.0, 0.1)
    ]
    assert spent[1] < spent[0]


def test_an_interrupted_race_goes_on_as_it_would_have() -> None:
    whole = simulated([*np.linspace(68, 70, 8)], 4, rng=3)
    step, rows = raced(whole)
    for kept in range(len(rows.rows)):
        part = Results(rows.rows[:kept], "maximize")
        again = race(part, whole.layout.configurations, whole.layout.seeds)
        assert not again.done
    backwards = Results(rows.rows[::-1], "maximize")
    assert race(backwards, whole.layout.configurations, whole.layout.seeds) == step


def test_lower_may_be_better() -> None:
    whole = table([[1.0, 1.01, 1.02], [5.0, 5.01, 5.0], [6.0, 6.0, 6.01]], "minimize")
    assert raced(whole)[0].leader == 0


@pytest.mark.parametrize("rows", [[[1.0], [2.0]], [[1.0, 1.0], [2.0, 2.0]]])
def test_without_noise_nobody_is_stopped(rows: list[list[float]]) -> None:
    step, _ = raced(table(rows))
    assert (step.stopped, step.leader) == ((), 1)
