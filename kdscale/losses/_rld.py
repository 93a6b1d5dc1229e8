"""RLD: the teacher's confidence in its own choice, and the classes it ranks below the label."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._lskd import standardise_logits
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
    require_same_shape,
    without_classes,
)
from kdscale.records import Value


@full_precision
def rld(
    z_s: Tensor,
    z_t: Tensor,
    target: Tensor,
    *,
    alpha: float,
    beta: float,
    temperature: float,
    alpha_temperature: float,
    standardise: bool = False,
) -> Tensor:
    """Returns alpha SCD + beta MCD, a scalar.

    SCD is Ta² mean_b KL of the two-way distributions [p_t(τ), 1 - p_t(τ)] and [p_s(y),
    1 - p_s(y)] with p = softmax(z / Ta), τ the teacher's top class and y the label: the student
    is to be as sure of the label as the teacher is of its own choice. MCD is T² mean_b KL of the
    softmaxes of z / T over the classes whose teacher logit lies below the label's; teacher first
    in both. Reduction: sum over classes, mean over the batch. A sample whose label the teacher
    ranks last has no such class: it adds 0 to MCD and counts in the mean. At student = teacher
    MCD is 0 and SCD is 0 if the teacher's top class is the label everywhere.

    Args:
        z_s: Student logits ``[B, C]``, C > 1.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        target: Labels y, int64 ``[B]``.
        alpha: Weight of SCD.
        beta: Weight of MCD.
        temperature: T > 0 of MCD.
        alpha_temperature: Ta > 0 of SCD.
        standardise: Both parts take `standardise_logits` of both logits.

    Raises:
        ValueError: The shapes of the logits differ.

    Source:
        Sun et al.: Knowledge Distillation with Refined Logits, ICCV 2025, arXiv 2408.07703;
        official code zju-SWJ/RLD ``mdistiller/distillers/RLD.py``. The code's default beta is 8,
        the paper's text has 4; Ta is 1 by default and T with the README's ``--same-t``. With
        ``standardise`` the published settings are weight 9, T = Ta = 2. The code takes the
        logarithm of rounded two-way probabilities (-inf for a confident student) and fills in
        -1e9; here the first part comes from log-sum-exps. Official training multiplies the term by
        min(epoch / 20, 1); not done here.
    """
    require_same_shape(z_s, z_t, "[B, C]")
    if standardise:
        z_s, z_t = standardise_logits(z_s), standardise_logits(z_t)
    rows = rld_rows(
        z_s,
        z_t,
        target,
        alpha=alpha,
        beta=beta,
        temperature=temperature,
        alpha_temperature=alpha_temperature,
    )
    return rows.mean()


def rld_rows(
    z_s: Tensor,
    z_t: Tensor,
    target: Tensor,
    *,
    alpha: float,
    beta: float,
    temperature: float,
    alpha_temperature: float,
) -> Tensor:
    """Returns `rld` for each sample, ``[B]``; their mean is the loss.

    Args:
        z_s: Student logits ``[B, C]``, float32 or float64.
        z_t: Teacher logits ``[B, C]``.
        target: Labels y, int64 ``[B]``.
        alpha: Weight of SCD.
        beta: Weight of MCD.
        temperature: T > 0 of MCD.
        alpha_temperature: Ta > 0 of SCD.
    """
    y = target.unsqueeze(1)
    top = z_t.argmax(dim=1, keepdim=True)
    scd = binary_kl(_sureness(z_s / alpha_temperature, y), _sureness(z_t / alpha_temperature, top))
    # As in `without_classes`, and added: its derivative is no work.
    low = (z_t >= z_t.gather(1, y)).to(z_s.dtype) * (torch.finfo(z_s.dtype).min / 2)
    s, t = (torch.add(low, z, alpha=1 / temperature) for z in (z_s, z_t))
    # Not the exponential of log p: where many classes are out it is slow on a CPU.
    mcd = (F.softmax(t, dim=1) * (F.log_softmax(t, dim=1) - F.log_softmax(s, dim=1))).sum(dim=1)
    mcd = mcd * (low.amax(dim=1) == 0)  # exactly nothing of a sample without a class left
    return alpha * alpha_temperature**2 * scd.squeeze(1) + beta * temperature**2 * mcd


def _sureness(z: Tensor, chosen: Tensor) -> Tensor:
    """Returns logit(p) of each sample's chosen class, ``[B, 1]``."""
    return z.gather(1, chosen) - without_classes(z, chosen).logsumexp(dim=1, keepdim=True)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    alpha, beta = float(hyperparameters["alpha"]), float(hyperparameters["beta"])
    temperature = float(hyperparameters["temperature"])
    alpha_temperature = float(hyperparameters["alpha_temperature"])
    standardise = bool(hyperparameters["standardise"])

    def term(batch: Batch) -> Tensor:
        return rld(
            batch.student.logits,
            batch.teacher.logits,
            batch.target,
            alpha=alpha,
            beta=beta,
            temperature=temperature,
            alpha_temperature=alpha_temperature,
            standardise=standardise,
        )

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_classes(shapes)


RLD = Method(
    name="rld",
    title="Refined logit distillation",
    source="Sun et al., ICCV 2025, arXiv 2408.07703",
    reads=("logits", "labels"),
    hyperparameters=(
        Hyperparameter(
            "alpha",
            1.0,
            "weight of SCD, how sure the student is of the label",
            low=0,
            search=(0.5, 4),
        ),
        Hyperparameter(
            "beta",
            8.0,
            "weight of MCD, the classes that the teacher ranks below the label",
            low=0,
            search=(0.5, 16),
        ),
        Hyperparameter(
            "temperature",
            4.0,
            "divides both logits of MCD, which carries T²",
            low=0,
            low_open=True,
            search=(1, 8),
        ),
        Hyperparameter(
            "alpha_temperature",
            1.0,
            "Ta: divides both logits of SCD, which carries Ta²",
            low=0,
            low_open=True,
            search=(1, 8),
        ),
        Hyperparameter(
            "standardise",
            False,
            "takes each sample's standardised logits; published with weight 9, T = Ta = 2",
        ),
    ),
    build=_build,
    refuse=_refuse,
)
