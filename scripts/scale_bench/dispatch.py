"""The queue of a large cluster under a virtual clock: what each of its calls costs.

    python -m scale_bench.dispatch NODES TRIALS COHORT FOLDER

Each node has eight lanes. Cohorts take as long as a random number says, reports come epoch by
epoch, and only the queue's own seconds are real. Trials are halved at two rungs, so cohorts are
packed anew all the time. The record is in memory, so that the table shows the queue and not a disk.
"""

from __future__ import annotations

import heapq
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from optuna.storages import InMemoryStorage

from kdscale.search import Ledger
from kdscale.search._cohort_job import Job
from kdscale.search._queue import CohortQueue
from scale_bench.study import noop_study

LANES_OF_A_NODE = 8
EPOCHS = 8


def main(nodes: int, trials: int, cohort: int, folder: Path) -> dict[str, float]:
    """Returns the seconds of each call on average and at most, and the virtual time."""
    rungs = "rungs: {eta: 2, first: 2}"
    study = noop_study(folder, trials, cohort, epochs=EPOCHS, rungs=rungs)
    lanes, draw = nodes * LANES_OF_A_NODE, random.Random(0)
    spent: dict[str, list[float]] = {"next": [], "report": [], "finished": []}
    began = time.perf_counter()
    queue = CohortQueue(Ledger(study, InMemoryStorage()))
    queue.open(lanes)
    planned = time.perf_counter() - began

    def timed(name: str, call: Any, *how: Any) -> Any:
        start = time.perf_counter()
        found = call(*how)
        spent[name].append(time.perf_counter() - start)
        return found

    ends: list[tuple[float, int, Job, int]] = []
    now = busy = 0.0
    turn = free = 0
    free = lanes
    while True:
        while free and (job := timed("next", queue.next)) is not None:
            first = len(queue.ledger.trial(next(iter(job.members))).history) + 1
            turn += 1
            heapq.heappush(ends, (now + draw.uniform(50.0, 70.0), turn, job, first))
            free -= 1
        if not ends:
            break
        now, _, job, epoch = heapq.heappop(ends)
        timed("report", queue.report, _report(job, epoch, draw))
        busy += 1
        if epoch < job.until:
            turn += 1
            heapq.heappush(ends, (now + draw.uniform(50.0, 70.0), turn, job, epoch + 1))
            continue
        timed("finished", queue.finished, job.cohort)
        free += 1
    assert queue.complete
    found = {f"{name}_mean": sum(all_) / len(all_) for name, all_ in spent.items()}
    found |= {f"{name}_most": max(all_) for name, all_ in spent.items()}
    return found | {
        "plan": planned,
        "all": planned + sum(map(sum, spent.values())),
        "virtual_hours": now / 3600,
        "cohorts": float(len(spent["finished"])),
    }


def _report(job: Job, epoch: int, draw: random.Random) -> dict[str, Any]:
    status = "done" if epoch == EPOCHS else "running"
    progress = [
        {
            "name": name,
            "status": status,
            "rows": [{"epoch": epoch, "val_accuracy": draw.random(), "val_loss": 1.0}],
        }
        for name in job.members
    ]
    return {"cohort": job.cohort, "progress": progress}


if __name__ == "__main__":
    nodes, trials, cohort, folder = sys.argv[1:]
    print(json.dumps(main(int(nodes), int(trials), int(cohort), Path(folder))))
