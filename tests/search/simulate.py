"""A sweep without Ray and torch: a virtual trainer whose numbers are a pure function."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from random import Random
from typing import Any

from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from kdscale.records import TrialRecord, Value
from kdscale.search import CohortSize, Ledger, Study
from kdscale.search._cohort_job import Job
from kdscale.search._cohort_size import resources_key
from kdscale.search._deaths import loss_of
from kdscale.search._queue import CohortQueue
from kdscale.training import Progress, Row

SECONDS_AN_EPOCH = 36.0
FULL = {"reason": "out of memory"}


class Killed(Exception):  # noqa: N818  # what happens to a process, not an error of its own
    """SIGKILL, as far as one process can play it: whatever was in memory is forgotten."""


class Clock:
    """Raises `Killed` at the tick that it was made for."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.ticks = 0
        self.kill_at = kill_at

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks == self.kill_at:
            raise Killed


class MortalStorage(InMemoryStorage):
    """A durable storage whose writer may be killed between any two transactions."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        self.clock.tick()
        return super().create_new_trial(study_id, template_trial)

    def set_trial_intermediate_value(self, trial_id: int, step: int, value: float) -> None:
        self.clock.tick()
        super().set_trial_intermediate_value(trial_id, step, value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.clock.tick()
        super().set_trial_user_attr(trial_id, key, value)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        self.clock.tick()
        return super().set_trial_state_values(trial_id, state, values)


def metrics(parameters: Mapping[str, Value] | None, seed: int, epoch: int) -> dict[str, float]:
    """Returns an epoch's metrics: high where alpha is near 8, with noise of the seed."""
    key = repr((sorted((parameters or {}).items()), seed, epoch))
    noise = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") / 2**32
    alpha = float((parameters or {}).get("alpha", 0.0))
    accuracy = 50.0 + 5.0 * math.log(epoch) - abs(alpha - 8.0) + noise
    return {"epoch": epoch, "val_accuracy": accuracy, "val_loss": 100.0 - accuracy}


def diverges(parameters: Mapping[str, Value] | None, epoch: int) -> bool:
    return parameters is not None and epoch == 3 and float(parameters["alpha"]) > 13.0


class Disk:
    """The checkpoints of all trials: what outlives a kill."""

    def __init__(self) -> None:
        self.histories: dict[str, list[Row]] = {}
        self.epochs_trained = 0

    def train(self, job: Job, study: Study, clock: Clock) -> Iterator[list[Progress]]:
        """Yields what `train_cohort` would, from the checkpoints on."""
        members = {name: list(self.histories.get(name, [])) for name in job.members}
        told = dict.fromkeys(members, 0)
        failed: dict[str, str] = {}
        while True:
            progress = []
            for name, history in members.items():
                status, reason = "running", ""
                if name in failed:
                    status, reason = "failed", failed[name]
                elif len(history) == study.budget.epochs:
                    status = "done"
                rows = tuple(history[told[name] :])
                told[name] = len(history)
                seconds = SECONDS_AN_EPOCH * len(history)
                progress.append(Progress(name, status, rows, reason, seconds))  # type: ignore[arg-type]
            yield progress
            active = [
                p.name
                for p in progress
                if p.status == "running" and len(members[p.name]) < job.until
            ]
            if not active:
                return
            first = min(len(members[name]) for name in active)
            for name in active:
                if len(members[name]) > first:
                    continue
                if diverges(job.members[name], first + 1):
                    failed[name] = f"diverged at epoch {first + 1} (ldrld is not finite)"
                    continue
                members[name].append(metrics(job.members[name], job.seed, first + 1))
                self.epochs_trained += 1
                clock.tick()
                self.histories[name] = list(members[name])
                clock.tick()


def measurements(job: Job, fits: int) -> Iterator[dict[str, Any]]:
    """Yields what a worker tells that measures: a teacher costs as much as two students."""
    size = 1
    while True:
        if size > fits:
            yield {"cohort": job.cohort, "crashed": "OutOfMemoryError: full", **FULL}
            return
        row = {"size": size, "step_seconds": 2.0 + size, "peak_bytes": 1000 + size}
        yield {"measured": [row], "memory_bytes": 10**9}
        if size == len(job.members):
            return
        size = min(2 * size, len(job.members))


class Sweep:
    """A sweep's driver and workers, with everything durable kept apart from what is not."""

    def __init__(self, study: Study, lanes: int = 1, shuffle: Random | None = None) -> None:
        self.study = study
        self.storage = MortalStorage()
        self.disk = Disk()
        self.lanes = lanes
        self.shuffle = shuffle or Random(0)
        self.changes: list[TrialRecord] = []
        self.sizes: list[CohortSize] = []
        self.jobs: list[Job] = []
        self.crashes: dict[str, int] = {}
        """By trial, how often the worker of its cohort crashes after an epoch."""
        self.mute: set[str] = set()
        """Trials whose worker dies without a word when it crashes."""
        self.loss = loss_of(None)
        """What is known of a worker that dies without a word."""
        self.fits = 10**6
        """How many students fit in memory."""

    def run(self, kill_at: int | None = None) -> CohortQueue:
        """Sweeps until nothing is left to do.

        Args:
            kill_at: At which tick of the clock (writes of the storage, checkpoints) to be killed.

        Raises:
            Killed: At that tick, if it comes.
        """
        clock = self.storage.clock = Clock(kill_at)
        ledger = Ledger(self.study, self.storage)
        queue = CohortQueue(ledger, on_change=self.changes.append, on_size=self.sizes.append)
        if not queue.complete:
            queue.open(self.lanes, resources_key(self.study, [{"CPU": 2.0}]))
        running: list[tuple[Job, Iterator[dict[str, Any]]]] = []
        while True:
            while len(running) < self.lanes and (job := queue.next()) is not None:
                self.jobs.append(job)
                assert len({len(ledger.trial(name).history) for name in job.members}) == 1
                assert {ledger.trial(name).seed for name in job.members} == {job.seed}
                running.append((job, self.worker(job, clock)))
            if not running:
                assert queue.idle
                return queue
            lane = running[self.shuffle.randrange(len(running))]
            job, worker = lane
            try:
                report = next(worker, None)
                if report is not None:
                    queue.report(report)
            except ConnectionError:
                running.remove(lane)
                queue.finished(job.cohort, self.loss)
                continue
            if report is None:
                running.remove(lane)
                queue.finished(job.cohort)

    def worker(self, job: Job, clock: Clock) -> Iterator[dict[str, Any]]:
        """Yields what a worker tells of a job.

        Raises:
            ConnectionError: If it dies.
        """
        if job.measure:
            yield from measurements(job, self.fits)
            return
        if len(job.members) > self.fits:
            yield {"cohort": job.cohort, "crashed": "OutOfMemoryError: full", **FULL}
            return
        for progress in self.disk.train(job, self.study, clock):
            for name in job.members:
                if self.crashes.get(name, 0) and any(part.rows for part in progress):
                    self.crashes[name] -= 1
                    if name in self.mute:
                        raise ConnectionError
                    reason = "Traceback\n  ...\nOSError: no disk"
                    yield {"cohort": job.cohort, "crashed": reason}
                    return
            yield {"cohort": job.cohort, "progress": [asdict(part) for part in progress]}

    def outcome(self) -> list[TrialRecord]:
        """Returns what must not depend on kills: all of every trial but its attempts."""
        ledger = Ledger(self.study, self.storage)
        return [
            replace(trial, attempt=0, attempts=()) for trial in (*ledger.trials, *ledger.controls)
        ]
