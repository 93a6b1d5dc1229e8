"""WTTM: transformed teacher matching, with more weight where the teacher is less sure."""

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
from kdscale.losses._numerics import full_precision, kl_rows, require_same_shape
from kdscale.records import Value


@full_precision
def wttm(z_s: Tensor, z_t: Tensor, *, gamma: float) -> Tensor:
    """Returns mean_b U KL(q ‖ softmax(z_s)), U = Σ_c p_t(c)^gamma, a scalar.

    p_t = softmax(z_t) and q = p_t^gamma / U, as in `ttm`. U lies between 1 (a one-hot teacher) and
    C^(1 - gamma) (a uniform one). The weights are not renormalised over the batch. The student
    stays at T = 1 and there is no T². Reduction: sum over classes, mean over the batch. With
    gamma = 1, U = 1 and it is KD at T = 1; only there is it 0 at student = teacher.

    Args:
        z_s: Student logits ``[B, C]``.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        gamma: The exponent, 1 / T of the teacher, 0 < gamma.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Zheng, Yang: Knowledge Distillation Based on Transformed Teacher Matching, ICLR 2024,
        arXiv 2402.11148; official code zkxufo/TTM ``distiller_zoo/wttm.py``. The published weight
        (the paper's beta) depends on the pair, 1.4 to 16; the default here is that of
        ResNet110 -> ResNet20, (gamma, beta) = (0.2, 2).
    """
    require_same_shape(z_s, z_t, "[B, C]")
    powers = gamma * F.log_softmax(z_t, dim=1)
    log_u = powers.logsumexp(dim=1, keepdim=True)
    log_p_s = F.log_softmax(z_s, dim=1)
    return (log_u.squeeze(1).exp() * kl_rows(log_p_s, powers - log_u)).mean()


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    gamma = float(hyperparameters["gamma"])

    def term(batch: Batch) -> Tensor:
        return wttm(batch.student.logits, batch.teacher.logits, gamma=gamma)

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_classes(shapes)


WTTM = Method(
    name="wttm",
    title="Weighted transformed teacher matching",
    source="Zheng, Yang, ICLR 2024, arXiv 2402.11148",
    reads=("logits",),
    hyperparameters=(
        Hyperparameter(
            "gamma",
            0.2,
            "exponent of the teacher's probabilities, 1 / T; the student stays at T = 1",
            low=0,
            low_open=True,
            high=1,
            search=(0.1, 1),
        ),
    ),
    build=_build,
    refuse=_refuse,
    weight=2.0,
)
