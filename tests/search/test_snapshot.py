from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from sweeps import PretendSweep, study_in

from kdscale.errors import UserError
from kdscale.search import Heartbeat, ledger_snapshot, open_ledger
from kdscale.search._snapshot import copy_database
from kdscale.search._storage import DATABASE


def files(folder: Path) -> dict[str, bytes]:
    """Returns what is durable: the index of the log in shared memory is not."""
    kept = [path for path in folder.iterdir() if path.is_file() and path.suffix != ".db-shm"]
    return {path.name: path.read_bytes() for path in kept}


def test_a_snapshot_is_the_record_and_leaves_it_as_it_is(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    PretendSweep(stop_after=1)(study)
    ledger = open_ledger(study, create=False)  # its log lies there, as while a sweep runs
    ledger.save_heartbeat(Heartbeat("host", 7, "then", "now").to_json())
    before = files(study.folder)
    assert f"{DATABASE}-wal" in before
    with ledger_snapshot(study) as snapshot:
        assert snapshot.record() == ledger.record()
        assert snapshot.heartbeat() == Heartbeat("host", 7, "then", "now")
    assert files(study.folder) == before


def test_there_is_no_snapshot_of_no_study(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="there must be a study"),
        ledger_snapshot(study_in(tmp_path)),
    ):
        pass
    assert not (study_in(tmp_path).folder / DATABASE).exists()


@pytest.mark.parametrize("content", [b"no", b""])
def test_an_error_names_the_study_and_not_its_copy(tmp_path: Path, content: bytes) -> None:
    study = study_in(tmp_path)
    study.folder.mkdir()
    (study.folder / DATABASE).write_bytes(content * 100)
    with pytest.raises(UserError) as raised, ledger_snapshot(study):
        pass
    assert str(study.folder / DATABASE) in str(raised.value)
    assert "kdscale-status-" not in str(raised.value)


def test_a_copy_of_a_database_that_is_written_to_is_whole(tmp_path: Path) -> None:
    """Each transaction writes one number to both tables, so they are equal at every moment."""
    database = tmp_path / "study.db"
    writer = sqlite3.connect(database, check_same_thread=False)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("PRAGMA synchronous=OFF")
    writer.execute("PRAGMA wal_autocheckpoint=20")
    for table in ("a", "b"):
        writer.execute(f"CREATE TABLE {table} (number INTEGER, filling TEXT)")
    writer.commit()
    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.is_set():
            for table in ("a", "b"):
                writer.execute(f"INSERT INTO {table} VALUES (?, ?)", (number, "x" * 300))
            writer.commit()
            number += 1
            ended.wait(0.0005)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for turn in range(20):
            copy = tmp_path / f"copy{turn}" / "study.db"
            copy_database(database, copy)
            reader = sqlite3.connect(copy)
            assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            last = [reader.execute(f"SELECT max(number) FROM {t}").fetchone() for t in ("a", "b")]
            assert last[0] == last[1]
            reader.close()
    finally:
        ended.set()
        thread.join()
        writer.close()
