"""Tables of differences, of one hyperparameter at a time, and of importances."""

from __future__ import annotations

from collections.abc import Mapping

from kdscale.analysis import _format as fmt
from kdscale.analysis._estimate import NOISE, Estimate
from kdscale.analysis._findings import Findings
from kdscale.analysis._format import NOTHING, MetricFormat
from kdscale.analysis._summary import configuration_name
from kdscale.analysis._tables import Cell, Column, Table, interval_cell, number_cell
from kdscale.analysis.statistics import Comparison, OneAtATime

MEASURE_NAMES: Mapping[str, str] = {
    "sobol_total": "Sobol, total",
    "sobol_first": "Sobol, first order",
    "fanova": "fANOVA",
    "ped_anova": "PED-ANOVA",
    "delta": "delta",
    "pawn": "PAWN",
    "rbd_fast": "RBD-FAST",
    "sobol_pair": "Sobol, pairs",
    "fanova_pair": "fANOVA, pairs",
}
"""Measure -> its name; the first is what a report shows first."""


def difference_table(findings: Findings) -> Table:
    """Returns each configuration's bootstrap interval and its differences, best first."""
    metric = MetricFormat(findings.study.metric)
    best = findings.best.number if findings.best else None
    undistilled = findings.to_undistilled
    columns = [
        Column("configuration"),
        Column("n", numeric=True),
        Column("bootstrap interval", numeric=True, interval=True),
        *_difference_columns("best"),
        *(_difference_columns("undistilled") if undistilled else ()),
    ]
    rows = []
    for summary in findings.summaries:
        known = findings.estimates.get(summary.number)
        if known is None:
            continue
        cells = [
            number_cell(summary.number, summary.name),
            number_cell(summary.n, str(summary.n)),
            _ends(known.bootstrap, metric),
        ]
        if summary.number == best:
            cells += [Cell("the best"), Cell(NOTHING), Cell(NOTHING), Cell(NOTHING)]
        elif summary.number in findings.far_worse and best is not None:
            distance = known.mean - findings.estimates[best].mean
            cells += [number_cell(distance, metric.signed(distance)), Cell(NOTHING), Cell(NOTHING)]
            cells += [Cell("far worse" if findings.floor else NOTHING, style="verdict")]
        else:
            cells += _difference_cells(findings.to_best.get(summary.number), findings, metric)
        if undistilled:
            cells += _difference_cells(undistilled.get(summary.number), findings, metric)
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows))


def sensitivity_table(findings: Findings, line: OneAtATime) -> Table:
    """Returns one hyperparameter across and the metric below: the layout of the papers."""
    metric = MetricFormat(findings.study.metric)
    level = findings.plateau
    members = level.members if level is not None else ()
    known = [findings.estimates[number] for number in line.configurations]
    columns = [Column(line.parameter, code=True)]
    columns += [Column(fmt.parameter(value), numeric=True) for value in line.values]
    unit = ", %" if metric.percent else ""
    rows: list[tuple[Cell, ...]] = [
        (
            Cell(f"{metric.words}{unit}"),
            *(
                Cell(metric.number(one.mean), one.mean, strong=one.configuration in members)
                for one in known
            ),
        ),
        (
            Cell("± (95%)"),
            *(
                number_cell(*_half(one.t, metric)) if one.t is not None else Cell(NOTHING)
                for one in known
            ),
        ),
        (Cell("n"), *(number_cell(one.n, str(one.n)) for one in known)),
        (
            Cell("configuration"),
            *(number_cell(number, configuration_name(number)) for number in line.configurations),
        ),
    ]
    return Table(tuple(columns), tuple(rows))


def importance_table(findings: Findings) -> Table:
    """Returns every effect by every measure, with its interval and what may be said of it."""
    columns = (
        Column("measure"),
        Column("hyperparameter", code=True),
        Column("importance", numeric=True),
        Column("of shuffled scores", numeric=True),
        Column("excess", numeric=True),
        Column("95% interval", numeric=True, interval=True),
        Column("n", numeric=True),
        Column("verdict"),
    )
    n = findings.surrogate.configurations
    rows = tuple(
        (
            Cell(MEASURE_NAMES[measure]),
            Cell(" × ".join(effect.parameters)),
            Cell(_share(effect.importance), effect.importance),
            Cell(_share(effect.importance - effect.excess), effect.importance - effect.excess),
            Cell(_share(effect.excess), effect.excess),
            Cell(
                f"{_share(effect.low)} to {_share(effect.high)}",
                effect.low,
                ends=(effect.low, effect.high),
            ),
            number_cell(n, str(n)),
            Cell(effect.verdict, strong=effect.detectable),
        )
        for measure in MEASURE_NAMES
        for effect in sorted(findings.effects.get(measure, ()), key=lambda one: -one.excess)
    )
    return Table(columns, rows)


def _difference_columns(against: str) -> tuple[Column, ...]:
    return (
        Column(f"− {against}", numeric=True),
        Column(f"interval of − {against}", numeric=True, interval=True),
        Column(f"p of − {against}", numeric=True),
        Column(f"than {against}"),
    )


def _difference_cells(
    comparison: Comparison | None, findings: Findings, metric: MetricFormat
) -> list[Cell]:
    if comparison is None:
        return [Cell(NOTHING)] * 4
    known = comparison.difference
    verdict = NOISE
    if comparison.distinguishable:
        verdict = "better" if findings.results.sign * known.mean > 0.0 else "worse"
    return [
        number_cell(known.mean, metric.signed(known.mean)),
        interval_cell(known, metric.signed_interval(known)),
        number_cell(*_p(comparison, known)),
        Cell(verdict, style="verdict"),
    ]


def _p(comparison: Comparison, known: Estimate) -> tuple[float | None, str]:
    if known.low is None:
        return None, NOTHING
    p = comparison.p_adjusted
    return p, "< 0.001" if p < 0.001 else f"{p:.3f}"


def _ends(interval: tuple[float, float] | None, metric: MetricFormat) -> Cell:
    if interval is None:
        return Cell(NOTHING)
    low, high = interval
    return Cell(f"{metric.number(low)} to {metric.number(high)}", low, ends=interval)


def _half(interval: tuple[float, float], metric: MetricFormat) -> tuple[float, str]:
    half = (interval[1] - interval[0]) / 2.0
    return half, metric.number(half)


def _share(value: float) -> str:
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")
