"""The study left alone: in one process, without Ray, cohort after cohort.

python -m chaos_lib.alone STUDY
"""

from __future__ import annotations

import sys
from pathlib import Path

from kdscale.search import load_study, open_ledger, train_teacher
from kdscale.search._cohort_job import Place, reports, threads
from kdscale.search._form import settled_by_ledger
from kdscale.search._queue import CohortQueue
from kdscale.search._sweep import _prepare_teacher
from kdscale.training import Group


def train_alone(path: Path) -> None:
    """Trains the study of a file to its end, as one worker a cohort does."""
    study = load_study(path)
    threads(study)
    ledger = open_ledger(study, create=True)
    for _ in train_teacher(study):
        pass
    teacher = _prepare_teacher(study, ledger, lambda progress: None)
    settled = settled_by_ledger(study, ledger, teacher)
    place = Place(settled, study.folder.absolute(), teacher.absolute(), study.cache_folder)
    queue = CohortQueue(ledger)
    while (job := queue.next()) is not None:
        for report in reports(job, place, Group()):
            queue.report(report)
        queue.finished(job.cohort)
    assert queue.complete


if __name__ == "__main__":
    train_alone(Path(sys.argv[1]))
