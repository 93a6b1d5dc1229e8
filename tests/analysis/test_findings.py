from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from kdscale.analysis._axis import Axis
from kdscale.analysis._findings import Findings, _shown
from kdscale.analysis._headline import headline
from kdscale.analysis._notes import curse_note, difference_note, noise_note, warm_note
from kdscale.analysis._plots_effects import noise_half
from kdscale.analysis._settle import next_step
from kdscale.analysis._tables_effects import difference_table
from kdscale.records import StudyRecord

from .studies import simulate, study, trial, usual


def test_the_plateau_holds_the_best_and_rivals_do_not() -> None:
    findings = Findings(simulate(6, 4, design="oat"))
    best, level = findings.best, findings.plateau
    assert best is not None
    assert level is not None
    assert best.number in level.members
    assert best.number not in findings.rivals
    assert len(findings.rivals) == len(level.members) - 1
    assert best.number not in findings.to_best
    assert set(findings.to_best) | {best.number} == set(findings.to_undistilled)


def test_differences_to_the_undistilled_agree_with_the_means() -> None:
    record = simulate(6, 4, design="oat")
    findings = Findings(record)
    control = np.mean([one.value for one in record.controls])
    for number, one in findings.to_undistilled.items():
        gap = findings.estimates[number].mean - float(control)
        assert one.difference.mean == pytest.approx(gap)


def test_a_collapsed_configuration_is_worse_and_says_nothing_of_the_noise() -> None:
    record = simulate(6, 4, design="oat")
    last = max(one.configuration or 0 for one in record.trials)
    collapsed = [
        replace(one, value=5.0 + 9.0 * one.seed) if one.configuration == last else one
        for one in record.trials
    ]
    findings = Findings(replace(record, trials=tuple(collapsed)))
    others = tuple(one for one in record.trials if one.configuration != last)
    calm = Findings(replace(record, trials=others))
    assert (findings.far_worse, calm.far_worse) == ((last,), ())
    assert findings.floor == calm.floor
    assert findings.best_value == calm.best_value
    assert findings.plateau is not None
    assert calm.plateau is not None
    assert findings.plateau.members == calm.plateau.members
    assert findings.plateau.worse == (*calm.plateau.worse, last)
    assert findings.estimates[last].n == 4
    assert last in findings.lines[-1].configurations
    rows = {row[0].key: row for row in difference_table(findings).rows}
    assert "far worse" in [cell.text for cell in rows[last]]
    assert f"Left out, here and where differences are judged: c{last:03d}" in noise_note(findings)
    assert "the mean of all but 1 far worse than the rest" in curse_note(findings)
    assert "from all configurations but 1 far worse than the rest" in difference_note(findings)


def cells(values: list[list[float | None]]) -> StudyRecord:
    """Returns a study of one configuration a row and one seed a column; None has failed."""
    trials = [
        trial(len(values[0]) * number + seed, number, seed, value, "done" if value else "failed")
        for number, row in enumerate(values)
        for seed, value in enumerate(row)
    ]
    return study(trials, parameters=("alpha",), seeds=tuple(range(len(values[0]))))


def test_a_collapsed_configuration_with_the_most_seeds_is_not_the_best() -> None:
    rows: list[list[float | None]] = [[70.0 + 0.1 * k, 70.3 - 0.1 * k, None] for k in range(5)]
    findings = Findings(cells([*rows, [10.0, 12.0, 8.0]]))
    assert findings.far_worse == (5,)
    assert findings.best is not None
    assert findings.best.number == 0
    assert findings.summaries[-1].number == 5
    assert 5 not in findings.to_best
    assert any("Configuration c000" in one.text for one in headline(findings.study))


def test_one_seed_judges_nothing() -> None:
    rows: list[list[float | None]] = [[value] for value in (70.2, 70.6, 70.2, 70.5, 70.6, 1.0)]
    findings = Findings(cells(rows))
    assert findings.far_worse == (5,)
    assert findings.plateau is not None
    assert not findings.plateau.worse
    assert len(findings.plateau.members) == 6
    last = {row[0].key: row for row in difference_table(findings).rows}[5]
    assert "far worse" not in [cell.text for cell in last]


def test_one_that_is_ahead_with_fewer_seeds_is_not_level() -> None:
    findings = Findings(cells([[70.0, 71.0, 70.2], [71.5, 72.0, None], [66.0, 67.0, 66.3]]))
    assert findings.settlement is not None
    assert findings.settlement.gap == pytest.approx(-1.27, abs=0.05)
    said = next_step(findings)
    assert said.startswith("The missing seeds of c001, the other one: with those that it has, it")
    assert "ahead of c000" in said
    assert "level" not in said


def test_the_band_of_the_noise_knows_how_little_seeds_say() -> None:
    findings = Findings(simulate(3, 2, design="oat"))
    floor = findings.floor
    assert floor is not None
    noise = floor.residual or floor.within
    wanted = stats.t.ppf(0.975, noise.df) * noise.sd
    assert noise_half(findings, 2) == pytest.approx(wanted)


@pytest.mark.parametrize("gone", [range(3, 5), range(3)])
def test_what_one_side_alone_has_does_not_say_whether_a_start_helped(gone: range) -> None:
    values: list[list[float | None]] = [[71.0, 71.5], [68.0, 68.3], [65.0, 65.2]]
    values += [[71.2, 71.1], [60.0, 60.1]]
    rows = [[None, None] if number in gone else row for number, row in enumerate(values)]
    assert "help" not in warm_note(Findings(replace(cells(rows), first=3)))
    assert "help" in warm_note(Findings(replace(cells(values), first=3)))


def test_what_would_settle_it() -> None:
    settled = Findings(simulate(6, 4, design="oat")).settlement
    assert settled is not None
    assert settled.gap >= 0.0
    assert settled.seeds is None or settled.seeds > 4
    assert 0.1 < settled.shown < 3.0
    assert Findings(simulate(4, 1)).settlement is None
    assert Findings(study()).settlement is None


def test_what_is_shown_is_shown_in_four_of_five() -> None:
    sd, n, df, alpha = 0.5, 6, 40, 0.01
    difference = _shown(sd, n, df, alpha)
    critical = stats.t.ppf(1.0 - alpha / 2.0, df)
    power = stats.nct.sf(critical, df, difference / (sd / math.sqrt(n)))
    assert power == pytest.approx(0.8, abs=0.01)


def test_a_design_is_known_from_a_grid_and_from_random_points() -> None:
    assert Findings(simulate(6, 2, design="oat")).one_at_a_time_only
    assert not Findings(simulate(12, 2)).one_at_a_time_only


def test_few_configurations_have_no_importances_and_no_curves() -> None:
    findings = Findings(usual())
    assert (findings.effects, findings.strongest, findings.lines) == ({}, (), ())
    assert [curve.unit for curve in findings.budget_curves] == ["trials", "seconds"]
    assert Findings(study([trial(0, 0, 0, 70.0)])).budget_curves == ()


@pytest.mark.parametrize("record", [simulate(6, 2, design="oat"), usual()])
def test_order_of_trials_does_not_matter(record: StudyRecord) -> None:
    backwards = Findings(replace(record, trials=record.trials[::-1]))
    findings = Findings(record)
    assert backwards.plateau == findings.plateau
    assert backwards.settlement == findings.settlement
    assert backwards.to_undistilled == findings.to_undistilled
    assert backwards.lines == findings.lines


def test_an_axis_is_logarithmic_where_its_values_are() -> None:
    assert Axis("beta", [0.01, 0.1, 1.0, 10.0]).at(10.0) == pytest.approx(1.0)
    assert Axis("alpha", [1.0, 50.0, 99.0]).at(50.0) == 50.0
    assert Axis("alpha", [-1.0, 0.0, 100.0]).at(0.0) == 0.0
    kinds = Axis("kind", ["b", "a", "b"])
    assert (kinds.at("a"), kinds.at("b"), kinds.layout["ticktext"]) == (0.0, 1.0, ["a", "b"])
    assert Axis("flag", [True, False]).layout["ticktext"] == ["False", "True"]
    assert Axis("one", [3]).at(3) == 3.0
