"""Two gloo workers behind one teacher cache: each looks up and stores its share of the batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from kdscale.losses import TermConfig
from kdscale.training import Cohort, Teaching, train_cohort
from kdscale.training._teach import Counts

from .tasks import (
    EPOCHS,
    TERMS,
    assert_same,
    behind,
    cohort_of,
    data,
    files_of,
    follow,
    members,
    must_not_load,
    teacher,
)
from .test_distributed import WORKERS, join, leave, start

SHARE = EPOCHS * 3 * 32 // WORKERS
"""Images that a worker sees: three batches of 32 an epoch."""


def cohort(folder: Path) -> Cohort:
    terms = TERMS | {"hint": (TermConfig("fitnet", "fitnet", 0.1),)}
    named = members(folder, "kd", "hint", "rsd")
    return cohort_of(tuple(replace(member, terms=terms[member.name]) for member in named))


def work(rank: int, rendezvous: str, folder: Path) -> None:
    group = join(rank, rendezvous)
    counts: list[Counts] = []
    close = Teaching.close

    def spied(self: Teaching) -> None:
        counts.append(self.counts)
        close(self)

    sources = {
        "live": teacher(),
        "cold": behind(folder / "cache"),
        "warm": behind(folder / "cache", must_not_load),
    }
    told: dict[str, Any] = {}
    with mock.patch.object(Teaching, "close", spied):
        for name, source in sources.items():
            told[name] = follow(train_cohort(cohort(folder / name), data(), source, group))
    torch.save((told, counts), folder / f"worker-{rank}.pt")
    leave()


@pytest.mark.slow
def test_each_worker_looks_up_and_stores_its_share(tmp_path: Path) -> None:
    workers = start(work, tmp_path)
    for told, counts in workers:
        live, cold, warm = counts
        assert live == Counts()
        assert cold.hits + cold.misses == SHARE
        assert cold.misses > SHARE // 2
        assert warm == Counts(hits=SHARE)
        assert told["live"] == told["cold"] == told["warm"]
        assert Counter(outcome.status for outcome in told["live"].values()) == {"done": 3}
    for name in ("cold", "warm"):
        live, other = cohort(tmp_path / "live").members, cohort(tmp_path / name).members
        for one, two in zip(live, other, strict=True):
            assert_same(files_of(two), files_of(one))
