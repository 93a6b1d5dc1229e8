"""SP: keep which images of a batch the teacher finds alike."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._connectors import needs_stages, total
from kdscale.losses._method import Method, PairShapes, Term
from kdscale.losses._numerics import full_precision
from kdscale.losses._stages import refuse_stages, stage_pairs, stages_hyperparameter
from kdscale.records import Value


@full_precision
def sp(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Returns ‖G_t - G_s‖² / B², a scalar, where G is F Fᵀ with each row divided by its 2-norm.

    F holds one flattened feature map a row, so G ``[B, B]`` says how alike two images of the batch
    are, and channels and grids of the two networks may differ. Reduction: sum of squares over B².
    No temperature. Zero at student = teacher. One positive factor on all features of a network,
    and a rotation of them, change nothing. The value depends on the batch size.

    Args:
        f_s: Student features ``[B, ...]``.
        f_t: Teacher features ``[B, ...]``; nothing is detached here.

    Raises:
        ValueError: The two batches differ in size.

    Source:
        Tung, Mori: Similarity-Preserving Knowledge Distillation, ICCV 2019, arXiv 1907.09682;
        RepDistiller ``distiller_zoo/SP.py``, "verified by original author". The paper sums over
        pairs of layers; RepDistiller takes the last stage alone, as the method does by default.
        Under several workers the code compares within each GPU's share; the objective gathers the
        global batch first.
    """
    require_same_batch(f_s, f_t)
    return F.mse_loss(_similarity(f_s), _similarity(f_t))


def require_same_batch(f_s: Tensor, f_t: Tensor) -> None:
    """Raises if the two tensors do not hold features of equally many images.

    Args:
        f_s: Student features ``[B, ...]``.
        f_t: Teacher features ``[B, ...]``.

    Raises:
        ValueError: The first axes differ.
    """
    if len(f_s) != len(f_t):
        raise ValueError(
            "student and teacher must hold features of the same images, "
            f"but got {len(f_s)} and {len(f_t)}"
        )


def _similarity(features: Tensor) -> Tensor:
    rows = features.flatten(1)
    return F.normalize(rows @ rows.T)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    pairs = stage_pairs(shapes, str(hyperparameters["stages"]))

    def term(batch: Batch) -> Tensor:
        return total([sp(batch.student.stages[s], batch.teacher.stages[t]) for s, t in pairs])

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    if shapes.batch_size < 2:
        return (
            "sp compares the images of a batch with each other, so the batch must hold at least "
            f"2, but got {shapes.batch_size}"
        )
    return refuse_stages(shapes, str(hyperparameters["stages"]))


SP = Method(
    name="sp",
    title="Similarity-preserving distillation",
    source="Tung, Mori, ICCV 2019, arXiv 1907.09682",
    reads=("stages",),
    hyperparameters=(
        stages_hyperparameter("last", "stages whose similarity matrices are compared, summed"),
    ),
    build=_build,
    needs=needs_stages,
    refuse=_refuse,
    couples_batch=True,
    weight=3000.0,
)
