"""VGGs for CIFAR with BatchNorm and one linear layer: vgg8, vgg11, vgg13, vgg16, vgg19."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.models._layers import Neck, ReluStage, global_pool, he_initialise
from kdscale.models._network import StagedNetwork

_CHANNELS = (64, 128, 256, 512, 512)


class _PoolLargeMaps(nn.Module):
    """Halves maps of 8 pixels and more: at 64-pixel images, not at CIFAR's 32."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2) if x.shape[-1] >= 8 else x


def vgg(num_classes: int, *, convolutions: tuple[int, int, int, int, int]) -> StagedNetwork:
    """Returns a VGG for CIFAR; stages are the five blocks, after ReLU and before pooling.

    Args:
        num_classes: C of the logits.
        convolutions: Number of 3x3 convolutions in each block.

    Source:
        Simonyan and Zisserman, ICLR 2015, arXiv:1409.1556, table 1, with the changes of
        RepDistiller: BatchNorm, average pooling, no hidden linear layer, and no pooling before
        the last block on 32-pixel images.
    """
    channels = 3
    stages: list[nn.Module] = []
    for block, (block_channels, count) in enumerate(zip(_CHANNELS, convolutions, strict=True)):
        layers: list[nn.Module] = []
        if block > 0:
            layers.append(_PoolLargeMaps() if block == 4 else nn.MaxPool2d(2))
        for _ in range(count):
            layers += [
                nn.Conv2d(channels, block_channels, 3, padding=1),
                nn.BatchNorm2d(block_channels),
                nn.ReLU(inplace=True),
            ]
            channels = block_channels
        stages.append(ReluStage(*layers))
    network = StagedNetwork(stages, Neck(global_pool()), nn.Linear(channels, num_classes))
    he_initialise(network)
    nn.init.normal_(network.classifier.weight, std=0.01)
    nn.init.zeros_(network.classifier.bias)
    return network
