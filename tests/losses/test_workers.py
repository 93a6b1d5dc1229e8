"""Every method that looks across the batch: two gloo processes against one with the whole batch."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdscale.losses import METHODS, Batch, Objective, TermConfig
from kdscale.losses._objective import _see
from kdscale.outputs import Outputs
from kdscale.records import Value

from .pairs import BATCH_SIZE, hyperparameters_for, parts_of, shapes_for, trial_of, with_parts

WORLD_SIZE = 2
LOCAL = BATCH_SIZE // WORLD_SIZE
COUPLED = [name for name, method in METHODS.items() if method.couples_batch]
COUPLING: Mapping[str, Mapping[str, Value]] = {
    "lskd": {"base": "mlld"},
    "maskd": {"stage_1": 1.0},
}
"""Hyperparameters of methods that do not look across the batch by default."""
Result = Mapping[str, Tensor]
"""Values, gradients and buffers by name."""


class Student(nn.Module):
    """Scales each of its outputs, so that DDP has parameters to average gradients of."""

    def __init__(self, parts: list[Tensor]) -> None:
        super().__init__()
        self.factors = nn.ParameterList(torch.linspace(0.9, 1.1, p[0].numel()) for p in parts)

    def forward(self, parts: list[Tensor]) -> list[Tensor]:
        pairs = zip(parts, self.factors, strict=True)
        return [part * factor.view(part.shape[1:]) for part, factor in pairs]


def share_of(outputs: Outputs, rows: slice) -> Outputs:
    def cut(part: Tensor | None) -> Tensor | None:
        return None if part is None else part.detach()[rows]

    return replace(
        outputs,
        logits=outputs.logits.detach()[rows],
        embedding=cut(outputs.embedding),
        map=cut(outputs.map),
        class_maps=cut(outputs.class_maps),
        stages={k: part.detach()[rows] for k, part in outputs.stages.items()},
        preactivations={k: part.detach()[rows] for k, part in outputs.preactivations.items()},
    )


def batch_of(name: str, rows: slice) -> Batch:
    """Returns the part of the method's random batch that one worker sees."""
    batch = trial_of(name, **COUPLING.get(name, {})).batch
    assert batch.index is not None
    return replace(
        batch,
        student=share_of(batch.student, rows),
        teacher=share_of(batch.teacher, rows),
        target=batch.target[rows],
        index=batch.index[rows],
        student_2=None if batch.student_2 is None else share_of(batch.student_2, rows),
        teacher_2=None if batch.teacher_2 is None else share_of(batch.teacher_2, rows),
    )


def step(name: str, rows: slice, *, per_worker: bool, alone: bool) -> Result:
    """Returns what one step gives on the images ``rows`` of the global batch of eight.

    Args:
        name: The method.
        rows: This worker's images.
        per_worker: The term sees them alone, and the objective builds it for so many.
        alone: There is no other process.
    """
    method = METHODS[name]
    shapes = shapes_for(method, LOCAL if per_worker and alone else BATCH_SIZE)
    hyperparameters = hyperparameters_for(method, **COUPLING.get(name, {}))
    assert method.refusal(shapes, hyperparameters) == ""
    config = TermConfig("it", name, 1.0, hyperparameters, per_worker=per_worker)
    objective = Objective(1.0, 0.0, [config], shapes, seed=0).double()
    batch = batch_of(name, rows)
    parts = parts_of(batch.student)
    if batch.student_2 is not None:
        parts += parts_of(batch.student_2)
    student = Student(parts).double()
    wrapped: nn.Module = student
    if not alone:
        wrapped = DistributedDataParallel(student, find_unused_parameters=True)
    outputs = wrapped(parts)
    for output in outputs:
        output.retain_grad()
    whole = None if alone and not per_worker else BATCH_SIZE
    batch = replace(with_parts(batch, outputs), epoch=100, first=rows.start, whole=whole)
    # Not the objective itself: its cross-entropy would add gradients that are not the method's.
    (built,) = objective._terms
    value = built.term(_see(built, batch))
    value.backward()
    result = {"value": value}
    modules = {"student": student, "objective": objective}
    for owner, module in modules.items():
        for key, parameter in module.named_parameters():
            if parameter.grad is not None:
                result[f"{owner}: grad of {key}"] = parameter.grad
        for key, buffer in module.named_buffers():
            result[f"{owner}: buffer {key}"] = buffer
    for number, output in enumerate(outputs):
        if output.grad is not None:
            result[f"output {number}"] = output.grad
    return {key: value.detach().clone() for key, value in result.items()}


def rows_of(rank: int) -> slice:
    return slice(rank * LOCAL, (rank + 1) * LOCAL)


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD_SIZE
    )
    results: dict[tuple[str, bool], Result | str] = {}
    for name in COUPLED:
        for per_worker in (False, True):
            try:
                found = step(name, rows_of(rank), per_worker=per_worker, alone=False)
                results[name, per_worker] = found
            except Exception:  # one method must not hide the others' results
                results[name, per_worker] = traceback.format_exc()
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    # See test_gather.py: DDP keeps gloo's threads alive past destroy_process_group.
    os._exit(0)


Ranks = list[dict[tuple[str, bool], Result | str]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """Returns what each of two workers found for each method, gathered and per worker."""
    folder = tmp_path_factory.mktemp("workers")
    torch.multiprocessing.spawn(work, args=(str(folder),), nprocs=WORLD_SIZE)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD_SIZE)]


def found_by(results: Mapping[tuple[str, bool], Result | str], name: str, kind: bool) -> Result:
    found = results[name, kind]
    assert not isinstance(found, str), found
    return found


def assert_equal(got: Tensor, expected: Tensor, what: str) -> None:
    scale = expected.double().abs().max().item() if expected.numel() else 0.0
    torch.testing.assert_close(
        got, expected, rtol=1e-8, atol=1e-11 * max(scale, 1e-3), msg=lambda m: f"{what}: {m}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", COUPLED)
def test_two_workers_minimise_the_loss_of_one(name: str, ranks: Ranks) -> None:
    expected = step(name, slice(0, BATCH_SIZE), per_worker=False, alone=True)
    gradients = [key for key in expected if ": grad of " in key]
    assert any(expected[key].abs().sum() > 0 for key in gradients)
    for rank, results in enumerate(ranks):
        got = found_by(results, name, False)
        assert got.keys() == expected.keys()
        for key, want in expected.items():
            if key.startswith("output"):
                # DDP will take the mean over workers of what each one's outputs receive.
                assert_equal(got[key] / WORLD_SIZE, want[rows_of(rank)], key)
            else:
                assert_equal(got[key], want, key)


@pytest.mark.slow
@pytest.mark.parametrize("name", COUPLED)
def test_per_worker_is_the_mean_of_the_workers_own_losses(name: str, ranks: Ranks) -> None:
    own = [step(name, rows_of(rank), per_worker=True, alone=True) for rank in range(WORLD_SIZE)]
    for results, want in zip(ranks, own, strict=True):
        assert_equal(found_by(results, name, True)["value"], want["value"], "value")
    for key in own[0]:
        if key.startswith("student: grad"):
            mean = torch.stack([each[key] for each in own]).mean(0)
            for results in ranks:
                assert_equal(found_by(results, name, True)[key], mean, key)
    together = found_by(ranks[0], name, False)["value"]
    apart = torch.stack([each["value"] for each in own]).mean()
    assert not torch.isclose(together, apart, rtol=1e-6), "it does not look across the batch"


def is_separable(name: str) -> bool:
    """Returns whether a method claims to be a mean over images, whatever they are batched with.

    Methods with an end of their own on the student are tested with that end.
    """
    return not METHODS[name].couples_batch and not METHODS[name].student


@pytest.mark.parametrize("name", METHODS)
def test_an_adaptor_with_batchnorm_looks_across_the_batch(name: str) -> None:
    method = METHODS[name]
    term = method.build(shapes_for(method), hyperparameters_for(method))
    modules = term.modules() if isinstance(term, nn.Module) else ()
    norms = [module for module in modules if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert method.couples_batch or not norms


@pytest.mark.parametrize("name", [name for name in METHODS if is_separable(name)])
def test_what_is_not_gathered_is_a_mean_over_images(name: str) -> None:
    whole = step(name, slice(0, BATCH_SIZE), per_worker=False, alone=True)
    own = [step(name, rows_of(rank), per_worker=True, alone=True) for rank in range(WORLD_SIZE)]
    for key, want in whole.items():
        if key == "value" or ": grad of " in key:
            assert_equal(torch.stack([each[key] for each in own]).mean(0), want, key)
