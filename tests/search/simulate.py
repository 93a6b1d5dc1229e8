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
from kdscale.search import Ledger, Study
from kdscale.search._cohort_job import Job
from kdscale.search._queue import CohortQueue
from kdscale.search._rungs import Halving
from kdscale.training import Progress, Row

SECONDS_AN_EPOCH = 36.0


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
        stopped: dict[str, str] = {}
        halve = study.rungs is not None and any(v is not None for v in job.members.values())
        rule = Halving(
            study.rung_epochs, study.rungs.eta if study.rungs else 2, "val_accuracy", "maximize"
        )
        while True:
            if halve:
                going = set(members) - set(failed) - set(stopped)
                stopped |= rule({**job.ended, **members}, going)
            progress = []
            for name, history in members.items():
                status, reason = "running", ""
                if name in failed:
                    status, reason = "failed", failed[name]
                elif len(history) == study.budget.epochs:
                    status = "done"
                elif name in stopped:
                    status, reason = "stopped", stopped[name]
                rows = tuple(history[told[name] :])
                told[name] = len(history)
                seconds = SECONDS_AN_EPOCH * len(history)
                progress.append(Progress(name, status, rows, reason, seconds))  # type: ignore[arg-type]
            yield progress
            active = [p.name for p in progress if p.status == "running"]
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


class Sweep:
    """A sweep's driver and workers, with everything durable kept apart from what is not."""

    def __init__(self, study: Study, lanes: int = 1, shuffle: Random | None = None) -> None:
        self.study = study
        self.storage = MortalStorage()
        self.disk = Disk()
        self.lanes = lanes
        self.shuffle = shuffle or Random(0)
        self.changes: list[TrialRecord] = []
        self.crashes: dict[str, int] = {}
        """By cohort, how often its worker crashes after its first epoch."""
        self.mute: set[str] = set()
        """Cohorts whose worker dies without a word when it crashes."""

    def run(self, kill_at: int | None = None) -> CohortQueue:
        """Sweeps until nothing is left to do.

        Args:
            kill_at: At which tick of the clock (writes of the storage, checkpoints) to be killed.

        Raises:
            Killed: At that tick, if it comes.
        """
        clock = self.storage.clock = Clock(kill_at)
        queue = CohortQueue(Ledger(self.study, self.storage), on_change=self.changes.append)
        running: list[tuple[Job, Iterator[list[Progress]]]] = []
        while True:
            while len(running) < self.lanes and (job := queue.next()) is not None:
                running.append((job, self.disk.train(job, self.study, clock)))
            if not running:
                assert queue.idle
                return queue
            lane = running[self.shuffle.randrange(len(running))]
            job, training = lane
            progress = next(training, None)
            crashed = progress is not None and self._crash(job, progress)
            if crashed and job.cohort not in self.mute:
                report = {"cohort": job.cohort, "crashed": "Traceback\n  ...\nOSError: no disk"}
                queue.report(report)
            elif progress is not None and not crashed:
                parts = [asdict(part) for part in progress]
                queue.report({"cohort": job.cohort, "progress": parts})
            if progress is None or crashed:
                running.remove(lane)
                queue.finished(job.cohort, died=crashed and job.cohort in self.mute)

    def _crash(self, job: Job, progress: list[Progress]) -> bool:
        left = self.crashes.get(job.cohort, 0)
        if left and any(part.rows for part in progress):
            self.crashes[job.cohort] = left - 1
            return True
        return False

    def outcome(self) -> list[TrialRecord]:
        """Returns what must not depend on kills: all of every trial but its count of attempts."""
        ledger = Ledger(self.study, self.storage)
        return [replace(trial, attempt=0) for trial in (*ledger.trials, *ledger.controls)]
