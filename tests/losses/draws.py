"""Random logits and labels for the tests of methods on logits."""

from __future__ import annotations

import torch
from torch import Tensor

from kdscale.losses import PairShapes
from kdscale.outputs import OutputShapes


def draw(seed: int, batch_size: int = 6, classes: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Returns student logits, teacher logits ``[B, C]`` in float64, and labels ``[B]``."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch_size, classes)
    z_s = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    z_t = 4 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return z_s, z_t, torch.randint(classes, (batch_size,), generator=generator)


def pair(student: int = 10, teacher: int = 10, batch_size: int = 4) -> PairShapes:
    """Returns a pair of networks with these numbers of classes."""
    return PairShapes(OutputShapes(student, 8), OutputShapes(teacher, 8), batch_size=batch_size)
