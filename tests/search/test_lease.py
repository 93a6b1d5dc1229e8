from __future__ import annotations

import json
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from kdscale.errors import UserError
from kdscale.search import Study, open_ledger
from kdscale.search._lease import Lease, NotTheWriterError, StudyLease
from kdscale.search._plan import PlannedTrial
from kdscale.search._process import Process, this_process
from kdscale.search._propose import Proposal
from kdscale.search._storage import open_storage

from .studies import make_study

ELSEWHERE = Process("gpu-7", "another machine", 4321, 99)
FAST: dict[str, Any] = {"beat_seconds": 0.05, "stale_seconds": 1.0}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = make_study(budget={"trials": 2, "epochs": 2}, storage={"folder": str(tmp_path)})
    open_ledger(study, create=True)
    return study


def lease_of(study: Study, notes: list[str] | None = None, **options: Any) -> StudyLease:
    on_note = (lambda note: None) if notes is None else notes.append
    return StudyLease(open_storage(study), study.name, on_note, **(FAST | options))


def written(study: Study) -> Lease:
    storage = open_storage(study)
    attributes = storage.get_study_user_attrs(storage.get_study_id_from_name(study.name))
    return Lease.from_json(json.dumps(attributes["lease"]))


def write(study: Study, lease: Lease) -> None:
    storage = open_storage(study)
    value = json.loads(lease.to_json())
    storage.set_study_user_attr(storage.get_study_id_from_name(study.name), "lease", value)


def held_elsewhere(study: Study, **changes: Any) -> Lease:
    lease = Lease(ELSEWHERE, "ab", 3, "2026-11-21T10:00:00+00:00", "2026-11-21T10:05:00+00:00")
    write(study, replace(lease, **changes))
    return lease


def test_a_lease_is_taken_renewed_and_given_back(study: Study) -> None:
    lease = lease_of(study)
    with lease.kept():
        lease.take()
        lease.take()
        assert (lease.fence, lease.lost_at) == (1, "")
        assert written(study).process == this_process()
        wait_until(lambda: written(study).beat >= 2)
        assert written(study).held
    assert not written(study).held
    again = lease_of(study)
    with again.kept():
        again.take()
        assert (again.fence, again.lost_at) == (2, "")


def test_a_lease_whose_taking_was_not_answered_is_taken_once(study: Study) -> None:
    lease = lease_of(study)
    with lease.kept():
        lease.take()
        lease._lease = None  # as if the server had died before it said so
        lease.take()
        assert (lease.fence, lease.lost_at) == (1, "")


def wait_until(true: Any) -> None:
    while not true():  # the test's time limit ends a wait in vain
        time.sleep(0.02)


def test_there_is_nothing_to_take_of_a_study_that_is_not_there(study: Study) -> None:
    lease = lease_of(study.model_copy(update={"name": "absent"}))
    lease._study = "absent"
    with lease.kept():
        lease.take()
        assert lease.fence == 0


@contextmanager
def beating(study: Study) -> Iterator[None]:
    """Renews the lease of another machine for as long as its block runs."""
    holder, ended = held_elsewhere(study), threading.Event()

    def beat() -> None:
        number = 0
        while not ended.wait(0.05):
            number += 1
            write(study, replace(holder, beat=number))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_another_machines_lease_is_respected_while_it_is_renewed(study: Study) -> None:
    notes: list[str] = []
    lease = lease_of(study, notes, stale_seconds=60.0)
    with (
        beating(study),
        pytest.raises(UserError, match=r"process 4321 on gpu-7 is at it.*kill 4321"),
        lease.kept(),
    ):
        lease.take()
    assert notes == [
        "waiting up to 60 s to see whether process 4321 on gpu-7 still sweeps this study"
    ]
    assert written(study).token == "ab"


def test_a_lease_that_nobody_renews_is_taken_over(study: Study) -> None:
    holder = held_elsewhere(study)
    lease = lease_of(study)
    with lease.kept():
        lease.take()
        assert (lease.fence, lease.lost_at) == (4, holder.seen)


def test_one_given_back_elsewhere_is_taken_at_once(study: Study) -> None:
    held_elsewhere(study, held=False)
    notes: list[str] = []
    lease = lease_of(study, notes, stale_seconds=1e6)
    with lease.kept():
        lease.take()
        assert (lease.fence, lease.lost_at, notes) == (4, "", [])


def hold(study: Study, ready: Connection) -> None:
    lease = lease_of(study)
    with lease.kept():
        lease.take()
        ready.send(True)
        signal.pause()


def test_a_process_of_this_machine_is_refused_until_it_is_gone(study: Study) -> None:
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    other = context.Process(target=hold, args=(study, there))
    other.start()
    lease = lease_of(study, stale_seconds=1e6)
    try:
        assert here.recv()
        with pytest.raises(UserError, match=f"process {other.pid} on .* is at it"):
            lease.take()
    finally:
        other.kill()
        other.join()
    with lease.kept():
        lease.take()
        assert lease.fence == 2
        assert lease.lost_at


def test_of_several_who_come_at_once_one_is_the_writer(study: Study) -> None:
    start, won = threading.Barrier(4), []
    leases = [lease_of(study, stale_seconds=1e6) for _ in range(4)]

    def take(lease: StudyLease) -> None:
        start.wait()
        with suppress(UserError):
            lease.take()
            won.append(lease.fence)

    threads = [threading.Thread(target=take, args=(lease,)) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [1]


def test_who_has_lost_the_lease_writes_nothing_more(study: Study) -> None:
    ledger = open_ledger(study, create=True)
    lease = lease_of(study)
    with lease.kept():
        lease.take()
        ledger.add(PlannedTrial(0, 0), Proposal({"alpha": 3.0}))
        ledger.guard(lease.guard)
        ledger.begin("c000-s0", "s0-1", attempt=True)
        held_elsewhere(study)
        with pytest.raises(NotTheWriterError, match="taken over by process 4321 on gpu-7"):
            ledger.end("c000-s0", "failed", "too late")
        time.sleep(3 * FAST["beat_seconds"])
    assert written(study).process == ELSEWHERE  # neither renewed nor given back
    trial = open_ledger(study, create=False).trial("c000-s0")
    assert (trial.state, trial.attempt) == ("running", 1)
