from __future__ import annotations

import numpy as np

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
        rows += [values[item] for item in step.run.items()]


def test_the_clearly_worse_stop_early() -> None:
    step, rows = raced(simulated([*np.linspace(60, 70, 20)], 5, rng=0))
    assert step.leader == 19
    assert len(rows.rows) < 40
    assert len([row for row in rows.rows if row.configuration == 0]) == 1


def test_a_tolerance_saves_runs() -> None:
    whole = [simulated([*np.linspace(69.5, 70, 12)], 5, rng=rng, sd=0.1) for rng in range(20)]
    spent = [
        sum(len(raced(one, tolerance=tolerance)[1].rows) for one in whole)
        for tolerance in (0.0, 0.1)
    ]
    assert spent[1] < spent[0]


def test_lower_may_be_better() -> None:
    whole = table([[1.0, 1.01, 1.02], [5.0, 5.01, 5.0], [6.0, 6.0, 6.01]], "minimize")
    assert raced(whole)[0].leader == 0
