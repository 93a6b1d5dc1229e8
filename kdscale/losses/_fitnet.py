"""FitNet: regress the teacher's feature map from the student's.

The regressor's BatchNorm looks across the batch, so features are gathered over all workers and the
loss does not depend on their number; ``per_worker`` leaves that out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._connectors import (
    AdaptedStages,
    SizeRegressor,
    compared_shapes,
    needs_stages,
    refuse_regressor,
)
from kdscale.losses._method import Method, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_maps
from kdscale.losses._stages import stage_pairs, stages_hyperparameter
from kdscale.records import Value


@full_precision
def fitnet(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Returns mean (f_s - f_t)², a scalar.

    Reduction: mean over all B·C·H·W elements. No temperature. Zero at equal maps.

    Args:
        f_s: Student map after its regressor (`SizeRegressor`), ``[B, C, H, W]``.
        f_t: Teacher map, same shape; nothing is detached here.

    Raises:
        ValueError: The two shapes differ.

    Source:
        Romero et al.: FitNets: Hints for Thin Deep Nets, ICLR 2015, arXiv 1412.6550. Official
        values: RepDistiller ``distiller_zoo/FitNet.py``, mdistiller ``distillers/FitNet.py``. The
        paper takes half the squared distance as a first stage of training, then distils logits;
        both code bases add the hint to the cross-entropy in one stage with weight 100, followed
        here because the published tables come from them. (RSD's fork hides another factor of 0.1.)
    """
    require_same_maps(f_s, f_t)
    return F.mse_loss(f_s, f_t)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    stages = str(hyperparameters["stages"])
    regressors = [SizeRegressor(s, t) for s, t in compared_shapes(shapes, stages)]
    return AdaptedStages(stage_pairs(shapes, stages), regressors, fitnet)


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_regressor(shapes, str(hyperparameters["stages"]))


FITNET = Method(
    name="fitnet",
    title="FitNets: hints",
    source="Romero et al., ICLR 2015, arXiv 1412.6550",
    reads=("stages", "adaptor"),
    hyperparameters=(
        stages_hyperparameter("2", "the stages whose teacher maps are hints, summed"),
    ),
    build=_build,
    needs=needs_stages,
    refuse=_refuse,
    couples_batch=True,
    weight=100.0,
)
