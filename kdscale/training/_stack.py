"""Networks of one architecture with their numbers in common tensors, a slice for each network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kdscale.models import Network
from kdscale.outputs import Need
from kdscale.training._grouped import grouped
from kdscale.training._teach_parts import parts_of

Kind = Literal["grouped", "vmap"]


class Stack:
    """Parameters and buffers of K like networks as tensors ``[K, ...]``.

    The networks' own parameters and buffers become slices of these, so that optimisers, metrics,
    evaluation and checkpoints see each network as if it stood alone.

    Args:
        networks: Of one architecture, on one device.

    Attributes:
        parameters: By name; those that learn are leaves of their own.
        buffers: By name.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self._networks = networks
        learning = {n: p.requires_grad for n, p in networks[0].named_parameters()}
        self.parameters = {
            name: together.requires_grad_(learning[name])
            for name, together in self._joined([dict(n.named_parameters()) for n in networks])
        }
        self.buffers = dict(self._joined([dict(n.named_buffers()) for n in networks]))

    def hand_out_gradients(self) -> None:
        """Gives each network its slice of the gradients, on top of what it has already."""
        for name, together in self.parameters.items():
            gradient, together.grad = together.grad, None
            if gradient is None:
                continue
            for number, network in enumerate(self._networks):
                parameter = network.get_parameter(name)
                own = gradient[number]
                parameter.grad = own if parameter.grad is None else parameter.grad + own

    def release(self) -> None:
        """Gives each network numbers of its own."""
        for network in self._networks:
            for tensor in (*network.parameters(), *network.buffers()):
                tensor.data = tensor.data.clone()

    @staticmethod
    def _joined(named: Sequence[Mapping[str, Tensor]]) -> list[tuple[str, Tensor]]:
        joined = []
        for name in named[0]:
            parts = [tensors[name].data for tensors in named]
            together = _stacked(parts)
            for tensors, own in zip(named, together.unbind(), strict=True):
                tensors[name].data = own
            joined.append((name, together))
        return joined


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Returns tensors as one, in the memory format that each of them has."""
    first = parts[0]
    last = first.ndim == 4 and first.is_contiguous(memory_format=torch.channels_last)
    if last and not first.is_contiguous():
        return torch.stack([part.permute(0, 2, 3, 1) for part in parts]).permute(0, 1, 4, 2, 3)
    return torch.stack(list(parts))


class Engine(Protocol):
    """Computes the outputs of stacked networks.

    Attributes:
        axis: Where in an output's shape the networks lie.
    """

    axis: int

    def forward(self, images: Tensor, needs: frozenset[Need]) -> dict[Need, Tensor]:
        """Returns what ``needs`` names of all networks, each with an axis for the networks.

        Args:
            images: Normalised images ``[B, 3, H, W]``, the same for all networks.
            needs: Outputs that are tensors.
        """


class Grouped:
    """K convolutional networks as one of K times the channels, with grouped convolutions."""

    axis = 1

    def __init__(self, networks: Sequence[Network], stack: Stack) -> None:
        self._count = len(networks)
        self._wide = grouped(networks[0], stack.parameters, stack.buffers).train()

    def forward(self, images: Tensor, needs: frozenset[Need]) -> dict[Need, Tensor]:
        """Returns the outputs ``[B, K, C, ...]``."""
        parts = parts_of(self._wide.outputs(images, needs))
        return {n: p.reshape(len(p), self._count, -1, *p.shape[2:]) for n, p in parts.items()}


class _Parts(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, needs: frozenset[Need]) -> dict[Need, Tensor]:
        return parts_of(self.network.outputs(images, needs))


class Vmapped:
    """K networks as one whose every operation has one more axis, by `torch.func.vmap`."""

    axis = 0

    def __init__(self, networks: Sequence[Network], stack: Stack) -> None:
        self._one = _Parts(networks[0])
        self._stack = stack

    def forward(self, images: Tensor, needs: frozenset[Need]) -> dict[Need, Tensor]:
        """Returns the outputs ``[K, B, ...]``."""

        def outputs(state: dict[str, Tensor]) -> dict[Need, Tensor]:
            named = {f"network.{name}": tensor for name, tensor in state.items()}
            parts: dict[Need, Tensor] = functional_call(self._one, named, (images, needs))
            return parts

        state = self._stack.parameters | self._stack.buffers
        # Same random numbers for all, as students of one seed draw when they run one by one.
        found: dict[Need, Tensor] = torch.func.vmap(outputs, randomness="same")(state)
        return found


def make_engine(kind: Kind, networks: Sequence[Network], stack: Stack) -> Engine:
    """Returns the engine of a kind over stacked networks.

    Raises:
        ValueError: If a network of this architecture cannot be stacked so, with the reason.
    """
    return Grouped(networks, stack) if kind == "grouped" else Vmapped(networks, stack)
