"""CAT-KD: give the student the teacher's class activation maps."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import (
    Hyperparameter,
    Method,
    PairShapes,
    Term,
    needs_of_both,
    refuse_unequal_classes,
)
from kdscale.losses._numerics import full_precision
from kdscale.outputs import present
from kdscale.records import Value


@full_precision
def cat_kd(m_s: Tensor, m_t: Tensor, *, resolution: int = 2, normalise: bool = False) -> Tensor:
    """Returns the mean of (N(pool m_s) - N(pool m_t))² over all elements, a scalar.

    pool averages a map to R x R positions, N divides each class's R x R values by their 2-norm or
    leaves them. Reduction: mean over B C R². Zero at student = teacher. With N a positive factor
    on any class map changes nothing.

    Args:
        m_s: Student class maps ``[B, C, H_s, W_s]``.
        m_t: Teacher class maps ``[B, C, H_t, W_t]``; nothing is detached here.
        resolution: R.
        normalise: N divides by the norm.

    Raises:
        ValueError: Batch or classes differ.

    Source:
        Guo et al.: Class Attention Transfer Based Knowledge Distillation, CVPR 2023, arXiv
        2304.12777; official code GzyAftermath/CAT-KD ``mdistiller/distillers/CAT_KD.py``
        (CAT_loss). There networks are rewritten to end in a 1x1 convolution and pooling. A class
        map is the linear classifier at each position, and the mean of class maps is the logits, so
        no network needs rewriting here. Published weights differ by pair, from 0.7 (ResNet56 ->
        ResNet20) over 15 (ResNet32x4 -> ResNet8x4, the default) to 600 (ResNet32x4 -> ShuffleNet,
        normalised, R = 4), and normalised ones are not comparable with the others. The code's
        ablations, binarised maps and maps of some classes alone, are left out.
    """
    if m_s.ndim != 4 or m_t.ndim != 4 or m_s.shape[:2] != m_t.shape[:2]:
        raise ValueError(
            "class maps must be [B, C, H, W] of the same images and classes, "
            f"but got {list(m_s.shape)} and {list(m_t.shape)}"
        )
    pooled_s = F.adaptive_avg_pool2d(m_s, resolution).flatten(2)
    pooled_t = F.adaptive_avg_pool2d(m_t, resolution).flatten(2)
    if normalise:
        pooled_s, pooled_t = F.normalize(pooled_s, dim=2), F.normalize(pooled_t, dim=2)
    return F.mse_loss(pooled_s, pooled_t)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    resolution = int(hyperparameters["resolution"])
    normalise = bool(hyperparameters["normalise"])

    def term(batch: Batch) -> Tensor:
        return cat_kd(
            present(batch.student.class_maps),
            present(batch.teacher.class_maps),
            resolution=resolution,
            normalise=normalise,
        )

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    for name, side in (("student", shapes.student), ("teacher", shapes.teacher)):
        if side.map is None or not side.linear:
            return (
                f"cat_kd compares class maps, so the {name} must have a linear classifier on the "
                "mean of a map, but this model has none"
            )
    return refuse_unequal_classes(shapes)


CAT_KD = Method(
    name="cat_kd",
    title="Class attention transfer",
    source="Guo et al., CVPR 2023, arXiv 2304.12777",
    reads=("class maps",),
    hyperparameters=(
        Hyperparameter(
            "resolution", 2, "R: class maps are averaged to R x R positions", low=1, search=(1, 8)
        ),
        Hyperparameter("normalise", False, "divides each pooled class map by its norm"),
    ),
    build=_build,
    refuse=_refuse,
    needs=needs_of_both("class_maps"),
    weight=15.0,
)
