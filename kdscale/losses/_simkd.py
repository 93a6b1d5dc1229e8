"""SimKD: match the teacher's last map, and classify with the teacher's own classifier."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import (
    Hyperparameter,
    Method,
    PairShapes,
    Term,
    needs_of_both,
    refuse_unequal_classes,
)
from kdscale.losses._numerics import full_precision
from kdscale.outputs import present
from kdscale.records import Value


@full_precision
def simkd(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Returns the mean of (F_s - F_t)² over all elements, a scalar.

    Reduction: mean over B C_t H W. No temperature. Zero at student = teacher. A teacher's map
    that is higher than the student's is average-pooled to its size first; the other way round it
    is the student's network that pools, before its projector.

    Args:
        f_s: The student's projected map ``[B, C_t, H, W]``.
        f_t: The teacher's map ``[B, C_t, H_t, W_t]``, H_t >= H; nothing is detached here.

    Raises:
        ValueError: The channels differ, or the student's map is the higher one.

    Source:
        Chen et al.: Knowledge Distillation with the Reused Teacher Classifier, CVPR 2022, arXiv
        2203.14001; official code DefangChen/SimKD ``models/util.py`` (SimKD) and
        ``helper/loops.py``, where this is the only loss: no cross-entropy, no KD (-c 0 -d 0 -b 1).
        Its projector ends in a ReLU, so that it can only reach maps that are nowhere negative.
    """
    if f_s.shape[:2] != f_t.shape[:2] or f_s.shape[2] > f_t.shape[2]:
        raise ValueError(
            "maps must have the same images and channels, the teacher's at least the student's "
            f"height, but got {list(f_s.shape)} and {list(f_t.shape)}"
        )
    if f_s.shape[2:] != f_t.shape[2:]:
        f_t = F.adaptive_avg_pool2d(f_t, (f_s.shape[2], f_s.shape[3]))
    return F.mse_loss(f_s, f_t)


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    def term(batch: Batch) -> Tensor:
        return simkd(present(batch.student.map), present(batch.teacher.map))

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    grids = []
    for name, side in (("student", shapes.student), ("teacher", shapes.teacher)):
        if side.map is None:
            return (
                f"simkd projects the last map, so the {name} must have one whose mean is the "
                "embedding, but this model has none"
            )
        grids.append(side.map)
    if shapes.batch_size < 2 and (1, 1) in (grid[1:] for grid in grids):
        return (
            "simkd's BatchNorm needs more than one value a channel, so with maps of 1 x 1 the "
            f"global batch must hold at least 2 images, but got {shapes.batch_size}"
        )
    if not shapes.teacher.linear:
        return (
            "simkd takes over the teacher's classifier, which must be linear, but this teacher "
            "has none"
        )
    return refuse_unequal_classes(shapes)


SIMKD = Method(
    name="simkd",
    title="Simple knowledge distillation, reused teacher classifier",
    source="Chen et al., CVPR 2022, arXiv 2203.14001",
    reads=("map", "classifier"),
    hyperparameters=(
        Hyperparameter(
            "factor",
            2,
            "the projector's middle channels are the teacher's divided by this",
            low=1,
            search=(1, 8),
        ),
    ),
    build=_build,
    refuse=_refuse,
    needs=needs_of_both("map"),
    student="simkd",
)
