"""Checkpoints on a remote folder: any node goes on, whatever was killed, and ends with the bits."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from s3 import Server, s3_server

from kdscale.errors import UserError
from kdscale.files import Remote
from kdscale.files import _mirror as mirror
from kdscale.training import Backup, Cohort, Group, Member, checkpoint_path, train_cohort
from kdscale.training import _backup as module

from .tasks import (
    EPOCHS,
    Outcome,
    assert_same,
    cohort_of,
    data,
    files_of,
    follow,
    members,
    recipe_with,
    teacher,
    train,
)

NAMES = ("kd", "dkd", "wild")


def three(folder: Path, told: int = 0) -> Cohort:
    """Returns a cohort of three in a study folder, of which one diverges."""
    trials = members(folder / "trials", *NAMES, recipes={"wild": recipe_with(lr=1e30)})
    names = ("name", "ce_weight", "terms", "recipe", "folder", "ce_start_epoch")
    return cohort_of(
        tuple(Member(*(getattr(trial, name) for name in names), told) for trial in trials)
    )


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Outcome], dict[str, Any]]:
    cohort = three(tmp_path_factory.mktemp("undisturbed"))
    return train(cohort), {member.name: files_of(member) for member in cohort.members}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as running:
        yield running


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.slow)])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    if request.param == "file":
        return Remote((tmp_path / "remote").as_uri())
    running: Server = request.getfixturevalue("server")
    return Remote(running.uri(tmp_path.name))


def epochs_there(remote: Remote) -> list[str]:
    return sorted(name for name in remote.sizes() if "checkpoint" in name)


def test_another_node_goes_on_where_one_was_lost(
    remote: Remote, undisturbed: tuple[dict[str, Outcome], dict[str, Any]], tmp_path: Path
) -> None:
    first = Backup(remote, tmp_path / "a")
    progress = train_cohort(three(tmp_path / "a"), data(), teacher(), Group(), first)
    told = follow(islice(progress, 3))  # the start and two epochs
    assert [len(told[name].rows) for name in NAMES] == [1, 1, 0]  # the second is on its way
    first.settle()
    assert epochs_there(remote) == [
        "trials/dkd/checkpoint-000002.pt",
        "trials/kd/checkpoint-000002.pt",
    ]

    second = Backup(remote, tmp_path / "b")
    cohort = three(tmp_path / "b", told=1)
    assert follow(train_cohort(cohort, data(), teacher(), Group(), second)) == undisturbed[0]
    for member in cohort.members:
        assert_same(files_of(member), undisturbed[1][member.name])
    # What was told is there: nobody needs the node that told it.
    third = Backup(remote, tmp_path / "c")
    for member in three(tmp_path / "c").members[:2]:
        third.find_checkpoint(member.folder, EPOCHS)
        assert third.fetch(member.folder / "student.pt")
        assert_same(files_of(member), undisturbed[1][member.name])


def test_a_late_upload_never_replaces_a_newer_one(remote: Remote, tmp_path: Path) -> None:
    late, other = Backup(remote, tmp_path / "a"), Backup(remote, tmp_path / "b")
    trial = three(tmp_path / "a")
    with mock.patch.object(Backup, "save_trial"):  # cut off after the first epoch
        follow(islice(train_cohort(trial, data(), teacher(), Group(), late), 2))
    follow(train_cohort(three(tmp_path / "b"), data(), teacher(), Group(), other))
    late.catch_up()
    assert late.settle()
    third = Backup(remote, tmp_path / "c")
    for member in three(tmp_path / "c").members[:2]:
        third.find_checkpoint(member.folder, 1)
        assert len(files_of(member)["checkpoint.pt"]["history"]) == EPOCHS
    # A checkpoint that will do is not fetched.
    time = checkpoint_path(trial.members[0].folder).stat().st_mtime_ns
    late.find_checkpoint(trial.members[0].folder, 1)
    assert checkpoint_path(trial.members[0].folder).stat().st_mtime_ns == time
    late.find_checkpoint(trial.members[0].folder, 2)
    assert checkpoint_path(trial.members[0].folder).stat().st_mtime_ns != time


def test_what_is_deleted_here_is_deleted_there(remote: Remote, tmp_path: Path) -> None:
    backup = Backup(remote, tmp_path)
    follow(train_cohort(three(tmp_path), data(), teacher(), Group(), backup))
    names = set(remote.sizes())
    kd = tmp_path / "trials" / "kd"
    backup.make_room([tmp_path / "trials" / "dkd"])
    assert [path.name for path in kd.glob("*.pt")] == []
    assert set(remote.sizes()) == names
    backup.delete(kd / "checkpoint.pt")
    assert backup.settle()
    assert names - set(remote.sizes()) == {"trials/kd/checkpoint-000003.pt"}
    assert not backup.fetch(kd / "checkpoint.pt")
    assert backup.fetch(kd / "student.pt")
    assert not backup.fetch(tmp_path / "teachers" / "absent.pt")


def test_what_a_killed_upload_left_goes_with_its_file(tmp_path: Path) -> None:
    remote = Remote((tmp_path / "remote").as_uri())
    folder = tmp_path / "remote" / "trials" / "kd"
    folder.mkdir(parents=True)
    left = [f"checkpoint-00000{epoch}.pt.gpu-7.4321.part" for epoch in (1, EPOCHS)]
    for name in left:
        (folder / name).touch()
    backup = Backup(remote, tmp_path / "a")
    cohort = cohort_of(members(tmp_path / "a" / "trials", "kd"))
    list(train_cohort(cohort, data(), teacher(), Group(), backup))
    assert sorted(os.listdir(folder)) == [f"checkpoint-00000{EPOCHS}.pt", left[1], "student.pt"]
    path = checkpoint_path(tmp_path / "a" / "trials" / "kd")
    path.unlink()
    backup.delete(path)
    backup.close(5)
    assert os.listdir(folder) == ["student.pt"]


def train_until_killed(folder: Path, uri: str, puts: int) -> None:
    """Trains in a process of its own, which SIGKILL ends in the middle of its n-th upload."""
    put = Remote.put
    left = puts

    def last(self: Remote, content: bytes | Path, name: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            draft = f"{name}.dead.part" if uri.startswith("file") else "never completed"
            put(self, b"half", draft)
            os.kill(os.getpid(), signal.SIGKILL)
        put(self, content, name)

    with mock.patch.object(Remote, "put", last):
        backup = Backup(Remote(uri), folder)
        follow(train_cohort(three(folder), data(), teacher(), Group(), backup))


@pytest.mark.slow
@pytest.mark.parametrize("puts", [2, 6])
def test_a_node_killed_while_it_uploads(
    puts: int,
    server: Server,
    undisturbed: tuple[dict[str, Outcome], dict[str, Any]],
    tmp_path: Path,
) -> None:
    uri = server.uri(tmp_path.name)
    process = multiprocessing.get_context("spawn").Process(
        target=train_until_killed, args=(tmp_path / "a", uri, puts)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    for folder in ("b", "a"):  # on another node, and on the same one afterwards
        backup = Backup(Remote(uri), tmp_path / folder)
        backup.catch_up()
        cohort = three(tmp_path / folder, told=1 if puts > 2 else 0)
        assert follow(train_cohort(cohort, data(), teacher(), Group(), backup)) == undisturbed[0]
        for member in cohort.members:
            assert_same(files_of(member), undisturbed[1][member.name])


@pytest.mark.slow
def test_a_server_that_is_down_for_a_while(
    undisturbed: tuple[dict[str, Outcome], dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mirror, "_LONGEST_PAUSE_SECONDS", 0.5)
    with s3_server() as server:
        remote = Remote(server.uri("folder"))
        backup = Backup(remote, tmp_path / "a")
        progress = train_cohort(three(tmp_path / "a"), data(), teacher(), Group(), backup)
        first = list(islice(progress, 2))
        server.stop()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            rest = list(progress)
        assert follow([*first, *rest]) == undisturbed[0]  # as if nothing were away
        assert len([w for w in told if "is away" in str(w.message)]) == 1
        reasons = {part.reason for parts in rest for part in parts if part.status == "running"}
        assert any("is away" in reason for reason in reasons)
        left = backup.close(0.1)
        assert set(left) >= {"trials/kd", "trials/dkd"}

        server.start()
        again = Backup(remote, tmp_path / "a")  # as the next sweep has it
        again.catch_up()
        assert again.settle()
        elsewhere = three(tmp_path / "b", told=EPOCHS)
        other = Backup(remote, tmp_path / "b")
        assert follow(train_cohort(elsewhere, data(), teacher(), Group(), other)) == undisturbed[0]
        for member in elsewhere.members[:2]:
            assert other.fetch(member.folder / "student.pt")
            assert_same(files_of(member), undisturbed[1][member.name])


def test_without_the_remote_training_goes_on_from_what_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.0)
    backup = Backup(Remote("s3://bucket/a?unknown=1&region=us-east-1"), tmp_path / "a")
    with pytest.warns(RuntimeWarning, match="training goes on from epoch 0, and repeats"):
        backup.find_checkpoint(tmp_path / "a" / "trials" / "kd", 2)
    with pytest.raises(UserError, match=r"must have teacher\.pt, but"):
        backup.fetch(tmp_path / "a" / "teacher.pt")
