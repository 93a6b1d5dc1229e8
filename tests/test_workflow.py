from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sweeps import PretendSweep, must_not_run, network, row, study_file, study_in

from kdscale.analysis import best_configuration
from kdscale.data import load_data
from kdscale.errors import StudyFileError, UserError
from kdscale.records import StudyRecord, TrialRecord
from kdscale.search import CohortSize, Study, load_study, open_ledger
from kdscale.terminal import SweepView
from kdscale.tracking import Summary
from kdscale.training import Progress, evaluate, load_network, store_teacher
from kdscale.workflow import TrackedView, finish, load, teacher_score, watch

# load


def test_a_study_file_is_loaded_with_its_overrides(tmp_path: Path) -> None:
    path = study_file(tmp_path)
    assert load(path, []) == load_study(path)
    assert load(path, ["budget.trials=8"]).trials == 8
    with pytest.raises(StudyFileError, match="did you mean"):
        load(path, ["budgett.trials=8"])


def test_a_study_folder_is_the_study_that_made_it(tmp_path: Path) -> None:
    study = study_in(tmp_path / "it's here", "alpha=interval(3,4)", "seeds=3", "budget.trials=6")
    PretendSweep()(study)
    assert load(study.folder, []) == study
    raised = load(study.folder, ["budget.trials=12"])
    assert (raised.trials, raised.folder) == (12, study.folder)


def test_a_study_folder_is_where_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = load_study(study_file(tmp_path))
    assert not study.folder.is_absolute()
    PretendSweep()(study)
    moved = (tmp_path / "studies").rename(tmp_path / "elsewhere") / "tiny"
    for path in (moved, Path("elsewhere/tiny"), Path("elsewhere/tiny/../tiny")):
        found = load(path, [])
        assert found.folder == moved
        assert len(open_ledger(found, create=False).trials) == 4
    (tmp_path / "latest").symlink_to(moved)
    assert load(tmp_path / "latest", []).folder == moved


def test_a_folder_without_a_study(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a study folder with study\.yaml in it"):
        load(tmp_path, [])


def test_a_renamed_study_folder_is_not_taken_for_a_new_study(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    PretendSweep()(study)
    renamed = study.folder.rename(tmp_path / "mine")
    with pytest.raises(UserError, match="must have the study's name, but that is tiny"):
        load(renamed, [])
    # What the message says works: a new study from the file of the old one.
    assert load(renamed / "study.yaml", ["name=new"]).name == "new"


# finish


def test_finish_evaluates_once_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(tmp_path)
    ledger = PretendSweep(students=True)(study).ledger
    paths, record = finish(study, ledger)
    best = best_configuration(record)
    assert best is not None
    assert record.final is not None
    assert (record.final.configuration, record.final.reads) == (best.number, 1)
    assert [path.name for path in (paths.html, paths.csv, paths.md)] == [
        "report.html",
        "report.csv",
        "report.md",
    ]
    shown = (paths.html, paths.csv, paths.md)
    assert all(path.parent == study.folder and path.stat().st_size for path in shown)
    assert {path.parent for path in paths.tables} == {study.folder / "report-tables"}
    assert "distilled student" in paths.md.read_text()

    monkeypatch.setattr("kdscale.analysis._final.load_test", must_not_run)
    again = finish(study, open_ledger(study, create=False))
    assert again == (paths, record)


def test_finish_of_a_study_without_a_teacher_reads_no_test_set(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    paths, record = finish(study, open_ledger(study, create=True))
    assert record.final is None
    assert "the test set has not been read" in paths.md.read_text()


# watch


def test_watching_follows_a_sweep_and_reads_no_test_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(tmp_path)
    ledger = open_ledger(study, create=True)
    monkeypatch.setattr("kdscale.workflow.time.sleep", lambda seconds: None)
    watching = watch(study, ledger, 3.0)
    page = next(watching).html
    assert '"refresh":3.0' in page.read_text()
    PretendSweep()(study)  # no teacher: nothing can be tested yet
    next(watching)
    assert "None yet" not in page.read_text()
    with monkeypatch.context() as patch:
        patch.setattr("kdscale.analysis._final.load_test", must_not_run)
        next(watching)
    watching.close()
    assert '"refresh":0' in page.read_text()  # the page of a watch that ended stays as it is


def test_watching_ends_with_the_sweep(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    ledger = PretendSweep(students=True)(study).ledger
    finish(study, ledger)
    assert list(watch(study, open_ledger(study, create=False), 3.0)) == []


# teacher_score


def test_the_teacher_is_scored_and_kept(tmp_path: Path) -> None:
    spec = study_in(tmp_path).task.teacher
    weights = store_teacher(network(seed=3), spec, 100, tmp_path / "given")
    study = study_in(tmp_path, f"task.teacher.weights={weights}")
    score, path = teacher_score(study, None)
    data = load_data(study.task.data)
    assert score == evaluate([network(seed=3)], data.validation, data)[0]
    assert path == study.folder / "teachers" / weights.name  # named by content
    copied = teacher_score(study, tmp_path / "new/folder/teacher.pt")[1]
    assert copied == tmp_path / "new/folder/teacher.pt"
    assert copied.read_bytes() == path.read_bytes()
    assert load_network(copied, 100, 32).shapes == network(seed=3).shapes


def test_a_teacher_that_cannot_be_copied(tmp_path: Path) -> None:
    spec = study_in(tmp_path).task.teacher
    weights = store_teacher(network(seed=3), spec, 100, tmp_path / "given")
    study = study_in(tmp_path, f"task.teacher.weights={weights}")
    with pytest.raises(UserError, match="must be a file to write to"):
        teacher_score(study, tmp_path)


# TrackedView


class Recorded:
    """A view and a tracker that write down what they are told."""

    problem = "away"

    def __init__(self) -> None:
        self.said: list[str] = []

    def __enter__(self) -> None:
        self.said.append("show")

    def __exit__(self, *error: object) -> None:
        self.said.append("hide")

    def on_teacher(self, progress: Progress) -> None:
        self.said.append(f"teacher {len(progress.rows)}")

    def on_start(self, ledger: object, cohorts_at_once: int) -> None:
        self.said.append(f"start {cohorts_at_once}")

    def on_change(self, trial: TrialRecord) -> None:
        self.said.append(f"change {trial.name}")

    def on_size(self, size: CohortSize) -> None:
        self.said.append(f"size {size.size}")

    def changed(self, name: str) -> None:
        self.said.append(f"changed {name}")

    def log_file(self, path: Path) -> None:
        self.said.append(f"file {path.name}")

    def summarise(self, summary: Summary) -> None:
        self.said.append(f"summary: {summary.missing}")

    def close(self) -> None:
        self.said.append("close")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """Returns what stands for the view and for the tracker."""
    recorded = Recorded()

    def make_tracker(record: StudyRecord, *how: object, find: object) -> Recorded:
        recorded.said.append(f"track {record.name} {how}")
        return recorded

    monkeypatch.setattr("kdscale.workflow.make_tracker", make_tracker)
    return recorded


def tracked(study: Study, recorded: Recorded) -> TrackedView:
    view: Any = recorded
    return TrackedView(study, view)


def test_what_is_shown_is_tracked(tmp_path: Path, recorded: Recorded) -> None:
    study = study_in(tmp_path, "tracking={mlflow: true, uri: 'sqlite:///x', experiment: mine}")
    view = tracked(study, recorded)
    with view:
        view.on_teacher(Progress("teacher", "running", (row(1, 1.0),)))
        outcome = PretendSweep(stop_after=0)(study, view)
    assert recorded.said[:2] == ["show", "teacher 1"]
    at = recorded.said.index("start 2")
    # Trials are planned before there is a tracker, which is told of all of them when it is made.
    assert recorded.said[2:at] == [f"change c00{n}-s{s}" for n in (0, 1) for s in (0, 1)]
    assert recorded.said[at + 1] == "track tiny ('sqlite:///x', 'mine', True)"
    assert recorded.said[-3:] == ["change c001-s0", "changed c001-s0", "hide"]
    paths: Any = SimpleNamespace(html=Path("a.html"), csv=Path("a.csv"), md=Path("a.md"))
    view.attach(outcome.ledger.record(), paths)
    assert recorded.said[-4:-1] == ["file a.html", "file a.csv", "file a.md"]
    assert recorded.said[-1] == "summary: no trial has trained to the last epoch"
    assert view.close() == "away"
    assert recorded.said[-1] == "close"
    assert sum(said.startswith("track") for said in recorded.said) == 1


def test_a_report_of_a_study_that_had_ended_is_tracked_too(
    tmp_path: Path, recorded: Recorded
) -> None:
    study = study_in(tmp_path)
    record = PretendSweep()(study).ledger.record()
    view = tracked(study, recorded)
    assert view.close() == ""
    paths: Any = SimpleNamespace(html=Path("a.html"), csv=Path("a.csv"), md=Path("a.md"))
    view.attach(record, paths)
    assert recorded.said == [
        "track tiny (None, '', False)",
        *map("file a.{}".format, ("html", "csv", "md")),
    ]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("no"), RuntimeError("bug")])
def test_mlflow_gets_what_there_is_when_a_sweep_breaks_off(
    tmp_path: Path, recorded: Recorded, error: BaseException
) -> None:
    study = study_in(tmp_path)
    view = tracked(study, recorded)

    def sweep() -> None:
        with view:
            PretendSweep(stop_after=1)(study, view)
            raise error

    with pytest.raises(type(error)):
        sweep()
    assert recorded.said[-2:] == ["hide", "close"]


def test_it_is_a_listener_of_sweeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    study = study_in(tmp_path)
    with TrackedView(study, SweepView(Console())) as view:
        assert PretendSweep()(study, view).complete
    assert view.close() == ""
    assert "4 trials + 2 undistilled" in capsys.readouterr().out
