from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdscale.analysis.statistics import Regrets, Results, plateau, regrets

from .tables import mapped, simulated, table, tables


@st.composite
def families(draw: st.DrawFn) -> dict[str, Results]:
    """Draws two to four tasks with at least two configurations in common."""
    return {f"t{place}": draw(tables()) for place in range(draw(st.integers(2, 4)))}


def plain(found: Regrets | None) -> object:
    """Returns what must not depend on any order."""
    assert found is not None
    rows = [
        (tuple(row.parameters.items()), dict(row.by_task), row.worst, row.low, row.high)
        for row in found.rows
    ]
    members = [dict(row.parameters) for row in found.rows if row.configuration in found.candidates]
    return rows, members, found.left_out


@settings(deadline=None, max_examples=60)
@given(tasks=families())
def test_it_is_zero_at_each_tasks_best_and_never_below(tasks: dict[str, Results]) -> None:
    found = regrets(tasks)
    assert found is not None
    for task in tasks:
        column = [row.by_task[task] for row in found.rows]
        assert min(known.mean for known in column) == 0.0
        for known in column:
            if known.low is not None and known.high is not None:
                assert 0.0 <= known.low <= known.mean <= known.high
    for row in found.rows:
        assert row.worst.mean == max(known.mean for known in row.by_task.values())
        assert row.worst == row.by_task[row.worst_task]
        assert row.low <= row.worst.mean <= row.high
    assert found.best.worst.mean == min(row.worst.mean for row in found.rows)
    assert found.best.configuration in found.candidates


@settings(deadline=None, max_examples=40)
@given(tasks=families(), data=st.data())
def test_no_order_matters(tasks: dict[str, Results], data: st.DataObject) -> None:
    names = data.draw(st.permutations(sorted(tasks)))
    shuffled = {
        name: Results(tuple(data.draw(st.permutations(tasks[name].rows))), tasks[name].goal)
        for name in names
    }
    assert plain(regrets(shuffled)) == plain(regrets(tasks))


@settings(deadline=None, max_examples=40)
@given(tasks=families())
def test_numbers_of_configurations_do_not_matter(tasks: dict[str, Results]) -> None:
    renumbered = {
        name: mapped(results, lambda row: replace(row, configuration=9 - row.configuration))
        for name, results in tasks.items()
    }
    first, second = regrets(tasks), regrets(renumbered)
    assert first is not None
    assert second is not None
    assert [dict(row.parameters) for row in second.rows] == [
        dict(row.parameters) for row in first.rows
    ]
    for before, after in zip(first.rows, second.rows, strict=True):
        assert after.configuration == 9 - before.configuration
        for task in tasks:
            assert after.by_task[task].mean == pytest.approx(before.by_task[task].mean, abs=1e-8)


@settings(deadline=None, max_examples=40)
@given(tasks=families())
def test_a_loss_is_the_mirror_of_a_gain(tasks: dict[str, Results]) -> None:
    mirrored = {
        name: replace(
            mapped(results, lambda row: replace(row, value=-row.value)),
            goal="minimize",  # type: ignore[arg-type]
        )
        for name, results in tasks.items()
    }
    assert plain(regrets(mirrored)) == plain(regrets(tasks))


def test_the_setting_with_the_least_worst_case_wins_no_task() -> None:
    tasks = {
        "a": table([[75.0, 75.2], [74.5, 74.8], [70.0, 70.3]]),
        "b": table([[60.0, 60.1], [64.5, 64.7], [65.0, 65.2]]),
    }
    found = regrets(tasks)
    assert found is not None
    assert found.best.parameters == {"alpha": 1.0}
    assert found.best.worst.mean == pytest.approx(0.5, abs=0.05)
    assert [row.worst_task for row in found.rows] == ["b", "a", "b"]


def test_only_what_all_tasks_have_is_compared() -> None:
    tasks = {
        "a": table([[75.0, 75.2], [74.5, 74.8], [90.0, 90.0]]),
        "b": table([[60.0, 60.1], [64.5, 64.7], [None, None]]),
    }
    found = regrets(tasks)
    assert found is not None
    assert found.left_out == 1
    assert found.rows[0].by_task["a"].mean < 1.0


def test_one_seed_shows_no_noise_so_all_could_be_the_best() -> None:
    found = regrets({"a": table([[75.0], [74.0]]), "b": table([[60.0], [64.5]])})
    assert found is not None
    assert found.best.worst.low is None
    assert (found.best.low, found.best.high) == (0.0, math.inf)
    assert len(found.candidates) == 2


def test_too_little_to_compare_is_none() -> None:
    one = table([[75.0, 75.2], [74.5, 74.8]])
    assert regrets({}) is None
    assert regrets({"a": one}) is None
    assert regrets({"a": one, "b": table([[60.0, 60.1]])}) is None


def test_one_tasks_interval_is_that_of_the_plateau() -> None:
    tasks = {"a": simulated([70.0, 70.5, 71.0], 5, 1), "b": simulated([60.0, 60.1, 61.0], 5, 2)}
    found = regrets(tasks)
    known = plateau(tasks["a"], error_rate=0.025)
    assert found is not None
    assert known is not None
    for row in found.rows:
        low, high = known.margins[row.configuration]
        assert row.by_task["a"].low == max(0.0, -high)
        assert row.by_task["a"].high == max(0.0, -low)


def test_the_intervals_of_all_tasks_hold_together() -> None:
    means = {"a": [70.0, 70.4, 71.0, 70.9], "b": [60.0, 61.0, 60.7, 60.2]}
    missed = 0
    for rng in range(200):
        tasks = {
            name: simulated(truth, 4, 2 * rng + place)
            for place, (name, truth) in enumerate(means.items())
        }
        found = regrets(tasks)
        assert found is not None
        missed += any(
            not known.low <= max(means[task]) - means[task][row.configuration] <= known.high
            for row in found.rows
            for task, known in row.by_task.items()
            if known.low is not None and known.high is not None
        )
    assert missed / 200 <= 0.05 + 2 * float(np.sqrt(0.05 * 0.95 / 200))


def test_one_that_collapses_leaves_the_others_their_intervals() -> None:
    rng = np.random.default_rng(0)
    means = [74.0, 73.0, 72.5, 72.0, 71.0]
    calm = np.array(means)[:, None] + rng.normal(0, 0.1, (5, 3))
    tasks = {name: table(calm + shift) for name, shift in (("a", 0.0), ("b", -9.0))}
    wild = {
        name: table(np.vstack([calm + shift, [5.0, 30.0, 60.0]]))
        for name, shift in (("a", 0.0), ("b", -9.0))
    }
    alone, found = regrets(tasks), regrets(wild)
    assert alone is not None
    assert found is not None
    assert found.candidates == alone.candidates == (0,)
    assert found.best == alone.best
    assert found.rows[-1].configuration == 5
    assert found.rows[-1].worst.low is None
    assert found.rows[-1].high == math.inf
