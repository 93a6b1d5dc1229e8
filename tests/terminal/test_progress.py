from __future__ import annotations

import re
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.cells import cell_len
from rich.console import Console
from sweeps import PretendSweep, row, study_in

from kdscale.search import Ledger, Study, open_ledger
from kdscale.search._queue import CohortQueue
from kdscale.terminal import SweepView
from kdscale.training import Progress


@dataclass
class Clock:
    """Time that passes only when it is told to."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(
        "kdscale.terminal._progress.time", SimpleNamespace(monotonic=clock.monotonic)
    )
    return clock


class Screen:
    """A console of 80 columns, and what it shows."""

    def __init__(self, *, terminal: bool) -> None:
        self._file = StringIO()
        self.console = Console(
            file=self._file, width=80, height=24, force_terminal=terminal, highlight=False
        )

    @property
    def raw(self) -> str:
        return self._file.getvalue()

    @property
    def lines(self) -> list[str]:
        """What stands on the screen, line by line, after all cursor movements."""
        lines: list[str] = [""]
        at = 0
        for text, code in re.findall(r"([^\x1b\n\r]+)|(\n|\r|\x1b\[[0-9;?]*[A-Za-z])", self.raw):
            if text:
                lines[at] += text
            elif code == "\n":
                at += 1
                lines += [""] if at == len(lines) else []
            elif code.endswith("A"):
                at -= int(code[2:-1] or 1)
            elif code == "\x1b[2K":
                lines[at] = ""
        return [line.rstrip() for line in lines if line.strip()]


@dataclass
class Sweep:
    """A study whose cohorts train as far as they are told to."""

    study: Study
    ledger: Ledger
    queue: CohortQueue
    view: SweepView

    def start(self, cohorts: int = 1) -> list[list[str]]:
        """Starts cohorts and returns the names of their trials."""
        jobs = [self.queue.next() for _ in range(cohorts)]
        return [list(job.members) for job in jobs if job is not None]

    def tell(self, name: str, epoch: int = 0, accuracy: float = 0.0, **ending: str) -> None:
        """Tells of one epoch of a trial, or of its end."""
        rows = (row(epoch, accuracy),) if epoch else ()
        status, reason = ending.get("status", "running"), ending.get("reason", "")
        told = Progress(name, status, rows, reason, 1.0)  # type: ignore[arg-type]
        self.view.on_change(self.ledger.progress(told))

    def train(self, name: str, accuracy: float) -> None:
        """Trains a trial to its end."""
        for epoch in range(1, self.study.budget.epochs + 1):
            self.tell(name, epoch, accuracy)
        self.tell(name, status="done")


def make_sweep(folder: Path, screen: Screen, *overrides: str) -> Sweep:
    study = study_in(folder, *overrides)
    ledger = open_ledger(study, create=True)
    view = SweepView(screen.console)
    return Sweep(study, ledger, CohortQueue(ledger, on_change=view.on_change), view)


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path, clock: Clock) -> None:
    screen = Screen(terminal=False)
    sweep = make_sweep(tmp_path, screen)
    with sweep.view:
        sweep.view.on_start(sweep.ledger, 2)
        ((first, second),) = sweep.start()
        sweep.train(first, 40.0)
        clock.now += 19.0
        sweep.tell(second, 1, 30.0)  # too soon for another line
        clock.now += 1.0
        sweep.tell(second, 2, 30.0)
    assert "\x1b" not in screen.raw
    assert screen.lines == [
        "tiny: 2 configurations × 2 seeds = 4 trials + 2 undistilled; 2 cohort(s) at once",
        "0/6 trials ended, time left: measuring",
        "1/6 trials ended (1 done), about 40 s left",  # 4 of 12 epochs in 20 s
    ]


def test_the_live_view_shows_cohorts_best_and_time_left(tmp_path: Path, clock: Clock) -> None:
    screen = Screen(terminal=True)
    sweep = make_sweep(tmp_path, screen)
    with sweep.view:
        sweep.view.on_start(sweep.ledger, 2)
        cohorts = sweep.start(4)
        for names, accuracy in zip(cohorts[:2], (40.0, 42.0), strict=True):
            sweep.train(names[0], accuracy)
            sweep.tell(names[1], status="stopped", reason="rung at epoch 1")
        sweep.tell(cohorts[2][0], 1, 37.5)
        clock.now += 600.0
    assert screen.lines[0].startswith("tiny: 2 configurations × 2 seeds = 4 trials")
    bar, *rest = screen.lines[1:]
    assert re.fullmatch(r"[━╸╺]{24} 4/6 trials ended \(2 done, 2 pruned\), about 14 min left", bar)
    first, second = (sweep.ledger.trial(names[0]) for names in cohorts[:2])
    assert first.configuration == second.configuration
    values = first.parameters
    assert rest == [
        "  seed 0: 1 student(s), epoch 1/2",
        "  seed 1: 1 student(s), epoch 0/2",
        "  best so far: 41.00% (95% interval 28.29 to 53.71, n = 2)",
        f"    alpha = {values['alpha']:.4g}, depth = {values['depth']}",
    ]


def test_a_failed_trial_is_told_with_its_reason_once(tmp_path: Path, clock: Clock) -> None:
    for terminal in (False, True):
        screen = Screen(terminal=terminal)
        sweep = make_sweep(tmp_path / str(terminal), screen)
        with sweep.view:
            sweep.view.on_start(sweep.ledger, 1)
            ((first, _),) = sweep.start()
            sweep.tell(first, 1, 30.0)
            sweep.tell(first, status="failed", reason="error at epoch 2: [KeyError]: 'x'")
            sweep.view.on_change(sweep.ledger.trial(first))
        message = f"failed {first}: error at epoch 2: [KeyError]: 'x'"
        assert screen.lines.count(message) == 1


def test_a_study_that_goes_on_counts_what_is_left(tmp_path: Path, clock: Clock) -> None:
    study = study_in(tmp_path)
    PretendSweep(stop_after=1)(study)
    screen = Screen(terminal=False)
    sweep = make_sweep(tmp_path, screen)
    with sweep.view:
        sweep.view.on_start(sweep.ledger, 1)
        ((first, _),) = sweep.start()
        sweep.tell(first, 1, 30.0)
        clock.now += 30.0
        sweep.tell(first, 2, 30.0)
    assert "+ 2 undistilled, 2 ended before; 1 cohort(s)" in " ".join(screen.lines[:2])
    # 2 epochs in 30 s, and 6 to go: what was trained before does not count.
    assert screen.lines[-1] == "2/6 trials ended (2 done), about 2 min left"


def test_nothing_is_left_on_the_screen_of_a_sweep_that_did_not_start(tmp_path: Path) -> None:
    screen = Screen(terminal=True)
    sweep = make_sweep(tmp_path, screen)
    with sweep.view:
        pass
    assert "preparing" in screen.raw
    assert screen.lines == []


def test_epochs_of_the_teacher(tmp_path: Path) -> None:
    screen = Screen(terminal=False)
    with SweepView(screen.console) as view:
        view.on_teacher(Progress("teacher", "running", (row(1, 12.34), row(2, 15.0))))
    assert screen.lines == [
        "teacher: epoch 1, validation 12.3%",
        "teacher: epoch 2, validation 15.0%",
    ]


def test_a_metric_to_minimise_has_its_least_ahead(tmp_path: Path, clock: Clock) -> None:
    screen = Screen(terminal=True)
    sweep = make_sweep(tmp_path, screen, "metric={name: val_loss, goal: minimize}")
    with sweep.view:
        sweep.view.on_start(sweep.ledger, 1)
        ((first, second),) = sweep.start()
        sweep.tell(first, 1, 50.0)  # loss 2
        sweep.tell(second, 1, 40.0)
        sweep.tell(second, 2, 40.0)  # loss 1
    assert any(f"epoch 1/2, ahead: {second} 1.00" in line for line in screen.lines)


@pytest.mark.parametrize("terminal", [False, True])
def test_every_line_fits_80_columns(tmp_path: Path, clock: Clock, terminal: bool) -> None:
    screen = Screen(terminal=terminal)
    name = "a-study-with-a-name-that-nobody-would-like-to-type-twice-in-a-day"
    sweep = make_sweep(tmp_path, screen, f"name={name}", "seeds=5", "budget.trials=50")
    with sweep.view:
        sweep.view.on_start(sweep.ledger, 11)
        for number, names in enumerate(sweep.start(30)):
            for trial in names:
                sweep.tell(trial, 1, 30.0)
                if number % 3 == 0:
                    sweep.train(trial, 40.0 + number)
                elif number % 3 == 1:
                    sweep.tell(trial, status="failed", reason="no " * 60)
                clock.now += 100.0
    assert max(cell_len(line) for line in screen.lines) <= 80
