"""OFD: match features before ReLU, up to a margin where the teacher's neuron is off.

The connector's BatchNorm looks across the batch, so features are gathered over all workers and the
loss does not depend on their number; ``per_worker`` leaves that out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._connectors import (
    Connector,
    compared_shapes,
    needs_preactivations,
    refuse_one_value,
    refuse_preactivations,
    sum_of_squares,
    total,
)
from kdscale.losses._method import Method, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_maps
from kdscale.losses._stages import refuse_stages, stage_pairs, stages_hyperparameter
from kdscale.records import Value

SMALLEST_MASS = 1e-3


@full_precision
def ofd_margin(weight: Tensor, bias: Tensor) -> Tensor:
    """Returns each channel's margin m <= 0, ``[C]``: the mean of a neuron's values below 0.

    The values before the ReLU are taken for normal with the mean μ and standard deviation σ that
    the BatchNorm before it gives them, so m = E[x | x < 0] = μ - σ φ(μ/σ) / Φ(-μ/σ). Where no more
    than 0.001 of the mass is below 0, m = -3σ. At weight 0, where the official code divides by 0,
    m is the limit: min(μ, 0).

    Args:
        weight: The BatchNorm's scale ``[C]``; σ is its absolute value.
        bias: The BatchNorm's shift μ, ``[C]``.

    Source:
        See `ofd`; ``get_margin_from_BN`` of clovaai/overhaul-distillation, which rounds the
        margins to float32.
    """
    std = weight.abs()
    some = std > 0
    ratio = bias / torch.where(some, std, torch.ones_like(std))
    below = torch.special.ndtr(-ratio)
    density = torch.exp(-0.5 * ratio.square()) * (0.5 / torch.pi) ** 0.5
    mean_below = bias - std * density / below.clamp_min(SMALLEST_MASS)
    margin = torch.where(below > SMALLEST_MASS, mean_below, -3 * std)
    return torch.where(some, margin, bias.clamp_max(0))


@full_precision
def ofd(f_s: Tensor, f_t: Tensor, margin: Tensor) -> Tensor:
    """Returns (1/B) Σ (f_s - t)² over the entries with f_s > t or t > 0, t = max(f_t, margin).

    So a neuron that is on in the teacher is matched exactly, and one that is off only has to be as
    low as the teacher's value or the margin. Reduction: **sum** over C·H·W, mean over the batch.
    No temperature. Zero at student = teacher where f_t >= margin.

    Args:
        f_s: Student features before ReLU, after the connector, ``[B, C, H, W]``.
        f_t: Teacher features before ReLU, same shape; nothing is detached here.
        margin: Of each channel, <= 0, ``[C]``; see `ofd_margin`.

    Raises:
        ValueError: The two maps' shapes differ.

    Source:
        Heo et al.: A Comprehensive Overhaul of Feature Distillation, ICCV 2019, arXiv 1904.01866.
        Official values: mdistiller ``distillers/OFD.py``; the authors'
        clovaai/overhaul-distillation ``CIFAR-100/distiller.py`` has the same loss in another form.
        The 1/1000 of the authors' training loop is mdistiller's weight, 0.001, and the method's
        here (1e-4 on ImageNet). That loop also leaves the teacher's BatchNorms in training mode;
        mdistiller and kdscale do not. Unequal grids, which the authors' code cannot take: the
        teacher's map is pooled to the student's grid, as in mdistiller.
    """
    require_same_maps(f_s, f_t)
    target = torch.maximum(f_t, margin.view(1, -1, 1, 1))
    difference = f_s - target
    counted = difference * ((difference > 0) | (target > 0))
    return sum_of_squares(counted) / len(f_s)


class _Term(nn.Module):
    """Σ over the n stages of OFD, stage l = 1 .. n weighing 2^(l - n)."""

    def __init__(self, pairs: list[tuple[int, int]], connectors: list[Connector]) -> None:
        super().__init__()
        self.pairs = pairs
        self.connectors = nn.ModuleList(connectors)

    def forward(self, batch: Batch) -> Tensor:
        losses = []
        for level, (s, t) in enumerate(self.pairs, start=1):
            f_s = self.connectors[level - 1](batch.student.preactivations[s])
            f_t = batch.teacher.preactivations[t]
            if f_t.shape[2:] != f_s.shape[2:]:
                f_t = F.adaptive_avg_pool2d(f_t, f_s.shape[2:])
            loss = ofd(f_s, f_t, ofd_margin(*batch.teacher.norms[t]))
            losses.append(loss * 2.0 ** (level - len(self.pairs)))
        return total(losses)


def _connector(student_channels: int, teacher_channels: int) -> Connector:
    connector = Connector(student_channels, teacher_channels)
    nn.init.kaiming_normal_(connector.conv.weight, mode="fan_out")
    return connector


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    stages = str(hyperparameters["stages"])
    connectors = [_connector(s[0], t[0]) for s, t in compared_shapes(shapes, stages)]
    return _Term(stage_pairs(shapes, stages), connectors)


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    stages = str(hyperparameters["stages"])
    if reason := refuse_stages(shapes, stages) or refuse_preactivations(shapes):
        return reason
    if not shapes.teacher.norms:
        return (
            "the teacher must have a BatchNorm before its stages' last ReLU, for ofd's margins, "
            "but this model has not"
        )
    return refuse_one_value(shapes.batch_size, [s for s, _ in compared_shapes(shapes, stages)])


OFD = Method(
    name="ofd",
    title="Overhaul of feature distillation",
    source="Heo et al., ICCV 2019, arXiv 1904.01866",
    reads=("pre-activations", "adaptor"),
    hyperparameters=(
        stages_hyperparameter("all", "the stages compared, each half the weight of the next"),
    ),
    build=_build,
    needs=needs_preactivations,
    refuse=_refuse,
    couples_batch=True,
    weight=1e-3,
)
