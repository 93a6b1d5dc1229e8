"""Every method under two workers: the numbers of one, or the authors' own if a file wants them."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from kdscale.losses import METHODS, PairShapes, TermConfig
from kdscale.models import create_model
from kdscale.training import Cohort, Group, Member, ModelSpec, train_cohort

from .tasks import RECIPE, STUDENT, VIT, Outcome, data, follow, teacher
from .test_every_method import ACROSS, SMALL, TRAINABLE

WORKERS = 2
EPOCHS = 2
LONE = "rsd-per-worker"


def cohort(folder: Path, model: ModelSpec) -> Cohort:
    """Returns a cohort with a trial of every method that serves a student of this kind."""
    student = create_model(model.model, 100, args=model.args, seed=0).shapes
    shapes = PairShapes(student, teacher().shapes, RECIPE.batch_size, data().train.labels)
    terms = []
    for name in TRAINABLE:
        given = SMALL.get(name, {}) | ({} if model is STUDENT else ACROSS.get(name, {}))
        method = METHODS[name]
        if not method.refusal(shapes, method.complete(given)):
            # A small weight: rounding grows with the gradient, from step to step.
            terms.append(TermConfig(name, name, 1e-3 * method.weight, given))
    terms.append(TermConfig(LONE, "rsd", 0.1, per_worker=True))
    members = tuple(Member(t.name, 1.0, (t,), RECIPE, folder / t.name) for t in terms)
    return Cohort(model, members, 5, EPOCHS)


def run(folder: Path, group: Group) -> dict[str, dict[str, Outcome]]:
    found = {}
    for kind, model in (("transformer", VIT), ("convolutional", STUDENT)):
        training = train_cohort(cohort(folder / kind, model), data(), teacher(), group)
        found[kind] = follow(training)
    return found


def work(rank: int, rendezvous: str, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=WORKERS
    )
    told = run(folder, Group.current(torch.device("cpu")))
    torch.save(told, folder / f"worker-{rank}.pt")
    dist.barrier()
    os._exit(0)  # see test_distributed


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("workers")
    with TemporaryDirectory() as other:
        spawn(work, args=(f"{other}/rendezvous", folder), nprocs=WORKERS)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"worker-{r}.pt", weights_only=False) for r in range(WORKERS)]


@pytest.mark.slow
def test_every_method_trains_and_both_workers_agree(workers: list[Any]) -> None:
    first, second = workers
    assert first == second
    assert {outcome.status for kind in first.values() for outcome in kind.values()} == {"done"}
    assert set(first["convolutional"]) == {*TRAINABLE, LONE}
    assert len(first["transformer"]) > 30


@pytest.mark.slow
def test_without_batch_statistics_the_losses_are_those_of_one_worker(
    workers: list[Any], tmp_path: Path
) -> None:
    alone = follow(train_cohort(cohort(tmp_path, VIT), data(), teacher(), Group()))
    off = {}
    for name, outcome in workers[0]["transformer"].items():
        for row, wanted in zip(outcome.rows, alone[name].rows, strict=True):
            parts = [part for part in row if part.startswith("train_") and "acc" not in part]
            assert len(parts) == 3
            worst = max(abs(row[p] - wanted[p]) / max(abs(wanted[p]), 1e-3) for p in parts)
            off[name] = max(off.get(name, 0.0), worst)
    assert {name for name, worst in off.items() if worst > 1e-3} == {LONE}
