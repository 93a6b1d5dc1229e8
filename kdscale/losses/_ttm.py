"""TTM: temper the teacher alone, as a power transform, and leave the student at T = 1."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import (
    Hyperparameter,
    Method,
    PairShapes,
    Term,
    refuse_unequal_classes,
)
from kdscale.losses._numerics import full_precision, mean_kl, require_same_shape
from kdscale.records import Value


@full_precision
def ttm(z_s: Tensor, z_t: Tensor, *, gamma: float) -> Tensor:
    """Returns mean_b KL(q ‖ softmax(z_s)), q = softmax(z_t)^gamma normalised, a scalar.

    q is softmax(gamma z_t): the teacher at temperature 1 / gamma. The student stays at T = 1 and
    there is no T². Reduction: sum over classes, mean over the batch. With gamma = 1 it is KD at
    T = 1; only there is it 0 at student = teacher. Zero at z_s = gamma z_t.

    Args:
        z_s: Student logits ``[B, C]``.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        gamma: The exponent, 1 / T of the teacher, 0 < gamma.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Zheng, Yang: Knowledge Distillation Based on Transformed Teacher Matching, ICLR 2024,
        arXiv 2402.11148; official code zkxufo/TTM ``distiller_zoo/ttm.py``, which raises rounded
        probabilities to the power; here the exponent multiplies the logits, which is the same. The
        published weight (the paper's beta) depends on the pair, 7 to 101; the default here is that
        of ResNet110 -> ResNet20, (gamma, beta) = (0.2, 8).
    """
    require_same_shape(z_s, z_t, "[B, C]")
    return mean_kl(z_s, gamma * z_t)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    gamma = float(hyperparameters["gamma"])

    def term(batch: Batch) -> Tensor:
        return ttm(batch.student.logits, batch.teacher.logits, gamma=gamma)

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_classes(shapes)


TTM = Method(
    name="ttm",
    title="Transformed teacher matching",
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
    weight=8.0,
)
