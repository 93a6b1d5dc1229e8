from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdscale.records import AttemptReason, TrialRecord
from kdscale.search import Ledger, open_ledger
from kdscale.search._attempts import (
    Loss,
    begun,
    ended,
    from_text,
    losses,
    reason_of_end,
    seen_on,
    to_text,
)
from kdscale.search._plan import PlannedTrial
from kdscale.search._propose import Proposal
from kdscale.search._storage import open_storage
from kdscale.training import Progress

from .simulate import MortalStorage, Sweep
from .studies import make_study

REASONS: list[AttemptReason] = ["worker crash", "node lost", "preempted", "user stop", "done"]


def rows(*epochs: int) -> tuple[dict[str, float], ...]:
    return tuple({"epoch": epoch, "val_accuracy": 10.0 * epoch} for epoch in epochs)


@given(st.lists(st.tuples(st.sampled_from(REASONS), st.integers(0, 99), st.text()), max_size=5))
def test_attempts_come_back_from_text_as_they_went(
    history: list[tuple[AttemptReason, int, str]],
) -> None:
    attempts: tuple[Any, ...] = ()
    for number, (reason, epoch, detail) in enumerate(history):
        attempts = seen_on(begun(attempts, number, epoch), "here (10.0.0.1)")
        attempts = ended(attempts, reason, epoch + 1, detail)
    assert from_text(to_text(attempts)) == attempts
    assert [attempt.number for attempt in attempts] == list(range(1, len(history) + 1))


def test_an_attempt_ends_once() -> None:
    once = ended(begun((), 0, 0), "worker crash", 3, "OSError: no disk")
    assert ended(once, "user stop", 9) == once
    assert ended((), "user stop", 9) == ()


def test_an_attempt_that_never_ended_was_its_drivers() -> None:
    first, second = begun(begun((), 0, 0), 1, 4, lost_at="2026-11-21T10:00:00+00:00")
    assert (first.reason, first.epoch, first.end) == ("driver lost", 4, "2026-11-21T10:00:00+00:00")
    assert (second.number, second.after_epoch, second.reason) == (2, 4, "")


@pytest.mark.parametrize(
    ("state", "reason", "why"),
    [
        ("done", "", "done"),
        ("pruned", "rung at epoch 4: rank 3 of 4", "pruned"),
        ("pruned", "diverged at epoch 3 (ldrld is not finite)", "diverged"),
        ("failed", "ldrld.depth must be at most 10", "bad configuration"),
    ],
)
def test_how_a_trial_ended_says_how_its_last_attempt_did(
    state: Any, reason: str, why: AttemptReason
) -> None:
    assert reason_of_end(state, reason) == why


def test_an_attempt_is_recorded_from_its_begin_to_its_end(tmp_path: Path) -> None:
    study = make_study(budget={"trials": 2, "epochs": 4}, storage={"folder": str(tmp_path)})
    ledger = open_ledger(study, create=True)
    ledger.add(PlannedTrial(0, 0), Proposal({"alpha": 3.0}))
    ledger.begin("c000-s0", "s0-1", attempt=True)
    ledger.progress(Progress("c000-s0", "running", rows(1, 2)), node="one (10.0.0.1)")
    ledger.leave("c000-s0")  # a rung does not end it
    ledger.begin("c000-s0", "s0-2", attempt=False)
    ledger.progress(Progress("c000-s0", "running", rows(3)), node="two (10.0.0.2)")
    ledger.leave("c000-s0", "node lost", "the worker's node was lost")
    reopened = open_ledger(study, create=True)
    assert reopened.trial("c000-s0").attempts == ledger.trial("c000-s0").attempts
    reopened.begin("c000-s0", "s0-3", attempt=True)
    reopened.progress(Progress("c000-s0", "failed", (), "diverged at epoch 4 (kd is not finite)"))
    first, second = open_ledger(study, create=False).trial("c000-s0").attempts
    assert (first.reason, first.after_epoch, first.epoch) == ("node lost", 0, 3)
    assert first.nodes == ("one (10.0.0.1)", "two (10.0.0.2)")
    assert first.start <= first.end <= second.start <= second.end
    assert (second.reason, second.after_epoch, second.epoch) == ("diverged", 3, 3)
    assert second.detail == "diverged at epoch 4 (kd is not finite)"


def test_a_study_of_an_earlier_version_goes_on_with_its_count() -> None:
    ledger = Ledger(make_study(), storage := MortalStorage())
    ledger.add(PlannedTrial(0, 0), Proposal({"alpha": 3.0}))
    storage.set_trial_user_attr(0, "attempt", 2)
    old = Ledger(ledger.study, storage)
    assert (old.trial("c000-s0").attempt, old.trial("c000-s0").state) == (2, "running")
    assert old.trial("c000-s0").attempts == ()
    old.begin("c000-s0", "s0-1", attempt=True)
    again = Ledger(ledger.study, storage).trial("c000-s0")
    assert (again.attempt, [one.number for one in again.attempts]) == (3, [3])


def test_all_that_a_report_brings_is_one_transaction(tmp_path: Path) -> None:
    from sqlalchemy import event

    study = make_study(budget={"trials": 2, "epochs": 1}, storage={"folder": str(tmp_path)})
    open_ledger(study, create=True)
    storage: Any = open_storage(study)
    ledger = Ledger(study, storage)
    for number in range(2):
        ledger.add(PlannedTrial(number, 0), Proposal({"alpha": 3.0}))
    commits: list[Any] = []
    event.listen(storage.engine, "commit", commits.append)
    with ledger.batch():
        for number in range(2):
            ledger.begin(f"c00{number}-s0", "s0-1", attempt=True)
    with ledger.batch():
        for number in range(2):
            ledger.progress(Progress(f"c00{number}-s0", "done", rows(1), "", 1.5), "here")
    assert len(commits) == 2
    reopened = open_ledger(study, create=False)
    assert reopened.trials == ledger.trials
    assert {trial.state for trial in reopened.trials} == {"done"}


def test_every_attempt_of_a_sweep_says_why_it_ended() -> None:
    study = make_study(
        search={"method": "random"}, rungs={"first": 2}, budget={"trials": 8, "epochs": 6}
    )
    sweep = Sweep(study)
    sweep.crashes = {"c000-s0": 1}
    queue = sweep.run()
    trials = [*queue.ledger.trials, *queue.ledger.controls]
    for trial in trials:
        assert [one.number for one in trial.attempts] == list(range(1, trial.attempt + 1))
        assert all(one.reason and one.end >= one.start for one in trial.attempts)
        last = trial.attempts[-1]
        assert last.reason in (trial.state, "diverged")
        assert last.epoch == len(trial.history)
    crashed = queue.ledger.trial("c000-s0").attempts[0]
    assert (crashed.reason, crashed.detail) == ("worker crash", "OSError: no disk")
    assert losses(trials) == f"{lost(trials)} attempt(s) were lost: {lost(trials)} worker crash"


def lost(trials: list[TrialRecord]) -> int:
    return sum(trial.attempt - 1 for trial in trials)


@pytest.mark.parametrize("reason", ["node lost", "preempted"])
def test_machines_may_go_as_often_as_they_like(reason: AttemptReason) -> None:
    study = make_study(search={"method": "random"}, budget={"trials": 4, "epochs": 6})
    undisturbed = Sweep(study)
    undisturbed.run()
    sweep = Sweep(study)
    sweep.crashes, sweep.mute = {"c000-s0": 5}, {"c000-s0"}
    sweep.loss = Loss(reason, "gone")
    queue = sweep.run()
    assert queue.complete
    assert sweep.outcome() == undisturbed.outcome()
    reasons = [attempt.reason for attempt in queue.ledger.trial("c000-s0").attempts]
    assert reasons == [reason] * 5 + ["done"]
    assert sweep.disk.epochs_trained == undisturbed.disk.epochs_trained


@pytest.mark.parametrize("most", [0, 1, 4])
def test_a_crash_is_tried_again_so_often_and_no_more(most: int) -> None:
    study = make_study(
        search={"method": "random"},
        budget={"trials": 4, "epochs": 6},
        resources={"max_failures": most},
    )
    sweep = Sweep(study)
    sweep.crashes = {"c000-s0": 9}
    trial = sweep.run().ledger.trial("c000-s0")
    assert (trial.state, trial.attempt) == ("failed", most + 1)
    assert {attempt.reason for attempt in trial.attempts} == {"worker crash"}
    assert trial.reason == f"failed {most + 1} times: OSError: no disk"
