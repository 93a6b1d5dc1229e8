"""DIST: match the teacher's predictions by correlation, within samples and within classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import (
    Hyperparameter,
    Method,
    PairShapes,
    Term,
    refuse_unequal_classes,
)
from kdscale.losses._numerics import full_precision, require_same_shape
from kdscale.records import Value

DENOMINATOR_OFFSET = 1e-8


@full_precision
def dist(z_s: Tensor, z_t: Tensor, *, temperature: float, beta: float, gamma: float) -> Tensor:
    """Returns T² (beta inter + gamma intra), a scalar.

    With p = softmax(z / T) ``[B, C]`` and ρ Pearson's correlation, inter = 1 - mean_b ρ of the
    rows of p_s and p_t, intra = 1 - mean_c ρ of their columns. Each part lies in [0, 2]; the T²
    is over both. Zero at student = teacher, up to the 1e-8 added to each denominator. A row or
    column without spread has ρ = 0, so a batch of 1 has intra = 1 and no gradient from it.

    Args:
        z_s: Student logits ``[B, C]``; for dense predictions ``[pixels, C]``.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        temperature: T > 0.
        beta: Weight of inter, the relation among a sample's classes.
        gamma: Weight of intra, the relation among a class's samples.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Huang et al.: Knowledge Distillation from A Stronger Teacher, NeurIPS 2022, arXiv
        2205.10536; official code hunto/image_classification_sota
        ``lib/models/losses/dist_kd.py`` (which leaves T to its caller) and hunto/DIST_KD
        ``segmentation/losses/dist_kd.py`` (with T²). The recipes multiply by 2, at T = 4 on
        CIFAR-100 and T = 1 on ImageNet. The code takes columns per GPU; the objective gathers the
        global batch first. WRN40-2 -> WRN40-1 is 74.43 in its README and 74.73 where others quote
        it.
    """
    require_same_shape(z_s, z_t, "[B, C]")
    p_s = F.softmax(z_s / temperature, dim=1)
    p_t = F.softmax(z_t / temperature, dim=1)
    # A row's mean is 1 / C, and a softmax passes no gradient along it.
    mean = 1 / z_s.shape[1]
    inter = 1 - _cosines(p_s - mean, p_t - mean, dim=1).mean()
    intra = 1 - _cosines(p_s - p_s.mean(dim=0), p_t - p_t.mean(dim=0), dim=0).mean()
    return (beta * inter + gamma * intra) * temperature**2


def _cosines(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """Returns the cosine of a and b along ``dim``: Pearson's correlation if both are centred."""
    norm = torch.linalg.vector_norm
    norms: Tensor = norm(a, dim=dim) * norm(b, dim=dim)
    return (a * b).sum(dim=dim) / (norms + DENOMINATOR_OFFSET)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    temperature = float(hyperparameters["temperature"])
    beta, gamma = float(hyperparameters["beta"]), float(hyperparameters["gamma"])

    def term(batch: Batch) -> Tensor:
        return dist(
            batch.student.logits,
            batch.teacher.logits,
            temperature=temperature,
            beta=beta,
            gamma=gamma,
        )

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    if shapes.batch_size < 2:
        return (
            "dist correlates over the batch, so the global batch must hold at least 2 images, "
            f"but got {shapes.batch_size}"
        )
    return refuse_unequal_classes(shapes)


DIST = Method(
    name="dist",
    title="Distillation from a stronger teacher",
    source="Huang et al., NeurIPS 2022, arXiv 2205.10536",
    reads=("logits",),
    hyperparameters=(
        Hyperparameter(
            "temperature",
            4.0,
            "divides both logits before the softmax; the loss carries T²; 1 on ImageNet",
            low=0,
            low_open=True,
            search=(1, 4),
        ),
        Hyperparameter(
            "beta",
            1.0,
            "weight of inter, the relation among a sample's classes",
            low=0,
            search=(0.5, 4),
        ),
        Hyperparameter(
            "gamma",
            1.0,
            "weight of intra, the relation among a class's samples",
            low=0,
            search=(0.5, 4),
        ),
    ),
    build=_build,
    refuse=_refuse,
    couples_batch=True,
    weight=2.0,
)
