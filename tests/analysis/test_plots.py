from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from kdscale.analysis import Findings
from kdscale.analysis._plots import MAX_CURVES, learning_curves, parallel_coordinates
from kdscale.analysis._plots_effects import (
    budget_figure,
    effect_figure,
    main_effect_figure,
    noise_half,
    one_at_a_time_figure,
    surface_figures,
)
from kdscale.analysis.statistics import Effect
from kdscale.records import Value

from .studies import simulate, study, trial, usual


def test_one_curve_a_trial_with_rungs_and_pruned_ones_faded() -> None:
    curves = learning_curves(usual())
    assert curves is not None
    traces = curves.figure["data"]
    assert len(traces) == 9  # the failed trial never finished an epoch
    assert [shape["x0"] for shape in curves.figure["layout"]["shapes"]] == [2]
    by_hover = {trace["hovertemplate"].split("<br>")[1]: trace for trace in traces}
    assert by_hover["c002-s0"]["opacity"] < by_hover["c002-s1"]["opacity"]
    assert by_hover["c001-s0"]["line"] == by_hover["c001-s1"]["line"]
    assert by_hover["c001-s0"]["line"]["color"] == "var(--c0)"
    assert by_hover["undistilled-s0"]["line"]["dash"] == "dash"
    assert {trace["name"] for trace in traces if trace["showlegend"]} == {
        *("c000", "c001", "c002", "others", "undistilled")
    }
    assert list(curves.series) == ["val_accuracy", "val_loss", "train_loss"]
    assert curves.note == ""


def test_many_curves_are_limited_and_the_page_says_so() -> None:
    trials = [trial(number, number, 0, 60.0 + number / 100) for number in range(400)]
    curves = learning_curves(study(trials, [trial(0, None, 0, 50.0)]))
    assert curves is not None
    assert len(curves.figure["data"]) == MAX_CURVES
    assert f"{MAX_CURVES} of 401 trials are drawn" in curves.note
    names = {trace["name"] for trace in curves.figure["data"]}
    assert {"undistilled", "c399", "others"} <= names


def test_a_value_that_is_not_finite_is_a_gap() -> None:
    record = trial(0, 0, 0, 60.0)
    broken = replace(record, history=({"epoch": 1, "val_accuracy": math.nan}, *record.history[1:]))
    curves = learning_curves(study([broken]))
    assert curves is not None
    assert curves.figure["data"][0]["y"][0] is None
    json.dumps(curves.figure, allow_nan=False)


def axes_of(values: list[Value]) -> dict[str, dict[str, object]]:
    trials = [trial(n, n, 0, 60.0 + n, parameters={"p": value}) for n, value in enumerate(values)]
    figure = parallel_coordinates(study(trials, parameters=("p",)))
    assert figure is not None
    return {axis["label"]: axis for axis in figure["data"][0]["dimensions"]}


def test_wide_parameters_get_a_log_axis() -> None:
    axis = axes_of([0.025, 1.0, 8.5])["p"]
    assert axis["values"] == pytest.approx([math.log10(v) for v in (0.025, 1.0, 8.5)], abs=1e-6)
    assert axis["ticktext"] == ["0.05", "0.1", "0.2", "0.5", "1", "2", "5"]
    assert axes_of([1.0, 50.0, 99.0])["p"]["values"] == [1.0, 50.0, 99.0]
    assert axes_of([0.0, 1.0, 1000.0])["p"]["values"] == [0.0, 1.0, 1000.0]


def test_categories_and_constants_get_an_axis() -> None:
    axis = axes_of(["linear", "cosine", "linear"])["p"]
    assert (axis["values"], axis["ticktext"]) == ([1, 0, 1], ["cosine", "linear"])
    assert axes_of([True, False])["p"]["ticktext"] == ["False", "True"]
    assert axes_of([1, "auto"])["p"]["ticktext"] == ["1", "auto"]
    assert axes_of([3.0, 3.0])["p"]["range"] == [2.0, 4.0]


def test_trials_that_stopped_early_start_unselected() -> None:
    figure = parallel_coordinates(usual())
    assert figure is not None
    axes = {axis["label"]: axis for axis in figure["data"][0]["dimensions"]}
    assert axes["epochs"]["constraintrange"] == [3.5, 4]
    assert (figure["data"][0]["line"]["cmin"], figure["data"][0]["line"]["cmax"]) == (70.0, 75.0)
    assert "epochs" not in axes_of([1.0, 2.0])


def test_nothing_to_draw() -> None:
    assert learning_curves(study([trial(0, 0, 0, None, "waiting")])) is None
    assert parallel_coordinates(study([trial(0, 0, 0, None, "failed")])) is None
    assert parallel_coordinates(study([trial(0, 0, 0, 70.0)], parameters=())) is None


def effect(excess: float, low: float, high: float, name: str) -> Effect:
    return Effect("sobol_total", (name,), excess, excess, low, high)


def test_effects_stand_in_order_and_only_detectable_ones_are_coloured() -> None:
    told = [effect(0.1, -0.1, 0.3, "<b>"), effect(0.5, 0.2, 0.8, "alpha")]
    figure = effect_figure(told)
    layout, (points,) = figure["layout"], figure["data"]
    assert layout["yaxis"]["ticktext"] == ["&lt;b&gt;", "alpha"]  # the greatest on top
    assert points["x"] == [0.1, 0.5]
    assert points["marker"]["color"] == ["var(--muted)", "var(--c0)"]
    assert [shape["x0"] for shape in layout["shapes"]] == [0, -0.1, 0.2]
    low, high = layout["xaxis"]["range"]
    assert low < -0.1 < 0.8 < high


def test_a_line_of_a_design_has_its_intervals_and_the_noise_floor() -> None:
    findings = Findings(simulate(6, 4, design="oat"))
    figure = one_at_a_time_figure(findings, findings.lines[0])
    band, points = figure["data"]
    assert len(band["x"]) == 2 * len(points["x"]) == 14
    assert points["x"] == sorted(points["x"])
    floor = figure["layout"]["shapes"][0]
    half = noise_half(findings, 4)
    assert half is not None
    assert floor["y1"] - floor["y0"] == pytest.approx(2.0 * half, abs=1e-3)
    alone = Findings(simulate(6, 1, design="oat"))
    figure = one_at_a_time_figure(alone, alone.lines[0])
    assert len(figure["data"]) == 1  # one seed: neither an interval nor a floor
    assert "shapes" not in figure["layout"]


def test_curves_and_surfaces_lie_where_the_values_are() -> None:
    findings = Findings(simulate(20, 1))
    line = findings.surrogate.line("alpha")
    band, dots, curve = main_effect_figure(findings, line)["data"]
    assert curve["x"] == sorted(curve["x"])
    assert len(dots["x"]) == 20
    assert len(band["y"]) == 2 * len(curve["y"])
    mean, sd = surface_figures(findings, findings.surrogate.surface("alpha", "depth"))
    assert mean["data"][0]["y"] == sd["data"][0]["y"] == [3.0, 5.0, 7.0, 9.0]
    assert len(mean["data"][0]["z"]) == 4
    json.dumps([mean, sd], allow_nan=False)


def test_budgets_are_in_trials_and_in_minutes() -> None:
    findings = Findings(simulate(16, 2))
    in_trials, in_seconds = (budget_figure(findings, one) for one in findings.budget_curves)
    (band, curve), (_, by_minutes) = in_trials["data"], in_seconds["data"]
    assert curve["x"][-1] == 32
    assert band["x"] == [1, 2, 3, 4, 4, 3, 2, 1]
    minutes = sum(row.cost_seconds for row in findings.results.rows) / 60.0
    assert by_minutes["x"][-1] == pytest.approx(minutes)
    assert curve["y"] == sorted(curve["y"])


def test_few_configurations_have_no_band() -> None:
    findings = Findings(simulate(6, 2))
    for known in findings.budget_curves:
        [curve] = budget_figure(findings, known)["data"]
        assert curve["y"] == sorted(curve["y"])
