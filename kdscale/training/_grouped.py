"""A CNN's layers with K students' channels side by side."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.models import Network


def grouped(
    network: Network, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> Network:
    """Returns a network whose forward pass is that of K like networks, channels side by side.

    Its code is the network's own; every layer with parameters is replaced by one over K times the
    channels, ``[B, K * C, ...]``. Whether the code keeps the networks apart, only trying can tell.

    Args:
        network: One of the networks.
        parameters: Their parameters by name, ``[K, ...]``.
        buffers: Their buffers by name, ``[K, ...]``.

    Raises:
        ValueError: If a module that is no plain convolution, BatchNorm or linear layer has
            parameters or buffers of its own.
    """
    with torch.no_grad():
        wide = copy.deepcopy(network)
    numbers = {**parameters, **buffers}
    for name, module in list(wide.named_modules()):
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        if not own:
            continue
        state = {key: numbers[f"{name}.{key}".lstrip(".")] for key, _ in own}
        if isinstance(layer := _grouped_layer(module, state), str):
            raise ValueError(f"{name or 'the network'}: {layer}")
        parent, _, child = name.rpartition(".")
        wide.get_submodule(parent).register_module(child, layer)
    return wide


def _grouped_layer(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module | str:
    """Returns a layer for K students, or why there is none."""
    if type(module) is nn.Conv2d and module.padding_mode == "zeros":
        return GroupedConv2d(module, state["weight"], state.get("bias"))
    if type(module) is nn.Linear:
        return GroupedLinear(module, state["weight"], state.get("bias"))
    if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d) and len(state) == 5:
        norm = cast("nn.BatchNorm2d", module)
        if norm.momentum is not None:
            return GroupedBatchNorm(norm, state)
    return f"a {type(module).__name__} has no form for several students"


class _Grouped(nn.Module):
    """Holds tensors that belong to a `Stack`, and so are no parameters of its own."""

    def __init__(self, channels: int, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.channels = channels
        self.stacked = (weight, bias)
        self.count = len(weight)

    @property
    def weight(self) -> Tensor:
        """The weights, one student's after the other's."""
        return self.stacked[0].flatten(0, 1)

    @property
    def bias(self) -> Tensor | None:
        """The biases, one student's after the other's; None without."""
        return None if self.stacked[1] is None else self.stacked[1].flatten(0, 1)

    def is_shared(self, x: Tensor) -> bool:
        """Returns whether the input is the same for all students, as images are.

        Raises:
            ValueError: If it is neither that nor one input for each student.
        """
        if x.shape[1] not in (self.channels, self.count * self.channels):
            raise ValueError(f"{x.shape[1]} channels for {self.count} x {self.channels}")
        return self.count > 1 and x.shape[1] == self.channels


class GroupedConv2d(_Grouped):
    """K convolutions as one grouped convolution; over shared images, as one of more filters."""

    def __init__(self, layer: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(layer.in_channels, weight, bias)
        self.layer = (layer.stride, layer.padding, layer.dilation, layer.groups)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``[B, K * O, H', W']`` of ``[B, K * C, H, W]`` or of shared ``[B, C, H, W]``."""
        stride, padding, dilation, groups = self.layer
        if self.is_shared(x) and groups == 1:
            return F.conv2d(x, self.weight, self.bias, stride, padding, dilation)
        x = x.repeat(1, self.count, 1, 1) if self.is_shared(x) else x
        return F.conv2d(x, self.weight, self.bias, stride, padding, dilation, self.count * groups)


class GroupedBatchNorm(_Grouped):
    """K BatchNorms as one over K times the channels; its statistics are the students' own."""

    def __init__(self, layer: nn.BatchNorm1d | nn.BatchNorm2d, state: Mapping[str, Tensor]) -> None:
        super().__init__(layer.num_features, state["weight"], state["bias"])
        self.statistics = (state["running_mean"], state["running_var"])
        self.steps = state["num_batches_tracked"]
        self.momentum, self.eps = layer.momentum, layer.eps

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``[B, K * C, ...]`` of ``[B, K * C, ...]`` or of shared ``[B, C, ...]``."""
        x = torch.cat([x] * self.count, dim=1) if self.is_shared(x) else x
        self.steps.add_(1)
        mean, variance = (part.view(-1) for part in self.statistics)
        assert self.momentum is not None
        return F.batch_norm(
            x, mean, variance, self.weight, self.bias, True, self.momentum, self.eps
        )


class GroupedLinear(_Grouped):
    """K linear layers as one batched product."""

    def __init__(self, layer: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(layer.in_features, weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``[B, K * O]`` of ``[B, K * D]`` or of shared ``[B, D]``."""
        weight, bias = self.stacked
        if self.is_shared(x):
            return F.linear(x, self.weight, self.bias)
        inputs = x.view(len(x), self.count, -1).transpose(0, 1)
        outputs = torch.bmm(inputs, weight.transpose(1, 2))
        if bias is not None:
            outputs = outputs + bias.to(outputs.dtype).unsqueeze(1)
        return outputs.transpose(0, 1).flatten(1)
