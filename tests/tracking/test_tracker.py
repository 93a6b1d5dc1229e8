"""The tracker against a real SQLite store, which all tests share: its tables take seconds."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kdscale.records import StudyRecord, TrialRecord, TrialState
from kdscale.tracking import Tracker, make_tracker, mlflow_environment, ui_command
from kdscale.tracking._projection import Projection


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Keeps what the tracker sets in the environment within this module."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in mlflow_environment().items():
            patch.setenv(name, value)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/shared.db"


@pytest.fixture(scope="module")
def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def trial(
    configuration: int | None = 0,
    seed: int = 0,
    epochs: int = 3,
    state: TrialState = "done",
    attempt: int = 1,
    reason: str = "",
) -> TrialRecord:
    history = tuple(
        {"epoch": epoch, "lr": 0.1 / epoch, "val_accuracy": 60.0 + epoch, "train_ldrld": 1 / epoch}
        for epoch in range(1, epochs + 1)
    )
    return TrialRecord(
        number=configuration or 0,
        configuration=configuration,
        seed=seed,
        parameters={} if configuration is None else {"alpha": 9.123456789, "depth": 7},
        state=state,
        value=history[-1]["val_accuracy"] if history else None,
        history=history,
        group=f"g0-s{seed}",
        reason=reason,
        attempt=attempt,
        train_seconds=2.0 * epochs,
    )


def study(folder: Path, *trials: TrialRecord, **changes: Any) -> StudyRecord:
    record = StudyRecord(
        name=folder.name,
        folder=folder,
        metric="val_accuracy",
        goal="maximize",
        mode="last",
        epochs=3,
        seeds=(0, 1),
        rungs=(2,),
        parameters=("alpha", "depth"),
        study_file="name: tiny\n",
        trials=trials,
        commit="0123abc",
    )
    return replace(record, **changes)


def track(record: StudyRecord, uri: str, *files: Path) -> None:
    with make_tracker(record, uri) as tracker:
        for file in files:
            tracker.log_file(file)
    assert tracker.problem == ""


def runs_of(client: Any, experiment: str) -> dict[str, Any]:
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def steps_of(client: Any, run: Any, metric: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run.info.run_id, metric)]


def test_a_study_becomes_an_experiment_with_a_run_a_trial(
    tmp_path: Path, uri: str, client: Any
) -> None:
    report = tmp_path / "report.html"
    report.write_text("<p>hello</p>", encoding="utf-8")
    trials = (
        trial(0),
        trial(1, epochs=2, state="pruned", reason="rung at epoch 2"),
        trial(2, epochs=1, state="failed", reason="diverged at epoch 2 (ldrld is not finite)"),
        trial(3, epochs=1, state="running"),
        trial(4, epochs=0, state="waiting", attempt=0),
    )
    track(study(tmp_path, *trials, controls=(trial(None, seed=1),)), uri, report)
    runs = runs_of(client, tmp_path.name)
    assert {name: run.info.status for name, run in runs.items()} == {
        "study": "FINISHED",
        "c000-s0": "FINISHED",
        "c001-s0": "KILLED",
        "c002-s0": "FAILED",
        "c003-s0": "SCHEDULED",  # nothing trains once the tracker is closed
        "undistilled-s1": "FINISHED",
    }
    done = runs["c000-s0"].data
    assert done.params == {"alpha": "9.12346", "depth": "7", "seed": "0"}
    assert done.metrics["last_val_accuracy"] == done.metrics["val_accuracy"] == 63.0
    assert done.metrics["train_seconds"] == 6.0
    assert "epoch" not in done.metrics
    assert steps_of(client, runs["c000-s0"], "train_ldrld") == [1, 2, 3]
    assert "last_val_accuracy" not in runs["c001-s0"].data.metrics
    tags = {name: value for name, value in done.tags.items() if name != "kdscale.study_id"}
    assert (
        tags.items()
        >= {
            "kdscale.study": tmp_path.name,
            "kdscale.kind": "trial",
            "kdscale.trial": "c000-s0",
            "kdscale.configuration": "c000",
            "kdscale.seed": "0",
            "kdscale.group": "g0-s0",
            "kdscale.attempt": "1",
            "kdscale.state": "done",
            "kdscale.reason": "none",
            "mlflow.source.git.commit": "0123abc",
        }.items()
    )
    assert runs["c001-s0"].data.tags["kdscale.reason"] == "rung at epoch 2"
    assert runs["undistilled-s1"].data.tags["kdscale.kind"] == "control"
    study_run = runs["study"].info.run_id
    assert runs["study"].data.tags["kdscale.kind"] == "study"
    assert {file.path for file in client.list_artifacts(study_run)} == {"report.html", "study.yaml"}
    stored = list((tmp_path / "mlartifacts").rglob("report.html"))
    assert [file.read_text(encoding="utf-8") for file in stored] == ["<p>hello</p>"]


def test_a_restart_continues_without_duplicates(tmp_path: Path, uri: str, client: Any) -> None:
    track(study(tmp_path, trial(0, epochs=1, state="running")), uri)
    before = runs_of(client, tmp_path.name)
    known = {"c000-s0": trial(0, epochs=1, state="running", attempt=2)}
    record = study(tmp_path, *known.values())
    with make_tracker(record, uri, find=known.__getitem__) as two:
        for now in (trial(0, epochs=2, state="running", attempt=2), trial(0, attempt=2)):
            known["c000-s0"] = now
            two.changed("c000-s0")
    track(study(tmp_path, trial(0, epochs=3, attempt=2)), uri)
    after = runs_of(client, tmp_path.name)
    assert {name: run.info.run_id for name, run in after.items()} == {
        name: run.info.run_id for name, run in before.items()
    }
    run = after["c000-s0"]
    assert steps_of(client, run, "val_accuracy") == [1, 2, 3]
    assert steps_of(client, run, "last_val_accuracy") == [3]
    assert run.info.status == "FINISHED"
    assert run.data.tags["kdscale.attempt"] == "2"


def test_a_kill_between_metrics_and_tags_leaves_no_duplicates(
    tmp_path: Path, uri: str, client: Any
) -> None:
    record = study(tmp_path)
    first = Projection(record, uri, tmp_path.name)
    first.open()
    first.write(trial(0, epochs=2, state="running"))
    killed = runs_of(client, tmp_path.name)["c000-s0"]
    client.delete_tag(killed.info.run_id, "kdscale.epochs")
    second = Projection(record, uri, tmp_path.name)
    second.open()
    second.write(trial(0, epochs=2, state="running"))
    second.write(trial(0, epochs=3))
    run = runs_of(client, tmp_path.name)["c000-s0"]
    assert steps_of(client, run, "val_accuracy") == [1, 2, 3]
    assert run.data.tags["kdscale.epochs"] == "3"


def test_what_a_killed_driver_knew_in_part_is_told_again_in_full(
    tmp_path: Path, uri: str, client: Any
) -> None:
    """Of a running trial the record has the metric alone; the rest is in its checkpoint."""
    known = trial(0, epochs=2, state="running")
    bare = tuple({name: row[name] for name in ("epoch", "val_accuracy")} for row in known.history)
    track(study(tmp_path, replace(known, history=bare)), uri)
    track(study(tmp_path, trial(0)), uri)
    run = runs_of(client, tmp_path.name)["c000-s0"]
    for metric in ("val_accuracy", "train_ldrld", "lr"):
        assert steps_of(client, run, metric) == [1, 2, 3]


def test_what_is_sent_again_is_there_once(tmp_path: Path, uri: str, client: Any) -> None:
    """The server took it, but its answer was lost; or it takes it late, after it was sent again."""
    projection = Projection(study(tmp_path), uri, tmp_path.name)
    projection.open()
    running = trial(0, epochs=2, state="running")
    projection.write(running)
    run = projection._runs["c000-s0"]
    run.steps, run.told, run.has_parameters = {}, {}, False
    projection.write(running)
    assert steps_of(client, runs_of(client, tmp_path.name)["c000-s0"], "val_accuracy") == [1, 2]


def test_of_two_runs_for_one_trial_the_first_is_kept(tmp_path: Path, uri: str, client: Any) -> None:
    """Two sweeps' trackers, or one whose first making of a run only seemed to fail."""
    record = study(tmp_path, trial(0))
    both = [Projection(record, uri, tmp_path.name) for _ in range(2)]
    for projection in both:
        projection.open()
    for projection in both:
        projection.write(trial(0, epochs=2, state="running"))
    both[0].close()
    both[0].open()
    both[0].write(trial(0))
    both[0].finish()
    run = runs_of(client, tmp_path.name)["c000-s0"]
    assert steps_of(client, run, "val_accuracy") == [1, 2, 3]
    # The other one finds that its run is gone, and goes on with that of the first.
    with pytest.raises(Exception, match="deleted"):
        both[1].write(trial(0))
    both[1].close()
    both[1].open()
    both[1].write(trial(0))
    assert steps_of(client, runs_of(client, tmp_path.name)["c000-s0"], "val_accuracy") == [1, 2, 3]


def test_a_rebuilt_experiment_equals_the_first(tmp_path: Path, uri: str, client: Any) -> None:
    record = study(
        tmp_path, trial(0), trial(1, epochs=2, state="pruned"), trial(2, epochs=1, state="running")
    )

    def shown() -> dict[str, Any]:
        return {
            name: (run.data.params, run.data.metrics, steps_of(client, run, "train_ldrld"))
            for name, run in runs_of(client, tmp_path.name).items()
        }

    with make_tracker(replace(record, trials=()), uri) as tracker:
        pass
    track(replace(record, trials=(trial(0, epochs=1, state="running"),)), uri)
    track(record, uri)
    before, numbers = shown(), {r.info.run_id for r in runs_of(client, tmp_path.name).values()}
    with make_tracker(record, uri, rebuild=True) as tracker:
        pass
    assert tracker.problem == ""
    assert shown() == before
    assert not numbers & {r.info.run_id for r in runs_of(client, tmp_path.name).values()}


def test_what_the_tracker_keeps_does_not_grow_with_the_study(tmp_path: Path, uri: str) -> None:
    projection = Projection(study(tmp_path), uri, tmp_path.name)
    projection.open()
    for number in range(3):
        projection.write(trial(number, epochs=1, state="running"))
        projection.write(trial(number))
    assert projection._runs == {}
    again = Projection(study(tmp_path, trial(0)), uri, tmp_path.name)
    again.open()
    assert again._runs == {}
    assert again._ended == {f"c00{number}-s0" for number in range(3)}


def test_studies_of_one_name_do_not_mix(tmp_path: Path, uri: str, client: Any) -> None:
    for place in ("mine", "yours"):
        record = study(tmp_path / place, trial(0), name="same")
        with make_tracker(record, uri, experiment="shared") as tracker:
            pass
        assert tracker.problem == ""
    found = client.get_experiment_by_name("shared")
    runs = client.search_runs([found.experiment_id], "tags.`kdscale.kind` = 'trial'")
    assert len({run.data.tags["kdscale.study_id"] for run in runs}) == len(runs) == 2
    assert [steps_of(client, run, "val_accuracy") for run in runs] == [[1, 2, 3]] * 2


def test_a_deleted_experiment_comes_back(tmp_path: Path, uri: str, client: Any) -> None:
    track(study(tmp_path, trial(0)), uri)
    client.delete_experiment(client.get_experiment_by_name(tmp_path.name).experiment_id)
    track(study(tmp_path, trial(0), trial(1)), uri)
    assert {"c000-s0", "c001-s0"} <= runs_of(client, tmp_path.name).keys()


def test_a_moved_studys_own_database_finds_its_artefacts(tmp_path: Path, uri: str) -> None:
    from mlflow import MlflowClient

    first = tmp_path / "first"
    first.mkdir()
    shutil.copy(uri.removeprefix("sqlite:///"), first / "mlflow.db")  # its tables take seconds
    track(study(first, trial(0), name="moved"), f"sqlite:///{first}/mlflow.db")
    moved = first.rename(tmp_path / "moved")
    ui_command(moved, f"sqlite:///{moved}/mlflow.db")

    client = MlflowClient(tracking_uri=f"sqlite:///{moved}/mlflow.db")
    run = runs_of(client, "moved")["study"]
    assert run.info.artifact_uri.startswith((moved / "mlartifacts").as_uri())
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["study.yaml"]
    assert not first.exists()


def test_values_that_are_not_finite_are_no_failure(tmp_path: Path, uri: str, client: Any) -> None:
    broken = replace(trial(0), history=({"epoch": 1, "val_accuracy": math.nan},), value=math.nan)
    track(study(tmp_path, replace(broken, state="failed")), uri)
    run = runs_of(client, tmp_path.name)["c000-s0"]
    assert math.isnan(run.data.metrics["val_accuracy"])


def test_a_server_that_is_not_there_neither_raises_nor_hides(tmp_path: Path) -> None:
    record = study(tmp_path, trial(0))
    with make_tracker(record, "http://me:secret@127.0.0.1:9") as tracker:
        tracker.changed("c000-s0")
        tracker.log_file(tmp_path / "missing.html")
    wanted = "MLflow (http://me:***@127.0.0.1:9): it does not answer (Connection refused)"
    assert tracker.problem == wanted
    assert tracker.unsent == 2


def test_a_file_that_is_not_there_is_a_problem_and_no_more(
    tmp_path: Path, uri: str, client: Any
) -> None:
    with make_tracker(study(tmp_path, trial(0)), uri) as tracker:
        tracker.log_file(tmp_path / "missing.html")
    assert "missing.html" in tracker.problem
    assert runs_of(client, tmp_path.name)["c000-s0"].info.status == "FINISHED"


def test_a_tracker_that_is_off_does_nothing(tmp_path: Path) -> None:
    with make_tracker(study(tmp_path, trial(0)), enabled=False) as tracker:
        tracker.changed("c001-s0")
        tracker.log_file(tmp_path / "report.html")
    assert tracker.problem == ""
    assert list(tmp_path.iterdir()) == []


class Scripted(Projection):
    """Stands in for MLflow: remembers what it got, waits or fails when told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(study(folder), "sqlite://", "scripted")
        self.got: list[tuple[str, int]] = []
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.failures: dict[str, int] = {}
        self.finished = False
        self.trials = {t.name: t for t in (trial(0), trial(1), trial(2))}

    def open(self) -> None:
        pass

    def write(self, trial: TrialRecord) -> None:
        self.entered.set()
        self.go_on.wait()
        if self.failures.get(trial.name, 0) > 0:
            self.failures[trial.name] -= 1
            raise KeyError("not this one")
        self.got.append((trial.name, len(trial.history)))

    def finish(self) -> None:
        self.finished = True

    def tracker(self) -> Tracker:
        return Tracker(self, self.trials.__getitem__, "somewhere")


def test_a_call_returns_while_mlflow_hangs_and_only_the_newest_counts(tmp_path: Path) -> None:
    projection = Scripted(tmp_path)
    tracker = projection.tracker()
    tracker.changed("c000-s0")
    assert projection.entered.wait(60)
    for epochs in (1, 2, 3):
        projection.trials["c001-s0"] = trial(1, epochs=epochs, state="running")
        tracker.changed("c001-s0")
    tracker.close(timeout_seconds=0.01)
    assert "it was still writing after 0.01 s" in tracker.problem
    projection.go_on.set()
    tracker.close()
    assert projection.got == [("c000-s0", 3), ("c001-s0", 3)]
    assert projection.finished
    assert tracker.problem == ""


def test_what_failed_is_tried_again_as_it_stands_by_then(tmp_path: Path) -> None:
    projection = Scripted(tmp_path)
    projection.failures = {"c000-s0": 1}
    projection.trials["c000-s0"] = trial(0, epochs=1, state="running")
    tracker = projection.tracker()
    tracker.changed("c000-s0")
    assert projection.entered.wait(60)
    projection.trials["c000-s0"] = trial(0, epochs=2, state="running")
    tracker.changed("c000-s0")
    projection.go_on.set()
    tracker.close()
    assert projection.got == [("c000-s0", 2)]
    assert tracker.problem == ""


def test_a_trial_that_mlflow_refuses_keeps_no_other_one_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    projection = Scripted(tmp_path)
    projection.failures = {"c000-s0": 9}
    projection.go_on.set()
    with projection.tracker() as tracker:
        for name in projection.trials:
            tracker.changed(name)
    wanted = "MLflow (somewhere): it did not take everything: KeyError: 'not this one'"
    assert tracker.problem == wanted
    assert {name for name, _ in projection.got} == {"c001-s0", "c002-s0"}
    assert tracker.unsent == 1
    assert len(caplog.records) <= 1  # what goes wrong is said once


def test_import_leaves_out_mlflow_ray_and_torch() -> None:
    code = "import sys, kdscale.tracking; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"mlflow", "ray", "torch", "kdscale.search"} & {*done.stdout.split()}
