"""Which ways to stack a network are right, and which is fast: both found by trying on copies."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kdscale.models import Network
from kdscale.outputs import LOGITS, Need
from kdscale.training._stack import Kind, Stack, make_engine
from kdscale.training._teach_parts import parts_of

WHOLE: frozenset[Need] = frozenset({"class_maps", "classifier", "tail"})
"""Needs that are not the network's outputs for images, but made of these and its weights."""

_TRIED = 2
_IMAGES = 4
_SPREAD = 0.1
_ROUNDING = 1e-5
"""What code that computes in float32 may lose of the float64 around it."""

_WARM_UP_STEPS = 3
_TIMED_STEPS = 5


def refusal(kind: Kind, network: Network, images: Tensor) -> str:
    """Returns why networks like this one cannot be stacked; empty if they can.

    Copies with unlike weights are run stacked and one by one, in float64, and must have the same
    outputs, gradients and buffers: so code that mixes the channels of different networks shows.

    Args:
        kind: How they would be stacked.
        network: The network; it stays as it is.
        images: Normalised images of the task ``[B, 3, H, W]``.
    """
    if any(isinstance(module, nn.SyncBatchNorm) for module in network.modules()):
        return "SyncBatchNorm has no form for several students"
    images = images[:_IMAGES].double()
    generator = torch.Generator().manual_seed(0)
    needs = frozenset(network.offers - WHOLE)
    try:
        networks = [_varied(network, generator) for _ in range(_TRIED)]
        others = [copy.deepcopy(one) for one in networks]
        stack = Stack(others)
        with _own_randomness(images.device):
            engine = make_engine(kind, others, stack)
            together = engine.forward(images, needs)
            _backward(list(together.values()))
            stack.hand_out_gradients()
    except Exception as error:  # whatever the network's own code raises
        return f"{error}".split("\n")[0] or type(error).__name__
    for number, (one, other) in enumerate(zip(networks, others, strict=True)):
        with _own_randomness(images.device):
            parts = parts_of(one.outputs(images, needs))
            _backward(list(parts.values()))
        for name, part in parts.items():
            if not _close(together[name].select(engine.axis, number), part):
                return f"stacked, its {name} is another"
        (gradients, buffers), (gradients_2, buffers_2) = _numbers(one), _numbers(other)
        if not _close(gradients_2, gradients):
            return "stacked, its gradients are others"
        if not _close(buffers_2, buffers):
            return "stacked, its buffers are others after a step"
    return ""


def seconds_of_a_step(
    kind: Kind | None, networks: Sequence[Network], images: Tensor, *, bf16: bool
) -> float:
    """Returns the seconds of one forward and backward pass of networks; infinite without memory.

    Copies are run, so that nothing of the networks changes.

    Args:
        kind: How to stack them; None to run them one by one.
        networks: The networks.
        images: A batch of normalised images.
        bf16: Whether to run under autocast.
    """
    step: Callable[[], None]
    try:
        with _own_randomness(images.device):
            copies = [copy.deepcopy(network).train() for network in networks]
            if kind is None:
                step = _one_by_one(copies, images, bf16=bf16)
            else:
                step = _together(kind, copies, images, bf16=bf16)
            for _ in range(_WARM_UP_STEPS):
                step()
            _wait_for(images.device)
            started = time.perf_counter()
            for _ in range(_TIMED_STEPS):
                step()
            _wait_for(images.device)
            return (time.perf_counter() - started) / _TIMED_STEPS
    except torch.OutOfMemoryError:
        return math.inf


def _one_by_one(networks: Sequence[Network], images: Tensor, *, bf16: bool) -> Callable[[], None]:
    def step() -> None:
        for network in networks:
            network.zero_grad()
            with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
                logits = network.outputs(images, LOGITS).logits
            _backward([logits])

    return step


def _together(
    kind: Kind, networks: Sequence[Network], images: Tensor, *, bf16: bool
) -> Callable[[], None]:
    stack = Stack(networks)
    engine = make_engine(kind, networks, stack)

    def step() -> None:
        for network in networks:
            network.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            parts = engine.forward(images, LOGITS)
        _backward(list(parts.values()))
        stack.hand_out_gradients()

    return step


def _backward(parts: Sequence[Tensor]) -> None:
    torch.autograd.backward(list(parts), [part.detach() for part in parts])


def _varied(network: Network, generator: torch.Generator) -> Network:
    varied = copy.deepcopy(network).double().train()
    with torch.no_grad():
        for parameter in varied.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(noise.to(parameter.device), alpha=_SPREAD)
            parameter.grad = None
    return varied


def _numbers(network: Network) -> tuple[Tensor, Tensor]:
    """Returns all gradients and all buffers, each flat."""
    gradients = [parameter.grad for parameter in network.parameters()]
    return (
        torch.cat([torch.zeros(0), *(g.cpu().flatten() for g in gradients if g is not None)]),
        torch.cat([torch.zeros(0), *(b.cpu().flatten() for b in network.buffers())]),
    )


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    scale = float(b.detach().abs().max()) if b.numel() else 0.0
    return bool(((a - b).abs() <= _ROUNDING * scale).all())


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Runs its block with the same random numbers each time, and restores the generators."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
