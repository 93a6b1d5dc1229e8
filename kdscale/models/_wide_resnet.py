"""Wide ResNets for CIFAR: wrn_16_1, wrn_16_2, wrn_40_1, wrn_40_2."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.models._layers import Neck, global_pool, he_initialise
from kdscale.models._network import StagedNetwork
from kdscale.outputs import Need, preactivation, stage


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)


def _norm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class PreActivationBlock(nn.Module):
    """Normalisation and ReLU before each of two 3x3 convolutions; nothing after the sum."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.activation = _norm_relu(in_channels)
        self.body = nn.Sequential(
            _conv3x3(in_channels, channels, stride),
            _norm_relu(channels),
            _conv3x3(channels, channels),
        )
        self.projection = (
            None
            if in_channels == channels
            else nn.Conv2d(in_channels, channels, 1, stride, bias=False)
        )

    def forward(self, x: Tensor, normed: Tensor | None = None) -> Tensor:
        """Returns ``[B, channels, H / stride, W / stride]`` of ``[B, in_channels, H, W]``.

        Args:
            x: The input.
            normed: What the block's first BatchNorm makes of it, if that has run already.
        """
        activated = self.activation(x) if normed is None else F.relu(normed)
        # A projection sees the activated input, the identity the raw one.
        shortcut: Tensor = x if self.projection is None else self.projection(activated)
        out: Tensor = shortcut + self.body(activated)
        return out


class WideStage(nn.Sequential):
    """Blocks in a row."""

    def forward(self, x: Tensor, normed: Tensor | None = None) -> Tensor:
        """Returns the last block's output; arguments as for the first block."""
        first, *blocks = self
        x = first(x, normed)
        for block in blocks:
            x = block(x)
        return x


class WideResNet(StagedNetwork):
    """A wide ResNet: a stage's last BatchNorm and ReLU are the first layers of what follows it.

    So its pre-activation is what the next stage's first BatchNorm, or the neck's, makes of its
    features. That BatchNorm runs once. RepDistiller runs it a second time, which gives the same
    pre-activation but in training moves the running statistics twice.
    """

    def walk(
        self,
        images: Tensor,
        needs: frozenset[Need],
        stages: dict[int, Tensor],
        preactivations: dict[int, Tensor],
    ) -> Tensor:
        features = images
        normed: Tensor | None = None
        for number, part in enumerate(self.stages):
            features = part(features) if normed is None else part(features, normed)
            if stage(number) in needs:
                stages[number] = features
            normed = None
            if preactivation(number) in needs:
                normed = preactivations[number] = self.norm_of(number)(features)
        return self.neck.map(features) if normed is None else F.relu(normed)

    def norm_of(self, number: int) -> nn.BatchNorm2d:
        """Returns the first BatchNorm after a stage."""
        last = number + 1 == len(self.stages)
        name = "neck.0.0" if last else f"stages.{number + 1}.0.activation.0"
        return cast("nn.BatchNorm2d", self.get_submodule(name))


def wide_resnet(num_classes: int, *, depth: int, widen: int) -> StagedNetwork:
    """Returns a wide ResNet; stages are the stem and the three groups, before their activation.

    Args:
        num_classes: C of the logits.
        depth: 6n + 4: n blocks a group.
        widen: Factor on the groups' 16, 32 and 64 channels; the stem keeps 16.

    Source:
        Zagoruyko and Komodakis, BMVC 2016, arXiv:1605.07146, table 1, without dropout.
    """
    blocks = (depth - 4) // 6
    channels = 16
    stages: list[nn.Module] = [_conv3x3(3, channels)]
    for group in range(3):
        group_channels = 16 * widen * 2**group
        parts = []
        for block in range(blocks):
            stride = 2 if group > 0 and block == 0 else 1
            parts.append(PreActivationBlock(channels, group_channels, stride))
            channels = group_channels
        stages.append(WideStage(*parts))
    neck = Neck(_norm_relu(channels), global_pool())
    network = WideResNet(stages, neck, nn.Linear(channels, num_classes))
    he_initialise(network)
    nn.init.zeros_(network.classifier.bias)
    return network
