"""The workers that train one cohort together: one process, or a torch.distributed group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Group:
    """This process's place among the workers of a cohort.

    Attributes:
        rank: Number of this worker, from 0.
        size: Number of workers.
        device: Where this worker computes.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @staticmethod
    def current(device: torch.device) -> Group:
        """Returns the group that torch.distributed has set up, or a group of one."""
        if dist.is_available() and dist.is_initialized():
            return Group(dist.get_rank(), dist.get_world_size(), device)
        return Group(device=device)

    def share(self, indices: Tensor) -> Tensor:
        """Returns this worker's contiguous share of the global batch.

        Every worker gets the same number of samples, so the mean over workers of the mean over
        samples is the mean over the global batch. The study file's rules see to it that the
        batch size is a multiple of the number of workers.
        """
        each = len(indices) // self.size
        return indices[self.rank * each : (self.rank + 1) * each]

    def sum(self, values: Tensor) -> Tensor:
        """Returns the sum over workers of a small tensor; the same bits on every worker.

        On the CPU each element is added up in order of rank, wherever in the tensor it stands.
        """
        if self.size == 1:
            return values
        if self.size == 2 or _sums_on_device():
            dist.all_reduce(values)
            return values
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values)
        return values.copy_(_in_order(parts))

    def start_mean(self, values: Tensor) -> Mean:
        """Starts to replace a flat tensor by its mean over workers, and returns the work.

        On the CPU each element is added up in order of rank, wherever in the tensor it stands.

        Args:
            values: ``[n]``, n a multiple of the number of workers.
        """
        return Mean(values, self.size)

    def agree(self, value: float) -> float:
        """Returns worker 0's value on every worker."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return float(shared.item())

    def hand_out(self, data: bytes | None) -> bytes | None:
        """Returns what worker 0 gives on every worker."""
        if self.size == 1:
            return data
        length = int(self.agree(-1 if data is None else len(data)))
        if length < 0:
            return None
        shared = torch.zeros(length, dtype=torch.uint8, device=self.device)
        if self.rank == 0 and data:
            shared.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(shared, src=0)
        return bytes(shared.cpu().numpy().data)

    def copy_buffers(self, modules: Sequence[nn.Module]) -> None:
        """Gives every worker the buffers (BatchNorm statistics) of worker 0, all in one message."""
        if self.size == 1:
            return
        buffers: dict[torch.dtype, list[Tensor]] = {}
        for module in modules:
            for buffer in module.buffers():
                buffers.setdefault(buffer.dtype, []).append(buffer)
        for same in buffers.values():
            flat = torch.cat([buffer.reshape(-1) for buffer in same])
            dist.broadcast(flat, src=0)
            start = 0
            for buffer in same:
                buffer.copy_(flat[start : start + buffer.numel()].view_as(buffer))
                start += buffer.numel()


class Mean:
    """A mean over workers under way; all workers start, advance and finish theirs in one order.

    Two numbers have one sum, whatever their order. More are sent to the worker that owns their
    place, which adds them up in order of rank and sends the sum to all: gloo's own ring would add
    them in an order that depends on their place, and so on what else is in the tensor.
    """

    def __init__(self, values: Tensor, size: int) -> None:
        self._values = values
        self._received: Tensor | None = None
        if _sums_on_device():
            self._work: Any = dist.all_reduce(values, op=dist.ReduceOp.AVG, async_op=True)
            return
        values.div_(size)
        if size == 2:
            self._work = dist.all_reduce(values, async_op=True)
        else:
            self._received = torch.empty_like(values).view(size, -1)
            self._work = dist.all_to_all_single(self._received.view(-1), values, async_op=True)

    def advance(self) -> None:
        """Waits for the first half of the work and starts the second, if there are two."""
        if self._received is not None:
            self._work.wait()
            total = _in_order(self._received.unbind())
            self._received = None
            self._work = dist.all_gather_into_tensor(self._values, total, async_op=True)

    def finish(self) -> None:
        """Returns when the tensor holds the mean; on a GPU, when later work there will see it."""
        self.advance()
        self._work.wait()


def _in_order(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total


def _sums_on_device() -> bool:
    """Returns whether the workers' tensors are summed by GPUs, in an order of their own."""
    return dist.get_backend() == "nccl"
