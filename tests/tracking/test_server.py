"""The tracker against a real MLflow server that dies and comes back, and against wrong ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kdscale.records import TrialRecord
from kdscale.tracking import _tracker, make_tracker, mlflow_environment
from kdscale.tracking._experiment import study_id

from .server import MlflowServer
from .test_tracker import runs_of, steps_of, study, trial

pytestmark = pytest.mark.slow

TRIALS = 12
EPOCHS = 8


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Keeps what the tracker sets in the environment within this module."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in mlflow_environment().items():
            patch.setenv(name, value)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(_tracker, "FIRST_PAUSE_SECONDS", 0.1)
        patch.setattr(_tracker, "LONGEST_PAUSE_SECONDS", 0.5)
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    running = MlflowServer(tmp_path_factory.mktemp("server"))
    running.start()
    yield running
    running.kill()


@pytest.fixture(scope="module")
def client(server: MlflowServer) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=server.uri)


def planned() -> dict[str, TrialRecord]:
    waiting = [trial(n, epochs=0, state="waiting", attempt=0) for n in range(TRIALS)]
    return {one.name: one for one in waiting}


def tell_epochs(trials: dict[str, TrialRecord], changed: Callable[[str], None]) -> Iterator[int]:
    """Trains: yields the epochs, each trial told of in each."""
    for epoch in range(1, EPOCHS + 1):
        for number, name in enumerate(trials):
            trials[name] = trial(
                number, epochs=epoch, state="done" if epoch == EPOCHS else "running"
            )
            changed(name)
        yield epoch


def assert_whole(client: Any, experiment: str) -> None:
    """Holds that each trial has one run, with each point once and in order."""
    runs = runs_of(client, experiment)
    assert runs.keys() == {*planned(), "study"}
    for name, run in runs.items():
        if name == "study":
            continue
        assert (run.info.status, run.data.params["alpha"]) == ("FINISHED", "9.12346")
        for metric in ("val_accuracy", "train_ldrld", "lr"):
            points = client.get_metric_history(run.info.run_id, metric)
            assert [point.step for point in points] == list(range(1, EPOCHS + 1))
        assert steps_of(client, run, "last_val_accuracy") == [EPOCHS]
        assert steps_of(client, run, "train_seconds") == [EPOCHS]


def test_a_server_that_dies_again_and_again_has_everything_once(
    tmp_path: Path, server: MlflowServer, client: Any
) -> None:
    trials = planned()
    record = study(tmp_path, *trials.values(), epochs=EPOCHS)
    with make_tracker(record, server.uri, find=trials.__getitem__) as tracker:
        for epoch in tell_epochs(trials, tracker.changed):
            if epoch in (2, 5):
                before = tracker.unsent
                while tracker.unsent == before and not tracker.problem:
                    time.sleep(0.001)  # kill it in the middle of its work
                server.kill()
            if epoch in (4, 6):
                server.start()
        while tracker.unsent or tracker.problem:  # the test's time limit ends a wait in vain
            time.sleep(0.05)
    assert (tracker.problem, tracker.unsent) == ("", 0)
    assert_whole(client, tmp_path.name)


def test_a_server_away_from_start_to_end_costs_nothing_but_a_later_command(
    tmp_path: Path, server: MlflowServer, client: Any
) -> None:
    trials = planned()
    record = study(tmp_path, *trials.values(), epochs=EPOCHS)
    with make_tracker(record, "http://127.0.0.1:9", find=trials.__getitem__) as tracker:
        for _ in tell_epochs(trials, tracker.changed):
            pass
    assert "it does not answer (Connection refused)" in tracker.problem
    assert tracker.unsent == TRIALS  # names alone, however many epochs there are
    with make_tracker(replace(record, trials=tuple(trials.values())), server.uri) as again:
        pass
    assert again.problem == ""
    assert_whole(client, tmp_path.name)


def test_sweeps_that_start_at_once_share_an_experiment(
    tmp_path: Path, server: MlflowServer, client: Any
) -> None:
    folders = [tmp_path / name for name in ("one", "two", "three", "four")]
    trackers = [
        make_tracker(study(folder, trial(0)), server.uri, f"shared-{tmp_path.name}")
        for folder in folders
    ]
    for tracker in trackers:
        tracker.close()
    assert [tracker.problem for tracker in trackers] == [""] * 4
    found = client.get_experiment_by_name(f"shared-{tmp_path.name}")
    runs = client.search_runs([found.experiment_id], "tags.`kdscale.kind` = 'trial'")
    assert len({run.data.tags["kdscale.study_id"] for run in runs}) == len(runs) == 4


def test_a_copied_study_is_another_one_and_a_moved_one_the_same(
    tmp_path: Path, server: MlflowServer, client: Any
) -> None:
    def track(folder: Path) -> None:
        with make_tracker(study(folder, trial(0)), server.uri, tmp_path.name) as tracker:
            pass
        assert tracker.problem == ""

    def ids() -> list[str]:
        found = client.get_experiment_by_name(tmp_path.name)
        runs = client.search_runs([found.experiment_id], "tags.`kdscale.kind` = 'trial'")
        return sorted(run.data.tags["kdscale.study_id"] for run in runs)

    first = tmp_path / "first"
    track(first)
    moved = first.rename(tmp_path / "moved")
    track(moved)
    assert ids() == [study_id(moved)]
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "mlflow.id").write_text(study_id(moved))
    track(copy)
    assert study_id(copy) != study_id(moved)
    assert ids() == sorted([study_id(copy), study_id(moved)])


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """Gives the URL of a server that answers everything alike, as a proxy before MLflow may."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as wrong:
        threading.Thread(target=wrong.serve_forever, daemon=True).start()
        yield f"http://me:s3cret@127.0.0.1:{wrong.server_address[1]}"
        wrong.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, "<h1>401 Authorization Required</h1>", "set MLFLOW_TRACKING_USERNAME and"),
        (401, '{"error_code": "UNAUTHENTICATED", "message": "no"}', "set MLFLOW_TRACKING_USERNAME"),
        (403, '{"error_code": "PERMISSION_DENIED", "message": "no"}', "its user may not write"),
        (403, "Permission denied", "its user may not write"),
        (404, "<h1>nothing here</h1>", "there is no MLflow at this URL, which answers 404"),
        (200, "<h1>Welcome</h1>", "there is no MLflow at this URL, which answers something else"),
        (500, "s3cret", "it did not take everything"),
    ],
)
def test_a_server_that_is_not_ours_to_write_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, body: str, said: str
) -> None:
    with answering(status, body) as uri:
        tracker = make_tracker(study(tmp_path, trial(0)), uri)
        while not tracker.problem:
            time.sleep(0.01)
        time.sleep(0.3)  # some further tries
        tracker.close()
    assert said in tracker.problem
    assert f"MLflow ({uri.replace('s3cret', '***')}): " in tracker.problem
    texts = [record.getMessage() for record in caplog.records]
    assert [text for text in texts if said in text] == texts[:1]
    assert "s3cret" not in tracker.problem + "".join(texts)


def test_no_password_reaches_mlflow(
    tmp_path: Path, server: MlflowServer, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret-too")
    uri = server.uri.replace("http://", "http://me:s3cret@")
    with make_tracker(study(tmp_path, trial(0)), uri) as tracker:
        pass
    assert tracker.problem == ""
    for run in runs_of(client, tmp_path.name).values():
        assert "s3cret" not in repr(run.to_dictionary())
    experiment = client.get_experiment_by_name(tmp_path.name)
    assert "s3cret" not in repr(dict(experiment))
