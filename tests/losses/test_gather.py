"""Two gloo processes under DDP must give the numbers of one process with the whole batch."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdscale.losses import Objective, PairShapes, TermConfig, gather_batch
from kdscale.outputs import Outputs, OutputShapes

WORLD_SIZE = 2
TERMS = [
    TermConfig("wide", "rsd", 1.0, {"kappa": 0.1, "lambda": 1.0}),  # D > B
    TermConfig("logits", "rsd", 0.5, {"kappa": 0.1, "lambda": 1.0, "variant": "logits"}),  # D < B
    TermConfig("soft", "kd", 0.9, {}),
]


class Student(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, images: torch.Tensor) -> Outputs:
        embedding = torch.tanh(self.body(images))
        return Outputs(self.head(embedding), embedding)


def train_step(rank: int, world_size: int) -> dict[str, torch.Tensor]:
    """Returns values, and gradients of student and objective, of one step on this rank's share."""
    generator = torch.Generator().manual_seed(0)

    def share(*shape: int) -> torch.Tensor:
        whole = torch.randn(shape, generator=generator, dtype=torch.float64)
        return whole[rank::world_size]

    images, teacher = share(8, 5), Outputs(share(8, 4), share(8, 12))
    target = (torch.arange(8) % 4)[rank::world_size]
    torch.manual_seed(1)
    student = Student().double()
    shapes = PairShapes(OutputShapes(4, 6), OutputShapes(4, 12), batch_size=8)
    objective = Objective(1.0, 0.1, TERMS, shapes, seed=0).double()
    wrapped = DistributedDataParallel(student) if world_size > 1 else student
    values = objective(wrapped(images), teacher, target)
    values["loss"].backward()
    result = dict(values)
    for module in (student, objective):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None
            result[f"grad of {name}"] = parameter.grad
    result |= {name: b.double() for name, b in objective.named_buffers()}
    return {name: value.detach().clone() for name, value in result.items()}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD_SIZE
    )
    torch.save(train_step(rank, WORLD_SIZE), f"{folder}/{rank}.pt")
    dist.barrier()
    # DDP keeps gloo's threads alive past destroy_process_group; one that lets go of its last work
    # while the interpreter shuts down aborts the process (pytorch/pytorch#179291).
    os._exit(0)


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=WORLD_SIZE)
    alone = train_step(0, 1)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD_SIZE)]
    local_means = {"loss", "ce", "soft"}
    assert len(alone) > 12
    for name, expected in alone.items():
        if name in local_means:
            torch.testing.assert_close(torch.stack([r[name] for r in ranks]).mean(), expected)
            continue
        for result in ranks:
            torch.testing.assert_close(result[name], expected, rtol=1e-9, atol=1e-12)


def test_without_a_process_group_nothing_is_gathered() -> None:
    x = torch.randn(3, 2)
    assert gather_batch(x) is x
