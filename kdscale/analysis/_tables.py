"""The tables of a report, as data; rendered to HTML in `_html` and to text in `_export`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kdscale.analysis import _format as fmt
from kdscale.analysis._estimate import Estimate, estimate
from kdscale.analysis._format import NOTHING, MetricFormat
from kdscale.analysis._summary import (
    DISTILLED,
    TEACHER,
    UNDISTILLED,
    ConfigurationSummary,
    configuration_name,
    final_difference,
    full_value,
    rank,
    seed_values,
    summarise,
)
from kdscale.analysis.statistics import Plateau
from kdscale.records import FinalEvaluation, FinalScores, StudyRecord, TrialRecord, Value


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: What is shown.
        key: What the column sorts by; None sorts last in either direction.
        style: CSS class of the cell in HTML.
        marks: Values of single seeds and their mean, drawn as dots in HTML.
        ends: Ends of an interval, unrounded.
        strong: Whether it stands out: a mean that is not distinguishable from the best.
        link: Where it leads in HTML, if anywhere.
    """

    text: str
    key: float | str | None = None
    style: str = ""
    marks: tuple[float, ...] = ()
    ends: tuple[float, float] | None = None
    strong: bool = False
    link: str = ""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: Its head.
        numeric: Whether its cells are aligned to the right.
        code: Whether its title is a name from the study file.
        interval: Whether its cells are intervals.
        seeds: Whether its cells list what single seeds say.
    """

    title: str
    numeric: bool = False
    code: bool = False
    interval: bool = False
    seeds: bool = False


@dataclass(frozen=True)
class Table:
    """Columns and rows of cells.

    Attributes:
        columns: One a cell of a row.
        rows: The rows from top to bottom.
        reference: Where the dots of all rows are set against a line, if anywhere.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    reference: float | None = None


def number_cell(value: float | None, text: str) -> Cell:
    """Returns a cell that sorts by its number; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return Cell(NOTHING)
    return Cell(text, value)


def parameter_cell(value: Value | None) -> Cell:
    """Returns a cell for a hyperparameter's value, unrounded where it is a number."""
    key = str(value) if isinstance(value, bool) else value
    return Cell(fmt.parameter(value), key)


def interval_cell(known: Estimate | None, text: str) -> Cell:
    """Returns a cell for the estimate's interval; a dash where there is none."""
    if known is None or known.low is None or known.high is None:
        return Cell(NOTHING)
    return Cell(text, known.low, ends=(known.low, known.high))


def final_table(final: FinalEvaluation) -> Table:
    """Returns teacher, undistilled and distilled student on the test set, side by side."""
    metric = MetricFormat("test_accuracy")
    by_label = {scores.label: scores for scores in final.scores}
    names = {DISTILLED: f"{DISTILLED}, {configuration_name(final.configuration)}"}
    rows = [
        _final_row(names.get(label, label), by_label[label], metric)
        for label in (TEACHER, UNDISTILLED, DISTILLED)
        if label in by_label and by_label[label].accuracies
    ]
    difference = final_difference(final)
    if difference is not None:
        known = difference.estimate
        rows.append(
            (
                Cell("distilled − undistilled, paired by seed", style="difference"),
                Cell(NOTHING),
                Cell(metric.signed(known.mean), known.mean),
                interval_cell(known, metric.signed_interval(known)),
                Cell(str(known.n), known.n),
                Cell(difference.verdict),
            )
        )
    columns = (
        Column("network"),
        Column("parameters", numeric=True),
        Column("test accuracy, %", numeric=True),
        Column("95% interval", numeric=True, interval=True),
        Column("n", numeric=True),
        Column("by seed", seeds=True),
    )
    return Table(columns, tuple(rows))


def configuration_table(study: StudyRecord, level: Plateau | None) -> Table:
    """Returns the undistilled student and then one row a configuration, best first.

    Args:
        study: The study.
        level: Which configurations can be told from the best, where that is known: means of the
            others stand out.
    """
    metric = MetricFormat(study.metric)
    summaries = rank(summarise(study), study.goal)
    raced = any(summary.raced_out for summary in summaries)
    rows = [
        _configuration_row(summary, study, metric, level)
        + ((Cell(summary.raced_out or NOTHING, summary.raced_out or None),) if raced else ())
        for summary in summaries
    ]
    reference = None
    if study.controls:
        values = seed_values(study.controls)
        cells = [Cell("undistilled", style="control")]
        known = estimate(values.values()) if values else None
        reference = known.mean if known else None
        cells += _estimate_cells(known, tuple(values.values()), metric)
        cells += [Cell(NOTHING) for _ in ("standing", *study.parameters)]
        cells += _seed_cells(study.controls)
        cells += [Cell(NOTHING)] if raced else []
        rows.insert(0, tuple(cells))
    columns = (
        Column("configuration"),
        Column("mean", numeric=True),
        Column("95% interval", numeric=True, interval=True),
        Column("n", numeric=True),
        Column("by seed", seeds=True),
        Column("against the best"),
        *(Column(name, numeric=_is_numeric(study, name), code=True) for name in study.parameters),
        Column("pruned"),
        Column("failed"),
        *([Column("raced out")] if raced else []),
    )
    return Table(columns, tuple(rows), reference)


def trial_table(study: StudyRecord, links: Mapping[str, str] | None = None) -> Table:
    """Returns one row a trial: finished ones first, best first; then the others by number.

    Args:
        study: The study.
        links: Name of a trial -> its page in MLflow.
    """
    pages = links or {}
    metric = MetricFormat(study.metric)
    sign = -1.0 if study.goal == "maximize" else 1.0

    def order(trial: TrialRecord) -> tuple[bool, float, bool, int]:
        value = full_value(trial)
        return (value is None, sign * (value or 0.0), trial.is_control, trial.number)

    everything = (*study.trials, *study.controls)
    again = any(len(trial.attempts) > 1 for trial in everything)
    columns = (
        Column("trial"),
        Column("state"),
        Column(study.metric, numeric=True, code=True),
        Column("epochs", numeric=True),
        Column("reason"),
        *(Column(name, numeric=_is_numeric(study, name), code=True) for name in study.parameters),
        Column("seed", numeric=True),
        Column("attempt", numeric=True),
        *([Column("earlier attempts")] if again else []),
        Column("seconds", numeric=True),
    )
    rows = tuple(
        (
            Cell(trial.name, link=pages.get(trial.name, "")),
            Cell(trial.state, style=f"state {trial.state}"),
            number_cell(trial.value, metric.number(trial.value)),
            number_cell(len(trial.history), str(len(trial.history))),
            Cell(trial.reason, trial.reason or None, style="reason"),
            *(parameter_cell(trial.parameters.get(name)) for name in study.parameters),
            number_cell(trial.seed, str(trial.seed)),
            number_cell(trial.attempt, str(trial.attempt)),
            *([Cell(earlier_attempts(trial), style="reason")] if again else []),
            number_cell(trial.train_seconds, f"{trial.train_seconds:,.1f}"),
        )
        for trial in sorted(everything, key=order)
    )
    return Table(columns, rows)


def earlier_attempts(trial: TrialRecord) -> str:
    """Returns why a trial's attempts but the last ended, or a dash: ``node lost at epoch 3``."""
    told = [f"{one.reason} at epoch {one.epoch}" for one in trial.attempts[:-1] if one.reason]
    return ", ".join(told) or NOTHING


def _final_row(label: str, scores: FinalScores, metric: MetricFormat) -> tuple[Cell, ...]:
    values = tuple(scores.accuracies.values())
    count = number_cell(scores.parameters or None, f"{scores.parameters:,}")
    return (Cell(label), count, *_estimate_cells(estimate(values), values, metric))


def _configuration_row(
    summary: ConfigurationSummary, study: StudyRecord, metric: MetricFormat, level: Plateau | None
) -> tuple[Cell, ...]:
    mean, *others = _estimate_cells(summary.estimate, tuple(summary.values.values()), metric)
    standing = Cell(NOTHING)
    if level is not None and summary.number in level.members:
        mean, standing = replace(mean, strong=True), Cell("plateau", 0)
    elif level is not None and summary.number in level.worse:
        standing = Cell("worse", 1)
    return (
        number_cell(summary.number, summary.name),
        mean,
        *others,
        standing,
        *(parameter_cell(summary.parameters.get(name)) for name in study.parameters),
        *(Cell(fmt.seeds(seeds), len(seeds)) for seeds in (summary.pruned, summary.failed)),
    )


def _estimate_cells(
    known: Estimate | None, values: Sequence[float], metric: MetricFormat
) -> list[Cell]:
    by_seed = ", ".join(metric.number(value) for value in values) or NOTHING
    mean = known.mean if known else None
    return [
        number_cell(mean, metric.number(mean)),
        interval_cell(known, metric.interval(known)),
        number_cell(len(values), str(len(values))),
        Cell(by_seed, mean, style="by-seed", marks=tuple(values)),
    ]


def _seed_cells(trials: Sequence[TrialRecord]) -> list[Cell]:
    groups = {
        state: sorted(trial.seed for trial in trials if trial.state == state)
        for state in ("pruned", "failed")
    }
    return [Cell(fmt.seeds(seeds), len(seeds)) for seeds in groups.values()]


def _is_numeric(study: StudyRecord, name: str) -> bool:
    values = (trial.parameters.get(name) for trial in study.trials)
    return all(
        isinstance(value, (int, float)) and not isinstance(value, bool)
        for value in values
        if value is not None
    )
