"""OFA: teach each stage of the student in the space of logits, where all architectures meet."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._method import Hyperparameter, Method, Needs, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_shape
from kdscale.losses._ofa_projectors import (
    PROJECTOR,
    STAGES,
    StageProjectors,
    refuse_projectors,
    stage_needs,
)
from kdscale.outputs import LOGITS
from kdscale.records import Value


@full_precision
def ofa(
    z_s: Tensor, z_t: Tensor, target: Tensor, *, eps: float, temperature: float = 1.0
) -> Tensor:
    """Returns -mean_b Σ_c w_c log softmax(z_s / T)_c, a scalar: the target class weighs more.

    With p = softmax(z_t / T) the weights are w_c = p_c^eps, and (1 + p_c)^eps - 1 for the label's
    class. Reduction: sum over classes, mean over the batch. No T². It is a cross-entropy, not a
    KL: at eps = 1 the cross-entropy with the teacher's probabilities, whose minimum, at
    student = teacher, is the teacher's entropy. For eps > 1 the weights of a sample do not sum
    to 1, and the minimum lies nearer the label.

    Args:
        z_s: Student logits ``[B, C]``, final or of a stage's projector.
        z_t: Teacher logits ``[B, C]``; nothing is detached here.
        target: Labels, int64 ``[B]``.
        eps: Exponent, > 0; above 1 it strengthens the label's class.
        temperature: T > 0.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Hao et al.: One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge
        Distillation, NeurIPS 2023, arXiv 2310.19444; official code Hao840/OFAKD
        ``distillers/ofa.py``. The paper raises the label's class alone to the exponent (gamma
        there) and keeps the 1 in (1 + p)^gamma, which is the label's cross-entropy; the code,
        followed here, raises all classes and takes the 1 out, because the cross-entropy stands
        by itself. The code's log(softmax) is a log_softmax here. The code can take an exponent for
        each stage; here all stages share one (``eps_stage``).
    """
    require_same_shape(z_s, z_t, "[B, C]")
    log_p = F.log_softmax(z_t / temperature, dim=1)
    label = target.unsqueeze(1)
    enhanced = torch.expm1(eps * torch.log1p(log_p.gather(1, label).exp()))
    weights = (eps * log_p).exp().scatter(1, label, enhanced)
    return -(weights * F.log_softmax(z_s / temperature, dim=1)).sum(dim=1).mean()


class _OFATerm(nn.Module):
    """w_kd x OFA of the final logits + w_ofa x Σ OFA of the stages' projected logits."""

    def __init__(self, projectors: StageProjectors, hyperparameters: Mapping[str, Value]) -> None:
        super().__init__()
        self.projectors = projectors
        self.weights = float(hyperparameters["w_kd"]), float(hyperparameters["w_ofa"])
        self.exponents = float(hyperparameters["eps_last"]), float(hyperparameters["eps_stage"])
        self.temperature = float(hyperparameters["temperature"])

    def forward(self, batch: Batch) -> Tensor:
        final = self._ofa(batch.student.logits, batch, self.exponents[0])
        stages = [
            self._ofa(logits, batch, self.exponents[1]) for logits in self.projectors(batch.student)
        ]
        return self.weights[0] * final + self.weights[1] * torch.stack(stages).sum()

    def _ofa(self, logits: Tensor, batch: Batch, eps: float) -> Tensor:
        teacher = batch.teacher.logits
        return ofa(logits, teacher, batch.target, eps=eps, temperature=self.temperature)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    return _OFATerm(StageProjectors(shapes, hyperparameters), hyperparameters)


def _needs(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Needs:
    return Needs(LOGITS | stage_needs(shapes, hyperparameters))


OFA = Method(
    name="ofa",
    title="One-for-all knowledge distillation",
    source="Hao et al., NeurIPS 2023, arXiv 2310.19444",
    reads=("logits", "labels", "stages", "adaptor"),
    hyperparameters=(
        STAGES,
        PROJECTOR,
        Hyperparameter(
            "eps_last",
            1.0,
            "exponent for the final logits",
            low=0,
            low_open=True,
            search=(1, 2),
        ),
        Hyperparameter(
            "eps_stage",
            1.0,
            "exponent for the stages' logits (1.5 for DeiT to ResNet-18 on ImageNet)",
            low=0,
            low_open=True,
            search=(1, 2),
        ),
        Hyperparameter("w_kd", 1.0, "weight of the final logits' loss", low=0, search=(0.1, 2)),
        Hyperparameter(
            "w_ofa", 1.0, "weight of the sum over the stages' losses", low=0, search=(0.1, 2)
        ),
        Hyperparameter(
            "temperature", 1.0, "divides all logits; no T² in the loss", low=0, low_open=True
        ),
    ),
    build=_build,
    needs=_needs,
    refuse=refuse_projectors,
    couples_batch=True,
)
