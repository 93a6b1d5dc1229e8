from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from sweeps import study_in

from kdscale.records import TrialRecord
from kdscale.search import CohortSeen, Heartbeat, ledger_snapshot, open_ledger, sweep
from kdscale.search._heartbeat import Heart, first_heartbeat
from kdscale.search._watching import Watching

from .here import Listener

COHORT = CohortSeen("s0-1", 0, ("c000-s0",), 3, 12, "a", "training", 1.5, 66.7, 0.2)


def test_text_and_back() -> None:
    beat = Heartbeat("host", 7, "then", "now", cohorts=(COHORT,), waiting=("a",), warnings=("b",))
    assert Heartbeat.from_json(beat.to_json()) == beat


def test_a_heart_beats_and_says_how_it_ended() -> None:
    said: list[Heartbeat] = []
    beaten = threading.Event()

    def save(text: str) -> None:
        said.append(Heartbeat.from_json(text))
        beaten.set()

    heart = Heart(save, lambda beat: replace(beat, cohorts=(COHORT,)))
    assert beaten.wait(60)
    heart.stop("complete")
    assert (said[0].pid, said[0].cohorts, said[0].ended) == (os.getpid(), (COHORT,), "")
    assert (said[-1].cohorts, said[-1].ended) == ((), "complete")


def test_no_failure_of_the_heart_is_one_of_the_sweep() -> None:
    tried = threading.Event()

    def fail(*_: object) -> None:
        tried.set()
        raise OSError("full")

    heart = Heart(fail, lambda beat: beat)
    assert tried.wait(60)
    heart.stop("complete")

    said: list[Heartbeat] = []
    heart = Heart(lambda text: said.append(Heartbeat.from_json(text)), fail)  # type: ignore[arg-type]
    heart.stop("complete")
    assert said[-1].ended == "complete"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (None, "complete"),
        (KeyboardInterrupt(), "stopped by Ctrl-C or SIGTERM"),
        (ValueError("no\nway"), "ValueError: no"),
    ],
)
def test_a_watched_sweep_leaves_its_end_in_the_ledger(
    tmp_path: Path, error: BaseException | None, words: str
) -> None:
    ledger = open_ledger(study_in(tmp_path), create=True)
    assert ledger.heartbeat() is None
    watching = Watching(ledger, lambda text: None, lambda: "MLflow is away")
    watching.ended = "complete"
    try:
        with watching:
            if error is not None:
                raise error
    except (KeyboardInterrupt, ValueError):
        pass
    beat = ledger.heartbeat()
    assert beat is not None
    assert (beat.host, beat.pid) == (first_heartbeat().host, os.getpid())
    assert beat.ended == words


@pytest.mark.slow
def test_a_sweep_says_what_it_does(tmp_path: Path, cluster: None) -> None:
    """Its cohorts, what they asked for and what is there, while they train; and how it ended."""
    study = study_in(tmp_path, "task.data.train_images=800", "budget.epochs=4")
    seen: list[Heartbeat] = []

    class Onlooker(Listener):
        """Reads the record as another process does, at every change."""

        def on_change(self, trial: TrialRecord) -> None:
            if trial.history:
                with ledger_snapshot(study) as ledger:
                    beat = ledger.heartbeat()
                assert beat is not None
                seen.append(beat)

    assert sweep(study, Onlooker()).complete
    assert {beat.pid for beat in seen} == {os.getpid()}
    assert seen[-1].ended == ""
    assert seen[-1].lanes == 2
    assert seen[-1].asked == "1 worker of 1 CPU"
    last = open_ledger(study, create=False).heartbeat()
    assert last is not None
    assert (last.ended, last.cohorts) == ("complete", ())
    assert "of 2 CPU" in last.there
