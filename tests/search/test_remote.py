"""A study on nodes that share no folder but a remote one."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from s3 import KEYS, s3_server

from kdscale.errors import UserError
from kdscale.files import Remote
from kdscale.search import Study, delete_study, open_ledger, sweep, what_fresh_deletes
from kdscale.search import _remote as module
from kdscale.search._cohort_job import Place, reports
from kdscale.search._queue import CohortQueue
from kdscale.search._remote import claim_remote, close_backup, study_backup, study_remote
from kdscale.search._sweep import _prepare_teacher
from kdscale.training import Group
from kdscale.workflow import finish

from .here import Listener, numbers, swept_here
from .studies import make_study


def small_study(folder: Path, **storage: Any) -> Study:
    """Returns a study of three trials in three legs."""
    network: dict[str, Any] = {"model": "resnet8", "args": {"width": 4}}
    return make_study(
        name="remote",
        task={
            "data": {"name": "icons100", "train_images": 100},
            "teacher": {
                "model": "resnet8",
                "weights": "package:icons100-resnet8",
                "inference": "folded",
            },
            "student": network,
            "recipe": {"lr": 0.1, "batch_size": 50},
        },
        search={"method": "random"},
        rungs={"eta": 2, "first": 1},
        budget={"trials": 2, "epochs": 2},
        resources={"cohort": 1},
        storage={"folder": str(folder), **storage},
    )


def test_nodes_without_a_shared_folder_train_what_one_alone_does(tmp_path: Path) -> None:
    wanted = numbers(swept_here(small_study(tmp_path / "alone")))
    uri = (tmp_path / "remote").as_uri()
    study = small_study(tmp_path / "driver", remote=uri)
    ledger = open_ledger(study, create=True)
    claim_remote(study)
    own = study_backup(study, study.folder.absolute())
    teacher = _prepare_teacher(study, ledger, lambda progress: None, own)
    assert own is not None
    assert close_backup(own) == ""

    queue = CohortQueue(ledger)
    for node in cycle(("a", "b")):
        if (job := queue.next()) is None:
            break
        folder = tmp_path / node / study.name
        file = folder / "teachers" / teacher.name
        place = Place(study, folder, file, tmp_path / node / "cache", fence=1)
        for report in reports(job, place, Group()):
            assert "crashed" not in report, report
            queue.report(report)
        queue.finished(job.cohort)
    assert queue.complete
    assert numbers(ledger) == wanted
    assert not list(study.folder.glob("trials/*"))
    _, record = finish(study, ledger)  # fetches the students
    assert record.final is not None
    names = {trial.name for trial in (*ledger.trials, *ledger.controls) if trial.state == "done"}
    assert {path.parent.name for path in study.folder.glob("trials/*/student.pt")} == names
    caches = {path.parts[-2] for path in tmp_path.glob("remote/.cache/teachers/*/*.pack")}
    assert len(caches) == 1


def test_a_remote_folder_belongs_to_one_study(tmp_path: Path) -> None:
    uri = (tmp_path / "remote").as_uri()
    mine, other = (small_study(tmp_path / name, remote=uri) for name in ("mine", "other"))
    for study in (mine, other):
        open_ledger(study, create=True)
    claim_remote(other)
    claim_remote(mine)  # nothing was trained there
    claim_remote(mine)
    remote = study_remote(mine)
    assert remote is not None
    remote.put(b"", "trials/c000-s0/checkpoint-000001.pt")
    claim_remote(mine)
    with pytest.raises(UserError, match="must be new or this study's own, but holds another"):
        claim_remote(other)
    assert f"{remote}, with all that is in it" in what_fresh_deletes(other)
    delete_study(other)
    assert remote.sizes() == {}
    open_ledger(other, create=True)
    claim_remote(other)


def claimed(place: Path, uri: str) -> Study:
    """Returns a study of a folder that has trained something there and at its remote folder."""
    study = small_study(place, remote=uri)
    open_ledger(study, create=True)
    claim_remote(study)
    remote = study_remote(study)
    assert remote is not None
    remote.put(b"", "trials/c000-s0/checkpoint-000001.pt")
    return study


def test_of_two_copies_of_a_study_one_goes_on_with_its_remote_folder(tmp_path: Path) -> None:
    uri = (tmp_path / "remote").as_uri()
    first = claimed(tmp_path / "first", uri)
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    copy = small_study(tmp_path / "copy", remote=uri)
    claim_remote(copy)
    with pytest.raises(UserError, match="must be new or this study's own, but holds another"):
        claim_remote(first)
    (tmp_path / "copy").rename(tmp_path / "moved")
    claim_remote(small_study(tmp_path / "moved", remote=uri))


@pytest.mark.parametrize("written", [False, True])
def test_a_claim_that_was_cut_short_is_made_again(
    tmp_path: Path, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = claimed(tmp_path / "first", (tmp_path / "remote").as_uri())
    whole = Remote.put

    def put(remote: Remote, data: bytes | Path, name: str) -> None:
        if name == "study.id":
            if written:
                whole(remote, data, name)
            raise KeyboardInterrupt
        whole(remote, data, name)

    for _ in range(2):
        monkeypatch.setattr(Remote, "put", put)
        with pytest.raises(KeyboardInterrupt):
            claim_remote(study)
    monkeypatch.undo()
    claim_remote(study)


def test_a_study_whose_id_an_earlier_version_wrote_goes_on(tmp_path: Path) -> None:
    study = claimed(tmp_path / "first", (tmp_path / "remote").as_uri())
    with closing(sqlite3.connect(study.folder / "study.db")) as database, database:
        database.execute("DELETE FROM study_user_attributes WHERE key = 'remote_id_before'")
    claim_remote(study)


def test_a_remote_folder_that_cannot_be_used_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.0)
    study = small_study(tmp_path, remote="s3://bucket/a?unknown=1&region=us-east-1")
    open_ledger(study, create=True)
    with pytest.raises(UserError, match="s3://bucket/a/remote must be a folder to read and write"):
        claim_remote(study)


@pytest.mark.parametrize(
    ("remote", "rule"),
    [("s3://key:secret@bucket/a", "must hold no password"), ("/mnt/nfs", "must be a URI")],
)
def test_a_wrong_uri_is_a_mistake_in_the_study_file(remote: str, rule: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rule):
        small_study(tmp_path, remote=remote)


@pytest.fixture(scope="module")
def keys() -> Iterator[None]:
    """Puts the server's keys into the environment that Ray's workers inherit."""
    with mock.patch.dict(os.environ, KEYS):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("keys", "cluster")
def test_a_sweep_goes_on_from_s3_alone(tmp_path: Path) -> None:
    wanted = numbers(swept_here(small_study(tmp_path / "alone")))
    with s3_server() as server:
        study = small_study(tmp_path / "swept", remote=server.uri("studies"), quota="0B")
        listener = Listener()
        outcome = sweep(study, listener)
        assert outcome.complete
        assert numbers(outcome.ledger) == wanted
        remote = Remote(server.uri("studies/remote"))
        assert not [name for name in remote.sizes() if "checkpoint" in name]  # beyond the quota
        shutil.rmtree(study.folder / "trials")
        assert finish(study, outcome.ledger)[1].final is not None
