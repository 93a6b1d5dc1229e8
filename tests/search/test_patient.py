"""A study's database on a full disk: the sweep waits, and then goes on where it was."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import tempfile
import warnings
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from pathlib import Path

import optuna
import pytest
from disks import DISK_BYTES, can_mount, full_disk
from optuna.study import StudyDirection
from sweeps import study_in

from kdscale.search import Study, open_ledger
from kdscale.search import _patient as module
from kdscale.search._database import shared_storage
from kdscale.search._patient import database_full

with tempfile.TemporaryDirectory() as _folder:
    MOUNTS = can_mount(Path(_folder))

needs_a_disk = pytest.mark.skipif(not MOUNTS, reason="needs the right to mount a file system")


def filled(study: Study, room: Path) -> None:
    """Fills a study's disk to the last byte, but for what the ballast takes."""
    file = os.open(room, os.O_WRONLY | os.O_TRUNC)
    with suppress(OSError):
        while True:
            os.write(file, bytes(4096))
    os.close(file)


@needs_a_disk
def test_a_write_waits_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with full_disk(tmp_path / "disk", DISK_BYTES - 4096) as disk:
        ballast = disk.folder / "ballast"
        ledger = open_ledger(study_in(disk.folder), create=True)
        filled(ledger.study, ballast)
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                ballast.unlink()

        monkeypatch.setattr(module.time, "sleep", sleep)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for number in range(200):
                ledger.save_teacher("a" * 16)
                ledger._storage.set_study_user_attr(ledger._ids[False], f"a{number}", "b" * 2000)
        assert len(waits) == 3
        assert [str(w.message) for w in told if "database is full" in str(w.message)]
        again = open_ledger(ledger.study, create=False)
        attributes = again._storage.get_study_user_attrs(again._ids[False])
        assert sum(name.startswith("a") for name in attributes) == 200


def wait(folder: Path, told: Connection) -> None:
    """Writes in a process of its own whose Ctrl-C somebody else has taken."""
    signal.signal(signal.SIGINT, lambda *_: None)
    ledger = open_ledger(study_in(folder), create=True)
    filled(ledger.study, folder / "ballast")
    sleep = module.time.sleep

    def say(seconds: float) -> None:
        told.send("waits")
        sleep(seconds)

    module.time.sleep = say  # type: ignore[assignment]
    for number in range(200):
        ledger._storage.set_study_user_attr(ledger._ids[False], f"a{number}", "b" * 2000)


@pytest.mark.slow
@needs_a_disk
def test_ctrl_c_ends_a_wait(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    with full_disk(tmp_path / "disk", DISK_BYTES - 4096) as disk:
        process = context.Process(target=wait, args=(disk.folder, there))
        process.start()
        there.close()
        for _ in range(3):
            assert here.recv() == "waits"
        assert process.pid is not None
        while process.is_alive():  # the signal counts only within a wait
            os.kill(process.pid, signal.SIGINT)
            process.join(0.2)
        assert process.exitcode in (1, -signal.SIGINT)  # the last one may find it at its end


@pytest.mark.parametrize("is_long", [False, True])
def test_a_write_waits_for_readers_of_a_shared_file(
    is_long: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "team.db"
    storage = shared_storage(f"sqlite:///{database}?timeout=0.01")
    study = storage.create_new_study([StudyDirection.MAXIMIZE], "a")
    waits: list[float] = []
    monkeypatch.setattr(module, "_LONG_SECONDS", 0.0 if is_long else 3600.0)
    with closing(sqlite3.connect(database)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM studies").fetchall()

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                reader.rollback()

        monkeypatch.setattr(module.time, "sleep", sleep)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            storage.set_study_user_attr(study, "a", 1)
    assert len(waits) == 3
    assert storage.get_study_user_attrs(study) == {"a": 1}
    said = [str(one.message) for one in told if "locked by another process" in str(one.message)]
    assert len(said) == is_long


def test_readers_of_a_shared_file_are_waited_for_as_of_the_study_s_own(tmp_path: Path) -> None:
    def wait(options: str = "") -> int:
        storage = shared_storage(f"sqlite:///{tmp_path}/team.db{options}")
        with storage.engine.connect() as connection:
            [[journal]] = connection.exec_driver_sql("PRAGMA journal_mode")
            assert journal == "delete"
            [[milliseconds]] = connection.exec_driver_sql("PRAGMA busy_timeout")
        return int(milliseconds)

    assert wait() == 60_000
    assert wait("?timeout=7") == 7_000


def test_other_errors_are_raised(tmp_path: Path) -> None:
    ledger = open_ledger(study_in(tmp_path), create=True)
    with pytest.raises(KeyError):
        ledger._storage.set_study_user_attr(99, "a", 1)
    error = optuna.exceptions.StorageInternalError("x")
    error.__cause__ = sqlite3.OperationalError("no such table")
    assert not database_full(error)
