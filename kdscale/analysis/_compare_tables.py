"""The tables of a comparison of studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdscale.analysis import _format as fmt
from kdscale.analysis._compare import StudyComparison
from kdscale.analysis._estimate import Estimate, estimate
from kdscale.analysis._format import NOTHING, MetricFormat
from kdscale.analysis._summary import DISTILLED, cost
from kdscale.analysis._tables import Cell, Column, Table, interval_cell, number_cell
from kdscale.analysis.statistics import MethodComparison

_TEST = MetricFormat("test_accuracy")
_SHARES = (0.25, 0.5, 1.0)


def comparison_tables(comparison: StudyComparison) -> Mapping[str, Table]:
    """Returns name of a file without its ending -> table; only tables with rows."""
    found = {
        "studies": _study_table(comparison),
        "test_pairs": _pair_table(comparison.test, _TEST),
        "validation_pairs": _pair_table(comparison.validation, comparison.metric),
        "equal_budget": _budget_table(comparison),
        "settings": _setting_table(comparison),
    }
    return {name: table for name, table in found.items() if table.rows}


def _study_table(comparison: StudyComparison) -> Table:
    """Returns one row a study, the best first: best configuration, plateau, noise and cost."""
    columns = (
        Column("study"),
        Column("best configuration"),
        Column("mean", numeric=True),
        Column("95% interval", numeric=True, interval=True),
        Column("n", numeric=True),
        Column("by seed", seeds=True),
        Column("less its luck", numeric=True),
        Column("plateau", numeric=True),
        Column("noise", numeric=True),
        Column("test accuracy, %", numeric=True),
        Column("trials", numeric=True),
        Column("epochs", numeric=True),
        Column("training", numeric=True),
    )
    names = [*comparison.ranked, *(n for n in comparison.studies if n not in comparison.ranked)]
    return Table(columns, tuple(_study_row(comparison, name) for name in names))


def _study_row(comparison: StudyComparison, name: str) -> tuple[Cell, ...]:
    study, findings, metric = comparison.studies[name], comparison.findings[name], comparison.metric
    best, level, spent = findings.best, findings.plateau, cost(study)
    known = best.estimate if best is not None else None
    values = tuple(best.values.values()) if best is not None else ()
    shrunk = findings.best_value.shrunk if findings.best_value is not None else None
    noise = findings.floor.within.sd if findings.floor is not None else None
    tested = _tested(comparison, name)
    plateau = Cell(NOTHING)
    if level is not None:
        many = len(level.members) + len(level.worse)
        plateau = Cell(f"{len(level.members)} of {many}", len(level.members))
    by_seed = ", ".join(metric.number(value) for value in values) or NOTHING
    return (
        Cell(name),
        Cell(f"{best.name}: {fmt.parameters(best.parameters)}" if best else NOTHING),
        number_cell(known.mean if known else None, metric.number(known.mean if known else None)),
        interval_cell(known, metric.interval(known)),
        number_cell(len(values), str(len(values))),
        Cell(by_seed, known.mean if known else None, style="by-seed", marks=values),
        number_cell(shrunk, metric.number(shrunk)),
        plateau,
        number_cell(noise, metric.number(noise)),
        number_cell(tested.mean if tested else None, _TEST.number(tested.mean if tested else None)),
        number_cell(spent.trials, f"{spent.trials:,}"),
        number_cell(spent.epochs, f"{spent.epochs:,}"),
        number_cell(spent.train_seconds, fmt.seconds(spent.train_seconds)),
    )


def _tested(comparison: StudyComparison, name: str) -> Estimate | None:
    best, final = comparison.findings[name].best, comparison.studies[name].final
    if best is None or final is None or final.configuration != best.number:
        return None
    scores = {one.label: one.accuracies for one in final.scores}
    values = scores.get(DISTILLED, {})
    return estimate(values.values()) if values else None


def _pair_table(pairs: Sequence[MethodComparison], metric: MetricFormat) -> Table:
    """Returns first minus second of each pair, with every test of it."""
    columns = (
        Column("first"),
        Column("second"),
        Column("first − second", numeric=True),
        Column("95% interval", numeric=True, interval=True),
        Column("n", numeric=True),
        Column("the first is"),
        Column("p, Holm", numeric=True),
        Column("p, Wilcoxon", numeric=True),
        Column("ASO", numeric=True),
        Column("95% bootstrap", numeric=True, interval=True),
    )
    return Table(columns, tuple(_pair_row(pair, metric) for pair in pairs))


def _pair_row(pair: MethodComparison, metric: MetricFormat) -> tuple[Cell, ...]:
    known = pair.difference
    drawn = Estimate(known.mean, known.n, *pair.bootstrap) if pair.bootstrap else None
    return (
        Cell(pair.first),
        Cell(pair.second),
        number_cell(known.mean, metric.signed(known.mean)),
        interval_cell(known, metric.signed_interval(known)),
        number_cell(known.n, str(known.n)),
        Cell(pair.verdict),
        number_cell(pair.p_adjusted, f"{pair.p_adjusted:.3f}"),
        number_cell(pair.wilcoxon_p, f"{pair.wilcoxon_p:.3f}"),
        number_cell(pair.dominance, NOTHING if pair.dominance is None else f"{pair.dominance:.2f}"),
        interval_cell(drawn, metric.signed_interval(drawn) if drawn else NOTHING),
    )


def _budget_table(comparison: StudyComparison) -> Table:
    """Returns first minus second expected best value: as far as there is a band, and at shares."""
    columns = (
        Column("first"),
        Column("second"),
        Column("trials of each", numeric=True),
        Column("first − second", numeric=True),
        Column("95% band", numeric=True, interval=True),
    )
    metric, rows = comparison.metric, []
    for one in comparison.gaps:
        most = len(one.gap.budgets)
        shown = {max(1, round(share * most)) for share in _SHARES} | {len(one.gap.low) or 1}
        for place in (trials - 1 for trials in sorted(shown)):
            value = one.gap.difference[place]
            # The statistic counts what is better as positive; the table shows the metric itself.
            sign = 1.0 if comparison.goal == "maximize" else -1.0
            known = Estimate(sign * value, most)
            if place < len(one.gap.low):
                ends = sorted((sign * one.gap.low[place], sign * one.gap.high[place]))
                known = Estimate(known.mean, most, *ends)
            rows.append(
                (
                    Cell(one.first),
                    Cell(one.second),
                    number_cell(one.gap.budgets[place], f"{one.gap.budgets[place]:,.0f}"),
                    number_cell(known.mean, metric.signed(known.mean)),
                    interval_cell(known, metric.signed_interval(known)),
                )
            )
    return Table(columns, tuple(rows))


def _setting_table(comparison: StudyComparison) -> Table:
    """Returns what differs between the study files, one row a key."""
    columns = (Column("setting"), *(Column(name) for name in comparison.studies))
    rows = [
        (Cell(key), *(Cell(value, style="reason") for value in values))
        for key, values in comparison.settings.items()
    ]
    return Table(columns, tuple(rows))
