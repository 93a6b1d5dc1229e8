"""ShuffleNetV1 (3 groups) for CIFAR."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.models._layers import BlockStage, Neck, conv_norm, conv_norm_relu, global_pool
from kdscale.models._network import StagedNetwork

_GROUPS = 3
_STEM_CHANNELS = 24


class ShuffleUnit(nn.Module):
    """Grouped 1x1, depthwise 3x3 and grouped 1x1 convolution with a channel shuffle.

    At stride 2 the average-pooled input is concatenated, at stride 1 the input is added.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        body_channels = channels - in_channels if stride == 2 else channels
        hidden = body_channels // 4
        # The first unit's input is too narrow to be worth grouping (section 3.2 of the paper).
        groups = 1 if in_channels == _STEM_CHANNELS else _GROUPS
        self.body = nn.Sequential(
            conv_norm_relu(in_channels, hidden, 1, groups=groups),
            nn.ChannelShuffle(groups),
            conv_norm_relu(hidden, hidden, 3, stride=stride, groups=hidden),
            conv_norm(hidden, body_channels, 1, groups=_GROUPS),
        )
        self.halves = stride == 2

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``[B, channels, H / stride, W / stride]`` of ``[B, in_channels, H, W]``."""
        return F.relu(self._joined(x), inplace=True)

    def with_preactivation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the output and the sum, or concatenation, before its ReLU."""
        before = self._joined(x)
        return F.relu(before), before

    @property
    def norm(self) -> nn.BatchNorm2d | None:
        """The body's last BatchNorm; None at stride 2, where it sees a part of the channels."""
        return None if self.halves else cast("nn.BatchNorm2d", self.body.get_submodule("3.1"))

    def _joined(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        if self.halves:
            return torch.cat([out, F.avg_pool2d(x, 3, stride=2, padding=1)], dim=1)
        return out + x


def shufflenetv1(num_classes: int) -> StagedNetwork:
    """Returns ShuffleNetV1 for CIFAR; stages are the stem and the three groups of units.

    Args:
        num_classes: C of the logits.

    Source:
        Zhang et al., CVPR 2018, arXiv:1707.01083, table 1 (g = 3, 1x), with RepDistiller's stem
        (a 1x1 convolution that keeps the size), a ReLU between depthwise and last convolution,
        and torch's default initialisation.
    """
    channels = _STEM_CHANNELS
    stages: list[nn.Module] = [conv_norm_relu(3, channels, 1)]
    for group_channels, units in ((240, 4), (480, 8), (960, 4)):
        parts = []
        for unit in range(units):
            parts.append(ShuffleUnit(channels, group_channels, stride=2 if unit == 0 else 1))
            channels = group_channels
        stages.append(BlockStage(*parts))
    return StagedNetwork(stages, Neck(global_pool()), nn.Linear(channels, num_classes))
