"""One trial as one MLflow run, written so that the same thing told twice is there once.

A point's time is a function of its run and epoch, so a point that is sent again, because the
answer to the first was lost, is the same row to MLflow. The tags come last and with the last
points: they say that all the rest is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdscale.records import TrialRecord, TrialState, Value

if TYPE_CHECKING:
    from mlflow import MlflowClient

STATUS: dict[TrialState, str] = {
    "waiting": "SCHEDULED",
    "running": "RUNNING",
    "done": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
}
_METRICS_PER_CALL = 900
_PARAMETERS_PER_CALL = 100
_REASON_LENGTH = 500
_SIGNIFICANT_DIGITS = 6
_EPOCH_MS = 1000
_Point = tuple[str, float, int]


@dataclass(slots=True)
class Run:
    """What MLflow holds of one trial.

    Attributes:
        run_id: MLflow's id.
        start_ms: When it started.
        status: MLflow's status.
        told: The tags that change, as they stand.
        has_parameters: Whether its parameters are written.
        steps: Metric name -> last step; None where an earlier process wrote and nobody asked yet.
    """

    run_id: str
    start_ms: int
    status: str
    told: Mapping[str, str]
    has_parameters: bool = False
    steps: dict[str, int] | None = None

    @classmethod
    def found(cls, run: Any) -> Run:
        """Returns what a search has found."""
        tags = run.data.tags
        told = {name: tags[name] for name in _NAMES if name in tags}
        written = "seed" in run.data.params  # the last of them
        return cls(run.info.run_id, run.info.start_time, run.info.status, told, written)

    @property
    def state(self) -> str:
        """The trial's state as the tags say it."""
        return self.told.get("kdscale.state", "")


def write_run(client: MlflowClient, run: Run, trial: TrialRecord, metric: str, value: str) -> None:
    """Brings a run up to its trial.

    Args:
        client: MLflow.
        run: The run.
        trial: The trial.
        metric: The study's metric: the first in MLflow's page for comparing runs.
        value: Name of the metric that holds the trial's value.
    """
    told = _told(trial)
    if run.told != told:
        _write_parameters(client, run, trial)
        _write_points(client, run, list(_points(trial, metric, value)), told)
        run.told = told
    write_status(client, run, trial.state)


def write_status(client: MlflowClient, run: Run, state: TrialState) -> None:
    """Writes how a run stands, if that has changed."""
    status = STATUS[state]
    if status == run.status:
        return
    if status in ("RUNNING", "SCHEDULED"):
        client.update_run(run.run_id, status=status)
    else:
        client.set_terminated(run.run_id, status)
    run.status = status


def fixed_tags(trial: TrialRecord) -> dict[str, str]:
    """Returns the tags that say which trial a run is."""
    return {
        "kdscale.kind": "control" if trial.is_control else "trial",
        "kdscale.trial": trial.name,
        "kdscale.configuration": trial.name.rsplit("-s", 1)[0],
        "kdscale.seed": str(trial.seed),
        "kdscale.group": trial.group or "none",
    }


def _told(trial: TrialRecord) -> dict[str, str]:
    values = (
        trial.state,
        str(trial.attempt),
        str(len(trial.history)),
        trial.reason[:_REASON_LENGTH] or "none",
    )
    return dict(zip(_NAMES, values, strict=True))


_NAMES = ("kdscale.state", "kdscale.attempt", "kdscale.epochs", "kdscale.reason")


def _write_parameters(client: MlflowClient, run: Run, trial: TrialRecord) -> None:
    from mlflow.entities import Param

    if run.has_parameters:
        return
    texts = {name: _text(value) for name, value in trial.parameters.items()}
    parameters = [Param(name, text) for name, text in texts.items()]
    parameters.append(Param("seed", str(trial.seed)))
    # MLflow takes a parameter again if its value is the same.
    for start in range(0, len(parameters), _PARAMETERS_PER_CALL):
        client.log_batch(run.run_id, params=parameters[start : start + _PARAMETERS_PER_CALL])
    run.has_parameters = True


def _write_points(
    client: MlflowClient, run: Run, points: Sequence[_Point], told: Mapping[str, str]
) -> None:
    from mlflow.entities import Metric, RunTag

    if run.steps is None:
        run.steps = _last_steps(client, run.run_id, {name for name, _, _ in points})
    metrics = [
        Metric(name, value, run.start_ms + _EPOCH_MS * step, step)
        for name, value, step in points
        if step > run.steps.get(name, -1)
    ]
    tags = [RunTag(name, text) for name, text in told.items()]
    starts = range(0, len(metrics), _METRICS_PER_CALL) or (0,)
    for start in starts:
        part = metrics[start : start + _METRICS_PER_CALL]
        last = start == starts[-1]
        client.log_batch(run.run_id, metrics=part, tags=tags if last else [])
        run.steps |= {metric.key: metric.step for metric in part}


def _points(trial: TrialRecord, metric: str, value_name: str) -> Iterator[_Point]:
    """Yields name, value and step of all that a trial has measured, in order of steps."""
    for index, row in enumerate(trial.history, start=1):
        step = int(row.get("epoch", index))
        for name in sorted(row.keys() - {"epoch"}, key=lambda name: (name != metric, name)):
            yield name, float(row[name]), step
    if trial.has_ended and trial.history:
        # At the end alone: what a restarted attempt says of an epoch may differ.
        yield "train_seconds", trial.train_seconds, len(trial.history)
    if trial.state == "done" and trial.value is not None:
        yield value_name, trial.value, len(trial.history)


def _last_steps(client: MlflowClient, run_id: str, names: set[str]) -> dict[str, int]:
    histories = {name: client.get_metric_history(run_id, name) for name in sorted(names)}
    return {name: max(m.step for m in metrics) for name, metrics in histories.items() if metrics}


def _text(value: Value) -> str:
    """Returns a value as MLflow shows it; the study and the report hold every digit."""
    if isinstance(value, float):
        return f"{value:.{_SIGNIFICANT_DIGITS}g}"
    return str(value)
