"""The global batch on every worker, with gradients: for methods that look across the batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from kdscale.outputs import Need, Outputs, numbers_of


def gather_batch(x: Tensor) -> Tensor:
    """Returns the workers' tensors joined along the batch, in order of rank; ``x`` without DDP.

    If every worker computes the whole loss from the result and DDP averages the parameter
    gradients over the workers, they equal those of one process on the whole batch: each worker's
    slice receives the sum of the workers' (equal) gradients, W of them, and the average takes W
    out again. Parameters of the loss itself get the whole gradient on each worker, with or
    without averaging.

    Args:
        x: This worker's part ``[B / W, ...]``, of one shape on all W workers.
    """
    if _alone():
        return x
    gathered: Tensor = _GatherBatch.apply(x)
    return gathered


class _GatherBatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        # all_reduce works in place; the incoming gradient may belong to someone else.
        grad = grad_outputs[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


def gather_rows(x: Tensor) -> Tensor:
    """Returns the workers' labels or numbers joined along the batch; nothing to differentiate."""
    if _alone():
        return x
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def gather_outputs(outputs: Outputs, needs: frozenset[Need]) -> Outputs:
    """Returns the outputs of the global batch: those of ``needs``, and the logits.

    Args:
        outputs: This worker's outputs.
        needs: What to gather; other parts with a batch axis are left out.
    """
    if _alone():
        return outputs

    def gather(name: Need, part: Tensor | None) -> Tensor | None:
        return gather_batch(part) if part is not None and name in needs else None

    return replace(
        outputs,
        logits=gather_batch(outputs.logits),
        embedding=gather("embedding", outputs.embedding),
        map=gather("map", outputs.map),
        class_maps=gather("class_maps", outputs.class_maps),
        stages=_gather_stages("stage", outputs.stages, needs),
        preactivations=_gather_stages("preactivation", outputs.preactivations, needs),
    )


def _gather_stages(
    kind: str, parts: Mapping[int, Tensor], needs: frozenset[Need]
) -> Mapping[int, Tensor]:
    return {number: gather_batch(parts[number]) for number in sorted(numbers_of(kind, needs))}


def worker_count() -> int:
    """Returns the number of workers of the torch.distributed group, 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _alone() -> bool:
    return worker_count() == 1
