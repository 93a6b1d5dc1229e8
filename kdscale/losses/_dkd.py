"""DKD: the target's probability and the distribution over the other classes, weighted apart."""

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
from kdscale.losses._numerics import (
    binary_kl,
    full_precision,
    kl_rows,
    require_same_shape,
    without_classes,
)
from kdscale.records import Value


@full_precision
def dkd(
    z_s: Tensor, z_t: Tensor, target: Tensor, *, alpha: float, beta: float, temperature: float
) -> Tensor:
    """Returns alpha TCKD + beta NCKD, a scalar.

    With p = softmax(z / T) and y the target, TCKD is T² mean_b KL of the two-way distributions
    [p_y, 1 - p_y] and NCKD is T² mean_b KL of the softmaxes over the classes c ≠ y; the teacher is
    the first argument of both. Reduction: sum over classes, mean over the batch. T² is inside
    both terms; ``alpha`` multiplies TCKD, ``beta`` NCKD. Zero at student = teacher.
    For one sample KD = TCKD + (1 - p_y of the teacher) NCKD.

    Args:
        z_s: Student logits ``[B, C]``.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        target: Labels y, int64 ``[B]``.
        alpha: Weight of TCKD.
        beta: Weight of NCKD.
        temperature: T > 0.

    Raises:
        ValueError: The shapes of the logits differ.

    Source:
        Zhao et al.: Decoupled Knowledge Distillation, CVPR 2022, arXiv 2203.08679, eq. 7.
        Official code: mdistiller ``distillers/DKD.py``, which takes log(1 - p_y) of a rounded
        probability (-inf for a confident student) and masks by -1000; here both parts come from
        log-sum-exps. Official training multiplies the term by min(epoch / 20, 1); not done here.
    """
    require_same_shape(z_s, z_t, "[B, C]")
    rows = dkd_rows(z_s, z_t, target, alpha=alpha, beta=beta, temperature=temperature)
    return rows.mean()


def dkd_rows(
    z_s: Tensor, z_t: Tensor, target: Tensor, *, alpha: float, beta: float, temperature: float
) -> Tensor:
    """Returns `dkd` for each sample, ``[B]``; their mean is the loss.

    Args:
        z_s: Student logits ``[B, C]``, float32 or float64.
        z_t: Teacher logits ``[B, C]``.
        target: Labels y, int64 ``[B]``.
        alpha: Weight of TCKD.
        beta: Weight of NCKD.
        temperature: T > 0.
    """
    y = target.unsqueeze(1)
    u_s, log_q_s = _decouple(z_s / temperature, y)
    u_t, log_q_t = _decouple(z_t / temperature, y)
    tckd = binary_kl(u_s, u_t).squeeze(1)
    return (alpha * tckd + beta * kl_rows(log_q_s, log_q_t)) * temperature**2


def _decouple(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Returns logit(p_y) ``[B, 1]`` and the log-softmax over c ≠ y ``[B, C]``, very low at y."""
    others = without_classes(z, y)
    log_sum = others.logsumexp(dim=1, keepdim=True)
    return z.gather(1, y) - log_sum, others - log_sum


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    alpha = float(hyperparameters["alpha"])
    beta = float(hyperparameters["beta"])
    temperature = float(hyperparameters["temperature"])

    def term(batch: Batch) -> Tensor:
        return dkd(
            batch.student.logits,
            batch.teacher.logits,
            batch.target,
            alpha=alpha,
            beta=beta,
            temperature=temperature,
        )

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_classes(shapes)


DKD = Method(
    name="dkd",
    title="Decoupled knowledge distillation",
    source="Zhao et al., CVPR 2022, arXiv 2203.08679",
    reads=("logits", "labels"),
    hyperparameters=(
        Hyperparameter(
            "alpha", 1.0, "weight of TCKD, the target against the rest", low=0, search=(0.5, 2)
        ),
        Hyperparameter(
            "beta",
            8.0,
            "weight of NCKD, the other classes among themselves",
            low=0,
            search=(0.25, 10),
        ),
        Hyperparameter(
            "temperature",
            4.0,
            "divides both logits before the softmax; the loss carries T²",
            low=0,
            low_open=True,
            search=(1, 8),
        ),
    ),
    build=_build,
    refuse=_refuse,
)
