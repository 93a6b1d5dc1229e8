"""A study of several tasks on the command line: swept, stopped, continued, moved and reported."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sweeps import PretendSweep, study_file

from kdscale import cli
from kdscale.analysis import TaskStudies
from kdscale.cli import _app
from kdscale.errors import UserError
from kdscale.records import StudyRecord
from kdscale.search import load_study, open_ledger
from kdscale.tasks import task_of, watch_tasks
from kdscale.workflow import load

TASKS: list[dict[str, Any]] = [
    {"name": "plain"},
    {"name": "noisy", "data": {"label_noise": 0.2}},
]

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Returns a function that runs ``kdscale`` with these words; sweeps train nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_app.console, "width", 200)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("kdscale.search.sweep", PretendSweep(students=True))

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["kdscale", *map(str, words)])
        code: object = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
        captured = capsys.readouterr()
        text = captured.out + captured.err
        assert "Traceback" not in text
        assert isinstance(code, int)
        return code, text

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return study_file(tmp_path, tasks=TASKS)


def records(folder: Path) -> dict[str, StudyRecord]:
    studies = load(folder, []).studies
    return {one.name: open_ledger(one, create=False).record() for one in studies}


def test_one_command_sweeps_all_tasks_and_reports_over_them(run: Run, file: Path) -> None:
    code, text = run("sweep", file)
    assert code == 0
    assert "least worst-case regret" in text
    assert text.endswith("report: studies/tiny/report.html\n")
    folder = file.parent / "studies/tiny"
    for part in (".", "plain", "noisy"):
        for name in ("study.yaml", "report.html", "report.csv", "report.md"):
            assert (folder / part / name).exists()
    assert (folder / "report-tables/regret.tex").exists()
    for name, record in records(folder).items():
        assert record.name == name
        assert record.final is not None
        assert len(record.trials) == 4
    code, text = run("sweep", file)
    assert code == 0
    assert text.count("nothing to train: all 4 trials of tiny/") == 2


def test_the_same_configurations_on_every_task(run: Run, file: Path) -> None:
    run("sweep", file)
    plain, noisy = records(file.parent / "studies/tiny").values()
    assert [t.parameters for t in plain.trials] == [t.parameters for t in noisy.trials]


def test_stopped_in_the_second_task_it_goes_on_there(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("sweep", file, "tasks=[{name:plain}]")
    monkeypatch.setattr("kdscale.search.sweep", PretendSweep(students=True, interrupt_after=1))
    code, text = run("sweep", file)
    assert code == 130
    assert "nothing to train: all 4 trials of tiny/plain have ended" in text
    assert text.endswith(f"To continue:\n  kdscale sweep {file}\n")
    monkeypatch.setattr("kdscale.search.sweep", PretendSweep(students=True))
    code, text = run("status", file)
    assert code == 0
    assert "plain  6 of 6 ended" in text
    assert "stopped" in text
    assert run("sweep", file)[0] == 0
    assert all(len(record.trials) == 4 for record in records(file.parent / "studies/tiny").values())


def test_a_moved_folder_goes_on_with_a_raised_budget(run: Run, file: Path, tmp_path: Path) -> None:
    run("sweep", file)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(tmp_path / "studies/tiny", elsewhere / "tiny")
    code, text = run("sweep", elsewhere / "tiny", "budget.trials=8")
    assert code == 0
    assert text.endswith(f"report: {elsewhere}/tiny/report.html\n")
    assert [len(one.trials) for one in records(elsewhere / "tiny").values()] == [8, 8]
    one = load(elsewhere / "tiny/noisy", [])
    assert (one.name, one.folder) == ("tiny/noisy", elsewhere / "tiny/noisy")
    assert one.task.data.label_noise == 0.2
    assert "all 8 trials of tiny/noisy" in run("sweep", elsewhere / "tiny/noisy")[1]


def test_a_task_that_changes_is_refused_by_name(run: Run, file: Path) -> None:
    run("sweep", file)
    code, text = run("sweep", file, "tasks.1.data.label_noise=0.3")
    assert code == 2
    assert "tiny/noisy: " in text
    assert "task.data.label_noise was 0.2, now 0.3" in text


def test_a_folder_holds_a_study_with_tasks_or_one_without(run: Run, tmp_path: Path) -> None:
    run("sweep", study_file(tmp_path))
    code, text = run("sweep", study_file(tmp_path, tasks=TASKS))
    assert code == 2
    assert "holds a study without tasks" in text
    shutil.rmtree(tmp_path / "studies")
    run("sweep", study_file(tmp_path, tasks=TASKS))
    code, text = run("sweep", study_file(tmp_path))
    assert code == 2
    assert "holds a study of several tasks" in text


def test_status_of_all_tasks(run: Run, file: Path) -> None:
    code, text = run("status", file)
    assert code == 2
    assert "there must be a study to read" in text
    run("sweep", file, "tasks=[{name:plain}]")
    told = json.loads(run("status", file, "--json")[1])
    assert told["tasks"]["noisy"] is None
    assert told["tasks"]["plain"]["complete"]
    assert not told["complete"]
    code, text = run("status", file)
    assert code == 0
    assert "not begun" in text
    assert text.endswith(f"to continue:\n  kdscale sweep {file}\n")


def test_report_of_all_tasks(run: Run, file: Path) -> None:
    code, text = run("report", file)
    assert code == 2
    assert "there must be a study to read" in text
    run("sweep", file)
    page = file.parent / "studies/tiny/report.html"
    page.unlink()
    code, text = run("report", page.parent)
    assert code == 0
    assert page.exists()


def test_watching_ends_with_the_last_task(run: Run, file: Path) -> None:
    run("sweep", file)
    study = load_study(file)
    assert len(list(watch_tasks(study, 1.0))) <= 1
    assert (study.folder / "report.html").exists()


def test_check_plans_every_task(run: Run, file: Path) -> None:
    code, text = run("check", file)
    assert code == 0
    assert "tiny/plain, in studies/tiny/plain" in text
    assert "tiny/noisy, in studies/tiny/noisy" in text


def test_fresh_deletes_all_tasks(run: Run, file: Path) -> None:
    run("sweep", file)
    code, text = run("sweep", file, "--fresh", "--yes", "budget.epochs=3")
    assert code == 0
    assert "studies/tiny/noisy/study.db" in text
    assert {one.epochs for one in records(file.parent / "studies/tiny").values()} == {3}


def test_commands_about_one_task_ask_which(run: Run, file: Path) -> None:
    code, text = run("ui", file)
    assert code == 2
    assert "--task: must be one of tiny's tasks: for example --task plain" in text
    study = load_study(file)
    assert task_of(study, "noisy") == study.studies[1]
    with pytest.raises(UserError, match=r'but got "noise": did you mean "noisy"'):
        task_of(study, "noise")
    with pytest.raises(UserError, match="must not be given, since tiny/plain has no tasks"):
        task_of(study.studies[0], "noisy")


def test_tasks_that_have_not_begun_are_named(run: Run, file: Path) -> None:
    run("sweep", file, "tasks=[{name:plain}]")
    run("report", file)
    assert "noisy has not begun" in (file.parent / "studies/tiny/report.md").read_text()
    assert TaskStudies("tiny", {}).waiting == ()
