"""TeKAP: KD from the teacher and from copies of it with noise on the logits."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._kd import kd
from kdscale.losses._method import (
    Hyperparameter,
    Method,
    PairShapes,
    Term,
    refuse_unequal_classes,
)
from kdscale.losses._numerics import full_precision, require_same_shape
from kdscale.records import Value


@full_precision
def tekap_logit(
    z_s: Tensor,
    z_t: Tensor,
    noise: Tensor,
    *,
    temperature: float,
    teacher_weight: float = 0.9,
    noise_weight: float = 0.1,
    synthetic_weight: float = 0.8,
) -> Tensor:
    """Returns KD(z_t) + synthetic_weight Σ_m KD(z_t^m), a scalar.

    z_t^m = teacher_weight z_t + noise_weight noise_m; KD is `kd`, with T² and the batch mean in it.
    The sum over m is not averaged: at 3 copies and the defaults 3.4 times the mass of plain KD.
    At student = teacher the first part is 0, the others are not, since copies differ from it.

    Args:
        z_s: Student logits ``[B, C]``.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        noise: ``[M, B, C]``, standard normal and new in each step.
        temperature: T > 0.
        teacher_weight: The teacher's share of a copy's logits.
        noise_weight: The noise's share.
        synthetic_weight: Weight of each copy beside the teacher.

    Raises:
        ValueError: The shapes differ.

    Source:
        Hossain et al.: Single Teacher, Multiple Perspectives: Teacher Knowledge Augmentation for
        Enhanced Knowledge Distillation, ICLR 2025, not on arXiv; official code mdimtiazh/TeKAP
        ``distiller_zoo/Ours_TeKAP_L.py`` (M = 3, T = 4; beside 0.1 x cross-entropy the term weighs
        0.9). The paper calls the noise's share lambda. Its feature part is CRD on the embeddings
        plus CRD with the teacher's embedding 0.9 e_t + 0.01 noise and the same memory, together x
        0.8 (``crd/criterion.py``): the student-anchored half is counted twice there, one copy is
        made instead of three, and the memory is updated twice in a step. An objective of
        ``tekap`` and ``crd`` at weight 1.6 comes near it; noise of 1 % is left out.
    """
    require_same_shape(z_s, z_t, "[B, C]")
    if noise.ndim != 3 or noise.shape[1:] != z_t.shape:
        raise ValueError(
            f"noise must be [M, B, C] for logits {list(z_t.shape)}, but got {list(noise.shape)}"
        )
    copies = teacher_weight * z_t + noise_weight * noise
    log_q = F.log_softmax(z_s / temperature, dim=1)
    log_p = F.log_softmax(copies / temperature, dim=2)
    synthetic = F.kl_div(log_q.expand_as(log_p), log_p, reduction="sum", log_target=True)
    synthetic = synthetic / len(z_s) * temperature**2
    return kd(z_s, z_t, temperature=temperature) + synthetic_weight * synthetic


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    temperature = float(hyperparameters["temperature"])
    copies = int(hyperparameters["copies"])
    teacher_weight = float(hyperparameters["teacher_weight"])
    noise_weight = float(hyperparameters["noise_weight"])
    synthetic_weight = float(hyperparameters["synthetic_weight"])

    def term(batch: Batch) -> Tensor:
        z_t = batch.teacher.logits
        # Drawn image by image, so that the noise is the same for any number of workers.
        noise = batch.normal(copies, z_t.shape[1]).transpose(0, 1)
        return tekap_logit(
            batch.student.logits,
            z_t,
            noise.to(z_t.dtype),
            temperature=temperature,
            teacher_weight=teacher_weight,
            noise_weight=noise_weight,
            synthetic_weight=synthetic_weight,
        )

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_classes(shapes)


TEKAP = Method(
    name="tekap",
    title="Teacher knowledge augmentation via perturbation, logit part",
    source="Hossain et al., ICLR 2025, not on arXiv",
    reads=("logits",),
    hyperparameters=(
        Hyperparameter(
            "temperature",
            4.0,
            "divides all logits before the softmax; the loss carries T²",
            low=0,
            low_open=True,
            search=(1, 8),
        ),
        Hyperparameter("copies", 3, "how many noisy teachers in each step", low=1, search=(1, 10)),
        Hyperparameter(
            "teacher_weight", 0.9, "the teacher's share of a noisy copy's logits", low=0
        ),
        Hyperparameter(
            "noise_weight",
            0.1,
            "the standard normal noise's share, in units of logits",
            low=0,
            search=(0.01, 1),
        ),
        Hyperparameter(
            "synthetic_weight",
            0.8,
            "weight of each noisy copy beside the teacher itself",
            low=0,
            search=(0.1, 1),
        ),
    ),
    build=_build,
    refuse=_refuse,
    weight=0.9,
)
