"""MLLD: instances, batch and classes at several temperatures, in a weak and a strong view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import (
    NUMBERS,
    Hyperparameter,
    Method,
    Needs,
    PairShapes,
    Term,
    read_numbers,
    refuse_unequal_classes,
)
from kdscale.losses._numerics import full_precision, kl_rows, require_same_shape
from kdscale.outputs import present
from kdscale.records import Value

# The official strong instance term takes the weak view's logits at all later temperatures.
STRONG_TEMPERATURES = 3


@full_precision
def mlld(
    z_s: Tensor,
    z_t: Tensor,
    z_s2: Tensor,
    z_t2: Tensor,
    *,
    temperatures: Sequence[float],
    official_quirks: bool = True,
) -> Tensor:
    """Returns `mlld_instance` + `mlld_batch` + `mlld_class`, a scalar.

    Reduction: sum over the temperatures; see the three parts. T² is inside the instance part
    alone. Zero at student = teacher. The published weight 0.9 and both cross-entropies are not
    in it.

    Args:
        z_s: Student logits of the weak view ``[B, C]``.
        z_t: Teacher logits of the weak view ``[B, C]``; nothing is detached here.
        z_s2: Student logits of the strong view ``[B, C]``.
        z_t2: Teacher logits of the strong view ``[B, C]``.
        temperatures: Each > 0.
        official_quirks: Computes what the official code computes; see Source.

    Raises:
        ValueError: The shapes differ.

    Source:
        Jin, Wang, Lin: Multi-Level Logit Distillation, CVPR 2023, not on arXiv. Official code:
        Jin-Ying/Multi-Level-Logit-Distillation ``mdistiller/distillers/KD_ours.py``. It keeps a
        sample where the teacher's weak confidence is at most the batch's median, a class where its
        summed probability is. ``official_quirks`` has the quirks that the published numbers were
        made with: (a) weak parts are scalars before they meet a mask, so that they are multiplied
        by the fraction kept, about 0.5, and nothing is left out; (b) from the fourth temperature
        on the strong instance part takes the weak view's logits; (c) batch and class parts of the
        strong view are computed but never returned. Without it masks leave samples and classes out
        (they still count in the means), and the strong view has all three parts: instances and
        classes without a mask, the batch with the weak view's, as the code would.
    """
    weak, strong = _views(z_s, z_t, z_s2, z_t2, temperatures, official_quirks)
    confidence = torch.softmax(z_t, dim=1)
    return (
        _instance(weak, strong, confidence, official_quirks)
        + _batch(weak, strong, confidence, official_quirks)
        + _classes(weak, strong, confidence, official_quirks)
    )


@full_precision
def mlld_instance(
    z_s: Tensor,
    z_t: Tensor,
    z_s2: Tensor,
    z_t2: Tensor,
    *,
    temperatures: Sequence[float],
    official_quirks: bool = True,
) -> Tensor:
    """Returns Σ_T of T² mean_b KL, teacher first, the weak view masked by sample; see `mlld`."""
    weak, strong = _views(z_s, z_t, z_s2, z_t2, temperatures, official_quirks)
    return _instance(weak, strong, torch.softmax(z_t, dim=1), official_quirks)


@full_precision
def mlld_batch(
    z_s: Tensor,
    z_t: Tensor,
    z_s2: Tensor,
    z_t2: Tensor,
    *,
    temperatures: Sequence[float],
    official_quirks: bool = True,
) -> Tensor:
    """Returns Σ_T of `mlld_batch_rows`, masked by sample; see `mlld`."""
    weak, strong = _views(z_s, z_t, z_s2, z_t2, temperatures, official_quirks)
    return _batch(weak, strong, torch.softmax(z_t, dim=1), official_quirks)


@full_precision
def mlld_class(
    z_s: Tensor,
    z_t: Tensor,
    z_s2: Tensor,
    z_t2: Tensor,
    *,
    temperatures: Sequence[float],
    official_quirks: bool = True,
) -> Tensor:
    """Returns Σ_T of `mlld_class_rows`, the weak view masked by class; see `mlld`."""
    weak, strong = _views(z_s, z_t, z_s2, z_t2, temperatures, official_quirks)
    return _classes(weak, strong, torch.softmax(z_t, dim=1), official_quirks)


@full_precision
def mlld_batch_rows(z_s: Tensor, z_t: Tensor, *, temperatures: Sequence[float]) -> Tensor:
    """Returns the rows of ‖P_t P_tᵀ - P_s P_sᵀ‖² / B, ``[K, B]``, whose sum is one view's part.

    P is softmax(z / T) ``[B, C]`` at each of K temperatures; a row is one sample's relations.
    """
    require_same_shape(z_s, z_t, "[B, C]")
    return _View(z_s, z_t, temperatures).batch_rows()


@full_precision
def mlld_class_rows(z_s: Tensor, z_t: Tensor, *, temperatures: Sequence[float]) -> Tensor:
    """Returns the rows of ‖P_tᵀ P_t - P_sᵀ P_s‖² / C, ``[K, C]``, whose sum is one view's part.

    P is softmax(z / T) ``[B, C]`` at each of K temperatures; a row is one class's relations.
    """
    require_same_shape(z_s, z_t, "[B, C]")
    return _View(z_s, z_t, temperatures).class_rows()


class _View:
    """One view's logits at all temperatures, softened once for all three parts."""

    def __init__(self, z_s: Tensor, z_t: Tensor, temperatures: Sequence[float]) -> None:
        self._z_s, self._z_t = z_s, z_t
        self._scale = torch.tensor(temperatures, dtype=z_s.dtype, device=z_s.device)

    @cached_property
    def log_q(self) -> Tensor:
        """The student's log-softmaxes ``[K, B, C]``."""
        return F.log_softmax(self._z_s / self._scale[:, None, None], dim=2)

    @cached_property
    def log_p(self) -> Tensor:
        """The teacher's log-softmaxes ``[K, B, C]``."""
        return F.log_softmax(self._z_t / self._scale[:, None, None], dim=2)

    def instance_rows(self) -> Tensor:
        """Returns T² KL / B of each sample at each temperature, ``[K, B]``."""
        rows = kl_rows(self.log_q, self.log_p)
        return rows * (self._scale.square().unsqueeze(1) / rows.shape[1])

    def batch_rows(self) -> Tensor:
        """Returns `mlld_batch_rows`."""
        return _gram_gaps(self.log_q.exp(), self.log_p.exp()) / self.log_q.shape[1]

    def class_rows(self) -> Tensor:
        """Returns `mlld_class_rows`."""
        return _gram_gaps(self.log_q.exp().mT, self.log_p.exp().mT) / self.log_q.shape[2]


def _views(
    z_s: Tensor,
    z_t: Tensor,
    z_s2: Tensor,
    z_t2: Tensor,
    temperatures: Sequence[float],
    official_quirks: bool,
) -> tuple[_View, _View]:
    require_same_shape(z_s, z_t, "[B, C]")
    require_same_shape(z_s2, z_t2, "[B, C]")
    require_same_shape(z_s, z_s2, "[B, C] in both views")
    of_strong = temperatures[:STRONG_TEMPERATURES] if official_quirks else temperatures
    return _View(z_s, z_t, temperatures), _View(z_s2, z_t2, of_strong)


def _instance(weak: _View, strong: _View, confidence: Tensor, official_quirks: bool) -> Tensor:
    mask = _kept(confidence.amax(dim=1))
    rows, strong_rows = weak.instance_rows(), strong.instance_rows()
    if not official_quirks:
        return (rows * mask).sum() + strong_rows.sum()
    return rows.sum() * mask.mean() + strong_rows.sum() + rows[STRONG_TEMPERATURES:].sum()


def _batch(weak: _View, strong: _View, confidence: Tensor, official_quirks: bool) -> Tensor:
    mask = _kept(confidence.amax(dim=1))
    if official_quirks:
        return weak.batch_rows().sum() * mask.mean()
    return ((weak.batch_rows() + strong.batch_rows()) * mask).sum()


def _classes(weak: _View, strong: _View, confidence: Tensor, official_quirks: bool) -> Tensor:
    mask = _kept(confidence.sum(dim=0))
    if official_quirks:
        return weak.class_rows().sum() * mask.mean()
    return (weak.class_rows() * mask).sum() + strong.class_rows().sum()


def _kept(confidence: Tensor) -> Tensor:
    """Returns 1 where a value is at most the median (the mean of the middle two), else 0."""
    return (confidence <= confidence.detach().quantile(0.5)).to(confidence.dtype)


def _gram_gaps(x_s: Tensor, x_t: Tensor) -> Tensor:
    """Returns Σ_j (X_t X_tᵀ - X_s X_sᵀ)²_ij for X ``[K, n, d]``: ``[K, n]``.

    For n > 3 d, where it is less work, row i of the difference is taken as (D S_i + S D_i) / 2
    with D = X_t - X_s and S = X_t + X_s, so that its square needs DᵀD, SᵀS and DᵀS alone.
    """
    if x_s.shape[1] <= 3 * x_s.shape[2]:
        return (x_t @ x_t.mT - x_s @ x_s.mT).square().sum(dim=2)
    d, s = x_t - x_s, x_t + x_s
    squares = (s @ (d.mT @ d)) * s + (d @ (s.mT @ s)) * d + 2 * (s @ (d.mT @ s)) * d
    return squares.sum(dim=2) / 4


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    temperatures = read_numbers(hyperparameters["temperatures"])
    w_kd = float(hyperparameters["w_kd"])
    strong_ce = float(hyperparameters["strong_ce"])
    official_quirks = bool(hyperparameters["official_quirks"])

    def term(batch: Batch) -> Tensor:
        z_s2 = present(batch.student_2).logits
        distillation = mlld(
            batch.student.logits,
            batch.teacher.logits,
            z_s2,
            present(batch.teacher_2).logits,
            temperatures=temperatures,
            official_quirks=official_quirks,
        )
        return w_kd * distillation + strong_ce * F.cross_entropy(z_s2, batch.target)

    return term


def _needs(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Needs:
    return Needs(second_view=True)


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    temperatures = hyperparameters["temperatures"]
    if min(read_numbers(temperatures)) <= 0:
        return f'every temperature must be > 0, but got "{temperatures}"'
    return refuse_unequal_classes(shapes)


MLLD = Method(
    name="mlld",
    title="Multi-level logit distillation",
    source="Jin, Wang, Lin, CVPR 2023, not on arXiv",
    reads=("logits", "labels", "second view"),
    hyperparameters=(
        Hyperparameter(
            "temperatures",
            "4 3 5 2 6",
            "every part is summed over these; instances carry T²",
            pattern=NUMBERS,
            pattern_help='numbers apart by spaces, as in "4 3 5 2 6"',
        ),
        Hyperparameter(
            "w_kd",
            0.9,
            "weight of the three levels, beside strong_ce and ce_weight 0.1 of the objective",
            low=0,
            search=(0.1, 2),
        ),
        Hyperparameter(
            "strong_ce",
            0.1,
            "weight of the strong view's cross-entropy, which is inside this term",
            low=0,
            search=(0, 1),
        ),
        Hyperparameter(
            "official_quirks",
            True,
            "as the official code: masks scale instead of leaving out, no strong relations",
        ),
    ),
    build=_build,
    refuse=_refuse,
    needs=_needs,
    couples_batch=True,
)
