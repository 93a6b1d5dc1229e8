"""ShuffleNetV2 (1x) for CIFAR."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from kdscale.models._layers import (
    BlockStage,
    Neck,
    ReluStage,
    conv_norm,
    conv_norm_relu,
    global_pool,
)
from kdscale.models._network import StagedNetwork

_STEM_CHANNELS = 24
_EMBEDDING = 1024


class SplitUnit(nn.Module):
    """Half of the channels pass through, half through three convolutions; then a shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.body = nn.Sequential(
            conv_norm_relu(half, half, 1),
            conv_norm(half, half, 3, groups=half),
            conv_norm_relu(half, half, 1),
        )
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``[B, channels, H, W]`` of an input of the same shape."""
        kept, changed = x.chunk(2, dim=1)
        out: Tensor = self.shuffle(torch.cat([kept, self.body(changed)], dim=1))
        return out

    def with_preactivation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the output and, not shuffled, the kept half and the other before its ReLU."""
        kept, changed = x.chunk(2, dim=1)
        *layers, last = self.body
        for layer in layers:
            changed = layer(changed)
        activated, before = cast("ReluStage", last).with_preactivation(changed)
        out = self.shuffle(torch.cat([kept, activated], dim=1))
        return out, torch.cat([kept, before], dim=1)

    @property
    def norm(self) -> None:
        """None: a BatchNorm normalises only half of the channels."""
        return None


class DownUnit(nn.Module):
    """Two branches that each halve the map, concatenated; then a shuffle."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.left = nn.Sequential(
            conv_norm(in_channels, in_channels, 3, stride=2, groups=in_channels),
            conv_norm_relu(in_channels, half, 1),
        )
        self.right = nn.Sequential(
            conv_norm_relu(in_channels, half, 1),
            conv_norm(half, half, 3, stride=2, groups=half),
            conv_norm_relu(half, half, 1),
        )
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``[B, channels, H / 2, W / 2]`` of ``[B, in_channels, H, W]``."""
        out: Tensor = self.shuffle(torch.cat([self.left(x), self.right(x)], dim=1))
        return out


def shufflenetv2(num_classes: int) -> StagedNetwork:
    """Returns ShuffleNetV2 for CIFAR; stages are the stem and the three groups of units.

    Args:
        num_classes: C of the logits.

    Source:
        Ma et al., ECCV 2018, arXiv:1807.11164, table 5 (1x), with RepDistiller's stem (a 1x1
        convolution that keeps the size) and torch's default initialisation.
    """
    channels = _STEM_CHANNELS
    stages: list[nn.Module] = [conv_norm_relu(3, channels, 1)]
    for group_channels, split_units in ((116, 3), (232, 7), (464, 3)):
        split = [SplitUnit(group_channels) for _ in range(split_units)]
        stages.append(BlockStage(DownUnit(channels, group_channels), *split))
        channels = group_channels
    neck = Neck(conv_norm_relu(channels, _EMBEDDING, 1), global_pool())
    return StagedNetwork(stages, neck, nn.Linear(_EMBEDDING, num_classes))
