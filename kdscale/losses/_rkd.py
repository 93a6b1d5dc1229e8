"""RKD: match the distances and the angles that the images of a batch form."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from kdscale.losses._batch import Batch
from kdscale.losses._method import Hyperparameter, Method, PairShapes, Term, needs_of_both
from kdscale.losses._numerics import full_precision, with_gradient
from kdscale.losses._sp import require_same_batch
from kdscale.outputs import present
from kdscale.records import Value

SQUARED_FLOOR = 1e-12
# Two images are taken for one if their squared distance is so small beside their squared norms:
# below it lies the rounding noise of float64.
SAME_IMAGE = 1e-12
# How many cosines are computed at once: they stay in a CPU's cache, and large batches fit.
CHUNK = 2**20


@full_precision
def rkd(e_s: Tensor, e_t: Tensor, *, distance_weight: float, angle_weight: float) -> Tensor:
    """Returns distance_weight x (distance loss) + angle_weight x (angle loss), a scalar.

    The distance loss is the mean over all B² pairs of smooth-L1(d_s, d_t), d the Euclidean
    distances over their mean off the diagonal; the student's mean is differentiated. The angle
    loss is the mean over all B³ triples (i, j, k) of smooth-L1 of the cosines at i between the
    directions to j and to k. The zeros at equal images are in both means, and there a cosine is 0.
    No temperature. Zero at student = teacher, and for features that are a shift, rotation or
    positive multiple of the teacher's.

    The cosines come from squared distances by the law of cosines, so that no B x B x B x D or
    B x B x D tensor is made and float32 does not lose them to cancellation; autograd keeps B x B.

    Args:
        e_s: Student embedding ``[B, D_s]``, B > 1.
        e_t: Teacher embedding ``[B, D_t]``; nothing is detached here.
        distance_weight: Weight of the distances.
        angle_weight: Weight of the angles; at 0 they are not computed.

    Raises:
        ValueError: The two batches differ in size, or B < 2.

    Source:
        Park et al.: Relational Knowledge Distillation, CVPR 2019, arXiv 1904.05068; official code
        lenscloth/RKD ``metric/loss.py`` and, the same with weights 25 and 50, RepDistiller
        ``distiller_zoo/RKD.py``. The paper takes the mean distance over pairs of different images,
        as here, and sums the losses where the code takes means. At two images with one embedding
        the code's gradient of the angles is of size 1e12; here it is 0. Under several workers the
        code compares within each GPU's share; the objective gathers the global batch first.
    """
    require_same_batch(e_s, e_t)
    if len(e_s) < 2:
        raise ValueError(f"rkd needs at least 2 images, but got {len(e_s)}")
    q_s, q_t = _squared_distances(e_s), _squared_distances(e_t)
    loss = distance_weight * F.smooth_l1_loss(_relative_distances(q_s), _relative_distances(q_t))
    if angle_weight == 0:
        return loss
    return loss + angle_weight * with_gradient(_angle_loss, _angle_loss_and_gradient, q_s, q_t)


def _squared_distances(e: Tensor) -> Tensor:
    """Returns ‖e_i - e_j‖² ``[B, B]``, rounded only once: it is computed in float64."""
    centred = e.double() - e.double().mean(dim=0)
    products = centred @ centred.T
    norms = products.diagonal()
    both = norms.unsqueeze(1) + norms
    squared = both - 2 * products
    same = squared <= SAME_IMAGE * both
    return squared.masked_fill(same | _diagonal(squared), 0).to(e.dtype)


def _diagonal(matrix: Tensor) -> Tensor:
    return torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)


def _relative_distances(squared: Tensor) -> Tensor:
    """Returns distances over their mean off the diagonal, ``[B, B]``."""
    size = len(squared)
    distances = squared.clamp(min=SQUARED_FLOOR).sqrt().masked_fill(_diagonal(squared), 0)
    return distances / (distances.sum() / (size * (size - 1)))


def _inverse_distances(squared: Tensor) -> Tensor:
    """Returns 1 / distance ``[B, B]``, 0 between equal images."""
    apart = squared > 0
    return torch.where(apart, squared, 1).rsqrt() * apart


def _cosines(squared: Tensor, inverse: Tensor, anchors: slice) -> Tensor:
    """Returns the cosine at anchor i between the directions to j and k, at ``[i, j, k]``."""
    near, scale = squared[anchors], 0.5 * inverse[anchors]
    cosines = near.unsqueeze(2) + near.unsqueeze(1) - squared
    return cosines * (scale.unsqueeze(2) * inverse[anchors].unsqueeze(1))


def _angle_loss(q_s: Tensor, q_t: Tensor) -> Tensor:
    """Returns the angle loss of squared distances ``[B, B]`` as a composition."""
    everyone = slice(None)
    cosines_t = _cosines(q_t, _inverse_distances(q_t), everyone)
    return F.smooth_l1_loss(_cosines(q_s, _inverse_distances(q_s), everyone), cosines_t)


def _angle_loss_and_gradient(q_s: Tensor, q_t: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the angle loss and its gradient in q_s ``[B, B]``, a chunk of anchors at a time."""
    size = len(q_s)
    inverse_s, inverse_t = _inverse_distances(q_s), _inverse_distances(q_t)
    value, gradient = q_s.new_zeros(()), torch.zeros_like(q_s)
    each = max(1, CHUNK // size**2)
    for start in range(0, size, each):
        anchors = slice(start, start + each)
        cosines = _cosines(q_s, inverse_s, anchors)
        difference = cosines - _cosines(q_t, inverse_t, anchors)
        slope = difference.clamp(-1, 1)
        value += (slope * (difference - 0.5 * slope)).sum()
        # Through the two distances from the anchor, and as their norms, ...
        gradient[anchors] -= (slope * cosines).sum(dim=2) * inverse_s[anchors].square()
        slope *= inverse_s[anchors].unsqueeze(2) * inverse_s[anchors].unsqueeze(1)
        gradient[anchors] += slope.sum(dim=2)
        # ... and through the distance opposite the anchor.
        gradient -= 0.5 * slope.sum(dim=0)
    return value / size**3, gradient / size**3


def _build(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> Term:
    distance_weight = float(hyperparameters["distance_weight"])
    angle_weight = float(hyperparameters["angle_weight"])

    def term(batch: Batch) -> Tensor:
        return rkd(
            present(batch.student.embedding),
            present(batch.teacher.embedding),
            distance_weight=distance_weight,
            angle_weight=angle_weight,
        )

    return term


def _refuse(shapes: PairShapes, hyperparameters: Mapping[str, Value]) -> str:
    if shapes.batch_size < 2:
        return (
            "rkd needs distances between the images of a batch, so the batch must hold at least 2, "
            f"but got {shapes.batch_size}"
        )
    return ""


RKD = Method(
    name="rkd",
    title="Relational knowledge distillation",
    source="Park et al., CVPR 2019, arXiv 1904.05068",
    reads=("embedding",),
    hyperparameters=(
        Hyperparameter(
            "distance_weight", 25.0, "weight of the pairwise distances", low=0, search=(1, 100)
        ),
        Hyperparameter(
            "angle_weight",
            50.0,
            "weight of the angles; B³ cosines are computed unless it is 0",
            low=0,
            search=(2, 200),
        ),
    ),
    build=_build,
    needs=needs_of_both("embedding"),
    refuse=_refuse,
    couples_batch=True,
)
