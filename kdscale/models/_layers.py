"""Layers that several families of the zoo share."""

from __future__ import annotations

from torch import nn


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
) -> nn.Sequential:
    """Returns ``conv_norm`` followed by a ReLU in place."""
    return nn.Sequential(
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
