from __future__ import annotations

from dataclasses import replace

import pytest

from kdscale.analysis import markdown
from kdscale.analysis._compute import COMPUTE, compute_note, compute_points, largest_miss
from kdscale.analysis._compute_view import compute_figure, compute_table
from kdscale.analysis._export import FORMATS
from kdscale.records import StudyRecord, TrialRecord

from .studies import study, trial, usual

BUDGET = 10.0


def timed_trial(
    number: int, configuration: int, seed: int, weight: float, multiple: float, value: float
) -> TrialRecord:
    """Returns a trial of which a step costs 10 ms, or 20 ms with a weight."""
    step = 0.02 if weight else 0.01
    spent = BUDGET * multiple * 1.004
    row = {
        "epoch": 4.0,
        "val_accuracy": value,
        "compute_seconds": spent,
        "teacher_seconds": 0.25 * spent if weight else 0.0,
        "steps": spent / step,
        "data_epochs": spent / step / 100,
    }
    known = trial(number, configuration, seed, value, parameters={"w": weight, COMPUTE: multiple})
    return replace(known, history=(*known.history[:-1], row), train_seconds=spent)


def timed_study(gain: float = 2.0) -> StudyRecord:
    """Returns weights 0 and 1 at 1, 2 and 4 times the budget under three seeds."""
    trials = []
    for weight in (0.0, 1.0):
        for place, multiple in enumerate((1.0, 2.0, 4.0)):
            for seed in range(3):
                value = 60.0 + place + gain * weight + 0.1 * seed + 0.01 * seed * weight
                configuration = 3 * int(weight) + place
                number = len(trials)
                trials.append(timed_trial(number, configuration, seed, weight, multiple, value))
    return study(trials, parameters=("w", COMPUTE), budget_seconds=BUDGET, rungs=())


def test_points_are_lines_of_what_differs_in_compute_alone() -> None:
    points = compute_points(timed_study())
    assert [point.name for point in points] == ["c000", "c001", "c002", "c003", "c004", "c005"]
    assert [point.multiple for point in points] == [1, 2, 4, 1, 2, 4]
    assert len({point.line for point in points}) == 2
    assert points[0].step_milliseconds == pytest.approx(10.0)
    assert points[3].step_milliseconds == pytest.approx(20.0)
    assert (points[0].teacher_part, points[3].teacher_part) == (0.0, pytest.approx(0.25))


def test_the_note_tells_signal_from_compute() -> None:
    found = timed_study()
    miss = largest_miss(found)
    assert miss is not None
    assert miss == (pytest.approx(0.004), 18)
    note = compute_note(found, compute_points(found))
    assert "18 complete trials stopped within 0.40% of their seconds" in note
    assert "(×1) c003 leads, whose steps cost 2.00 times those of c000" in note
    assert "+2.01, 95% interval" in note
    assert note.count("More compute alone") == 2
    assert "×4 instead of ×1" in note


def test_a_lead_within_the_noise_is_called_that() -> None:
    note = compute_note(timed_study(gain=0.0), compute_points(timed_study(gain=0.0)))
    assert "not distinguishable from noise" in note


def test_equal_epochs_are_not_called_equal_compute() -> None:
    points = compute_points(usual())
    note = compute_note(usual(), points)
    assert "undistilled" in [point.name for point in points]
    assert all(point.step_milliseconds is None for point in points)
    assert "equal epochs, not equal seconds" in note


def test_nothing_is_shown_where_nothing_was_measured() -> None:
    bare = study([replace(trial(0, 0, 0, 70.0), train_seconds=0.0)])
    assert compute_points(bare) == ()
    assert compute_note(bare, ()) == ""
    assert "against compute" not in markdown(study())


@pytest.mark.parametrize("found", [timed_study(), usual()], ids=["wall clock", "epochs"])
def test_table_and_figure_hold_every_point(found: StudyRecord) -> None:
    points = compute_points(found)
    table = compute_table(found, points)
    assert len(table.rows) == len(points)
    for write in FORMATS.values():
        assert "c000" in write(table)
    figure = compute_figure(found, points)
    assert sum(len(trace["x"]) for trace in figure["data"]) == len(points)
    assert "Accuracy against compute" in markdown(found)
