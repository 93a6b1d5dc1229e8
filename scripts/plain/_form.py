"""What a method in two forms is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Forms:
    """One method twice: as kdscale computes it, and as one would write it down first.

    Attributes:
        method: The method's name in `kdscale.losses.METHODS`.
        ours: kdscale's function of the tensors that ``inputs`` makes.
        plain: The straightforward form, as most authors' code has it: loops over pairs, classes,
            stages and samples, masks as tensors.
        inputs: Makes the tensors for batch 64 at a width (classes, dimensions or channels), in
            a given dtype; the first one is the student's and gets the gradient.
        axis: What the width is: ``C``, ``D`` or ``channels``.
        widths: The widths to time.
    """

    method: str
    ours: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    inputs: Callable[..., tuple[Tensor, ...]]
    axis: str
    widths: tuple[int, ...]
