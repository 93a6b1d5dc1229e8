"""Two workers with clocks of their own stop at the same steps: the first one's clock decides."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from kdscale.training import Group, train_timed_cohort

from .tasks import data, follow, teacher
from .test_timed import SECONDS, Ticks, timed

WORKERS = 2


def work(rank: int, rendezvous: str, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=WORKERS
    )
    group = Group.current(torch.device("cpu"))
    cohort = timed(folder, "kd", "undistilled")
    clock = Ticks(seed=rank)
    outcomes = follow(train_timed_cohort(cohort, data(), teacher(), group, clock=clock))
    torch.save(outcomes, folder / f"worker-{rank}.pt")
    dist.barrier()
    os._exit(0)  # see test_distributed


@pytest.mark.slow
def test_workers_stop_at_the_same_steps_within_the_budget(tmp_path: Path) -> None:
    with TemporaryDirectory() as other:
        spawn(work, args=(f"{other}/rendezvous", tmp_path), nprocs=WORKERS)  # type: ignore[no-untyped-call]
    first, second = (
        torch.load(tmp_path / f"worker-{rank}.pt", weights_only=False) for rank in range(WORKERS)
    )
    agreed = ("epoch", "lr", "steps", "compute_seconds", "train_loss", "val_accuracy")

    def shared(outcomes: dict[str, Any]) -> dict[str, Any]:
        return {n: [[row[key] for key in agreed] for row in o.rows] for n, o in outcomes.items()}

    assert shared(first) == shared(second)
    for outcome in first.values():
        assert outcome.status == "done"
        assert outcome.rows[-1]["compute_seconds"] == pytest.approx(SECONDS, rel=0.01)
