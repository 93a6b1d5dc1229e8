"""A disk that is full when a sweep starts: told in words, with nothing damaged."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from disks import no_room
from sweeps import network, study_in

from kdscale.errors import UserError
from kdscale.files import DISK_FULL
from kdscale.search import open_ledger, sweep_lock
from kdscale.search._sweep import _prepare_teacher
from kdscale.training import store_teacher, trained_teacher_path


def test_the_lock_holds_where_its_holder_cannot_be_written(tmp_path: Path) -> None:
    with sweep_lock(tmp_path):
        pass
    refused = pytest.raises(UserError, match="one sweep at a time may write a study")
    with no_room(), sweep_lock(tmp_path), refused, sweep_lock(tmp_path):
        raise AssertionError("the lock must be held")
    with sweep_lock(tmp_path):
        assert (tmp_path / "sweep.lock").read_text() == str(os.getpid())


def test_a_database_without_room_is_not_called_damaged(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    with no_room(), pytest.raises(UserError) as refused:
        open_ledger(study, create=True)
    told = str(refused.value)
    assert f"study.db: must have room on its disk, but {DISK_FULL}" in told
    assert "whole" not in told
    open_ledger(study, create=True)


def test_a_teacher_that_does_not_fit_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(tmp_path)
    ledger = open_ledger(study, create=True)
    trained = trained_teacher_path(study.teacher_folder)
    trained.parent.mkdir(parents=True)
    made = store_teacher(network(0), study.task.teacher, 100, tmp_path / "elsewhere")
    made.rename(trained)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("kdscale.training._checkpoint.os.fsync", full)
        with pytest.raises(UserError, match="must have room for the study's teacher") as refused:
            _prepare_teacher(study, ledger, lambda progress: None)
    assert DISK_FULL in str(refused.value)
    assert _prepare_teacher(study, ledger, lambda progress: None).exists()
