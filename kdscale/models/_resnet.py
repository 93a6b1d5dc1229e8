"""ResNets for CIFAR with basic blocks: resnet8 to resnet110, resnet8x4, resnet32x4."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.errors import UserError
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


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, ReLU after the sum."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_norm_relu(in_channels, channels, 3, stride=stride),
            conv_norm(channels, channels, 3),
        )
        self.shortcut = projection(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``[B, channels, H / stride, W / stride]`` of ``[B, in_channels, H, W]``."""
        return F.relu(self._sum(x), inplace=True)

    def with_preactivation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the output and the sum before its ReLU."""
        before = self._sum(x)
        return F.relu(before), before

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The body's last BatchNorm; the shortcut's is not counted, as in RepDistiller."""
        return cast("nn.BatchNorm2d", self.body.get_submodule("1.1"))

    def _sum(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + self.shortcut(x)
        return out


def resnet(
    num_classes: int, *, depth: int, width: object = 16, stem_width: int | None = None
) -> StagedNetwork:
    """Returns a CIFAR ResNet; stages are the stem and the three groups of blocks.

    Args:
        num_classes: C of the logits.
        depth: 6n + 2: n blocks a group, two layers a block, plus stem and classifier.
        width: Channels of the first group, a whole number from a study file; the others have two
            and four times as many.
        stem_width: Channels of the stem; None takes ``width``.

    Raises:
        UserError: If width is not a whole number of at least 1.

    Source:
        He et al., CVPR 2016, arXiv:1512.03385, section 4.2; the x4 variants and the weights'
        initialisation as in RepDistiller (Tian et al., ICLR 2020).
    """
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise UserError(f"width must be a whole number of at least 1, but got {width!r}")
    blocks = (depth - 2) // 6
    channels = stem_width or width
    stages: list[nn.Module] = [conv_norm_relu(3, channels, 3)]
    for group in range(3):
        group_channels = width * 2**group
        parts = []
        for block in range(blocks):
            stride = 2 if group > 0 and block == 0 else 1
            parts.append(BasicBlock(channels, group_channels, stride))
            channels = group_channels
        stages.append(BlockStage(*parts))
    network = StagedNetwork(stages, Neck(global_pool()), nn.Linear(channels, num_classes))
    he_initialise(network)
    return network
