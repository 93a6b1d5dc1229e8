"""NormKD: a temperature of each sample's own, the spread of its logits."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._dkd import dkd_rows
from kdscale.losses._method import (
    Hyperparameter,
    Method,
    PairShapes,
    Term,
    refuse_unequal_classes,
)
from kdscale.losses._numerics import full_precision, kl_rows, require_same_shape
from kdscale.records import Value

SMALLEST_STD = 1e-7


@full_precision
def normkd(z_s: Tensor, z_t: Tensor, *, temperature: float) -> Tensor:
    """Returns mean_b τ_t² KL(softmax(z_t / τ_t) ‖ softmax(z_s / τ_s)), a scalar.

    τ = T_norm std_c(z), each sample's own, of the student for z_s and of the teacher for z_t;
    std is the unbiased one over the classes and is differentiated. Reduction: sum over classes,
    mean over the batch, with the factor τ_t² of each sample inside the mean. Zero at student =
    teacher, and wherever z_s is a positive multiple of z_t up to a constant per sample.

    Args:
        z_s: Student logits ``[B, C]``, C > 1.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        temperature: T_norm > 0, the temperature in standard deviations.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Chi et al.: NormKD: Normalized Logits for Knowledge Distillation, arXiv 2308.00520;
        official code gizi1/NormKD ``mdistiller/distillers/NormKD.py``. It divides by 0 where all
        logits of a sample are equal; here a standard deviation is at least 1e-7.
    """
    require_same_shape(z_s, z_t, "[B, C]")
    tau_s, tau_t = _tau(z_s, temperature), _tau(z_t, temperature)
    kl = kl_rows(F.log_softmax(z_s / tau_s, dim=1), F.log_softmax(z_t / tau_t, dim=1))
    return (tau_t.squeeze(1).square() * kl).mean()


@full_precision
def normkd_dkd(
    z_s: Tensor, z_t: Tensor, target: Tensor, *, alpha: float, beta: float, temperature: float
) -> Tensor:
    """Returns mean_b τ_t² (alpha TCKD_b + beta NCKD_b), a scalar: `dkd` at `normkd`'s temperatures.

    TCKD_b and NCKD_b are DKD's divergences of one sample, of z_s / τ_s and z_t / τ_t. Reduction
    and the zero as in `normkd`.

    Args:
        z_s: Student logits ``[B, C]``, C > 1.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        target: Labels y, int64 ``[B]``.
        alpha: Weight of TCKD.
        beta: Weight of NCKD.
        temperature: T_norm > 0, the temperature in standard deviations.

    Raises:
        ValueError: The shapes of the logits differ.

    Source:
        As `normkd`; official code ``mdistiller/distillers/NormKD_W_DKD.py``.
    """
    require_same_shape(z_s, z_t, "[B, C]")
    # No softmax sees the mean, but a log-sum-exp of nearly equal logits is exact without it.
    z_s, z_t = (z - z.mean(dim=1, keepdim=True) for z in (z_s, z_t))
    tau_s, tau_t = _tau(z_s, temperature), _tau(z_t, temperature)
    rows = dkd_rows(z_s / tau_s, z_t / tau_t, target, alpha=alpha, beta=beta, temperature=1.0)
    return (tau_t.squeeze(1).square() * rows).mean()


def _tau(z: Tensor, temperature: float) -> Tensor:
    """Returns each sample's temperature ``[B, 1]``."""
    return temperature * z.std(dim=1, keepdim=True).clamp_min(SMALLEST_STD)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    temperature = float(hyperparameters["temperature"])
    alpha, beta = float(hyperparameters["alpha"]), float(hyperparameters["beta"])

    def kd_term(batch: Batch) -> Tensor:
        return normkd(batch.student.logits, batch.teacher.logits, temperature=temperature)

    def dkd_term(batch: Batch) -> Tensor:
        return normkd_dkd(
            batch.student.logits,
            batch.teacher.logits,
            batch.target,
            alpha=alpha,
            beta=beta,
            temperature=temperature,
        )

    return dkd_term if hyperparameters["base"] == "dkd" else kd_term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    if shapes.student.classes < 2:
        return (
            "normkd takes a standard deviation over classes, so there must be at least 2, "
            f"but got {shapes.student.classes}"
        )
    return refuse_unequal_classes(shapes)


NORMKD = Method(
    name="normkd",
    title="Normalised logits for knowledge distillation",
    source="Chi et al., 2023, arXiv 2308.00520",
    reads=("logits", "labels"),
    hyperparameters=(
        Hyperparameter(
            "base",
            "kd",
            "what is computed at the samples' temperatures; dkd has published weight 1, kd 0.9",
            choices=("kd", "dkd"),
        ),
        Hyperparameter(
            "temperature",
            2.0,
            "T_norm: the temperature in standard deviations of a sample's logits",
            low=0,
            low_open=True,
            search=(0.5, 4),
        ),
        Hyperparameter("alpha", 1.0, "weight of TCKD; unused by base kd", low=0, search=(0.5, 2)),
        Hyperparameter("beta", 8.0, "weight of NCKD; unused by base kd", low=0, search=(1, 10)),
    ),
    build=_build,
    refuse=_refuse,
    weight=0.9,
)
