"""ResNet-50 with the stem of CIFAR: a 3x3 convolution that keeps the size, no max-pooling."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.models._layers import (
    BlockStage,
    Neck,
    conv_norm,
    conv_norm_relu,
    global_pool,
    he_initialise,
    projection,
)
from kdscale.models._network import StagedNetwork

_EXPANSION = 4
_STEM_CHANNELS = 64


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut, ReLU after the sum."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = channels * _EXPANSION
        self.body = nn.Sequential(
            conv_norm_relu(in_channels, channels, 1),
            conv_norm_relu(channels, channels, 3, stride=stride),
            conv_norm(channels, out_channels, 1),
        )
        self.shortcut = projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``[B, 4 channels, H / stride, W / stride]`` of ``[B, in_channels, H, W]``."""
        return F.relu(self._sum(x), inplace=True)

    def with_preactivation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the output and the sum before its ReLU."""
        before = self._sum(x)
        return F.relu(before), before

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The body's last BatchNorm; the shortcut's is not counted, as in RepDistiller."""
        return cast("nn.BatchNorm2d", self.body.get_submodule("2.1"))

    def _sum(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + self.shortcut(x)
        return out


def resnet50(num_classes: int) -> StagedNetwork:
    """Returns a ResNet-50 for CIFAR; stages are the stem and the four groups of blocks.

    Args:
        num_classes: C of the logits.

    Source:
        He et al., CVPR 2016, arXiv:1512.03385, table 1; the stem as in RepDistiller.
    """
    channels = _STEM_CHANNELS
    stages: list[nn.Module] = [conv_norm_relu(3, channels, 3)]
    for group, blocks in enumerate((3, 4, 6, 3)):
        parts = []
        for block in range(blocks):
            stride = 2 if group > 0 and block == 0 else 1
            group_channels = _STEM_CHANNELS * 2**group
            parts.append(Bottleneck(channels, group_channels, stride))
            channels = group_channels * _EXPANSION
        stages.append(BlockStage(*parts))
    network = StagedNetwork(stages, Neck(global_pool()), nn.Linear(channels, num_classes))
    he_initialise(network)
    return network
