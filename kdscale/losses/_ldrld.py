"""LDRLD: the relations among the student's top classes, pair by pair, and the rest."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kdscale.losses._batch import Batch
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
    mean_kl,
    require_same_shape,
    without_classes,
)
from kdscale.records import Value

# Constants of the adaptive decay weight; the paper fixes them for all experiments.
RANK_SCALE = 2.0
RANK_DECAY = 0.05
GAP_OFFSET = 1.5


@full_precision
def ldrld(
    z_s: Tensor,
    z_t: Tensor,
    *,
    alpha: float,
    beta: float,
    depth: int,
    temperature: float,
    include_group: bool = True,
) -> Tensor:
    """Returns alpha `ldrld_local` + beta `ldrld_rntk`, a scalar.

    Reduction: mean over the batch, mean over pairs and group in the local part. T² is inside both
    parts. Zero at student = teacher. No label is used: ranks are the student's own.

    Args:
        z_s: Student logits ``[B, C]``.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        alpha: Weight of the local part.
        beta: Weight of the remaining classes.
        depth: d, how many of the student's top classes are local; 2 <= d <= C - 2.
        temperature: T > 0.
        include_group: The local part holds the whole top-d group beside its pairs.

    Raises:
        ValueError: The shapes differ or ``depth`` is out of bounds.

    Source:
        Xu et al.: Local Dense Logit Relations for Enhanced Knowledge Distillation, ICCV 2025,
        arXiv 2507.15911; official code yema-web/LDRLD ``distiller_zoo/LDRLD.py``. Where they
        disagree the code is followed, because the published alpha (6 to 12) were found with it:
        the code divides pair sum and group by d(d-1)/2 + 1, the paper sums; the supplement's
        algorithm 1 leaves the group out (``include_group=False``), main text and code have it.
        At d = 2 the code gives the group the pair's weight too; here the group's weight is 1.
        At d > C - 2 the code's RNTK silently becomes plain KD; here that is refused.
    """
    top = _top_classes(z_s, z_t, depth)
    s, t = z_s / temperature, z_t / temperature
    both = alpha * _local(s, t, top, include_group) + beta * _rntk(s, t, top)
    return both * temperature**2


@full_precision
def ldrld_local(
    z_s: Tensor, z_t: Tensor, *, depth: int, temperature: float, include_group: bool = True
) -> Tensor:
    """Returns LDRLD's local part, a scalar: the weighted mean over pairs and group of the top d.

    With kl_A = T² mean_b KL of the softmaxes restricted to the classes A, teacher first, and i < j
    the ranks (from 1) of the student's d largest logits, this is
    (Σ_{i<j} w_ij kl_{i,j} + kl_{all d}) / (d(d-1)/2 + 1), w_ij = 2 exp(-0.05 (i+j)) / (1.5 + j-i).
    Without the group its term and the "+ 1" fall away. Zero at student = teacher.

    Args:
        z_s: Student logits ``[B, C]``.
        z_t: Teacher logits ``[B, C]``.
        depth: d, 2 <= d <= C - 2.
        temperature: T > 0.
        include_group: Adds the KL over the whole group with weight 1.

    Raises:
        ValueError: The shapes differ or ``depth`` is out of bounds.

    Source:
        See `ldrld`.
    """
    top = _top_classes(z_s, z_t, depth)
    return _local(z_s / temperature, z_t / temperature, top, include_group) * temperature**2


@full_precision
def ldrld_rntk(z_s: Tensor, z_t: Tensor, *, depth: int, temperature: float) -> Tensor:
    """Returns LDRLD's remaining part, a scalar: T² mean_b KL over the classes below the top d.

    Both softmaxes run over the C - d classes outside the student's top d, teacher first. Zero at
    student = teacher.

    Args:
        z_s: Student logits ``[B, C]``.
        z_t: Teacher logits ``[B, C]``.
        depth: d, 2 <= d <= C - 2.
        temperature: T > 0.

    Raises:
        ValueError: The shapes differ or ``depth`` is out of bounds.

    Source:
        See `ldrld`.
    """
    top = _top_classes(z_s, z_t, depth)
    return _rntk(z_s / temperature, z_t / temperature, top) * temperature**2


def _top_classes(z_s: Tensor, z_t: Tensor, depth: int) -> Tensor:
    """Returns the classes of the student's d largest logits, descending, int64 ``[B, d]``."""
    require_same_shape(z_s, z_t, "[B, C]")
    classes = z_s.shape[1]
    if not 2 <= depth <= classes - 2:
        raise ValueError(
            f"2 <= depth <= classes - 2 must hold, but got depth={depth}, classes={classes}"
        )
    return z_s.detach().topk(depth, dim=1).indices


def _local(s: Tensor, t: Tensor, top: Tensor, include_group: bool) -> Tensor:
    """Returns `ldrld_local` / T² for logits that are already divided by T."""
    batch_size, depth = top.shape
    top_s, top_t = s.gather(1, top), t.gather(1, top)
    # All d x d differences at once; the weights are zero where rank i >= rank j.
    pairs = binary_kl(_differences(top_s), _differences(top_t))
    weighted = (pairs * _pair_weights(top_s, depth)).sum() / batch_size
    pair_count = depth * (depth - 1) // 2
    if not include_group:
        return weighted / pair_count
    return (weighted + mean_kl(top_s, top_t)) / (pair_count + 1)


def _rntk(s: Tensor, t: Tensor, top: Tensor) -> Tensor:
    """Returns `ldrld_rntk` / T² for logits that are already divided by T."""
    return mean_kl(without_classes(s, top), without_classes(t, top))


def _differences(z: Tensor) -> Tensor:
    """Returns z_i - z_j at ``[b, i, j]`` for scores ``[B, d]``."""
    return z.unsqueeze(2) - z.unsqueeze(1)


def _pair_weights(like: Tensor, depth: int) -> Tensor:
    """Returns the adaptive decay weights w_ij ``[d, d]``, zero unless i < j."""
    ranks = torch.arange(1, depth + 1, dtype=like.dtype, device=like.device)
    decay = torch.exp(-RANK_DECAY * ranks)
    # j - i, which is |i - j| above the diagonal, the only part that is kept.
    gap = ranks - ranks.unsqueeze(1)
    return (RANK_SCALE * torch.outer(decay, decay) / (GAP_OFFSET + gap)).triu(1)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    alpha = float(hyperparameters["alpha"])
    beta = float(hyperparameters["beta"])
    depth = int(hyperparameters["depth"])
    temperature = float(hyperparameters["temperature"])
    include_group = bool(hyperparameters["include_group"])

    def term(batch: Batch) -> Tensor:
        return ldrld(
            batch.student.logits,
            batch.teacher.logits,
            alpha=alpha,
            beta=beta,
            depth=depth,
            temperature=temperature,
            include_group=include_group,
        )

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    depth, classes = int(hyperparameters["depth"]), shapes.student.classes
    if classes < depth + 2:
        return (
            "ldrld needs at least 2 classes below the student's top depth, so classes must be "
            f">= depth + 2 = {depth + 2}, but got {classes} (depth <= {classes - 2} would do)"
        )
    return refuse_unequal_classes(shapes)


LDRLD = Method(
    name="ldrld",
    title="Local dense relational logit distillation",
    source="Xu et al., ICCV 2025, arXiv 2507.15911",
    reads=("logits",),
    hyperparameters=(
        Hyperparameter(
            "alpha",
            10.5,
            "weight of the local part: pairs and group of the top classes",
            low=0,
            search=(4, 12),
        ),
        Hyperparameter(
            "beta",
            7.0,
            "weight of RNTK, the classes below the top ones",
            low=0,
            search=(0.025, 9),
        ),
        Hyperparameter(
            "depth",
            7,
            "recursion depth d: how many of the student's top classes; at most classes - 2",
            low=2,
            search=(3, 9),
        ),
        Hyperparameter(
            "temperature",
            4.0,
            "divides both logits before every softmax; the loss carries T²",
            low=0,
            low_open=True,
            search=(1, 8),
        ),
        Hyperparameter(
            "include_group", True, "the local part also holds the KL over the whole top group"
        ),
    ),
    build=_build,
    refuse=_refuse,
)
