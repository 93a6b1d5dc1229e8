"""The study left alone: on this host, without Ray, cohort after cohort.

python -m chaos_lib.alone STUDY
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from kdscale.search import Study, load_study, open_ledger, train_teacher
from kdscale.search._cohort_job import Place, reports, threads
from kdscale.search._form import settled_by_ledger
from kdscale.search._queue import CohortQueue
from kdscale.search._sweep import _prepare_teacher
from kdscale.training import Group


def train_alone(path: Path) -> None:
    """Trains the study of a file to its end, in as many processes as a cohort has workers."""
    workers = load_study(path).resources.workers
    if workers == 1:
        _train(path, Group())
        return
    with TemporaryDirectory() as folder:
        spawn(_work, args=(path, f"file://{folder}/rendezvous", workers), nprocs=workers)


def _work(rank: int, path: Path, rendezvous: str, workers: int) -> None:
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=workers)
    _train(path, Group.current(torch.device("cpu")))
    dist.barrier()
    os._exit(0)  # gloo's threads may abort an interpreter that shuts down (pytorch#179291)


def _train(path: Path, group: Group) -> None:
    study = load_study(path)
    threads(study)
    queue, place = _lead(study) if group.rank == 0 else (None, None)
    place = _shared(place, group)
    while (job := _shared(None if queue is None else queue.next(), group)) is not None:
        for report in reports(job, place, group):
            if queue is not None:
                queue.report(report)
        if queue is not None:
            queue.finished(job.cohort)
    assert queue is None or queue.complete


def _lead(study: Study) -> tuple[CohortQueue, Place]:
    ledger = open_ledger(study, create=True)
    for _ in train_teacher(study):
        pass
    teacher = _prepare_teacher(study, ledger, lambda progress: None)
    settled = settled_by_ledger(study, ledger, teacher)
    place = Place(settled, study.folder.absolute(), teacher.absolute(), study.cache_folder)
    return CohortQueue(ledger), place


def _shared(thing: Any, group: Group) -> Any:
    """Returns what the first process has, in all of them."""
    things = [thing]
    if group.size > 1:
        dist.broadcast_object_list(things, src=0)
    return things[0]


if __name__ == "__main__":
    train_alone(Path(sys.argv[1]))
