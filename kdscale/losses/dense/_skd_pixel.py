"""SKD, pixel-wise: the authors' soft cross-entropy, summed over the batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_maps
from kdscale.losses.dense._maps import refuse_unequal_logits
from kdscale.records import Value


@full_precision
def skd_pixel(z_s: Tensor, z_t: Tensor, *, reduction: str = "sum") -> Tensor:
    """Returns Σ_b mean over pixels of -Σ_c softmax(z_t)_c log softmax(z_s)_c, a scalar.

    Reduction: sum over classes, mean over the h w pixels, **sum** over the batch, so the value
    grows with the batch; ``mean`` takes the mean over the batch. No temperature. At student =
    teacher it is the teacher's entropy, its smallest value. Its gradient is that of `pixel_kd` at
    T = 1, times B.

    Args:
        z_s: Student logits ``[B, C, h, w]``.
        z_t: Teacher logits ``[B, C, h, w]``; nothing is detached here.
        reduction: ``sum`` or ``mean`` over the batch.

    Raises:
        ValueError: The two shapes differ or there is no such reduction.

    Source:
        Liu et al.: Structured Knowledge Distillation for Semantic Segmentation, CVPR 2019, arXiv
        1903.04197; official code irfanICMLL/structure_knowledge_distillation
        ``utils/criterion.py``. The paper has a KL divergence averaged over pixels; the code a
        cross-entropy summed over the batch, with which the weight 10 was found.
    """
    require_same_maps(z_s, z_t)
    if reduction not in ("sum", "mean"):
        raise ValueError(f'reduction must be "sum" or "mean", but got "{reduction}"')
    batch_size, _, height, width = z_s.shape
    cross_entropy = -(F.softmax(z_t, dim=1) * F.log_softmax(z_s, dim=1)).sum()
    images = batch_size if reduction == "mean" else 1
    return cross_entropy / (images * height * width)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    summed = hyperparameters["reduction"] == "sum"

    def term(batch: Batch) -> Tensor:
        mean = skd_pixel(batch.student.logits, batch.teacher.logits, reduction="mean")
        # The sum over the global batch, as a mean that may be averaged over workers.
        return mean * (batch.whole or len(batch.target)) if summed else mean

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_logits(shapes)


SKD_PIXEL = Method(
    name="skd_pixel",
    title="Structured knowledge distillation, pixel-wise",
    source="Liu et al., CVPR 2019, arXiv 1903.04197",
    reads=("logits",),
    hyperparameters=(
        Hyperparameter(
            "reduction",
            "sum",
            "over the global batch: sum (official, published batch 8) or mean",
            choices=("sum", "mean"),
        ),
    ),
    build=_build,
    refuse=_refuse,
    dense=True,
    weight=10.0,
)
