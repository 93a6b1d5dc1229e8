"""Random maps and labels for the tests of dense methods."""

from __future__ import annotations

import torch
from torch import Tensor

from kdscale.losses import PairShapes
from kdscale.outputs import OutputShapes


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


def draw_labels(classes: int, *shape: int, seed: int = 0, least: int = -1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(least, classes, shape, generator=generator)


def pair(
    *,
    classes: tuple[int, int] = (5, 5),
    student: tuple[int, int, int] | None = (6, 4, 6),
    teacher: tuple[int, int, int] | None = (8, 4, 6),
    batch_size: int = 4,
) -> PairShapes:
    """A dense pair with two stages on the map's grid."""

    def side(count: int, shape: tuple[int, int, int] | None) -> OutputShapes:
        stages = () if shape is None else ((3, *shape[1:]), shape)
        return OutputShapes(count, 6, stages=stages, map=shape, linear=True, dense=True)

    return PairShapes(side(classes[0], student), side(classes[1], teacher), batch_size)
