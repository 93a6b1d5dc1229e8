from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from kdscale.files import Remote
from kdscale.search import _remote_lease
from kdscale.search._cohort_lease import CohortLease, Fence, lease_path
from kdscale.search._process import this_process
from kdscale.search._remote_lease import RemoteFence

FAR = replace(this_process(), machine="another machine", host="gpu-7")


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_remote_lease, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(_remote_lease, "_ASK_SECONDS", 0.05)


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote((tmp_path / "bucket").as_uri())


def worker(folder: Path, remote: Remote, fence: int, left: threading.Event) -> CohortLease:
    return CohortLease(folder, fence, "s0-1", ["c000-s0"], left.set, remote)


def until(what: Callable[[], object]) -> None:
    while not what():  # the test's time limit ends a wait in vain
        time.sleep(0.02)


def test_a_worker_with_a_folder_of_its_own_sees_the_fence_and_is_waited_for(
    tmp_path: Path, remote: Remote
) -> None:
    left = threading.Event()
    fence = Fence(tmp_path / "here", 1, RemoteFence(remote, notice_seconds=1e6))
    until(lambda: remote.get("leases/fence") == b"1\n")
    lease = worker(tmp_path / "there", remote, 1, left)
    until(lambda: remote.get("leases/1-s0-1.json"))
    assert not fence.has_stopped("s0-1")  # and from now on it may train no more
    assert left.wait()
    lease.close()
    until(lambda: fence.has_stopped("s0-1"))


def test_a_further_sweep_elsewhere_waits_for_it(tmp_path: Path, remote: Remote) -> None:
    left = threading.Event()
    lease = worker(tmp_path / "there", remote, 1, left)
    until(lambda: remote.get("leases/1-s0-1.json"))
    closing = threading.Thread(target=lambda: left.wait() and lease.close())
    closing.start()
    other = RemoteFence(remote, notice_seconds=1e6)
    Fence(tmp_path / "elsewhere", 2, other).reap(lambda note: None)
    closing.join()
    assert left.is_set()
    assert other.left() == {}


def test_one_that_never_answers_is_waited_for_so_long_and_named(
    tmp_path: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdscale.search._cohort_lease._QUIET_SECONDS", 0.0)
    said = {"process": asdict(FAR), "fence": 1, "cohort": "s0-1", "trials": ["c000-s0"]}
    remote.put(json.dumps(said).encode(), "leases/1-s0-1.json")
    assert not RemoteFence(remote, notice_seconds=1e6).has_stopped("1-s0-1.json")
    other = RemoteFence(remote, notice_seconds=0.5)
    notes: list[str] = []
    Fence(tmp_path, 2, other).reap(notes.append)
    assert [note.partition(": ")[2] for note in notes] == [f"c000-s0 by process {FAR.pid} on gpu-7"]
    other.close()
    assert other.left() == {}


def test_a_dead_process_of_this_machine_is_not_waited_for_elsewhere(
    tmp_path: Path, remote: Remote
) -> None:
    dead = replace(this_process(), pid=2**22 + 1)
    said = {"process": asdict(dead), "fence": 1, "cohort": "s0-1", "trials": ["c000-s0"]}
    fence = Fence(tmp_path, 1, RemoteFence(remote, notice_seconds=1e6))
    lease_path(tmp_path, 1, "s0-1").write_text(json.dumps(said))
    remote.put(json.dumps(said).encode(), "leases/1-s0-1.json")
    assert fence.has_stopped("s0-1")
    until(lambda: remote.get("leases/1-s0-1.json") is None)


def test_while_the_storage_is_away_a_lost_worker_is_waited_for_so_long(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    away = Remote((tmp_path / "file" / "bucket").as_uri())
    other = RemoteFence(away, notice_seconds=0.3)
    fence = Fence(tmp_path, 1, other)
    assert other.left() == {}
    until(lambda: fence.has_stopped("s0-1"))
