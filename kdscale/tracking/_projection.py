"""A study as MLflow experiment and runs. Synchronous; used by the tracker's thread alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdscale.errors import UserError
from kdscale.records import StudyRecord, TrialRecord
from kdscale.tracking._experiment import (
    guest_id,
    is_copy,
    new_study_id,
    open_experiment,
    owns_experiment,
    place_of,
    settle_artifacts,
    study_id,
)
from kdscale.tracking._model import delete_models, log_student, register
from kdscale.tracking._run import STATUS, Run, fixed_tags, write_run, write_status
from kdscale.tracking._summary import BEST, NOTE, Summary, flag_best, model_text
from kdscale.tracking._uri import is_own_database, mlflow_environment

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PAGE = 1000
_FINAL = {STATUS[state]: state for state in ("done", "pruned", "failed")}


class Projection:
    """The study in MLflow: one experiment, one run a trial, one run for the study itself.

    It can be opened on what an earlier process wrote and goes on after it: runs are found by
    their tags, parameters are written once, metrics from the first missing epoch on. After any
    error it is to be closed and opened again: what MLflow did without saying so is then seen. Of
    trials that have ended it remembers the names alone.

    Args:
        study: The study; its trials are not kept.
        uri: MLflow's tracking URI.
        experiment: Name of the experiment.
        rebuild: Whether to throw away, once, what MLflow has of the study.
        host: Folder of an experiment that several studies share, in which this one is a guest:
            its runs' names begin with its own, and nothing is written into its folder.
    """

    def __init__(
        self,
        study: StudyRecord,
        uri: str,
        experiment: str,
        *,
        rebuild: bool = False,
        host: Path | None = None,
    ) -> None:
        self._study = replace(study, trials=(), controls=())
        self._uri = uri
        self._experiment = experiment
        self._rebuild = rebuild
        self._home = host or study.folder
        self._is_guest = host is not None
        self._value_name = f"{study.mode}_{study.metric}"
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._study_run = ""
        self._common: dict[str, str] = {}
        self._runs: dict[str, Run] = {}
        self._ended: set[str] = set()
        self._disturbed = False

    def open(self) -> None:
        """Reaches MLflow, makes what is missing there and reads which runs there are, once."""
        if self._client is not None:
            return
        logging.getLogger("alembic").setLevel(logging.WARNING)
        # MLflow reads its variable once: another part of this process may have imported it.
        logging.getLogger("mlflow").setLevel(mlflow_environment()["MLFLOW_LOGGING_LEVEL"])
        own = is_own_database(self._home, self._uri)
        settle_artifacts(self._home, self._uri)
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self._uri)
        self._common = {
            "kdscale.study": self._study.name,
            "kdscale.study_id": (guest_id if self._is_guest else study_id)(self._study.folder),
            "mlflow.source.name": "kdscale sweep",
            "mlflow.source.type": "LOCAL",
        }
        if self._study.commit:
            self._common["mlflow.source.git.commit"] = self._study.commit
        self._experiment_id = open_experiment(
            client, self._study, self._experiment, self._home, self._uri
        )
        if self._rebuild:
            for run in list(self._search(client)):
                client.delete_run(run.info.run_id)
            delete_models(client, self._experiment_id, self._common["kdscale.study_id"])
            self._rebuild = False
        self._read_runs(client, own=own)
        if not self._study_run:
            tags = self._common | {"kdscale.kind": "study"}
            created = client.create_run(
                self._experiment_id, _now_ms(), tags, run_name=self._name("study")
            )
            self._study_run = str(created.info.run_id)
        else:
            client.update_run(self._study_run, status="RUNNING")
        client.set_tag(self._study_run, "kdscale.folder", place_of(self._study.folder))
        client.log_text(self._study_run, self._study.study_file, "study.yaml")
        self._client = client

    def close(self) -> None:
        """Forgets what MLflow holds, after an error: nobody knows what it took."""
        self._disturbed = True
        self._client = None

    def write(self, trial: TrialRecord) -> None:
        """Brings the trial's run up to the trial; a trial that never started gets none."""
        client = self._reached()
        if trial.name in self._ended:
            return
        run = self._runs.get(trial.name)
        if run is None:
            if trial.attempt == 0:
                return
            run = self._runs[trial.name] = self._create(client, trial)
        write_run(client, run, trial, self._study.metric, self._value_name)
        if trial.has_ended:
            self._ended.add(trial.name)
            del self._runs[trial.name]

    def write_file(self, path: Path, artifact_folder: str) -> None:
        """Attaches a file to the study's run."""
        self._reached().log_artifact(self._study_run, str(path), artifact_folder or None)

    def write_summary(self, summary: Summary) -> None:
        """Says what the study has found: description, best runs, and the best student as a model.

        Raises:
            LookupError: The best student's run is not there yet.
        """
        client = self._reached()
        run = flag_best(client, list(self._search(client)), summary)
        why = summary.missing
        if summary.student is not None:
            if not run:
                raise LookupError(f"{summary.student.trial} has no run yet")
            common = self._common
            why = log_student(client, self._experiment_id, run, common, summary.student)
        model = f"**Model.** None: {why}." if why else model_text(summary, run)
        text = "\n\n".join(part for part in (summary.text, model) if part)
        client.set_tag(self._study_run, NOTE, text)
        if owns_experiment(client, self._experiment_id, self._study.name):
            client.set_experiment_tag(self._experiment_id, NOTE, text)

    def register(self, name: str) -> int:
        """Returns the version of the best student's model under a name in the model registry.

        Raises:
            UserError: There is no such model, or the name is no name for one.
        """
        client = self._reached()
        for run in self._search(client):
            if run.data.tags.get(BEST) == "model":
                study = self._common["kdscale.study_id"]
                return register(client, self._experiment_id, run.info.run_id, study, name)
        raise UserError("--register: there must be a best student, but MLflow knows of none")

    def finish(self) -> None:
        """Says that nothing trains any more: open runs wait for the next process."""
        client = self._reached()
        if self._disturbed:
            # A run whose making seemed to fail may have come into being later.
            self._read_runs(client, own=is_own_database(self._home, self._uri))
            self._disturbed = False
        for run in self._runs.values():
            if run.state == "running":
                write_status(client, run, "waiting")
                client.set_tag(run.run_id, "kdscale.state", "waiting")
                run.told = {**run.told, "kdscale.state": "waiting"}
        client.set_terminated(self._study_run, "FINISHED")

    def _reached(self) -> MlflowClient:
        if self._client is None:
            raise RuntimeError("the projection must be open before it is written to")
        return self._client

    def _read_runs(self, client: MlflowClient, *, own: bool) -> None:
        """Reads which runs there are; of several for one trial the first is kept."""
        self._runs, self._ended, self._study_run = {}, set(), ""
        doubles = []
        place = ""
        for run in self._search(client):
            tags = run.data.tags
            if tags.get("kdscale.kind") == "study":
                if self._study_run:
                    doubles.append(run.info.run_id)
                else:
                    self._study_run = str(run.info.run_id)
                    place = tags.get("kdscale.folder", "")
            elif (name := tags.get("kdscale.trial")) in self._runs or name in self._ended:
                doubles.append(run.info.run_id)
            elif name is not None:
                found = Run.found(run)
                if _FINAL.get(found.status) == found.state:
                    self._ended.add(name)
                else:
                    self._runs[name] = found
        if not own and is_copy(self._study.folder, place):
            # The study that was copied goes on in its own runs, and this one begins others.
            self._common["kdscale.study_id"] = new_study_id(self._study.folder)
            self._runs, self._ended, self._study_run = {}, set(), ""
            return
        for number in doubles:
            client.delete_run(number)

    def _search(self, client: MlflowClient) -> Iterator[Any]:
        """Yields the runs of this study, oldest first; others may share the experiment."""
        rule = f"tags.`kdscale.study_id` = '{self._common['kdscale.study_id']}'"
        token = None
        while True:
            page = client.search_runs(
                [self._experiment_id],
                rule,
                max_results=_PAGE,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return

    def _name(self, name: str) -> str:
        return f"{self._study.name} {name}" if self._is_guest else name

    def _create(self, client: MlflowClient, trial: TrialRecord) -> Run:
        # The identity alone at first: the other tags say that what they speak of is written.
        tags = self._common | fixed_tags(trial)
        started_ms = _now_ms() - round(1000 * trial.train_seconds)
        name = self._name(trial.name)
        created = client.create_run(self._experiment_id, started_ms, tags, name)
        info = created.info
        return Run(info.run_id, info.start_time, info.status, {}, steps={})


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
