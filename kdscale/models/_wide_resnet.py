"""Wide ResNets for CIFAR: wrn_16_1, wrn_16_2, wrn_40_1, wrn_40_2."""

from __future__ import annotations

from torch import Tensor, nn

from kdscale.models._layers import global_pool, he_initialise
from kdscale.models._network import StagedNetwork


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

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``[B, channels, H / stride, W / stride]`` of ``[B, in_channels, H, W]``."""
        activated = self.activation(x)
        # A projection sees the activated input, the identity the raw one.
        shortcut: Tensor = x if self.projection is None else self.projection(activated)
        out: Tensor = shortcut + self.body(activated)
        return out


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
        stages.append(nn.Sequential(*parts))
    neck = nn.Sequential(_norm_relu(channels), global_pool())
    network = StagedNetwork(stages, neck, nn.Linear(channels, num_classes))
    he_initialise(network)
    nn.init.zeros_(network.classifier.bias)
    return network
