"""ICKD: match how an image's channels correlate with each other.

The connector's BatchNorm looks across the batch, so features are gathered over all workers and the
loss does not depend on their number; ``per_worker`` leaves that out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._connectors import (
    AdaptedStages,
    Connector,
    compared_shapes,
    needs_stages,
    refuse_one_value,
)
from kdscale.losses._method import Method, PairShapes, Term
from kdscale.losses._numerics import full_precision
from kdscale.losses._stages import refuse_stages, stage_pairs, stages_hyperparameter
from kdscale.records import Value

SMALLEST_NORM = 1e-12


@full_precision
def ickd(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Returns (1 / (C B)) Σ ‖G_s - G_t‖², a scalar, with G the row-normalised channel Gram matrix.

    G = F Fᵀ for an image's channels F ``[C, HW]``, each row divided by its L2 norm (at least
    1e-12). Reduction: sum over the C² entries / C, mean over the batch. No temperature. Zero at
    student = teacher, and unchanged if an image's map is scaled. The two grids may differ.

    For C > HW no C x C matrix is made: with M = F_sᵀ F_t the inner product of two rows of the Gram
    matrices is (F_s M F_tᵀ)_ii, and a squared distance of unit rows is 2 - 2 x that product.

    Args:
        f_s: Student map after its connector (`Connector`), ``[B, C, H_s, W_s]``.
        f_t: Teacher map ``[B, C, H_t, W_t]``; nothing is detached here.

    Raises:
        ValueError: Batch or channels differ.

    Source:
        Liu et al.: Exploring Inter-Channel Correlation for Diversity-preserved Knowledge
        Distillation, ICCV 2021, arXiv 2202.03680, ICKD-C; official code ADLab-AutoDrive/ICKD
        ``Cifar100/distiller_zoo/ICKD.py``, weight 2.5, with KD of weight 1 (T = 4) beside it for
        the published "ICKD-C" and without for "w/o KL". The code's row normalisation is followed.
        The code embeds the student's map even where the channels are equal, and so does the
        method. The paper's grid-level form for dense prediction is not here.
    """
    if f_s.ndim != 4 or f_t.ndim != 4 or f_s.shape[:2] != f_t.shape[:2]:
        raise ValueError(
            "student and teacher maps must have one batch and number of channels, "
            f"but got {list(f_s.shape)} and {list(f_t.shape)}"
        )
    s, t = f_s.flatten(2), f_t.flatten(2)
    batch_size, channels, positions = s.shape
    if max(positions, t.shape[2]) < channels:
        distances = _row_distances(s, t)
    else:
        distances = (_gram(s) - _gram(t)).square()
    return distances.sum() / (channels * batch_size)


def _gram(f: Tensor) -> Tensor:
    return F.normalize(f @ f.mT, dim=2)


def _row_distances(s: Tensor, t: Tensor) -> Tensor:
    """Returns ‖g_s - g_t‖² for each row g of the normalised Gram matrices, ``[B, C]``."""
    squares_s, squares_t = _row_products(s, s), _row_products(t, t)
    scale_s, scale_t = _inverse_norm(squares_s), _inverse_norm(squares_t)
    products = _row_products(s, t) * (scale_s * scale_t)
    return squares_s * scale_s.square() + squares_t * scale_t.square() - 2 * products


def _row_products(a: Tensor, b: Tensor) -> Tensor:
    """Returns ⟨(a aᵀ)_i, (b bᵀ)_i⟩ for each channel i of maps ``[B, C, HW]``, ``[B, C]``."""
    return (a @ (a.mT @ b) * b).sum(dim=2)


def _inverse_norm(squares: Tensor) -> Tensor:
    return squares.clamp_min(SMALLEST_NORM**2).rsqrt()


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    stages = str(hyperparameters["stages"])
    connectors = [Connector(s[0], t[0]) for s, t in compared_shapes(shapes, stages)]
    return AdaptedStages(stage_pairs(shapes, stages), connectors, ickd)


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    stages = str(hyperparameters["stages"])
    if reason := refuse_stages(shapes, stages):
        return reason
    return refuse_one_value(shapes.batch_size, [s for s, _ in compared_shapes(shapes, stages)])


ICKD = Method(
    name="ickd",
    title="Inter-channel correlation distillation",
    source="Liu et al., ICCV 2021, arXiv 2202.03680",
    reads=("stages", "adaptor"),
    hyperparameters=(stages_hyperparameter("last", "the stages compared, summed"),),
    build=_build,
    needs=needs_stages,
    refuse=_refuse,
    couples_batch=True,
    weight=2.5,
)
