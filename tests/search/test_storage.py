"""Where a study's record lies: formats, copies, moves, and damaged databases."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sweeps import PretendSweep, study_file, study_in

import kdscale
from kdscale import cli
from kdscale.errors import UserError
from kdscale.search import Study, ledger_snapshot, open_ledger, train_teacher
from kdscale.search._cohort_job import Place, reports
from kdscale.search._queue import CohortQueue
from kdscale.search._storage import open_storage
from kdscale.search._sweep import _prepare_teacher
from kdscale.training import Group, content_hash, load_network
from kdscale.workflow import finish, load

from .here import numbers, swept_here


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Returns a study of the present version with some trials trained."""
    study = study_in(tmp_path / "studies")
    PretendSweep(stop_after=1)(study)
    return study


def set_attribute(study: Study, key: str, value: Any) -> None:
    storage = open_storage(study)
    storage.set_study_user_attr(storage.get_study_id_from_name(study.name), key, value)


# Formats


def test_a_record_says_its_format_and_who_wrote_it(study: Study) -> None:
    storage = open_storage(study)
    attributes = storage.get_study_user_attrs(storage.get_study_id_from_name("tiny"))
    assert attributes["format"] == {"number": 1, "kdscale": kdscale.__version__}
    assert {"versions", "commit", "study"} <= attributes.keys()


def test_a_record_of_a_later_format_is_refused_by_all_commands(
    study: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_attribute(study, "format", {"number": 2, "kdscale": "9.8.7"})
    before = rows_of(study.folder / "study.db")
    path = study_file(tmp_path)
    for command in ("sweep", "report", "check", "track"):
        words = ["kdscale", command, str(path), f"storage.folder={tmp_path}/studies"]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        error = capsys.readouterr().err
        assert ended.value.code == 2
        assert f"must be in format 1 or older for kdscale {kdscale.__version__}" in error
        assert "kdscale 9.8.7 wrote it in format 2" in error
    assert rows_of(study.folder / "study.db") == before


def test_a_record_from_before_formats_had_numbers_goes_on(study: Study) -> None:
    with closing(sqlite3.connect(study.folder / "study.db")) as database, database:
        database.execute("DELETE FROM study_user_attributes WHERE key = 'format'")
        # It also held paths, which may differ.
        [[text]] = database.execute(
            "SELECT value_json FROM study_user_attributes WHERE key='study'"
        )
        old = json.loads(json.loads(text))
        old["task"]["teacher"]["weights"] = "/old/machine/teacher.pt"
        database.execute(
            "UPDATE study_user_attributes SET value_json = ? WHERE key = 'study'",
            (json.dumps(json.dumps(old)),),
        )
    assert PretendSweep()(study).complete
    test_a_record_says_its_format_and_who_wrote_it(study)


def test_a_making_that_was_cut_short_is_made_up_for(study: Study) -> None:
    with closing(sqlite3.connect(study.folder / "study.db")) as database, database:
        database.execute("DELETE FROM study_user_attributes WHERE key IN ('versions', 'study')")
    open_ledger(study, create=True)
    test_a_record_says_its_format_and_who_wrote_it(study)


# Copies and moves

FORM = "task.teacher.inference=folded"  # else it is measured, and may differ between two studies


def files_with(folder: Path, text: str) -> list[Path]:
    """Returns the files that hold a text, databases with all that was ever written."""
    for database in folder.rglob("*.db"):
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return [p for p in folder.rglob("*") if p.is_file() and text.encode() in p.read_bytes()]


def half_swept(study: Study) -> None:
    """Trains the teacher and some epochs of the first cohort, as a sweep that is then killed."""
    ledger = open_ledger(study, create=True)
    (study.folder / "study.yaml").write_text(study.to_yaml(place=False))
    for _ in train_teacher(study):
        pass
    teacher = _prepare_teacher(study, ledger, lambda progress: None)
    queue = CohortQueue(ledger)
    job = queue.next()
    assert job is not None
    told = reports(job, Place(study, study.folder.absolute(), teacher), Group())
    for _ in range(2):  # the first one tells where the trials stand
        queue.report(next(told))


def test_a_moved_study_goes_on_and_a_copy_is_another_study(tmp_path: Path) -> None:
    place = tmp_path / "first-place"
    sections: dict[str, Any] = {"budget": {"trials": 2, "epochs": 2}, "seeds": 1}
    study = study_in(place, FORM, **sections)
    half_swept(study)
    assert files_with(study.folder, "first-place") == []

    moved = load(place.rename(tmp_path / "moved") / "tiny", [])
    copy = load(shutil.copytree(moved.folder, tmp_path / "copy" / "tiny"), [])
    teacher = next((moved.folder / "teachers").iterdir())
    written = teacher.stat().st_mtime_ns
    ledger = swept_here(moved)
    assert teacher.stat().st_mtime_ns == written
    attempts = {trial.name: trial.attempt for trial in ledger.trials}
    assert attempts == {"c000-s0": 2, "c001-s0": 2}
    undisturbed = numbers(swept_here(study_in(tmp_path / "undisturbed", FORM, **sections)))
    assert numbers(ledger) == undisturbed
    paths, record = finish(moved, ledger)
    assert record.final is not None
    assert all(path.exists() for path in (paths.html, paths.csv, paths.md))
    assert files_with(moved.folder, "first-place") == []

    waiting = open_ledger(copy, create=False)
    assert {trial.has_ended for trial in waiting.trials} == {False}
    assert numbers(swept_here(copy)) == undisturbed
    assert not place.exists()


def test_a_study_that_moved_without_its_teachers_file_uses_its_own_copy(tmp_path: Path) -> None:
    study = study_in(tmp_path / "first", budget={"trials": 2, "epochs": 1}, seeds=1)
    half_swept(study)
    given = tmp_path / "given.pt"
    shutil.copy(next((study.folder / "teachers").iterdir()), given)
    named = load(study.folder, [f"task.teacher.weights={given}"])
    ledger = open_ledger(named, create=True)
    used = _prepare_teacher(named, ledger, lambda progress: None)
    given.unlink()
    assert _prepare_teacher(named, ledger, lambda progress: None) == used
    assert content_hash(load_network(used, 100, 32).state_dict()).startswith(used.stem)
    fresh = study_in(tmp_path / "second", f"task.teacher.weights={given}")
    with pytest.raises(UserError, match="the teacher's weights must exist"):
        _prepare_teacher(fresh, open_ledger(fresh, create=True), lambda progress: None)


def test_a_raised_budget_by_override_continues(study: Study) -> None:
    raised = load(study.folder, ["budget.trials=6"])
    assert PretendSweep()(raised).complete
    assert len(open_ledger(raised, create=False).trials) == 6
    with pytest.raises(UserError, match=r"budget\.trials was 6, now 4"):
        open_ledger(study, create=True)


def rows_of(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


@pytest.mark.parametrize("shared", [False, True])
def test_a_reader_with_a_raised_budget_changes_nothing(tmp_path: Path, shared: bool) -> None:
    team = tmp_path / "team.db"
    places = [f"storage.url='sqlite:///{team}'"] if shared else []
    study = study_in(tmp_path / "studies", *places)
    PretendSweep(stop_after=1)(study)
    database = team if shared else study.folder / "study.db"
    before = rows_of(database)
    raised = study_in(tmp_path / "studies", *places, "budget.trials=8")
    assert open_ledger(raised, create=False).record().trials
    with ledger_snapshot(raised) as ledger:
        assert ledger.record().trials
    assert rows_of(database) == before
    assert PretendSweep()(study).complete  # under its own file


def test_a_reader_makes_up_for_nothing(study: Study) -> None:
    storage = open_storage(study)
    storage.delete_study(storage.get_study_id_from_name("tiny/undistilled"))
    database = study.folder / "study.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM study_user_attributes WHERE key IN ('versions', 'study')")
    before = rows_of(database)
    record = open_ledger(study, create=False).record()
    assert len(record.trials) == 4
    assert record.controls == ()
    assert rows_of(database) == before
    open_ledger(study, create=True)
    test_a_record_says_its_format_and_who_wrote_it(study)


# Damage


@pytest.fixture
def half_copied(study: Study) -> Path:
    """Returns the database of a study copied while it was written, without its log."""
    database = study.folder / "study.db"
    PretendSweep()(study)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [[pages]] = connection.execute("PRAGMA page_count")
    assert pages > 8
    return database


def test_half_a_database(study: Study, half_copied: Path) -> None:
    half_copied.write_bytes(half_copied.read_bytes()[: 4096 * 6])
    for create in (True, False):
        with pytest.raises(UserError, match=r"study\.db: must be .* whole, but: .*copied while"):
            open_ledger(study, create=create)


def test_a_log_without_its_database(study: Study, half_copied: Path) -> None:
    half_copied.unlink()
    half_copied.with_name("study.db-wal").write_bytes(b"x" * 4096)
    with pytest.raises(UserError, match=r"must be .* whole, but: only study\.db-wal is there"):
        open_ledger(study, create=True)
    half_copied.touch()
    with pytest.raises(UserError, match=r"only study\.db-wal is there"):
        open_ledger(study, create=True)


def test_half_a_log_is_an_earlier_moment_of_the_study(study: Study, tmp_path: Path) -> None:
    whole = PretendSweep()(study).ledger
    copied = study_in(tmp_path / "copied")
    copied.folder.mkdir(parents=True)
    shutil.copy(study.folder / "study.db", copied.folder)
    log = (study.folder / "study.db-wal").read_bytes()
    (copied.folder / "study.db-wal").write_bytes(log[: 3 * len(log) // 4])
    assert PretendSweep()(copied).trained
    assert numbers(open_ledger(copied, create=False)) == numbers(whole)


def test_no_database_at_all(study: Study) -> None:
    for path in study.folder.glob("study.db*"):
        path.unlink()
    (study.folder / "study.db").write_text("hello")
    with pytest.raises(UserError, match="file is not a database"):
        open_ledger(study, create=True)
