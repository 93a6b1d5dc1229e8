"""The workers that train one cohort together: one process, or a torch.distributed group."""

from __future__ import annotations

from dataclasses import dataclass, field

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
        """Returns the sum over workers of a small tensor; the same bits on every worker."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def agree(self, value: float) -> float:
        """Returns worker 0's value on every worker."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return float(shared.item())

    def copy_buffers(self, module: nn.Module) -> None:
        """Gives every worker the buffers (BatchNorm statistics) of worker 0."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)
