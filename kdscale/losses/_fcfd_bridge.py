"""FCFD's bridges between two networks, and its distance of what has crossed one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._numerics import full_precision, require_same_maps

SLOPE = 0.1


@full_precision
def fcfd_appearance(f_s: Tensor, f_t: Tensor, *, last: bool) -> Tensor:
    """Returns the mean squared difference of a map out of a bridge and the teacher's, a scalar.

    Reduction: mean over all elements. At the last stage that of the two maps' means over positions,
    after ReLU, is added with weight 1. Zero at student = teacher.

    Args:
        f_s: Student map out of the bridge, or what the teacher's later stages make of one,
            ``[B, C, H, W]``.
        f_t: Teacher map, same shape; nothing is detached here.
        last: Whether it is the last stage.

    Raises:
        ValueError: The shapes differ.

    Source:
        Liu et al.: Function-Consistent Feature Distillation, ICLR 2023, arXiv 2304.11832; official
        code LiuDongyang6/FCFD ``classification/cifar/main.py``, ``classification/models/meta.py``.
    """
    require_same_maps(f_s, f_t)
    loss = F.mse_loss(f_s, f_t)
    if not last:
        return loss
    return loss + F.mse_loss(f_s.relu().mean((2, 3)), f_t.relu().mean((2, 3)))


class Bridge(nn.Module):
    """Carries one network's stage to the other's shape: 3x3 convolution, BatchNorm, LeakyReLU.

    Half the size comes of stride 2, twice the size of a transposed 4x4 convolution of stride 2.
    Neither has the bias that the official code gives these two: BatchNorm takes it away.

    Args:
        source: ``(channels, height, width)`` of the stage that comes in.
        target: The same of the stage that it stands for.
        rectified: Whether that stage ends in a ReLU; then a LeakyReLU of slope 0.1 ends the bridge.

    Source:
        As `fcfd_appearance`. He's normal initialisation (fan out).
    """

    def __init__(
        self, source: tuple[int, int, int], target: tuple[int, int, int], *, rectified: bool
    ) -> None:
        super().__init__()
        self.convolve: nn.Module
        if target[1] > source[1]:
            self.convolve = nn.ConvTranspose2d(
                source[0], target[0], 4, stride=2, padding=1, bias=False
            )
        else:
            stride = source[1] // target[1]
            self.convolve = nn.Conv2d(source[0], target[0], 3, stride=stride, padding=1, bias=False)
            nn.init.kaiming_normal_(self.convolve.weight, mode="fan_out", nonlinearity="relu")
        self.norm = nn.BatchNorm2d(target[0])
        self.rectified = rectified

    def forward(self, features: Tensor) -> Tensor:
        """Returns features ``[B, C_target, H_target, W_target]``.

        Args:
            features: The source's stage ``[B, C_source, H_source, W_source]``.
        """
        bridged: Tensor = self.norm(self.convolve(features))
        return F.leaky_relu(bridged, SLOPE) if self.rectified else bridged
