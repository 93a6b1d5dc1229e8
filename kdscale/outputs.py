"""What a network hands to a loss: the one type that losses, models and training share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from torch import Tensor

T = TypeVar("T")

Need = str
"""A part of a network's output that a method may ask for.

``logits``, ``embedding``, ``map``, ``class_maps``, ``classifier``, ``tail``, or what `stage` and
`preactivation` return. Parts that nobody asks for are not computed, kept or handed out.
"""

LOGITS: frozenset[Need] = frozenset({"logits"})


def stage(number: int) -> Need:
    """Returns the need for one stage's features; stages count from 0, the stem included."""
    return f"stage {number}"


def preactivation(number: int) -> Need:
    """Returns the need for one stage's features before their last ReLU, and that ReLU's norm."""
    return f"preactivation {number}"


def numbers_of(kind: str, needs: frozenset[Need]) -> frozenset[int]:
    """Returns the stage numbers that ``needs`` names with ``stage`` or ``preactivation``."""
    matches = (re.fullmatch(rf"{kind} (\d+)", need) for need in needs)
    return frozenset(int(match[1]) for match in matches if match)


class Affine(NamedTuple):
    """Weight and bias: of a linear classifier ``[C, D]`` and ``[C]``, of a norm ``[C_l]`` each."""

    weight: Tensor
    bias: Tensor


Tail = Callable[[int, Tensor], "Outputs"]
"""(number of a stage, features in place of that stage's) -> logits and all later stages."""


@dataclass(frozen=True)
class Outputs:
    """One network's outputs for a batch; what nobody asked for is None or absent.

    Attributes:
        logits: Class scores ``[B, C]``; of a dense network ``[B, C, H, W]``.
        embedding: The classifier's input, pooled penultimate features ``[B, D]``.
        map: The map ``[B, D, H, W]`` whose mean over positions is the embedding; of a dense
            network the classifier's input.
        class_maps: The classifier at each position of the map, ``[B, C, H, W]``; their mean over
            positions is the logits.
        stages: Stage features ``[B, C_l, H_l, W_l]`` by the stage's number.
        preactivations: Stage features before the stage's last ReLU, by the stage's number.
        norms: Scale and shift of the BatchNorm before that ReLU, by the stage's number.
        classifier: The linear map from embedding to logits.
        tail: The rest of the network after a stage, a function of that stage's features.
    """

    logits: Tensor
    embedding: Tensor | None = None
    map: Tensor | None = None
    class_maps: Tensor | None = None
    stages: Mapping[int, Tensor] = field(default_factory=lambda: MappingProxyType({}))
    preactivations: Mapping[int, Tensor] = field(default_factory=lambda: MappingProxyType({}))
    norms: Mapping[int, Affine] = field(default_factory=lambda: MappingProxyType({}))
    classifier: Affine | None = None
    tail: Tail | None = None


def present(part: T | None) -> T:
    """Returns a part of the outputs that a method declared among its needs.

    Raises:
        ValueError: It is None: nobody asked the network for it.
    """
    if part is None:
        raise ValueError("a method must name each output that it reads among its needs")
    return part


@dataclass(frozen=True)
class OutputShapes:
    """The shapes of one network's outputs, without the batch, and which of them it has.

    Attributes:
        classes: C of the logits.
        embedding: D of the embedding.
        stages: ``(channels, height, width)`` of each stage.
        stem: How many of the first stages are the stem, which the literature's stages 1, 2, ...
            leave out.
        map: ``(D, height, width)`` of the map; None if the embedding is no mean over a map.
        linear: The classifier is one linear map from embedding to logits.
        preactivations: Whether it has features before each stage's last ReLU.
        norms: Whether a BatchNorm over all of a stage's channels stands before that ReLU.
        tail: Whether it can run from a stage's features on.
        dense: Logits and map are per pixel.
    """

    classes: int
    embedding: int
    stages: tuple[tuple[int, int, int], ...] = ()
    stem: int = 0
    map: tuple[int, int, int] | None = None
    linear: bool = False
    preactivations: bool = False
    norms: bool = False
    tail: bool = False
    dense: bool = False
