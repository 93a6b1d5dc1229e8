"""Refined RLD on each pixel: a candidate for the unpublished "RLD" of dense result tables."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_maps
from kdscale.losses._rld import rld_rows
from kdscale.losses.dense._maps import IGNORE, labels_at, pixel_rows, refuse_unequal_logits
from kdscale.records import Value


@full_precision
def rld_candidate(
    z_s: Tensor,
    z_t: Tensor,
    target: Tensor,
    *,
    alpha: float,
    beta: float,
    temperature: float,
    alpha_temperature: float,
) -> Tensor:
    """Returns `kdscale.losses.rld` with each labelled pixel as a sample, a scalar.

    Reduction: mean over the labelled pixels, 0 if there are none. T² is inside both parts.

    **A candidate.** Result tables of dense distillation quote a method "RLD" without a formula or
    code; it is not Refined Logit Distillation, which is about classification, and its published
    numbers are not this loss's.

    Args:
        z_s: Student logits ``[B, C, h, w]``.
        z_t: Teacher logits ``[B, C, h, w]``; nothing is detached here.
        target: Labels, int64 ``[B, H, W]``, -1 where there is none, taken to h x w by the nearest
            pixel.
        alpha: Weight of the teacher's confidence.
        beta: Weight of the classes that the teacher ranks below the label.
        temperature: T > 0, of beta's part.
        alpha_temperature: T > 0, of alpha's part.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Own composition of Sun et al., ICCV 2025, arXiv 2408.07703.
    """
    require_same_maps(z_s, z_t)
    label = labels_at(target, (z_s.shape[2], z_s.shape[3])).flatten()
    valid = label != IGNORE
    rows = rld_rows(
        pixel_rows(z_s),
        pixel_rows(z_t),
        label.clamp(min=0),
        alpha=alpha,
        beta=beta,
        temperature=temperature,
        alpha_temperature=alpha_temperature,
    )
    return torch.where(valid, rows, 0).sum() / valid.sum().clamp(min=1)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    alpha, beta = float(hyperparameters["alpha"]), float(hyperparameters["beta"])
    temperature = float(hyperparameters["temperature"])
    alpha_temperature = float(hyperparameters["alpha_temperature"])

    def term(batch: Batch) -> Tensor:
        return rld_candidate(
            batch.student.logits,
            batch.teacher.logits,
            batch.target,
            alpha=alpha,
            beta=beta,
            temperature=temperature,
            alpha_temperature=alpha_temperature,
        )

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_logits(shapes)


RLD_CANDIDATE = Method(
    name="rld_candidate",
    title="Refined logit distillation per pixel (candidate)",
    source="own composition of Sun et al., ICCV 2025, arXiv 2408.07703",
    reads=("logits", "labels"),
    hyperparameters=(
        Hyperparameter("alpha", 1.0, "weight of the teacher's confidence", low=0, search=(0.5, 4)),
        Hyperparameter(
            "beta",
            4.0,
            "weight of the classes below the label",
            low=0,
            search=(0.5, 16),
        ),
        Hyperparameter(
            "temperature",
            4.0,
            "divides both logits in beta's part; the loss carries T²",
            low=0,
            low_open=True,
            search=(1, 8),
        ),
        Hyperparameter(
            "alpha_temperature",
            1.0,
            "divides both logits in alpha's part, which carries its square",
            low=0,
            low_open=True,
            search=(1, 8),
        ),
    ),
    build=_build,
    refuse=_refuse,
    couples_batch=True,
    dense=True,
)
