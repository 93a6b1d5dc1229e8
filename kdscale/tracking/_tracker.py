"""The tracker: takes what the search tells it at once, and writes it to MLflow in its own time.

The study's own record is the spool. Every epoch of every trial is in the ledger, or in a
checkpoint from which the next sweep tells it to the ledger again, before it comes here; so the
tracker keeps no more than the names of the trials that MLflow does not have in full, and reads
what they are when MLflow can take it. A process that dies with MLflow away loses nothing: the
next sweep, or ``kdscale track STUDY``, compares study and MLflow and sends what is missing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from kdscale.errors import UserError
from kdscale.records import StudyRecord, TrialRecord
from kdscale.tracking._problem import problem_of
from kdscale.tracking._projection import Projection
from kdscale.tracking._summary import Summary
from kdscale.tracking._uri import mlflow_environment, tracking_uri
from kdscale.urls import hide_passwords

_Key = str | tuple[Path, str] | Summary
"""A trial by name; or a file and its folder among the artefacts; or what the study has found."""

FIRST_PAUSE_SECONDS = 1.0
"""Pause after a failure; each further one is twice as long, up to the longest."""

LONGEST_PAUSE_SECONDS = 60.0

_SAY_AT = 2
"""Failures in a row: one alone is often a connection that grew old."""

_MOST_FAILURES = 10

_LOOK_SECONDS = 0.1

_log = logging.getLogger("kdscale.tracking")


class Tracker:
    """MLflow behind a thread: no call waits for MLflow, and none fails with it.

    What could not be written is tried again, each trial as it stands by then; `problem` says what
    went wrong while something is still unwritten.

    Args:
        projection: Where to write; None for a study that is not tracked.
        find: Returns a trial by name, as it stands.
        where: The tracking URI, for messages.
    """

    def __init__(
        self,
        projection: Projection | None,
        find: Callable[[str], TrialRecord] = lambda name: _unknown(name),
        where: str = "",
    ) -> None:
        self._projection = projection
        self._find = find
        self._where = where
        self._news = threading.Condition()
        self._unsent: dict[_Key, None] = {}
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

    @property
    def unsent(self) -> int:
        """Number of trials and files that MLflow does not have yet."""
        return len(self._unsent)

    def changed(self, name: str) -> None:
        """Takes that a trial has changed, and returns at once."""
        self._put(name)

    def log_file(self, path: Path, artifact_folder: str = "") -> None:
        """Takes a file to attach to the study's run and returns at once.

        Args:
            path: The file; read some time later, at the latest by the end of `close`.
            artifact_folder: Folder among the run's artefacts; empty for the top.
        """
        self._put((path, artifact_folder))

    def summarise(self, summary: Summary) -> None:
        """Takes what the study has found and returns at once."""
        self._put(summary)

    def wait(self, on_unsent: Callable[[int], None]) -> None:
        """Returns when MLflow has everything, or does not take it; then closes.

        Args:
            on_unsent: Called again and again with what is left.
        """
        while self.unsent and not self.problem:
            on_unsent(self.unsent)
            time.sleep(_LOOK_SECONDS)
        self.close(timeout_seconds=None)

    def close(self, timeout_seconds: float | None = 60.0) -> None:
        """Gives what is left one more try and returns within the timeout, if there is one."""
        if self._projection is None:
            return
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join(timeout_seconds)
        if self._thread.is_alive() and not self._problem:
            self._problem = hide_passwords(
                f"MLflow ({self._where}): it was still writing after {timeout_seconds:g} s",
                self._where,
            )

    def _put(self, key: _Key) -> None:
        with self._news:
            if self._projection is not None and not self._closing:
                self._unsent[key] = None
                self._news.notify()

    def _run(self) -> None:
        failures = 0
        closing = False
        while not closing:
            pause = min(FIRST_PAUSE_SECONDS * 2**failures, LONGEST_PAUSE_SECONDS)
            with self._news:
                if failures:
                    self._news.wait_for(lambda: self._closing, pause)
                else:
                    self._news.wait_for(lambda: self._closing or self._unsent)
                closing = self._closing
            before, problem = failures, self._send(last=closing)
            if closing and problem:
                # What failed may have been the connection to a server that is up again.
                problem = self._send(last=True)
            self._problem = problem
            failures = min(before + 1, _MOST_FAILURES) if problem else 0
            if not closing and failures == _SAY_AT > before:
                _log.warning("%s; the study has everything, and it is tried again", problem)
            elif not closing and before >= _SAY_AT and not problem:
                _log.warning("MLflow has caught up with the study")

    def _send(self, *, last: bool) -> str:
        """Sends what is unsent; returns what went wrong, at the first failure unless it is last."""
        projection = self._projection
        assert projection is not None
        failed: set[_Key] = set()
        problem = ""
        while True:
            try:
                projection.open()
                key = self._next(failed)
                if key is None:
                    if last:
                        projection.finish()
                    return problem
            except Exception as error:
                projection.close()
                return problem_of(error, self._where)
            try:
                if isinstance(key, str):
                    projection.write(self._find(key))
                elif isinstance(key, Summary):
                    projection.write_summary(key)
                else:
                    projection.write_file(*key)
            except Exception as error:
                problem = problem_of(error, self._where)
                projection.close()
                failed.add(key)
                with self._news:
                    self._unsent[key] = None  # behind the others, which may be luckier
                if not last:
                    return problem

    def _next(self, failed: set[_Key]) -> _Key | None:
        with self._news:
            for key in self._unsent:
                if key not in failed:
                    del self._unsent[key]
                    return key
        return None


def make_tracker(
    study: StudyRecord,
    uri: str | None = None,
    experiment: str = "",
    enabled: bool = True,
    *,
    find: Callable[[str], TrialRecord] | None = None,
    rebuild: bool = False,
    host: Path | None = None,
) -> Tracker:
    """Returns a tracker that has been told of the whole study as it stands.

    What MLflow already holds is not written again, so that this also mends a tracking that an
    earlier process could not finish.

    Args:
        study: The study; its folder gets ``mlflow.db`` where no other URI is said.
        uri: The study file's ``tracking.uri``; else ``MLFLOW_TRACKING_URI``; else the folder.
        experiment: Name of the experiment; default: the study's name.
        enabled: Whether to track at all; a tracker that does not takes everything and does nothing.
        find: Returns a trial of the study as it stands; default: as `study` has it.
        rebuild: Whether to throw away what MLflow has of the study, and send it all again.
        host: Folder of an experiment that several studies share.
    """
    if not enabled:
        return Tracker(None)
    os.environ.update(mlflow_environment())
    where = tracking_uri(study.folder, uri)
    projection = Projection(study, where, experiment or study.name, rebuild=rebuild, host=host)
    known = {trial.name: trial for trial in (*study.trials, *study.controls)}
    names = list(known)
    tracker = Tracker(projection, find or _finder(known), where)
    for name in names:
        tracker.changed(name)
    return tracker


def register_student(study: StudyRecord, uri: str | None, experiment: str, name: str) -> int:
    """Returns the version under which the best student's model is in MLflow's model registry.

    Args:
        study: A study that is tracked in full.
        uri: The study file's ``tracking.uri``, if it has one.
        experiment: Name of the experiment; default: the study's name.
        name: Name in the registry; what is registered under it already is not registered again.

    Raises:
        UserError: MLflow has no model of it, or cannot register it.
    """
    os.environ.update(mlflow_environment())
    where = tracking_uri(study.folder, uri)
    projection = Projection(study, where, experiment or study.name)
    try:
        projection.open()
        version = projection.register(name)
        projection.finish()
    except UserError:
        raise
    except Exception as error:
        raise UserError(problem_of(error, where)) from error
    return version


def _finder(known: Mapping[str, TrialRecord]) -> Callable[[str], TrialRecord]:
    return lambda name: known[name]


def _unknown(name: str) -> TrialRecord:
    raise KeyError(name)
