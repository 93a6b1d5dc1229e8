"""AT: match where two networks look, the energy of their feature maps at each position."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._connectors import needs_stages, refuse_unmatched_grids, total
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_grid
from kdscale.losses._stages import match_height, stage_pairs, stages_hyperparameter
from kdscale.records import Value


@full_precision
def at(f_s: Tensor, f_t: Tensor, *, p: int = 2) -> Tensor:
    """Returns mean (A_s - A_t)², a scalar, with A the attention map of one stage.

    A = mean_c f^p over channels, divided by its L2 norm over positions. Reduction: mean over the
    B·H·W entries, so the value falls as 1 / HW. The higher map is first average-pooled to the
    lower one's height. No temperature. Zero at student = teacher, and unchanged if a sample's map
    is scaled.

    Args:
        f_s: Student map ``[B, C_s, H_s, W_s]``.
        f_t: Teacher map ``[B, C_t, H_t, W_t]``; nothing is detached here.
        p: The power, >= 1.

    Raises:
        ValueError: The grids differ after pooling.

    Source:
        Zagoruyko, Komodakis: Paying More Attention to Attention, ICLR 2017, arXiv 1612.03928.
        Official values: RepDistiller ``distiller_zoo/AT.py`` (mdistiller ``distillers/AT.py``
        equals it). The paper sums |f|^p over channels, the code averages f^p: equal after the
        normalisation for even p, or where features are positive, as after a ReLU; at odd p
        negative features count as negative here, as in the code. The paper's loss takes beta / 2
        times the norm of the difference, not squared, with beta = 1000 / (B·H·W); the code's mean
        square with weight 1000 is followed, because the published tables come from it.
    """
    f_s, f_t = match_height(f_s, f_t)
    require_same_grid(f_s, f_t)
    return F.mse_loss(_attention(f_s, p), _attention(f_t, p))


def _attention(f: Tensor, p: int) -> Tensor:
    """Returns the normalised attention map ``[B, H W]``."""
    return F.normalize(f.pow(p).mean(dim=1).flatten(1), dim=1)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    pairs = stage_pairs(shapes, str(hyperparameters["stages"]))
    p = int(hyperparameters["p"])

    def term(batch: Batch) -> Tensor:
        return total([at(batch.student.stages[s], batch.teacher.stages[t], p=p) for s, t in pairs])

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unmatched_grids(shapes, str(hyperparameters["stages"]))


AT = Method(
    name="at",
    title="Attention transfer",
    source="Zagoruyko, Komodakis, ICLR 2017, arXiv 1612.03928",
    reads=("stages",),
    hyperparameters=(
        stages_hyperparameter("all", "the stages compared, summed"),
        Hyperparameter(
            "p", 2, "power of the features before the mean over channels", low=1, high=4
        ),
    ),
    build=_build,
    needs=needs_stages,
    refuse=_refuse,
    weight=1000.0,
)
