"""The study's own files: which of them nothing needs, and when these go."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdscale.files import DISK_FULL, free_bytes, size_text
from kdscale.records import TrialRecord
from kdscale.search._ledger import Ledger
from kdscale.training import Backup, checkpoint_path, delete_drafts, student_path


@dataclass(frozen=True)
class File:
    """A file of a trial.

    Attributes:
        path: Where it is.
        size_bytes: Its size.
        time: When it was written, in seconds.
        needed: Whether a trial goes on from it, or the report or the user wants it.
    """

    path: Path
    size_bytes: int
    time: float
    needed: bool


def superfluous(files: Iterable[File], quota_bytes: int) -> list[File]:
    """Returns the files to delete so that the others fit: the oldest that nothing needs.

    They may be more than the quota all the same.
    """
    files = list(files)
    used = sum(file.size_bytes for file in files)
    found = []
    for file in sorted((f for f in files if not f.needed), key=lambda f: (f.time, f.path)):
        if used <= quota_bytes:
            break
        used -= file.size_bytes
        found.append(file)
    return found


def kept_configurations(
    trials: Sequence[TrialRecord], goal: Literal["maximize", "minimize"], count: int
) -> set[int]:
    """Returns the configurations whose students stay: the best ones, and those not yet decided.

    The best are those with the most seeds trained to the end, then of the best mean, as in the
    report: a decided configuration that is not among them now never will be.
    """
    by_configuration: dict[int, list[TrialRecord]] = {}
    for trial in trials:
        if trial.configuration is not None:
            by_configuration.setdefault(trial.configuration, []).append(trial)
    sign = -1.0 if goal == "maximize" else 1.0

    def order(number: int) -> tuple[int, float, int]:
        done = [trial for trial in by_configuration[number] if trial.state == "done"]
        values = [t.value for t in done if t.value is not None and math.isfinite(t.value)]
        mean = sum(values) / len(values) if values else math.inf
        return -len(values), sign * mean, number

    best = set(sorted(by_configuration, key=order)[:count])
    return best | {
        number
        for number, own in by_configuration.items()
        if not all(trial.has_ended for trial in own)
    }


class Quota:
    """Keeps a study's files within its quota, and makes room on a full disk.

    Args:
        ledger: The study.
        backup: Deletes what goes from the remote folder too; None without one.
        on_note: Called with what the user must know.
    """

    def __init__(
        self, ledger: Ledger, backup: Backup | None, on_note: Callable[[str], None]
    ) -> None:
        self._ledger = ledger
        self._study = ledger.study
        self._folder = ledger.study.folder.absolute() / "trials"
        self._backup = backup
        self._on_note = on_note
        self._told = False
        self._sizes: dict[str, int] = {}
        if self._study.storage.quota is not None:
            for trial in self._trials():
                self._sizes[trial.name] = self._size(trial.name)
            self.enforce()

    def on_change(self, trial: TrialRecord) -> None:
        """Takes a trial that has changed; now and then deletes what is too much."""
        if trial.state == "running" and DISK_FULL in trial.reason:
            self.make_room()
        if self._study.storage.quota is not None:
            self._sizes[trial.name] = self._size(trial.name)
            self.enforce()

    def enforce(self) -> None:
        """Deletes what the quota does not hold."""
        quota = self._study.storage.quota
        if quota is None or sum(self._sizes.values()) <= quota:
            return
        self._delete(superfluous(self._files(), quota))
        used = sum(self._sizes.values())
        if used > quota and not self._told:
            self._told = True
            self._on_note(
                f"storage.quota ({size_text(quota)}) is less than what the study needs to go on "
                f"and wants to keep ({size_text(used)} by now): training goes on beyond it"
            )

    def make_room(self) -> None:
        """Deletes what nothing needs, the oldest first, until the running trials' files fit."""
        for trial in self._trials():
            if not trial.cohort:  # else it may be saving right now
                delete_drafts(self._folder / trial.name)
        files = self._files()
        largest = max((file.size_bytes for file in files), default=0)
        wanted = 2 * largest * sum(bool(trial.cohort) for trial in self._trials())
        missing = wanted - free_bytes(self._folder)
        if missing > 0:
            used = sum(file.size_bytes for file in files)
            self._delete(superfluous(files, used - missing))

    def _trials(self) -> list[TrialRecord]:
        return [*self._ledger.trials, *self._ledger.controls]

    def _files(self) -> list[File]:
        keep = self._study.storage.keep_students
        trials = self._ledger.trials
        students: set[int | None] = {None, *(trial.configuration for trial in trials)}
        if keep != "all":
            students = {None, *kept_configurations(trials, self._study.metric.goal, keep)}
        found = []
        for trial in self._trials():
            folder = self._folder / trial.name
            needed: Mapping[Path, bool] = {
                checkpoint_path(folder): not trial.has_ended,
                student_path(folder): trial.configuration in students,
            }
            for path, wanted in needed.items():
                try:
                    stat = path.stat()
                except OSError:
                    continue
                found.append(File(path, stat.st_size, stat.st_mtime, wanted))
        return found

    def _delete(self, files: Iterable[File]) -> None:
        for file in files:
            file.path.unlink(missing_ok=True)
            if self._backup is not None:
                self._backup.delete(file.path)
            name = file.path.parent.name
            self._sizes[name] = self._size(name)

    def _size(self, trial: str) -> int:
        folder = self._folder / trial
        total = 0
        for path in (checkpoint_path(folder), student_path(folder)):
            try:
                total += path.stat().st_size
            except OSError:
                continue
        return total
