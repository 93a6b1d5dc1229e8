"""The cluster, the sweep on it, and the operator who starts again what does not run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from testbed_lib import HEAD, Testbed
from testbed_lib.hosts import link_is_up, processes, running
from testbed_lib.postgres import PASSWORD, Postgres

from chaos_lib.watch import Watch

MLFLOW_PORT = 5077
_PROGRAMS = Path(sys.executable).parent


class Driver:
    """`kdscale sweep` of one study file on the head, started as often as it takes.

    Attributes:
        starts: How often it was started.
        log: What it printed.
    """

    def __init__(self, testbed: Testbed, study: Path) -> None:
        self.starts = 0
        self.log = study.with_suffix(".log")
        self._testbed = testbed
        self._study = study
        self._outer: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it."""
        words = [str(_PROGRAMS / "kdscale"), "sweep", str(self._study)]
        with self.log.open("ab") as log:
            self._outer = subprocess.Popen(
                self._testbed.command(words, folder=self._study.parent),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._testbed.environment() | {"PGPASSWORD": PASSWORD},
            )
        self.starts += 1

    @property
    def code(self) -> int | None:
        """How it ended, None if it runs or was never started."""
        return None if self._outer is None else self._outer.poll()

    @property
    def runs(self) -> bool:
        """Whether it runs."""
        return self._outer is not None and self._outer.poll() is None

    @property
    def process(self) -> int | None:
        """Its process."""
        for pid, words in processes(HEAD).items():
            if "sweep" in words and str(self._study) in words and "nsenter" not in words[0]:
                return pid
        return None

    def stop(self) -> None:
        """Kills it if it runs."""
        pid = self.process
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._outer is not None:
            self._outer.wait()


@dataclass
class Scene:
    """All that can be broken and mended.

    Attributes:
        testbed: The cluster.
        study: The study file.
        driver: Its sweep.
        watch: Its checkpoints.
        random: Chooses.
        with_mlflow: Whether there is an MLflow server.
        database: The PostgreSQL server that holds the study, if one does.
    """

    testbed: Testbed
    study: Path
    driver: Driver
    watch: Watch
    random: Random
    with_mlflow: bool = False
    database: Postgres | None = None
    _server: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def study_folder(self) -> Path:
        """The study's folder."""
        return self.study.parent / "chaos"

    @property
    def mlflow_folder(self) -> Path:
        """What the MLflow server has written."""
        return self.study.parent / "mlflow"

    @property
    def up(self) -> list[str]:
        """The nodes that run."""
        return list(running())

    @property
    def mlflow(self) -> int | None:
        """The MLflow server's first process."""
        for pid, words in processes(HEAD).items():
            if any(word.endswith("/mlflow") for word in words) and "server" in words:
                return pid
        return None

    def processes(self, node: str) -> dict[int, list[str]]:
        """Returns the command line of each process of a node."""
        return processes(node)

    def mend(self) -> None:
        """Starts again what does not run, but the sweep."""
        up = running()
        broken = [name for name in self.testbed.names if not self._is_whole(name, up)]
        if HEAD in broken:
            broken = self.testbed.names  # the cluster went with its head
        for name in broken:
            self.testbed.mend(name)
        joined = self.testbed.joined()
        for status in self.testbed.status():
            if status.address not in joined:
                self.testbed.mend(status.name)
        if self.with_mlflow and self.mlflow is None:
            self._start_mlflow()
        if self.database is not None and not self.database.runs:
            self.database.start()

    def _is_whole(self, name: str, up: dict[str, int]) -> bool:
        if name not in up or not link_is_up(name) or not self.testbed.daemons(name, "raylet"):
            return False
        return name != HEAD or bool(self.testbed.daemons(HEAD, "gcs_server"))

    def _start_mlflow(self) -> None:
        folder = self.mlflow_folder
        folder.mkdir(exist_ok=True)
        words = [str(_PROGRAMS / "mlflow"), "server", "--host", "127.0.0.1"]
        words += ["--port", str(MLFLOW_PORT), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        words += ["--artifacts-destination", str(folder / "artifacts")]
        with (folder / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                self.testbed.command(words, folder=folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.testbed.environment() | {"MLFLOW_DISABLE_TELEMETRY": "true"},
            )
