"""Gradients over two and three gloo workers: their means, and the same bits in any company."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from kdscale.training import Group
from kdscale.training._reduce import Reducer

from .tasks import assert_same, cohort_of, files_of, members, recipe_with, train

WORKERS = (2, 3)
NAMES = ("kd", "rsd", "deep", "two")
COMPANIES = [*((name,) for name in NAMES), ("kd", "rsd"), NAMES, NAMES[::-1]]
SHAPES = ((3, 5), (7,), (4, 2, 3, 3), (), (11, 13))


def run(rank: int, rendezvous: str, size: int, body: Callable[[Group], Any], folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size)
    torch.save(body(Group.current(torch.device("cpu"))), folder / f"worker-{rank}.pt")
    dist.barrier()
    os._exit(0)  # see test_distributed


def on_workers(size: int, body: Callable[[Group], Any]) -> list[Any]:
    """Returns what each of so many workers returned."""
    with TemporaryDirectory() as other:
        folder = Path(other)
        arguments = (f"{other}/rendezvous", size, body, folder)
        spawn(run, args=arguments, nprocs=size)  # type: ignore[no-untyped-call]
        return [torch.load(folder / f"worker-{r}.pt", weights_only=False) for r in range(size)]


def gradients(rank: int, student: int) -> list[Tensor]:
    """Returns one worker's gradients of a student: of all magnitudes, so that order shows."""
    generator = torch.Generator().manual_seed(100 * student + rank)
    found = []
    for shape in SHAPES:
        noise = torch.randn(shape, generator=generator)
        found.append(noise * 10.0 ** torch.randint(-4, 5, shape, generator=generator))
    return found


def student_of(rank: int, number: int) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in SHAPES]
    kernel = torch.zeros(SHAPES[2]).to(memory_format=torch.channels_last)
    parameters[2] = nn.Parameter(kernel)
    for parameter, gradient in zip(parameters, gradients(rank, number), strict=True):
        parameter.grad = gradient
    return parameters


def reduced(group: Group, numbers: Sequence[int], bucket_bytes: int) -> dict[int, list[Tensor]]:
    students = [student_of(group.rank, number) for number in numbers]
    reducer = Reducer(students, [False] * len(students), group, bucket_bytes)
    for _ in range(2):  # as in two steps: nothing of the first is left in the second
        for place, number in enumerate(numbers):
            for parameter, gradient in zip(
                students[place], gradients(group.rank, number), strict=True
            ):
                parameter.grad = gradient
            reducer.add(place)
        reducer.finish()
    assert students[0][2].grad is not None
    assert students[0][2].grad.stride() == students[0][2].stride()
    return {
        number: [p.grad.clone() for p in student if p.grad is not None]
        for number, student in zip(numbers, students, strict=True)
    }


def in_every_company(group: Group) -> list[dict[int, list[Tensor]]]:
    orders = ([0], [1], [2], [3], [0, 1], [3, 2, 1, 0], [0, 1, 2, 3])
    return [reduced(group, order, size) for order in orders for size in (1, 700, 2**20)]


def skipping(group: Group) -> list[list[float | None]]:
    """Two students of three parameters: worker 0 alone has the first, nobody the second."""
    students = [[nn.Parameter(torch.zeros(2)) for _ in range(3)] for _ in range(2)]
    reducer = Reducer(students, [True, False], group)
    for place, parameters in enumerate(students):
        if group.rank == 0 or place == 1:
            parameters[0].grad = torch.ones(2)
        parameters[2].grad = torch.full((2,), float(group.rank))
        reducer.add(place)
    reducer.finish()
    return [[None if p.grad is None else float(p.grad[0]) for p in s] for s in students]


def trained(folder: Path, group: Group) -> list[dict[str, Any]]:
    """Returns, by company, each trial's rows and (from worker 0) its files."""
    found = []
    recipe = recipe_with(batch_size=12 * group.size)
    for number, company in enumerate(COMPANIES):
        trials = members(folder / str(number), *company, recipes=dict.fromkeys(company, recipe))
        outcomes = train(cohort_of(trials, epochs=1), group)
        dist.barrier()
        found.append({m.name: (outcomes[m.name].rows, files_of(m)) for m in trials})
    return found


@pytest.mark.slow
@pytest.mark.parametrize("size", WORKERS)
def test_a_gradients_bits_do_not_depend_on_its_bucket(size: int) -> None:
    workers = on_workers(size, in_every_company)
    expected = {}
    for number in range(4):
        parts = [[g / size for g in gradients(rank, number)] for rank in range(size)]
        totals = parts[0]
        for part in parts[1:]:
            totals = [total + one for total, one in zip(totals, part, strict=True)]
        expected[number] = totals
    for found in workers:
        for company in found:
            for number, means in company.items():
                for mean, wanted in zip(means, expected[number], strict=True):
                    assert torch.equal(mean, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("size", WORKERS)
def test_a_gradient_that_no_worker_has_stays_none(size: int) -> None:
    mean = (size - 1) / 2
    for skips, learns in on_workers(size, skipping):
        assert skips == [pytest.approx(1 / size), None, mean]
        assert learns == [1.0, None, mean]


@pytest.mark.slow
@pytest.mark.parametrize("size", WORKERS)
def test_a_trial_has_the_same_bits_in_every_cohort_of_several_workers(
    size: int, tmp_path: Path
) -> None:
    workers = on_workers(size, partial(trained, tmp_path))
    assert_same([rows_of(found) for found in workers[0]], [rows_of(f) for f in workers[-1]])
    alone: dict[str, Any] = {}
    for company in workers[0]:
        for name, result in company.items():
            assert_same(result, alone.setdefault(name, result))
    assert set(alone) == set(NAMES)


def stacked(folder: Path, group: Group) -> list[dict[str, Any]]:
    """Returns each trial's rows under the loop and stacked, one of them beside the stack."""
    found = []
    for executor in ("loop", "grouped"):
        recipe = recipe_with(batch_size=96, executor=executor)
        names = ("simkd", "kd", "rsd")
        trials = members(folder / executor, *names, recipes=dict.fromkeys(names, recipe))
        outcomes = train(cohort_of(trials, epochs=2), group)
        found.append({name: list(outcomes[name].rows) for name in names})
    return found


@pytest.mark.slow
def test_stacked_students_of_two_workers_train_as_one_by_one(tmp_path: Path) -> None:
    first, second = on_workers(2, partial(stacked, tmp_path))
    assert first == second
    for name, rows in first[0].items():
        for row, other in zip(rows, first[1][name], strict=True):
            assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)


def rows_of(company: dict[str, Any]) -> dict[str, Any]:
    return {name: rows for name, (rows, _) in company.items()}
