"""RDD: the teacher tells which pixels to learn, easy ones first, then the disputed ones.

The method `rdd` is stage 2 on the main head. Stage 1 weighs by the teacher's auxiliary head, which
`kdscale.outputs.Outputs` does not hold: `rdd_weights` and `rdd_stage_1` are functions alone. Both
stages stand **in place of** the cross-entropy (``ce_weight: 0``), beside ``pixel_kd`` of weight 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_maps
from kdscale.losses.dense._maps import (
    IGNORE,
    mean_cross_entropy,
    refuse_unequal_logits,
    to_label_grid,
)
from kdscale.records import Value

PUBLISHED_SHARE = 100_000 / (4 * 512 * 1024)
"""The published 100,000 pixels of the 4 crops on a GPU."""

CITYSCAPES_WEIGHTS = (
    0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023,
    0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507,
)  # fmt: skip
"""The official weights of Cityscapes' 19 classes in stage 2."""


@full_precision
def rdd_weights(z_t: Tensor, auxiliary_t: Tensor) -> Tensor:
    """Returns exp(-KL(softmax(auxiliary_t) ‖ softmax(z_t))) at each pixel, ``[B, h, w]``.

    Near 1 where the teacher's two heads agree, which marks a pixel as easy.

    Args:
        z_t: Logits of the teacher's main head ``[B, C, h, w]``.
        auxiliary_t: Logits of its auxiliary head ``[B, C, h, w]``.

    Raises:
        ValueError: The two shapes differ.

    Source:
        See `rdd_stage_1`. The KL's first argument is the auxiliary head in the code.
    """
    require_same_maps(z_t, auxiliary_t)
    log_p, log_q = F.log_softmax(auxiliary_t, dim=1), F.log_softmax(z_t, dim=1)
    return torch.exp(-F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1))


@full_precision
def rdd_stage_1(z_s: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Returns the mean over all pixels of weight x cross-entropy, a scalar.

    Logits and weights are taken to the labels' size (bilinear). Pixels without a label add 0 but
    count.

    Args:
        z_s: Student logits of one head ``[B, C, h, w]``.
        target: Labels, int64 ``[B, H, W]``, -1 where there is none.
        weights: `rdd_weights`, ``[B, h', w']``.

    Source:
        Liang et al.: Relative Difficulty Distillation for Semantic Segmentation, Science China
        Information Sciences 2024, arXiv 2407.03719; official code sunyueue/RDD
        ``train_onlykd_two_stage_diff.py``: auxiliary heads get 0.4 of the same, pixel KD at T = 1
        is always there, stage 1 ends after 4,000 of 40,000 iterations (8,000 by default).
    """
    full = to_label_grid(weights.unsqueeze(1), target).squeeze(1)
    z = to_label_grid(z_s, target)
    cross_entropy = F.cross_entropy(z, target, ignore_index=IGNORE, reduction="none")
    return (cross_entropy * full).mean()


@full_precision
def rdd_hard(z: Tensor, target: Tensor, *, threshold: float, min_kept: int) -> Tensor:
    """Returns which pixels are hard for a network, bool ``[B, H, W]``, as OHEM picks them.

    Hard is p(label) <= max(threshold, the min_kept-th smallest p(label) of the batch); pixels
    without a label are not hard.

    Args:
        z: Logits ``[B, C, H, W]``, at the labels' size.
        target: Labels, int64 ``[B, H, W]``, -1 where there is none.
        threshold: A probability.
        min_kept: At least so many pixels are hard, if there are so many; 0 for no such rule.

    Source:
        See `rdd_stage_1`. Where fewer pixels than ``min_kept`` have labels, the code raises; here
        all of them are hard.
    """
    log_p = -F.cross_entropy(z, target, ignore_index=IGNORE, reduction="none")
    p = log_p.exp()  # 1 where there is no label
    limit = p.new_tensor(threshold)
    if min_kept > 0:
        limit = limit.maximum(p.flatten().kthvalue(min(min_kept, p.numel())).values)
    return (p <= limit) & (target != IGNORE)


@full_precision
def rdd_stage_2(
    z_s: Tensor,
    z_t: Tensor,
    target: Tensor,
    *,
    threshold: float = 0.7,
    min_kept: int = 100_000,
    mask: str = "xor",
    class_weights: Tensor | None = None,
) -> Tensor:
    """Returns the weighted mean cross-entropy of the pixels that are hard for one network only.

    Logits are taken to the labels' size (bilinear). Reduction: weighted mean over the picked
    pixels; 0 if there are none, as at student = teacher, where the code gives nan.

    Args:
        z_s: Student logits of one head ``[B, C, h, w]``.
        z_t: Teacher logits of the same head ``[B, C, h, w]``.
        target: Labels, int64 ``[B, H, W]``, -1 where there is none.
        threshold: See `rdd_hard`.
        min_kept: See `rdd_hard`.
        mask: ``xor`` of the two networks' hard pixels (the method), ``or``, ``and``, or ``ohem``:
            the student's.
        class_weights: ``[C]``; None for 1.

    Raises:
        ValueError: The two shapes differ or there is no such mask.

    Source:
        See `rdd_stage_1`.
    """
    require_same_maps(z_s, z_t)
    z_s, z_t = to_label_grid(z_s, target), to_label_grid(z_t, target)
    hard_s, hard_t = (
        rdd_hard(z.detach(), target, threshold=threshold, min_kept=min_kept) for z in (z_s, z_t)
    )
    masks = {"xor": hard_s ^ hard_t, "or": hard_s | hard_t, "and": hard_s & hard_t, "ohem": hard_s}
    if mask not in masks:
        raise ValueError(f"mask must be one of {', '.join(masks)}, but got {mask}")
    return mean_cross_entropy(z_s, target.where(masks[mask], IGNORE), class_weights)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    threshold = float(hyperparameters["threshold"])
    kept = float(hyperparameters["kept"])
    mask = str(hyperparameters["mask"])
    cityscapes = hyperparameters["class_weights"] == "cityscapes"

    def term(batch: Batch) -> Tensor:
        z_s = batch.student.logits
        return rdd_stage_2(
            z_s,
            batch.teacher.logits,
            batch.target,
            threshold=threshold,
            min_kept=int(kept * batch.target.numel()),
            mask=mask,
            class_weights=z_s.new_tensor(CITYSCAPES_WEIGHTS) if cityscapes else None,
        )

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    classes = shapes.student.classes
    if hyperparameters["class_weights"] == "cityscapes" and classes != len(CITYSCAPES_WEIGHTS):
        return f"class_weights cityscapes are for {len(CITYSCAPES_WEIGHTS)} classes, got {classes}"
    return refuse_unequal_logits(shapes)


RDD = Method(
    name="rdd",
    title="Relative difficulty distillation, stage 2",
    source="Liang et al., Science China Information Sciences 2024, arXiv 2407.03719",
    reads=("logits", "labels"),
    hyperparameters=(
        Hyperparameter(
            "threshold",
            0.7,
            "a pixel is hard up to this probability of its label",
            low=0,
            high=1,
            search=(0.5, 0.9),
        ),
        Hyperparameter(
            "kept",
            PUBLISHED_SHARE,
            "the least share of pixels that are hard (published: 100,000 of 4 crops 512 x 1024)",
            low=0,
            high=1,
        ),
        Hyperparameter(
            "mask",
            "xor",
            "which pixels: hard for one network only (xor), or, and, or the student's (ohem)",
            choices=("xor", "or", "and", "ohem"),
        ),
        Hyperparameter(
            "class_weights",
            "none",
            "weights in the cross-entropy: none, or the official ones of Cityscapes (published)",
            choices=("none", "cityscapes"),
        ),
    ),
    build=_build,
    refuse=_refuse,
    couples_batch=True,
    dense=True,
)
