"""AB: move the student's activation boundaries, where its neurons switch on, to the teacher's.

The connector's BatchNorm looks across the batch, so features are gathered over all workers and the
loss does not depend on their number; ``per_worker`` leaves that out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._connectors import (
    MapShape,
    SizeRegressor,
    compared_shapes,
    needs_preactivations,
    refuse_preactivations,
    refuse_regressor,
    sum_of_squares,
    total,
)
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_maps
from kdscale.losses._stages import stage_pairs, stages_hyperparameter
from kdscale.records import Value

SCALE = 3 / 1000


@full_precision
def ab(f_s: Tensor, f_t: Tensor, *, margin: float = 1.0) -> Tensor:
    """Returns 3/1000 · (1/B) Σ h², a scalar, h the hinge that pushes f_s to f_t's side of 0.

    h = max(0, margin + f_s) where the teacher's neuron is off (f_t <= 0) and max(0, margin - f_s)
    where it is on, so only the teacher's sign counts. Reduction: **sum** over C·H·W, mean over the
    batch, times 3/1000. No temperature. Zero where the student's neurons are on the teacher's side
    by at least the margin; so not zero at student = teacher, unless |f_t| >= margin.

    Args:
        f_s: Student features before ReLU, after the connector, ``[B, C, H, W]``.
        f_t: Teacher features before ReLU, same shape; nothing is detached here.
        margin: The distance to 0 that is asked for.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Heo et al.: Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden
        Neurons, AAAI 2019, arXiv 1811.03233. Official values: RepDistiller
        ``distiller_zoo/AB.py``; the authors' bhheo/AB_distillation
        ``cifar10_AB_distillation.py`` has the same loss, and 1/1000 times a multiplier in its
        transfer-learning networks. Both train with this loss alone first (30 epochs in
        RepDistiller) and without it afterwards: a study says ``stop_epoch: 30`` for the term and
        ``ce_start_epoch: 31``. Connectors are RepDistiller's (a convolution with bias that also
        matches grids); the authors' have no bias and suppose equal grids. Afterwards the authors
        train with KD alone (T = 3), RepDistiller with cross-entropy, or with both.
    """
    require_same_maps(f_s, f_t)
    sign = torch.where(f_t > 0, -1.0, 1.0).to(f_s.dtype)
    hinge = torch.addcmul(f_s.new_full((), margin), f_s, sign).relu()
    return sum_of_squares(hinge) * (SCALE / len(f_s))


class _Term(nn.Module):
    """Σ over the n stages of AB, stage l = 1 .. n weighing 2^(l - n)."""

    def __init__(
        self, pairs: list[tuple[int, int]], connectors: list[nn.Module], margin: float
    ) -> None:
        super().__init__()
        self.pairs = pairs
        self.connectors = nn.ModuleList(connectors)
        self.margin = margin

    def forward(self, batch: Batch) -> Tensor:
        losses = []
        for level, (s, t) in enumerate(self.pairs, start=1):
            f_s = self.connectors[level - 1](batch.student.preactivations[s])
            loss = ab(f_s, batch.teacher.preactivations[t], margin=self.margin)
            losses.append(loss * 2.0 ** (level - len(self.pairs)))
        return total(losses)


def _connector(student: MapShape, teacher: MapShape) -> nn.Module:
    """Returns convolution -> BatchNorm, or the identity between equal shapes, as RepDistiller."""
    return nn.Identity() if student == teacher else SizeRegressor(student, teacher, relu=False)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    stages = str(hyperparameters["stages"])
    connectors = [_connector(s, t) for s, t in compared_shapes(shapes, stages)]
    return _Term(stage_pairs(shapes, stages), connectors, float(hyperparameters["margin"]))


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_regressor(shapes, str(hyperparameters["stages"])) or refuse_preactivations(shapes)


AB = Method(
    name="ab",
    title="Activation boundaries",
    source="Heo et al., AAAI 2019, arXiv 1811.03233",
    reads=("pre-activations", "adaptor"),
    hyperparameters=(
        stages_hyperparameter("all", "the stages compared, each half the weight of the next"),
        Hyperparameter("margin", 1.0, "distance from 0 asked of the student's neurons", low=0),
    ),
    build=_build,
    needs=needs_preactivations,
    refuse=_refuse,
    couples_batch=True,
)
