"""LDRLD: the relations among the student's top classes, pair by pair, and the rest."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
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
from kdscale.losses._numerics import (
    binary_kl,
    full_precision,
    mean_kl,
    require_same_shape,
    with_gradient,
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

    def composed(z_s: Tensor, z_t: Tensor) -> Tensor:
        s, t = z_s / temperature, z_t / temperature
        both = alpha * _local(s, t, top, include_group) + beta * _rntk(s, t, top)
        return both * temperature**2

    def fused(z_s: Tensor, z_t: Tensor) -> tuple[Tensor, Tensor]:
        # Of the loss's T², the 1 / T of the division leaves one T in the gradient.
        weights = alpha * temperature, beta * temperature
        value, gradient = _value_and_gradient(
            z_s / temperature, z_t / temperature, top, *weights, include_group
        )
        return value * temperature, gradient

    return with_gradient(composed, fused, z_s, z_t)


@full_precision
def ldrld_local(
    z_s: Tensor, z_t: Tensor, *, depth: int, temperature: float, include_group: bool = True
) -> Tensor:
    """Returns the local part of `ldrld`, a scalar: the weighted mean over pairs and group.

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
    """
    top = _top_classes(z_s, z_t, depth)
    return _local(z_s / temperature, z_t / temperature, top, include_group) * temperature**2


@full_precision
def ldrld_rntk(z_s: Tensor, z_t: Tensor, *, depth: int, temperature: float) -> Tensor:
    """Returns the remaining part of `ldrld`, a scalar: T² mean_b KL over the other classes.

    Both softmaxes run over the C - d classes outside the student's top d, teacher first. Zero at
    student = teacher.

    Args:
        z_s: Student logits ``[B, C]``.
        z_t: Teacher logits ``[B, C]``.
        depth: d, 2 <= d <= C - 2.
        temperature: T > 0.

    Raises:
        ValueError: The shapes differ or ``depth`` is out of bounds.
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
    top_s, top_t = s.gather(1, top), t.gather(1, top)
    # All d x d differences at once: the pairs (i, j) and (j, i) are one, so each counts half.
    pairs = binary_kl(_differences(top_s), _differences(top_t))
    weights = _pair_weights(top.shape[1], include_group, s.dtype, s.device)
    local = (pairs * weights).sum() / (2 * len(s))
    if include_group:
        # binary_kl is 0 on the diagonal, so the weight that waits there is the group's.
        local = local + weights[0, 0] * mean_kl(top_s, top_t)
    return local


def _rntk(s: Tensor, t: Tensor, top: Tensor) -> Tensor:
    """Returns `ldrld_rntk` / T² for logits that are already divided by T."""
    return mean_kl(without_classes(s, top), without_classes(t, top))


def _value_and_gradient(
    s: Tensor, t: Tensor, top: Tensor, alpha: float, beta: float, include_group: bool
) -> tuple[Tensor, Tensor]:
    """Returns alpha `_local` + beta `_rntk` and its gradient in the student's scores ``[B, C]``.

    Each part is Σ_c p_c (log p_c - log q_c) over some classes, p the teacher's softmax over them
    and q the student's; its gradient in the student's scores is q - p. A pair is the two-way
    softmax p_ij = σ(t_i - t_j), p_ji = 1 - p_ij: with symmetric weights w, zero at i = j, all
    pairs together are Σ_ij w_ij p_ij (log p_ij - log q_ij), and the gradient in the i-th score is
    Σ_j w_ij (q_ij - p_ij). So one d x d matrix an image serves, without a list of pairs. Its
    diagonal is free: the softmax over the group goes there. Overwrites ``s`` and ``t``.
    """
    batch_size, depth = top.shape
    weights = _kept_pair_weights(depth, include_group, s.dtype, s.device) * (alpha / batch_size)
    top_scores = torch.stack((s.gather(1, top), t.gather(1, top)))
    logs = F.logsigmoid(_differences(top_scores))
    logs.diagonal(dim1=2, dim2=3).copy_(top_scores.log_softmax(dim=2))
    (log_q, log_p), (q, p) = logs, logs.exp()
    local = (p * weights).mul_(log_p - log_q).sum()
    of_top = q.sub_(p).mul_(weights).sum(dim=2)

    # The top classes leave the softmax over the rest as in `without_classes`: there q = p = 0.
    low = torch.finfo(s.dtype).min / 2
    log_q = s.scatter_(1, top, low).log_softmax(dim=1)
    log_p = t.scatter_(1, top, low).log_softmax(dim=1)
    gain = torch.sub(log_p, log_q, out=t)
    q, p = log_q.exp_(), log_p.exp_()
    rest = gain.mul_(p).sum()
    gradient = q.sub_(p).mul_(beta / batch_size).scatter_(1, top, of_top)
    return local.add(rest, alpha=beta / batch_size), gradient


def _differences(z: Tensor) -> Tensor:
    """Returns z_i - z_j at ``[..., i, j]`` for scores ``[..., d]``."""
    return z.unsqueeze(-1) - z.unsqueeze(-2)


def _pair_weights(
    depth: int, include_group: bool, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Returns the adaptive decay weights w_ij of the mean over pairs and group ``[d, d]``.

    They are symmetric. The diagonal holds the group's weight, 0 if there is no group.
    """
    ranks = torch.arange(1, depth + 1, dtype=dtype, device=device)
    decay = torch.exp(-RANK_DECAY * ranks)
    gap = (ranks - ranks.unsqueeze(1)).abs()
    weights = RANK_SCALE * torch.outer(decay, decay) / (GAP_OFFSET + gap)
    weights = weights.fill_diagonal_(1.0 if include_group else 0.0)
    return weights / (depth * (depth - 1) // 2 + include_group)


@functools.cache
def _kept_pair_weights(
    depth: int, include_group: bool, dtype: torch.dtype, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):  # what an evaluation keeps must serve training too
        return _pair_weights(depth, include_group, dtype, device)


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
