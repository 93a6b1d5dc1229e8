"""A sweep while it runs: a live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from kdscale.analysis import (
    ConfigurationSummary,
    MetricFormat,
    best_configuration,
    parameters_text,
)
from kdscale.records import TrialRecord
from kdscale.search import CohortSize, Ledger, Study, cost, spared_epochs
from kdscale.training import Progress

_ENDED = ("done", "pruned", "failed")
_LINE_SECONDS = 20.0
_REFRESH_A_SECOND = 4
_BEST_PAUSE = 20.0
"""Pause until the best is looked for again, in times of what that took."""


class SweepView:
    """Shows a sweep: what runs, the best so far with its interval, trials done, time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ledger: Ledger | None = None
        self._trials: dict[str, TrialRecord] = {}
        self._best: ConfigurationSummary | None = None
        self._started = time.monotonic()
        self._epochs_before = 0
        self._most = 0
        """Epochs that the study trains at most."""
        self._best_is_old = True
        self._best_after = 0.0
        self._last_line = 0.0
        self._note = ""
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=_REFRESH_A_SECOND
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._ledger is not None and self._console.is_terminal:
            self._find_best()
        self._live.transient = self._ledger is None  # leave no trace of what did not start
        self._live.stop()

    def on_teacher(self, progress: Progress) -> None:
        """Prints an epoch of the teacher."""
        for row in progress.rows:
            self._console.print(
                f"teacher: epoch {row['epoch']:g}, validation {row['val_accuracy']:.1f}%"
            )

    def on_start(self, ledger: Ledger, cohorts_at_once: int) -> None:
        """Prints what is left to do and begins to measure the time."""
        study = ledger.study
        ended = sum(trial.has_ended for trial in (*ledger.trials, *ledger.controls))
        self._console.print(
            f"[bold]{escape(study.name)}[/]: {study.configurations} configurations × "
            f"{len(study.seed_list)} seeds = {study.trials} trials"
            + (f" + {len(study.seed_list)} undistilled" if study.undistilled else "")
            + (f", {ended} ended before" if ended else "")
            + f"; {cohorts_at_once} cohort(s) at once"
        )
        self._trials = {trial.name: trial for trial in (*ledger.trials, *ledger.controls)}
        self._ledger = ledger
        self._started = time.monotonic()
        self._epochs_before = self._epochs()
        self._most = cost(study, 1).student_epochs
        self._find_best()

    def on_size(self, size: CohortSize) -> None:
        """Prints how many trials train together, and why."""
        self._console.print(f"up to {size.size} trial(s) of a seed train together: {size.why}")

    def on_note(self, text: str) -> None:
        """Prints what the user must know, unless that is what it has just printed."""
        if text != self._note:
            self._note = text
            self._console.print(f"[yellow]{escape(text)}[/]")

    def on_change(self, trial: TrialRecord) -> None:
        """Takes a trial's change; where there is no live view, prints a line now and then."""
        before = self._trials.get(trial.name)
        self._trials[trial.name] = trial
        if self._ledger is None:
            return
        if trial.state == "running" and trial.reason:
            self.on_note(trial.reason)
        if trial.state == "done" and (before is None or before.state != "done"):
            self._best_is_old = True
        if trial.state == "failed" and (before is None or before.state != "failed"):
            self._console.print(f"[red]failed[/] {trial.name}: {escape(trial.reason)}")
        now = time.monotonic()
        if self._console.is_terminal and now >= self._best_after:
            self._find_best()
        if not self._console.is_terminal and now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            self._console.print(self._status_line(), highlight=False)

    def _render(self) -> RenderableType:
        if self._ledger is None:
            return "preparing teacher and workers …"
        rows = [self._bar(), *self._cohort_lines(), self._best_line()]
        return Group(*rows)

    def _bar(self) -> RenderableType:
        table = Table.grid(padding=(0, 1))
        total = self._total()
        bar = ProgressBar(total=total, completed=min(self._epochs(), total), width=24)
        table.add_row(bar, self._status_line())
        return table

    def _status_line(self) -> str:
        counts = [sum(t.state == state for t in list(self._trials.values())) for state in _ENDED]
        parts = [f"{count} {state}" for count, state in zip(counts, _ENDED, strict=True) if count]
        planned = self._planned_trials()
        return (
            f"{sum(counts)}/{planned} trials ended"
            + (f" ({', '.join(parts)})" if parts else "")
            + f", {self._time_left()}"
        )

    def _cohort_lines(self) -> list[str]:
        cohorts: dict[str, list[TrialRecord]] = {}
        for trial in list(self._trials.values()):
            if trial.cohort:
                cohorts.setdefault(trial.cohort, []).append(trial)
        epochs = self._study.budget.epochs
        lines = []
        for members in cohorts.values():
            epoch = min(len(trial.history) for trial in members)
            lines.append(
                f"  seed {members[0].seed}: {len(members)} student(s), epoch {epoch}/{epochs}"
                f"{self._leader(members)}"
            )
        return lines

    def _leader(self, members: Sequence[TrialRecord]) -> str:
        metric = self._study.metric
        known = [trial for trial in members if trial.history]
        if not known or len(members) == 1:
            return ""
        sign = 1 if metric.goal == "maximize" else -1
        best = max(known, key=lambda trial: sign * trial.history[-1][metric.name])
        return f", ahead: {best.name} {best.history[-1][metric.name]:.2f}"

    def _best_line(self) -> str:
        if self._best is None or self._best.estimate is None:
            return "  best so far: none has trained to the last epoch"
        value = MetricFormat(self._study.metric.name).estimate(self._best.estimate)
        return f"  best so far: {value}\n    {parameters_text(self._best.parameters)}"

    def _time_left(self) -> str:
        trained = self._epochs() - self._epochs_before
        seconds = time.monotonic() - self._started
        running = sum(bool(trial.cohort) for trial in list(self._trials.values()))
        if trained < max(1, running):  # an epoch of a whole cohort is told trial by trial
            return "time left: measuring"
        left = max(0, self._total() - self._epochs()) * seconds / trained
        return f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left"

    def _total(self) -> int:
        return self._most - spared_epochs(self._study, list(self._trials.values()))

    def _epochs(self) -> int:
        return sum(len(trial.history) for trial in list(self._trials.values()))

    def _planned_trials(self) -> int:
        study = self._study
        return study.trials + (len(study.seed_list) if study.undistilled else 0)

    @property
    def _study(self) -> Study:
        assert self._ledger is not None, "on_start comes first"
        return self._ledger.study

    def _find_best(self) -> None:
        """Finds the best configuration anew, if it may be another; rarely where that takes long."""
        assert self._ledger is not None, "on_start comes first"
        if not self._best_is_old:
            return
        started = time.monotonic()
        self._best = best_configuration(self._ledger.record())
        self._best_is_old = False
        now = time.monotonic()
        self._best_after = now + _BEST_PAUSE * (now - started)
