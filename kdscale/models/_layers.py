"""Layers that several families of the zoo share."""

from __future__ import annotations

from typing import Protocol, cast

import torch.nn.functional as F
from torch import Tensor, nn


class EndsInRelu(Protocol):
    """A stage, or the last part of one, that can hand out what its last ReLU takes.

    An nn.Module. The name is of the rule: a linear bottleneck ends in no ReLU and hands out its
    output.
    """

    @property
    def norm(self) -> nn.BatchNorm2d | None:
        """The BatchNorm just before that ReLU; None if there is not one for all channels."""

    def with_preactivation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the features, and these before that ReLU, which writes into neither."""


class BlockStage(nn.Sequential):
    """Blocks in a row, the last one an `EndsInRelu`."""

    @property
    def norm(self) -> nn.BatchNorm2d | None:
        """The BatchNorm just before the last ReLU."""
        return cast("EndsInRelu", self[-1]).norm

    def with_preactivation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the stage's features and the features before their last ReLU."""
        *blocks, last = self
        for block in blocks:
            x = block(x)
        return cast("EndsInRelu", last).with_preactivation(x)


class ReluStage(nn.Sequential):
    """Layers in a row, the last two a BatchNorm and a ReLU."""

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The BatchNorm just before the last ReLU."""
        return cast("nn.BatchNorm2d", self[-2])

    def with_preactivation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the stage's features and the features before their last ReLU."""
        *layers, _ = self
        for layer in layers:
            x = layer(x)
        return F.relu(x), x  # the stage's own ReLU would write into x


class Neck(nn.Sequential):
    """Layers from the last stage to the map, and last the pooling of the map to the embedding."""

    def map(self, x: Tensor) -> Tensor:
        """Returns the map ``[B, D, H, W]`` of the last stage's features."""
        *layers, _ = self
        for layer in layers:
            x = layer(x)
        return x

    def pool(self, map: Tensor) -> Tensor:
        """Returns the embedding ``[B, D]``, the map's mean over positions."""
        embedding: Tensor = self[-1](map)
        return embedding


def conv_norm(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Returns a convolution without bias, padded to keep the size, and its BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out_channels),
    )


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> ReluStage:
    """Returns ``conv_norm`` followed by a ReLU in place."""
    return ReluStage(
        *conv_norm(in_channels, out_channels, kernel, stride=stride, groups=groups),
        nn.ReLU(inplace=True),
    )


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Returns a residual block's shortcut: 1x1 convolution and BatchNorm, or the identity."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return conv_norm(in_channels, out_channels, 1, stride=stride)


def global_pool() -> nn.Sequential:
    """Returns a module that averages maps ``[B, C, H, W]`` of any size to ``[B, C]``."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


def he_initialise(module: nn.Module) -> None:
    """Initialises all convolutions by He's rule with fan-out, their biases with zero."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
