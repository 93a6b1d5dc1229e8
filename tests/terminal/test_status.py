from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from sweeps import PretendSweep, study_in

from kdscale.search import CohortSeen, Heartbeat, Ledger, open_ledger
from kdscale.search._plan import PlannedTrial
from kdscale.search._propose import Proposal
from kdscale.terminal import Status, status_of, status_view

NOW = datetime(2026, 11, 21, 15, 0, 0, tzinfo=UTC)
COHORTS = (
    CohortSeen(
        "s0-3", 0, ("c000-s0", "c001-s0"), 1, 2, "gpu-1 (10.0.0.7)", "training", 1.9, 1684, 0
    ),
    CohortSeen("s1-4", 1, ("c000-s1",), 0, 2, "", "waiting", 0.0, 0.0, 41.0),
)


def beat(seconds_ago: float = 2.0, **more: object) -> Heartbeat:
    def at(seconds: float) -> str:
        return (NOW - timedelta(seconds=seconds)).isoformat()

    alive = Heartbeat(
        "gpu-head", 4242, at(200.0 + seconds_ago), at(seconds_ago), lanes=2, cohorts=COHORTS
    )
    return replace(alive, epochs_per_second=0.1, **more)  # type: ignore[arg-type]


def ledger_in(folder: Path, found: Heartbeat | None = None, *overrides: str) -> Ledger:
    study = study_in(folder, *overrides)
    ending = {"c000-s0": "stopped", "c001-s0": "failed"}
    PretendSweep(stop_after=2, endings=ending)(study)  # type: ignore[arg-type]
    ledger = open_ledger(study, create=False)
    if found is not None:
        ledger.save_heartbeat(found.to_json())
    return ledger


def lines_of(status: Status) -> list[str]:
    file = StringIO()
    console = Console(file=file, width=80, highlight=False)
    console.print(status_view(status, "kdscale sweep tiny.yaml"))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_a_study_that_runs(tmp_path: Path) -> None:
    waits = "cohort s1-4 (1 trial(s)) waits for a process since 41 s: asked 1 worker of 1 CPU"
    status = status_of(ledger_in(tmp_path, beat(waiting=(waits,))), NOW)
    assert status.runs
    assert not status.complete
    assert (status.planned, sum(status.states.values())) == (6, 6)
    assert status.reasons == {
        "pruned: rung at epoch 1": 1,
        "failed: error at epoch 2: [ValueError]: no": 1,
    }
    lines = lines_of(status)
    text = "\n".join(lines)
    assert "sweep     runs on gpu-head (pid 4242) for 3 min; 2 cohort(s) at once" in lines
    assert waits in " ".join(text.split())
    assert "time left about" in text
    assert "s0-3         2      1/2     1.90     1,684  gpu-1 (10.0.0.7)" in text
    assert "s1-4         1  waiting" in text
    assert "to continue" not in text
    assert max(map(cell_len, lines)) <= 80


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "no sweep runs, and none has given a sign of life"),
        (beat(180.0), "no sweep runs; last sign of life 3 min ago on gpu-head (pid 4242)"),
        (
            beat(60.0, ended="stopped by Ctrl-C or SIGTERM"),
            "no sweep runs; the last one ended 60 s ago on gpu-head (pid 4242): stopped by Ctrl-C "
            "or SIGTERM",
        ),
        (
            beat(20.0, host=socket.gethostname(), pid=2**22 + 1),  # more than Linux gives
            f"no sweep runs; last sign of life 20 s ago on {socket.gethostname()} "
            f"(pid {2**22 + 1}): it was killed",
        ),
    ],
)
def test_a_sweep_that_is_dead_says_so_with_the_command(
    tmp_path: Path, found: Heartbeat | None, words: str
) -> None:
    status = status_of(ledger_in(tmp_path, found), NOW)
    assert (status.runs, status.sweep) == (False, words)
    assert (status.cohorts, status.waiting, status.seconds_left) == ((), (), None)
    assert lines_of(status)[-2:] == ["to continue:", "  kdscale sweep tiny.yaml"]


def test_a_live_process_that_is_silent_is_not_called_dead(tmp_path: Path) -> None:
    found = beat(300.0, host=socket.gethostname(), pid=os.getpid())
    status = status_of(ledger_in(tmp_path, found), NOW)
    assert status.runs
    assert "silent for 5 min" in status.sweep


def test_json_has_all_that_is_shown(tmp_path: Path) -> None:
    told = json.loads(
        status_of(ledger_in(tmp_path, beat(tracking="MLflow is away")), NOW).to_json()
    )
    assert told["states"]["pruned"] == 1
    assert told["cohorts"][0]["node"] == "gpu-1 (10.0.0.7)"
    assert told["tracking"] == "MLflow is away"
    assert told["complete"] is False


def test_what_was_raced_out_is_counted_together(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    open_ledger(study, create=True)
    PretendSweep()(study)
    ledger = open_ledger(study, create=False)
    best = "surely no better than c007 (level 5%, tolerance 0.1)"
    for name, reason in (
        ("c008-s0", f"raced out after 1 seed: {best}"),
        ("c008-s1", f"raced out after 2 seeds: {best.replace('7', '1')}"),
        ("c009-s1", "raced out after 1 seed: c009-s0 was stopped at a rung at epoch 6"),
    ):
        number, seed = name.split("-s")
        planned = PlannedTrial(int(number[1:]), int(seed))
        ledger.add(planned, Proposal(ledger.trials[0].parameters))
        ledger.end(name, "pruned", reason)
    assert status_of(ledger, NOW).reasons == {
        "pruned: raced out: surely no better than another (level 5%, tolerance 0.1)": 2,
        "pruned: raced out: was stopped at a rung at epoch 6": 1,
    }


def test_a_complete_study_needs_no_command(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    PretendSweep()(study)
    status = status_of(open_ledger(study, create=False), NOW)
    assert status.complete
    assert "to continue:" not in lines_of(status)
    assert status.best is not None
    assert f"best      {status.best.configuration}: {status.best.text}" in lines_of(status)
