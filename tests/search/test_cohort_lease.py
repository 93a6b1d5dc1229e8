from __future__ import annotations

import json
import multiprocessing
import signal
import time
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from kdscale.search import _cohort_lease
from kdscale.search._cohort_lease import CohortLease, Fence, cohort_lease, lease_path, may_train
from kdscale.search._process import this_process

FAR = replace(this_process(), machine="another machine", host="gpu-7")


class Left(Exception):  # noqa: N818  # what `os._exit` does, as far as a test can play it
    pass


def leave() -> None:
    raise Left


def test_a_worker_says_what_it_trains_and_takes_it_back(tmp_path: Path) -> None:
    fence = Fence(tmp_path, 2)
    with cohort_lease(tmp_path, 2, "s0-1", ["c001-s0", "c000-s0"]) as check:
        check()
        said = json.loads(lease_path(tmp_path, 2, "s0-1").read_text())
        assert (said["fence"], said["cohort"]) == (2, "s0-1")
        assert said["trials"] == ["c000-s0", "c001-s0"]
        assert said["process"] == asdict(this_process())
    assert fence.has_stopped("s0-1")


def test_a_node_with_a_folder_of_its_own_trains_too(tmp_path: Path) -> None:
    with cohort_lease(tmp_path / "elsewhere", 2, "s0-1", ["c000-s0"]) as check:
        check()
        assert lease_path(tmp_path / "elsewhere", 2, "s0-1").exists()


def test_without_a_sweep_there_is_no_lease(tmp_path: Path) -> None:
    with cohort_lease(tmp_path, 0, "s0-1", []) as check:
        check()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "may"),
    [
        (None, True),  # a node without the study folder
        ("", True),  # being written
        ("2\n", True),
        ("2 s0-9\n", True),
        ("2 s0-9 s0-1\n", False),
        ("3\n", False),
        ("3\n s0-1\n", False),
    ],
)
def test_a_worker_behind_the_fence_may_not_train(
    tmp_path: Path, text: str | None, may: bool
) -> None:
    file = tmp_path / "fence"
    if text is not None:
        file.write_text(text)
    assert may_train(file, 2, "s0-1") is may


def test_the_fence_grows_and_starts_anew_with_each_sweep(tmp_path: Path) -> None:
    first = Fence(tmp_path, 1)
    for number in range(12):
        assert first.has_stopped(f"s0-{number}")
    file = tmp_path / "leases" / "fence"
    assert not may_train(file, 1, "s0-11")
    assert may_train(file, 1, "s0-12")
    Fence(tmp_path, 2)
    assert file.read_text() == "2\n"
    assert not may_train(file, 1, "s0-12")


def test_a_superseded_worker_leaves_before_it_starts_and_before_it_writes(tmp_path: Path) -> None:
    Fence(tmp_path, 1)
    lease = CohortLease(tmp_path, 1, "s0-1", ["c000-s0"], leave)
    lease.check()
    Fence(tmp_path, 2)
    with pytest.raises(Left):
        lease.check()
    lease.close()
    with pytest.raises(Left):
        CohortLease(tmp_path, 1, "s0-2", ["c000-s0"], leave)
    assert not list((tmp_path / "leases").glob("*.json"))


def test_a_worker_that_cannot_renew_its_file_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fence(tmp_path, 1)
    lease = CohortLease(tmp_path, 1, "s0-1", ["c000-s0"], leave)
    monkeypatch.setattr(_cohort_lease, "_OWN_STALE_SECONDS", -1.0)
    with pytest.raises(Left):
        lease.check()
    lease.close()


def train_for_ever(folder: Path, ready: Connection) -> None:
    CohortLease(folder, 1, "s0-1", ["c000-s0"])
    ready.send(True)
    time.sleep(1000)


def orphan(folder: Path) -> BaseProcess:
    """Starts a worker whose driver is gone: it trains, in its own way, for ever."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=train_for_ever, args=(folder, there))
    process.start()
    assert here.recv()
    return process


def ended(process: BaseProcess) -> int | None:
    process.join()
    return process.exitcode


def test_an_orphan_of_this_machine_is_killed(tmp_path: Path) -> None:
    Fence(tmp_path, 1)
    process = orphan(tmp_path)
    Fence(tmp_path, 2, stale_seconds=1e6).reap(lambda note: None)
    assert ended(process) == -signal.SIGKILL
    assert not list((tmp_path / "leases").glob("*.json"))


def test_an_orphan_out_of_reach_stops_itself(tmp_path: Path) -> None:
    Fence(tmp_path, 1)
    process = orphan(tmp_path)
    Fence(tmp_path, 2)  # and nobody reaps it
    assert ended(process) == 75


def far_lease(folder: Path, beat: int, fence: int = 1) -> dict[str, Any]:
    said = {"process": asdict(FAR), "fence": fence, "cohort": "s0-1", "trials": ["c000-s0"]}
    lease_path(folder, fence, "s0-1").write_text(json.dumps(said | {"beat": beat}))
    return said


def test_a_worker_out_of_reach_is_waited_for_until_it_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cohort_lease, "_QUIET_SECONDS", 0.0)
    fence = Fence(tmp_path, 1, stale_seconds=0.5)
    far_lease(tmp_path, beat=1)
    assert not fence.has_stopped("s0-1")
    for beat in range(2, 5):
        far_lease(tmp_path, beat)
        time.sleep(0.2)
        assert not fence.has_stopped("s0-1")
    notes: list[str] = []
    Fence(tmp_path, 2, stale_seconds=0.5).reap(notes.append)
    assert notes == [
        "waiting until workers of an earlier sweep have stopped, or were silent for 0 s: "
        f"c000-s0 by process {FAR.pid} on gpu-7"
    ]
    assert not list((tmp_path / "leases").glob("*.json"))


def test_what_is_known_to_have_ended_is_forgotten(tmp_path: Path) -> None:
    fence = Fence(tmp_path, 1, stale_seconds=1e6)
    far_lease(tmp_path, beat=1)
    fence.forget("s0-1")
    fence.forget("s0-1")
    assert fence.has_stopped("s0-1")
