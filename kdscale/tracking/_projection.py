"""A study as MLflow experiment and runs. Synchronous; used by the tracker's thread alone."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdscale.records import StudyRecord, TrialRecord, TrialState, Value
from kdscale.tracking._uri import artifact_location

if TYPE_CHECKING:
    from mlflow import MlflowClient

_STATUS: dict[TrialState, str] = {
    "waiting": "SCHEDULED",
    "running": "RUNNING",
    "done": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
}
_METRICS_PER_CALL = 900
_PAGE = 1000
_Point = tuple[str, float, int]
_REASON_LENGTH = 500
_SIGNIFICANT_DIGITS = 6


@dataclass
class _Run:
    """What MLflow holds of one trial.

    Attributes:
        run_id: MLflow's id.
        status: MLflow's status.
        tags: The tags as they stand.
        params: Names of the parameters that are written.
        steps: Metric name -> last step; None where an earlier process wrote and nobody asked yet.
    """

    run_id: str
    status: str
    tags: dict[str, str]
    params: set[str]
    steps: dict[str, int] | None


class Projection:
    """The study in MLflow: one experiment, one run a trial, one run for the study itself.

    It can be opened on what an earlier process wrote and goes on after it: runs are found by
    their tags, parameters are written once, metrics from the first missing epoch on.

    Args:
        study: The study.
        uri: MLflow's tracking URI.
        experiment: Name of the experiment.
    """

    def __init__(self, study: StudyRecord, uri: str, experiment: str) -> None:
        self._study = study
        self._uri = uri
        self._experiment = experiment
        self._value_name = f"{study.mode}_{study.metric}"
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._study_run = ""
        self._common: dict[str, str] = {}
        self._runs: dict[str, _Run] = {}

    def open(self) -> None:
        """Reaches MLflow, makes what is missing there and reads which runs there are, once."""
        if self._client is not None:
            return
        logging.getLogger("alembic").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self._uri)
        self._common = {
            "kdscale.study": self._study.name,
            "kdscale.study_id": _study_id(self._study.folder),
            "mlflow.source.name": "kdscale sweep",
            "mlflow.source.type": "LOCAL",
        }
        if self._study.commit:
            self._common["mlflow.source.git.commit"] = self._study.commit
        self._experiment_id = self._open_experiment(client)
        self._runs = {
            run.data.tags["kdscale.trial"]: _Run(
                run.info.run_id,
                run.info.status,
                dict(run.data.tags),
                params=set(run.data.params),
                steps=None,
            )
            for run in self._search(client)
            if "kdscale.trial" in run.data.tags
        }
        self._study_run = self._open_study_run(client)
        client.log_text(self._study_run, self._study.study_file, "study.yaml")
        self._client = client

    def write(self, trial: TrialRecord) -> None:
        """Brings the trial's run up to the trial; a trial that never started gets none."""
        client = self._reached()
        run = self._runs.get(trial.name)
        if run is None and trial.attempt == 0:
            return
        tags = self._tags(trial)
        if run is None:
            run = self._runs[trial.name] = self._create(client, trial)
        if tags.items() <= run.tags.items():
            return
        _write_parameters(client, run, trial)
        points = list(_points(trial, self._study.metric, self._value_name))
        _write_metrics(client, run, points)
        _write_status(client, run, trial.state)
        # The tags say that all the rest is there, so they come last.
        client.log_batch(run.run_id, tags=_tag_list(tags))
        run.tags |= tags

    def write_file(self, path: Path, artifact_folder: str) -> None:
        """Attaches a file to the study's run."""
        self._reached().log_artifact(self._study_run, str(path), artifact_folder or None)

    def finish(self) -> None:
        """Says that nothing trains any more: open runs wait for the next process."""
        client = self._reached()
        for run in self._runs.values():
            if run.tags.get("kdscale.state") == "running":
                _write_status(client, run, "waiting")
                client.set_tag(run.run_id, "kdscale.state", "waiting")
                run.tags["kdscale.state"] = "waiting"
        client.set_terminated(self._study_run, "FINISHED")

    def _reached(self) -> MlflowClient:
        if self._client is None:
            raise RuntimeError("the projection must be open before it is written to")
        return self._client

    def _open_experiment(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self._experiment)
        if found is None:
            study = self._study
            seeds = ", ".join(str(seed) for seed in study.seeds)
            note = (
                f"kdscale study **{study.name}**: {study.goal} {study.metric} ({study.mode}) over "
                f"{', '.join(study.parameters) or 'no parameter'}; {study.epochs} epochs; seeds "
                f"{seeds}. Only trials that trained to the last epoch have `{self._value_name}`."
            )
            tags = {
                "kdscale.study": study.name,
                "mlflow.note.content": note,
                "mlflow.experimentKind": "custom_model_development",
            }
            location = artifact_location(study.folder, self._uri)
            return str(client.create_experiment(self._experiment, location, tags))
        if found.lifecycle_stage == "deleted":
            # A deleted experiment keeps its name, so that a new one cannot be made.
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _open_study_run(self, client: MlflowClient) -> str:
        for run in self._search(client):
            if run.data.tags.get("kdscale.kind") == "study":
                client.update_run(run.info.run_id, status="RUNNING")
                return str(run.info.run_id)
        tags = self._common | {"kdscale.kind": "study"}
        run = client.create_run(self._experiment_id, _now_ms(), tags, run_name="study")
        return str(run.info.run_id)

    def _search(self, client: MlflowClient) -> Iterator[Any]:
        """Yields the runs of this study; other studies may share the experiment."""
        rule = f"tags.`kdscale.study_id` = '{self._common['kdscale.study_id']}'"
        token = None
        while True:
            page = client.search_runs(
                [self._experiment_id], rule, max_results=_PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _create(self, client: MlflowClient, trial: TrialRecord) -> _Run:
        # The identity alone at first: the other tags say that what they speak of is written.
        tags = self._common | {"kdscale.trial": trial.name}
        started_ms = _now_ms() - round(1000 * trial.train_seconds)
        created = client.create_run(self._experiment_id, started_ms, tags, trial.name)
        return _Run(created.info.run_id, created.info.status, tags, params=set(), steps={})

    def _tags(self, trial: TrialRecord) -> dict[str, str]:
        return self._common | {
            "kdscale.kind": "control" if trial.is_control else "trial",
            "kdscale.trial": trial.name,
            "kdscale.configuration": trial.name.rsplit("-s", 1)[0],
            "kdscale.seed": str(trial.seed),
            "kdscale.group": trial.group or "none",
            "kdscale.attempt": str(trial.attempt),
            "kdscale.epochs": str(len(trial.history)),
            "kdscale.state": trial.state,
            "kdscale.reason": trial.reason[:_REASON_LENGTH] or "none",
        }


def _write_parameters(client: MlflowClient, run: _Run, trial: TrialRecord) -> None:
    from mlflow.entities import Param

    # MLflow refuses to change a parameter: each is written once.
    texts = {name: _text(value) for name, value in trial.parameters.items()}
    texts["seed"] = str(trial.seed)
    missing = [Param(name, text) for name, text in texts.items() if name not in run.params]
    if missing:
        client.log_batch(run.run_id, params=missing)
        run.params |= texts.keys()


def _write_metrics(client: MlflowClient, run: _Run, points: Sequence[_Point]) -> None:
    from mlflow.entities import Metric

    if run.steps is None:
        run.steps = _last_steps(client, run.run_id, {name for name, _, _ in points})
    now = _now_ms()
    metrics = [
        Metric(name, value, now, step)
        for name, value, step in points
        if step > run.steps.get(name, -1)
    ]
    for start in range(0, len(metrics), _METRICS_PER_CALL):
        part = metrics[start : start + _METRICS_PER_CALL]
        client.log_batch(run.run_id, metrics=part)
        run.steps |= {metric.key: metric.step for metric in part}


def _points(trial: TrialRecord, metric: str, value_name: str) -> Iterator[_Point]:
    """Yields name, value and step of all that a trial has measured, in order of steps.

    The study's metric comes first: MLflow's page for comparing runs shows the first by itself.
    """
    for index, row in enumerate(trial.history, start=1):
        step = int(row.get("epoch", index))
        for name in sorted(row.keys() - {"epoch"}, key=lambda name: (name != metric, name)):
            yield name, float(row[name]), step
    if trial.history:
        yield "train_seconds", trial.train_seconds, len(trial.history)
    if trial.state == "done" and trial.value is not None:
        yield value_name, trial.value, len(trial.history)


def _last_steps(client: MlflowClient, run_id: str, names: set[str]) -> dict[str, int]:
    histories = {name: client.get_metric_history(run_id, name) for name in sorted(names)}
    return {name: max(m.step for m in metrics) for name, metrics in histories.items() if metrics}


def _write_status(client: MlflowClient, run: _Run, state: TrialState) -> None:
    status = _STATUS[state]
    if status == run.status:
        return
    if status in ("RUNNING", "SCHEDULED"):
        client.update_run(run.run_id, status=status)
    else:
        client.set_terminated(run.run_id, status)
    run.status = status


def _tag_list(tags: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(name, value) for name, value in tags.items()]


def _text(value: Value) -> str:
    """Returns a value as MLflow shows it; the study and the report hold every digit."""
    if isinstance(value, float):
        return f"{value:.{_SIGNIFICANT_DIGITS}g}"
    return str(value)


def _study_id(folder: Path) -> str:
    """Returns an id that lives and dies with the study folder.

    Names do not tell studies apart: a server may hold a study of the same name by someone else,
    or the one that was there before a fresh start.
    """
    path = folder / "mlflow.id"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{uuid.uuid4().hex}\n", encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
