"""AICSD: how the spatial distributions of two classes differ, for every pair of classes."""

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
def aicsd(
    z_s: Tensor, z_t: Tensor, *, temperature: float = 1.0, official_quirks: bool = False
) -> Tensor:
    """Returns mean_ij (K_s - K_t)_ij² / B, a scalar.

    With p_i = softmax over the h w positions of class i's logits / T, K_ij is mean_b KL(p_i ‖ p_j),
    each row divided by its L2 norm. Reduction: sum over positions, mean over the batch inside K,
    mean over the C² pairs, and once more 1 / B. No T². A constant added to a class of an image
    changes nothing. Zero at student = teacher.

    Args:
        z_s: Student logits ``[B, C, h, w]``.
        z_t: Teacher logits ``[B, C, h, w]``; nothing is detached here.
        temperature: T > 0.
        official_quirks: What today's code computes instead: softmax over the h rows of each column
            alone; torch's KL divergence with a probability where its logarithm belongs,
            Σ p_j (log p_j - p_i); and the entries below the diagonal copied from above it.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Mansourian et al.: AICSD: Adaptive Inter-Class Similarity Distillation for Semantic
        Segmentation, arXiv 2308.04243; official code AmirMansurian/AICSD ``distiller.py`` (21
        classes there; older versions of it take the softmax over all positions). Its weight 9500 is
        set on the command line, beside 10 for a pixel-wise KL divergence. The adaptive weights
        (epoch / 120 on this term and the cross-entropy, the rest on the pixel-wise one) are off in
        the code; an objective's schedules can say them.
    """
    require_same_maps(z_s, z_t)
    matrix = _official_matrix if official_quirks else _matrix
    difference = matrix(z_s / temperature) - matrix(z_t / temperature)
    return difference.square().mean() / len(z_s)


def _matrix(z: Tensor) -> Tensor:
    """Returns the row-normalised KL divergences ``[C, C]`` of logits already divided by T."""
    log_p = F.log_softmax(z.flatten(2), dim=2)
    # Σ_p p_i (log p_i - log p_j); the first part is the diagonal of the second.
    crossed = (log_p.exp() @ log_p.transpose(1, 2)).mean(dim=0)
    return F.normalize(crossed.diagonal().unsqueeze(1) - crossed, dim=1)


def _official_matrix(z: Tensor) -> Tensor:
    log_p = F.log_softmax(z, dim=2).flatten(2)
    p = log_p.exp()
    entropies = (p * log_p).sum(dim=2).mean(dim=0)
    above = (entropies - (p @ p.transpose(1, 2)).mean(dim=0)).triu()
    return F.normalize(above + above.triu(1).T, dim=1)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    temperature = float(hyperparameters["temperature"])
    official_quirks = bool(hyperparameters["official_quirks"])

    def term(batch: Batch) -> Tensor:
        return aicsd(
            batch.student.logits,
            batch.teacher.logits,
            temperature=temperature,
            official_quirks=official_quirks,
        )

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_logits(shapes)


AICSD = Method(
    name="aicsd",
    title="Adaptive inter-class similarity distillation",
    source="Mansourian, Ahmadi, Kasaei, arXiv 2308.04243",
    reads=("logits",),
    hyperparameters=(
        Hyperparameter(
            "temperature",
            1.0,
            "divides both logits before the softmax over positions; no T² in the loss",
            low=0,
            low_open=True,
            search=(0.5, 4),
        ),
        Hyperparameter(
            "official_quirks",
            False,
            "compute what the code computes in place of the paper's formula",
        ),
    ),
    build=_build,
    refuse=_refuse,
    couples_batch=True,
    dense=True,
    weight=9500.0,
)
