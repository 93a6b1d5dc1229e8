"""MobileNetV2 of half width for CIFAR."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from kdscale.models._layers import (
    BlockStage,
    Neck,
    conv_norm,
    conv_norm_relu,
    global_pool,
    he_initialise,
)
from kdscale.models._network import StagedNetwork

_STEM_CHANNELS = 16
_EMBEDDING = 1280
# (expansion, channels at half width, blocks, stride of the first block) of each group, and the
# groups that make up each stage after the stem.
_GROUPS = (
    (1, 8, 1, 1),
    (6, 12, 2, 1),
    (6, 16, 3, 2),
    (6, 32, 4, 2),
    (6, 48, 3, 1),
    (6, 80, 3, 2),
    (6, 160, 1, 1),
)
_STAGES = ((0, 1), (2,), (3, 4), (5, 6))


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise and linear 1x1 convolution; a sum where shapes allow it."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.body = nn.Sequential(
            conv_norm_relu(in_channels, hidden, 1),
            conv_norm_relu(hidden, hidden, 3, stride=stride, groups=hidden),
            conv_norm(hidden, channels, 1),
        )
        self.adds_input = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``[B, channels, H / stride, W / stride]`` of ``[B, in_channels, H, W]``."""
        out: Tensor = self.body(x)
        return x + out if self.adds_input else out

    def with_preactivation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the output twice: a linear bottleneck ends in no ReLU."""
        out = self(x)
        return out, out

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The body's last BatchNorm."""
        return cast("nn.BatchNorm2d", self.body.get_submodule("2.1"))


def mobilenetv2(num_classes: int) -> StagedNetwork:
    """Returns MobileNetV2 with expansion 6 and width 0.5.

    Stages are the stem and the groups before each change of size, as in RepDistiller.

    Args:
        num_classes: C of the logits.

    Source:
        Sandler et al., CVPR 2018, arXiv:1801.04381, table 2, with the changes of RepDistiller:
        stride 1 in the second group, ReLU for ReLU6, an expansion layer also in the first group.
    """
    channels = _STEM_CHANNELS
    stages: list[nn.Module] = [conv_norm_relu(3, channels, 3, stride=2)]
    for groups in _STAGES:
        parts = []
        for expansion, group_channels, blocks, first_stride in (_GROUPS[g] for g in groups):
            for block in range(blocks):
                stride = first_stride if block == 0 else 1
                parts.append(InvertedResidual(channels, group_channels, stride, expansion))
                channels = group_channels
        stages.append(BlockStage(*parts))
    neck = Neck(conv_norm_relu(channels, _EMBEDDING, 1), global_pool())
    network = StagedNetwork(stages, neck, nn.Linear(_EMBEDDING, num_classes))
    he_initialise(network)
    nn.init.normal_(network.classifier.weight, std=0.01)
    nn.init.zeros_(network.classifier.bias)
    return network
