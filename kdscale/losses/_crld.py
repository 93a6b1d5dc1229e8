"""CRLD: agree with the teacher within and across a weak and a strong view, where it is sure."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import (
    Hyperparameter,
    Method,
    Needs,
    PairShapes,
    Term,
    refuse_unequal_classes,
)
from kdscale.losses._numerics import full_precision, kl_rows, require_same_shape
from kdscale.outputs import present
from kdscale.records import Value


@full_precision
def crld(
    z_s: Tensor,
    z_t: Tensor,
    z_s2: Tensor,
    z_t2: Tensor,
    *,
    w_wv: float,
    w_cv: float,
    temperature: float,
    tau_w: float,
    tau_s: float,
) -> Tensor:
    """Returns w_wv x within-view + w_cv x cross-view distillation, a scalar.

    With k(s, t) = T² KL(softmax(t / T) ‖ softmax(s / T)) of one sample, within is the mean over b
    of k(z_s, z_t) + k(z_s2, z_t2) where the teacher's largest weak probability is >= tau_w, cross
    that of k(z_s2, z_t) + k(z_s, z_t2) where its largest strong one is >= tau_s, both at T = 1.
    Masked samples add 0 and still count in the mean. Reduction: sum over classes, mean over the
    batch. Zero if student = teacher in both views and the views agree.

    Args:
        z_s: Student logits of the weak view ``[B, C]``.
        z_t: Teacher logits of the weak view ``[B, C]``; nothing is detached here.
        z_s2: Student logits of the strong view ``[B, C]``.
        z_t2: Teacher logits of the strong view ``[B, C]``.
        w_wv: Weight of the within-view part.
        w_cv: Weight of the cross-view part.
        temperature: T > 0.
        tau_w: Confidence that the weak view must reach.
        tau_s: Confidence that the strong view must reach.

    Raises:
        ValueError: The shapes differ.

    Source:
        Zhang et al.: Cross-View Consistency Regularisation for Knowledge Distillation, ACM MM 2024,
        arXiv 2412.16493; official code arcaninez/CRLD ``mdistiller/distillers/CRLD.py``. The
        cross-entropies of both views (weight 1, ImageNet 2) are not in it.
    """
    require_same_shape(z_s, z_t, "[B, C]")
    require_same_shape(z_s2, z_t2, "[B, C]")
    require_same_shape(z_s, z_s2, "[B, C] in both views")
    log_q = F.log_softmax(torch.stack((z_s, z_s2)) / temperature, dim=2)
    log_p = F.log_softmax(torch.stack((z_t, z_t2)) / temperature, dim=2)
    within = kl_rows(log_q, log_p).sum(dim=0)
    cross = kl_rows(log_q.flip(0), log_p).sum(dim=0)
    sure_w = torch.softmax(z_t, dim=1).amax(dim=1) >= tau_w
    sure_s = torch.softmax(z_t2, dim=1).amax(dim=1) >= tau_s
    both = w_wv * within * sure_w + w_cv * cross * sure_s
    return both.mean() * temperature**2


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    w_wv = float(hyperparameters["w_wv"])
    w_cv = float(hyperparameters["w_cv"])
    temperature = float(hyperparameters["temperature"])
    tau_w = float(hyperparameters["tau_w"])
    tau_s = float(hyperparameters["tau_s"])
    strong_ce = float(hyperparameters["strong_ce"])

    def term(batch: Batch) -> Tensor:
        z_s2 = present(batch.student_2).logits
        distillation = crld(
            batch.student.logits,
            batch.teacher.logits,
            z_s2,
            present(batch.teacher_2).logits,
            w_wv=w_wv,
            w_cv=w_cv,
            temperature=temperature,
            tau_w=tau_w,
            tau_s=tau_s,
        )
        return distillation + strong_ce * F.cross_entropy(z_s2, batch.target)

    return term


def _needs(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Needs:
    return Needs(second_view=True)


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_classes(shapes)


CRLD = Method(
    name="crld",
    title="Cross-view consistency regularisation for logit distillation",
    source="Zhang et al., ACM MM 2024, arXiv 2412.16493",
    reads=("logits", "labels", "second view"),
    hyperparameters=(
        Hyperparameter(
            "w_wv", 2.0, "weight of the distillation within each view", low=0, search=(0.5, 8)
        ),
        Hyperparameter(
            "w_cv", 0.5, "weight of the distillation across the views", low=0, search=(0.1, 4)
        ),
        Hyperparameter(
            "temperature",
            4.0,
            "divides all logits before the softmax; the loss carries T²",
            low=0,
            low_open=True,
            search=(1, 8),
        ),
        Hyperparameter(
            "tau_w",
            0.9,
            "the teacher's weak-view confidence from which a sample counts within the views",
            low=0,
            high=1,
            search=(0, 0.95),
        ),
        Hyperparameter(
            "tau_s",
            0.2,
            "the teacher's strong-view confidence from which a sample counts across the views",
            low=0,
            high=1,
            search=(0, 0.95),
        ),
        Hyperparameter(
            "strong_ce",
            1.0,
            "weight of the strong view's cross-entropy, which is inside this term",
            low=0,
            search=(0, 2),
        ),
    ),
    build=_build,
    refuse=_refuse,
    needs=_needs,
)
