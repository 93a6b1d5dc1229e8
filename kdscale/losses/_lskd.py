"""LSKD: standardise each sample's logits before a logit method compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._dkd import dkd
from kdscale.losses._method import (
    Hyperparameter,
    Method,
    Needs,
    PairShapes,
    Term,
    refuse_unequal_classes,
)
from kdscale.losses._mlld import mlld_batch, mlld_class, mlld_instance
from kdscale.losses._numerics import full_precision, mean_kl, require_same_shape
from kdscale.outputs import present
from kdscale.records import Value

STD_OFFSET = 1e-7

# MLLD's further temperatures; the first one is LSKD's own.
MLLD_TEMPERATURES = (3.0, 5.0, 2.0, 6.0)

PUBLISHED_WEIGHT = 9.0


@full_precision
def standardise_logits(z: Tensor) -> Tensor:
    """Returns N(z) = (z - mean_c z) / (1e-7 + std_c z), ``[B, C]``, of each sample.

    The standard deviation is the unbiased one over the classes. Mean and standard deviation are
    differentiated. Invariant to a positive scale (up to the 1e-7) and a constant of each sample.

    Args:
        z: Logits ``[B, C]``, C > 1.

    Source:
        As `lskd_kd`: ``normalize`` in each of its distillers.
    """
    return _standardise(z, 1.0)


def _standardise(z: Tensor, temperature: float) -> Tensor:
    """Returns N(z) / T."""
    std, mean = torch.std_mean(z, dim=1, keepdim=True)
    return (z - mean) / ((STD_OFFSET + std) * temperature)


@full_precision
def lskd_kd(z_s: Tensor, z_t: Tensor, *, temperature: float) -> Tensor:
    """Returns `kd` of the standardised logits, a scalar.

    Reduction and T² as in `kd`. Zero wherever z_s is a positive multiple of z_t up to a constant
    per sample, so at student = teacher too.

    Args:
        z_s: Student logits ``[B, C]``, C > 1.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        temperature: T > 0, the papers' base temperature.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Sun et al.: Logit Standardization in Knowledge Distillation, CVPR 2024, arXiv 2403.01427;
        official code sunshangquan/logit-standardization-KD ``mdistiller/distillers/KD.py``. It
        weighs the term by 9 at T = 2, beside 0.1 x cross-entropy of the raw logits; weight and T
        of each pair are in the names of its log files. The same repository standardises CTKD's
        logits too, which is not offered here.
    """
    require_same_shape(z_s, z_t, "[B, C]")
    s, t = _standardise(z_s, temperature), _standardise(z_t, temperature)
    return mean_kl(s, t) * temperature**2


@full_precision
def lskd_dkd(
    z_s: Tensor, z_t: Tensor, target: Tensor, *, alpha: float, beta: float, temperature: float
) -> Tensor:
    """Returns `dkd` of the standardised logits, a scalar.

    Reduction and T² as in `dkd`. Zero where `lskd_kd` is.

    Args:
        z_s: Student logits ``[B, C]``, C > 1.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        target: Labels, int64 ``[B]``.
        alpha: Weight of TCKD.
        beta: Weight of NCKD.
        temperature: T > 0, the papers' base temperature.

    Raises:
        ValueError: The shapes of the logits differ.

    Source:
        As `lskd_kd`, ``mdistiller/distillers/DKD.py``. The published weight multiplies alpha and
        beta, which is the weight of the term.
    """
    s, t = standardise_logits(z_s), standardise_logits(z_t)
    return dkd(s, t, target, alpha=alpha, beta=beta, temperature=temperature)


@full_precision
def lskd_mlld(
    z_s: Tensor,
    z_t: Tensor,
    z_s2: Tensor,
    z_t2: Tensor,
    *,
    temperatures: Sequence[float],
    official_quirks: bool = True,
) -> Tensor:
    """Returns `mlld` with the instance part of the standardised logits, a scalar.

    The batch and the class part take the raw logits. Reduction and T² as in `mlld`; zero at
    student = teacher. The weights and both cross-entropies are not in it.

    Args:
        z_s: Student logits of the weak view ``[B, C]``, C > 1.
        z_t: Teacher logits of the weak view ``[B, C]``; nothing is detached here.
        z_s2: Student logits of the strong view ``[B, C]``.
        z_t2: Teacher logits of the strong view ``[B, C]``.
        temperatures: Each > 0; published: 2 3 5 2 6, the first being LSKD's own.
        official_quirks: As in `mlld`.

    Raises:
        ValueError: The shapes differ.

    Source:
        As `lskd_kd`, ``mdistiller/distillers/MLKD.py``: ``logit_stand`` reaches its ``kd_loss``
        alone, not ``cc_loss`` and ``bc_loss``; that is followed. Its masks come from the raw
        confidences; here the instance part's comes from the standardised ones, which with
        ``official_quirks`` is the same number (the fraction kept) unless confidences are tied.
    """
    views = (z_s, z_t, z_s2, z_t2)
    s, t, s2, t2 = (standardise_logits(z) for z in views)
    instance = mlld_instance(
        s, t, s2, t2, temperatures=temperatures, official_quirks=official_quirks
    )
    batch = mlld_batch(*views, temperatures=temperatures, official_quirks=official_quirks)
    classes = mlld_class(*views, temperatures=temperatures, official_quirks=official_quirks)
    return instance + batch + classes


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    temperature = float(hyperparameters["temperature"])
    alpha, beta = float(hyperparameters["alpha"]), float(hyperparameters["beta"])
    strong_ce = float(hyperparameters["strong_ce"])

    def kd_term(batch: Batch) -> Tensor:
        return lskd_kd(batch.student.logits, batch.teacher.logits, temperature=temperature)

    def dkd_term(batch: Batch) -> Tensor:
        return lskd_dkd(
            batch.student.logits,
            batch.teacher.logits,
            batch.target,
            alpha=alpha,
            beta=beta,
            temperature=temperature,
        )

    def mlld_term(batch: Batch) -> Tensor:
        z_s2 = present(batch.student_2).logits
        distillation = lskd_mlld(
            batch.student.logits,
            batch.teacher.logits,
            z_s2,
            present(batch.teacher_2).logits,
            temperatures=(temperature, *MLLD_TEMPERATURES),
        )
        return distillation + strong_ce * F.cross_entropy(z_s2, batch.target)

    terms = {"kd": kd_term, "dkd": dkd_term, "mlld": mlld_term}
    return terms[str(hyperparameters["base"])]


def _needs(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Needs:
    return Needs(second_view=hyperparameters["base"] == "mlld")


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    if shapes.student.classes < 2:
        return (
            "lskd takes a standard deviation over classes, so there must be at least 2, "
            f"but got {shapes.student.classes}"
        )
    return refuse_unequal_classes(shapes)


LSKD = Method(
    name="lskd",
    title="Logit standardisation",
    source="Sun et al., CVPR 2024, arXiv 2403.01427",
    reads=("logits", "labels", "second view"),
    hyperparameters=(
        Hyperparameter(
            "base",
            "kd",
            "the method that gets standardised logits",
            choices=("kd", "dkd", "mlld"),
        ),
        Hyperparameter(
            "temperature",
            2.0,
            "divides the standardised logits; the loss carries T²; of mlld the first one",
            low=0,
            low_open=True,
            search=(1, 4),
        ),
        Hyperparameter(
            "alpha", 1.0, "weight of TCKD; used by base dkd alone", low=0, search=(0.5, 2)
        ),
        Hyperparameter(
            "beta", 8.0, "weight of NCKD; used by base dkd alone", low=0, search=(1, 10)
        ),
        Hyperparameter(
            "strong_ce",
            0.1 / PUBLISHED_WEIGHT,
            "weight of the strong view's cross-entropy inside this term; base mlld alone; "
            "times the published weight 9 it is 0.1",
            low=0,
            search=(0, 1),
        ),
    ),
    build=_build,
    needs=_needs,
    refuse=_refuse,
    couples_batch=True,
    weight=PUBLISHED_WEIGHT,
)
