"""The whole road, for real: the installed command, Ray, Optuna, MLflow, and a report."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sweeps import study_file

from kdscale.records import StudyRecord
from kdscale.search import open_ledger
from kdscale.workflow import load

pytestmark = pytest.mark.slow

KDSCALE = Path(sys.executable).parent / "kdscale"
QUICKSTART = Path(__file__).parents[1] / "search_spaces/quickstart/icons100-ldrld.yaml"
TINY = (
    "task.data.train_images=300",
    "budget.trials=4",
    "resources.cohort=2",
    "storage.folder=my studies",
)
STATUS = {"done": "FINISHED", "pruned": "KILLED"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Returns the environment of a user who has set nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return {**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1"}


def run(words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(KDSCALE), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def record_of(folder: Path) -> StudyRecord:
    return open_ledger(load(folder, []), create=False).record()


def test_a_sweep_from_file_to_report(environment: dict[str, str], tmp_path: Path) -> None:
    words = ["sweep", str(QUICKSTART), *TINY, "budget.epochs=2", "rungs.first=1"]
    first = run(words, environment)
    assert (first.returncode, first.stderr) == (0, "")
    folder = tmp_path / "my studies/quickstart"
    assert first.stdout.splitlines()[-1] == "report: my studies/quickstart/report.html"

    record = record_of(folder)
    assert len(record.trials) == 4
    assert {(trial.configuration, trial.seed) for trial in record.trials} == {
        (configuration, seed) for configuration in (0, 1) for seed in (0, 1)
    }
    assert Counter(trial.state for trial in record.trials) == {"done": 2, "pruned": 2}
    assert [control.state for control in record.controls] == ["done", "done"]
    assert {trial.attempt for trial in (*record.trials, *record.controls)} == {1}
    assert record.final is not None
    assert record.final.reads == 1
    page = (folder / "report.html").read_text()
    for name in ("teacher", "undistilled student", "distilled student"):
        assert name in page
        assert name in (folder / "report.md").read_text()
    assert not (folder / "ray").exists()

    tracked = _assert_mlflow_has(record)

    times = {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/*")}
    again = run(words, environment)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith("nothing to train: all 4 trials of quickstart have ended\n")
    assert {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/*")} == times
    assert record_of(folder) == record  # and the test set was not read again
    assert _assert_mlflow_has(record) == tracked


def _assert_mlflow_has(record: StudyRecord) -> set[str]:
    """Holds that MLflow has the study and all of its trials; returns the ids of the runs."""
    client = MlflowClient(f"sqlite:///{record.folder}/mlflow.db")
    experiment = client.get_experiment_by_name(record.name)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    runs = {run.info.run_name.removesuffix(" ★"): run for run in found}
    trials = {trial.name: trial for trial in (*record.trials, *record.controls)}
    assert set(runs) == {"study", *trials}
    for name, trial in trials.items():
        run = runs[name]
        assert run.info.status == STATUS[trial.state]
        assert set(run.data.params) == {*trial.parameters, "seed"}
        assert run.data.params["seed"] == str(trial.seed)
        for parameter, value in trial.parameters.items():
            assert float(run.data.params[parameter]) == pytest.approx(value, rel=1e-5)
        curve = client.get_metric_history(run.info.run_id, "val_accuracy")
        assert [(point.step, point.value) for point in curve] == [
            (row["epoch"], row["val_accuracy"]) for row in trial.history
        ]
        assert run.data.tags["kdscale.state"] == trial.state
    assert runs["study"].info.status == "FINISHED"
    artifacts = {file.path for file in client.list_artifacts(runs["study"].info.run_id)}
    assert artifacts >= {"study.yaml", "report.html", "report.csv", "report.md"}
    return {run.info.run_id for run in runs.values()}


def test_ctrl_c_leaves_a_study_that_the_printed_command_completes(
    environment: dict[str, str], tmp_path: Path
) -> None:
    words = ["sweep", str(QUICKSTART), *TINY, "name=stopped", "budget.epochs=12", "rungs.first=6"]
    folder = tmp_path / "my studies/stopped"
    # A session of its own: the signal goes to all of its processes, as Ctrl-C in a terminal does.
    process = subprocess.Popen(
        [KDSCALE, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not list(folder.glob("trials/*/checkpoint.pt")):
        time.sleep(0.05)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (128 + signal.SIGINT, "")
    assert "stopped; everything so far is kept. To continue:\n" in out
    command = shlex.split(out.splitlines()[-1])
    assert command == ["kdscale", *words]
    stopped = record_of(folder)
    assert any(trial.state not in STATUS for trial in stopped.trials)
    assert stopped.final is None
    assert not (folder / "ray").exists()

    went_on = run(command[1:], environment)
    assert (went_on.returncode, went_on.stderr) == (0, "")
    record = record_of(folder)
    assert [trial.parameters for trial in record.trials][: len(stopped.trials)] == [
        trial.parameters for trial in stopped.trials
    ]
    assert Counter(trial.state for trial in record.trials) == {"done": 2, "pruned": 2}
    assert max(trial.attempt for trial in record.trials) == 2
    for trial in (*record.trials, *record.controls):
        epochs = 12 if trial.state == "done" else 6
        assert [row["epoch"] for row in trial.history] == list(range(1, epochs + 1))
    _assert_mlflow_has(record)


def test_a_teacher_that_cannot_be_trained_is_one_message(
    environment: dict[str, str], tmp_path: Path
) -> None:
    words = ["sweep", str(study_file(tmp_path))]
    refused = run([*words, "task.teacher.recipe={batch_size: 320}"], environment)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "error recipe.batch_size must be at most the number of training images (100), but got 320\n"
    )
    failed = run(
        [*words, "name=wild", "task.teacher.recipe={lr: 1.0e+30, batch_size: 32}"], environment
    )
    assert failed.returncode == 2
    assert failed.stderr.startswith("error the teacher failed: diverged at epoch 1")
