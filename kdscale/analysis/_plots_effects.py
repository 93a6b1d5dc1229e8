"""Plots of what hyperparameters do, each with what is known of it, as plotly figures in data.

Colours are names of CSS variables, as in `_plots`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

from scipy.special import stdtrit

from kdscale.analysis import _format as fmt
from kdscale.analysis._axis import Axis
from kdscale.analysis._estimate import CONFIDENCE
from kdscale.analysis._findings import Findings
from kdscale.analysis._format import MetricFormat
from kdscale.analysis._plots import Json, round_digits
from kdscale.analysis._summary import configuration_name
from kdscale.analysis.statistics import BudgetCurve, Effect, Line, OneAtATime, Surface

_MARGIN = {"l": 64, "r": 16, "t": 28, "b": 56}
_NORMAL_QUANTILE = 1.96
_MOST_DOTS = 400
_ROW = 34


def one_at_a_time_figure(findings: Findings, line: OneAtATime) -> Json:
    """Returns the means along one hyperparameter with their intervals and the noise floor."""
    metric = MetricFormat(findings.study.metric)
    known = [findings.estimates[number] for number in line.configurations]
    axis = Axis(line.parameter, line.values)
    places = [axis.at(value) for value in line.values]
    low = [one.t[0] if one.t else one.mean for one in known]
    high = [one.t[1] if one.t else one.mean for one in known]
    means = [one.mean for one in known]
    points = _line(places, means) | {
        "mode": "lines+markers",
        "marker": {"size": 8, "color": "var(--c0)"},
        "text": [
            f"{html.escape(line.parameter)} = {html.escape(fmt.parameter(value))}<br>"
            f"{html.escape(metric.value(one.mean))} (n = {one.n})<br>"
            f"{configuration_name(one.configuration)}"
            for value, one in zip(line.values, known, strict=True)
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }
    layout = _layout(axis, metric)
    half = noise_half(findings, min(one.n for one in known))
    if half is not None:
        centre = next(one.mean for one in known if one.configuration == line.baseline)
        layout["shapes"] = [
            {
                "type": "rect",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": round_digits(centre - half),
                "y1": round_digits(centre + half),
                "fillcolor": "var(--floor)",
                "line": {"width": 0},
                "layer": "below",
            }
        ]
    band = [] if low == means else [_band(places, low, high)]
    return {"data": [*band, points], "layout": layout}


def noise_half(findings: Findings, n: int) -> float | None:
    """Returns by how much two means of n paired seeds differ by noise alone, 95% of the time.

    None without an estimate of the noise.
    """
    floor = findings.floor
    if floor is None or n < 1:
        return None
    noise = floor.residual or floor.within
    return float(stdtrit(noise.df, (1.0 + CONFIDENCE) / 2.0)) * noise.sd * math.sqrt(2.0 / n)


def main_effect_figure(findings: Findings, line: Line) -> Json:
    """Returns a process's mean along one hyperparameter with its band, and the configurations."""
    numbers = findings.results.layout.configurations
    tried = [findings.results.parameters[number][line.parameter] for number in numbers]
    axis = Axis(line.parameter, [*line.values, *tried])
    places = [axis.at(value) for value in line.values]
    low = [m - _NORMAL_QUANTILE * s for m, s in zip(line.mean, line.sd, strict=True)]
    high = [m + _NORMAL_QUANTILE * s for m, s in zip(line.mean, line.sd, strict=True)]
    step = math.ceil(len(numbers) / _MOST_DOTS)
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": [axis.at(value) for value in tried[::step]],
        "y": [round_digits(findings.estimates[number].mean) for number in numbers[::step]],
        "marker": {"size": 5, "color": "var(--muted)", "opacity": 0.45},
        "text": [configuration_name(number) for number in numbers[::step]],
        "hovertemplate": "%{text}: %{y}<extra></extra>",
        "showlegend": False,
    }
    data = [_band(places, low, high), dots, _line(places, line.mean)]
    return {"data": data, "layout": _layout(axis, MetricFormat(findings.study.metric))}


def surface_figures(findings: Findings, surface: Surface) -> tuple[Json, Json]:
    """Returns the mean and the standard deviation over two hyperparameters as maps."""
    metric = MetricFormat(findings.study.metric)
    across, along = Axis(surface.first, surface.columns), Axis(surface.second, surface.rows)
    rising = ["var(--scale-0)", "var(--scale-1)", "var(--scale-2)"]
    unsure = ["var(--page)", "var(--faint)", "var(--muted)"]

    def figure(values: Iterable[Sequence[float]], title: str, colours: Sequence[str]) -> Json:
        trace = {
            "type": "heatmap",
            "x": [across.at(value) for value in surface.columns],
            "y": [along.at(value) for value in surface.rows],
            "z": [[round_digits(value) for value in row] for row in values],
            "colorscale": [[place / 2.0, colour] for place, colour in enumerate(colours)],
            "colorbar": {"thickness": 12, "outlinewidth": 0, "title": {"text": title}},
            "zsmooth": "best" if across.numeric and along.numeric else False,
            "hovertemplate": (
                f"{html.escape(surface.first)} %{{x}}<br>{html.escape(surface.second)} %{{y}}<br>"
                f"{title} %{{z}}<extra></extra>"
            ),
        }
        layout = {"xaxis": across.layout, "yaxis": along.layout, "margin": _MARGIN}
        return {"data": [trace], "layout": layout}

    mean = figure(surface.mean.tolist(), "mean, %" if metric.percent else "mean", rising)
    return mean, figure(surface.sd.tolist(), "± sd", unsure)


def effect_figure(told: Sequence[Effect]) -> Json:
    """Returns effects as points with their intervals, the greatest on top; zero is a line."""
    ordered = sorted(told, key=lambda one: one.excess)
    names = [html.escape(" × ".join(one.parameters)) for one in ordered]
    colours = ["var(--c0)" if one.detectable else "var(--muted)" for one in ordered]
    intervals = [
        {
            "type": "line",
            "x0": round_digits(one.low),
            "x1": round_digits(one.high),
            "y0": row,
            "y1": row,
            "line": {"color": colour, "width": 2},
        }
        for row, (one, colour) in enumerate(zip(ordered, colours, strict=True))
    ]
    zero = {
        "type": "line",
        "x0": 0,
        "x1": 0,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": "var(--text)", "width": 1, "dash": "dot"},
    }
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": [round_digits(one.excess) for one in ordered],
        "y": list(range(len(ordered))),
        "marker": {"size": 10, "color": colours},
        "text": [
            f"{name}: {one.excess:.3f} ({one.low:.3f} to {one.high:.3f})<br>{one.verdict}"
            for name, one in zip(names, ordered, strict=True)
        ],
        "hovertemplate": "%{text}<extra></extra>",
        "showlegend": False,
    }
    span = [0.0, *(one.low for one in ordered), *(one.high for one in ordered)]
    pad = 0.06 * (max(span) - min(span)) or 1.0
    layout = {
        "xaxis": {
            "title": {"text": "importance above that of shuffled scores"},
            "range": [min(span) - pad, max(span) + pad],
        },
        "yaxis": {
            "tickvals": list(range(len(ordered))),
            "ticktext": names,
            "range": [-0.6, len(ordered) - 0.4],
            "automargin": True,
        },
        "shapes": [zero, *intervals],
        "height": 92 + _ROW * len(ordered),
        "margin": {"l": 24, "r": 16, "t": 12, "b": 52},
    }
    return {"data": [points], "layout": layout}


def budget_figure(findings: Findings, curve: BudgetCurve) -> Json:
    """Returns the expected best value against the budget, with its band as far as it goes."""
    metric = MetricFormat(findings.study.metric)
    title = {"trials": "trials, each one run of a configuration under a seed"}
    axis = {
        "title": {"text": title.get(curve.unit, "minutes of training, one trial at a time")},
        "rangemode": "tozero",
    }
    unit = 1.0 if curve.unit == "trials" else 60.0
    step = math.ceil(len(curve.budgets) / _MOST_DOTS)
    kept = sorted({*range(0, len(curve.budgets), step), len(curve.budgets) - 1})
    places = [curve.budgets[index] / unit for index in kept]
    mean = [curve.expected[index] for index in kept]
    low, high = (
        [ends[index] for index in kept if index < len(ends)] for ends in (curve.low, curve.high)
    )
    band = [_band(places[: len(low)], low, high)] if low else []
    data = [*band, _line(places, mean)]
    return {"data": data, "layout": {"xaxis": axis, "yaxis": _values(metric), "margin": _MARGIN}}


def _layout(axis: Axis, metric: MetricFormat) -> Json:
    return {"xaxis": axis.layout, "yaxis": _values(metric), "margin": _MARGIN}


def _values(metric: MetricFormat) -> Json:
    unit = ", %" if metric.percent else ""
    return {"title": {"text": html.escape(metric.words + unit)}}


def _line(places: Sequence[float], values: Sequence[float]) -> Json:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [round_digits(place) for place in places],
        "y": [round_digits(value) for value in values],
        "line": {"color": "var(--c0)", "width": 2},
        "hovertemplate": "%{y} at %{x}<extra></extra>",
        "showlegend": False,
    }


def _band(places: Sequence[float], low: Sequence[float], high: Sequence[float]) -> Json:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [round_digits(place) for place in (*places, *reversed(places))],
        "y": [round_digits(value) for value in (*high, *reversed(low))],
        "fill": "toself",
        "fillcolor": "var(--band)",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
