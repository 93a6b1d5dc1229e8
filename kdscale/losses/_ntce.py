"""NTCE-KD: KD many times over, with the teacher's lead taken off the top class by degrees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from kdscale.losses._numerics import full_precision, require_same_shape, without_classes
from kdscale.outputs import present
from kdscale.records import Value

PUBLISHED_WEIGHT = 8.0


@full_precision
def ntce(
    z_s: Tensor, z_t: Tensor, target: Tensor, *, temperature: float, factors: Sequence[float]
) -> Tensor:
    """Returns MKL, the mean over the factors φ of KD with shrunk margins, a scalar.

    With g = largest - second largest teacher logit of a sample, τ the teacher's top class and y
    the label, a factor's part is T² mean_b KL(softmax((z_t - φ g e_τ) / T) ‖ softmax((z_s - φ g
    e_y) / T)). Reduction: sum over classes, mean over the batch and over the factors; T² is
    inside. With the one factor 0 it is `kd`. At student = teacher it is 0 where the teacher's top
    class is the label.

    One logit changes from factor to factor, so all of them come from one log-softmax of each
    network: with p the top class's probability under a factor, r the teacher's distribution over
    the other classes and l the student's log-probabilities, KL = p (log p - l_τ) + (1 - p)
    (log(1 - p) + Σ_c r_c (log r_c - l_c)) + p_t(y) φ g / T + log Σ_c exp(l_c - [c = y] φ g / T).

    Args:
        z_s: Student logits ``[B, C]``, C > 1.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        target: Labels y, int64 ``[B]``.
        temperature: T > 0.
        factors: φ, how many times the margin is taken off; negative ones add it.

    Raises:
        ValueError: The shapes of the logits differ.

    Source:
        Li et al.: NTCE-KD: Non-Target-Class-Enhanced Knowledge Distillation, Sensors 24(11):3617,
        2024, not on arXiv; official code lan-long/NTCE-KD ``mdistiller/distillers/NTCE.py``. The
        margin is taken off the student's label, not off its own top class. Official training
        multiplies the term by min(epoch / 20, 1); not done here. The released branch of the second
        view (``ISAUG``) cannot run: it unpacks three values from two, and would multiply by the
        number of factors where it should divide. Only the "MKL" rows follow from the code; the
        method's ``second_view`` is the paper's mean over two views.
    """
    require_same_shape(z_s, z_t, "[B, C]")
    y = target.unsqueeze(1)
    two, ranks = z_t.topk(2, dim=1)
    top = ranks[:, :1]
    phi = torch.tensor(factors, dtype=z_t.dtype, device=z_t.device)
    shifts = (two[:, :1] - two[:, 1:]) * (phi / temperature)  # [B, K]

    t = z_t / temperature
    others = without_classes(t, top)
    log_sum = others.logsumexp(dim=1, keepdim=True)
    log_r = others - log_sum
    lead = t.gather(1, top) - log_sum - shifts
    log_p, log_rest = F.logsigmoid(lead), F.logsigmoid(-lead)
    p, rest = log_p.exp(), log_rest.exp()
    p_y = torch.where(y == top, p, rest * log_r.gather(1, y).exp())

    log_q = F.log_softmax(z_s / temperature, dim=1)
    log_q_y = log_q.gather(1, y)
    not_y = without_classes(log_q, y).logsumexp(dim=1, keepdim=True)
    log_total = torch.logaddexp(not_y.expand_as(shifts), log_q_y - shifts)
    below = F.kl_div(log_q, log_r, reduction="none", log_target=True).sum(dim=1, keepdim=True)

    kl = p * (log_p - log_q.gather(1, top)) + rest * (log_rest + below) + p_y * shifts + log_total
    return kl.mean() * temperature**2


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    temperature = float(hyperparameters["temperature"])
    factors = read_numbers(hyperparameters["factors"])
    strong_ce = float(hyperparameters["strong_ce"])

    def one_view(batch: Batch) -> Tensor:
        return ntce(
            batch.student.logits,
            batch.teacher.logits,
            batch.target,
            temperature=temperature,
            factors=factors,
        )

    def two_views(batch: Batch) -> Tensor:
        z_s2, z_t2 = present(batch.student_2).logits, present(batch.teacher_2).logits
        strong = ntce(z_s2, z_t2, batch.target, temperature=temperature, factors=factors)
        mean = (one_view(batch) + strong) / 2
        return mean + strong_ce * F.cross_entropy(z_s2, batch.target)

    return two_views if hyperparameters["second_view"] else one_view


def _needs(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Needs:
    return Needs(second_view=bool(hyperparameters["second_view"]))


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unequal_classes(shapes)


NTCE = Method(
    name="ntce",
    title="Non-target-class-enhanced knowledge distillation",
    source="Li et al., Sensors 24(11):3617, 2024, not on arXiv",
    reads=("logits", "labels", "second view"),
    hyperparameters=(
        Hyperparameter(
            "temperature",
            4.0,
            "divides both logits before the softmax; the loss carries T²",
            low=0,
            low_open=True,
            search=(1, 8),
        ),
        Hyperparameter(
            "factors",
            "2 1.5 1 0.5 0 -0.5 -1",
            "how many times the teacher's margin is taken off; the loss is the mean over them",
            pattern=NUMBERS,
            pattern_help='numbers apart by spaces, as in "2 1.5 -1"',
        ),
        Hyperparameter(
            "second_view",
            False,
            "the mean over two views (DDA), the second one by kdscale's strong augmentation",
        ),
        Hyperparameter(
            "strong_ce",
            0.5 / PUBLISHED_WEIGHT,
            "weight of the strong view's cross-entropy inside this term; second_view alone; "
            "times the published weight 8 it is 0.5, beside the objective's ce_weight 0.5",
            low=0,
            search=(0, 1),
        ),
    ),
    build=_build,
    needs=_needs,
    refuse=_refuse,
    weight=PUBLISHED_WEIGHT,
)
