"""Times the losses beside their straightforward forms and prints a Markdown table.

    python scripts/bench_losses.py [--method ldrld] [--device cuda]

Forward + backward, batch 64, float32, one thread. The two forms take turns of some milliseconds,
and each time is the median of its turns, so that a busy machine disturbs both alike. Memory is
what the forward pass keeps for the backward pass (on CUDA: the peak above the inputs). Kernels
are the operators of both passes without views (on CUDA: the launched kernels).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from plain import FORMS
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

SECONDS_A_CASE, SECONDS_A_TURN, MOST_ROUNDS, FEWEST_ROUNDS = 0.5, 0.005, 50, 3
Step = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time kdscale.losses beside plain forms.")
    parser.add_argument("--method", choices=sorted({form.method for form in FORMS}))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    columns = "ms | plain ms | ratio | MiB | plain MiB | kernels | plain kernels"
    print(f"| method | width | {columns} |\n|---|---|---|---|---|---|---|---|---|")
    for form in FORMS:
        if options.method in (None, form.method):
            for width in form.widths:
                inputs = tuple(part.to(options.device) for part in form.inputs(width))
                inputs[0].requires_grad_()
                row = compare(form.ours, form.plain, inputs)
                print(f"| {form.method} | {form.axis}={width} | {row} |", flush=True)


def compare(
    ours: Callable[..., Tensor], plain: Callable[..., Tensor], inputs: tuple[Tensor, ...]
) -> str:
    """Returns the cells of one row, after checking that the two values agree."""
    losses = [lambda: ours(*inputs), lambda: plain(*inputs)]
    torch.testing.assert_close(losses[0](), losses[1](), rtol=1e-2, atol=1e-4)
    steps: list[Step] = [
        lambda: torch.autograd.grad(ours(*inputs), inputs[0]),
        lambda: torch.autograd.grad(plain(*inputs), inputs[0]),
    ]
    on_gpu = inputs[0].is_cuda
    fast, slow = (1000 * seconds for seconds in interleaved_seconds(steps, wait=on_gpu))
    if on_gpu:
        memory, kernels = [peak_bytes(step) for step in steps], [launches(step) for step in steps]
    else:
        memory, kernels = [saved_bytes(loss) for loss in losses], [operators(s) for s in steps]
    kept = " | ".join(f"{number / 2**20:.3f}" for number in memory)
    counts = " | ".join(str(number) for number in kernels)
    return f"{fast:.2f} | {slow:.2f} | {slow / fast:.1f}x | {kept} | {counts}"


def interleaved_seconds(steps: list[Step], *, wait: bool) -> list[float]:
    """Returns the median seconds of each step."""

    def turn(step: Step, repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        if wait:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / repeats

    for step in steps:
        turn(step, 1)  # the first call of all makes constants and handles
    estimates = [turn(step, 1) for step in steps]
    repeats = [max(1, int(SECONDS_A_TURN / estimate)) for estimate in estimates]
    seconds_a_round = sum(n * estimate for n, estimate in zip(repeats, estimates, strict=True))
    rounds = min(MOST_ROUNDS, max(FEWEST_ROUNDS, int(SECONDS_A_CASE / seconds_a_round)))
    turns = [[turn(*job) for job in zip(steps, repeats, strict=True)] for _ in range(rounds)]
    return [statistics.median(times) for times in zip(*turns, strict=True)]


def saved_bytes(loss: Callable[[], Tensor]) -> int:
    """Returns the bytes of all storages that autograd saves in the forward pass."""
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage  # held here, so that no address is used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss()
    return sum(storage.nbytes() for storage in storages.values())


def peak_bytes(step: Step) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - before


FREE = (torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten._unsafe_view)


class CountOperators(TorchDispatchMode):
    """Counts the operators that compute something."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not (func.is_view or func.overloadpacket in FREE)
        return func(*args, **(kwargs or {}))


def operators(step: Step) -> int:
    with CountOperators() as counter:
        step()
    return counter.count


def launches(step: Step) -> int:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    on_gpu = torch.autograd.DeviceType.CUDA  # type: ignore[attr-defined]
    return sum(event.device_type == on_gpu for event in profile.events())


if __name__ == "__main__":
    main()
