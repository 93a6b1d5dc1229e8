"""NST: match the distribution of channels' spatial patterns by a polynomial-kernel MMD."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._connectors import needs_stages, refuse_unmatched_grids, total
from kdscale.losses._method import Method, PairShapes, Term
from kdscale.losses._numerics import full_precision, require_same_grid
from kdscale.losses._stages import match_height, stage_pairs, stages_hyperparameter
from kdscale.records import Value


@full_precision
def nst(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Returns mean k(t, t) + mean k(s, s) - 2 mean k(s, t), a scalar, for one stage.

    s and t are channels of one image, flattened over positions and divided by their L2 norm, and
    k(a, b) = ⟨a, b⟩². Reduction: mean over the batch and over pairs of channels. The higher map is
    first average-pooled to the lower one's height. No temperature. Zero at student = teacher, and
    whenever one image's channels are a permutation of the other's.

    With A the normalised channels ``[C, HW]``, Σ k over pairs is ‖A_s A_tᵀ‖², which is
    ⟨A_sᵀ A_s, A_tᵀ A_t⟩, so the value is also ‖A_sᵀ A_s / C_s - A_tᵀ A_t / C_t‖² per image. The
    form with the smaller matrices is computed; neither makes the code's C_s x C_t x HW products.

    Args:
        f_s: Student map ``[B, C_s, H_s, W_s]``.
        f_t: Teacher map ``[B, C_t, H_t, W_t]``; nothing is detached here.

    Raises:
        ValueError: The grids differ after pooling.

    Source:
        Huang, Wang: Like What You Like: Knowledge Distill via Neuron Selectivity Transfer, arXiv
        1707.01219. Official values: RepDistiller ``distiller_zoo/NST.py`` (mdistiller
        ``distillers/NST.py`` equals it), where k(t, t) is part of the value as here. The paper
        weighs MMD² by lambda / 2; the code's weight is 50.
    """
    f_s, f_t = match_height(f_s, f_t)
    require_same_grid(f_s, f_t)
    s = F.normalize(f_s.flatten(2), dim=2)
    t = F.normalize(f_t.flatten(2), dim=2)
    batch_size, channels_s, positions = s.shape
    channels_t = t.shape[1]
    if positions**2 <= channels_s * channels_t:
        gram_t = t.mT @ t
        difference = torch.baddbmm(gram_t, s.mT, s, beta=-1 / channels_t, alpha=1 / channels_s)
        return difference.square().sum() / batch_size
    return _mean_kernel(t, t) + _mean_kernel(s, s) - 2 * _mean_kernel(s, t)


def _mean_kernel(a: Tensor, b: Tensor) -> Tensor:
    """Returns the mean of ⟨a_i, b_j⟩² over batch and pairs, for channels ``[B, C, HW]``."""
    return (a @ b.mT).square().mean()


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    pairs = stage_pairs(shapes, str(hyperparameters["stages"]))

    def term(batch: Batch) -> Tensor:
        return total([nst(batch.student.stages[s], batch.teacher.stages[t]) for s, t in pairs])

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    return refuse_unmatched_grids(shapes, str(hyperparameters["stages"]))


NST = Method(
    name="nst",
    title="Neuron selectivity transfer",
    source="Huang, Wang, 2017, arXiv 1707.01219",
    reads=("stages",),
    hyperparameters=(stages_hyperparameter("all", "the stages compared, summed"),),
    build=_build,
    needs=needs_stages,
    refuse=_refuse,
    weight=50.0,
)
