from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from kdscale.records import StudyRecord, TrialRecord
from kdscale.tracking import make_tracker, mlflow_environment, run_links, ui_page


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in mlflow_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def study(folder: Path) -> StudyRecord:
    history = ({"epoch": 1, "val_accuracy": 70.0},)
    trials = tuple(
        TrialRecord(n, n, 0, {"alpha": 1.0}, "done", 70.0, history, attempt=1) for n in range(2)
    )
    trials = (*trials, TrialRecord(2, 2, 0, {"alpha": 1.0}, "waiting"))
    return StudyRecord(
        *("tiny", folder, "val_accuracy", "maximize", "last", 1, (0,), (), ("alpha",), ""),
        trials=trials,
    )


def test_trials_of_the_study_have_their_page(tmp_path: Path) -> None:
    tracker = make_tracker(study(tmp_path))
    tracker.close()
    assert tracker.problem == ""
    links = run_links(tmp_path, None, "tiny")
    assert links.needs_ui
    assert set(links.pages) == {"c000-s0", "c001-s0"}  # the third never started
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        runs = dict(store.execute("select run_uuid, experiment_id from runs").fetchall())
    for page in links.pages.values():
        base, _, rest = page.partition("/#/experiments/")
        experiment, _, run = rest.removesuffix("?workflowType=machine_learning").partition("/runs/")
        assert base == "http://127.0.0.1:5000"
        assert str(runs[run]) == experiment
    assert run_links(tmp_path, None, "another").pages == {}
    page = ui_page(tmp_path, None, "tiny", port=5123)
    assert (
        page == f"http://127.0.0.1:5123/#/experiments/{experiment}/runs?viewStateShareKey=kdscale"
    )
    assert ui_page(tmp_path, None, "another") == "http://127.0.0.1:5000/"
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        store.execute("delete from experiment_tags")  # as of one that others have made
    page = f"http://127.0.0.1:5000/#/experiments/{experiment}/runs?workflowType=machine_learning"
    assert ui_page(tmp_path, None, "tiny") == page


def test_what_is_no_sqlite_is_not_asked_for_its_page(tmp_path: Path) -> None:
    assert ui_page(tmp_path, "postgresql://me@127.0.0.1:9/mlflow", "x") == "http://127.0.0.1:5000/"
    assert ui_page(tmp_path, None, "x") == "http://127.0.0.1:5000/"
    (tmp_path / "mlflow.db").touch()
    assert ui_page(tmp_path, None, "x") == "http://127.0.0.1:5000/"


def test_where_nothing_is_tracked_nothing_is_made(tmp_path: Path) -> None:
    assert run_links(tmp_path, None, "tiny").pages == {}
    (tmp_path / "mlflow.id").write_text("0a\n")
    assert run_links(tmp_path, None, "tiny").pages == {}
    assert run_links(tmp_path, (tmp_path / "files").as_uri(), "tiny").pages == {}
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.id"]


def test_a_server_that_is_down_gives_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "mlflow.id").write_text("0a\n")
    links = run_links(tmp_path, "http://user:secret@127.0.0.1:9", "tiny")
    assert (links.pages, links.needs_ui) == ({}, False)
