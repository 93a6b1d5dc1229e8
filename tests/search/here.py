"""The reference of every sweep: the same study in this process, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdscale.records import TrialRecord
from kdscale.search import CohortSize, Ledger, Study, open_ledger, train_teacher
from kdscale.search._cohort_job import Place, reports, threads
from kdscale.search._form import settled_by_ledger
from kdscale.search._queue import CohortQueue
from kdscale.search._sweep import _prepare_teacher
from kdscale.training import Group, Progress


class Listener:
    """Keeps all that a sweep tells."""

    def __init__(self) -> None:
        self.teacher: list[Progress] = []
        self.lanes: list[int] = []
        self.changes: list[TrialRecord] = []
        self.sizes: list[CohortSize] = []
        self.notes: list[str] = []

    def on_teacher(self, progress: Progress) -> None:
        self.teacher.append(progress)

    def on_start(self, ledger: Ledger, cohorts_at_once: int) -> None:
        self.lanes.append(cohorts_at_once)

    def on_change(self, trial: TrialRecord) -> None:
        self.changes.append(trial)

    def on_size(self, size: CohortSize) -> None:
        self.sizes.append(size)

    def on_note(self, text: str) -> None:
        self.notes.append(text)

    def trouble(self) -> str:
        return ""


def swept_here(study: Study, cache: Path | None = None) -> Ledger:
    """Returns the ledger of a study that was trained in this process, cohort after cohort.

    Args:
        study: The study.
        cache: The folder of the teacher caches; None for the live teacher.
    """
    threads(study)
    ledger = open_ledger(study, create=True)
    if study.task.teacher.weights is None:
        for _ in train_teacher(study):
            pass
    teacher = _prepare_teacher(study, ledger, lambda progress: None)
    study = settled_by_ledger(study, ledger, teacher)
    place = Place(study, study.folder.absolute(), teacher, cache)
    queue = CohortQueue(ledger)
    while (job := queue.next()) is not None:
        for report in reports(job, place, Group()):
            queue.report(report)
        queue.finished(job.cohort)
    assert queue.complete
    return ledger


def numbers(ledger: Ledger) -> dict[str, tuple[Any, ...]]:
    """Returns what must not depend on where and in how many attempts a study was trained."""
    return {
        t.name: (t.parameters, t.state, t.value, t.history, t.reason, t.group, t.student)
        for t in (*ledger.trials, *ledger.controls)
    }
