from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from sweeps import PretendSweep, study_in

from kdscale.analysis import write_report
from kdscale.errors import UserError
from kdscale.search import Study, _remote_lease, delete_study, open_ledger, what_fresh_deletes
from kdscale.search._cohort_lease import CohortLease, Fence, lease_path, may_train
from kdscale.search._lease import Lease
from kdscale.search._process import Process, this_process
from kdscale.search._remote import study_remote
from kdscale.search._storage import open_storage
from kdscale.search._sweep import leased

FOREIGN = (
    "notes.txt",
    "report.pdf",
    "study.db.backup",
    "mlflow.txt",
    "my trials/c000-s0.txt",
    ".hidden",
)


def fill(study: Study) -> None:
    """Leaves in the study folder what a sweep and its tracking leave there."""
    outcome = PretendSweep(students=True)(study)
    write_report(outcome.ledger.record(), study.folder)
    owned = ("mlflow.db", "mlflow.id", "mlartifacts/1/report.md", "ray/x/tuner.pkl", "sweep.lock")
    for name in (*owned, "teacher/student.pt", "single/abc/checkpoint.pt", *FOREIGN):
        path = study.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 2**20)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_is_deleted_is_listed_with_its_size(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    fill(study)
    lines = what_fresh_deletes(study)
    assert f"{study.folder}/mlflow.db (1.0 MiB)" in lines
    assert f"{study.folder}/mlartifacts (1 files, 1.0 MiB)" in lines
    assert any(line.startswith(f"{study.folder}/trials (6 files, ") for line in lines)
    listed = [Path(line.rpartition(" (")[0]) for line in lines]
    assert len(set(listed)) == len(listed)
    before = files(study.folder)
    delete_study(study)
    gone = before - files(study.folder)
    for name in gone:
        path = study.folder / name
        assert any(path == one or path.is_relative_to(one) for one in listed)
    for path in listed:
        assert not path.exists()


def test_only_what_is_not_kdscales_own_remains(tmp_path: Path) -> None:
    study, neighbour = study_in(tmp_path), study_in(tmp_path, name="tiny-2")
    fill(study)
    fill(neighbour)
    before = files(neighbour.folder)
    delete_study(study)
    assert files(study.folder) == set(FOREIGN)
    assert files(neighbour.folder) == before
    assert what_fresh_deletes(study) == []


def test_after_it_the_study_starts_over(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    assert PretendSweep()(study).trained
    assert not PretendSweep()(study).trained
    delete_study(study)
    assert not open_ledger(study, create=True).trials
    delete_study(study)
    outcome = PretendSweep()(study)
    assert outcome.trained
    assert outcome.complete


def test_what_another_sweep_is_at_is_not_deleted(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    PretendSweep()(study)
    storage = open_storage(study)
    number = storage.get_study_id_from_name(study.name)
    other = Lease(this_process(), "ab", 7, "2026-11-21T10:00:00", "2026-11-21T10:05:00")
    storage.set_study_user_attr(number, "lease", json.loads(other.to_json()))
    before = files(study.folder)
    with pytest.raises(UserError, match=f"process {other.process.pid} on .* is at it"):
        delete_study(study)
    assert files(study.folder) == before
    ended = replace(other, held=False)
    storage.set_study_user_attr(number, "lease", json.loads(ended.to_json()))
    delete_study(study)
    assert what_fresh_deletes(study) == []


def worker_of(folder: Path, number: int, process: Process) -> None:
    """Leaves what a worker of a sweep of that number leaves there while it trains."""
    said = {"process": asdict(process), "fence": number, "cohort": "s0-1", "trials": ["c000-s0"]}
    lease_path(folder, number, "s0-1").write_text(json.dumps(said))


def test_a_worker_of_the_deleted_study_stays_behind_the_fence(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    PretendSweep(stop_after=1)(study)
    with leased(study, print) as (_, number):
        Fence(study.folder, number)
        worker_of(study.folder, number, replace(this_process(), start=1))  # which has ended
    file = study.folder / "leases" / "fence"
    assert may_train(file, number, "s0-1")
    assert not [line for line in what_fresh_deletes(study) if "fence" in line]
    delete_study(study)
    assert files(study.folder) == {"leases/fence"}
    assert what_fresh_deletes(study) == []
    assert not may_train(file, number, "s0-1")
    between = int(file.read_text())
    with leased(study, print) as (ledger, again):
        assert not ledger.trials
        assert again > between > number


def test_the_fence_outlives_a_database_that_cannot_be_read(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    PretendSweep(stop_after=1)(study)
    Fence(study.folder, 7)
    for path in study.folder.glob("study.db*"):
        path.unlink()
    (study.folder / "study.db").write_text("no database")
    delete_study(study)
    assert files(study.folder) == {"leases/fence"}
    with leased(study, print) as (_, number):
        assert number == 9


def test_a_worker_elsewhere_is_stopped_before_anything_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_remote_lease, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(_remote_lease, "_ASK_SECONDS", 0.05)
    place = f"storage.remote='{(tmp_path / 'bucket').as_uri()}'"
    study, elsewhere = (study_in(tmp_path / one, place) for one in ("here", "there"))
    remote = study_remote(study)
    assert remote is not None
    PretendSweep(stop_after=1)(study)
    with leased(study, print) as (_, number):
        remote.put(f"{number}\n".encode(), "leases/fence")
    left = threading.Event()
    trials = ["c000-s0"]
    lease = CohortLease(tmp_path / "node", number, "s0-1", trials, left.set, remote)
    name = f"leases/{number}-s0-1.json"
    while remote.get(name) is None:
        time.sleep(0.02)

    def end() -> None:
        left.wait()
        remote.put(b"its last checkpoint", "trials/c000-s0/checkpoint-000001.pt")
        lease.close()

    threading.Thread(target=end).start()
    delete_study(study)
    assert remote.sizes().keys() == {"leases/fence"}
    said = remote.get("leases/fence")
    assert said is not None
    assert int(said) > number
    with leased(elsewhere, print) as (_, again):  # from another folder of another machine
        assert again > int(said)


def test_a_new_study_has_nothing_to_delete(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    assert what_fresh_deletes(study) == []
    delete_study(study)
    assert not study.folder.exists()


def test_a_link_is_deleted_and_what_it_points_to_is_not(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "student.pt").write_text("mine")
    study.folder.mkdir()
    (study.folder / "trials").symlink_to(scratch)
    delete_study(study)
    assert (scratch / "student.pt").read_text() == "mine"
    assert not (study.folder / "trials").is_symlink()


def test_a_study_in_a_shared_storage(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/team.db"
    override = f"storage.url='{url}'"
    study, other = study_in(tmp_path, override), study_in(tmp_path, override, name="other")
    assert what_fresh_deletes(study) == []
    for one in (study, other):
        PretendSweep()(one)
    listed = [line for line in what_fresh_deletes(study) if "storage" in line]
    assert listed == [
        'study "tiny" in the storage (4 trials)',
        'study "tiny/undistilled" in the storage (2 trials)',
    ]
    delete_study(study)
    left = optuna.get_all_study_names(RDBStorage(url))
    assert sorted(left) == ["other", "other/undistilled"]
    assert len(open_ledger(other, create=False).trials) == 4
    assert what_fresh_deletes(study) == []


def test_a_storage_that_cannot_be_reached(tmp_path: Path) -> None:
    study = study_in(tmp_path, "storage.url='sqlite:///no/such/folder/x.db'")
    with pytest.raises(UserError, match=r"storage\.url: must be a database"):
        what_fresh_deletes(study)
