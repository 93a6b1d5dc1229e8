"""OFA + RSD: OFA's projected logits under RSD's loss, as in tables 6 and 7 of RSD.

Table 6 keeps OFA's projectors and puts the logit form of `rsd` in the place of both OFA losses, on
the final logits and on every stage. Table 7 adds the logit form on the projected logits of stages
{4}, {3, 4}, {2, 3, 4} or {1, 2, 3, 4} to the embedding form: an objective of ``rsd`` and
``ofa_rsd`` with ``final: false``. Lambda and kappa of these tables are not public in any place that
could be read: both default to those of ``rsd``. Stages are numbered as in `StageProjectors`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kdscale.losses._batch import Batch
from kdscale.losses._method import Hyperparameter, Method, Needs, PairShapes, Term
from kdscale.losses._ofa_projectors import (
    PROJECTOR,
    STAGES,
    StageProjectors,
    refuse_projectors,
    stage_needs,
)
from kdscale.losses._rsd import rsd
from kdscale.outputs import LOGITS
from kdscale.records import Value


class _OFARSDTerm(nn.Module):
    """lambda x (Σ over stages RSD of projected logits + RSD of the final logits if chosen)."""

    def __init__(
        self, projectors: StageProjectors, lambda_: float, kappa: float, *, final: bool
    ) -> None:
        super().__init__()
        self.projectors = projectors
        self.lambda_ = lambda_
        self.kappa = kappa
        self.final = final

    def forward(self, batch: Batch) -> Tensor:
        logits = [*self.projectors(batch.student), *([batch.student.logits] * self.final)]
        parts = [rsd(z_s, batch.teacher.logits, kappa=self.kappa) for z_s in logits]
        return self.lambda_ * torch.stack(parts).sum()


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    return _OFARSDTerm(
        StageProjectors(shapes, hyperparameters),
        float(hyperparameters["lambda"]),
        float(hyperparameters["kappa"]),
        final=bool(hyperparameters["final"]),
    )


def _needs(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Needs:
    return Needs(LOGITS | stage_needs(shapes, hyperparameters))


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    if shapes.batch_size < 2:
        return (
            "ofa_rsd normalises over the batch, so the global batch must hold at least 2 images "
            f"(32 or more are advised), but got {shapes.batch_size}"
        )
    return refuse_projectors(shapes, hyperparameters)


OFA_RSD = Method(
    name="ofa_rsd",
    title="OFA's projectors under the logit form of RSD",
    source="Zhang et al., ICCV 2025, arXiv 2507.21844, tables 6 and 7",
    reads=("logits", "stages", "adaptor"),
    hyperparameters=(
        STAGES,
        PROJECTOR,
        Hyperparameter(
            "final",
            True,
            "the final logits too: true for table 6, false beside rsd's embeddings for table 7",
        ),
        Hyperparameter(
            "lambda",
            0.1,
            "weight of the loss, which sums over C² entries and over the stages",
            low=0,
            search=(1e-3, 1),
        ),
        Hyperparameter(
            "kappa", 0.01, "weight of the off-diagonal correlations", low=0, search=(1e-4, 1)
        ),
    ),
    build=_build,
    needs=_needs,
    refuse=_refuse,
    couples_batch=True,
)
