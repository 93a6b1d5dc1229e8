"""KD: match the teacher's softened class probabilities."""

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
    refuse_unequal_classes,
)
from kdscale.losses._numerics import full_precision, kl_rows, mean_kl, require_same_shape
from kdscale.records import Value


@full_precision
def kd(z_s: Tensor, z_t: Tensor, *, temperature: float) -> Tensor:
    """Returns T² mean_b KL(softmax(z_t / T) ‖ softmax(z_s / T)), a scalar.

    Reduction: sum over classes, mean over the batch. T² is inside, so that gradients keep their
    size when T changes. Zero at student = teacher, and there only up to a constant per sample.

    Args:
        z_s: Student logits ``[B, C]``.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        temperature: T > 0.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, arXiv 1503.02531.
        Official values: mdistiller ``distillers/KD.py``. The papers' cross-entropy and its weight
        (0.1 beside 0.9 here on CIFAR-100) belong to the objective, not to this function.
    """
    require_same_shape(z_s, z_t, "[B, C]")
    return mean_kl(z_s / temperature, z_t / temperature) * temperature**2


def kd_rows(z_s: Tensor, z_t: Tensor, *, temperature: float) -> Tensor:
    """Returns `kd` for each sample, ``[B]``; their mean is the loss.

    Args:
        z_s: Student logits ``[B, C]``, float32 or float64.
        z_t: Teacher logits ``[B, C]``.
        temperature: T > 0.
    """
    log_q = F.log_softmax(z_s / temperature, dim=1)
    log_p = F.log_softmax(z_t / temperature, dim=1)
    return kl_rows(log_q, log_p) * temperature**2


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    temperature = float(hyperparameters["temperature"])

    def term(batch: Batch) -> Tensor:
        return kd(batch.student.logits, batch.teacher.logits, temperature=temperature)

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_classes(shapes)


KD = Method(
    name="kd",
    title="Knowledge distillation",
    source="Hinton, Vinyals, Dean, NIPS 2014 workshop, arXiv 1503.02531",
    reads=("logits",),
    hyperparameters=(
        Hyperparameter(
            "temperature",
            4.0,
            "divides both logits before the softmax; the loss carries T²",
            low=0,
            low_open=True,
            search=(1, 16),
        ),
    ),
    build=_build,
    refuse=_refuse,
    all_classes=False,
)
