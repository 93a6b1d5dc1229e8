"""What a network hands to a loss: the one type that losses, models and training share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Need = Literal["logits", "embedding", "stages"]
"""A part of a network's output that a method may ask for."""


@dataclass(frozen=True)
class Outputs:
    """One network's outputs for a batch.

    Attributes:
        logits: Class scores ``[B, C]``.
        embedding: Pooled penultimate features ``[B, D]`` or None if nobody asked for them.
        stages: Stage features, first to last, ``[B, C_l, H_l, W_l]`` each; empty if not asked for.
    """

    logits: Tensor
    embedding: Tensor | None = None
    stages: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class OutputShapes:
    """The shapes of one network's outputs, without the batch.

    Attributes:
        classes: C of the logits.
        embedding: D of the embedding.
        stages: ``(channels, height, width)`` of each stage.
    """

    classes: int
    embedding: int
    stages: tuple[tuple[int, int, int], ...] = ()
