"""The tracker: takes what the search tells it at once, and writes it to MLflow in its own time."""

from __future__ import annotations

import os
import textwrap
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from kdscale.records import StudyRecord, TrialRecord
from kdscale.tracking._projection import Projection
from kdscale.tracking._uri import mlflow_environment, tracking_uri, without_password

_Key = str | tuple[Path, str]
_Job = Callable[[], None]
_MESSAGE_LENGTH = 200

RETRY_SECONDS = 30.0
"""Pause after a failure, so that a server that is down is not asked without end."""


class Tracker:
    """MLflow behind a thread: no call waits for MLflow, and none fails with it.

    What could not be written is kept and tried again, the newest snapshot of a trial in place of
    older ones; `problem` says what went wrong while something is still unwritten.

    Args:
        projection: Where to write; None for a study that is not tracked.
        where: The tracking URI, for messages.
    """

    def __init__(self, projection: Projection | None, where: str = "") -> None:
        self._projection = projection
        self._where = where
        self._news = threading.Condition()
        self._jobs: dict[_Key, _Job] = {}
        self._closing = False
        self._problem = ""
        # A daemon, so that a server that does not answer cannot hold up the end of the process.
        self._thread = threading.Thread(target=self._run, name="kdscale-mlflow", daemon=True)
        if projection is not None:
            self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def problem(self) -> str:
        """What keeps MLflow from being complete, in one line; empty if nothing does."""
        return self._problem

    def update(self, trial: TrialRecord) -> None:
        """Takes a trial's newest snapshot and returns at once."""
        if self._projection is not None:
            self._put(trial.name, partial(self._projection.write, trial))

    def log_file(self, path: Path, artifact_folder: str = "") -> None:
        """Takes a file to attach to the study's run and returns at once.

        Args:
            path: The file; read some time later, at the latest by the end of `close`.
            artifact_folder: Folder among the run's artefacts; empty for the top.
        """
        if self._projection is not None:
            job = partial(self._projection.write_file, path, artifact_folder)
            self._put((path, artifact_folder), job)

    def close(self, timeout_seconds: float = 60.0) -> None:
        """Gives what is left one more try and returns within the timeout."""
        if self._projection is None:
            return
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join(timeout_seconds)
        if self._thread.is_alive() and not self._problem:
            late = TimeoutError(f"it was still writing after {timeout_seconds:g} s")
            self._problem = self._describe(late)

    def _put(self, key: _Key, job: _Job) -> None:
        with self._news:
            if not self._closing:
                self._jobs[key] = job
                self._news.notify()

    def _run(self) -> None:
        closing = False
        while not closing:
            with self._news:
                if self._problem:
                    self._news.wait_for(lambda: self._closing, RETRY_SECONDS)
                else:
                    self._news.wait_for(lambda: self._closing or self._jobs)
                closing = self._closing
                jobs, self._jobs = self._jobs, {}
            left, self._problem = self._work(jobs, closing)
            with self._news:
                self._jobs = left | self._jobs

    def _work(self, jobs: dict[_Key, _Job], closing: bool) -> tuple[dict[_Key, _Job], str]:
        """Does the jobs and returns those that failed, with what went wrong last."""
        projection = self._projection
        assert projection is not None
        try:
            projection.open()
        except Exception as error:
            return jobs, self._describe(error)
        if closing:
            jobs = jobs | {"finish": projection.finish}
        left: dict[_Key, _Job] = {}
        problem = ""
        for key, job in jobs.items():
            try:
                job()
            except Exception as error:
                left[key] = job
                problem = self._describe(error)
        return left, problem

    def _describe(self, error: Exception) -> str:
        line = textwrap.shorten(str(error), _MESSAGE_LENGTH, placeholder=" …")
        text = f"MLflow ({self._where}) did not take everything: {type(error).__name__}: {line}"
        return without_password(text, self._where)


def make_tracker(
    study: StudyRecord, uri: str | None = None, experiment: str = "", enabled: bool = True
) -> Tracker:
    """Returns a tracker that has been told of the whole study as it stands.

    What MLflow already holds is not written again, so that this also mends a tracking that an
    earlier process could not finish.

    Args:
        study: The study; its folder gets ``mlflow.db`` where no other URI is said.
        uri: The study file's ``tracking.uri``; else ``MLFLOW_TRACKING_URI``; else the folder.
        experiment: Name of the experiment; default: the study's name.
        enabled: Whether to track at all; a tracker that does not takes everything and does nothing.
    """
    if not enabled:
        return Tracker(None)
    os.environ.update(mlflow_environment())
    where = tracking_uri(study.folder, uri)
    tracker = Tracker(Projection(study, where, experiment or study.name), where)
    for trial in (*study.trials, *study.controls):
        tracker.update(trial)
    return tracker
