"""How a study stands, for people and for scripts; asked by any process that reaches its record."""

from __future__ import annotations

import json
import os
import re
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from kdscale.analysis import MetricFormat, best_configuration, parameters_text
from kdscale.records import RACED_OUT, TrialRecord, TrialState, Value
from kdscale.search import CohortSeen, Heartbeat, Ledger, cost, losses, spared_epochs

_QUIET_SECONDS = 30.0
"""A sweep that gave no sign of life for so long is taken for dead."""

_MISSED_SECONDS = 12.0
"""After so long without one its process is looked for, if it was on this machine."""

_ORDER: tuple[TrialState, ...] = ("done", "pruned", "failed", "running", "waiting")
_RANK = re.compile(r": rank \d+ of \d+$")
_AFTER = re.compile(rf"^{RACED_OUT} after \d+ seeds?: (c\d+-s\d+ )?")
_RIVAL = re.compile(r"c\d+ (\(level)")
_MOST_REASONS = 4


@dataclass(frozen=True)
class Best:
    """The best configuration so far, as the report names it.

    Attributes:
        configuration: Its name.
        parameters: Its searched values.
        value: The mean over its seeds.
        n: The seeds that trained to the last epoch.
        low: Lower end of the 95% interval; None where there is none.
        high: Upper end.
        text: All of this as the report words it.
    """

    configuration: str
    parameters: dict[str, Value]
    value: float
    n: int
    low: float | None
    high: float | None
    text: str


@dataclass(frozen=True)
class Status:
    """How a study stands.

    Attributes:
        study: Its name.
        folder: Its folder.
        planned: Trials, controls included.
        states: How many of them stand in each state; those not asked for yet wait.
        reasons: By state and reason, how many ended so.
        runs: Whether a sweep is at it.
        sweep: The same in words, with machine, process and time.
        cohorts: What trains, or waits to.
        lanes: Cohorts that may train at once.
        epochs: Epochs of a full trial.
        best: The best so far.
        seconds_left: Until the sweep ends, by its speed; None where that is unknown.
        waiting: Why something waits or is silent for long, asked against there.
        lost: How many attempts were lost to what; empty if none.
        warnings: What workers have warned of.
        tracking: What MLflow has not taken, or empty.
        asked: What a cohort asks for.
        there: What the nodes have free.
    """

    study: str
    folder: str
    planned: int
    states: dict[str, int]
    reasons: dict[str, int]
    runs: bool
    sweep: str
    cohorts: tuple[CohortSeen, ...]
    lanes: int
    epochs: int
    best: Best | None
    seconds_left: float | None
    waiting: tuple[str, ...]
    lost: str
    warnings: tuple[str, ...]
    tracking: str
    asked: str
    there: str

    @property
    def complete(self) -> bool:
        """Whether every planned trial has ended."""
        return sum(self.states[state] for state in ("done", "pruned", "failed")) >= self.planned

    def to_json(self) -> str:
        """Returns it for scripts."""
        return json.dumps(asdict(self) | {"complete": self.complete}, indent=2)


def status_of(ledger: Ledger, now: datetime | None = None) -> Status:
    """Returns how a study stands.

    Args:
        ledger: The study's record.
        now: The time, by default this moment.
    """
    study, record, beat = ledger.study, ledger.record(), ledger.heartbeat()
    trials = (*record.trials, *record.controls)
    planned = study.trials + (len(study.seed_list) if study.undistilled else 0)
    states = Counter(trial.state for trial in trials)
    states["waiting"] += max(0, planned - len(trials))
    reasons = Counter(
        f"{trial.state}: {_shared_reason(trial)}"
        for trial in trials
        if trial.has_ended and trial.reason
    )
    runs, sweep = _sweep_words(beat, now or datetime.now(UTC))
    beat = beat or Heartbeat("", 0, "", "")
    trained = sum(len(trial.history) for trial in trials)
    left = max(0, cost(study, 1).student_epochs - spared_epochs(study, trials) - trained)
    return Status(
        study=study.name,
        folder=str(study.folder),
        planned=planned,
        states={state: states[state] for state in _ORDER},
        reasons=dict(reasons.most_common()),
        runs=runs,
        sweep=sweep,
        cohorts=beat.cohorts if runs else (),
        lanes=beat.lanes if runs else 0,
        epochs=study.budget.epochs,
        best=_best(ledger),
        seconds_left=left / beat.epochs_per_second if runs and beat.epochs_per_second else None,
        waiting=beat.waiting if runs else (),
        lost=losses(trials),
        warnings=beat.warnings,
        tracking=beat.tracking,
        asked=beat.asked,
        there=beat.there if runs else "",
    )


def _shared_reason(trial: TrialRecord) -> str:
    """Returns a trial's reason without what is its own, to be counted with others."""
    if trial.is_raced_out:
        return _RIVAL.sub(r"another \1", _AFTER.sub(f"{RACED_OUT}: ", trial.reason))
    return _RANK.sub("", trial.reason)


def status_view(status: Status, command: str) -> RenderableType:
    """Returns a status in 80 columns.

    Args:
        status: The status.
        command: What continues the study.
    """
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column(style="bold", no_wrap=True, min_width=9)
    table.add_column(overflow="fold")
    for label, text in _rows(status):
        table.add_row(label, escape(text))
    parts: list[RenderableType] = [table]
    if status.cohorts:
        parts.append(Padding(_cohort_table(status), (0, 0, 0, 2)))
    if not status.runs and not status.complete:
        parts.append(f"to continue:\n  {escape(command)}")
    return Group(*parts)


def _rows(status: Status) -> Iterator[tuple[str, str]]:
    ended = sum(status.states[state] for state in ("done", "pruned", "failed"))
    parts = [f"{count} {state}" for state, count in status.states.items() if count]
    yield "study", f"{status.study}, in {status.folder}"
    yield "trials", f"{ended} of {status.planned} ended: {', '.join(parts)}"
    shown = [*status.reasons.items()][:_MOST_REASONS]
    for reason, count in shown:
        yield "", f"{count} {reason}"
    if len(status.reasons) > len(shown):
        yield "", f"and {len(status.reasons) - len(shown)} other reasons"
    if status.best is None:
        yield "best", "none has trained to the last epoch"
    else:
        yield "best", f"{status.best.configuration}: {status.best.text}"
        yield "", parameters_text(status.best.parameters)
    if status.lost:
        yield "attempts", status.lost
    for text in status.waiting:
        yield "waiting", text
    for text in status.warnings:
        yield "warning", text
    if status.tracking:
        yield "MLflow", status.tracking
    if status.runs:
        yield "time left", _left_words(status)
    yield "sweep", status.sweep


def _left_words(status: Status) -> str:
    if status.seconds_left is None:
        return "measuring"
    return f"about {_duration(status.seconds_left)}"


def _cohort_table(status: Status) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False, header_style="dim")
    for heading in ("cohort", "trials", "epoch", "s/epoch", "images/s", "node"):
        left = heading in ("cohort", "node")
        table.add_column(heading, justify="left" if left else "right", overflow="fold")
    for one in status.cohorts:
        known = one.epoch_seconds > 0
        table.add_row(
            one.name,
            str(len(one.trials)),
            f"{one.epoch}/{status.epochs}" if one.state == "training" else one.state,
            f"{one.epoch_seconds:.2f}" if known else "–",
            f"{one.images_per_second:,.0f}" if known and one.images_per_second else "–",
            one.node or "–",
        )
    return table


def _sweep_words(beat: Heartbeat | None, now: datetime) -> tuple[bool, str]:
    """Returns whether a sweep runs, and that in words."""
    if beat is None:
        return False, "no sweep runs, and none has given a sign of life"
    where = f"on {beat.host} (pid {beat.pid})"
    silent = max(0.0, (now - datetime.fromisoformat(beat.seen)).total_seconds())
    if beat.ended:
        ago = f"{_duration(silent)} ago {where}"
        return False, f"no sweep runs; the last one ended {ago}: {beat.ended}"
    here = beat.host == socket.gethostname()
    gone = f"no sweep runs; last sign of life {_duration(silent)} ago {where}"
    if silent > _MISSED_SECONDS and here and not _is_process(beat.pid):
        return False, f"{gone}: it was killed"
    if silent > _QUIET_SECONDS:
        if not here:
            return False, gone
        return True, f"the process is there, {where}, but silent for {_duration(silent)}"
    since = (now - datetime.fromisoformat(beat.started)).total_seconds()
    doing = f"; {beat.doing}" if beat.doing else f"; {beat.lanes} cohort(s) at once"
    return True, f"runs {where} for {_duration(max(0.0, since))}{doing}"


def _is_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _best(ledger: Ledger) -> Best | None:
    found = best_configuration(ledger.record())
    if found is None or found.estimate is None:
        return None
    known = found.estimate
    text = MetricFormat(ledger.study.metric.name).estimate(known)
    return Best(
        found.name, dict(found.parameters), known.mean, known.n, known.low, known.high, text
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
