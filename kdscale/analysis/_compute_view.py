"""Accuracy against compute as a plot and a table."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import groupby

from kdscale.analysis import _format as fmt
from kdscale.analysis._compute import UNDISTILLED, ComputePoint
from kdscale.analysis._format import NOTHING, MetricFormat
from kdscale.analysis._plots import COLOURED, Json, round_digits
from kdscale.analysis._tables import Cell, Column, Table, interval_cell, number_cell, parameter_cell
from kdscale.records import StudyRecord

_LOG_RATIO = 1.5


def compute_table(study: StudyRecord, points: Sequence[ComputePoint]) -> Table:
    """Returns one row a point: what it scored, and what that cost."""
    metric = MetricFormat(study.metric)
    timed = any(point.step_milliseconds for point in points)
    costs = (
        Column("ms a step", numeric=True),
        Column("teacher's part, %", numeric=True),
        Column("passes over the data", numeric=True),
    )
    columns = (
        Column("configuration"),
        *(Column(name, code=True) for name in study.parameters),
        Column("seconds", numeric=True),
        *(costs if timed else ()),
        Column("mean", numeric=True),
        Column("95% interval", numeric=True, interval=True),
        Column("n", numeric=True),
    )
    rows = tuple(
        (
            Cell(point.name, style="control" if point.name == UNDISTILLED else ""),
            *(parameter_cell(point.parameters.get(name)) for name in study.parameters),
            number_cell(point.seconds, f"{point.seconds:,.1f}"),
            *(_cost_cells(point) if timed else ()),
            number_cell(point.estimate.mean, metric.number(point.estimate.mean)),
            interval_cell(point.estimate, metric.interval(point.estimate)),
            number_cell(point.estimate.n, str(point.estimate.n)),
        )
        for point in points
    )
    return Table(columns, rows)


def compute_figure(study: StudyRecord, points: Sequence[ComputePoint]) -> Json:
    """Returns means with intervals against seconds; a line where only the seconds differ."""
    lines = [list(own) for _, own in groupby(points, key=lambda point: point.line)]
    named = [own for own in lines if own[0].name != UNDISTILLED]
    few = len(named) <= COLOURED
    traces = []
    for own in lines:
        control = own[0].name == UNDISTILLED
        colour = f"var(--c{named.index(own)})" if few and not control else "var(--c0)"
        traces.append(_trace(study, own, "var(--text)" if control else colour))
        traces[-1]["showlegend"] = few or control
    seconds = [point.seconds for point in points if point.seconds > 0]
    across: Json = {"title": {"text": "seconds of training"}}
    if max(seconds) > _LOG_RATIO * min(seconds):
        ticks = sorted({float(f"{one:.2g}") for one in seconds}) if few else []
        across |= {"type": "log"} | ({"tickvals": ticks} if ticks else {})
    return {
        "data": traces,
        "layout": {
            "xaxis": across,
            "yaxis": {"title": {"text": html.escape(MetricFormat(study.metric).words)}},
            "hovermode": "closest",
            "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
            "margin": {"l": 64, "r": 16, "t": 28, "b": 56},
        },
    }


def _trace(study: StudyRecord, points: Sequence[ComputePoint], colour: str) -> Json:
    metric = MetricFormat(study.metric)
    known = [point.estimate for point in points]
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(points) > 1 else "markers",
        "name": html.escape(points[0].line),
        "x": [round_digits(point.seconds) for point in points],
        "y": [round_digits(one.mean) for one in known],
        "error_y": {
            "type": "data",
            "array": [round_digits((one.high or one.mean) - one.mean) for one in known],
            "thickness": 1,
            "width": 3,
        },
        "line": {"color": colour, "width": 2},
        "marker": {"size": 8, "color": colour},
        "text": [
            f"{point.name}: {html.escape(metric.value(one.mean))} (n = {one.n})<br>"
            f"{html.escape(fmt.parameters(point.parameters))}<br>{fmt.seconds(point.seconds)}"
            for point, one in zip(points, known, strict=True)
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _cost_cells(point: ComputePoint) -> list[Cell]:
    part = None if point.teacher_part is None else 100.0 * point.teacher_part
    measured = ((point.step_milliseconds, 1), (part, 0), (point.data_epochs, 1))
    return [
        number_cell(value, NOTHING if value is None else f"{value:,.{digits}f}")
        for value, digits in measured
    ]
