"""What a report on several tasks says: its sentences and tables, from the tasks' own studies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from kdscale.analysis import _format as fmt
from kdscale.analysis._estimate import NOISE, Estimate
from kdscale.analysis._findings import Findings
from kdscale.analysis._format import NOTHING, MetricFormat
from kdscale.analysis._headline import Statement
from kdscale.analysis._summary import (
    DISTILLED,
    TEACHER,
    UNDISTILLED,
    configuration_name,
    cost,
    state_counts,
)
from kdscale.analysis._tables import Cell, Column, Table, interval_cell, number_cell, parameter_cell
from kdscale.analysis.statistics import Regret, Regrets, regrets
from kdscale.records import StudyRecord

_KINDS = (TEACHER, UNDISTILLED, DISTILLED)
_MOST_EQUAL = 3


@dataclass(frozen=True)
class TaskStudies:
    """A study of several tasks.

    Attributes:
        name: Its name.
        studies: Task -> its own study, in file order; those that have begun.
        waiting: Tasks that have not begun.
        study_file: The study file.
    """

    name: str
    studies: Mapping[str, StudyRecord]
    waiting: tuple[str, ...] = ()
    study_file: str = ""


class TaskContents:
    """Statistics and tables of a study of several tasks.

    Args:
        whole: The study; at least one task has begun.
    """

    def __init__(self, whole: TaskStudies) -> None:
        self.whole = whole
        self.findings = {task: Findings(study) for task, study in whole.studies.items()}
        any_study = next(iter(whole.studies.values()))
        self.metric = MetricFormat(any_study.metric)
        self.goal = any_study.goal

    @cached_property
    def regrets(self) -> Regrets | None:
        """The regret of each configuration on each task that has begun."""
        return regrets({task: found.results for task, found in self.findings.items()})

    @cached_property
    def tables(self) -> Mapping[str, Table]:
        """Name of a file without its ending -> table; only tables with rows."""
        found = {"tasks": self._tasks()}
        if self.regrets is not None:
            found["regret"] = self._regret(self.regrets)
            found["means"] = self._means(self.regrets)
        return {name: table for name, table in found.items() if table.rows}

    def headline(self) -> tuple[Statement, ...]:
        """Returns question, answer, how sure it is, and what it cost."""
        statements = (
            Statement("Unfinished", self._unfinished()),
            Statement("Question", self._question()),
            Statement("Answer", self._answer()),
            Statement("How sure", self._how_sure()),
            Statement("Cost", self._cost()),
        )
        return tuple(statement for statement in statements if statement.text)

    def _unfinished(self) -> str:
        parts = []
        for task, study in self.whole.studies.items():
            counts = state_counts(study)
            left = counts["running"] + counts["waiting"]
            if left:
                parts.append(f"{task} lacks {left} of {fmt.count(counts.total(), 'trial')}")
        parts += [f"{task} has not begun" for task in self.whole.waiting]
        return f"{fmt.listed(parts)}: everything below can still change." if parts else ""

    def _question(self) -> str:
        names = [*self.whole.studies, *self.whole.waiting]
        asked = dict.fromkeys(
            name for study in self.whole.studies.values() for name in study.parameters
        )
        what = f"Which setting of {fmt.listed([*asked])}" if asked else "Which setting"
        return (
            f"{what} can one take on each of {fmt.count(len(names), 'task')}, {fmt.listed(names)}, "
            "and how much does a task lose by it against a setting of its own?"
        )

    def _answer(self) -> str:
        found = self.regrets
        if found is None:
            return (
                "None yet: fewer than two tasks have two configurations in common that trained to "
                "the last epoch on each."
            )
        best = found.best
        values = f" ({fmt.parameters(best.parameters)})" if best.parameters else ""
        return (
            f"Configuration {configuration_name(best.configuration)}{values} has the least "
            f"worst-case regret: it is at most {self.metric.distance(best.worst.mean)} behind the "
            f"best of any task{self._bounds(best)}, on {best.worst_task}."
        )

    def _how_sure(self) -> str:
        found = self.regrets
        if found is None:
            return ""
        rivals, others = len(found.candidates) - 1, len(found.rows) - 1
        told = fmt.listed([f"{_best_alone(found, task)} on {task}" for task in found.tasks])
        best_alone = f"The best of each task alone: {told}."
        if not rivals:
            return (
                f"Its worst case is below that of the {others} others by more than noise "
                f"explains. {best_alone}"
            )
        return f"Its lead over {rivals} of the {others} others is {NOISE}. {best_alone}"

    def _cost(self) -> str:
        spent = [cost(study) for study in self.whole.studies.values()]
        trials = fmt.count(sum(one.trials for one in spent), "trial")
        controls = sum(one.controls for one in spent)
        undistilled = f" ({controls} of them undistilled)" if controls else ""
        epochs = fmt.count(sum(one.epochs for one in spent), "epoch")
        seconds = fmt.seconds(math.fsum(one.train_seconds for one in spent))
        return f"{trials}{undistilled}, {epochs}, {seconds} of training."

    def _bounds(self, row: Regret) -> str:
        if not math.isfinite(row.high):
            return ""
        low, high = self.metric.number(row.low), self.metric.number(row.high)
        return f" (95% interval {low} to {high})"

    def _tasks(self) -> Table:
        columns = (
            Column("task"),
            Column("best configuration"),
            Column("hyperparameters"),
            Column(f"{self.metric.words}{', %' if self.metric.percent else ''}", numeric=True),
            Column("95% interval", numeric=True, interval=True),
            Column("n", numeric=True),
            *(Column(f"{kind}, test", numeric=True) for kind in _KINDS),
        )
        rows = []
        for task, found in self.findings.items():
            best = found.best
            known = best.estimate if best is not None else None
            cells = [
                Cell(task, link=f"{task}/report.html"),
                Cell(best.name if best else NOTHING),
                Cell(fmt.parameters(best.parameters) if best else NOTHING),
                number_cell(known.mean, self.metric.number(known.mean)) if known else Cell(NOTHING),
                interval_cell(known, self.metric.interval(known)),
                number_cell(known.n, str(known.n)) if known else Cell(NOTHING),
            ]
            rows.append((*cells, *(_tested(found.study, kind) for kind in _KINDS)))
        return Table(columns, tuple(rows))

    def _regret(self, found: Regrets) -> Table:
        columns = [Column("configuration"), *(Column(name, code=True) for name in _names(found))]
        columns += [
            Column("worst case", numeric=True),
            Column("interval of worst case", numeric=True, interval=True),
            Column("on"),
        ]
        for task in found.tasks:
            columns += [
                Column(task, numeric=True),
                Column(f"interval on {task}", numeric=True, interval=True),
                Column(f"n on {task}", numeric=True),
            ]
        rows = []
        for row in found.rows:
            worst = Estimate(row.worst.mean, row.worst.n)
            if math.isfinite(row.high):
                worst = Estimate(row.worst.mean, row.worst.n, row.low, row.high)
            cells = self._setting(row, found)
            strong = row.configuration in found.candidates
            cells += [
                Cell(self.metric.number(worst.mean), worst.mean, strong=strong),
                interval_cell(worst, self.metric.interval(worst)),
                Cell(row.worst_task),
            ]
            for task in found.tasks:
                known = row.by_task[task]
                cells += [
                    number_cell(known.mean, self.metric.number(known.mean)),
                    interval_cell(known, self.metric.interval(known)),
                    number_cell(known.n, str(known.n)),
                ]
            rows.append(tuple(cells))
        return Table(tuple(columns), tuple(rows))

    def _means(self, found: Regrets) -> Table:
        columns = [Column("configuration"), *(Column(name, code=True) for name in _names(found))]
        for task in found.tasks:
            columns += [
                Column(task, numeric=True),
                Column(f"interval on {task}", numeric=True, interval=True),
            ]
        numbers = {task: self._numbers(task) for task in found.tasks}
        rows = []
        for row in sorted(found.rows, key=lambda row: row.configuration):
            cells = self._setting(row, found)
            for task in found.tasks:
                findings = self.findings[task]
                number = numbers[task][_key(row.parameters)]
                known = next(one for one in findings.summaries if one.number == number).estimate
                level = findings.plateau
                strong = level is not None and number in level.members
                cells += [
                    Cell(self.metric.number(known.mean), known.mean, strong=strong)
                    if known
                    else Cell(NOTHING),
                    interval_cell(known, self.metric.interval(known)),
                ]
            rows.append(tuple(cells))
        return Table(tuple(columns), tuple(rows))

    def _numbers(self, task: str) -> dict[str, int]:
        results = self.findings[task].results
        return {_key(values): number for number, values in results.parameters.items()}

    def _setting(self, row: Regret, found: Regrets) -> list[Cell]:
        cells = [parameter_cell(row.parameters.get(name)) for name in _names(found)]
        return [number_cell(row.configuration, configuration_name(row.configuration)), *cells]


def tasks_headline(whole: TaskStudies) -> tuple[Statement, ...]:
    """Returns question, answer, how sure it is, and what it cost.

    Args:
        whole: The study, at least one of its tasks begun.
    """
    return TaskContents(whole).headline()


def _names(found: Regrets) -> list[str]:
    return list(found.best.parameters)


def _key(parameters: Mapping[str, object]) -> str:
    return repr(sorted(parameters.items()))


def _tested(study: StudyRecord, kind: str) -> Cell:
    """Returns the mean test accuracy of one kind of network."""
    for scores in study.final.scores if study.final else ():
        if scores.label == kind and scores.accuracies:
            mean = math.fsum(scores.accuracies.values()) / len(scores.accuracies)
            return number_cell(mean, MetricFormat("test_accuracy").number(mean))
    return Cell(NOTHING)


def _best_alone(found: Regrets, task: str) -> str:
    """Returns which configuration is the best of a task; several where they are equal."""
    best = sorted(row.configuration for row in found.rows if not row.by_task[task].mean)
    if len(best) > _MOST_EQUAL:
        return f"{len(best)} configurations that are equal"
    return " or ".join(map(configuration_name, best))
