"""The plots of a report as plotly figures in plain JSON data.

Colours are names of CSS variables (``var(--accent)``): the page's script puts in the colours of
the light or the dark theme, so that one figure serves both.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from kdscale.analysis import _format as fmt
from kdscale.analysis._format import MetricFormat
from kdscale.analysis._summary import rank, summarise
from kdscale.analysis.statistics import common_range
from kdscale.records import StudyRecord, TrialRecord, Value

Json = dict[str, Any]

COLOURED = 8
"""Configurations with a colour of their own in the learning curves; `report.css` has as many."""

MAX_CURVES = 120
"""Learning curves drawn at most: more cannot be told apart and make the page heavy."""

_LOG_RATIO = 100.0
_MAX_TICKS = 12
_STEEP_SHARE = 4
_TICK_DISTANCE = 0.08


@dataclass(frozen=True)
class Curves:
    """Learning curves.

    Attributes:
        figure: Plotly figure that shows the study's metric.
        series: Metric name -> ``values`` of each trace and the ``range`` to show at first, to
            switch between metrics.
        note: What the figure leaves out; empty if nothing.
    """

    figure: Json
    series: Mapping[str, Json]
    note: str


def learning_curves(study: StudyRecord) -> Curves | None:
    """Returns one curve a trial, the best configurations coloured; None if nothing has trained."""
    trained = [trial for trial in (*study.trials, *study.controls) if trial.history]
    if not trained:
        return None
    ranked = [summary.number for summary in rank(summarise(study), study.goal) if summary.n]
    places = {number: place for place, number in enumerate(ranked[:COLOURED])}
    shown = _limit(trained, places)
    metrics = _metric_names(study, shown)
    series = {name: _series(shown, name, study.epochs) for name in metrics}
    first = series[metrics[0]]
    traces = [
        _curve(trial, _place(trial, places), values)
        for trial, values in zip(shown, first["values"], strict=True)
    ]
    # The last trace of a name is the least faded one: it stands in the legend.
    last = {trace["name"]: index for index, trace in enumerate(traces)}
    for index, trace in enumerate(traces):
        trace["showlegend"] = last[trace["name"]] == index
    note = ""
    if len(shown) < len(trained):
        note = (
            f"{len(shown)} of {len(trained):,} trials are drawn: the undistilled students, the "
            f"{len(places)} best configurations and an even choice of the others."
        )
    return Curves(
        {"data": traces, "layout": _curve_layout(study, metrics[0], first["range"])}, series, note
    )


def parallel_coordinates(study: StudyRecord) -> Json | None:
    """Returns one line a trial across its hyperparameters; None without values or parameters.

    Trials that stopped early are faded at first by a selection on the axis of epochs.
    """
    trials = [trial for trial in study.trials if round_digits(trial.value) is not None]
    if not trials or not study.parameters:
        return None
    axes = [_parameter_axis(name, trials) for name in study.parameters]
    lengths = [len(trial.history) for trial in trials]
    if min(lengths) != max(lengths):
        axes.append(_epoch_axis(lengths, study.epochs))
    values = [value for trial in trials if (value := round_digits(trial.value)) is not None]
    axes.append({"label": html.escape(study.metric), "values": values} | _padded(values))
    done = [
        value for trial, value in zip(trials, values, strict=True) if trial.state == "done"
    ] or values
    low, high = common_range(done)
    line = {
        "color": values,
        "cmin": low,
        "cmax": high,
        "colorscale": [[0, "var(--scale-0)"], [0.5, "var(--scale-1)"], [1, "var(--scale-2)"]],
        "reversescale": study.goal == "minimize",
    }
    trace = {
        "type": "parcoords",
        "dimensions": axes,
        "line": line,
        "unselected": {"line": {"color": "var(--faint)", "opacity": 0.35}},
        "labelfont": {"color": "var(--text)", "size": 13},
        "tickfont": {"color": "var(--muted)", "size": 11},
        "rangefont": {"color": "rgba(0,0,0,0)", "size": 1},
    }
    return {"data": [trace], "layout": {"margin": {"l": 48, "r": 64, "t": 44, "b": 20}}}


def _limit(trained: Sequence[TrialRecord], places: Mapping[int, int]) -> list[TrialRecord]:
    """Returns the trials to draw: faint ones first, so that the coloured lie on top."""
    first = [trial for trial in trained if _place(trial, places) is not None][:MAX_CURVES]
    names = {trial.name for trial in first}
    others = [trial for trial in trained if trial.name not in names]
    room = min(MAX_CURVES - len(first), len(others))
    others = [others[index * len(others) // room] for index in range(room)]
    return [*others, *sorted(first, key=lambda t: (-(_place(t, places) or 0), t.state == "done"))]


def _place(trial: TrialRecord, places: Mapping[int, int]) -> int | None:
    """Returns the trial's place in the legend, or None for one of the others."""
    return COLOURED if trial.configuration is None else places.get(trial.configuration)


def _curve(trial: TrialRecord, place: int | None, values: Sequence[float | None]) -> Json:
    group = "others" if place is None else trial.name.rsplit("-s", 1)[0]
    if place is None:
        line = {"color": "var(--muted)", "width": 1}
    elif trial.is_control:
        line = {"color": "var(--text)", "width": 2, "dash": "dash"}
    else:
        line = {"color": f"var(--c{place})", "width": 2}
    ended = trial.state + (f", {trial.reason}" if trial.reason else "")
    hover = "<br>".join(
        html.escape(part) for part in (trial.name, fmt.parameters(trial.parameters), ended)
    )
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(trial.history) == 1 else "lines",
        "name": group,
        "legendgroup": group,
        "legendrank": COLOURED + 1 if place is None else place,
        "x": [int(row.get("epoch", index)) for index, row in enumerate(trial.history, start=1)],
        "y": list(values),
        "line": line,
        "opacity": 1.0 if trial.state == "done" and place is not None else 0.4,
        "hovertemplate": f"%{{y}} at epoch %{{x}}<br>{hover}<extra></extra>",
    }


def _curve_layout(study: StudyRecord, metric: str, shown: list[float] | None) -> Json:
    rungs = [rung for rung in study.rungs if rung < study.epochs]
    line = {"color": "var(--muted)", "width": 1, "dash": "dot"}
    return {
        "xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": html.escape(MetricFormat(metric).words)}, "range": shown},
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
        "margin": {"l": 56, "r": 12, "t": 24, "b": 48},
        "shapes": [
            {
                "type": "line",
                "x0": rung,
                "x1": rung,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": line,
            }
            for rung in rungs
        ],
        "annotations": [
            {
                "x": rung,
                "y": 1,
                "yref": "paper",
                "yanchor": "bottom",
                "text": f"rung {rung}",
                "showarrow": False,
                "font": {"size": 11, "color": "var(--muted)"},
            }
            for rung in rungs
        ],
    }


def _metric_names(study: StudyRecord, trials: Sequence[TrialRecord]) -> list[str]:
    names = {name for trial in trials for row in trial.history for name in row} - {"epoch"}
    return [study.metric, *sorted(names - {study.metric}, key=_metric_order)]


def _metric_order(name: str) -> tuple[bool, bool, str]:
    return (not name.startswith("val_"), not name.startswith("train_"), name)


def _series(trials: Sequence[TrialRecord], metric: str, epochs: int) -> Json:
    values = [[round_digits(row.get(metric)) for row in trial.history] for trial in trials]
    # The first epochs differ far more than the trials do and would hide them.
    late = [
        value for line in values for value in line[epochs // _STEEP_SHARE :] if value is not None
    ]
    if not late or min(late) == max(late):
        return {"values": values, "range": None}
    pad = 0.04 * (max(late) - min(late))
    return {"values": values, "range": [min(late) - pad, max(late) + pad]}


def round_digits(value: float | None) -> float | None:
    """Returns the value with six significant digits, or None where it is not finite."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


def _parameter_axis(name: str, trials: Sequence[TrialRecord]) -> Json:
    values = [trial.parameters.get(name) for trial in trials]
    label: Json = {"label": html.escape(name)}
    numbers = [
        float(value)
        for value in values
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    if len(numbers) < len(values):
        return label | _category_axis(values)
    if min(numbers) > 0 and max(numbers) / min(numbers) > _LOG_RATIO:
        return label | _log_axis(numbers)
    axis: Json = label | {"values": numbers} | _padded(numbers)
    distinct = sorted(set(numbers))
    apart = _TICK_DISTANCE * (distinct[-1] - distinct[0])
    if all(high - low >= apart for low, high in pairwise(distinct)):
        axis |= {"tickvals": distinct, "ticktext": [fmt.parameter(value) for value in distinct]}
    return axis


def _category_axis(values: Sequence[Value | None]) -> Json:
    texts = [fmt.parameter(value) for value in values]
    names = sorted(set(texts))
    codes: list[float] = [names.index(text) for text in texts]
    ticks = {"tickvals": list(range(len(names))), "ticktext": [html.escape(n) for n in names]}
    return {"values": codes} | ticks | _padded(codes)


def _log_axis(numbers: Sequence[float]) -> Json:
    logs = [math.log10(number) for number in numbers]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    steps = (1, 2, 5) if high - low <= 4 else (1,)
    ticks = [step * 10.0**power for power in range(low, high + 1) for step in steps]
    ticks = [tick for tick in ticks if min(numbers) <= tick <= max(numbers)]
    return {
        "values": [round(log, 6) for log in logs],
        "tickvals": [math.log10(tick) for tick in ticks],
        "ticktext": [f"{tick:g}" for tick in ticks],
        "range": [min(logs), max(logs)],
    }


def _epoch_axis(lengths: Sequence[int], epochs: int) -> Json:
    ticks = sorted(set(lengths))
    axis: Json = {"label": "epochs", "values": list(lengths), "range": [min(lengths), epochs]}
    if len(ticks) <= _MAX_TICKS:
        axis |= {"tickvals": ticks, "ticktext": [str(tick) for tick in ticks]}
    if epochs in lengths:
        axis["constraintrange"] = [epochs - 0.5, epochs]
    return axis


def _padded(numbers: Sequence[float]) -> Json:
    """Returns a range for an axis with one value only, which plotly could not scale."""
    low, high = min(numbers), max(numbers)
    return {"range": [low - 1, high + 1]} if low == high else {}
