"""NKD: the target's probability, and the distribution over the other classes renormalised."""

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
from kdscale.losses._numerics import full_precision, require_same_shape, without_classes
from kdscale.records import Value


@full_precision
def nkd(z_s: Tensor, z_t: Tensor, target: Tensor, *, temperature: float, gamma: float) -> Tensor:
    """Returns the target term + gamma x the non-target term, a scalar.

    With p = softmax(z) and y the target, the target term is -mean_b p_t(y) log p_s(y), at T = 1
    and without T². With q the softmax of z / T over the classes c ≠ y, the non-target term is
    -T² mean_b Σ_{c≠y} q_t(c) log q_s(c). Reduction: sum over classes, mean over the batch. Both
    are cross-entropies, not KL: at student = teacher the value is not 0. The non-target term is
    then T² times the entropy of q_t, its smallest value.

    Args:
        z_s: Student logits ``[B, C]``.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        target: Labels y, int64 ``[B]``.
        temperature: T > 0 of the non-target term alone.
        gamma: Weight of the non-target term.

    Raises:
        ValueError: The shapes of the logits differ.

    Source:
        Yang et al.: From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach
        with Normalized Loss and Customized Soft Labels, ICCV 2023, arXiv 2303.13005; official code
        yzd-v/cls_KD ``mmcls/models/dis_losses/nkd.py``, which takes the target's column out; here
        it is masked. Its further cross-entropy with the label belongs to the objective. SDD's copy
        of NKD inverts the mask, so that the target stays in; not followed. ImageNet: T = 1, gamma
        1.5 (ViT 1.0); CIFAR-100 ResNet34 -> ResNet18 in the same repository: T = 3, gamma 3.5.
    """
    require_same_shape(z_s, z_t, "[B, C]")
    return nkd_rows(z_s, z_t, target, temperature=temperature, gamma=gamma).mean()


def nkd_rows(
    z_s: Tensor, z_t: Tensor, target: Tensor, *, temperature: float, gamma: float
) -> Tensor:
    """Returns `nkd` for each sample, ``[B]``; their mean is the loss.

    Args:
        z_s: Student logits ``[B, C]``, float32 or float64.
        z_t: Teacher logits ``[B, C]``.
        target: Labels y, int64 ``[B]``.
        temperature: T > 0 of the non-target term alone.
        gamma: Weight of the non-target term.
    """
    y = target.unsqueeze(1)
    p_y = (z_t.gather(1, y).squeeze(1) - z_t.logsumexp(dim=1)).exp()
    target_term = p_y * F.cross_entropy(z_s, target, reduction="none")
    q_t = F.softmax(without_classes(z_t / temperature, y), dim=1)
    log_q_s = F.log_softmax(without_classes(z_s / temperature, y), dim=1)
    non_target_term = -(q_t * log_q_s).sum(dim=1)
    return target_term + gamma * temperature**2 * non_target_term


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    temperature = float(hyperparameters["temperature"])
    gamma = float(hyperparameters["gamma"])

    def term(batch: Batch) -> Tensor:
        return nkd(
            batch.student.logits,
            batch.teacher.logits,
            batch.target,
            temperature=temperature,
            gamma=gamma,
        )

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_classes(shapes)


NKD = Method(
    name="nkd",
    title="Normalised knowledge distillation",
    source="Yang et al., ICCV 2023, arXiv 2303.13005",
    reads=("logits", "labels"),
    hyperparameters=(
        Hyperparameter(
            "temperature",
            1.0,
            "divides both logits of the non-target term, which carries T²",
            low=0,
            low_open=True,
            search=(1, 4),
        ),
        Hyperparameter(
            "gamma",
            1.5,
            "weight of the non-target term; the target term has weight 1",
            low=0,
            search=(0.5, 8),
        ),
    ),
    build=_build,
    refuse=_refuse,
)
